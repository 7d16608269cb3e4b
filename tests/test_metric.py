"""Metrics, built in or a user's own function, and what quantizing costs of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgepack.errors import InputError
from edgepack.metric import MAE, ROC_AUC, TOP1, Metric, compare_accuracy, load_metric


def test_a_function_of_the_current_folder_is_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """module:function is found beside where the command runs, and sys.path is left as it was."""
    (tmp_path / "my_metric_of_mine.py").write_text(
        "def share(outputs, labels):\n    return (outputs == labels).mean()\n"
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    metric = load_metric("my_metric_of_mine:share")
    assert sys.path == before
    assert metric.measure({"y": np.array([1, 2])}, np.array([1, 3])) == 0.5


@pytest.mark.parametrize(
    "text", ["", "top2", "json", "json:", ":loads", "json:nothing", "no_such_module:f", "json:decoder"]
)
def test_what_is_no_metric_is_refused_with_how_to_write_one(text: str) -> None:
    """A typo in --metric is an InputError that says what a metric looks like."""
    with pytest.raises(InputError) as caught:
        load_metric(text)
    assert caught.value.code == "unknown-metric"
    assert "module:function" in caught.value.hint


def test_a_metric_that_gives_no_number_is_refused() -> None:
    """NaN is no accuracy."""
    with pytest.raises(InputError, match="no number"):
        Metric("mine:nan", lambda outputs, labels: float("nan")).measure({"y": np.ones(1)}, np.ones(1))


def test_a_drop_is_reference_minus_quantized() -> None:
    """Worse than the reference is a positive drop, better a negative one."""
    right, wrong = np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])
    assert compare_accuracy(TOP1, {"y": right}, {"y": wrong}, np.array([0])).drop == 1.0
    assert compare_accuracy(TOP1, {"y": wrong}, {"y": right}, np.array([0])).drop == -1.0


def test_a_metric_that_refuses_a_resample_has_no_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric that needs both classes still gives a drop; it just has no interval."""
    source = "def both(outputs, labels):\n    assert len(set(labels.tolist())) == 2\n    return outputs.mean()\n"
    (tmp_path / "needs_both.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    found = compare_accuracy(load_metric("needs_both:both"), {"y": np.ones(2)}, {"y": np.zeros(2)}, np.array([0, 1]))
    assert (found.drop, found.interval) == (1.0, None)


def test_a_slow_metric_has_no_interval_rather_than_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a metric that takes a second, no thousand resamples are drawn: the drop comes at once."""
    calls, clock = [], iter([0.0, 1.0])
    monkeypatch.setattr("edgepack.metric.time.perf_counter", lambda: next(clock))
    slow = Metric("mine:slow", lambda outputs, labels: float(calls.append(1) or outputs.mean()))  # type: ignore[func-returns-value]
    found = compare_accuracy(slow, {"y": np.ones(9)}, {"y": np.zeros(9)}, np.arange(9))
    assert (found.drop, found.interval, len(calls)) == (1.0, None, 2)


def test_the_growth_of_an_error_is_a_positive_drop() -> None:
    """Errors are shown as they are; one that quantizing makes larger is a positive drop, with its interval."""
    labels = np.zeros((50, 4))
    found = compare_accuracy(MAE, {"y": labels + 0.1}, {"y": labels + 0.3}, labels, max_drop=0.25)
    assert (found.reference, found.quantized, found.drop) == pytest.approx((0.1, 0.3, 0.2))
    assert found.smaller_is_better
    assert found.interval is not None
    assert found.interval.low == pytest.approx(0.2)
    assert (found.p_value, found.needed_samples) == (None, 1)


def test_roc_auc_has_an_interval_although_one_class_is_rare() -> None:
    """Two anomalies among 40 rows: resamples keep both classes, so that there is always a curve."""
    draw = np.random.default_rng(5)
    labels = (np.arange(40) % 20 == 0).astype(int)
    scores = labels + 0.4 * draw.standard_normal(40)
    found = compare_accuracy(ROC_AUC, {"y": scores}, {"y": np.round(scores)}, labels)
    assert found.drop is not None
    assert found.interval is not None
    assert found.interval.low <= found.drop <= found.interval.high


def test_top1_comes_with_mcnemars_p_and_the_samples_that_would_settle_the_budget() -> None:
    """9 rows lost and 1 won of 100: p is that of the exact test, and 100 rows do not settle a budget of 5 points."""
    right, wrong = [0.9, 0.1], [0.1, 0.9]
    reference = np.array([right] * 99 + [wrong])
    quantized = np.array([wrong] * 9 + [right] * 91)
    found = compare_accuracy(TOP1, {"y": reference}, {"y": quantized}, np.zeros(100, int), max_drop=0.05)
    assert found.p_value == pytest.approx(22 / 1024)
    assert found.needed_samples is not None
    assert found.needed_samples > 100
    assert compare_accuracy(TOP1, {"y": reference}, {"y": quantized}, np.zeros(100, int)).needed_samples is None


@pytest.mark.parametrize(
    ("name", "fits", "misfits"),
    [
        ("top1", [(None, 4)], [[(1, 1)], [(1, 4), (1, 4)], [(1,)]]),
        ("top5", [(1, 6)], [[(1, 5)]]),
        ("mae", [(1, 640)], [[(1, 2), (1, 2)]]),
        ("roc-auc", [(1, 2)], [[(1, 3)]]),
    ],
)
def test_an_output_that_a_metric_cannot_take_is_told_before_the_conversion(
    name: str, fits: list[tuple[int | None, ...]], misfits: list[list[tuple[int, ...]]]
) -> None:
    """Shapes are enough to refuse top5 of five classes, or any built-in metric of two outputs."""
    metric = load_metric(name)
    metric.refuse_misfit(fits)
    metric.refuse_misfit([(1, None)])
    for misfit in misfits:
        with pytest.raises(InputError) as caught:
            metric.refuse_misfit(misfit)
        assert caught.value.code == "metric-misfit"
