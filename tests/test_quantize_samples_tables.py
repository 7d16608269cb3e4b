"""Sets of samples in CSV files: columns as inputs, labels, and each fault with its line."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepack.errors import InputError
from edgepack.events import ignore_events
from edgepack.quantize.arrays import Port
from edgepack.quantize.binding import fit_samples, read_batches
from edgepack.quantize.checking import check_content, read_labels
from edgepack.quantize.preprocessing import preprocessing_from
from edgepack.quantize.samples import Samples, open_samples, samples_from_json

PAIR = (Port("features", (None, 2), "float32"),)


def table(folder: Path, text: str, name: str = "samples.csv") -> Path:
    """A CSV file of that text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def opened(path: Path | str, **options: Any) -> Samples:
    """The set, with those [samples]."""
    return open_samples(path, preprocessing_from(options))


def fed(path: Path | str, ports: tuple[Port, ...] = PAIR, **options: Any) -> list[dict[str, Any]]:
    """What the model gets, two rows at a time."""
    return list(read_batches(opened(path, **options), ports, 2))


def refusal_of(path: Path | str, ports: tuple[Port, ...] = PAIR, **options: Any) -> InputError:
    """What is said about a file that something is wrong with."""

    def use() -> None:
        samples = opened(path, **options)
        check_content(samples, need_labels=False, report=ignore_events)
        fit_samples(samples, ports)
        fed(path, ports, **options)

    with pytest.raises(InputError) as refusal:
        use()
    return refusal.value


@given(
    rows=st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 2, st.integers(0, 5)), min_size=1, max_size=12),
    delimiter=st.sampled_from([",", ";", "\t"]),
    data=st.data(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numbers_arrive_as_they_were_written(
    tmp_path: Path, rows: list[tuple[float, float, int]], delimiter: str, data: st.DataObject
) -> None:
    """Whatever the delimiter, the columns but the label's are the input, and a range takes those lines."""
    start = data.draw(st.integers(0, len(rows) - 1))
    stop = data.draw(st.integers(start + 1, len(rows)))
    lines = [delimiter.join(["a", "y", "b"]), *(delimiter.join([repr(a), str(y), repr(b)]) for a, b, y in rows)]
    path = table(tmp_path, "\n".join(lines) + "\n")
    got = np.concatenate([batch["features"] for batch in fed(f"{path}#{start}:{stop}")])
    assert got.tolist() == [[a, b] for a, b, _ in rows[start:stop]]
    assert read_labels(opened(f"{path}#{start}:{stop}")).tolist() == [y for *_, y in rows[start:stop]]  # type: ignore[union-attr]


def test_a_line_takes_the_models_shape(tmp_path: Path) -> None:
    """Six columns feed an input of [N, 2, 3, 1], row by row."""
    path = table(tmp_path, "a,b,c,d,e,f\n1,2,3,4,5,6\n")
    (batch,) = fed(path, (Port("image", (None, 2, 3, 1), "float32"),))
    assert batch["image"][0, ..., 0].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_several_inputs_have_their_columns(tmp_path: Path) -> None:
    """[samples.inputs] names them, in any order; whole numbers feed an integer input."""
    path = table(tmp_path, "id,ax,ay,token,kind\nr1,0.5,1.5,7,run\nr2,2.5,3.5,9,walk\n")
    ports = (Port("token", (None, 1), "int32"), Port("accel", (None, 2), "float32"))
    options = {"inputs": {"accel": ["ay", "ax"], "token": ["token"]}, "label": "kind"}
    (batch,) = fed(path, ports, **options)
    assert batch["accel"].tolist() == [[1.5, 0.5], [3.5, 2.5]]
    assert batch["token"].dtype == np.int32
    assert batch["token"].tolist() == [[7], [9]]
    assert read_labels(opened(path, **options)).tolist() == [0, 1]  # type: ignore[union-attr]
    assert samples_from_json(opened(path, **options).to_json()) == opened(path, **options)


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("a,b\n1,2\n1,x\n", "bad-number", "line 3, column 'b': 'x' is no finite number"),
        ("a,b\n1,2\n\n1,\n", "bad-number", "line 4, column 'b': nothing is no finite number"),
        ("a,b\n1,nan\n", "bad-number", "line 2, column 'b': 'nan'"),
        ("a,b\n1,2\n1,2,3\n", "broken-samples", "line 3: there are 3 fields, and 2 columns have a name"),
        ('a,b\n1,2\n"1,2\n', "broken-samples", "line 3"),
        ("1,2\n3,4\n", "bad-columns", "first line has to name the columns"),
        ("a,a\n3,4\n", "bad-columns", "two columns have the name 'a'"),
        ("a,\n3,4\n", "bad-columns", "column 2 has no name"),
        ("a,b\n", "empty-samples", "holds no samples"),
        ("", "empty-samples", "is empty"),
        ("a,b,y\n1,2,0\n1,2,\n", "bad-label", "without a label"),
        ("a,b,c\n1,2,3\n", "bad-samples", "takes [N, 2]"),
    ],
)
def test_each_fault_is_told_with_its_line(tmp_path: Path, text: str, code: str, told: str) -> None:
    """Bad numbers, missing fields, missing names: exit 2 with file, line and column."""
    error = refusal_of(table(tmp_path, text))
    assert (error.code, told in error.message) == (code, True), error.message


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    """Latin-1 and binary files are named with the line where UTF-8 ends."""
    path = tmp_path / "samples.csv"
    path.write_bytes(b"a,b\n1,2\n1,\xe4\n")
    assert "UTF-8" in refusal_of(path).message
    path.write_bytes(b"a\x00,b\n1,2\n")
    assert refusal_of(path).code in ("broken-samples", "bad-columns")


