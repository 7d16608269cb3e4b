"""From a request to what stays: check, search (and measure what survives), choose, write."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

from edgepack.documents import Finding, QuantizeDocument, TuneDocument
from edgepack.errors import EdgepackError, InputError
from edgepack.events import Event, Reporter
from edgepack.quantize.job import Job, check_outputs, prepare_job, require_budget
from edgepack.quantize.request import Request
from edgepack.quantize.run import engine_of, staging
from edgepack.quantize.tune.bench import Bench, opened_bench
from edgepack.quantize.tune.candidates import Candidate, first_candidates, needs_calibration
from edgepack.quantize.tune.choose import Choice, choose, none_keeps
from edgepack.quantize.tune.search import STEP, MeasureCandidate, Search
from edgepack.quantize.tune.told import told
from edgepack.quantize.tune.trial import Measure, Measurement, Trial, made_of
from edgepack.quantize.writing import source_info
from edgepack.target import INTEGER_SCHEMES, Target


def run_tune(request: Request, measure: Measure | None, executor: Executor | None, report: Reporter) -> TuneDocument:
    """Raises what :func:`edgepack.tuning.tune` says."""
    started = time.perf_counter()
    max_drop = check_request(request)
    job = prepare_job(request, report)
    (goal,) = job.goals
    with staging(goal) as scratch, opened_bench(job, scratch, report) as bench:
        notes, stretching = _range_notes(bench, goal.target, engine_of(job), report)
        on_device = None if measure is None else _on_device(bench, measure, scratch)
        search = Search(request, max_drop, bench, executor, report, engine_of(job), on_device)
        trials = search.run(goal.target, job.calibration.samples.rows if job.calibration else 0, stretching)
        choice = choose(trials, max_drop, goal.target)
        if choice is None:
            raise _none_keeps(job, trials, max_drop)
        report(Event(STEP, choice.reason))
        made = bench.write(choice.trial.candidate, goal.output)
    told_notes = (*made.conformance.findings, *notes)
    made = dataclasses.replace(made, conformance=dataclasses.replace(made.conformance, findings=told_notes))
    return _document(job, made, choice, trials, max_drop, time.perf_counter() - started)


def _none_keeps(job: Job, trials: Sequence[Trial], max_drop: float) -> EdgepackError:
    error = none_keeps(trials, max_drop, job.goals[0].target)
    error.details |= {"source": dataclasses.asdict(source_info(job)), "metric": job.metric.name}
    return error


def _range_notes(
    bench: Bench, target: Target, engine: str, report: Reporter
) -> tuple[tuple[Finding, ...], tuple[int, ...]]:
    """What the calibration samples do to ranges, told before the search and once for all candidates; who stretches."""
    integer = (one for one in first_candidates(target, engine) if one.conversion.scheme in INTEGER_SCHEMES)
    first = next(integer, None)
    if first is None:
        return (), ()
    notes = bench.range_notes(first)
    for note in notes:
        report(Event(STEP, f"note: {note.message}"))
    return notes, bench.rows_that_stretch(first)


def check_request(request: Request) -> float:
    """The budget; everything that can be said before a file is read. Raises InputError."""
    check_outputs(request)
    max_drop = request.max_drop
    (goal,) = request.goals
    if max_drop is None:
        raise InputError(
            "bad-max-drop",
            "There is no budget: nothing says how much accuracy may be lost.",
            hint="Say how much accuracy may be lost: --max-drop 0.01 is one point.",
        )
    require_budget(max_drop, request.metric)
    if goal.target.budget.min_accuracy is not None and request.metric == "mae":
        raise InputError(
            "bad-budget",
            f"min_accuracy = {goal.target.budget.min_accuracy:g} says nothing about mae, of which less is better.",
            hint="Leave min_accuracy out of the budget: --max-drop limits an error too.",
        )
    if request.evaluation is None:
        raise InputError(
            "no-evaluation",
            "Tuning needs labelled samples to see what each candidate loses.",
            hint="Give some that calibration does not see: --eval FILE.npz#100:500",
        )
    if request.calibration is None and needs_calibration(goal.target):
        raise InputError(
            "no-calibration",
            f"{goal.target.name} may have integer models, whose ranges have to be measured on samples.",
            hint="Give 100 to 500 typical samples: --calibration FILE.npz#0:100",
        )
    return max_drop


def _on_device(bench: Bench, measure: Measure, scratch: Path) -> MeasureCandidate:
    """Writes a candidate with its check set into a folder of its own, and measures it there."""

    def measured(candidate: Candidate) -> Measurement:
        output = Path(tempfile.mkdtemp(dir=scratch, prefix="measured-")) / "model.tflite"
        bench.write(candidate, output)
        return measure(output)

    return measured


def _document(
    job: Job, made: QuantizeDocument, choice: Choice, trials: Sequence[Trial], max_drop: float, seconds: float
) -> TuneDocument:
    spoiled = next((trial for trial in made_of(trials) if trial.layers), None)
    return TuneDocument(
        source=made.source,
        target=made.target,
        max_drop=max_drop,
        candidates=told(trials, choice.trial),
        chosen=choice.trial.candidate.name,
        reason=choice.reason,
        model=made.model,
        accuracy=made.accuracy,
        check_set=made.check_set,
        provenance=made.provenance,
        seconds=round(seconds, 3),
        conformance=made.conformance,
        uncompiled=made.uncompiled,
        layers=spoiled.layers if spoiled else (),
        metric=job.metric.name,
    )
