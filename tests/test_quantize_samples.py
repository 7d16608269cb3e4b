from __future__ import annotations

import io
import itertools
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_quantize_conformance import target
from tiny_tflite import tiny_model

from edgepack.errors import InputError
from edgepack.events import ignore_events
from edgepack.quantize.arraynames import refuse_foreign_names
from edgepack.quantize.arrays import Port
from edgepack.quantize.binding import fit_samples, read_batches
from edgepack.quantize.checking import check_content, read_labels
from edgepack.quantize.feeding import picked_rows
from edgepack.quantize.overlap import refuse_overlap, repeated_rows
from edgepack.quantize.preprocessing import UNSTATED, Preprocessing, preprocessing_from
from edgepack.quantize.samples import open_samples, parse_samples, samples_from_json
from edgepack.quantize.sources import identify_source
from edgepack.target import Scheme

IMAGE = (Port("image", (None, 4, 4, 1), "float32"),)


def save(folder: Path, name: str = "samples.npz", **arrays: Any) -> Path:
    """An .npz of the arrays."""
    np.savez(folder / name, **arrays)
    return folder / name


def images(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Random float32 images [count, 4, 4, 1]."""
    return np.random.default_rng(seed).random((count, 4, 4, 1), dtype=np.float32)


def refusal_of(
    samples: str | Path,
    inputs: tuple[Port, ...] = IMAGE,
    *,
    labels: bool = False,
    preprocessing: Preprocessing = UNSTATED,
) -> InputError:
    """What is said about a set that something is wrong with."""

    def use() -> None:
        opened = open_samples(samples, preprocessing)
        check_content(opened, need_labels=labels, report=ignore_events)
        fit_samples(opened, inputs)

    with pytest.raises(InputError) as refusal:
        use()
    return refusal.value


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a.npz", ("a.npz", 0, None)),
        ("a.npz#100:500", ("a.npz", 100, 500)),
        ("a.npz#:7", ("a.npz", 0, 7)),
        ("a.npz#7:", ("a.npz", 7, None)),
        ("b#1.npz#2:3", ("b#1.npz", 2, 3)),
    ],
)
def test_rows_are_written_after_a_hash(text: str, parsed: tuple[str, int, int | None]) -> None:
    """FILE#100:500 takes rows, either side may be left out, and a file's own hash is no range."""
    assert parse_samples(text) == parsed


def test_an_existing_file_with_a_hash_in_its_name_is_that_file(tmp_path: Path) -> None:
    """A name that looks like a range but exists is a name."""
    path = save(tmp_path, "set#1:2.npz", x=images(3))
    assert open_samples(path).rows == 3


@pytest.mark.parametrize("text", ["a.npz#1-3", "a.npz#-5:", "a.npz#one:two", "a.npz#1:2:3"])
def test_a_wrong_range_is_told_with_the_grammar(text: str) -> None:
    """What is no range is exit 2, and the hint shows how one is written."""
    with pytest.raises(InputError, match="no range") as refusal:
        open_samples(text)
    assert "#100:500" in refusal.value.hint


@given(data=st.data(), kind=st.sampled_from(["stored", "compressed", "fortran", "folder"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_come_as_numpy_would_slice_them(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    """However a set is stored and read, its rows are those of the array, in order, in pieces of the wanted size."""
    rows = data.draw(st.integers(1, 12))
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))
    size = data.draw(st.integers(1, 13))
    array = (
        np.random.default_rng(rows)
        .integers(0, 99, (rows, 3, 2))
        .astype(data.draw(st.sampled_from(["<f4", ">f8", "i2"])))
    )
    path = tmp_path / "set.npz"
    if kind == "compressed":
        np.savez_compressed(path, x=array)
    elif kind == "folder":
        path = tmp_path / "folder"
        path.mkdir(exist_ok=True)
        np.save(path / "x.npy", array)
    else:
        np.savez(path, x=np.asfortranarray(array) if kind == "fortran" else array)
    samples = open_samples(f"{path}#{start}:{stop}")
    pieces = [batch["x"] for batch in samples.read(["x"], size)]
    assert [len(piece) for piece in pieces[:-1]] == [size] * (len(pieces) - 1)
    assert np.array_equal(np.concatenate(pieces), array[start:stop])


def test_a_folder_of_single_samples_is_stacked_in_name_order(tmp_path: Path) -> None:
    """Files of one sample each, with their labels in y.npy, are a set; so are samples with a batch dimension of 1."""
    array = images(5)
    for number, sample in enumerate(array):
        np.save(tmp_path / f"sample-{number}.npy", sample[None])
    np.save(tmp_path / "y.npy", np.arange(5))
    samples = open_samples(f"{tmp_path}#1:4")
    (batch,) = read_batches(samples, IMAGE, 10)
    assert np.array_equal(batch["image"], array[1:4])
    assert np.array_equal(read_labels(samples), [1, 2, 3])


@pytest.mark.parametrize("labelled", [True, False])
def test_the_one_file_of_another_shape_is_named(tmp_path: Path, labelled: bool) -> None:
    """In a folder of one .npy for each sample the odd one is told, not the count of labels or the names of arrays."""
    for number, sample in enumerate(images(5)):
        np.save(tmp_path / f"s{number}.npy", sample[:3] if number == 3 else sample)
    if labelled:
        np.save(tmp_path / "y.npy", np.arange(5))
    error = refusal_of(tmp_path)
    assert error.code == "odd-sample"
    assert error.message == f"{tmp_path}: s3.npy is [3, 4, 1], the others [4, 4, 1]."


def test_a_file_of_another_type_is_named_and_whole_arrays_are_not_held_against_each_other(tmp_path: Path) -> None:
    """Arrays with a row for each label are inputs of their own, whatever their shapes."""
    for number, sample in enumerate(images(5)):
        np.save(tmp_path / f"s{number}.npy", sample.astype("f8" if number in (1, 2) else "f4"))
    np.save(tmp_path / "y.npy", np.arange(5))
    assert "s1.npy is f8 (and 1 more are odd), the others f4." in refusal_of(tmp_path).message
    whole = tmp_path / "whole"
    whole.mkdir()
    for name, size in (("a", 2), ("b", 2), ("c", 7), ("y", 1)):
        np.save(whole / f"{name}.npy", np.zeros((3, size), np.float32))
    assert {array.name for array in open_samples(whole).inputs} == {"a", "b", "c"}


def test_several_inputs_are_found_by_name_and_given_their_types(tmp_path: Path) -> None:
    """Float64 samples feed a float32 input, whole numbers an int32 one."""
    path = save(tmp_path, left=np.ones((3, 2)), tokens=np.arange(3)[:, None])
    ports = (Port("tokens", (None, 1), "int32"), Port("left", (None, 2), "float32"))
    first, second = read_batches(open_samples(path), ports, 2)
    assert {name: (rows.dtype.name, rows.shape) for name, rows in first.items()} == {
        "tokens": ("int32", (2, 1)),
        "left": ("float32", (2, 2)),
    }
    assert second["tokens"].tolist() == [[2]]


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """No samples there: exit 2 with the path."""
    assert refusal_of(tmp_path / "absent.npz").code == "no-samples"


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 broken"])
def test_something_else_than_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    """What is no archive is exit 2 with the way to write one."""
    path = tmp_path / "samples.npz"
    path.write_bytes(content)
    error = refusal_of(path)
    assert error.code == "broken-samples"
    assert "numpy.savez" in error.hint


def test_a_set_with_a_changed_byte_is_refused(tmp_path: Path) -> None:
    """A compressed archive whose bytes were damaged does not pass as samples."""
    path = tmp_path / "set.npz"
    np.savez_compressed(path, x=images(50))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert refusal_of(path).code == "broken-samples"


def test_a_header_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    """A .npy that claims a million rows and holds three is told so before anything is allocated."""
    stream = io.BytesIO()
    np.save(stream, images(3))
    lying = stream.getvalue().replace(b"(3, 4, 4, 1), }          ", b"(3000000, 4, 4, 1), }    ")
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("x.npy", lying)
    error = refusal_of(tmp_path / "set.npz")
    assert error.code == "broken-samples"
    assert "are there" in error.message


def test_an_object_array_is_never_unpickled(tmp_path: Path) -> None:
    """Pickled content, which could run anything, is refused from its header alone."""

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "ran").touch, ())

    path = save(tmp_path, x=np.array([Bomb()], dtype=object))
    assert refusal_of(path).code == "object-array"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_number_that_ruins_ranges_is_told_with_its_row(tmp_path: Path, value: float) -> None:
    """NaN, infinity and what becomes infinity in float32 are exit 2, with the row."""
    array = images(8).astype(np.float64)
    array[5, 1, 2, 0] = value
    error = refusal_of(save(tmp_path, x=array))
    assert error.code == "not-finite"
    assert "row 5" in error.message


def test_rows_outside_the_range_are_nobodys_business(tmp_path: Path) -> None:
    """A NaN in a row that was not asked for does no harm."""
    array = images(8)
    array[7] = np.nan
    samples = open_samples(f"{save(tmp_path, x=array)}#0:7")
    assert len(check_content(samples, need_labels=False, report=ignore_events).rows) == 7


def test_a_wrong_shape_is_told_with_both_shapes(tmp_path: Path) -> None:
    """The message has what the model takes and what the file has."""
    error = refusal_of(save(tmp_path, x=np.zeros((5, 4, 5, 1), np.float32)))
    assert error.code == "bad-samples"
    assert "[N, 4, 4, 1]" in error.message
    assert "[5, 4, 5, 1]" in error.message


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "U3"])
def test_a_type_that_is_no_number_is_told(tmp_path: Path, dtype: str) -> None:
    """Complex numbers and dates are no samples."""
    assert refusal_of(save(tmp_path, x=np.zeros((5, 4, 4, 1), dtype))).code == "bad-samples"


