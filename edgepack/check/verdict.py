"""The verdict on a release: a pure function of what was measured and of the budget.

The rules, in this order:

1. Each limit of the budget is one gate, named like its key; it says pass, fail or inconclusive with its numbers.
2. A number that a gate needs and that was not measured, or not often enough, makes the gate inconclusive, never pass.
3. What needs no limit fails by itself: outputs that are no numbers, and a required delegate that took no operator.
4. A clock that jumped and runs that took no time void all of it: inconclusive, whatever the limits. Time on a
   throttled or unsteady device, and time and memory on an emulated one, say nothing about the device: inconclusive.
5. A latency whose first half of runs keeps to the limit and whose second half does not (or the other way round) is
   unstable: inconclusive.
6. Fewer runs than were asked for are inconclusive; fewer than the release's profile wants are said.
7. A drop that keeps to the limit by its point estimate alone, while its 95 % upper bound does not, passes with a
   warning.
8. A ratio to the active release is held as :mod:`edgepack.check.ratiogates` says, times as
   :mod:`edgepack.check.timegates` does.
9. A limit on parity is held as :mod:`edgepack.check.paritygates` says; more than a rounding is a warning without one.
10. One gate that fails makes the verdict "fail"; otherwise one that is inconclusive makes it "inconclusive".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgepack.check.paritygates import parity_gates
from edgepack.check.ratiogates import ratio_gates
from edgepack.check.timegates import ONCE, latency_gates, once_gates
from edgepack.documents import Accuracy, Gate, Parity, Ratio
from edgepack.statistics import DROP_ROUNDING
from edgepack.target import Budget
from edgepack.words import settled_by, shown_number

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"


@dataclass(frozen=True, slots=True)
class DelegateUse:
    """An accelerator that the target names, and how many operators it took (None: the runtime cannot tell)."""

    library: str
    required: bool
    operators: int | None


@dataclass(frozen=True, slots=True)
class RunsWanted:
    """The fewest timed runs that were wanted: ``asked`` for by whoever checks, else by the release's profile."""

    count: int
    asked: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """What the device measured: latencies in milliseconds in the order of the runs, sizes in bytes.

    ``bad_outputs`` counts the samples of the check set (of ``samples``) with an output that is NaN, or infinite where
    the reference is not. ``throttled`` is None where the device cannot tell, ``throttled_by`` what did it.
    ``instability`` says in whole sentences why times of these minutes are not the device's own, ``unsound`` what voids
    the measurement, whatever the budget asks for: a clock that jumped, runs that took no time. ``ratios`` are the
    latencies over those of a release that ran in turns, one for each statistic. ``delegated_share`` is the share of the
    model's operators that the delegate took.
    """

    latency_ms: tuple[float, ...]
    load_ms: float | None
    peak_rss_bytes: int | None
    model_bytes: int
    throttled: bool | None = None
    emulated: bool = False
    delegate: DelegateUse | None = None
    samples: int = 0
    bad_outputs: int = 0
    runs_wanted: RunsWanted | None = None
    instability: tuple[str, ...] = ()
    unsound: tuple[str, ...] = ()
    throttled_by: tuple[str, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    parity: Parity | None = None
    first_ms: float | None = None
    cold_load_ms: float | None = None
    delegated_share: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict, "pass", "fail" or "inconclusive", and the gates that it follows from."""

    verdict: str
    gates: tuple[Gate, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence a gate; at least one."""
        return tuple(gate.reason for gate in self.gates)


def judge(measured: Measured, accuracy: Accuracy | None, drop_bound: float | None, budget: Budget) -> Verdict:
    """Hold a measurement against a budget.

    ``accuracy`` is None without a labelled check set; ``drop_bound`` is the one-sided 95 % upper bound of the paired
    accuracy drop, None where the drop has no interval.
    """

    def untold(shown: str, key: str) -> Gate | None:
        return _says_nothing(measured, shown, key)

    gates = [
        *_sanity_gates(measured),
        *_delegate_gates(measured, budget),
        *latency_gates(measured.latency_ms, budget, untold),
        *ratio_gates(measured.ratios, budget, untold),
        *once_gates({key: getattr(measured, key) for key in ONCE}, budget, untold),
        *_resource_gates(measured, budget),
        *_accuracy_gates(accuracy, drop_bound, budget, _none(measured, "labels")),
        *parity_gates(measured.parity, _none(measured, "outputs of the host's"), budget),
    ]
    if not gates:
        runs = len(measured.latency_ms)
        gates = [Gate("none", PASS, f"The budget sets no limit; the model was loaded and ran {runs} times.")]
    outcomes = {gate.outcome for gate in gates}
    verdict = next(outcome for outcome in (FAIL, INCONCLUSIVE, PASS) if outcome in outcomes)
    return Verdict(verdict, tuple(gates))


def _sanity_gates(measured: Measured) -> list[Gate]:
    gates = [Gate("measurement", INCONCLUSIVE, reason) for reason in measured.unsound]
    if measured.bad_outputs:
        gates.append(
            Gate(
                "outputs",
                FAIL,
                f"The device's outputs are no numbers (NaN or infinite) for {measured.bad_outputs} of"
                f" {measured.samples} samples.",
            )
        )
    if not measured.latency_ms:
        gates.append(Gate("runs", INCONCLUSIVE, "Not a single run was measured."))
    elif measured.runs_wanted is not None and len(measured.latency_ms) < measured.runs_wanted.count:
        gates.append(_runs_gate(len(measured.latency_ms), measured.runs_wanted))
    return gates


def _runs_gate(runs: int, wanted: RunsWanted) -> Gate:
    if wanted.asked:
        reason = f"Only {runs:,} of the {wanted.count:,} runs that were asked for fitted (raise --max-seconds)."
        return Gate("runs", INCONCLUSIVE, reason)
    return Gate("runs", PASS, f"Only {runs:,} of the {wanted.count:,} runs that the profile wants fitted.")


def _delegate_gates(measured: Measured, budget: Budget) -> list[Gate]:
    """A required accelerator has to take something, and as much as the budget asks for."""
    gates = []
    if measured.delegate is not None and measured.delegate.required:
        gates.append(_delegate_gate(measured.delegate))
    if budget.min_delegated_share is not None:
        gates.append(_share_gate(measured, budget.min_delegated_share))
    return gates


def _share_gate(measured: Measured, least: float) -> Gate:
    key, share = "min_delegated_share", measured.delegated_share
    if measured.delegate is None or share is None or not math.isfinite(share):
        why = "the runtime does not tell it" if measured.delegate else "the target names no delegate"
        reason = f"The share of operators that a delegate took is not known (at least {least:g} is asked): {why}."
        return Gate(key, INCONCLUSIVE, reason)
    shown = f"{measured.delegate.library} took {shown_number(share, 3, least)} of the model's operators"
    if share >= least:
        return Gate(key, PASS, f"{shown}, at least {least:g}.")
    return Gate(key, FAIL, f"{shown}, less than {least:g}.")


def _delegate_gate(delegate: DelegateUse) -> Gate:
    if delegate.operators is None:
        reason = f"The runtime does not tell whether {delegate.library} took any operator."
        return Gate("delegate", INCONCLUSIVE, reason)
    if delegate.operators == 0:
        return Gate("delegate", FAIL, f"{delegate.library} is required and took no operator: all of it ran on the CPU.")
    return Gate("delegate", PASS, f"{delegate.library} took {delegate.operators} operators.")


def _resource_gates(measured: Measured, budget: Budget) -> list[Gate]:
    gates = []
    if budget.peak_rss_bytes is not None:
        gates.append(_memory_gate(measured, budget.peak_rss_bytes))
    if budget.model_bytes is not None:
        size, limit = measured.model_bytes, budget.model_bytes
        gates.append(_at_most("model_bytes", f"The model has {size:,} bytes", size, limit, f"{limit:,} bytes"))
    return gates


def _memory_gate(measured: Measured, limit: int) -> Gate:
    value = measured.peak_rss_bytes
    if value is None:
        return Gate("peak_rss_bytes", INCONCLUSIVE, f"Peak memory was not measured (limit {limit:,} bytes).")
    if measured.emulated:
        reason = f"Peak memory was {value:,} bytes on an emulated device, which says nothing about a real one."
        return Gate("peak_rss_bytes", INCONCLUSIVE, reason)
    return _at_most("peak_rss_bytes", f"Peak memory is {value:,} bytes", value, limit, f"{limit:,} bytes")


def _accuracy_gates(accuracy: Accuracy | None, bound: float | None, budget: Budget, why_none: str) -> list[Gate]:
    gates = []
    limit = budget.max_accuracy_drop
    if limit is not None:
        gate = _drop_gate(accuracy, bound, limit, why_none, confident=budget.gate == "confident")
        gates.append(gate)
        if gate.outcome == PASS and accuracy is not None and bound is not None and bound > limit + DROP_ROUNDING:
            gates.append(Gate("accuracy_samples", PASS, _unsettled(accuracy, bound, limit)))
    if budget.min_accuracy is not None:
        gates.append(_floor_gate(accuracy, budget.min_accuracy, why_none))
    return gates


def _none(measured: Measured, what: str) -> str:
    """Why there is nothing to hold the device's outputs against, where there is nothing."""
    if measured.bad_outputs:
        return "some of the device's outputs are no numbers"
    return f"the {measured.samples} samples asked have no {what}" if measured.samples else "there is no check set"


def _drop_gate(accuracy: Accuracy | None, bound: float | None, limit: float, why_none: str, *, confident: bool) -> Gate:
    key = "max_accuracy_drop"
    if accuracy is None or accuracy.samples < 1:
        reason = f"The accuracy drop is not known (limit {limit:g}): {why_none}."
        return Gate(key, INCONCLUSIVE, reason)
    if accuracy.drop is None or not math.isfinite(accuracy.drop):
        reason = f"The accuracy drop is not known (limit {limit:g}): the check set holds no outputs of the float model."
        return Gate(key, INCONCLUSIVE, reason)
    moves = "grows" if accuracy.smaller_is_better else "drops"
    shown = f"{accuracy.metric} {moves} by {_shown_drop(accuracy.drop, limit)} over {accuracy.samples} samples"
    if accuracy.interval is not None:
        low, high = accuracy.interval.low, accuracy.interval.high
        shown += f" ({accuracy.interval.confidence:.0%} interval {low:.4f} to {high:.4f})"
    point = _at_most(key, shown, accuracy.drop, limit + DROP_ROUNDING, f"{limit:g}")
    if point.outcome == FAIL or not confident:
        return point
    if bound is None or not math.isfinite(bound):
        return Gate(key, INCONCLUSIVE, f"{shown}; it has no confidence bound, which gate = confident asks for.")
    if bound <= limit + DROP_ROUNDING:
        return Gate(key, PASS, f"{shown}; its 95 % upper bound {_shown_drop(bound, limit)} is within {limit:g}.")
    reason = (
        f"{shown}; its 95 % upper bound {_shown_drop(bound, limit)} is more than {limit:g}:"
        f" {settled_by(accuracy.needed_samples)}."
    )
    return Gate(key, INCONCLUSIVE, reason)


def _shown_drop(drop: float, limit: float) -> str:
    return shown_number(round(drop, 9), 4, limit)


def _unsettled(accuracy: Accuracy, bound: float, limit: float) -> str:
    return (
        f"Warning: {accuracy.samples} samples do not settle the drop, whose 95 % upper bound"
        f" {_shown_drop(bound, limit)} is more than {limit:g}: {settled_by(accuracy.needed_samples)}"
        " (gate = confident would not pass it)."
    )


def _floor_gate(accuracy: Accuracy | None, floor: float, why_none: str) -> Gate:
    if accuracy is None or accuracy.samples < 1 or not math.isfinite(accuracy.quantized):
        reason = f"Accuracy is not known (at least {floor:g} is asked): {why_none}."
        return Gate("min_accuracy", INCONCLUSIVE, reason)
    value = shown_number(round(accuracy.quantized, 9), 4, floor)
    shown = f"{accuracy.metric} is {value} over {accuracy.samples} samples"
    if accuracy.smaller_is_better:
        reason = f"{shown}: less of it is better, so min_accuracy = {floor:g} says nothing (use max_accuracy_drop)."
        return Gate("min_accuracy", INCONCLUSIVE, reason)
    if accuracy.quantized >= floor - DROP_ROUNDING:
        return Gate("min_accuracy", PASS, f"{shown}, at least {floor:g}.")
    return Gate("min_accuracy", FAIL, f"{shown}, less than {floor:g}.")


def _says_nothing(measured: Measured, shown: str, key: str) -> Gate | None:
    """The inconclusive gate of a time that was taken while the device was not itself; None where it was."""
    if measured.emulated:
        reason = f"{shown} on an emulated device, which says nothing about a real one."
        return Gate(key, INCONCLUSIVE, reason)
    if measured.throttled:
        by = f" ({', '.join(measured.throttled_by)})" if measured.throttled_by else ""
        reason = f"{shown} while the device was throttled{by}: cool it or feed it, then check again."
        return Gate(key, INCONCLUSIVE, reason)
    if measured.instability:
        return Gate(key, INCONCLUSIVE, f"{shown} on an unsteady device. {' '.join(measured.instability)}")
    return None


def _at_most(key: str, shown: str, value: float, limit: float, limit_text: str) -> Gate:
    """A plain limit; a value that is no number never keeps to one."""
    if value <= limit:
        return Gate(key, PASS, f"{shown}, within {limit_text}.")
    return Gate(key, FAIL, f"{shown}, more than {limit_text}.")
