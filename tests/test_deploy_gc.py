"""Making room on a device: what goes, what never goes, and what --dry-run tells of it before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from deploying import Device, tiny_bundle

import edgepack
from edgepack.device import ConnectOptions
from edgepack.errors import InputError


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """This machine as a device that holds nothing yet."""
    root = tmp_path / "device"
    return Device(f"local:{root}", ConnectOptions(python=sys.executable), root)


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
    assert told.removed == done.removed
    assert bool(told.bytes) == bool(told.removed)
    left = {found["release"] for found in edgepack.status(**device.where).releases}
    assert left == set(releases) - set(done.removed) >= {releases[0], releases[2], releases[4]}
    assert len(done.removed) == {0: 2, 1: 2, 2: 1, 9: 0}[keep]


def test_a_dry_run_leaves_no_trace_on_an_empty_device(device: Device) -> None:
    """Where there is no app there is nothing to remove, and not even a folder is made."""
    with pytest.raises(InputError):
        edgepack.gc(dry_run=True, **device.where)
    assert not device.root.exists()