def test_float_samples_for_an_integer_input_are_told(tmp_path: Path) -> None:
    """Token numbers do not come as floats."""
    error = refusal_of(save(tmp_path, x=np.zeros((5, 3))), (Port("tokens", (None, 3), "int32"),))
    assert error.code == "bad-samples"
    assert "int32" in error.message


def test_an_unknown_name_comes_with_the_nearest(tmp_path: Path) -> None:
    """A misspelt key is told, and what to rename."""
    error = refusal_of(save(tmp_path, imaeg=images(3), y=np.arange(3)))
    assert "'imaeg' looks like it: rename it" in error.message
    assert "image=..." in error.hint


def test_no_rows_at_all_are_told(tmp_path: Path) -> None:
    """An empty set, an empty range, and a range beyond the end are exit 2."""
    path = save(tmp_path, x=images(4))
    assert refusal_of(save(tmp_path, "empty.npz", x=images(0))).code == "empty-samples"
    assert refusal_of(f"{path}#2:2").code == "empty-samples"
    beyond = refusal_of(f"{path}#2:9")
    assert beyond.code == "bad-range"
    assert "has 4" in beyond.message


def test_missing_labels_are_told(tmp_path: Path) -> None:
    """An evaluation without y, or with too few, is exit 2."""
    assert refusal_of(save(tmp_path, x=images(3)), labels=True).code == "no-labels"
    assert refusal_of(save(tmp_path, x=images(3), y=np.arange(2)), labels=True).code == "bad-samples"


