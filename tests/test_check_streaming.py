"""A check set that stays on this machine and goes to the device in pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploying import Device, host_scores, tiny_bundle, tiny_model, tiny_target

import edgepack
from edgepack.bundle.build import build_bundle
from edgepack.check import pieces, streaming
from edgepack.check.streaming import streamed
from edgepack.errors import EdgepackError, InputError
from edgepack.events import Event

ROWS = 300


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two or three pieces of what would be one."""
    assert pieces.PIECE_BYTES == streaming.PIECE_BYTES
    monkeypatch.setattr(streaming, "FIRST_PIECE_BYTES", 100 * 64)
    monkeypatch.setattr(streaming, "PIECE_BYTES", 120 * 64)


def samples(folder: Path, *, wrong: int = 0, **more: Any) -> Path:
    """300 labelled images in a file, ``wrong`` of which the model gets wrong."""
    images = np.random.default_rng(5).uniform(0, 1, (ROWS, 8, 8, 1)).astype(np.float32)
    _, scores = host_scores(tiny_model(folder / "labelling"), images)
    labels = scores.argmax(axis=1)
    labels[:wrong] = (labels[:wrong] + 1) % scores.shape[1]
    path = folder / "large.npz"
    np.savez(path, **({"x": images, "y": labels} | more))
    return path


@pytest.mark.usefixtures("small_pieces")
def test_accuracy_is_that_over_the_samples_of_this_machine(device: Device, tmp_path: Path) -> None:
    """All rows are asked, in pieces, whatever the release's own set says; what went over the line is told."""
    edgepack.push(tiny_bundle(tmp_path, budget={"min_accuracy": 0.95}, wrong=4)[0], **device.where)
    events: list[Event] = []
    found = edgepack.check(check_set=samples(tmp_path, wrong=30), report=events.append, **device.where)
    assert found.verdict == "fail"
    assert found.accuracy is not None
    assert (found.accuracy.quantized, found.accuracy.samples) == (0.9, ROWS)
    assert found.accuracy.drop is None
    assert found.accuracy.quantized_interval is not None
    assert found.parity is not None, "from the release's own check set"
    assert found.check_set is not None
    assert (found.check_set["name"], found.check_set["samples"], found.check_set["pieces"]) == ("large.npz", ROWS, 3)
    assert ROWS * 64 < found.check_set["sent_bytes"] < ROWS * 64 + 6000, "a quarter of the floats"
    assert [event.done for event in events if event.message == "check set"] == [0, 100, 220, 300]
    assert not list((device.root / "incoming").iterdir())


def test_a_check_sets_own_file_gives_drop_and_parity(here: Device, tmp_path: Path) -> None:
    """What `quantize` left beside the model is streamed as well, its references with it."""
    path, _ = tiny_bundle(tmp_path, check_set=False, budget={"max_accuracy_drop": 0.02})
    edgepack.push(path, **here.where)
    kept = tiny_model(tmp_path / "again", wrong=4).with_suffix(".check.npz")
    found = edgepack.check(check_set=kept, metric="top1", **here.where)
    assert found.verdict == "fail"
    assert found.accuracy is not None
    assert found.accuracy.drop == pytest.approx(0.1)
    assert found.parity is not None
    assert found.parity.top1_agreement == 1.0


@pytest.mark.usefixtures("small_pieces")
def test_a_broken_line_costs_one_piece(here: Device, tmp_path: Path) -> None:
    """What was answered before is not asked again, and what comes back is what one line would have brought."""
    release = edgepack.push(tiny_bundle(tmp_path)[0], **here.where).release
    where = {"app": "tiny", "release": release}
    options = {"threads": 1, "min_runs": 1, "min_seconds": 0.0, "max_seconds": 1.0}
    with streamed(str(samples(tmp_path)), None) as stream:
        with here.session() as session:
            told = session.request("measure", **where, options=options).result

            def cut(event: Event) -> None:
                if event.done == 220:
                    session.close()

            with pytest.raises(EdgepackError):
                stream.run(session, where, told, 0, cut)
        with here.session() as session:
            arrays = stream.run(session, where, told, 0, lambda event: None)
        (output,) = (array for name, array in arrays.items() if name.startswith("device/"))
        assert np.array_equal(output.argmax(axis=1), arrays["labels"])
        assert (stream.told()["samples"], stream.told()["pieces"]) == (ROWS, 3)


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        ({"y": np.full(ROWS, 4)}, "bad-labels", r"large\.npz.*0\.\.3; yours are 4\.\.4"),
        ({"y": np.zeros(7, int)}, "bad-samples", "has 300 samples, and 'y' has 7 rows"),
        ({"x": np.zeros((ROWS, 9, 8, 1), np.float32)}, "bad-samples", r"shape \[300, 9, 8, 1\]"),
        ({"float/output_0": np.zeros((ROWS, 5), np.float32)}, "other-outputs", "not made for this model"),
    ],
    ids=["labels", "rows", "shape", "outputs"],
)
def test_samples_that_do_not_fit_are_refused(
    here: Device, tmp_path: Path, more: dict[str, Any], code: str, says: str
) -> None:
    """Labels that are no classes, too few of them, inputs or outputs of another shape: each by name, and no verdict."""
    path, _ = tiny_bundle(tmp_path)
    edgepack.push(path, **here.where)
    with pytest.raises(EdgepackError, match=says) as caught:
        edgepack.check(check_set=samples(tmp_path, **more), **here.where)
    assert caught.value.code == code
    assert edgepack.status(**here.where).releases[0]["verdict"] is None


def test_samples_without_labels_give_no_accuracy(here: Device, tmp_path: Path) -> None:
    """A limit on accuracy is inconclusive then, never a pass."""
    edgepack.push(tiny_bundle(tmp_path, budget={"min_accuracy": 0.5})[0], **here.where)
    path = tmp_path / "unlabelled.npz"
    np.savez(path, x=np.zeros((9, 8, 8, 1), np.float32))
    found = edgepack.check(check_set=path, **here.where)
    assert (found.verdict, found.accuracy) == ("inconclusive", None)


def test_outputs_that_are_no_numbers_fail(here: Device, tmp_path: Path) -> None:
    """A float model that overflows on three samples says so with their number, and its accuracy is not claimed."""
    model = tmp_path / "float.tflite"
    model.write_bytes((Path(__file__).parent / "data" / "tiny_float.tflite").read_bytes())
    path = tmp_path / "float.edgepack"
    build_bundle(model, target=tiny_target(), name="tiny", version="1", output=path, with_runtime=False)
    edgepack.push(path, **here.where)
    left = np.zeros((9, 3), np.float32)
    left[2:5] = np.inf
    np.savez(tmp_path / "odd.npz", left=left, right=np.zeros_like(left), y=np.zeros(9, int))
    found = edgepack.check(check_set=tmp_path / "odd.npz", **here.where)
    assert (found.verdict, found.accuracy) == ("fail", None)
    assert "(NaN or infinite) for 3 of 9 samples" in found.reasons[0]


def test_samples_that_are_not_there_are_told_first() -> None:
    """No device is called for a file that does not exist."""
    with pytest.raises(InputError) as caught:
        edgepack.check("nobody@device.invalid", check_set="/no/such/samples.npz")
    assert caught.value.code == "no-samples"
