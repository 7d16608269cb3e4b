"""Where edgepack may keep its releases on a device: without root's rights, and clear words where it may not."""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploying import Device, tiny_bundle
from test_deploy_trust import account, system_python

import edgepack
from edgepack.device import ConnectOptions, connect
from edgepack.errors import InputError


def test_a_root_of_ones_own_choice_works(tmp_path: Path) -> None:
    """--root names any folder that the account may write, also one that is not there yet; no sudo is needed."""
    root = tmp_path / "opt" / "edgepack"
    path, bundle = tiny_bundle(tmp_path)
    options = ConnectOptions(python=sys.executable, root=str(root))
    edgepack.push(path, "local:", options=options)
    assert Device("local:", options, root).release("tiny", bundle.release).is_dir()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account may enter, as /opt is; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another account")
@pytest.mark.parametrize("there", [False, True])
def test_a_root_that_the_account_may_not_write_is_told(open_folder: Path, *, there: bool) -> None:
    """An account without the right is told so before a byte moves, with the command that gives it; nothing is made."""
    root = open_folder / "edge pack"
    if there:
        root.mkdir()
    with account(open_folder) as name:
        # The agent as that account, as a login would start it.
        python = open_folder / "python"
        python.write_text(
            f"#!/bin/sh\nHOME={open_folder / name} exec setpriv --reuid {name} --regid {name} --clear-groups "
            f'{system_python()} "$@"\n'
        )
        python.chmod(0o755)
        options = ConnectOptions(python=str(python), root=str(root))
        with pytest.raises(InputError) as caught:
            connect("local:", options, lock=True)
        assert caught.value.code == "no-permission"
        assert f"The account {name} may not write to" in caught.value.message
        assert root.exists() == there
        cure = caught.value.hint.rpartition(": ")[2]
        assert cure == f"sudo install -d -o {name} {shlex.quote(str(root))}"
        subprocess.run(shlex.split(cure)[1:], check=True)
        connect("local:", options, lock=True).close()
        assert (root / "lock").stat().st_uid == pwd.getpwnam(name).pw_uid
        # Without --root it is the account's own folder, which needs no rights.
        with connect("local:", ConnectOptions(python=str(python)), lock=True) as session:
            assert session.hello["root"] == str(open_folder / name / ".edgepack")
