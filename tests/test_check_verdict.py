"""The verdict on a release: plain values in, a verdict and its reasons out."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.check.verdict import DelegateUse, Measured, RunsWanted, judge
from edgepack.documents import Accuracy, Interval
from edgepack.statistics import MIN_RUNS, paired_drop_interval, samples_to_settle
from edgepack.target import Budget
from edgepack.words import shown_number

GOOD = Measured(
    latency_ms=(1.0,) * 700, load_ms=3.0, peak_rss_bytes=20_000_000, model_bytes=50_000, throttled=False, samples=400
)
ACCURACY = Accuracy("top1", 0.90, 0.89, 0.01, 400, Interval(-0.005, 0.025))
FULL_BUDGET = Budget(
    p50_ms=2.0,
    p90_ms=2.0,
    p95_ms=2.0,
    p99_ms=2.0,
    max_accuracy_drop=0.02,
    min_accuracy=0.8,
    model_bytes=60_000,
    load_ms=10.0,
    peak_rss_bytes=30_000_000,
)


def verdict_of(budget: Budget, accuracy: Accuracy | None = ACCURACY, bound: float | None = None, **changes: Any) -> str:
    """The verdict on the good measurement with some values changed."""
    return judge(dataclasses.replace(GOOD, **changes), accuracy, bound, budget).verdict


def test_a_release_that_keeps_to_every_limit_passes_with_a_reason_for_each() -> None:
    """Nine limits, nine sentences, each with the measured number in it."""
    verdict = judge(GOOD, ACCURACY, None, FULL_BUDGET)
    assert verdict.verdict == "pass"
    assert len(verdict.reasons) == 9
    for number in ("1.000 ms", "3.00 ms", "20,000,000 bytes", "50,000 bytes", "0.0100", "0.8900"):
        assert any(number in reason for reason in verdict.reasons), number


@pytest.mark.parametrize(
    "changes",
    [
        {"latency_ms": (3.0,) * 700},
        {"load_ms": 10.1},
        {"peak_rss_bytes": 30_000_001},
        {"model_bytes": 60_001},
        {"accuracy": dataclasses.replace(ACCURACY, drop=0.021)},
        {"accuracy": dataclasses.replace(ACCURACY, quantized=0.79)},
        {"bad_outputs": 1},
        {"delegate": DelegateUse("libedgetpu.so.1", required=True, operators=0)},
    ],
    ids=["latency", "load", "memory", "size", "drop", "accuracy", "nan", "idle delegate"],
)
def test_one_broken_limit_fails(changes: dict[str, Any]) -> None:
    """Every limit is a gate of its own: breaking any one of them fails the release."""
    assert verdict_of(FULL_BUDGET, **changes) == "fail"


@pytest.mark.parametrize(
    "changes",
    [
        {"throttled": True},
        {"emulated": True},
        {"latency_ms": (1.0,) * 661},
        {"latency_ms": (1.0,) * 350 + (3.0,) * 350},
        {"latency_ms": (math.nan,) * 700},
        {"load_ms": None},
        {"load_ms": math.nan},
        {"peak_rss_bytes": None},
        {"accuracy": None},
        {"accuracy": dataclasses.replace(ACCURACY, reference=None, drop=None, interval=None)},
        {"accuracy": dataclasses.replace(ACCURACY, drop=math.nan)},
        {"delegate": DelegateUse("libedgetpu.so.1", required=True, operators=None)},
    ],
    ids=[
        "throttled", "emulated", "too few runs", "unstable", "latency nan", "no load", "load nan", "no memory",
        "no accuracy", "no reference", "drop nan", "silent delegate",
    ],
)  # fmt: skip
def test_a_number_that_is_missing_or_unsure_is_inconclusive(changes: dict[str, Any]) -> None:
    """What was not measured, or not soundly, is neither a pass nor a fail."""
    assert verdict_of(FULL_BUDGET, **changes) == "inconclusive"


def test_a_failure_outweighs_what_is_not_known() -> None:
    """A model that is too large fails, even where its latency could not be measured."""
    assert verdict_of(FULL_BUDGET, model_bytes=60_001, throttled=True) == "fail"


def test_runs_that_were_asked_for_and_not_made_are_inconclusive() -> None:
    """A minimum that --max-seconds cut short is no pass, also where the percentile has enough runs."""
    wanted = RunsWanted(10_000, asked=True)
    verdict = judge(dataclasses.replace(GOOD, runs_wanted=wanted), None, None, Budget(p95_ms=5.0))
    assert verdict.verdict == "inconclusive"
    assert verdict.reasons[0] == "Only 700 of the 10,000 runs that were asked for fitted (raise --max-seconds)."


def test_runs_that_the_profile_wants_and_that_were_not_made_are_said() -> None:
    """The profile's own minimum yields to its time; the reasons tell it."""
    wanted = RunsWanted(10_000, asked=False)
    verdict = judge(dataclasses.replace(GOOD, runs_wanted=wanted), None, None, Budget(p95_ms=5.0))
    assert verdict.verdict == "pass"
    assert verdict.reasons[0] == "Only 700 of the 10,000 runs that the profile wants fitted."
    enough = judge(dataclasses.replace(GOOD, runs_wanted=RunsWanted(700, asked=True)), None, None, Budget(p95_ms=5.0))
    assert (enough.verdict, len(enough.reasons)) == ("pass", 1)


