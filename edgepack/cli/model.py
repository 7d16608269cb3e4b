"""``edgepack quantize``: from a trained model to a .tflite that the target can run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgepack.cli import render
from edgepack.cli.complete import target_names
from edgepack.cli.lazy import Table
from edgepack.cli.output import required
from edgepack.cli.verb import Run, verb
from edgepack.errors import InputError
from edgepack.words import METRIC_HELP, size

TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target", "-t", metavar="TARGET", help="A profile's name or file; see `edgepack targets list`.",
        autocompletion=target_names,
    ),
]  # fmt: skip
TargetsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target", "-t", metavar="TARGET", autocompletion=target_names,
        help="A profile's name or file; see `edgepack targets list`. Again for another one of the same model.",
    ),
]  # fmt: skip
OutputsOption = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="OUT.tflite",
        help="Where to write; for several targets with {target} in the name, or a folder.",
    ),
]  # fmt: skip
SignatureOption = Annotated[
    str | None, typer.Option("--signature", metavar="NAME", help="Which of a SavedModel's signatures.")
]
InputShapeOption = Annotated[
    list[str] | None,
    typer.Option("--input-shape", metavar="[NAME=]1,98,40", help="Pin open sizes of an input; ? leaves one as it is."),
]
BatchOption = Annotated[int, typer.Option("--batch", min=0, help="The batch size to pin; 0 leaves it dynamic.")]
MaxDropOption = Annotated[
    float | None,
    typer.Option("--max-drop", metavar="DROP", help="What may be lost: 0.01 is one point [as the profile says]."),
]
DEFAULT_METRIC = "top1"
MetricOption = Annotated[str, typer.Option("--metric", help=METRIC_HELP)]
ResamplesOption = Annotated[
    int | None,
    typer.Option(
        "--resamples", metavar="N",
        help="How many a bootstrap interval takes; 0 for none [1000, or 200 of your own metric].",
    ),
]  # fmt: skip
ReportOption = Annotated[
    Path | None, typer.Option("--report", metavar="OUT.html", help="Also write one offline page that shows it all.")
]
JunitOption = Annotated[
    Path | None, typer.Option("--junit", metavar="OUT.xml", help="Also write the gates of a check as JUnit's XML.")
]
MarkdownOption = Annotated[
    Path | None, typer.Option("--markdown", metavar="OUT.md", help="Also write a check's summary for a job's page.")
]
ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="SavedModel folder, .keras, .h5 or float .tflite.")
]
SAMPLES_HELP = "an .npz, .csv, folder of .npy or images, or module:function; FILE#100:500 takes rows."
CalibrationOption = Annotated[
    str | None, typer.Option("--calibration", metavar="SAMPLES", help=f"To set int8 ranges: {SAMPLES_HELP}")
]
EvalOption = Annotated[
    str | None, typer.Option("--eval", metavar="SAMPLES", help=f"To measure accuracy: {SAMPLES_HELP}")
]
CheckSetOption = Annotated[
    str | None,
    typer.Option("--check-set", metavar="SAMPLES", help="What the device is checked with [the --eval samples]."),
]
CacheOption = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Take what the same content gave before from the cache folder.")
]


def add_commands(table: Table) -> None:
    """Put this module's commands into the table."""
    _add_quantize(table)
    _add_report(table)


def _add_quantize(table: Table) -> None:
    @verb(table, "quantize", changes=True, long=True)
    def quantize(
        run: Run,
        model: ModelArgument,
        target: TargetsOption = None,
        calibration: CalibrationOption = None,
        evaluation: EvalOption = None,
        check_set: CheckSetOption = None,
        output: OutputsOption = None,
        metric: Annotated[str | None, typer.Option("--metric", help=METRIC_HELP, show_default=DEFAULT_METRIC)] = None,
        batch: BatchOption = 1,
        signature: SignatureOption = None,
        input_shape: InputShapeOption = None,
        cache: CacheOption = True,
        diagnose: Annotated[
            bool,
            typer.Option("--diagnose", help="Show each layer's error, also where accuracy keeps to the budget."),
        ] = False,
        report_file: ReportOption = None,
        max_drop: MaxDropOption = None,
        resamples: ResamplesOption = None,
    ) -> int:
        """Turn MODEL into a .tflite for a target, inspect it, and measure what quantizing cost."""
        from edgepack import quantize as quantize_model

        project = run.project
        judging = evaluation or (project.eval if project else None)
        if judging is None:
            _refuse_unmeasured({"--max-drop": max_drop, "--metric": metric, "--resamples": resamples})
        chosen = target or ([project.target] if project and project.target else None)
        wanted = required(chosen, "--target")
        document = quantize_model(
            model,
            target=wanted if len(wanted) > 1 else wanted[0],
            output=required(output, "-o/--output"),
            calibration=calibration or (project.calibration if project else None),
            evaluation=judging,
            check_set=check_set or (project.check_set if project else None),
            preprocessing=project.samples if project else None,
            metric=metric or DEFAULT_METRIC,
            batch=batch or None,
            signature=signature,
            input_shapes=input_shape or (),
            cache=cache,
            max_drop=max_drop,
            budget=project.budget if project else None,
            diagnose=diagnose,
            report_file=report_file,
            dry_run=run.dry_run,
            report=run.report,
            resamples=resamples,
        )
        return run.answer(
            document, render.quantized(document, dry_run=run.dry_run), render.quantize_exit_code(document)
        )


def _add_report(table: Table) -> None:
    @verb(table, "report", changes=True)
    def report(
        run: Run,
        document: Annotated[
            str,
            typer.Argument(
                metavar="FILE.json", help="What `--json` of quantize, tune or check printed; - is standard input."
            ),
        ],
        output: Annotated[
            Path | None, typer.Option("-o", "--output", metavar="OUT.html", help="Where to write the page.")
        ] = None,
        junit: JunitOption = None,
        markdown: MarkdownOption = None,
    ) -> int:
        """Make one offline HTML page from what quantize, tune or check found, and summaries of a check for CI."""
        from edgepack import report as write_report

        if junit is None and markdown is None:
            required(output, "-o/--output")
        made = write_report(document, output=output, junit=junit, markdown=markdown, dry_run=run.dry_run)
        done = "would write" if run.dry_run else "wrote"
        told = [f"{done} {made.path} ({size(made.bytes)})"] if made.path else []
        told += [f"{done} {path}" for path in (made.junit, made.markdown) if path]
        return run.answer(made, "\n".join(told))


def _refuse_unmeasured(given: dict[str, object]) -> None:
    """An option about a measured accuracy, where nothing measures one, would do nothing."""
    for option, value in given.items():
        if value is not None:
            raise InputError(
                "usage",
                f"{option} is about a measured accuracy, and there are no --eval samples.",
                hint=f"Name labelled samples with --eval, or leave {option} out.",
            )
