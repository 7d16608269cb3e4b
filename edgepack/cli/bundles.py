"""``edgepack bundle``, ``inspect`` and ``verify``: one file that holds all a device needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgepack.cli import render
from edgepack.cli.lazy import Table
from edgepack.cli.model import TargetOption
from edgepack.cli.output import required
from edgepack.cli.verb import Run, verb

SignOption = Annotated[
    Path | None,
    typer.Option(
        "--sign", metavar="KEY", help="Sign with this SSH key: a file, or the public key of one in ssh-agent."
    ),
]
CounterOption = Annotated[
    int | None,
    typer.Option("--counter", min=0, metavar="N", help="Higher with each release: pinned devices take none twice."),
]
PlatformOption = Annotated[
    list[str] | None,
    typer.Option(
        "--platform", metavar="PYTHON,ARCH,LIBC", help="For this, or part of it: which of the target's [all]."
    ),
]
WheelsOption = Annotated[
    Path | None,
    typer.Option("--wheels", metavar="FOLDER", help="Take wheels from here alone, also unlocked ones."),
]
WithoutRuntimeOption = Annotated[
    bool, typer.Option("--without-runtime", help="Carry no wheels: the device has its runtime.")
]
ExtraIndexOption = Annotated[
    list[str] | None,
    typer.Option("--extra-index", metavar="URL", help="Let pip ask this package index for the wheels as well."),
]
AllowedSignersOption = Annotated[
    Path | None,
    typer.Option(
        "--allowed-signers", metavar="FILE", help="Take it only if one of these signed it, as `ssh-keygen -Y verify`."
    ),
]
BundleArgument = Annotated[Path, typer.Argument(metavar="FILE.edgepack", help="A bundle.")]


def add_commands(table: Table) -> None:
    """Put this module's commands into the table."""

    @verb(table, "bundle", changes=True, long=True)
    def bundle(
        run: Run,
        model: Annotated[Path, typer.Argument(metavar="MODEL.tflite", help="What `edgepack quantize` made.")],
        target: TargetOption = None,
        name: Annotated[str | None, typer.Option("--name", metavar="APP", help="The app's name on the device.")] = None,
        version: Annotated[str | None, typer.Option("--version", metavar="V", help="The release's version.")] = None,
        output: Annotated[
            Path | None,
            typer.Option("-o", "--output", metavar="FILE.edgepack", help="Where to write [APP-V.edgepack]."),
        ] = None,
        platform: PlatformOption = None,
        wheels: WheelsOption = None,
        without_runtime: WithoutRuntimeOption = False,
        extra_index: ExtraIndexOption = None,
        sign: SignOption = None,
        counter: CounterOption = None,
    ) -> int:
        """Pack model, loader, check set and the runtime's wheels into one reproducible file."""
        from edgepack import bundle as make_bundle

        project = run.project
        if project is not None:
            name = project.name if name is None else name
            version = project.version if version is None else version
            sign = project.sign.get("key") if sign is None else sign
        app_name = required(name, "--name")
        app_version = required(version, "--version")
        document = make_bundle(
            model,
            target=required(target or (project.target if project else None), "--target"),
            name=app_name,
            version=app_version,
            output=output or Path(f"{app_name}-{app_version}.edgepack"),
            platforms=platform or None,
            wheels=wheels,
            with_runtime=not without_runtime,
            extra_indexes=extra_index or (),
            sign=sign,
            counter=counter,
            dry_run=run.dry_run,
            report=run.report,
        )
        return run.answer(document, render.bundled(document, dry_run=run.dry_run))

    @verb(table, "inspect")
    def inspect(
        run: Run,
        files: Annotated[list[Path], typer.Argument(metavar="FILE.edgepack...", help="A bundle; with --diff two.")],
        diff: Annotated[bool, typer.Option("--diff", help="What changed from the first bundle to the second.")] = False,
    ) -> int:
        """Show what is in a bundle, or what changed between two."""
        from edgepack import diff_bundles, errors
        from edgepack import inspect as inspect_bundle
        from edgepack.cli import render_bundle

        if len(files) != (2 if diff else 1):
            raise errors.InputError(
                "usage",
                f"`inspect` takes one bundle, `inspect --diff` two; {len(files)} were given.",
                hint="See `edgepack inspect --help`.",
            )
        if diff:
            changes = diff_bundles(files[0], files[1])
            return run.answer(changes, render_bundle.bundle_diff(changes))
        document = inspect_bundle(files[0])
        return run.answer(document, render_bundle.inspected(document))

    @verb(table, "verify", long=True)
    def verify(run: Run, file: BundleArgument, allowed_signers: AllowedSignersOption = None) -> int:
        """Recompute every digest of a bundle and check its signature."""
        from edgepack import verify as verify_bundle

        document = verify_bundle(file, allowed_signers=allowed_signers or run.allowed_signers, report=run.report)
        return run.answer(document, render.verified(document))
