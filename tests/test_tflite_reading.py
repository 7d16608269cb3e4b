from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_tflite import tiny_model

from edgepack.errors import InputError
from edgepack.tflite import buffer_regions, read_model


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """The tiny model on disk."""
    path = tmp_path / "model.tflite"
    path.write_bytes(tiny_model())
    return path


def test_a_model_tells_its_operators_tensors_and_names(model_file: Path) -> None:
    """Operators with versions, tensors with types and scales, and the source's names of inputs and outputs."""
    model = read_model(model_file)
    assert [(one.name, one.version, one.inputs, one.outputs) for one in model.operators] == [
        ("FULLY_CONNECTED", 4, (0, 1, -1), (2,))
    ]
    assert [(name, tensor.dtype, tensor.shape_signature) for name, tensor in model.named_inputs] == [
        ("image", "int8", (-1, 3))
    ]
    assert [(name, tensor.shape) for name, tensor in model.named_outputs] == [("scores", (1, 2))]
    weights = model.tensor(0, 1)
    assert (weights.constant, weights.bytes, weights.scales, weights.zero_points) == (True, 6, (0.5, 0.25), (0, 0))
    assert not model.tensor(0, 0).constant


def test_constant_regions_are_where_the_weights_lie(model_file: Path) -> None:
    """The bytes at a buffer's offset are the weights that were put in."""
    ((offset, length),) = buffer_regions(model_file)
    assert model_file.read_bytes()[offset : offset + length] == bytes(range(1, 7))


def test_real_models_read(data: Path) -> None:
    """Models of other writers, old operator codes included, read whole, and their constants cover most of the file."""
    for path in data.rglob("*.tflite"):
        model = read_model(path)
        assert model.inputs
        assert model.operators
        assert all(not operator.name.startswith("BUILTIN_") for operator in model.operators)
        regions = buffer_regions(path)
        assert sum(length for _, length in regions) > path.stat().st_size / 2
        assert all(a + length <= b for (a, length), (b, _) in itertools.pairwise(regions))


@pytest.mark.parametrize("content", [b"", b"TFL3", b"PK\x03\x04 and more", bytes(64)])
def test_something_else_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    """A file that is no .tflite is exit 2 and says so."""
    path = tmp_path / "other.tflite"
    path.write_bytes(content)
    with pytest.raises(InputError) as refusal:
        read_model(path)
    assert refusal.value.code == "not-a-tflite"
    assert str(path) in refusal.value.message


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """No file, no traceback."""
    with pytest.raises(InputError) as refusal:
        read_model(tmp_path / "absent.tflite")
    assert refusal.value.code == "no-such-model"


WHOLE = tiny_model()


@given(st.integers(0, WHOLE.index(bytes(range(1, 7))) + 5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_model_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    """Wherever a file was cut, the answer is InputError in our words, never a crash or a half-read model."""
    path = tmp_path / "cut.tflite"
    path.write_bytes(WHOLE[:length])
    with pytest.raises(InputError) as refusal:
        read_model(path)
    assert "unpack" not in refusal.value.message


@given(st.lists(st.tuples(st.integers(8, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=8))
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_model_never_crashes_the_reader(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    """Any changed bytes end in a model or in InputError."""
    content = bytearray(WHOLE)
    for place, value in changes:
        content[place] = value
    path = tmp_path / "damaged.tflite"
    path.write_bytes(content)
    for read in (read_model, buffer_regions):
        with contextlib.suppress(InputError):
            read(path)
