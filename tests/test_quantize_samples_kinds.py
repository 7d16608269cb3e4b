"""The audit of samples finds the same in the same rows, whatever kind of set they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_kinds import KINDS, stored

from edgepack.errors import InputError
from edgepack.events import ignore_events
from edgepack.quantize.audit import audit_samples
from edgepack.quantize.checking import CheckedSamples, check_content
from edgepack.quantize.overlap import refuse_overlap
from edgepack.quantize.preprocessing import preprocessing_from
from edgepack.quantize.samples import open_samples

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules in the test's folder can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def pixels(count: int, seed: int = 0) -> Array:
    """Rows of six whole numbers that a picture can hold."""
    found: Array = np.random.default_rng(seed).integers(0, 256, (count, 6)).astype(np.float32)
    return found


def checked(text: str, limits: tuple[float, float] = (0, 255)) -> CheckedSamples:
    """A set, read."""
    stated = preprocessing_from({"range": list(limits)})
    return check_content(open_samples(text, stated), need_labels=False, report=ignore_events)


@pytest.mark.parametrize("kind", [*KINDS, "images"])
def test_rows_that_stand_in_the_evaluation_too_are_refused(kind: str, tmp_path: Path) -> None:
    """By what is in them: calibration of any kind against an .npz, pictures against pictures; the rows are named."""
    shared = pixels(5, 1)
    calibration = checked(stored(kind, np.concatenate([pixels(20), shared]), tmp_path, f"c_{kind.replace(' ', '')}"))
    judging = checked(
        stored("images" if kind == "images" else "npz", np.concatenate([shared, pixels(20, 2)]), tmp_path, "judges")
    )
    with pytest.raises(InputError, match="20 = 0, 21 = 1, 22 = 2") as refusal:
        refuse_overlap(calibration, judging)
    assert refusal.value.code == "overlap"


@pytest.mark.parametrize("kind", [*KINDS, "images"])
def test_a_constant_row_and_the_one_that_reaches_furthest_are_known(kind: str, tmp_path: Path) -> None:
    """A blank row is noted with its number in the file; the row with the largest value is the first to be looked at."""
    rows = np.minimum(pixels(120), 200)
    rows[15] = 7
    rows[90, 3] = 255
    found = checked(stored(kind, rows, tmp_path, f"k_{kind.replace(' ', '')}") + "#10:")
    assert [note.code for note in audit_samples(found, None)] == ["constant-samples"]
    assert found.constant == (15,)
    assert 80 in found.outermost


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_are_none_are_refused(kind: str, tmp_path: Path) -> None:
    """NaN in one row; pictures cannot hold one."""
    rows = pixels(30)
    rows[4, 2] = np.nan
    with pytest.raises(InputError) as refusal:
        checked(stored(kind, rows, tmp_path, f"n_{kind.replace(' ', '')}"))
    assert refusal.value.code in ("not-finite", "bad-number")


@pytest.mark.parametrize("kind", KINDS)
def test_values_outside_the_stated_range_are_refused(kind: str, tmp_path: Path) -> None:
    """0 to 255 where the preprocessing gives 0 to 1; pictures are brought to that range instead."""
    with pytest.raises(InputError) as refusal:
        checked(stored(kind, pixels(30), tmp_path, f"r_{kind.replace(' ', '')}"), (0, 1))
    assert refusal.value.code == "outside-range"
