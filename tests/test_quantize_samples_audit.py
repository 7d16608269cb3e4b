"""The audit of calibration samples: what is refused, what is worth a note, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgepack.documents import Finding
from edgepack.errors import InputError
from edgepack.events import ignore_events
from edgepack.quantize.audit import audit_samples
from edgepack.quantize.checking import CheckedSamples, check_content, refuse_uniform
from edgepack.quantize.overlap import refuse_overlap
from edgepack.quantize.preprocessing import Preprocessing, preprocessing_from
from edgepack.quantize.samples import open_samples


def checked(path: Path, name: str = "a.npz", options: dict[str, Any] | None = None, **arrays: Any) -> CheckedSamples:
    """A set of those arrays, read."""
    np.savez(path / name, **arrays)
    return check_content(
        open_samples(path / name, preprocessing_from(options or {})), need_labels=False, report=ignore_events
    )


def numbers(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Random rows between 0 and 1."""
    return np.random.default_rng(seed).random((count, 8), np.float32)


def codes(findings: tuple[Finding, ...]) -> list[str]:
    """Their codes, in order."""
    return [finding.code for finding in findings]


def test_a_good_set_says_nothing(tmp_path: Path) -> None:
    """A hundred different samples of every class are worth no note."""
    good = checked(tmp_path, x=numbers(100), y=np.arange(100) % 4)
    judges = checked(tmp_path, "b.npz", x=numbers(40, 1), y=np.arange(40) % 4)
    assert audit_samples(good, judges) == ()
    assert audit_samples(None, None) == ()


def test_few_repeated_and_constant_samples_are_noted(tmp_path: Path) -> None:
    """Each with the first row that shows it and what to do; none of them refuses the set."""
    rows = numbers(20)
    rows[7] = rows[3]
    rows[9] = 0.5
    notes = audit_samples(checked(tmp_path, x=rows), None)
    assert codes(notes) == ["few-samples", "repeated-samples", "constant-samples"]
    assert {note.severity for note in notes} == {"note"}
    assert "row 7 is row 3" in notes[1].message
    assert "row 9" in notes[2].message
    assert all(note.cure for note in notes)


def test_the_rows_in_a_note_are_those_of_the_file(tmp_path: Path) -> None:
    """A range does not shift them."""
    rows = numbers(20)
    rows[15] = 0
    np.savez(tmp_path / "a.npz", x=rows)
    part = check_content(open_samples(f"{tmp_path}/a.npz#10:20"), need_labels=False, report=ignore_events)
    assert part.constant == (15,)


def test_missing_classes_are_noted(tmp_path: Path) -> None:
    """Labels as numbers or one-hot: what calibration never saw has no range of its own."""
    one_hot = np.eye(4, dtype=np.float32)[np.arange(100) % 2]
    calibration = checked(tmp_path, x=numbers(100), y=one_hot)
    judges = checked(tmp_path, "b.npz", x=numbers(40, 1), y=np.arange(40) % 4)
    (note,) = audit_samples(calibration, judges)
    assert note.code == "missing-classes"
    assert "2 of the 4 classes" in note.message
    values = checked(tmp_path, "c.npz", x=numbers(40, 2), y=numbers(40)[:, 0])
    assert audit_samples(calibration, values) == ()