def test_a_wrong_column_comes_with_the_nearest(tmp_path: Path) -> None:
    """A misspelt label or input column is told with the columns that are there."""
    path = table(tmp_path, "a,b,class\n1,2,0\n")
    assert "Did you mean 'class'?" in refusal_of(path, label="clas").message
    assert "no column 'c'" in refusal_of(path, inputs={"x": ["a", "c"]}).message


def test_a_fraction_for_an_integer_input_is_told(tmp_path: Path) -> None:
    """Token numbers have no fractions."""
    error = refusal_of(table(tmp_path, "a,b\n1,2\n3,4.5\n"), (Port("tokens", (None, 2), "int32"),))
    assert "line 3, column 'b': 4.5 is no whole number" in error.message


def test_an_unknown_class_is_told_with_its_line(tmp_path: Path) -> None:
    """Stated classes are all there are."""
    error = refusal_of(table(tmp_path, "a,b,y\n1,2,cat\n3,4,dgo\n"), classes=["cat", "dog"])
    assert "line 3, column 'y': 'dgo' is none of the 2 classes (cat, dog). Did you mean 'dog'?" in error.message


def test_a_long_table_is_streamed(tmp_path: Path) -> None:
    """Ten thousand lines of 100 numbers take a fraction of their size."""
    line = ",".join(["0.25"] * 100)
    names = ",".join(f"c{number}" for number in range(100))
    path = table(tmp_path, f"{names}\n" + f"{line}\n" * 10_000)
    port = (Port("v", (None, 100), "float32"),)
    tracemalloc.start()
    try:
        rows = sum(len(batch["v"]) for batch in read_batches(opened(path), port, 64))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == 10_000
    assert peak < 2e6


def test_refusals_name_what_there_is(tmp_path: Path) -> None:
    """Without a label's column the columns are named, and with a word that is no class the classes."""
    unlabelled = opened(table(tmp_path, "ax,ay,activity\n1,2,3\n"))
    with pytest.raises(InputError, match=r"has no labels \(its columns are ax, ay, activity\)"):
        check_content(unlabelled, need_labels=True, report=ignore_events)
    fault = refusal_of(table(tmp_path, "a,b,y\n1,2,cat\n", "cat.csv"), classes=["idle", "run"])
    assert "'cat' is none of the 2 classes (idle, run)." in str(fault)
