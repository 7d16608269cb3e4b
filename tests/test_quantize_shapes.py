"""The shapes that a person pins inputs to, as text and against a model's inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import InputError, MisfitError
from edgepack.events import ignore_events
from edgepack.quantize.arrays import Port
from edgepack.quantize.checking import check_content
from edgepack.quantize.refusals import advise_pins, require_fit
from edgepack.quantize.samples import open_samples
from edgepack.quantize.shapes import InputShape, parse_input_shapes, pin_file, pin_ports, pinned_batch

SIZES = st.lists(st.one_of(st.none(), st.integers(1, 10_000)), min_size=1, max_size=6)


@given(st.one_of(st.none(), st.from_regex(r"[a-z_/:0-9.]+", fullmatch=True)), SIZES)
def test_what_is_written_is_read(name: str | None, sizes: list[int | None]) -> None:
    """A name with slashes and colons, any rank, open sizes: the text means what it says."""
    text = ",".join("?" if size is None else str(size) for size in sizes)
    (shape,) = parse_input_shapes([text if name is None else f"{name}={text}"])
    assert shape == InputShape(name, tuple(sizes))


@pytest.mark.parametrize("text", ["", "x=", "=1,2", "x=1,,2", "x=1,-2", "x=1;2", "x=1,0", "x=1,2.5", "1x2"])
def test_anything_else_is_refused_with_the_form(text: str) -> None:
    """The error shows how to write it."""
    with pytest.raises(InputError) as refusal:
        parse_input_shapes([text])
    assert refusal.value.code == "bad-input-shape"
    assert "--input-shape" in str(refusal.value.hint)


def test_one_input_has_one_shape() -> None:
    """Two shapes of the same input, or two batches, contradict each other."""
    for texts in (["x=1,2", "x=1,3"], ["1,2", "1,3"]):
        with pytest.raises(InputError, match="Two shapes"):
            parse_input_shapes(texts)
    with pytest.raises(InputError, match="different batches: 1 and 4"):
        pinned_batch(parse_input_shapes(["x=1,2", "y=4,2"]), 1)


def test_the_stated_batch_goes_before_the_other() -> None:
    """A shape states the whole shape; ? in front leaves the batch to --batch."""
    assert pinned_batch(parse_input_shapes(["x=4,2"]), 1) == 4
    assert pinned_batch(parse_input_shapes(["x=?,2"]), 1) == 1
    assert pinned_batch((), None) is None
    assert pinned_batch(parse_input_shapes(["x=4,2"]), 4) == 4


@pytest.mark.parametrize("batch", [2, None])
def test_another_batch_than_the_shape_states_is_refused(batch: int | None) -> None:
    """--batch 2 --input-shape 4,10,4 asks for two things; neither is done in silence."""
    with pytest.raises(InputError, match="states a batch of 4"):
        pinned_batch(parse_input_shapes(["x=4,2"]), batch)


PORTS = (Port("a", (None, None, 40), "float32"), Port("b", (None, 3), "float32"))


def test_a_tflite_is_pinned_whole_or_stays_open() -> None:
    """The batch goes to every input; with a shape nothing may stay open, without one an open file is as it was."""
    both = pin_file(Path("m.tflite"), PORTS, ["a=1,98,?", "b=?,3"], 1)
    assert [port.shape for port in both] == [(1, 98, 40), (1, 3)]
    assert pin_file(Path("m.tflite"), PORTS, [], 1) == PORTS
    assert pin_file(Path("m.tflite"), PORTS[1:], [], 2)[0].shape == (2, 3)
    for shapes, batch in ((["b=1,3"], 1), (["a=?,98,40"], None), ([], 4)):
        with pytest.raises(InputError, match="is pinned whole"):
            pin_file(Path("m.tflite"), PORTS, shapes, batch)


def test_open_sizes_are_pinned_and_others_stay() -> None:
    """Only the input that is named changes, and its batch stays open for --batch."""
    first, second = pin_ports(PORTS, parse_input_shapes(["a=1,98,?"]))
    assert first.shape == (None, 98, 40)
    assert second == PORTS[1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1,98,40", "names none"),
        ("aa=1,98,40", "Did you mean 'a'"),
        ("a=1,98,41", r"is \?,\?,40 \(\? is open\), and cannot be 1,98,41: size 3 is fixed at 40, not 41\."),
        ("a=1,98", r"cannot be 1,98: it has 3 sizes, not 2"),
    ],
)
def test_what_the_model_cannot_have_is_refused(text: str, told: str) -> None:
    """An unknown input, a fixed size, another rank: each with what the model has."""
    with pytest.raises(InputError, match=told):
        pin_ports(PORTS, parse_input_shapes([text]))


def test_samples_of_another_shape_tell_the_shape_that_they_have(tmp_path: Path) -> None:
    """The fault may be --input-shape: what fits stands in the hint, unless the model itself is contradicted."""
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 10, 4), np.float32))
    samples = open_samples(tmp_path / "x.npz")

    def hint(size: int, *texts: str) -> str:
        with pytest.raises(InputError) as refusal:
            require_fit(samples, (Port("seq", (None, size, 4), "float32"),), texts)
        return refusal.value.hint

    assert hint(8, "seq=1,8,4").endswith("Or correct --input-shape: seq=1,10,4 fits these samples.")
    assert hint(8, "1,8,?").endswith("Or correct --input-shape: seq=1,10,4 fits these samples.")
    assert "--input-shape" not in hint(8, "seq=1,?,4")
    assert "--input-shape" not in hint(8)


def test_a_pin_is_advised_once(tmp_path: Path) -> None:
    """Where the samples say what to pin, the general advice of an open size is left out; other cures stay."""
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 10, 4), np.float32))
    checked = check_content(open_samples(tmp_path / "x.npz"), need_labels=False, report=ignore_events)
    findings = [{"code": "open-shape", "cure": "Pin it."}, {"code": "other", "cure": "Mend it."}]
    error = MisfitError("conformance", "It does not fit.", hint="Pin it. Mend it.", findings=findings)
    advise_pins(error, (Port("seq", (None, None, 4), "float32"),), checked)
    assert error.hint == "The model leaves sizes open: pin them, --input-shape seq=1,10,4. Mend it."
