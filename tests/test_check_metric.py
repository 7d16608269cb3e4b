"""Loading a metric: top1, or a user's own function."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgepack.errors import InputError
from edgepack.metric import TOP1, Metric, compare_accuracy, load_metric


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
