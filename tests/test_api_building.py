"""Making, reading and comparing bundles by the names and paths that people give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from deploying import this_machine, tiny_bundle, tiny_model
from tiny_tflite import tiny_model as tiny_bytes

import edgepack
from edgepack.cli.main import run
from edgepack.errors import InputError, IntegrityError, MisfitError


def made(folder: Path) -> Path:
    """A bundle without wheels, made by the public function."""
    path = folder / "tiny.edgepack"
    model = tiny_model(folder / "model")
    target = this_machine(folder)
    edgepack.bundle(str(model), target=target, name="tiny", version="1.0.0", output=path, with_runtime=False)
    return path


def made_without_platforms(folder: Path) -> Path:
    """A bundle of the same for no platform at all."""
    path = folder / "tiny.edgepack"
    edgepack.bundle(
        tiny_model(folder / "model"), target="generic-cpu", name="tiny", version="1.0.0", output=path, platforms=[]
    )
    return path


def test_a_bundle_is_made_and_read_back(tmp_path: Path) -> None:
    """What bundle makes, inspect and verify read; paths may be strings."""
    path = made(tmp_path)
    shown = edgepack.inspect(str(path))
    assert (shown.name, shown.version, shown.path, shown.budget["p95_ms"]) == ("tiny", "1.0.0", str(path), 1000.0)
    assert edgepack.verify(path).release == shown.release


def test_a_dry_run_tells_the_bundle_and_writes_nothing(tmp_path: Path) -> None:
    """The release id, digest and size are those that the real run gives; no file appears."""
    model = tiny_model(tmp_path / "model")
    target = this_machine(tmp_path)
    path = tmp_path / "tiny.edgepack"
    given = {"target": target, "name": "tiny", "version": "1", "output": path, "with_runtime": False}
    told = edgepack.bundle(model, dry_run=True, **given)
    assert not path.exists()
    assert told == edgepack.bundle(model, **given)


def test_an_unknown_target_is_told_with_the_nearest(tmp_path: Path) -> None:
    """A typo in the target names what was meant."""
    with pytest.raises(InputError, match="raspberry-pi-4") as caught:
        edgepack.bundle(
            tiny_model(tmp_path), target="rasberry-pi-4", name="a", version="1", output=tmp_path / "a.edgepack"
        )
    assert caught.value.code == "unknown-target"


def test_a_diff_names_every_field_and_file_that_differs(tmp_path: Path) -> None:
    """Another version with another check set: these two are told, with before and after, and nothing else."""
    before, _ = tiny_bundle(tmp_path, version="1.0.0", budget={"p95_ms": 10.0})
    after, _ = tiny_bundle(tmp_path, version="1.0.1", budget={"p95_ms": 20.0}, wrong=1)
    changes = {
        line["what"]: (line["before"], line["after"]) for line in edgepack.diff_bundles(before, after)["changes"]
    }
    size = edgepack.inspect(before).files[0].bytes
    assert changes == {
        "version": ("1.0.0", "1.0.1"),
        "target.budget.p95_ms": (10.0, 20.0),
        "check.npz": (size, size),
    }
    without, _ = tiny_bundle(tmp_path / "without", version="1.0.0", budget={"p95_ms": 10.0}, check_set=False)
    lines = edgepack.diff_bundles(before, without)["changes"]
    assert lines == [{"what": "check.npz", "before": size, "after": None, "unit": "bytes"}]
    assert edgepack.diff_bundles(before, before)["changes"] == []


def test_a_diff_is_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is nested is told leaf by leaf, each line fits a terminal: nobody reads raw JSON."""
    before, after = made(tmp_path), made_without_platforms(tmp_path / "other")
    assert run(["inspect", "--diff", str(before), str(after)]) == 0
    shown = capsys.readouterr().out
    assert "platforms.0.runtime.package" in shown
    assert "{" not in shown
    assert max(map(len, shown.splitlines())) <= 140


def test_a_damaged_bundle_is_not_compared(tmp_path: Path) -> None:
    """One flipped bit is no "hold the same": the damage is told instead."""
    sound, _ = tiny_bundle(tmp_path)
    content = bytearray(sound.read_bytes())
    content[len(content) // 2] ^= 1
    (damaged := tmp_path / "damaged.edgepack").write_bytes(content)
    for pair in ((sound, damaged), (damaged, sound)):
        with pytest.raises(IntegrityError):
            edgepack.diff_bundles(*pair)


def test_a_changed_byte_is_found_by_verify(tmp_path: Path) -> None:
    """Every digest is recomputed: one bit is enough."""
    path, _ = tiny_bundle(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError):
        edgepack.verify(path)


def test_a_quantizing_dry_run_writes_nothing(tmp_path: Path) -> None:
    """Whatever quantize says about the model, a dry run leaves the folder as it was."""
    model = tmp_path / "model.keras"
    model.write_bytes(b"no model")
    with pytest.raises(InputError):
        edgepack.quantize(model, target="x86-64", output=tmp_path / "out.tflite", dry_run=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_an_array_instead_of_a_path_is_told(tmp_path: Path) -> None:
    """Who hands in the samples themselves learns that a file is wanted, by the argument's name."""
    import numpy as np

    images = np.zeros((4, 8, 8, 1), np.float32)
    for name in ("model", "calibration", "evaluation", "check_set"):
        arguments: dict[str, Any] = {"model": tmp_path / "m.keras", name: images}
        with pytest.raises(InputError, match=f"^{name} takes a path, and got a value of the type ndarray"):
            edgepack.quantize(target="x86-64", output=tmp_path / "out.tflite", **arguments)


def test_a_model_that_the_target_cannot_run_is_not_bundled(tmp_path: Path) -> None:
    """A .tflite of anybody's is held against the target: an operator version that no runtime has is exit 5."""
    (tmp_path / "model.tflite").write_bytes(tiny_bytes(version=99))
    with pytest.raises(MisfitError, match="FULLY_CONNECTED is needed in version 99") as refusal:
        edgepack.bundle(
            tmp_path / "model.tflite",
            target="x86-64",
            name="app",
            version="1",
            output=tmp_path / "app.edgepack",
            with_runtime=False,
        )
    assert (refusal.value.code, refusal.value.exit_code) == ("conformance", 5)
    assert [found["code"] for found in refusal.value.details["findings"]] == ["operator-version"]
    assert not (tmp_path / "app.edgepack").exists()
