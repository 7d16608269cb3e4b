"""The device's outputs against labels and against the host's outputs."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest

from edgepack.check.compare import compare, read_outputs
from edgepack.documents import ClassEvidence
from edgepack.errors import InputError, IntegrityError, MisfitError
from edgepack.metric import TOP1, Metric
from edgepack.statistics import proportion_interval

RIGHT, WRONG = [0.9, 0.1], [0.2, 0.8]


def arrays(device: list[list[float]], **more: Any) -> dict[str, Any]:
    """A check set of four samples of class 0, all right on the host."""
    host = np.array([RIGHT] * len(device), np.float32)
    return {
        "device/scores": np.array(device, np.float32),
        "float/scores": host,
        "quantized/scores": host,
        "labels": np.zeros(len(device), np.int64),
    } | more


def npz(**content: Any) -> bytes:
    """An .npz file in memory."""
    stream = io.BytesIO()
    np.savez(stream, **content)
    return stream.getvalue()


def test_accuracy_and_parity_come_from_the_devices_outputs() -> None:
    """One wrong sample of four on the device: accuracy 0.75, a drop of 0.25, agreement 0.75."""
    found = compare(arrays([RIGHT, RIGHT, RIGHT, WRONG]), TOP1)
    assert found is not None
    assert found.accuracy is not None
    assert (found.accuracy.reference, found.accuracy.quantized, found.accuracy.drop) == (1.0, 0.75, 0.25)
    assert found.accuracy.interval is not None
    assert found.accuracy.interval.low < 0.25 < found.accuracy.interval.high
    assert found.drop_bound is not None
    assert found.drop_bound < found.accuracy.interval.high
    assert found.parity is not None
    assert found.parity.top1_agreement == 0.75
    assert found.parity.max_abs_error == pytest.approx(0.7)
    assert (found.samples, found.bad_outputs) == (4, 0)


def test_what_came_back_is_kept_as_evidence() -> None:
    """Labels, the device's classes and the float model's are there to be counted again; worst samples come first."""
    found = compare(arrays([RIGHT, [0.6, 0.4], WRONG]), TOP1, scales={"scores": 0.1})
    assert found is not None
    assert found.classes == ClassEvidence((0, 0, 0), (0, 0, 1), (0, 0, 0))
    assert found.worst == (2, 1, 0)
    assert found.parity is not None
    assert (found.parity.max_steps, found.parity.reference_agreement) == (7.0, pytest.approx(2 / 3))
    assert found.accuracy is not None
    assert found.accuracy.quantized_interval == proportion_interval(2, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_no_numbers_are_counted_and_nothing_is_claimed(bad: float) -> None:
    """Three bad samples are counted; neither accuracy nor parity is computed from the rest."""
    found = compare(arrays([RIGHT, [bad, 0.1], [0.1, bad], [bad, bad]]), TOP1)
    assert found is not None
    assert (found.bad_outputs, found.accuracy, found.parity) == (3, None, None)


def test_an_infinity_that_the_host_computes_too_is_an_output_like_others() -> None:
    """A model that gives -inf for an impossible class (a log probability) is not broken."""
    rows = [[0.0, -np.inf], [0.0, -np.inf]]
    host = np.array(rows, np.float32)
    found = compare(arrays(rows, **{"float/scores": host, "quantized/scores": host}), TOP1)
    assert found is not None
    assert found.bad_outputs == 0
    assert found.accuracy is not None
    assert found.parity is not None
    assert found.parity.max_abs_error == 0.0


def test_without_labels_there_is_parity_and_no_accuracy() -> None:
    """Unlabelled samples still show whether the device computes what the host computes."""
    given = arrays([RIGHT, WRONG])
    del given["labels"]
    found = compare(given, TOP1)
    assert found is not None
    assert found.accuracy is None
    assert found.parity is not None
    assert found.parity.top1_agreement == 0.5


def test_without_the_float_models_outputs_there_is_accuracy_and_no_drop() -> None:
    """Labels alone give the accuracy on the device."""
    given = arrays([RIGHT, WRONG])
    del given["float/scores"]
    found = compare(given, TOP1)
    assert found is not None
    assert found.accuracy is not None
    assert (found.accuracy.quantized, found.accuracy.reference, found.accuracy.drop) == (0.5, None, None)
    assert found.drop_bound is None


def test_a_metric_of_ones_own_gets_a_bootstrap_interval() -> None:
    """Any function of (outputs, labels) has a drop, an interval and a bound."""
    metric = Metric("mine:score", lambda outputs, labels: float(1 - abs(outputs[:, 1] - labels).mean()))
    found = compare(arrays([RIGHT, RIGHT, RIGHT, WRONG]), metric)
    assert found is not None
    assert found.accuracy is not None
    assert found.accuracy.drop == pytest.approx(0.175)
    assert found.accuracy.interval is not None
    assert found.drop_bound is not None
    assert found.drop_bound <= found.accuracy.interval.high


def test_a_metric_that_fails_is_told_with_its_own_words() -> None:
    """A metric that raises is bad input of the user's, not a crash."""

    def broken(outputs: Any, labels: Any) -> float:
        raise RuntimeError("no such thing")

    with pytest.raises(InputError, match="no such thing"):
        compare(arrays([RIGHT, WRONG]), Metric("mine:broken", broken))


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.zeros(3, np.int64)},
        {"float/scores": np.zeros((3, 2), np.float32)},
        {"quantized/scores": np.zeros((2, 3), np.float32)},
        {"device/more": np.zeros((2, 2), np.float32)},
    ],
    ids=["labels", "reference", "classes", "more"],
)
def test_outputs_of_another_check_set_are_refused(change: dict[str, Any]) -> None:
    """A check set of another model, or of other samples, never gives an accuracy: exit 5."""
    with pytest.raises(MisfitError) as caught:
        compare(arrays([RIGHT, WRONG], **change), TOP1)
    assert caught.value.code == "other-outputs"


def test_outputs_of_different_lengths_are_refused() -> None:
    """A device that answers some samples with one output and others with another is not believed."""
    with pytest.raises(IntegrityError, match="different lengths"):
        compare({"device/a": np.zeros((2, 2)), "device/b": np.zeros((3, 2))}, TOP1)


def test_no_outputs_are_no_comparison() -> None:
    """A device that ran no check set is compared with nothing."""
    assert compare({}, TOP1) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no zip",
        npz(scores=np.array([{"a": 1}], dtype=object)),
        npz(scores=np.array(["text"])),
        npz(scores=np.float32(1)),
        npz(scores=np.zeros(4))[:-40],
    ],
    ids=["empty", "other", "objects", "text", "scalar", "cut"],
)
def test_outputs_that_cannot_be_trusted_are_refused(content: bytes) -> None:
    """What comes from a device is never unpickled, and a broken file is an error, not a crash."""
    with pytest.raises(IntegrityError):
        read_outputs(content)


def test_outputs_that_unpack_to_more_than_they_may_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file that claims more than the bound is refused before any of it is unpacked."""
    monkeypatch.setattr(sys.modules["edgepack.check.compare"], "MAX_OUTPUT_BYTES", 4000)
    stream = io.BytesIO()
    np.savez_compressed(stream, x=np.zeros(100_000))
    assert len(stream.getvalue()) < 4000
    with pytest.raises(IntegrityError, match="unpacks to more"):
        read_outputs(stream.getvalue())
    assert read_outputs(npz(x=np.zeros(10)))["x"].shape == (10,)
