"""What a run writes comes whole or not at all, and of what it read."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack.errors import InputError
from edgepack.quantize.artifacts import Staged, place
from edgepack.quantize.watched import watch

NAMES = ("a.check.npz", "a.provenance.json", "a.tflite")


def staged(root: Path, name: str) -> Staged:
    """Three finished files, and the removal of a fourth, for a folder that holds older ones."""
    made, goals = root / f"staging-{name}", root / name
    made.mkdir()
    goals.mkdir()
    for file in NAMES:
        (made / file).write_text(f"new {file}")
        (goals / file).write_text(f"old {file}")
    (goals / "a.uncompiled.tflite").write_text("old")
    files: dict[Path, Path | None] = {goals / file: made / file for file in NAMES}
    return Staged(made, {goals / "a.uncompiled.tflite": None, **files})


def content(folder: Path) -> dict[str, str]:
    """What lies in a folder."""
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_all_files_of_all_sets_come(tmp_path: Path) -> None:
    """New ones replace old ones, and what no longer belongs there goes."""
    place([staged(tmp_path, "one"), staged(tmp_path, "two")])
    for name in ("one", "two"):
        assert content(tmp_path / name) == {file: f"new {file}" for file in NAMES}


@pytest.mark.parametrize("nth", range(1, 7))
@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError])
def test_an_interruption_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int, fault: type[BaseException]
) -> None:
    """Ctrl-C or a full disk at any of the renames: each folder holds the old set, never a mixture."""
    sets = [staged(tmp_path, "one"), staged(tmp_path, "two")]
    before = {name: content(tmp_path / name) for name in ("one", "two")}
    replace, calls = Path.replace, 0

    def failing(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise fault
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(fault):
        place(sets)
    assert {name: content(tmp_path / name) for name in ("one", "two")} == before


def test_an_interruption_over_an_empty_folder_leaves_it_empty(tmp_path: Path) -> None:
    """Where nothing was, nothing is."""
    made, goals = tmp_path / "made", tmp_path / "goals"
    made.mkdir()
    goals.mkdir()
    (made / "a").write_text("new")
    with pytest.raises(FileNotFoundError):
        place([Staged(made, {goals / "a": made / "a", goals / "b": made / "missing"})])
    assert list(goals.iterdir()) == []


@pytest.mark.parametrize("change", ["content", "replaced", "added", "removed"])
def test_what_changes_while_it_is_read_is_refused(tmp_path: Path, change: str) -> None:
    """A model that a training run still writes is never taken for another, by the run or by the cache."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("one")
    (model / "graph").write_text("one")
    watched = watch([model, tmp_path / "not there"])
    watched.refuse_changes()
    (model / ".edgepack-quantize-staging").write_text("edgepack's own is no change")
    watched.refuse_changes()
    if change == "content":
        (model / "weights").write_text("other")
    elif change == "replaced":
        (tmp_path / "fresh").write_text("two")
        (tmp_path / "fresh").replace(model / "weights")
    elif change == "added":
        (model / "more").write_text("more")
    else:
        (model / "graph").unlink()
    with pytest.raises(InputError, match="changed while it was being read"):
        watched.refuse_changes()
