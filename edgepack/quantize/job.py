"""What a run of ``quantize`` was asked for, with everything that is wrong with it told before TensorFlow starts."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from edgepack.documents import Finding
from edgepack.errors import InputError
from edgepack.events import Reporter
from edgepack.files import check_output, require_regular
from edgepack.metric import SHARES, Metric, load_metric
from edgepack.quantize.arraynames import refuse_foreign_names
from edgepack.quantize.artifacts import places_beside
from edgepack.quantize.audit import audit_samples
from edgepack.quantize.checking import CheckedSamples, check_content, refuse_uniform
from edgepack.quantize.checkset import refuse_large
from edgepack.quantize.disk import require_room
from edgepack.quantize.overlap import repeated_rows
from edgepack.quantize.preprocessing import Preprocessing
from edgepack.quantize.request import Goal, Request, SourceOptions
from edgepack.quantize.samples import Samples, open_samples, parse_samples
from edgepack.quantize.shapes import parse_input_shapes, pinned_batch
from edgepack.quantize.sources import KERAS_2_SAVED_MODEL, SAVED_MODEL, Source, identify_source
from edgepack.quantize.watched import Watched, watch
from edgepack.target import INTEGER_SCHEMES


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a run was asked for, checked as far as files tell.

    ``notes`` on the samples are for goals whose ranges the calibration sets, ``plain_notes`` for all others.
    """

    source: Source
    goals: tuple[Goal, ...]
    calibration: CheckedSamples | None
    evaluation: CheckedSamples | None
    check_set: CheckedSamples | None
    metric: Metric
    options: SourceOptions
    cache: bool
    max_drop: float | None
    diagnose: bool
    preprocessing: Preprocessing
    notes: tuple[Finding, ...]
    plain_notes: tuple[Finding, ...]
    watched: Watched

    @property
    def any_samples(self) -> CheckedSamples | None:
        """Rows to try a model with, the nearest to what it will see."""
        return self.evaluation or self.check_set or self.calibration


def require_budget(max_drop: float, metric: str) -> None:
    """Raises InputError "bad-max-drop" for what is no budget of that metric."""
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise InputError(
            "bad-max-drop", f"A drop of {max_drop:g} is no budget.", hint="Allow 0 or more: --max-drop 0.01"
        )
    if max_drop >= 1 and metric in SHARES:
        raise InputError(
            "bad-max-drop",
            f"With a drop of {max_drop:g} of {metric} everything may be lost.",
            hint=f"Points are hundredths: --max-drop {max_drop / 100:g}",
        )


def prepare_job(request: Request, report: Reporter) -> Job:
    """Open, read and check everything that can be checked without TensorFlow. Raises InputError."""
    check_outputs(request)
    if request.max_drop is not None:
        require_budget(request.max_drop, request.metric)
    for path in _inputs(request):
        require_regular(path)
    watched = watch(_inputs(request))  # before anything of them is read
    source = identify_source(request.model)
    require_room(source.bytes, [goal.output for goal in request.goals])
    opened = [
        None if text is None else open_samples(text, request.preprocessing)
        for text in (request.calibration, request.evaluation, request.check_set)
    ]
    calibration, evaluation, check_set = opened
    _refuse_idle_options(source, request)
    for samples in filter(None, opened):
        refuse_foreign_names(source, samples)
    for goal in request.goals:
        _check_fit(goal, calibration)
    if check_set is not None:
        refuse_large(check_set)
    batch = pinned_batch(parse_input_shapes(request.options.input_shapes), request.options.batch)
    if request.options.batch is not None and request.options.batch < 1:
        raise InputError("bad-batch", f"A batch of {request.options.batch} holds nothing.", hint="Pin 1 or more.")
    metric = load_metric(request.metric, request.resamples)
    calibrating, judging, checking = (
        None if samples is None else check_content(samples, need_labels=samples is evaluation, report=report)
        for samples in opened
    )
    if calibrating is not None and any(one.target.quantization.scheme in INTEGER_SCHEMES for one in request.goals):
        refuse_uniform(calibrating)
    alike = (repeated_rows(calibrating, judging), repeated_rows(calibrating, checking))
    notes = (*filter(None, alike), *audit_samples(calibrating, judging or checking))
    return Job(
        source=source,
        goals=request.goals,
        calibration=calibrating,
        evaluation=judging,
        check_set=checking,
        metric=metric,
        options=dataclasses.replace(request.options, batch=batch),
        cache=request.cache,
        max_drop=request.max_drop,
        diagnose=request.diagnose,
        preprocessing=request.preprocessing,
        notes=notes,
        plain_notes=audit_samples(None, judging or checking),
        watched=watched,
    )


def _inputs(request: Request) -> list[Path]:
    """What a run reads."""
    texts = (request.calibration, request.evaluation, request.check_set)
    return [request.model, *(Path(parse_samples(text)[0]) for text in texts if text is not None)]


def check_outputs(request: Request) -> None:
    """Refuse what cannot be written, or must not be written over. Raises InputError "bad-output"."""
    for goal in request.goals:
        if goal.output.suffix != ".tflite":
            raise InputError(
                "bad-output",
                f"{goal.output} is no name for a model: it has to end in .tflite.",
                hint=f"-o {goal.output.with_suffix('.tflite')}" if goal.output.name else "Name a file: -o OUT.tflite",
            )
        for place, (what, is_ours) in places_beside(goal.output).items():
            check_output(place, what, is_ours, _inputs(request))


def _check_fit(goal: Goal, calibration: Samples | None) -> None:
    target, scheme = goal.target, goal.target.quantization.scheme
    if scheme in INTEGER_SCHEMES and calibration is None:
        raise InputError(
            "no-calibration",
            f"{target.name} asks for {scheme}, whose ranges have to be measured on samples.",
            hint="Give 100 to 500 typical samples: --calibration FILE.npz#0:100",
        )


def _refuse_idle_options(source: Source, request: Request) -> None:
    """An option that could change nothing is an error, not a silence."""
    if request.options.signature is not None and source.kind not in (SAVED_MODEL, KERAS_2_SAVED_MODEL):
        raise InputError(
            "no-signature",
            f"{source.path} is {source.kind}: only a SavedModel has signatures to choose from.",
            hint="Leave --signature out.",
        )
