"""What calibration samples do to ranges is told by every quantize into integers, whatever kind of samples they are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_kinds import KINDS, stored

from edgepack.building import quantize
from edgepack.documents import Finding, QuantizeDocument
from edgepack.events import ignore_events
from edgepack.quantize.arrays import Port
from edgepack.quantize.checking import check_content
from edgepack.quantize.rangenotes import range_notes
from edgepack.quantize.request import SourceOptions
from edgepack.quantize.samples import open_samples
from edgepack.quantize.sources import identify_source
from edgepack.quantize.store import Store
from edgepack.quantize.watched import watch
from edgepack.quantize.workshop import Workshop
from edgepack.tuning import tune

FLOAT = Path(__file__).parent / "data" / "tiny_spiky.float.tflite"
Array = np.ndarray[Any, Any]
RANGE_CODES = ("range-stretched", "ranges-still-grow", "ranges-not-seen")


def wild_rows(count: int = 120, wild: int | None = 37) -> Array:
    """Uniform in 0..1, but for one row that is 40 times as large."""
    found: Array = np.random.default_rng(9).uniform(0, 1, (count, 6)).astype(np.float32)
    if wild is not None:
        found[wild] *= 40
    return found


def made(samples: str, folder: Path, **options: Any) -> QuantizeDocument:
    """The model in int8, without --eval and without --diagnose."""
    return quantize(FLOAT, target="generic-cpu", output=folder / "out.tflite", calibration=samples, **options)


def range_findings(document: QuantizeDocument) -> list[Finding]:
    """What was said of ranges."""
    return [found for found in document.conformance.findings if found.code in RANGE_CODES]


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_outlier_is_named_without_any_flag(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever kind of samples, without --eval and --diagnose; the row is that of the file, and it is a note."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (found,) = range_findings(made(stored(kind, wild_rows(), tmp_path, "planted") + "#10:", tmp_path))
    assert found.code == "range-stretched"
    assert found.severity == "note"
    assert "row 37 alone stretches" in found.message


def test_good_samples_are_silent_and_the_cache_knows_what_was_said(tmp_path: Path) -> None:
    """Nothing is said of alike rows; a second run says of wild ones what the first said, and makes nothing."""
    assert range_findings(made(stored("npz", wild_rows(wild=None), tmp_path, "good"), tmp_path)) == []
    wild = stored("npz", wild_rows(), tmp_path)
    first, again = made(wild, tmp_path), made(wild, tmp_path)
    assert again.cached
    assert range_findings(again) == range_findings(first) != []


def test_ten_thousand_rows_are_looked_at_in_part_and_the_wild_one_is_found(tmp_path: Path) -> None:
    """500 rows are run, the one that reaches furthest among them; --diagnose runs all, and names it as well."""
    wild = stored("npz", wild_rows(10_000, 7421), tmp_path)
    counts: list[int] = []
    (found,) = range_findings(
        made(wild, tmp_path, report=lambda event: event.message == "auditing ranges" and counts.append(event.done or 0))
    )
    assert "row 7421 alone stretches" in found.message
    assert counts[-1] == 500


def test_tune_says_it_once_before_it_searches(tmp_path: Path) -> None:
    """As progress before the first candidate, and in the document, whichever candidate is chosen."""
    evaluation = wild_rows(60, None) * np.float32(0.9)
    np.savez(tmp_path / "eval.npz", x=evaluation, y=np.zeros(60, np.int64))
    told: list[str] = []
    document = tune(
        FLOAT,
        target="generic-cpu",
        calibration=stored("npz", wild_rows(), tmp_path),
        evaluation=tmp_path / "eval.npz",
        max_drop=0.99,
        output=tmp_path / "out.tflite",
        report=lambda event: told.append(event.message),
    )
    (found,) = [one for one in document.conformance.findings if one.code in RANGE_CODES]
    assert "row 37 alone stretches" in found.message
    note = next(place for place, message in enumerate(told) if "row 37 alone" in message)
    assert note < next(place for place, message in enumerate(told) if message.startswith("candidate 1 of"))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    """The model's workshop."""
    with Workshop(
        identify_source(FLOAT), SourceOptions(), watch([]), tmp_path, Store(tmp_path / "store"), ignore_events
    ) as one:
        yield one


def test_what_is_too_large_to_be_kept_is_still_made_once(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several targets of one run share outputs of any size, although the cache folder does not take them."""
    monkeypatch.setattr(sys.modules[Store.__module__], "_MOST_ENTRY_BYTES", 0)
    assert shop.ports() == shop.ports()
    assert [path.name for path in tmp_path.glob("made-*")] == ["made-0"]
    assert not (tmp_path / "store").exists()


def test_a_model_that_this_machine_cannot_run_is_a_note_and_no_error(shop: Workshop, tmp_path: Path) -> None:
    """The runtime refuses the rows: the note says why nothing was looked into, and a second run asks nobody."""
    samples = open_samples(stored("npz", np.ones((120, 7), np.float32), tmp_path))
    calibration = check_content(samples, need_labels=False, report=ignore_events)
    strange = (Port("x", (1, 7), "float32"),)
    (found,) = range_notes(shop, FLOAT, strange, calibration, whole=False)
    assert (found.code, found.severity) == ("ranges-not-seen", "note")
    assert "LiteRT on this machine refuses" in found.message
    with Workshop(
        identify_source(FLOAT), SourceOptions(), watch([]), tmp_path, Store(tmp_path / "store"), ignore_events
    ) as again:
        assert range_notes(again, FLOAT, strange, calibration, whole=False) == (found,)
        assert again.idle
