"""The commands that reach a device: probe, push, check, activate, rollback, status, history, gc."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgepack.cli import render_device
from edgepack.cli.bundles import AllowedSignersOption
from edgepack.cli.complete import against_names, device_names
from edgepack.cli.lazy import Table
from edgepack.cli.model import JunitOption, MarkdownOption, MetricOption, ReportOption
from edgepack.cli.output import write_document
from edgepack.cli.verb import Run, verb
from edgepack.errors import InputError
from edgepack.files import check_output, is_document

if TYPE_CHECKING:
    from edgepack.deploy.hooks import Hooks

DeviceArgument = Annotated[
    str,
    typer.Argument(
        metavar="DEVICE",
        help="user@host[:port], an alias of ~/.ssh/config, ssh://user@host:port, local: or local:/some/root.",
        autocompletion=device_names,
    ),
]
ReleaseOption = Annotated[
    str | None, typer.Option("--release", metavar="ID", help="Another release than the candidate.")
]

BudgetOption = Annotated[
    list[str] | None,
    typer.Option("--budget", metavar="KEY=VALUE", help="Override the bundle's budget, e.g. p95_ms=20."),
]
MinRunsOption = Annotated[int | None, typer.Option("--min-runs", min=1, help="At least so many timed runs.")]
MinSecondsOption = Annotated[float | None, typer.Option("--min-seconds", min=0.0, help="Measure for at least so long.")]
MaxSecondsOption = Annotated[
    float | None, typer.Option("--max-seconds", min=0.1, help="Stop measuring after this time.")
]
LayersOption = Annotated[
    bool, typer.Option("--layers", help="Compare device and host layer by layer, also where their outputs agree.")
]
LayersOfOption = Annotated[
    Path | None,
    typer.Option("--layers-of", metavar="MODEL.tflite", help="Hold the device's layers against this model's."),
]
StreamedSetOption = Annotated[
    str | None,
    typer.Option(
        "--check-set", metavar="SAMPLES", help="Samples of this machine, sent in pieces [those of the release]."
    ),
]
NiceOption = Annotated[
    int, typer.Option("--nice", min=0, max=19, help="Measure at this niceness, after what else the device does.")
]
RetryWhenCoolOption = Annotated[
    bool,
    typer.Option("--retry-when-cool", help="Where the device was throttled, wait until it is cool and measure again."),
]
AgainstOption = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="current|ID",
        help="Run another release in turns, and tell the ratio.",
        autocompletion=against_names,
    ),
]
RandomInputsOption = Annotated[
    bool, typer.Option("--random-inputs", help="Time the model on random inputs, not on the check set's.")
]


def add_commands(table: Table) -> None:
    """Put this module's commands into the table."""
    _add_reading_commands(table)
    _add_push_and_check(table)
    _add_switching_commands(table)


def _add_reading_commands(table: Table) -> None:
    @verb(table, "probe", device=True, app=False)
    def probe(run: Run, device: DeviceArgument) -> int:
        """Tell what a device is, which profiles fit it, and what is missing for the others."""
        from edgepack import probe as probe_device
        from edgepack.cli import render_probe

        document = probe_device(device, options=run.connect_options)
        return run.answer(document, render_probe.probed(document))

    @verb(table, "status", device=True)
    def status(run: Run, device: DeviceArgument) -> int:
        """Show which release is active, which was before, which is the candidate."""
        from edgepack import status as device_status

        document = device_status(device, app=run.app_name, options=run.connect_options)
        return run.answer(document, render_device.status(document))

    @verb(table, "history", device=True)
    def history(run: Run, device: DeviceArgument) -> int:
        """Show every activation and rollback, oldest first."""
        from edgepack import history as device_history

        document = device_history(device, app=run.app_name, options=run.connect_options)
        return run.answer(document, render_device.history(document))


