"""What was built before is used again only where it is the very same."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack.reuse import digest_of, is_current, key_of, write_stamp


@pytest.fixture
def stamp(tmp_path: Path) -> Path:
    """A stamp of two files for the key "k"."""
    files = [tmp_path / "a.tflite", tmp_path / "a.check.npz"]
    for file in files:
        file.write_text(file.name)
    write_stamp(tmp_path / "a.built.json", "k", files)
    return tmp_path / "a.built.json"


def test_what_is_unchanged_is_current(stamp: Path) -> None:
    """The same key and the same files: nothing is built again."""
    assert is_current(stamp, "k")


def test_another_key_is_built_anew(stamp: Path) -> None:
    """Another source, target, sample or version of a library is another key."""
    assert not is_current(stamp, "other")
    assert key_of({"source": "a"}) != key_of({"source": "b"})


@pytest.mark.parametrize("name", ["a.tflite", "a.check.npz", "a.built.json"])
@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_changed_or_missing_file_is_built_anew(stamp: Path, name: str, damage: str) -> None:
    """Whoever edits or removes a built file gets a new one, never a mixture."""
    path = stamp.with_name(name)
    if damage == "gone":
        path.unlink()
    else:
        path.write_text("{}")
    assert not is_current(stamp, "k")


@pytest.mark.parametrize("content", ["", "[]", '{"schema":1}', '{"schema":1,"key":"k","files":[]}', '{"schema":2}'])
def test_a_stamp_that_cannot_be_read_is_none(stamp: Path, content: str) -> None:
    """A stamp of a later version, or a broken one, builds anew instead of failing."""
    stamp.write_text(content)
    assert not is_current(stamp, "k")


def test_a_folder_is_its_files_and_their_names(tmp_path: Path) -> None:
    """A SavedModel's digest changes with any file's content or name, and with nothing else."""
    model = tmp_path / "model"
    (model / "variables").mkdir(parents=True)
    (model / "variables" / "a").write_text("1")
    before = digest_of(model)
    (model / "empty").mkdir()
    assert digest_of(model) == before
    (model / "variables" / "a").rename(model / "a")
    moved = digest_of(model)
    (model / "a").write_text("2")
    assert len({before, moved, digest_of(model)}) == 3
