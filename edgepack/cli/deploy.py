"""``edgepack deploy``: everything in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgepack.cli import render_device
from edgepack.cli.bundles import (
    AllowedSignersOption,
    CounterOption,
    ExtraIndexOption,
    PlatformOption,
    SignOption,
    WheelsOption,
    WithoutRuntimeOption,
)
from edgepack.cli.devices import (
    AgainstOption,
    BudgetOption,
    DeviceArgument,
    MaxSecondsOption,
    MinRunsOption,
    MinSecondsOption,
    NiceOption,
    RetryWhenCoolOption,
)
from edgepack.cli.lazy import Table
from edgepack.cli.model import (
    BatchOption,
    CheckSetOption,
    InputShapeOption,
    MetricOption,
    SignatureOption,
    TargetOption,
)
from edgepack.cli.verb import Run, verb
from edgepack.errors import InputError


def add_commands(table: Table) -> None:
    """Put this module's command into the table."""

    @verb(table, "deploy", device=True, changes=True, locks=True, long=True)
    def deploy(
        run: Run,
        device: DeviceArgument,
        source: Annotated[
            Path | None, typer.Argument(metavar="[MODEL|FILE.edgepack]", help="[the model of edgepack.toml]")
        ] = None,
        target: TargetOption = None,
        name: Annotated[str | None, typer.Option("--name", metavar="APP", help="The app's name on the device.")] = None,
        version: Annotated[str | None, typer.Option("--version", metavar="V", help="The release's version.")] = None,
        calibration: Annotated[
            str | None, typer.Option("--calibration", metavar="SAMPLES", help="To set int8 ranges, as of quantize.")
        ] = None,
        evaluation: Annotated[
            str | None, typer.Option("--eval", metavar="SAMPLES", help="To measure accuracy, as of quantize.")
        ] = None,
        check_set: CheckSetOption = None,
        metric: MetricOption = "top1",
        batch: BatchOption = 1,
        signature: SignatureOption = None,
        input_shape: InputShapeOption = None,
        budget: BudgetOption = None,
        min_runs: MinRunsOption = None,
        min_seconds: MinSecondsOption = None,
        max_seconds: MaxSecondsOption = None,
        nice: NiceOption = 0,
        retry_when_cool: RetryWhenCoolOption = False,
        against: AgainstOption = None,
        unchecked: Annotated[
            bool, typer.Option("--unchecked", help="Activate whatever the check says; the history says so.")
        ] = False,
        sign: SignOption = None,
        counter: CounterOption = None,
        platform: PlatformOption = None,
        wheels: WheelsOption = None,
        without_runtime: WithoutRuntimeOption = False,
        extra_index: ExtraIndexOption = None,
        allowed_signers: AllowedSignersOption = None,
    ) -> int:
        """Quantize, bundle, push, check and activate in one go, from edgepack.toml or flags."""
        from edgepack import deploy as deploy_model
        from edgepack.project import budget_from_pairs

        document = deploy_model(
            device,
            source,
            project=run.project,
            target=target,
            name=_one_name(run.app, name),
            version=version,
            calibration=calibration,
            evaluation=evaluation,
            check_set=check_set,
            batch=batch or None,
            signature=signature,
            input_shapes=input_shape or (),
            metric=metric,
            budget=budget_from_pairs(budget or []),
            min_runs=min_runs,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            nice=nice,
            retry_when_cool=retry_when_cool,
            against=against,
            unchecked=unchecked,
            sign=sign,
            counter=counter,
            platforms=platform or None,
            wheels=wheels,
            with_runtime=not without_runtime,
            extra_indexes=extra_index or (),
            allowed_signers=allowed_signers,
            options=run.connect_options,
            dry_run=run.dry_run,
            report=run.report,
        )
        stopped = document.check if document.activate is None else None
        code = 0 if stopped is None else render_device.EXIT_CODE_OF_VERDICT[stopped.verdict]
        return run.answer(document, render_device.deployed(document, dry_run=run.dry_run), code)


def _one_name(app: str | None, name: str | None) -> str | None:
    """``--app`` is how every command names an app, ``--name`` how bundle does: deploy takes either."""
    if app is not None and name is not None and app != name:
        raise InputError(
            "usage",
            f"--name says {name}, --app (or EDGEPACK_APP) says {app}.",
            hint="One is enough: leave the other out.",
        )
    return name if name is not None else app