def test_five_samples_pass_by_their_point_with_a_warning() -> None:
    """An interval of 43 points against a limit of 2 is told, with the number of samples that would settle it."""
    table = (5, 0, 0, 0)
    few = Accuracy("top1", 1.0, 1.0, 0.0, 5, paired(table, 1), needed_samples=samples_to_settle(table, 0.02))
    verdict = judge(GOOD, few, paired(table, 1).high, Budget(max_accuracy_drop=0.02))
    assert (verdict.verdict, len(verdict.reasons)) == ("pass", 2)
    assert verdict.reasons[1].startswith("Warning: 5 samples do not settle the drop")
    assert f"about {few.needed_samples} samples would settle it" in verdict.reasons[1]
    assert len(judge(GOOD, few, 0.02, Budget(max_accuracy_drop=0.02)).reasons) == 1


def test_too_few_runs_name_how_many_are_needed() -> None:
    """The reason says which percentile, how many runs there were, how many it takes, and what to do."""
    reasons = judge(dataclasses.replace(GOOD, latency_ms=(1.0,) * 20), None, None, Budget(p95_ms=5.0)).reasons
    assert reasons == ("p95 latency is not known: 20 runs were made, 130 are needed (raise --max-seconds).",)


def test_a_budget_without_limits_says_that_it_held_nothing() -> None:
    """An empty budget passes, and says that nothing was held against a limit."""
    verdict = judge(GOOD, None, None, Budget())
    assert (verdict.verdict, len(verdict.reasons)) == ("pass", 1)
    assert "sets no limit" in verdict.reasons[0]


def test_nothing_measured_is_never_a_pass() -> None:
    """Without a single run there is no pass, also where the budget sets no limit."""
    assert judge(dataclasses.replace(GOOD, latency_ms=()), None, None, Budget()).verdict == "inconclusive"


def test_throttling_and_emulation_leave_accuracy_alone() -> None:
    """A hot or an emulated device computes the same outputs: a gate on accuracy only is not affected."""
    assert verdict_of(Budget(max_accuracy_drop=0.02), throttled=True, emulated=True) == "pass"


def test_a_drop_that_is_the_limit_passes_in_spite_of_binary_fractions() -> None:
    """0.90 - 0.88 is a drop of 2 points, which 0.02 allows."""
    assert verdict_of(Budget(max_accuracy_drop=0.02), dataclasses.replace(ACCURACY, drop=0.90 - 0.88)) == "pass"


def test_the_confident_gate_asks_for_the_bound() -> None:
    """With gate = "confident" a bound within the limit passes, one beyond it or none at all is inconclusive."""
    budget = Budget(max_accuracy_drop=0.02, gate="confident")
    assert verdict_of(budget, bound=0.019) == "pass"
    assert verdict_of(budget, bound=0.021) == "inconclusive"
    assert verdict_of(budget, bound=None) == "inconclusive"
    assert verdict_of(budget, bound=math.nan) == "inconclusive"
    assert verdict_of(budget, dataclasses.replace(ACCURACY, drop=0.03), bound=0.04) == "fail"


def test_the_confident_gate_says_how_many_samples_would_settle_it() -> None:
    """The number of samples that it names is enough, if the models go on to disagree as often."""
    table, limit = (350, 3, 2, 45), 0.006
    needed = samples_to_settle(table, limit)
    assert needed is not None
    verdict = judge(
        GOOD,
        dataclasses.replace(ACCURACY, drop=1 / 400, needed_samples=needed),
        paired(table, 1).high,
        Budget(max_accuracy_drop=limit, gate="confident"),
    )
    assert verdict.reasons[0].endswith(f"about {needed:,} samples would settle it.")
    times = needed // 400
    assert paired(table, times + 1).high <= limit < paired(table, times - 1).high


def test_a_floor_of_accuracy_says_nothing_about_an_error() -> None:
    """min_accuracy with a metric of which less is better is inconclusive, never a pass by accident."""
    error = dataclasses.replace(ACCURACY, metric="mae", smaller_is_better=True)
    assert verdict_of(Budget(min_accuracy=0.5), error) == "inconclusive"