def test_what_lies_beside_images_is_told_once(tmp_path: Path) -> None:
    """Two ranges of one folder are one folder."""
    for number in range(4):
        Image.fromarray(np.full((2, 2), number * 9, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "README").touch()
    sets = [
        check_content(
            open_samples(f"{tmp_path}#{rows}", Preprocessing((0.0, 1.0))), need_labels=False, report=ignore_events
        )
        for rows in ("0:2", "2:4")
    ]
    found = [finding for finding in audit_samples(*sets) if finding.code == "left-out"]
    assert [finding.subject for finding in found] == [f"{tmp_path}#0:2"]
    assert "README" in found[0].message


def test_another_scale_on_the_other_side_is_noted(tmp_path: Path) -> None:
    """Pixels of 0 to 255 to calibrate and 0 to 1 to evaluate."""
    calibration = checked(tmp_path, x=numbers(100) * 255)
    judges = checked(tmp_path, "b.npz", x=numbers(40, 1))
    assert codes(audit_samples(calibration, judges)) == ["other-scale"]


def test_values_outside_the_stated_range_are_refused(tmp_path: Path) -> None:
    """[samples] range = [0, 1] and a pixel of 200: exit 2 with the row."""
    rows = numbers(10)
    rows[6, 2] = 200
    with pytest.raises(InputError, match="row 6 of 'x' holds 200") as refusal:
        checked(tmp_path, options={"range": [0, 1]}, x=rows)
    assert refusal.value.code == "outside-range"
    assert "is what all other samples are held against" in refusal.value.hint
    assert checked(tmp_path, options={"range": [0, 200]}, x=rows).spans[0].high == 200


def test_a_range_that_is_hardly_used_is_noted(tmp_path: Path) -> None:
    """Samples of 0 to 1 under range = [0, 255] were scaled twice, or the range is wrong."""
    found = audit_samples(checked(tmp_path, options={"range": [0, 255]}, x=numbers(100)), None)
    assert codes(found) == ["range-unused"]


def test_words_that_were_numbered_by_sorting_are_told(tmp_path: Path) -> None:
    """Labels of a CSV file without `classes`: the numbers that they got; nothing where the order was stated."""
    (tmp_path / "tab.csv").write_text("a,b,y\n" + "".join(f"{n},1,{word}\n" for n, word in enumerate(("run", "idle"))))

    def noted(**options: Any) -> tuple[Finding, ...]:
        samples = open_samples(tmp_path / "tab.csv", preprocessing_from(options))
        return audit_samples(None, check_content(samples, need_labels=True, report=ignore_events))

    (note,) = noted()
    assert note.code == "sorted-labels"
    assert note.message == "tab.csv: the labels are numbered as sorted: idle=0, run=1."
    assert noted(classes=["run", "idle"]) == ()


def test_mean_and_std_move_the_range() -> None:
    """What samples may hold follows from all three."""
    stated = Preprocessing((0.0, 1.0), (0.5, 0.4, 0.4), (0.25,))
    assert stated.limits == (-2.0, 2.4)
    assert Preprocessing().limits is None


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"x": np.zeros((5, 3))}, "one value throughout"),
        ({"x": np.arange(5.0)[:, None].repeat(3, axis=1)}, "one value throughout"),
        ({"x": np.zeros((5, 3)), "m": np.ones((5, 1))}, "one value throughout"),
        ({"x": np.tile(np.arange(3.0), (5, 1))}, "the same sample 5 times"),
    ],
)
def test_samples_that_set_no_range_are_refused(tmp_path: Path, arrays: dict[str, Any], told: str) -> None:
    """Blank or copied rows would make a converter fail later, and the model be blamed."""
    with pytest.raises(InputError, match=told) as refusal:
        refuse_uniform(checked(tmp_path, **arrays))
    assert refusal.value.code == "uniform-samples"


def test_a_constant_mask_beside_real_samples_is_no_fault(tmp_path: Path) -> None:
    """One input may be the same in all rows, numbers may come one a row, and one sample is a set of one."""
    refuse_uniform(checked(tmp_path, x=numbers(5), mask=np.ones((5, 4))))
    refuse_uniform(checked(tmp_path, x=np.arange(5.0)[:, None]))
    refuse_uniform(checked(tmp_path, x=numbers(1)))


def test_a_function_that_shuffles_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ranges are apart, and its rows are not: taking rows apart would be no cure."""
    (tmp_path / "shuffling.py").write_text(
        "import numpy as np\n"
        "def samples():\n"
        "    rows = np.arange(120.0).reshape(40, 3)\n"
        "    return list(np.random.default_rng().permutation(rows))\n"
    )
    monkeypatch.chdir(tmp_path)
    halves = [open_samples(f"shuffling:samples#{rows}") for rows in ("0:20", "20:40")]
    first, second = (check_content(one, need_labels=False, report=ignore_events) for one in halves)
    with pytest.raises(InputError, match="Fix the seed") as refusal:
        refuse_overlap(first, second)
    assert refusal.value.code == "overlap"
