"""What was built before is used again only where it is the very same."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgepack import building, pipeline
from edgepack.reuse import digest_of, is_current, key_of, write_stamp
from edgepack.target import load_target


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


def test_a_stamp_that_cannot_be_written_leaves_nothing(stamp: Path) -> None:
    """Where the stamp's place is taken, writing it fails, and no half of one lies around."""
    stamp.unlink()
    stamp.mkdir()
    before = sorted(stamp.parent.iterdir())
    with pytest.raises(OSError, match=stamp.name):
        write_stamp(stamp, "k", [stamp.with_name("a.tflite")])
    assert sorted(stamp.parent.iterdir()) == before


class Workshop:
    """Stands in for quantizing, which takes a TensorFlow and minutes; counts how often it is asked for."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = 0
        self.folder = folder
        source = folder / "model.keras"
        source.write_text("a model")
        self.order = pipeline.Order(source, load_target("x86-64"), "tiny", "1.0.0", None, None, None, "top1")
        monkeypatch.setattr(building, "quantize", self.quantize)
        monkeypatch.setattr(building, "bundle", lambda *_, **__: None)

    def quantize(self, source: Path, *, output: Path, **_: Any) -> SimpleNamespace:
        """A model and its provenance."""
        self.made += 1
        provenance = output.with_suffix(".provenance.json")
        for path in (output, provenance):
            path.write_bytes(source.read_bytes())
        return SimpleNamespace(model=SimpleNamespace(path=str(output)), provenance=str(provenance), check_set=None)

    def build(self, **changes: Any) -> int:
        """Build, and tell how often a model was made so far."""
        pipeline.build(dataclasses.replace(self.order, **changes), self.folder / "build")
        return self.made


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop that has made nothing yet."""
    return Workshop(tmp_path, monkeypatch)


def test_the_very_same_order_is_made_once(workshop: Workshop) -> None:
    """Deploying twice quantizes once; a changed model is quantized again."""
    assert [workshop.build(), workshop.build()] == [1, 1]
    workshop.order.source.write_text("another model")
    assert workshop.build() == 2


def test_a_metric_of_the_users_is_measured_anew(workshop: Workshop) -> None:
    """The code behind a metric's name may have changed, so its figure is never taken from an earlier run."""
    assert [workshop.build(metric="my:metric"), workshop.build(metric="my:metric")] == [1, 2]


def test_another_compiler_compiles_anew(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that was installed or updated since makes another model: no compiler, a first one, a second one."""
    target = dataclasses.replace(workshop.order.target, compile_command=("my-compiler", "{model}"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [workshop.build(target=target), workshop.build(target=target)] == [1, 1]
    program = tmp_path / "my-compiler"
    for made, text in ((2, "#!/bin/sh\n"), (3, "#!/bin/sh\n# newer\n")):
        program.write_text(text)
        program.chmod(0o755)
        assert [workshop.build(target=target), workshop.build(target=target)] == [made, made]