def overlap(calibration: Path | str, evaluation: Path | str) -> list[tuple[int, int]]:
    """Look for rows in both sets."""
    sets = open_samples(calibration), open_samples(evaluation)
    first, second = (check_content(one, need_labels=False, report=ignore_events) for one in sets)
    return refuse_overlap(first, second)


def test_rows_both_calibrated_and_evaluated_are_refused(tmp_path: Path) -> None:
    """Ranges of one file that meet are exit 2; ranges apart are fine."""
    path = save(tmp_path, x=images(20))
    with pytest.raises(InputError, match="2 rows"):
        overlap(f"{path}#0:10", f"{path}#8:20")
    assert overlap(f"{path}#0:10", f"{path}#10:20") == []


def test_the_same_rows_in_another_file_are_refused(tmp_path: Path) -> None:
    """A copy under another name, key, order and type is recognized by its content."""
    array = images(20)
    first = save(tmp_path, "a.npz", x=array[:10])
    second = save(tmp_path, "b.npz", image=array[::-1].astype(np.float64))
    with pytest.raises(InputError, match="10 rows") as refusal:
        overlap(first, second)
    assert refusal.value.code == "overlap"
    assert [0, 19] in refusal.value.details["rows"]  # type: ignore[operator]


@pytest.mark.parametrize("files", [1, 2])
@pytest.mark.parametrize(("shared", "refused"), [(1, False), (2, False), (4, False), (5, True), (50, True)])
def test_recordings_that_repeat_are_the_same_in_one_file_and_in_two(
    tmp_path: Path, files: int, shared: int, refused: bool
) -> None:
    """A few equal rows (silence) are named and left alone, more than 1 % of the evaluated ones are refused."""
    array = images(500)
    array[100 : 100 + shared] = array[:shared]
    if files == 1:
        path = save(tmp_path, x=array)
        sets = f"{path}#0:100", f"{path}#100:500"
    else:
        sets = str(save(tmp_path, "a.npz", x=array[:100])), str(save(tmp_path, "b.npz", x=array[100:]))
    if refused:
        with pytest.raises(InputError, match=f"shares {shared} rows"):
            overlap(*sets)
        return
    first = 100 if files == 1 else 0
    assert overlap(*sets) == [(row, first + row) for row in range(shared)]


