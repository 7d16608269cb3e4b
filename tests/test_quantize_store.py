"""What was made once is found again, whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from edgepack.quantize.store import ENTRY, Store, key_of

KEY = key_of({"model": "a"})


def made(folder: Path, content: str = "made", name: str = "model.tflite") -> Path:
    """A folder with a result in it."""
    folder.mkdir(parents=True)
    (folder / name).write_text(content)
    return folder


def test_what_was_put_is_found(tmp_path: Path) -> None:
    """Under its key, with its content; nothing is there under another key."""
    store = Store(tmp_path / "store")
    place = store.put(KEY, made(tmp_path / "made"))
    assert store.get(KEY) == place
    assert (place / "model.tflite").read_text() == "made"
    assert store.get(key_of({"model": "b"})) is None


@pytest.mark.parametrize("name", ["model.tflite", ENTRY])
@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, name: str, damage: str) -> None:
    """A full disk, an editor or a power cut costs a conversion, never a wrong model."""
    store = Store(tmp_path / "store")
    path = store.put(KEY, made(tmp_path / "made")) / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_text("{}" if damage == "changed" else "")
    assert store.get(KEY) is None
    again = store.put(KEY, made(tmp_path / "again", "again"))
    assert (again / "model.tflite").read_text() == "again"
    assert store.get(KEY) == again


def test_two_runs_that_make_the_same_share_it(tmp_path: Path) -> None:
    """The second one keeps what the first one put there."""
    store = Store(tmp_path / "store")
    first = store.put(KEY, made(tmp_path / "one"))
    assert store.put(KEY, made(tmp_path / "two")) == first
    assert [path.name for path in first.parent.iterdir()] == [KEY]


def test_a_store_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    """The result stays where it was made, and the run goes on without a cache."""
    (tmp_path / "store").write_text("a file where the folder should be")
    folder = made(tmp_path / "made")
    assert Store(tmp_path / "store").put(KEY, folder) == folder


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    """The store keeps to its bound; what was used lately stays."""
    store = Store(tmp_path / "store", most_bytes=3500)
    keys = [key_of({"number": number}) for number in range(4)]
    for age, key in enumerate(keys[:3]):
        entry = store.put(key, made(tmp_path / key, "x" * 900)) / ENTRY
        os.utime(entry, (age, age))
    assert store.get(keys[0]) is not None  # used again: now the youngest
    store.put(keys[3], made(tmp_path / keys[3], "x" * 900))
    left = {path.name for path in (tmp_path / "store").glob("??/*")}
    assert [key in left for key in keys] == [True, False, True, True]


def test_a_store_of_somebody_elses_is_read(tmp_path: Path) -> None:
    """A cache folder that may only be read still serves."""
    store = Store(tmp_path / "store")
    place = store.put(KEY, made(tmp_path / "made"))
    place.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert store.get(KEY) == place
    finally:
        place.chmod(stat.S_IRWXU)
