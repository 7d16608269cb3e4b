"""What a bundle shows of itself, and what changed inside of the model from one to the next."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_models import add_model, make_bundle
from bundle_tiny import manifest_value, write_tiny
from deploying import tiny_bundle
from hypothesis import given
from hypothesis import strategies as st

import edgepack
from edgepack.bundle import open_bundle
from edgepack.bundle.contents import read_contents
from edgepack.bundle.modeldiff import compare_models, value_difference
from edgepack.cli.main import run
from edgepack.documents import canonical_json
from edgepack.errors import InputError
from edgepack.tflite import TfliteModel, read_model


def model(folder: Path, name: str, **options: Any) -> TfliteModel:
    """A tiny model from a file of its own."""
    (path := folder / name).write_bytes(add_model(**options))
    return read_model(path)


def compared(old: TfliteModel, new: TfliteModel) -> dict[str, Any]:
    """The changes, with the constants read from the models' files."""

    def reader(of: TfliteModel) -> Any:
        return lambda tensor: of.path.read_bytes()[tensor.offset : tensor.offset + tensor.bytes]

    return compare_models(old, new, reader(old), reader(new))


def test_a_bundle_tells_what_its_model_takes_and_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Inputs, outputs, operators, constants, check set, sizes: read by a person, without a look into the files."""
    path, _ = tiny_bundle(tmp_path)
    contents = edgepack.inspect(path).contents
    assert contents is not None
    assert contents.operators
    assert sum(contents.weight_bytes.values()) > 0
    assert contents.check_set is not None
    assert contents.check_set.samples > 0
    assert contents.notes == ()
    assert run(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    for port in (*contents.inputs, *contents.outputs):
        assert f"{port.name}: {port.dtype} [" in shown
    assert f"{contents.check_set.samples} samples, labelled" in shown


def test_what_the_manifest_tells_of_the_model_is_what_the_model_holds(tmp_path: Path) -> None:
    """A bundle of an edgepack that wrote no such thing is read to the same end."""
    made = make_bundle(tmp_path)
    told = read_contents(open_bundle(Path(made.path)))
    files = {"model.tflite": (tmp_path / "m.tflite").read_bytes(), "loader.py": b""}
    old = read_contents(open_bundle(write_tiny(tmp_path / "old.edgepack", files)))
    assert (told.inputs, told.outputs, told.operators) == (old.inputs, old.outputs, {"ADD": 1})
    assert (told.weight_bytes, told.parameters) == (old.weight_bytes, 4) == ({"float32": 16}, 4)


@pytest.mark.parametrize("contents", [{}, {"inputs": 3}, {"inputs": [{}], "outputs": [], "operators": [], "x": None}])
def test_a_manifest_that_tells_nonsense_of_its_model_is_not_believed(tmp_path: Path, contents: dict[str, Any]) -> None:
    """Then the model itself is read; one that is none, or a check set that is none, is a note and no crash."""
    files = {"model.tflite": add_model(), "loader.py": b"", "check.npz": b"PK nothing"}
    manifest = canonical_json(manifest_value(files) | {"contents": contents})
    found = read_contents(open_bundle(write_tiny(tmp_path / "odd.edgepack", files, manifest=manifest)))
    assert found.operators == {"ADD": 1}
    assert found.notes[0].startswith("check.npz cannot be read: ")
    broken = read_contents(open_bundle(write_tiny(tmp_path / "broken.edgepack")))
    assert "no .tflite model" in broken.notes[0]
    assert (broken.inputs, broken.check_set) == ((), None)


def test_a_diff_tells_which_tensors_changed_and_by_how_much(tmp_path: Path) -> None:
    """Other weights are told by their tensor: how many numbers differ and by how much; the rest is counted."""
    old, new = model(tmp_path, "old.tflite"), model(tmp_path, "new.tflite", fill=2.0)
    found = compared(old, new)
    assert found["tensors"]["changed"] == [
        {"name": "c", "what": "values", "before": "4 numbers", "after": "4 differ, by up to 0.5"}
    ]
    assert found["tensors"]["unchanged"] == 2
    assert (found["inputs"], found["operators"]) == ([], {"added": [], "removed": [], "changed": []})


def test_a_diff_tells_shapes_and_what_a_caller_would_notice(tmp_path: Path) -> None:
    """A model that takes vectors of another length: its input, its output and its tensors are told so."""
    found = compared(model(tmp_path, "old.tflite"), model(tmp_path, "new.tflite", values=8))
    assert found["inputs"] == [{"name": "x", "what": "form", "before": "float32 [4]", "after": "float32 [8]"}]
    assert {(line["name"], line["what"]) for line in found["tensors"]["changed"]} == {(name, "shape") for name in "xcy"}


def test_a_model_compared_with_itself_has_no_changes(tmp_path: Path) -> None:
    """Nothing is told where nothing is."""
    one = model(tmp_path, "m.tflite")
    found = compared(one, one)
    assert found["tensors"] == {"added": [], "removed": [], "changed": [], "unchanged": 3}


def test_inspect_diff_shows_the_change_inside_of_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In words and in JSON; for the same model there is nothing to tell, for one that cannot be read a sentence."""
    first = make_bundle(tmp_path / "a").path
    second = make_bundle(tmp_path / "b", version="2", values=8).path
    same = make_bundle(tmp_path / "c", version="3").path
    assert run(["inspect", "--diff", first, second]) == 0
    shown = capsys.readouterr().out
    assert "The model changed: 3 tensors with another shape; 0 tensors as before." in shown
    assert "float32 [4]" in shown
    assert run(["inspect", "--diff", first, second, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["outputs"][0]["after"] == "float32 [8]"
    assert edgepack.diff_bundles(first, same)["model"] is None
    unreadable = write_tiny(tmp_path / "odd.edgepack")
    assert "no .tflite model" in edgepack.diff_bundles(first, unreadable)["model"]["unreadable"]
    assert run(["inspect", "--diff", first, str(unreadable)]) == 0
    assert "The models differ and cannot be compared" in capsys.readouterr().out


NUMBERS = st.lists(st.integers(-128, 127), min_size=1, max_size=20)


@given(NUMBERS, st.data())
def test_the_difference_of_two_constants_is_counted_exactly(numbers: list[int], data: st.DataObject) -> None:
    """How many of them differ, and the largest difference; nothing for the same."""
    others = data.draw(st.lists(st.integers(-128, 127), min_size=len(numbers), max_size=len(numbers)))
    before, after = np.array(numbers, "int8"), np.array(others, "int8")
    count = sum(a != b for a, b in zip(numbers, others, strict=True))
    largest = max((abs(a - b) for a, b in zip(numbers, others, strict=True)), default=0)
    told = value_difference(before.tobytes(), after.tobytes(), "int8")
    assert told == (f"{count} differ, by up to {largest:.3g}" if count else "")


@given(st.sampled_from(["float32", "float16", "bool", "int4", "what"]), st.binary(), st.binary())
def test_constants_of_any_type_and_content_are_compared(dtype: str, old: bytes, new: bytes) -> None:
    """NaN, infinity and halves of numbers in a damaged model end in words."""
    whole = 4 * math.floor(min(len(old), len(new)) / 4)
    assert bool(value_difference(old[:whole], new[:whole], dtype)) == (old[:whole] != new[:whole])
    assert value_difference(old, old, dtype) == ""


def test_a_region_of_a_bundle_reads_like_a_file(tmp_path: Path) -> None:
    """Seeking inside of an entry never leaves it."""
    bundle = open_bundle(write_tiny(tmp_path / "b.edgepack"))
    with bundle.open_entry("loader.py") as stream:
        assert stream.seek(0, io.SEEK_END) == 8
        assert stream.read() == b""
        assert stream.seek(-3, io.SEEK_CUR) == 5
        assert stream.read() == b"()\n"
        stream.seek(100)
        assert stream.read() == b""


def test_inspect_tells_the_digest_of_the_whole_file(tmp_path: Path) -> None:
    """It is computed beside everything else; a file that is no bundle is refused without waiting for it."""
    made = make_bundle(tmp_path)
    content = Path(made.path).read_bytes()
    assert edgepack.inspect(made.path).sha256 == made.sha256 == hashlib.sha256(content).hexdigest()
    (sparse := tmp_path / "large").touch()
    os.truncate(sparse, 1 << 40)
    before = time.monotonic()
    with pytest.raises(InputError, match="no bundle"):
        edgepack.inspect(sparse)
    assert time.monotonic() - before < 20
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError):
        edgepack.inspect(tmp_path / "pipe")
