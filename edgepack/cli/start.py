"""``edgepack targets``, ``init``, ``doctor`` and ``demo``: where a person starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgepack.cli import render, render_device
from edgepack.cli.complete import target_names
from edgepack.cli.lazy import Table, command_group
from edgepack.cli.verb import Run, verb


def add_commands(table: Table) -> None:
    """Put this module's commands into the table."""
    _add_targets(table)

    @verb(table, "init", changes=True)
    def init(
        run: Run,
        folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where to start a project.")] = Path(),
        force: Annotated[bool, typer.Option("--force", help="Overwrite an edgepack.toml that is there.")] = False,
    ) -> int:
        """Write a starter edgepack.toml, each line explained."""
        from edgepack.starter import write_starter

        made = "" if folder.is_dir() else f" into the new folder {folder}"
        path = write_starter(folder, force=force, dry_run=run.dry_run)
        done = "would write" if run.dry_run else "wrote"
        text = f"{done} {path}{made}\nNext: fill in target, model and samples, then `edgepack deploy user@device`."
        return run.answer({"schema": 1, "path": str(path)}, text)

    @verb(table, "doctor")
    def doctor(run: Run) -> int:
        """Say what this machine has for the job, what it lacks, and the command that mends it."""
        from edgepack.cli import render_probe
        from edgepack.doctor import examine

        document = examine()
        return run.answer(document, render_probe.doctor(document), 0 if document.healthy else 2)

    @verb(table, "demo", long=True)
    def demo(
        run: Run,
        keep: Annotated[
            Path | None, typer.Option("--keep", metavar="FOLDER", help="Keep the demo's files in this new folder.")
        ] = None,
    ) -> int:
        """Do the whole main job on this machine: train, quantize, bundle, push over SSH, check, activate, predict."""
        from edgepack.demo import run_demo

        document = run_demo(keep=keep, report=run.report)
        return run.answer(document, render.demo(document), render_device.EXIT_CODE_OF_VERDICT[document.check.verdict])


def _add_targets(table: Table) -> None:
    targets: Table = {}
    table["targets"] = command_group(targets, "The target profiles: list them, show one.")

    @verb(targets, "list")
    def list_(run: Run) -> int:
        """List the profiles: built in, from ./targets, from your configuration folder."""
        from edgepack.target import list_targets
        from edgepack.target.find import target_origin

        origins = {target: target_origin(target.name) for target in list_targets(run.report)}
        shown = [{**target.to_json(), "origin": origin} for target, origin in origins.items()]
        return run.answer({"schema": 1, "targets": shown}, render.targets(origins))

    @verb(targets, "show")
    def show(
        run: Run,
        name: Annotated[
            str, typer.Argument(metavar="NAME", help="A profile's name or file.", autocompletion=target_names)
        ],
        toml: Annotated[bool, typer.Option("--toml", help="As the TOML of a complete profile, to copy.")] = False,
    ) -> int:
        """Show one profile with everything that it inherits, and where it comes from."""
        from edgepack.target import load_target
        from edgepack.target.find import target_origin
        from edgepack.target.written import profile_toml

        target, origin = load_target(name), target_origin(name)
        text = profile_toml(target) if toml else render.target(target, origin)
        return run.answer({"schema": 1, **target.to_json(), "origin": origin}, text)
