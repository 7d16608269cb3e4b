"""What a run of ``quantize`` was asked for, with everything that is wrong with it told before TensorFlow starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgepack.documents import Finding
from edgepack.errors import InputError
from edgepack.events import Reporter
from edgepack.metric import Metric, load_metric
from edgepack.quantize.artifacts import uncompiled_path
from edgepack.quantize.checking import check_content, refuse_overlap
from edgepack.quantize.checkset import MOST_BYTES, bytes_per_row
from edgepack.quantize.samples import Samples, open_samples
from edgepack.quantize.sources import TFLITE, Source, identify_source
from edgepack.target import Scheme, Target, load_target

INTEGER_SCHEMES = (Scheme.INT8, Scheme.INT16X8)


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a run was asked for, checked as far as files tell."""

    source: Source
    target: Target
    output: Path
    calibration: Samples | None
    evaluation: Samples | None
    check_set: Samples | None
    metric: Metric
    batch: int | None
    notes: tuple[Finding, ...]


def prepare_job(
    model: str | Path,
    *,
    target: str | Path | Target,
    output: Path,
    calibration: str | Path | None,
    evaluation: str | Path | None,
    check_set: str | Path | None,
    metric: str,
    batch: int | None,
    report: Reporter,
) -> Job:
    """Open, read and check everything that can be checked without TensorFlow. Raises InputError."""
    _check_output(output)
    chosen = target if isinstance(target, Target) else load_target(target)
    source = identify_source(model)
    if uncompiled_path(output).resolve() == source.path.resolve():
        raise InputError(
            "bad-output",
            f"{source.path} is where the uncompiled model of {output} goes.",
            hint="Name another file: -o OUT.tflite",
        )
    calibrating, judging, checking = (
        None if text is None else open_samples(text) for text in (calibration, evaluation, check_set)
    )
    _check_fit(source, chosen, calibrating, checking, batch)
    chosen_metric = load_metric(metric)
    notes = _check_samples(calibrating, judging, checking, report)
    return Job(source, chosen, output, calibrating, judging, checking, chosen_metric, batch, notes)


def _check_output(output: Path) -> None:
    if output.suffix != ".tflite" or output.is_dir():
        raise InputError("bad-output", f"{output} is no name for a model.", hint="Name a file: -o OUT.tflite")
    if not output.parent.is_dir():
        raise InputError("bad-output", f"The folder {output.parent} does not exist.", hint=f"mkdir -p {output.parent}")


def _check_fit(
    source: Source, target: Target, calibration: Samples | None, check_set: Samples | None, batch: int | None
) -> None:
    scheme = target.quantization.scheme
    if source.kind == TFLITE and scheme != Scheme.FLOAT32:
        raise InputError(
            "tflite-source",
            f"{source.path} is a .tflite already, and {target.name} asks for {scheme}.",
            hint="Quantize the SavedModel, .keras or .h5 that it came from, or name a target with scheme = 'float32'.",
        )
    if scheme in INTEGER_SCHEMES and calibration is None:
        raise InputError(
            "no-calibration",
            f"{target.name} asks for {scheme}, whose ranges have to be measured on samples.",
            hint="Give 100 to 500 typical samples: --calibration FILE.npz#0:100",
        )
    if check_set is not None and bytes_per_row(check_set) * check_set.rows > MOST_BYTES:
        raise InputError(
            "check-set-too-large",
            f"{check_set.text} is larger than {MOST_BYTES >> 20} MiB, and a device holds its check set in memory.",
            hint=f"Take {MOST_BYTES // bytes_per_row(check_set)} rows of it at most, for example with #0:500.",
        )
    if batch is not None and batch < 1:
        raise InputError("bad-batch", f"A batch of {batch} holds nothing.", hint="Pin 1 or more.")


def _check_samples(
    calibration: Samples | None, evaluation: Samples | None, check_set: Samples | None, report: Reporter
) -> tuple[Finding, ...]:
    """Read all sets once; what is worth a note comes back."""
    calibrated = () if calibration is None else check_content(calibration, need_labels=False, report=report)
    notes = []
    for judges, need_labels in ((evaluation, True), (check_set, False)):
        if judges is None:
            continue
        digests = check_content(judges, need_labels=need_labels, report=report)
        if calibration is not None and (alike := refuse_overlap(calibration, calibrated, judges, digests)):
            notes.append(_repeated_rows(judges, alike))
    return tuple(notes)


def _repeated_rows(judges: Samples, alike: int) -> Finding:
    counted = "1 row equals a calibration row" if alike == 1 else f"{alike} rows equal calibration rows"
    return Finding(
        "repeated-rows",
        "note",
        judges.text,
        f"{judges.path.name}: {counted}: the file holds the same sample twice.",
        "Remove the doubles if there are many.",
    )
