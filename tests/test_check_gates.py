"""The gates one by one, and the verdict again from a document alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploying import Device, tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

import edgepack
from edgepack.check.rejudging import evidence_of, rejudge
from edgepack.check.verdict import DelegateUse, Measured, RunsWanted, judge
from edgepack.checkdocuments import Accuracy, CheckDocument, Evidence, Gate, Interval, Parity, Ratio
from edgepack.documents import LatencyMs, to_json, to_json_value
from edgepack.errors import InputError
from edgepack.project import budget_from_pairs
from edgepack.shaped import MisshapenError, shaped
from edgepack.target import Budget

ACCELERATED = DelegateUse("libedgetpu.so.1", required=False, operators=9)
GOOD = Measured(
    latency_ms=tuple(1.0 + place % 7 / 100 for place in range(700)),
    load_ms=3.0,
    peak_rss_bytes=20_000_000,
    model_bytes=50_000,
    throttled=False,
    delegate=ACCELERATED,
    first_ms=4.0,
    cold_load_ms=30.0,
    delegated_share=0.9,
    ratios=(Ratio(1.0, 0.98, 1.02, 0.99, "p95", 24, "1-0"),),
)
PASS, FAIL, OPEN = "pass", "fail", "inconclusive"


def gate_of(key: str, limit: float, gate: str = "point", **changes: Any) -> Gate:
    """The gate of that key on the good measurement with some values changed."""
    budget = Budget(gate=gate).override({key: limit})
    gates = judge(dataclasses.replace(GOOD, **changes), None, None, budget).gates
    return next(found for found in gates if found.name == key)


@pytest.mark.parametrize(
    ("key", "limit", "changes", "outcome"),
    [
        ("p95_ms", 2.0, {}, PASS),
        ("p95_ms", 1.02, {}, FAIL),
        ("p95_ms", 2.0, {"latency_ms": (1.0,) * 129}, OPEN),
        ("p95_ms", 2.0, {"instability": ("The clock fell.",)}, OPEN),
        ("first_ms", 4.0, {}, PASS),
        ("first_ms", 3.9, {}, FAIL),
        ("first_ms", 4.0, {"first_ms": None}, OPEN),
        ("first_ms", 4.0, {"throttled": True}, OPEN),
        ("first_ms", 4.0, {"emulated": True}, OPEN),
        ("cold_load_ms", 30.0, {}, PASS),
        ("cold_load_ms", 29.0, {}, FAIL),
        ("cold_load_ms", 30.0, {"cold_load_ms": None}, OPEN),
        ("load_ms", 2.9, {}, FAIL),
        ("max_p95_ratio", 1.05, {}, PASS),
        ("max_p95_ratio", 0.99, {}, FAIL),
        ("max_p95_ratio", 1.05, {"ratios": ()}, OPEN),
        ("min_delegated_share", 0.9, {}, PASS),
        ("min_delegated_share", 0.95, {}, FAIL),
        ("min_delegated_share", 0.5, {"delegated_share": None}, OPEN),
        ("min_delegated_share", 0.0, {"delegate": None, "delegated_share": None}, OPEN),
    ],
)
def test_each_limit_is_a_gate_with_three_outcomes(
    key: str, limit: float, changes: dict[str, Any], outcome: str
) -> None:
    """Kept, broken, or not known: the gate is named like the budget's key, and its sentence tells the limit."""
    found = gate_of(key, limit, **changes)
    assert found.outcome == outcome
    assert found.reason.endswith(".")


def test_the_confident_gate_of_a_latency_asks_for_the_whole_interval() -> None:
    """Below the interval the limit fails, within it nothing is settled and more runs are named, above it passes."""
    draw = np.random.RandomState(1)
    spread = tuple(1.0 + draw.random_sample() / 5 for _ in range(200))
    outcomes = {limit: gate_of("p50_ms", limit, "confident", latency_ms=spread) for limit in (1.05, 1.112, 1.3)}
    assert [gate.outcome for gate in outcomes.values()] == [FAIL, OPEN, PASS]
    assert "more runs would settle it" in outcomes[1.112].reason
    assert "95% interval" in outcomes[1.3].reason
    assert gate_of("p50_ms", 1.112, latency_ms=spread).outcome == PASS