def _add_push_and_check(table: Table) -> None:
    @verb(table, "push", device=True, changes=True, locks=True, long=True)
    def push(
        run: Run,
        file: Annotated[Path, typer.Argument(metavar="FILE.edgepack", help="A bundle.")],
        device: DeviceArgument,
        allowed_signers: AllowedSignersOption = None,
    ) -> int:
        """Stage and verify a release on a device and make it the candidate; activate nothing."""
        from edgepack import push as push_bundle

        if not file.exists() and Path(device).is_file():
            raise InputError(
                "usage",
                f"{device} is a file, and {file} is none.",
                hint=f"The file first: edgepack push {device} {file}",
            )
        document = push_bundle(
            file,
            device,
            app=run.app,
            allowed_signers=allowed_signers or run.allowed_signers,
            options=run.connect_options,
            dry_run=run.dry_run,
            report=run.report,
        )
        return run.answer(document, render_device.pushed(document, dry_run=run.dry_run))

    @verb(table, "check", device=True, changes=True, locks=True, long=True)
    def check(
        run: Run,
        device: DeviceArgument,
        release: ReleaseOption = None,
        output: Annotated[
            Path | None, typer.Option("-o", "--output", metavar="FILE.json", help="Also write the document here.")
        ] = None,
        report_file: ReportOption = None,
        junit: JunitOption = None,
        markdown: MarkdownOption = None,
        metric: MetricOption = "top1",
        budget: BudgetOption = None,
        min_runs: MinRunsOption = None,
        min_seconds: MinSecondsOption = None,
        max_seconds: MaxSecondsOption = None,
        nice: NiceOption = 0,
        layers: LayersOption = False,
        layers_of: LayersOfOption = None,
        retry_when_cool: RetryWhenCoolOption = False,
        random_inputs: RandomInputsOption = False,
        against: AgainstOption = None,
        check_set: StreamedSetOption = None,
    ) -> int:
        """Measure latency, memory and accuracy on the device, and give a verdict: exit 0, 1 or 3."""
        from edgepack import check as check_release

        _check_places(output, report_file, junit, markdown)
        document = check_release(
            device,
            app=run.app_name,
            release=release,
            options=run.connect_options,
            budget=_budget(run, budget or []),
            metric=metric,
            min_runs=min_runs,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            nice=nice,
            layers=layers,
            layers_of=layers_of,
            retry_when_cool=retry_when_cool,
            random_inputs=random_inputs,
            against=against,
            check_set=check_set,
            preprocessing=run.project.samples if run.project and check_set else None,
            dry_run=run.dry_run,
            report=run.report,
        )
        if output is not None:
            write_document(output, document)
        if report_file is not None or junit is not None or markdown is not None:
            from edgepack.report import write_reports

            write_reports(document, report_file, junit, markdown)
        return run.answer(
            document,
            render_device.checked(document, dry_run=run.dry_run),
            render_device.EXIT_CODE_OF_VERDICT[document.verdict],
        )


def _check_places(output: Path | None, page: Path | None, junit: Path | None, markdown: Path | None) -> None:
    """Refuse places that cannot be written to before the device is called. Raises InputError "bad-output"."""
    if output is not None:
        check_output(output, "what `check -o` writes", lambda path: is_document(path, "verdict", "reasons"))
    if page is not None or junit is not None or markdown is not None:
        from edgepack.report import check_report_places, refuse_shared

        check_report_places(page, junit, markdown)
        named = (("--output", output), ("--report", page), ("--junit", junit), ("--markdown", markdown))
        refuse_shared((option, place) for option, place in named if place is not None)


def _add_switching_commands(table: Table) -> None:
    @verb(table, "activate", device=True, changes=True, locks=True, long=True)
    def activate(
        run: Run,
        device: DeviceArgument,
        release: ReleaseOption = None,
        unchecked: Annotated[
            bool, typer.Option("--unchecked", help="Activate without a PASS from this device; the history says so.")
        ] = False,
    ) -> int:
        """Switch to the candidate in one atomic step, run the hooks, go back if one fails."""
        from edgepack import activate as activate_release

        document = activate_release(
            device,
            app=run.app_name,
            release=release,
            unchecked=unchecked,
            hooks=_hooks(run),
            options=run.connect_options,
            dry_run=run.dry_run,
            report=run.report,
        )
        return run.answer(document, render_device.activated(document, "activated", dry_run=run.dry_run))

    @verb(table, "rollback", device=True, changes=True, locks=True, long=True)
    def rollback(
        run: Run,
        device: DeviceArgument,
        release: Annotated[
            str | None, typer.Option("--release", metavar="ID", help="Another release than the previous one.")
        ] = None,
    ) -> int:
        """Switch back to the release that was active before."""
        from edgepack import rollback as roll_back

        document = roll_back(
            device,
            app=run.app_name,
            release=release,
            hooks=_hooks(run),
            options=run.connect_options,
            dry_run=run.dry_run,
            report=run.report,
        )
        return run.answer(document, render_device.activated(document, "rolled back to", dry_run=run.dry_run))

    @verb(table, "gc", device=True, changes=True, locks=True)
    def gc(
        run: Run,
        device: DeviceArgument,
        keep: Annotated[int, typer.Option("--keep", min=0, help="How many of the newest releases to keep.")] = 3,
    ) -> int:
        """Remove old releases and unused runtimes; never what is current, previous or the candidate."""
        from edgepack import gc as collect

        document = collect(device, app=run.app_name, keep=keep, options=run.connect_options, dry_run=run.dry_run)
        return run.answer(document, render_device.collected(document, dry_run=run.dry_run))


def _budget(run: Run, pairs: list[str]) -> dict[str, Any]:
    """The limits that override the bundle's: edgepack.toml's [budget], then each ``KEY=VALUE`` of ``--budget``."""
    from edgepack.project import budget_from_pairs, own_settings

    return {**(own_settings(run.project, run.app, "budget") or {}), **budget_from_pairs(pairs)}


def _hooks(run: Run) -> Hooks | None:
    """The hooks of edgepack.toml, if it is that of the app that is meant."""
    from edgepack.project import own_settings

    found: Hooks | None = own_settings(run.project, run.app, "hooks")
    return found
