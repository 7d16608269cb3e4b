"""Where candidates are made and evaluated: in one workshop here, or lot by lot on somebody's executor."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgepack.documents import Finding, LayerError, QuantizeDocument
from edgepack.errors import InputError, InternalError, MisfitError
from edgepack.events import Reporter, ignore_events
from edgepack.quantize.arrays import Port
from edgepack.quantize.artifacts import place
from edgepack.quantize.checking import CheckedSamples
from edgepack.quantize.gate import BudgetGate, judge_floor, judge_size
from edgepack.quantize.job import Job, prepare_job
from edgepack.quantize.rangenotes import range_notes, rows_that_stretch
from edgepack.quantize.request import Goal, Request
from edgepack.quantize.run import Run, opened_shop
from edgepack.quantize.tune.candidates import Candidate
from edgepack.quantize.tune.mixed import layer_feeds
from edgepack.quantize.tune.trial import Made, Refused, Trial
from edgepack.quantize.workshop import Workshop
from edgepack.quantize.writing import stage
from edgepack.target import Target
from edgepack.tflite import read_model

# What the converters refuse one candidate with, and not the model.
_ONE_CANDIDATE = ("bad-conversion", "unknown-layer")


class Bench:
    """Tries the candidates of one job in one workshop; ``scratch`` is a folder of the caller's."""

    def __init__(self, job: Job, shop: Workshop, scratch: Path) -> None:
        self._job = job
        self._shop = shop
        self._scratch = scratch
        # What converts says little here: that a candidate is tried was told.
        self._run = Run(job, shop, ignore_events, audits=False)

    def try_candidate(self, candidate: Candidate) -> Trial:
        """Convert, hold against the target, compile where the profile does, and evaluate."""
        with self._folder() as folder:
            try:
                made = self._run.make(self._goal(candidate, folder / "model.tflite"), folder)
            except MisfitError as refusal:
                return Refused(candidate, refusal.message)
            except InputError as refusal:
                if refusal.code not in _ONE_CANDIDATE:
                    raise
                return Refused(candidate, refusal.message)
            data = made.delivered.path.read_bytes()
        if made.accuracy is None:
            raise InternalError("no-accuracy", f"{candidate.name} was not evaluated.", hint="Please report this.")
        layers = made.layers.layers if made.layers else ()
        budget = self._job.goals[0].target.budget
        return Made(
            candidate,
            len(data),
            hashlib.sha256(data).hexdigest(),
            made.accuracy,
            layers,
            oversize=_said(judge_size(len(data), budget.model_bytes)),
            too_poor=_said(judge_floor(made.accuracy, budget.min_accuracy)),
        )

    def layer_errors(self, candidate: Candidate) -> tuple[LayerError, ...]:
        """The errors of a candidate's layers here, also where it keeps the budget here."""
        run = Run(dataclasses.replace(self._job, diagnose=True), self._shop, ignore_events, audits=False)
        with self._folder() as folder:
            found = run.make(self._goal(candidate, folder / "model.tflite"), folder).layers
        return found.layers if found else ()

    def range_notes(self, candidate: Candidate) -> tuple[Finding, ...]:
        """What the calibration samples do to the ranges with which an integer candidate is made, if it can be."""
        calibrated = self._calibrated(candidate)
        return () if calibrated is None else range_notes(self._shop, *calibrated, whole=False)

    def rows_that_stretch(self, candidate: Candidate) -> tuple[int, ...]:
        """The calibration rows, counted within the set, that the notes of :meth:`range_notes` name."""
        calibrated = self._calibrated(candidate)
        return () if calibrated is None else rows_that_stretch(self._shop, *calibrated)

    def layer_feeds(self, candidate: Candidate) -> dict[str, tuple[str, ...]]:
        """The layers of the float model that a candidate is quantized from, each with those that it reads."""
        converted = self._shop.convert(candidate.conversion, self._job.calibration)
        return layer_feeds(read_model(self._run.float_model(converted)))

    def write(self, candidate: Candidate, output: Path) -> QuantizeDocument:
        """Put the candidate's model, its check set and its provenance to where ``output`` says, as quantize does."""
        with self._folder() as folder:
            goal = self._goal(candidate, output)
            made = self._run.make(goal, folder)
            document, files = stage(self._job, goal, made, folder, cached=self._shop.idle, seconds=0.0)
            self._job.watched.refuse_changes()
            place([files])
            return document

    def _calibrated(self, candidate: Candidate) -> tuple[Path, tuple[Port, ...], CheckedSamples] | None:
        """What a candidate is calibrated with: the float model, its inputs and the samples; None where it is not."""
        calibration = self._job.calibration
        if calibration is None:
            return None
        try:
            converted = self._shop.convert(candidate.conversion, calibration)
            return self._run.float_model(converted), self._run.inputs, calibration
        except MisfitError:
            return None  # the search says why

    def _goal(self, candidate: Candidate, output: Path) -> Goal:
        return Goal(_target_for(self._job.goals[0].target, candidate), output, candidate.conversion)

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="candidate-") as name:
            yield Path(name)


@dataclass(frozen=True, slots=True)
class Lot:
    """A few candidates that share one worker: its start costs as much as converting two or three small models."""

    request: Request
    candidates: tuple[Candidate, ...]


def try_lot(lot: Lot) -> tuple[Trial, ...]:
    """Try the candidates of a lot with a worker process of its own; runs wherever an executor runs it."""
    with tempfile.TemporaryDirectory(prefix="edgepack-tune-") as name:
        scratch = Path(name)
        goals = tuple(dataclasses.replace(goal, output=scratch / "model.tflite") for goal in lot.request.goals)
        job = prepare_job(dataclasses.replace(lot.request, goals=goals), ignore_events)
        with opened_bench(job, scratch, ignore_events) as bench:
            return tuple(bench.try_candidate(candidate) for candidate in lot.candidates)


@contextlib.contextmanager
def opened_bench(job: Job, scratch: Path, report: Reporter) -> Iterator[Bench]:
    """A bench over the user's cache, or for this run only where the job goes without it."""
    with opened_shop(job, scratch, report) as shop:
        yield Bench(job, shop, scratch)


def _said(gate: BudgetGate) -> str | None:
    return None if gate.within is not False else " ".join(found.message for found in gate.findings)


def _target_for(target: Target, candidate: Candidate) -> Target:
    """The target as a model in the candidate's scheme is held against."""
    quantization = dataclasses.replace(target.quantization, scheme=candidate.conversion.scheme)
    return dataclasses.replace(target, quantization=quantization)