def paired(table: tuple[int, int, int, int], times: int) -> Interval:
    """The 90 % interval of the drop over ``times`` as many samples as in the table."""
    both, lost, won, neither = (count * times for count in table)
    before = [True] * (both + lost) + [False] * (won + neither)
    after = [True] * both + [False] * lost + [True] * won + [False] * neither
    return paired_drop_interval(before, after, 0.9)


budgets = st.builds(
    Budget,
    **{f"p{p}_ms": st.none() | st.floats(0.001, 100) for p in MIN_RUNS},
    max_accuracy_drop=st.none() | st.floats(0, 1),
    min_accuracy=st.none() | st.floats(0, 1),
    model_bytes=st.none() | st.integers(1, 10**9),
    load_ms=st.none() | st.floats(0.001, 1000),
    peak_rss_bytes=st.none() | st.integers(1, 10**9),
    gate=st.sampled_from(["point", "confident"]),
)
any_float = st.floats(allow_nan=True, allow_infinity=True)
measurements = st.builds(
    Measured,
    latency_ms=st.lists(any_float, max_size=5).map(tuple)
    | st.builds(lambda value, n: (value,) * n, any_float, st.integers(0, 700)),
    load_ms=st.none() | any_float,
    peak_rss_bytes=st.none() | st.integers(0, 10**9),
    model_bytes=st.integers(0, 10**9),
    throttled=st.none() | st.booleans(),
    emulated=st.booleans(),
    samples=st.integers(0, 1000),
    bad_outputs=st.integers(0, 3),
)
accuracies = st.none() | st.builds(
    Accuracy,
    metric=st.just("top1"),
    reference=st.none() | any_float,
    quantized=any_float,
    drop=st.none() | any_float,
    samples=st.integers(0, 1000),
    interval=st.none(),
)
bounds = st.none() | any_float


@given(measurements, accuracies, bounds, budgets)
def test_a_pass_means_that_every_limit_was_measured_and_kept(
    measured: Measured, accuracy: Accuracy | None, bound: float | None, budget: Budget
) -> None:
    """Whatever comes in, NaN included: "pass" is only said where each limit has a sound number that keeps to it."""
    verdict = judge(measured, accuracy, bound, budget)
    assert verdict.verdict in ("pass", "fail", "inconclusive")
    assert verdict.reasons
    if verdict.verdict != "pass":
        return
    assert measured.bad_outputs == 0
    for p, needed in MIN_RUNS.items():
        limit = getattr(budget, f"p{p}_ms")
        if limit is not None:
            assert len(measured.latency_ms) >= needed
            assert not measured.throttled
            assert not measured.emulated
            assert sum(sample <= limit for sample in measured.latency_ms) * 100 > len(measured.latency_ms) * p
    if budget.load_ms is not None:
        assert measured.load_ms is not None
        assert measured.load_ms <= budget.load_ms
    if budget.peak_rss_bytes is not None:
        assert measured.peak_rss_bytes is not None
        assert measured.peak_rss_bytes <= budget.peak_rss_bytes
    if budget.model_bytes is not None:
        assert measured.model_bytes <= budget.model_bytes
    if budget.max_accuracy_drop is not None:
        assert accuracy is not None
        assert accuracy.drop is not None
        assert accuracy.drop <= budget.max_accuracy_drop + 1e-8
        assert budget.gate == "point" or (bound is not None and bound.upper <= budget.max_accuracy_drop + 1e-8)
    if budget.min_accuracy is not None:
        assert accuracy is not None
        assert accuracy.quantized >= budget.min_accuracy - 1e-8


def test_a_failed_limit_never_looks_kept() -> None:
    """The text of a number is above its limit where the number is: 0.00103 ms is not "0.001, more than 0.001"."""
    for latency_ms, limit_ms, shown in ((0.00103, 0.001, "0.00103 ms"), (50.0004, 50.0, "50.0004 ms")):
        measured = dataclasses.replace(GOOD, latency_ms=(latency_ms,) * 700)
        (reason,) = judge(measured, None, None, Budget(p95_ms=limit_ms)).reasons
        assert f"is {shown} over" in reason
    accuracy = dataclasses.replace(ACCURACY, drop=0.02004, interval=None)
    assert "by 0.02004 over" in judge(GOOD, accuracy, None, Budget(max_accuracy_drop=0.02)).reasons[0]


@given(st.floats(1e-9, 1e6), st.floats(1e-9, 1e6))
def test_shown_numbers_stand_where_the_numbers_do(value: float, limit: float) -> None:
    """Three significant digits at least, and on the limit's same side."""
    text = shown_number(value, 3, limit)
    assert abs(float(text) - value) <= value * 0.005
    assert abs(value - limit) < 1e-12 or (float(text) > limit) == (value > limit)
