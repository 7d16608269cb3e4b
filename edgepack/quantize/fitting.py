"""Whether a job's samples and metric fit the model, known before the minutes that a conversion takes."""

from __future__ import annotations

from dataclasses import dataclass

from edgepack.documents import Finding
from edgepack.metric import scores_of
from edgepack.quantize.arrays import Port
from edgepack.quantize.binding import fit_samples
from edgepack.quantize.checking import read_labels, refuse_sorted_classes
from edgepack.quantize.checkset import refuse_large
from edgepack.quantize.floatmodel import float_inputs
from edgepack.quantize.job import Job
from edgepack.quantize.refusals import refuse_open_batch, refuse_open_sizes, require_fit
from edgepack.quantize.request import Goal
from edgepack.quantize.sources import TFLITE
from edgepack.quantize.workshop import Workshop
from edgepack.target import Scheme
from edgepack.tflite import read_model

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Fit:
    """What a job's model takes.

    ``scores``: how many a row of its output has, None without an evaluation. ``source_notes`` are on how it was loaded.
    ``ready``: it is a .tflite whose sizes stay as they are.
    """

    inputs: tuple[Port, ...]
    scores: int | None
    source_notes: tuple[Finding, ...]
    ready: bool

    def goes_through(self, goal: Goal) -> bool:
        """Whether the source is what the target takes already: a float .tflite, as it is, for a float target."""
        return self.ready and goal.target.quantization.scheme == Scheme.FLOAT32


def fit_job(job: Job, shop: Workshop) -> Fit:
    """Hold samples and metric against the model's inputs and outputs. Raises InputError where they do not fit."""
    ready, notes = False, tuple[Finding, ...]()
    if job.source.kind == TFLITE:
        inputs, ready = _float_inputs(job)
    else:
        ports = shop.ports()
        inputs, notes = ports.inputs, ports.notes
    refuse_open_batch(job.goals, inputs, job.options.batch)
    for checked in filter(None, (job.calibration, job.evaluation)):
        require_fit(checked.samples, inputs, job.options.input_shapes)
    if job.check_set is not None:
        refuse_large(fit_samples(job.check_set.samples, inputs))
    return Fit(inputs, _fit_metric(job, shop, inputs, ready=ready), notes, ready)


def _float_inputs(job: Job) -> tuple[tuple[Port, ...], bool]:
    """A float .tflite's, as the options pin them, and whether those are its own.

    Whether it can have others is seen when it is loaded.
    """
    model = read_model(job.source.path)
    inputs = float_inputs(job.source.path, model, job.options.input_shapes, job.options.batch)
    refuse_open_sizes(job.source.path, inputs, job.any_samples)
    pinned = any(
        None not in port.shape and port.shape != tensor.shape for port, tensor in zip(inputs, model.inputs, strict=True)
    )
    return inputs, not job.options.input_shapes and not pinned


def _fit_metric(job: Job, shop: Workshop, inputs: tuple[Port, ...], *, ready: bool) -> int | None:
    """Hold metric and labels against the outputs; how many scores a row has, None without an evaluation."""
    if job.evaluation is None:
        return None
    outputs = _output_shapes(job, shop, ready=ready)
    job.metric.refuse_misfit(outputs)
    for judging in filter(None, (job.evaluation, job.check_set)):
        if job.metric.hits is not None:
            refuse_sorted_classes(judging.samples, scores_of(outputs))
        labels = read_labels(judging.samples)
        if labels is not None:
            job.metric.refuse_labels(outputs, labels, judging.samples.place)
    _try_metric(job, shop, inputs, ready=ready)
    return scores_of(outputs)


def _output_shapes(job: Job, shop: Workshop, *, ready: bool) -> list[Shape]:
    if ready:
        return [tensor.shape for tensor in read_model(job.source.path).outputs]
    return [port.shape for port in shop.ports().outputs]


def _try_metric(job: Job, shop: Workshop, inputs: tuple[Port, ...], *, ready: bool) -> None:
    """A function of the user's may refuse anything: it is tried on the source's outputs before the conversion."""
    if job.evaluation is None or not job.metric.is_own:
        return
    labels = read_labels(job.evaluation.samples)
    if labels is None:
        return
    outputs = shop.host(job.source.path, inputs, job.evaluation) if ready else shop.reference(job.evaluation)
    job.metric.measure(outputs, labels)
