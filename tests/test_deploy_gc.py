"""Making room on a device: what goes, what never goes, and what --dry-run tells of it before."""

from __future__ import annotations

from pathlib import Path

import pytest
from deploying import Device, tiny_bundle

import edgepack
from edgepack.errors import InputError


@pytest.fixture
def device(here: Device) -> Device:
    """This machine as a device that holds nothing yet."""
    return here


@pytest.mark.parametrize("keep", [0, 1, 2, 9])
def test_a_dry_run_names_what_goes(device: Device, tmp_path: Path, keep: int) -> None:
    """--dry-run names the very releases that gc removes then, and removes none; what is in use stays whatever keep."""
    releases = []
    for number in range(5):
        path, bundle = tiny_bundle(tmp_path, version=f"{number}.0.0", wrong=number)
        edgepack.push(path, **device.where)
        releases.append(bundle.release)
        if number in (0, 2):
            edgepack.activate(unchecked=True, **device.where)
    before = edgepack.status(**device.where)
    told = edgepack.gc(keep=keep, dry_run=True, **device.where)
    assert edgepack.status(**device.where) == before
    done = edgepack.gc(keep=keep, **device.where)
    assert told == done
    assert bool(told.bytes) == bool(told.removed)
    left = {found["release"] for found in edgepack.status(**device.where).releases}
    assert left == set(releases) - set(done.removed) >= {releases[0], releases[2], releases[4]}
    assert len(done.removed) == {0: 2, 1: 2, 2: 1, 9: 0}[keep]


def disk_bytes(device: Device) -> int:
    """What the releases and runtimes on the device take, each file once."""
    files = [path.lstat() for top in ("apps", "runtimes") for path in (device.root / top).rglob("*") if path.is_file()]
    return sum({info.st_ino: info.st_size for info in files}.values())


def test_what_gc_says_it_freed_is_what_the_disk_got_back(device: Device, tmp_path: Path) -> None:
    """Releases share files by hard links and bring runtimes: the number is that of the bytes that really went."""
    for number in range(4):
        path, _ = tiny_bundle(tmp_path, version=f"{number}.0.0", wrong=number)
        edgepack.push(path, **device.where)
    runtime = device.root / "runtimes" / "nobody-needs-it" / "numpy"
    runtime.mkdir(parents=True)
    (runtime / "big.so").write_bytes(b"x" * 5_000_000)
    state = device.root / "apps" / "tiny" / "state.json"
    before = disk_bytes(device) - state.stat().st_size
    told = edgepack.gc(keep=0, dry_run=True, **device.where)
    done = edgepack.gc(keep=0, **device.where)
    assert told.bytes == done.bytes == before - (disk_bytes(device) - state.stat().st_size)
    assert len(done.removed) == 3
    assert done.bytes > 5_000_000


def test_a_dry_run_leaves_no_trace_on_an_empty_device(device: Device) -> None:
    """Where there is no app there is nothing to remove, and not even a folder is made."""
    with pytest.raises(InputError):
        edgepack.gc(dry_run=True, **device.where)
    assert not device.root.exists()
