"""Metrics, built in or a user's own function, and what quantizing costs of them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
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


def test_the_resamples_of_a_metric_are_a_fixed_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows give the same interval on any machine: 1,000 resamples, 200 of your own metric, or what you ask."""
    calls: list[int] = []
    monkeypatch.setattr("math.counted", lambda outputs, labels: calls.append(1) or outputs.mean(), raising=False)
    own, labels = load_metric("math:counted"), np.arange(9)
    for metric, resamples in ((own, 200), (load_metric("math:counted", 100), 100), (load_metric("math:counted", 0), 0)):
        calls.clear()
        found = compare_accuracy(metric, {"y": np.ones(9)}, {"y": np.zeros(9)}, labels)
        assert (found.drop, found.interval is None, len(calls)) == (1.0, resamples == 0, 2 + 2 * resamples)
    assert (ROC_AUC.resamples, load_metric("mae", 300).resamples) == (1000, 300)


@pytest.mark.parametrize("resamples", [-1, 1, 99, 100_001])
def test_resamples_that_make_no_interval_are_refused(resamples: int) -> None:
    """Fewer than a hundred say nothing about the ends of an interval."""
    with pytest.raises(InputError) as caught:
        load_metric("mae", resamples)
    assert caught.value.code == "bad-resamples"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Metric]:
    """Writes a module of the current folder, and gives its function ``metric``."""

    def written(name: str, code: str) -> Metric:
        (tmp_path / f"{name}.py").write_text(code)
        return load_metric(f"{name}:metric")

    monkeypatch.chdir(tmp_path)
    return written


@pytest.mark.parametrize(
    "change",
    ["labels -= 1", "labels.sort()", "outputs *= 0.5; labels += 1"],
)
def test_a_metric_that_changes_its_arguments_judges_both_models_alike(
    own: Callable[[str, str], Metric], change: str
) -> None:
    """Each call gets arrays of its own: equal models have a drop of 0, and what comes after sees what was there."""
    metric = own(
        "changing_metric", f"def metric(outputs, labels):\n    {change}\n    return (outputs == labels).mean()\n"
    )
    outputs, labels = np.array([3.0, 1.0, 2.0, 2.0]), np.array([4, 2, 3, 3])
    outputs.flags.writeable = False  # as those that are mapped from a file
    found = compare_accuracy(metric, {"y": outputs}, {"y": outputs}, labels)
    assert found.drop == 0
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (0, 0)
    assert labels.tolist() == [4, 2, 3, 3]


def test_a_metric_may_print_and_import_its_neighbours(
    own: Callable[[str, str], Metric], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it prints when it is called goes to stderr and spoils no --json; modules beside it are found then."""
    (tmp_path / "neighbour_of_metric.py").write_text("SCALE = 2\n")
    code = "def metric(*_):\n    from neighbour_of_metric import SCALE\n    print('called')\n    return SCALE\n"
    assert own("printing_metric", code).measure({"y": np.ones(1)}, np.ones(1)) == 2
    assert capsys.readouterr() == ("", "called\n")


@pytest.mark.parametrize("text", ["'0.9'", "b'0.9'", "__import__('numpy').array('0.9')"])
def test_a_text_is_no_number(own: Callable[[str, str], Metric], text: str) -> None:
    """A metric that returns "0.9" is asked for a number instead of being read."""
    with pytest.raises(InputError, match="returned the text"):
        own("texting_metric", f"def metric(outputs, labels):\n    return {text}\n").measure(
            {"y": np.ones(1)}, np.ones(1)
        )


def test_a_metric_that_fails_is_shown_by_file_line_and_command(own: Callable[[str, str], Metric]) -> None:
    """The line of the user's own file, also where a library fails below it, and a command that shows the traceback."""
    metric = own(
        "failing_metric", "import numpy\ndef metric(outputs, labels):\n    return numpy.reshape(labels, (7, 7))\n"
    )
    with pytest.raises(InputError, match=r"failed in failing_metric\.py, line 3: ValueError") as caught:
        metric.measure({"a": np.ones((2, 3), np.float32), "b": np.ones(2)}, np.ones(2, int))
    command = caught.value.hint.partition("command: ")[2]
    ran = subprocess.run(shlex.split(command.replace("python", sys.executable, 1)), capture_output=True, text=True)
    assert "numpy.reshape" in ran.stderr


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
