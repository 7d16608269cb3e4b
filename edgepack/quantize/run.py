"""From a trained model to one .tflite a target: convert, compare, inspect, measure, and only then write."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.cachefolder import cache_folder
from edgepack.documents import Accuracy, Conformance, Finding, QuantizeDocument
from edgepack.errors import InputError, MisfitError
from edgepack.events import Event, Reporter
from edgepack.metric import Drop, measure_drop
from edgepack.quantize.agreement import Outputs, judge_delivered
from edgepack.quantize.arrays import Port
from edgepack.quantize.artifacts import place
from edgepack.quantize.audit import unused_calibration
from edgepack.quantize.checking import CheckedSamples, read_labels
from edgepack.quantize.compiling import compile_model
from edgepack.quantize.conformance import check_conformance, needs_dense_per_tensor, refuse_misfit
from edgepack.quantize.conversion import LITERT, TENSORFLOW, Conversion
from edgepack.quantize.diagnosis import is_wanted
from edgepack.quantize.doubts import doubts, unlabelled_check_set
from edgepack.quantize.fitting import fit_job
from edgepack.quantize.gate import judge_budget
from edgepack.quantize.job import Job
from edgepack.quantize.layernotes import layer_notes
from edgepack.quantize.lookupcheck import try_lookups
from edgepack.quantize.rangenotes import range_notes
from edgepack.quantize.reference import COMPARED_ROWS, Reference
from edgepack.quantize.refusals import (
    advise_pins,
    all_refused,
)
from edgepack.quantize.request import Goal
from edgepack.quantize.sources import TFLITE
from edgepack.quantize.store import Store
from edgepack.quantize.workshop import ConvertedFile, Workshop
from edgepack.quantize.writing import Made, stage
from edgepack.target import INTEGER_SCHEMES, Budget, Scheme
from edgepack.tflite import TfliteModel, read_model

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def run_job(
    job: Job, report: Reporter, started: float, executor: Executor | None = None
) -> tuple[QuantizeDocument, ...]:
    """Make every goal of the job, then write them; ``started`` is when the verb began, by time.perf_counter.

    Long evaluations are split over ``executor``, without one over this machine's cores.

    Raises what :func:`edgepack.building.quantize` says.
    """
    with ExitStack() as closing:
        folders = [closing.enter_context(staging(goal)) for goal in job.goals]
        with opened_shop(job, folders[0], report, executor) as shop:
            run = Run(job, shop, report)
            made = run.make_all(folders)
            cached = shop.idle and run.converts
        seconds = round(time.perf_counter() - started, 3)
        staged = [
            stage(job, goal, one, folder, cached=cached, seconds=seconds)
            for goal, one, folder in zip(job.goals, made, folders, strict=True)
        ]
        job.watched.refuse_changes()
        place([files for _, files in staged])
        return tuple(document for document, _ in staged)


def opened_shop(job: Job, scratch: Path, report: Reporter, executor: Executor | None = None) -> Workshop:
    """The workshop for a job's model, over the user's cache unless the job goes without it."""
    store = Store(cache_folder() / "quantize") if job.cache else None
    return Workshop(job.source, job.options, job.watched, scratch, store, report, executor)


@contextmanager
def staging(goal: Goal) -> Iterator[Path]:
    """A folder beside the output that disappears with whatever is left in it."""
    try:
        with tempfile.TemporaryDirectory(dir=goal.output.parent, prefix=".edgepack-quantize-") as folder:
            yield Path(folder)
    except OSError as fault:
        raise InputError(
            "cannot-write",
            f"Writing beside {goal.output} failed: {fault.strerror or fault}.",
            hint="Name a folder that is yours and has room: -o FOLDER/OUT.tflite",
        ) from fault


class Run:
    """The steps after the checks: :meth:`make` for each goal.

    Before any of them, samples and metric are held against the model's inputs and outputs, and token numbers against
    its tables: InputError where they do not fit.

    ``audits``: what the calibration samples do to ranges is looked into.
    """

    def __init__(self, job: Job, shop: Workshop, report: Reporter, *, audits: bool = True) -> None:
        self._audits = audits
        self._job = job
        self._shop = shop
        self._report = report
        self._fit = fit_job(job, shop)
        self._inputs = self._fit.inputs
        self._reference = Reference(shop, self._inputs, job.options.batch)
        if self.converts:
            try_lookups(shop, self._reference, self._inputs, job)

    def make_all(self, folders: Sequence[Path]) -> list[Made]:
        """Everything that the goals ask for, each in its folder; what is wrong with any of them is told at once."""
        made, refused = [], []
        for goal, folder in zip(self._job.goals, folders, strict=True):
            try:
                made.append(self.make(goal, folder))
            except MisfitError as error:
                advise_pins(error, self._inputs, self._job.any_samples)
                refused.append((goal, error))
        if len(self._job.goals) == 1 and refused:
            raise refused[0][1]
        if refused:
            raise all_refused(refused, len(self._job.goals))
        return made

    @property
    def converts(self) -> bool:
        """Whether any goal needs a conversion."""
        return not all(map(self._fit.goes_through, self._job.goals))

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The source's."""
        return self._inputs

    def make(self, goal: Goal, folder: Path) -> Made:
        """The goal's model in ``folder``, not yet in its place. Raises MisfitError where there can be none."""
        job, staged = self._job, folder / goal.output.name
        if self._fit.goes_through(goal):
            shutil.copyfile(job.source.path, staged)
            conformance, float_model = self._inspect(goal, read_model(staged), self._notes(goal)), staged
            ranged: tuple[Finding, ...] = ()
        else:
            conformance, float_model, ranged = self._convert(goal, staged)
        model = read_model(staged)
        # Before minutes are spent on measuring what the compiler may refuse.
        delivered = compile_model(staged, model, goal.target, folder=folder, report=self._report)
        evaluated = self._outputs(goal, job.evaluation, staged)
        checked = evaluated if job.check_set is None else self._outputs(goal, job.check_set, staged)
        max_drop = goal.target.budget.max_accuracy_drop if job.max_drop is None else job.max_drop
        drop = self._drop(evaluated)
        accuracy = None if drop is None else drop.accuracy(max_drop)
        budget = goal.target.budget
        gate = judge_budget(delivered.path.stat().st_size, drop, accuracy, budget, max_drop)
        notes = self._doubts(accuracy, budget, max_drop)
        found: tuple[Finding, ...] = ()
        layers = None
        if is_wanted(job.diagnose, accuracy, max_drop, budget.min_accuracy):
            ranged = self._range_notes(goal, float_model, whole=True)
            layers, found = layer_notes(self._shop, float_model, staged, self._inputs, self._job.any_samples)
        told = dataclasses.replace(
            conformance,
            findings=(*conformance.findings, *ranged, *delivered.findings, *gate.findings, *notes, *found),
            # What a compiler made of the operators hides in one.
            delegated_share=None if delivered.uncompiled else conformance.delegated_share,
        )
        return Made(delivered, told, accuracy, self._inputs, checked, layers, gate.within, max_drop)

    def _notes(self, goal: Goal) -> tuple[Finding, ...]:
        """What is to be known of the samples, as far as the goal uses them, and of the source.

        A search uses the calibration samples for what it tries, whatever it chooses.
        """
        job, scheme = self._job, goal.target.quantization.scheme
        if scheme in INTEGER_SCHEMES:
            return (*job.notes, *self._fit.source_notes)
        unused = unused_calibration(job.calibration, scheme) if self._audits else ()
        return (*unused, *job.plain_notes, *self._fit.source_notes)

    def _doubts(self, accuracy: Accuracy | None, budget: Budget, max_drop: float | None) -> tuple[Finding, ...]:
        measured = () if accuracy is None else doubts(self._job.metric, accuracy, self._fit.scores, max_drop)
        limited = max_drop is not None or budget.min_accuracy is not None
        check_set = self._job.check_set
        if not limited or check_set is None or read_labels(check_set.samples) is not None:
            return measured
        return (*measured, unlabelled_check_set(check_set.samples.text, evaluated=accuracy is not None))

    def _range_notes(self, goal: Goal, float_model: Path, *, whole: bool) -> tuple[Finding, ...]:
        calibration = self._job.calibration
        if not self._audits or calibration is None or goal.target.quantization.scheme not in INTEGER_SCHEMES:
            return ()
        return range_notes(self._shop, float_model, self._inputs, calibration, whole=whole)

    def _convert(self, goal: Goal, staged: Path) -> tuple[Conformance, Path, tuple[Finding, ...]]:
        """Convert to the scheme, around what the runtime lacks; the float model on the way answers as the source.

        The model is put at ``staged``; the float model's path comes back, and notes on the calibration samples. Those
        come before integers where the source is a .tflite; TensorFlow makes both in one step.
        """
        job, quantization = self._job, goal.target.quantization
        wanted = goal.conversion or Conversion(
            quantization.scheme,
            quantization.io,
            quantization.granularity,
            quantization.float_fallback,
            engine=engine_of(job),
        )
        self._report(Event("quantize", f"converting to {quantization.scheme} for {goal.target.name}"))
        ranged = None
        if job.source.kind == TFLITE:
            ranged = self._range_notes(goal, self._shop.convert(self._plain, None).model, whole=job.diagnose)
        converted = self._shop.convert(wanted, job.calibration)
        float_model = self.float_model(converted)
        if ranged is None:
            ranged = self._range_notes(goal, float_model, whole=job.diagnose)
        notes = (*self._notes(goal), *self._reference.compare(float_model, self._job.any_samples))
        model = read_model(converted.model)
        if needs_dense_per_tensor(model, goal.target):
            converted = self._shop.convert(dataclasses.replace(wanted, dense_per_tensor=True), job.calibration)
            model, notes = read_model(converted.model), (*notes, _CONVERTED_AROUND)
        conformance = self._inspect(goal, model, notes)
        shutil.copyfile(converted.model, staged)
        overflown = [tensor.name for tensor in model.tensors if tensor.overflown]
        outputs = self._shop.host(staged, self._inputs, self._job.any_samples, COMPARED_ROWS)
        far = judge_delivered(self._reference.outputs(self._job.any_samples, COMPARED_ROWS), outputs, overflown)
        return dataclasses.replace(conformance, findings=(*conformance.findings, *far)), float_model, ranged

    def float_model(self, converted: ConvertedFile) -> Path:
        """What a conversion started from; converted once more where TensorFlow did not show it."""
        return converted.float_model or self._shop.convert(self._plain, None).model

    @property
    def _plain(self) -> Conversion:
        return Conversion(Scheme.FLOAT32, engine=engine_of(self._job))

    def _inspect(self, goal: Goal, model: TfliteModel, notes: tuple[Finding, ...]) -> Conformance:
        conformance = check_conformance(model, goal.target, notes)
        refuse_misfit(conformance, goal.target)
        return conformance

    def _outputs(self, goal: Goal, samples: CheckedSamples | None, staged: Path) -> Outputs | None:
        if samples is None:
            return None
        quantized = self._shop.host(staged, self._inputs, samples)
        return Outputs(quantized if self._fit.goes_through(goal) else self._reference.outputs(samples), quantized)

    def _drop(self, outputs: Outputs | None) -> Drop | None:
        if self._job.evaluation is None or outputs is None:
            return None
        labels = read_labels(self._job.evaluation.samples)
        if labels is None:
            return None
        metric = self._job.metric
        if metric.is_own:  # it may take its time
            interval = f", and its interval of {metric.resamples} resamples (--resamples)" if metric.resamples else ""
            self._report(Event("quantize", f"taking {metric.name} of {len(labels)} samples{interval}"))
        return measure_drop(metric, outputs.reference, outputs.quantized, labels)


def engine_of(job: Job) -> str:
    """TensorFlow's converter starts from a trained model; what is a .tflite already goes through litert-quantizer."""
    return LITERT if job.source.kind == TFLITE else TENSORFLOW


_CONVERTED_AROUND = Finding(
    "converted-around",
    "note",
    "FULLY_CONNECTED",
    "Dense layers have one scale for all their weights: tflite-runtime 2.14 lacks FULLY_CONNECTED version 12, "
    "which a scale per channel needs.",
    "It may cost some accuracy; ai-edge-litert as the profile's runtime does not need it.",
)
