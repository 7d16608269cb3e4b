"""Built-in metrics against scikit-learn and against their own definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import mean_absolute_error, roc_auc_score, top_k_accuracy_score

from edgepack.scoring import roc_auc, row_errors, topk_hits

Array = np.ndarray[Any, Any]
seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 200), st.integers(7, 12))
def test_top1_and_top5_are_scikit_learns(seed: int, rows: int, classes: int) -> None:
    """The shares of rows whose label is the largest score, or among the five largest, are scikit-learn's."""
    draw = np.random.default_rng(seed)
    scores, labels = draw.standard_normal((rows, classes)), draw.integers(0, classes, rows)
    for k in (1, 5):
        expected = top_k_accuracy_score(labels, scores, k=k, labels=range(classes))
        assert topk_hits(scores, labels, k).mean() == pytest.approx(expected)
        assert topk_hits(scores, np.eye(classes)[labels], k).mean() == pytest.approx(expected)


@given(arrays.arrays(np.int8, st.tuples(st.integers(1, 30), st.integers(2, 9)), elements=st.integers(-3, 3)))
def test_of_equal_scores_the_first_is_the_larger(scores: Array) -> None:
    """Int8 scores tie often: top1 is argmax's answer then too, and exactly one label is right."""
    right = np.array([topk_hits(scores, np.full(len(scores), label)) for label in range(scores.shape[1])])
    assert (right.sum(axis=0) == 1).all()
    assert (right.argmax(axis=0) == scores.argmax(axis=1)).all()


@pytest.mark.parametrize(
    ("scores", "labels", "k", "match"),
    [
        (np.zeros((3, 4)), np.zeros(2), 1, "3 outputs, 2 labels"),
        (np.zeros((3, 1)), np.zeros(3), 1, "one score per class"),
        (np.zeros((3, 5)), np.zeros(3), 5, "top5 of 5 scores"),
        (np.zeros((3, 4)), np.array([0, 4, 1]), 1, r"whole numbers 0\.\.3; yours are 0\.\.4$"),
        (np.zeros((3, 4)), np.array([0, -1, 1]), 1, r"whole numbers 0\.\.3; yours are -1\.\.1$"),
        (np.zeros((3, 4)), np.array([0, 0.5, 1]), 1, r"whole numbers 0\.\.3; yours hold 0\.5"),
        (np.zeros((4, 4)), np.array([1, 2, 3, 4]), 1, r"yours are 1\.\.4 \(subtract 1\?\)"),
        (np.zeros((3, 4)), np.eye(3), 1, "one column for each of the 4 scores; yours have 3"),
        (np.zeros((0, 4)), np.zeros(0), 1, "no rows"),
        (
            np.zeros((3, 2)),
            np.array([[0.3, 1.7], [2, 1], [1, 0]]),
            1,
            "neither class numbers nor one-hot.*--metric mae",
        ),
        (np.zeros((2, 2)), np.array([[0.3, 0.7], [1, 0]]), 1, "neither class numbers"),
        (np.zeros((2, 3)), np.array([[0, 0, 0], [1, 0, 0]]), 1, "neither class numbers"),
        (np.zeros((2, 3)), np.array([[1, 1, 0], [1, 0, 0]]), 1, "neither class numbers"),
    ],
)
def test_what_cannot_be_counted_is_refused(scores: Array, labels: Array, k: int, match: str) -> None:
    """Labels that no class has, and shapes that do not fit, are refused instead of counted as wrong."""
    with pytest.raises(ValueError, match=match):
        topk_hits(scores, labels, k)


def test_a_row_that_is_no_number_is_wrong() -> None:
    """NaN is never a right answer, wherever in the row it stands."""
    scores = np.array([[np.nan, 1.0, 0.0], [2.0, np.nan, 0.0], [2.0, 1.0, 0.0]])
    assert topk_hits(scores, np.zeros(3)).tolist() == [False, False, True]


@given(seeds, st.integers(1, 50), st.integers(1, 20))
def test_the_mean_absolute_error_is_scikit_learns(seed: int, rows: int, size: int) -> None:
    """The mean of the rows' errors is the mean over all numbers, in any shape of the row."""
    draw = np.random.default_rng(seed)
    outputs, labels = draw.standard_normal((2, rows, size, 2)).astype(np.float32)
    expected = mean_absolute_error(labels.ravel(), outputs.ravel())
    assert row_errors(outputs, labels.reshape(rows, -1)).mean() == pytest.approx(expected, rel=1e-5)


def test_errors_of_other_shapes_are_refused() -> None:
    """One label for three outputs is not stretched over them."""
    with pytest.raises(ValueError, match="3 outputs a row, 1 labels a row"):
        row_errors(np.zeros((2, 3)), np.zeros(2))


@given(seeds, st.integers(2, 200), st.integers(1, 40))
def test_roc_auc_is_scikit_learns(seed: int, rows: int, steps: int) -> None:
    """With ties (few steps) as without, one score or two, numbers or one-hot labels."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, rows)
    assume(0 < labels.sum() < rows)
    scores = draw.integers(0, steps, rows) / steps
    expected = roc_auc_score(labels, scores)
    both = np.stack([1 - scores, scores], axis=1)
    assert roc_auc(scores, labels) == pytest.approx(expected)
    assert roc_auc(both, np.eye(2)[labels]) == pytest.approx(expected)
    assert roc_auc(-scores[:, None], labels) == pytest.approx(1 - expected)


@pytest.mark.parametrize(
    ("scores", "labels", "match"),
    [
        (np.zeros((4, 3)), np.array([0, 1, 0, 1]), "two classes"),
        (np.zeros(4), np.array([0, 1, 2, 1]), "labels 0 and 1"),
        (np.zeros(4), np.ones(4), "one class"),
        (np.array([0, np.nan]), np.array([0, 1]), "NaN"),
    ],
)
def test_a_curve_that_does_not_exist_is_refused(scores: Array, labels: Array, match: str) -> None:
    """Three classes, one class alone or scores that are no numbers have no ROC curve."""
    with pytest.raises(ValueError, match=match):
        roc_auc(scores, labels)
