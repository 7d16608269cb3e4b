"""No name reaches a shell unquoted: of a release, an app, a host, an account, a hook, a folder or a Python."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from deploying import tiny_bundle
from real_sshd import RealSshd

import edgepack
from edgepack.deploy.hooks import Hooks
from edgepack.device import ConnectOptions, DeviceAddress
from edgepack.device.bootstrap import start_command
from edgepack.errors import EdgepackError, InputError

# Each would make a file in the current folder, or be taken for an option, if a shell or a parser ever saw it.
COMMANDS = ["$(touch made)", "`touch made`", ";touch made", "a'; touch made; '", 'a"; touch made; "', "a\ntouch made",
            "|touch made", "&touch made", ">made", "${IFS}touch"]  # fmt: skip
NAMES = [*COMMANDS, "-rf", "--help", "-oProxyCommand=touch made", "..", "../made", "a/b", "", " ", "a b", "*", "~root"]
ODD_FOLDER = 'it\'s "odd" $(touch made) `touch made`; -ümläut ✓'


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own, in which a command would leave something."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def made_nothing() -> bool:
    """Whether no command of a name ran, here or in the account's home."""
    return not Path("made").exists() and not (Path.home() / "made").exists()


@pytest.fixture(params=["local", *(pytest.param(client, marks=pytest.mark.sshd) for client in ("ssh", "openssh"))])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ConnectOptions]:
    """An address and options, over every way to a device; its edgepack folder has an odd name."""
    root = str(tmp_path / ODD_FOLDER)
    if request.param == "local":
        return "local:", ConnectOptions(python=sys.executable, root=root)
    sshd: RealSshd = request.getfixturevalue("sshd")
    return sshd.address, dataclasses.replace(sshd.options, transport=request.param, root=root)


def test_a_folder_and_a_python_of_any_name_work(where: tuple[str, ConnectOptions], tmp_path: Path) -> None:
    """Quotes, dollars, blanks and umlauts in --root and --python are what they are on the device."""
    address, options = where
    python = tmp_path / ODD_FOLDER / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    options = dataclasses.replace(options, python=str(python))
    path, bundle = tiny_bundle(tmp_path)
    assert edgepack.push(path, address, options=options).release == bundle.release
    seen = tmp_path / "seen.json"
    program = "import json, sys; json.dump(sys.argv[2:], open(sys.argv[1], 'w'))"
    hooks = Hooks(after_activate=(sys.executable, "-c", program, str(seen), *NAMES))
    assert edgepack.activate(address, options=options, unchecked=True, hooks=hooks).changed
    assert json.loads(seen.read_text()) == NAMES
    assert made_nothing()


def test_no_name_of_an_app_or_a_release_is_more_than_a_name(where: tuple[str, ConnectOptions], tmp_path: Path) -> None:
    """An app or a release that nobody could have called so ends with exit code 2, and the device stays as it was."""
    address, options = where
    edgepack.push(tiny_bundle(tmp_path)[0], address, options=options)
    with edgepack.connect(address, options, lock=True) as session:
        before = edgepack.status(session, app="tiny")
        for name in NAMES:
            for verb in (edgepack.activate, edgepack.rollback):
                with pytest.raises(InputError):
                    verb(session, app="tiny", release=name or " ")
            for ask in (edgepack.status, edgepack.gc):
                with pytest.raises(InputError):
                    ask(session, app=name)
        assert edgepack.status(session, app="tiny") == before
    assert made_nothing()


@pytest.mark.parametrize("name", NAMES)
def test_no_bundle_has_such_a_name(name: str, tmp_path: Path) -> None:
    """What could not be an app's name or a version on a device is refused where the bundle is made."""
    for naming in ({"name": name}, {"version": name}):
        with pytest.raises(InputError):
            tiny_bundle(tmp_path, **naming)
    assert made_nothing()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("..", "../made", "a/b", "~root")])
def test_no_host_or_account_has_such_a_name(name: str) -> None:
    """Neither a host nor an account can smuggle a command or an option into ssh, or into a ProxyCommand."""
    for address in (name, f"pi@{name}", f"ssh://{name}", f"{name}@board"):
        with pytest.raises(InputError):
            edgepack.status(address, app="tiny")
    assert made_nothing()


@pytest.mark.parametrize("transport", ["ssh", "openssh"])
def test_a_proxy_command_gets_no_more_than_a_name(tmp_path: Path, transport: str) -> None:
    """The host and the account that were typed stand in a user's ProxyCommand as one word each."""
    config, seen = tmp_path / "config", tmp_path / "seen"
    config.write_text(f'Host *\n ProxyCommand sh -c \'printf "%%s\\\\n" "$@" >{seen}\' sh %h %r %n\n')
    options = ConnectOptions(ssh_config=config, transport=transport, connect_timeout_s=1, retries=0)  # type: ignore[arg-type]
    with pytest.raises(EdgepackError):
        edgepack.status("jo.o+n=e,%7E^@bo-ard.x_y", options=options)
    assert seen.read_text().split("\n") == ["bo-ard.x_y", "jo.o+n=e,%7E^", "bo-ard.x_y", ""]


@pytest.mark.parametrize("python", ["a'b", 'a"b', "$(touch made)", "`touch made`", "a b", "a;touch made", "ü"])
def test_the_one_command_is_one_command(python: str) -> None:
    """A shell that is given the start command runs that program and nothing else, whatever it is called."""
    done = subprocess.run(["/bin/sh", "-c", start_command(f"./{python}")], capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert made_nothing()


def test_a_file_of_such_a_name_is_a_file(tmp_path: Path) -> None:
    """A bundle in a folder with an odd name is pushed as any other; its path is not taken for an address."""
    folder = tmp_path / ODD_FOLDER
    folder.mkdir()
    path, bundle = tiny_bundle(folder)
    root = tmp_path / "device"
    options = ConnectOptions(python=sys.executable)
    assert edgepack.push(path, DeviceAddress("local", root=str(root)), options=options).release == bundle.release
    assert made_nothing()