def test_one_sample_that_is_often_there_counts_once(tmp_path: Path) -> None:
    """Digital silence in every tenth recording is one sample, however often it was recorded."""
    array = images(200)
    array[::10] = 0
    path = save(tmp_path, x=array)
    assert len(overlap(f"{path}#0:100", f"{path}#100:200")) == 10


def test_one_sample_that_is_most_of_the_evaluation_is_refused(tmp_path: Path) -> None:
    """One sample or not: where 75 % of the rows that judge were calibrated on, the share is told and refused."""
    array = images(200)
    array[0] = array[100:175] = 0
    path = save(tmp_path, x=array)
    with pytest.raises(InputError, match=r"shares 75 rows .*, 75 % of those that judge"):
        overlap(f"{path}#0:100", f"{path}#100:200")
    first, second = (
        check_content(open_samples(f"{path}#{rows}"), need_labels=False, report=ignore_events)
        for rows in ("0:100", "174:194")
    )
    note = repeated_rows(first, second)
    assert note is not None
    assert "(0 = 174), 5 % of those that judge: the accuracy may flatter by so much at most" in note.message


def test_words_as_labels_are_told_how_to_become_numbers(tmp_path: Path) -> None:
    """An .npz has no order of the classes: the refusal shows how to number them, under the name y or another."""
    words = np.array(["yes", "no", "up"])
    own = preprocessing_from({"label": "spoken"})
    for sample_set in (
        lambda: open_samples(save(tmp_path, x=images(3), y=words)),
        lambda: check_content(
            open_samples(save(tmp_path, x=images(3), spoken=words), own), need_labels=True, report=ignore_events
        ),
    ):
        with pytest.raises(InputError, match="are words") as caught:
            sample_set()
        assert "classes.index" in caught.value.hint


def test_a_label_that_is_no_number_is_told_as_a_label(tmp_path: Path) -> None:
    """NaN among the labels has nothing to do with ranges."""
    error = refusal_of(save(tmp_path, x=images(3), y=np.array([0.0, np.nan, 1.0])), labels=True)
    assert (error.code, "Correct the label" in error.hint) == ("not-finite", True)


