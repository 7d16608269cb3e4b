"""What is noted beside an accuracy that was measured."""

from __future__ import annotations

import dataclasses

import pytest

from edgepack.documents import Accuracy, Interval
from edgepack.metric import MAE, TOP1, Metric, load_metric
from edgepack.quantize.doubts import doubts

GOOD = Accuracy("top1", 0.90, 0.89, 0.01, 400, Interval(0.0, 0.02), needed_samples=300)


@pytest.mark.parametrize(
    ("name", "scores", "chance"), [("top1", 4, 0.25), ("top5", 10, 0.5), ("roc-auc", 2, 0.5), ("roc-auc", 1, 0.5)]
)
def test_a_float_model_that_only_guesses_is_noted(name: str, scores: int, chance: float) -> None:
    """At chance or below, the labels or the preprocessing are the likely fault, and the note says where to look."""
    guessing = dataclasses.replace(GOOD, metric=name, reference=chance)
    (found,) = doubts(load_metric(name), guessing, scores, None)
    assert (found.code, found.severity) == ("no-better-than-chance", "note")
    assert f"{chance:.4f}" in found.message
    assert doubts(load_metric(name), dataclasses.replace(guessing, reference=chance + 0.01), scores, None) == ()


def test_nothing_is_noted_where_guessing_has_no_worth() -> None:
    """An error, a metric of one's own, an output of an open size and a missing reference have no chance level."""
    low = dataclasses.replace(GOOD, reference=0.0)
    assert doubts(MAE, low, 4, None) == ()
    assert doubts(Metric("mine:own", lambda outputs, labels: 0.0), low, 4, None) == ()
    assert doubts(TOP1, low, None, None) == ()
    assert doubts(TOP1, dataclasses.replace(GOOD, reference=None), 4, None) == ()


def test_too_few_samples_for_the_budget_are_noted_with_how_many_would_do() -> None:
    """Five samples cannot hold a limit of two points; enough of them, or no limit, are not mentioned."""
    few = dataclasses.replace(GOOD, samples=5, interval=Interval(-0.43, 0.43), needed_samples=189)
    (found,) = doubts(TOP1, few, 4, 0.02)
    assert (found.code, found.severity) == ("few-samples", "note")
    assert "-0.4300 to +0.4300" in found.message
    assert "189" in found.cure
    assert doubts(TOP1, few, 4, None) == ()
    assert doubts(TOP1, GOOD, 4, 0.02) == ()


def test_a_limit_that_the_interval_reaches_over_is_never_passed_in_silence() -> None:
    """A limit of 0 is noted as one of 0.02 is, and where no number of samples settles it, that is said."""
    none = dataclasses.replace(GOOD, drop=0.0, samples=50, interval=Interval(-0.0733, 0.0733), needed_samples=None)
    (found,) = doubts(TOP1, none, 4, 0.0)
    assert found.code == "few-samples"
    assert found.cure == "No number of samples settles it, so near to the limit the drop lies."
    same = dataclasses.replace(none, interval=Interval(0.0, 0.0))
    assert doubts(TOP1, same, 4, 0.0) == (), "no resample differs: that is settled"
    assert doubts(TOP1, dataclasses.replace(none, needed_samples=40), 4, 0.02) == (), "a one-sided bound settles it"


def test_a_drop_without_an_interval_is_noted() -> None:
    """Who reads a bare number is told why nothing says how sure it is; without a drop there is nothing to say."""
    bare = dataclasses.replace(GOOD, metric="mine:own", interval=None, needed_samples=None)
    own = Metric("mine:own", lambda outputs, labels: 0.0)
    assert [one.code for one in doubts(own, bare, None, None)] == ["no-interval"]
    assert doubts(own, dataclasses.replace(bare, drop=None, reference=None), None, None) == ()
