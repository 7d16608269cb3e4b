from __future__ import annotations

import dataclasses
import os
import shlex
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
from edgepack.device import ConnectOptions
from edgepack.errors import MisfitError

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


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that brings its runtime along."""
    folder = tmp_path_factory.mktemp("bundle")
    path = folder / "tiny.edgepack"
    with through_the_index():
        build_bundle(tiny_model(folder), target=tiny_target(), name="tiny", version="1", output=path)
    return path


@pytest.mark.network
def test_the_whole_job_runs_in_awkward_surroundings(awkward: tuple[AwkwardSshd, str], bundle: Path) -> None:
    """With BusyBox sh or bash, quotes and blanks in the home, a read-only /tmp and umask 077 a release comes to run."""
    device, transport = awkward
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


@pytest.mark.network
def test_a_disk_mounted_noexec_is_named_and_the_cure_works(bundle: Path, tmp_path: Path) -> None:
    """Where the runtime could not be loaded nothing is sent: exit 5 names the mount; what the hint says helps."""
    disk = tmp_path / "a disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "tmpfs", str(disk)], check=True)
    try:
        where = {"device": f"local:{disk}/root", "options": ConnectOptions(python=BARE_PYTHON)}
        with pytest.raises(MisfitError, match=f"{disk} is mounted noexec") as refused:
            edgepack.push(bundle, **where)
        assert (refused.value.code, refused.value.exit_code) == ("noexec", 5)
        assert [path for path in disk.rglob("*") if path.is_file() and path.stat().st_size > 1000] == []
        _, _, cure = refused.value.hint.partition("sudo ")
        subprocess.run(shlex.split(cure), check=True)
        edgepack.push(bundle, **where)
        assert edgepack.check(**where).verdict == "pass"
    finally:
        subprocess.run(["umount", str(disk)], check=True)
