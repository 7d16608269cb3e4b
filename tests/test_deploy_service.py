"""A real service around the model, restarted by a hook, asked by another, and brought back where it is unwell."""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_client import AgentClient, FakeRelease, new_op
from ondevice_release import lay_out, model_release, run_program

import edgepack
from edgepack.deploy.hooks import Hooks
from edgepack.device import ConnectOptions
from edgepack.errors import GateFailed
from edgepack.project import load_project

SERVICE = Path(__file__).resolve().parents[1] / "examples" / "service"


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """An edgepack folder; the service that was started on it ends with the test."""
    folder = tmp_path / "root"
    yield folder
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((folder / "service.pid").read_text()), signal.SIGKILL)


def hooks(port: int) -> Hooks:
    """Those of examples/service, without systemd."""
    restart, health = ((sys.executable, str(SERVICE / name), str(port)) for name in ("restart.py", "health.py"))
    return Hooks(after_activate=restart, health=health, health_retries=20)


def served(port: int) -> str:
    """The release that the service says it runs."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
        return str(json.load(answer)["release"])


def until_it_answers(port: int) -> None:
    """A service that was just started needs a moment."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)


def pushed(root: Path, release: FakeRelease) -> dict[str, Any]:
    """A release on the device, and how to reach it there."""
    with AgentClient(root) as agent:
        agent.hello_and_push(release)
    return {"device": f"local:{root}", "options": ConnectOptions(python=sys.executable), "unchecked": True}


def test_a_service_that_is_unwell_with_a_release_gets_the_old_one_back(root: Path, port: int) -> None:
    """The health check fails: the release before is active and served again, exit 1, and the history has the reason."""
    good, unfit = model_release(), model_release("tiny_float")
    edgepack.activate(hooks=hooks(port), **pushed(root, good))
    assert served(port) == good.release
    first = (root / "service.pid").read_text()
    where = pushed(root, unfit)
    with pytest.raises(GateFailed) as caught:
        edgepack.activate(hooks=Hooks(hooks(port).after_activate, hooks(port).health, health_retries=4), **where)
    assert (caught.value.code, caught.value.exit_code) == ("health-failed", 1)
    assert "answers 500" in str(caught.value.details["output"])
    assert caught.value.details["restart"]["code"] == 0  # type: ignore[index,call-overload]
    until_it_answers(port)
    assert served(port) == good.release
    assert (root / "service.pid").read_text() != first
    status = edgepack.status(where["device"], options=where["options"])
    assert (status.current, status.releases[-1]["bad"] or status.releases[0]["bad"]) == (good.release, True)
    entry = edgepack.history(where["device"], options=where["options"]).history[-1]
    assert (entry["outcome"], entry["failure"]["hook"]) == ("health-failed", "health")
    assert "answers 500" in entry["failure"]["output"]
    shown = subprocess.run(
        [sys.executable, "-m", "edgepack", "history", where["device"], "--python", sys.executable],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "answers 500" in shown.stdout


def test_a_release_that_a_program_has_loaded_outlives_gc(root: Path) -> None:
    """A program runs on with an old release: gc leaves that one and says why, and takes it once the program is gone."""
    old, middle, new = (model_release(app="tiny"), FakeRelease("tiny", "2"), FakeRelease("tiny", "3"))
    lay_out(root, old)
    program = (
        f"import sys; sys.path.insert(0, {str(root / 'lib')!r}); import edgepack_device\n"
        "model = edgepack_device.load('tiny'); print('loaded', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"loaded\n"
        for release in (middle, new):
            with AgentClient(root) as agent:
                agent.hello_and_push(release)
                agent.activate(release)
        where: dict[str, Any] = {"device": f"local:{root}", "options": ConnectOptions(python=sys.executable)}
        dry = edgepack.gc(keep=0, dry_run=True, **where)
        kept = edgepack.gc(keep=0, **where)
        assert dry == kept
        assert (kept.removed, kept.in_use) == ((), (old.release,))
        assert (root / "apps" / "tiny" / "releases" / old.release / "model.tflite").exists()
        running.communicate()
    gone = edgepack.gc(keep=0, **where)
    assert (gone.removed, gone.in_use) == ((old.release,), ())


@pytest.mark.parametrize("end", ["model.close()", "del model", "model = None"])
def test_a_model_that_is_closed_or_forgotten_is_in_use_no_more(root: Path, end: str) -> None:
    """A program that goes on without the model keeps no release; an isolated model counts as any other."""
    lay_out(root, model_release())
    with AgentClient(root) as agent:
        for version in "23":
            agent.hello_and_push(FakeRelease("tiny", version))
            agent.activate(FakeRelease("tiny", version))
        script = f"""
import fcntl, os, gc
link = {str(root / "apps" / "tiny" / "current")!r}
os.unlink(link); os.symlink("releases/{model_release().release}", link)
folder = os.path.realpath(link)
def free():
    gc.collect()
    fd = os.open(folder, os.O_RDONLY)
    try: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB); return True
    except BlockingIOError: return False
    finally: os.close(fd)
import edgepack_device
model = edgepack_device.load("tiny", isolated={"close" in end})
before = free()
{end}
result = [before, free()]
"""
        assert run_program(root, script) == [False, True]
        assert agent.request("gc", op=new_op(), app="tiny", keep=0)["in_use"] == []


def test_the_units_and_hooks_of_the_example_are_sound() -> None:
    """The systemd unit is one that systemd reads, starts the service of the example, and the project's hooks fit it."""
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign,assignment]
    unit.read(SERVICE / "kiosk.service")
    assert set(unit.sections()) == {"Unit", "Service", "Install"}
    program, script, app, port = unit["Service"]["ExecStart"].split()
    assert (program, script, app) == ("/usr/bin/python3", "%h/service/serve.py", "kiosk")
    assert unit["Install"]["WantedBy"] == "default.target"
    project = load_project(SERVICE / "edgepack.toml")
    assert project.name == app
    assert project.hooks.after_activate == ("systemctl", "--user", "restart", "kiosk")
    assert project.hooks.health == ("python3", "service/health.py", port)
    assert project.hooks.health_retries == 5