def test_a_latency_without_an_interval_is_no_confident_pass() -> None:
    """Runs that only get slower have no interval: gate = confident leaves them open, whatever the limit."""
    slower = tuple(1.0 + place / 1000 for place in range(300))
    assert gate_of("p95_ms", 9.0, latency_ms=slower).outcome == PASS
    found = gate_of("p95_ms", 9.0, "confident", latency_ms=slower)
    assert (found.outcome, "no interval holds" in found.reason) == (OPEN, True)


def test_all_faults_of_a_budget_are_told_with_the_nearest_key() -> None:
    """Two wrong pairs are two faults in one error; the new keys are offered as the old ones are."""
    with pytest.raises(InputError) as caught:
        budget_from_pairs(["frist_ms=4", "min_delegated_share=1.5"])
    assert caught.value.code == "bad-budget"
    for words in ("2 faults", "did you mean first_ms?", "min_delegated_share: must be at least 0 and at most 1"):
        assert words in caught.value.message


whole = st.floats(0.001, 1000, allow_nan=False)
shares = st.floats(0, 1)
BUDGETS = st.builds(
    Budget,
    p50_ms=st.none() | whole,
    p95_ms=st.none() | whole,
    load_ms=st.none() | whole,
    model_bytes=st.none() | st.integers(1, 10**6),
    max_accuracy_drop=st.none() | shares,
    first_ms=st.none() | whole,
    cold_load_ms=st.none() | whole,
    max_p95_ratio=st.none() | whole,
    min_delegated_share=st.none() | shares,
    max_parity_steps=st.none() | whole,
    min_top1_agreement=st.none() | shares,
    gate=st.sampled_from(["point", "confident"]),
)
MEASURED = st.builds(
    Measured,
    latency_ms=st.builds(
        lambda level, step, n: tuple((level + step * (place % 5)) / 1e6 for place in range(n)),
        st.integers(1, 10**9), st.integers(0, 10**6), st.sampled_from([0, 1, 11, 130, 200]),
    ),
    load_ms=st.none() | whole,
    peak_rss_bytes=st.none() | st.integers(0, 10**9),
    model_bytes=st.integers(0, 10**6),
    throttled=st.none() | st.booleans(),
    emulated=st.booleans(),
    delegate=st.none() | st.builds(DelegateUse, st.just("lib.so"), st.booleans(), st.none() | st.integers(0, 9)),
    samples=st.integers(0, 10),
    bad_outputs=st.integers(0, 1),
    runs_wanted=st.none() | st.builds(RunsWanted, st.integers(1, 300), st.booleans()),
    instability=st.lists(st.text(max_size=5), max_size=1).map(tuple),
    unsound=st.lists(st.text(max_size=5), max_size=1).map(tuple),
    ratios=st.just(()) | whole.map(lambda at: (Ratio(at, at / 2, at * 2, 0.99, "p95", 8, "1-0"),)),
    first_ms=st.none() | whole,
    cold_load_ms=st.none() | whole,
    delegated_share=st.none() | shares,
    parity=st.none() | st.builds(Parity, st.none() | shares, whole, st.integers(1, 9), max_steps=st.none() | whole),
)  # fmt: skip
ACCURACIES = st.none() | st.builds(
    lambda drop: Accuracy("top1", 0.9, 0.9 - drop, drop, 400, Interval(drop - 0.1, drop + 0.1)), shares
)


