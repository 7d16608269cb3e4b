from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundle_models import through_the_index
from conftest import need_sshd
from deploying import tiny_model, tiny_target
from real_sshd import AwkwardSshd

import edgepack
from edgepack.bundle.build import build_bundle

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root makes a mount namespace, where the account has another shell, home and /tmp"
)
# This Python without what its environment has: the release brings its runtime along.
BARE_PYTHON = f"{sys.base_prefix}/bin/python3"
PROGRAM = """
import sys, os; sys.path.insert(0, os.path.expanduser("~/.edgepack/lib"))
import edgepack_device
for isolated in (False, True):
    with edgepack_device.load("tiny", isolated=isolated) as model:
        print(model.predict([[[[0.5]] * 8] * 8]).shape)
"""


@pytest.fixture(
    params=[
        pytest.param("busybox ssh", id="busybox-ssh"),
        pytest.param("bash openssh", id="bash-openssh"),
        pytest.param("busybox openssh", id="busybox-openssh", marks=pytest.mark.slow),
        pytest.param("bash ssh", id="bash-ssh", marks=pytest.mark.slow),
    ]
)
def awkward(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[AwkwardSshd, str]]:
    """A device with this login shell, an odd home folder, a read-only /tmp and umask 077; and a transport."""
    name, transport = request.param.split()
    need_sshd()
    shell = shutil.which(name)
    if shell is None:
        pytest.skip(f"there is no {name} (Debian: sudo apt install {name})")
    with AwkwardSshd(tmp_path / "device", shell) as device:
        yield device, transport


@pytest.mark.network
def test_the_whole_job_runs_in_awkward_surroundings(awkward: tuple[AwkwardSshd, str], tmp_path: Path) -> None:
    """With BusyBox sh or bash, quotes and blanks in the home, a read-only /tmp and umask 077 a release comes to run."""
    device, transport = awkward
    bundle = tmp_path / "tiny.edgepack"
    with through_the_index():
        build_bundle(tiny_model(tmp_path / "model"), target=tiny_target(), name="tiny", version="1", output=bundle)
    options = dataclasses.replace(device.options, transport=transport, python=BARE_PYTHON)
    pushed = edgepack.push(bundle, device.address, options=options)
    checked = edgepack.check(device.address, options=options)
    assert checked.verdict == "pass"
    assert edgepack.activate(device.address, options=options).current == pushed.release

    root = device.home / ".edgepack"
    assert [path for path in root.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o077] == []
    assert list((root / "runtimes").iterdir())
    ssh = ["ssh", "-F", str(device.ssh_config), "device"]
    told = subprocess.run([*ssh, "echo $0; touch /tmp/a-file; umask"], capture_output=True, text=True, check=False)
    assert told.stdout.split() == ["sh", "0077"]
    assert "Read-only file system" in told.stderr
    ran = subprocess.run([*ssh, BARE_PYTHON, "-"], input=PROGRAM, capture_output=True, text=True, check=False)
    assert ran.stdout.splitlines() == ["(1, 4)"] * 2, ran.stderr