def test_arrays_under_other_names_are_mapped_by_edgepack_toml(tmp_path: Path) -> None:
    """[samples] says which array is the input and which the label, in an .npz and in a folder of .npy, as of a CSV."""
    path = save(tmp_path, specs=images(5), y=np.zeros(5), labels=np.arange(5))
    for name in ("specs", "labels"):
        np.save(tmp_path / f"{name}.npy", np.load(path)[name])
    own = preprocessing_from({"label": "labels", "inputs": {"image": ["specs"]}})
    for place in (path, tmp_path):
        found = check_content(open_samples(place, own), need_labels=True, report=ignore_events)
        (rows,) = read_batches(samples_from_json(found.samples.to_json()), IMAGE, 5)
        assert rows["image"].shape == (5, 4, 4, 1)
        labels = read_labels(found.samples)
        assert labels is not None
        assert labels.tolist() == [0, 1, 2, 3, 4]
    assert [array.name for array in open_samples(path).arrays] == ["specs", "y", "labels"]
    unknown = preprocessing_from({"label": "class", "inputs": {"image": ["pixels"]}})
    assert "[samples.inputs] image" in refusal_of(path, preprocessing=unknown).hint


def test_names_that_no_input_has_are_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    """A SavedModel's file holds its inputs' names: a set without any of them is refused in no time, with the cure."""
    (tmp_path / "saved_model.pb").write_bytes(b"\x0a\x06input_1\x12serving_default")
    source = identify_source(tmp_path)
    refuse_foreign_names(source, open_samples(save(tmp_path, "good.npz", input_1=images(2), other=images(2))))
    refuse_foreign_names(source, open_samples(save(tmp_path, "x.npz", x=images(2))))
    with pytest.raises(InputError, match=r"no input of .* is called 'specs' or 'labels'") as caught:
        refuse_foreign_names(source, open_samples(save(tmp_path, "bad.npz", specs=images(2), labels=np.arange(2))))
    assert '[samples.inputs] x = ["specs"]' in caught.value.hint


def test_picked_rows_are_those_rows_whatever_the_batch(tmp_path: Path) -> None:
    """A candidate of tune calibrates on just the rows that it takes, the last batch being shorter."""
    array = images(20)
    samples = open_samples(f"{save(tmp_path, x=array)}#5:20")
    for size, picks in itertools.product((1, 4), ([0, 3, 4, 9, 14], [7], list(range(15)))):
        found = [batch["image"] for batch in picked_rows(samples, IMAGE, size, picks)]
        assert all(len(rows) == size for rows in found[:-1])
        assert np.array_equal(np.concatenate(found), array[5:][picks])


def test_a_large_compressed_set_is_streamed(tmp_path: Path) -> None:
    """Reading 200 MB takes a fraction of it in memory."""
    path = tmp_path / "large.npz"
    np.savez_compressed(path, x=np.zeros((50_000, 32, 32, 1), np.float32))
    samples = open_samples(path)
    tracemalloc.start()
    try:
        rows = sum(len(batch["v"]) for batch in read_batches(samples, (Port("v", (None, 32, 32, 1), "float32"),), 64))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == 50_000
    assert peak < 20e6


def test_one_row_larger_than_any_memory_is_refused(tmp_path: Path) -> None:
    """A set whose first dimension is not the samples is told, not read."""
    path = tmp_path / "folder"
    path.mkdir()
    with (path / "x.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (1, 300_000_000)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 1_200_000_000)  # sparse: takes no room on the disk
    assert refusal_of(path).code == "samples-too-large"


def test_a_check_set_that_no_device_can_hold_is_refused(tmp_path: Path) -> None:
    """A gigabyte of samples is told before anything is converted, with how many rows would do."""
    from edgepack.building import quantize

    folder, model = tmp_path / "folder", tmp_path / "model.tflite"
    folder.mkdir()
    model.write_bytes(tiny_model())
    with (folder / "x.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (1000, 250_000)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 1_000_000_000)  # sparse: takes no room on the disk
    with pytest.raises(InputError, match="256 MiB") as refusal:
        quantize(model, target=target(scheme=Scheme.FLOAT32), output=tmp_path / "out.tflite", check_set=folder)
    assert refusal.value.code == "check-set-too-large"
    assert "268 rows" in refusal.value.hint