def document_of(measured: Measured, accuracy: Accuracy | None, bound: float | None, budget: Budget) -> CheckDocument:
    """A document with the evidence of that, and a verdict that nobody has to believe."""
    nothing = LatencyMs(None, None, None, None, None, None, 0)
    latency_ns = tuple(round(sample * 1e6) for sample in measured.latency_ms)
    return CheckDocument(
        verdict="?", reasons=(), app="kws", release="1-0", latency_ms=nothing, load_ms=None, peak_rss_bytes=None,
        model_bytes=1, accuracy=accuracy, parity=None, device={}, runtime={}, conditions={}, budget=budget.to_json(),
        seconds=1.0, evidence=Evidence(latency_ns, drop_bound=bound, measured=evidence_of(measured)),
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(MEASURED, ACCURACIES, st.none() | shares, BUDGETS)
def test_a_verdict_is_the_same_from_its_document(
    measured: Measured, accuracy: Accuracy | None, bound: float | None, budget: Budget
) -> None:
    """Whatever was measured: what the JSON text of a check holds gives its verdict and each of its sentences again."""
    text = to_json(to_json_value(document_of(measured, accuracy, bound, budget)))
    assert rejudge(shaped(CheckDocument, json.loads(text))) == judge(measured, accuracy, bound, budget)


@settings(max_examples=60, deadline=None)
@given(MEASURED, ACCURACIES, st.none() | shares, BUDGETS, st.data())
def test_a_tighter_limit_never_mends_and_a_fail_is_never_hidden(
    measured: Measured, accuracy: Accuracy | None, bound: float | None, budget: Budget, data: st.DataObject
) -> None:
    """Lowering an upper limit turns no fail into anything else; one gate that fails is a verdict that fails."""
    before = judge(measured, accuracy, bound, budget)
    assert (before.verdict == FAIL) == any(gate.outcome == FAIL for gate in before.gates)
    assert (before.verdict == PASS) == all(gate.outcome == PASS for gate in before.gates)
    upper = ("load_ms", "model_bytes", "max_accuracy_drop", "first_ms", "cold_load_ms")
    key = data.draw(st.sampled_from(upper))
    limit = getattr(budget, key)
    if limit is None or limit < 1 or before.verdict != FAIL:
        return
    assert judge(measured, accuracy, bound, dataclasses.replace(budget, **{key: limit // 2 or limit})).verdict == FAIL


def test_a_check_holds_what_its_verdict_is_computed_from(here: Device, tmp_path: Path) -> None:
    """The document of a real check, written and read again, gives the same verdict and sentences; a forged one not."""
    budget = {"p95_ms": 50.0, "max_accuracy_drop": 0.5, "model_bytes": 100_000, "first_ms": 500.0, "load_ms": 5000.0}
    edgepack.push(tiny_bundle(tmp_path, budget=budget)[0], **here.where)
    found = edgepack.check(**here.where)
    document = shaped(CheckDocument, json.loads(to_json(to_json_value(found))))
    again = rejudge(document)
    assert (again.verdict, again.gates) == (found.verdict, found.gates)
    assert found.evidence is not None
    slow = dataclasses.replace(found.evidence, latency_ns=tuple(place + 10**9 for place in found.evidence.latency_ns))
    assert rejudge(dataclasses.replace(found, evidence=slow)).verdict == "fail"


def test_a_document_without_evidence_gives_no_verdict() -> None:
    """What an older edgepack wrote, or somebody's editor spoiled, is an error with a name, never a verdict."""
    whole_one = document_of(GOOD, None, None, Budget(p95_ms=2.0))
    assert rejudge(whole_one).verdict == PASS
    assert whole_one.evidence is not None
    spoiled = {**whole_one.evidence.measured, "load_ms": "soon"}
    for evidence, code in (
        (None, "no-evidence"),
        (Evidence((1,)), "no-evidence"),
        (dataclasses.replace(whole_one.evidence, measured=spoiled), "bad-document"),
    ):
        with pytest.raises(InputError) as caught:
            rejudge(dataclasses.replace(whole_one, evidence=evidence))
        assert caught.value.code == code
    with pytest.raises(InputError) as caught:
        rejudge(dataclasses.replace(whole_one, budget={"max_regret": 1}))
    assert caught.value.code == "bad-budget"


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ([], "it is no object"),
        ({"top1_agreement": 1.0, "max_abs_error": 0.0}, "samples is missing"),
        ({"top1_agreement": "all", "max_abs_error": 0.0, "samples": 1}, "top1_agreement is no float"),
        ({"top1_agreement": None, "max_abs_error": 0.0, "samples": True}, "samples is no int"),
    ],
)
def test_a_value_of_another_shape_is_refused_by_name(told: Any, fault: str) -> None:
    """The field that is missing or of another kind is named; one that this edgepack does not know is left alone."""
    with pytest.raises(MisshapenError, match=fault):
        shaped(Parity, told)
    assert shaped(Parity, {"top1_agreement": None, "max_abs_error": 0, "samples": 1, "later": 2}).samples == 1
