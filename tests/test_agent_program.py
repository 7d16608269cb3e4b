"""The agent's modules as the one program that is sent to a device."""

from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from agent_client import ONDEVICE, find_pythons, load_agent

from edgepack.device.bootstrap import BOOTSTRAP, agent_source, installed_agent

ROOT = Path(__file__).parents[1]


def test_every_machine_sends_the_same_agent() -> None:
    """The program holds every module, in order, so its digest tells one version of the agent from another."""
    print_digest = (
        "import hashlib; from edgepack.device.bootstrap import agent_source, installed_agent; "
        "print(hashlib.sha256(installed_agent() + agent_source()).hexdigest())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", print_digest],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            cwd=ROOT,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    held: dict[str, object] = {"__name__": "not main"}
    exec(installed_agent(), held)  # noqa: S102 (our own program)
    files = sorted((ONDEVICE / "agent").glob("*.py"))
    assert held["MODULES"] == {path.stem: path.read_text(encoding="utf-8") for path in files}
    assert list(held["MODULES"]) == [path.stem for path in files]  # type: ignore[call-overload]


@pytest.mark.parametrize("python", find_pythons())
def test_the_agent_needs_no_file(python: str, tmp_path: Path) -> None:
    """Any Python from 3.8 on runs the streamed agent out of its memory, in a folder that may not be written."""
    sent = b"%d 5eed\n" % len(agent_source()) + agent_source() + b'{"id": 1, "verb": "ping", "n": 0}\n'
    tmp_path.chmod(0o555)
    done = subprocess.run(
        [python, "-I", "-u", "-c", BOOTSTRAP], input=sent, capture_output=True, cwd=tmp_path, timeout=60, check=False
    )
    assert done.stdout == b'\nEDGEPACK1 5eed\n{"id": 1, "ok": true, "n": 0, "result": {}}\n'
    assert done.stderr == b""
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_the_agent_is_told_with_module_and_line() -> None:
    """A traceback, and the places in an internal error, name the module and show its line."""
    agent = load_agent()
    with pytest.raises(TypeError) as caught:
        agent.confined(1, "name")
    lines = (ONDEVICE / "agent" / "disk.py").read_text().splitlines()
    number = next(number for number, line in enumerate(lines, 1) if "os.path.join(path, name)" in line)
    shown = "".join(traceback.format_exception(caught.value))
    assert f'File "<edgepack_agent>/disk.py", line {number}, in confined' in shown
    assert lines[number - 1].strip() in shown
    assert f"disk.py:{number} confined" in agent.internal_error(caught.value).details["where"]
