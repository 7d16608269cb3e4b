"""``edgepack tune``: the smallest and fastest model within an accuracy budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgepack.cli import render, render_device
from edgepack.cli.complete import device_names
from edgepack.cli.lazy import Table
from edgepack.cli.model import (
    SAMPLES_HELP,
    BatchOption,
    CacheOption,
    CalibrationOption,
    CheckSetOption,
    InputShapeOption,
    MaxDropOption,
    MetricOption,
    ModelArgument,
    ReportOption,
    ResamplesOption,
    SignatureOption,
    TargetOption,
)
from edgepack.cli.output import required
from edgepack.cli.tables import table
from edgepack.cli.verb import Run, verb
from edgepack.words import size

if TYPE_CHECKING:
    from edgepack.documents import TunedCandidate, TuneDocument


def add_commands(table: Table) -> None:
    """Put this module's command into the table."""

    @verb(table, "tune", device=True, changes=True, locks=True, long=True)
    def tune(
        run: Run,
        model: ModelArgument,
        target: TargetOption = None,
        calibration: CalibrationOption = None,
        evaluation: Annotated[
            str | None, typer.Option("--eval", metavar="SAMPLES", help=f"Labelled, to judge by: {SAMPLES_HELP}")
        ] = None,
        max_drop: MaxDropOption = None,
        on: Annotated[
            str | None,
            typer.Option(
                "--on",
                metavar="DEVICE",
                help="Measure what keeps the budget on this device; nothing stays there.",
                autocompletion=device_names,
            ),
        ] = None,
        check_set: CheckSetOption = None,
        output: Annotated[
            Path | None, typer.Option("-o", "--output", metavar="OUT.tflite", help="Where to write the chosen model.")
        ] = None,
        metric: MetricOption = "top1",
        batch: BatchOption = 1,
        signature: SignatureOption = None,
        input_shape: InputShapeOption = None,
        cache: CacheOption = True,
        report_file: ReportOption = None,
        resamples: ResamplesOption = None,
    ) -> int:
        """Find the smallest and fastest model that keeps an accuracy budget on a target."""
        from edgepack import tune as tune_model

        project = run.project
        document = tune_model(
            model,
            target=required(target or (project.target if project else None), "--target"),
            calibration=calibration or (project.calibration if project else None),
            evaluation=required(evaluation or (project.eval if project else None), "--eval"),
            check_set=check_set or (project.check_set if project else None),
            preprocessing=project.samples if project else None,
            max_drop=max_drop,
            budget=project.budget if project else None,
            output=required(output, "-o/--output"),
            metric=metric,
            batch=batch or None,
            signature=signature,
            input_shapes=input_shape or (),
            cache=cache,
            on=on,
            app=run.app_name,
            options=run.connect_options if on else None,
            report_file=report_file,
            dry_run=run.dry_run,
            report=run.report,
            resamples=resamples,
        )
        return run.answer(document, tuned(document, dry_run=run.dry_run))


def tuned(document: TuneDocument, *, dry_run: bool = False) -> str:
    """What was tried, a line each (``*`` on the Pareto front, ``x`` not for the target), what was chosen and why."""
    with_latency = any(one.latency_ms for one in document.candidates)
    header = ["", "candidate", "drop", "bytes", *(["p50", "p95"] if with_latency else [])]
    tried = table([_line(one, with_latency) for one in document.candidates], header)
    rows = [
        ["chosen", document.chosen],
        ["because", document.reason],
        ["model", f"{document.model.path}  ({size(document.model.bytes)}, {document.model.scheme})"],
        ["target", document.target],
        *([["measured on", document.device]] if document.device else []),
        *([["accuracy", render.accuracy(document.accuracy)]] if document.accuracy else []),
        *([["check set", document.check_set]] if document.check_set else []),
        *([["report", document.report]] if document.report else []),
        *([found.severity, f"{found.message} {found.cure}".strip()] for found in document.conformance.findings),
        *([f"not {document.target}", f"{one.name}: {one.reason}"] for one in document.candidates if one.reason),
        *(["no latency", f"{one.name}: {one.inconclusive}"] for one in document.candidates if one.inconclusive),
        *([["dry run", "nothing was written; this is what would be"]] if dry_run else []),
    ]
    return f"{tried}\n\n{table(rows)}"


def _line(one: TunedCandidate, with_latency: bool) -> list[str]:
    drop = "—" if one.drop is None else f"{round(one.drop, 4) + 0.0:+.4f}"  # not -0.0000
    if one.interval is not None:
        drop += f" [{one.interval.low:+.4f}, {one.interval.high:+.4f}]"
    p50, p95 = (None, None) if one.latency_ms is None else (one.latency_ms.p50, one.latency_ms.p95)
    return [
        "→" if one.chosen else "*" if one.on_front else "" if one.legal else "x",
        one.name,
        drop,
        "—" if one.bytes is None else f"{one.bytes:,}",
        *([render_device.milliseconds(p50), render_device.milliseconds(p95)] if with_latency else []),
    ]
