"""What the agent sees when it is asked to look."""

from __future__ import annotations

import os
import struct
import sys
import time
from pathlib import Path

import pytest
from agent_client import AGENT, AgentClient, LoadedAgent, find_pythons, load_agent


@pytest.fixture(scope="module")
def agent() -> LoadedAgent:
    """The agent's own functions; it speaks to nobody until it is run."""
    return load_agent()


def program(folder: Path, name: str, script: str) -> None:
    """A program of the device, as a shell script."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def files(folder: Path, **texts: str) -> None:
    """Files of the kernel's."""
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text + "\n")


@pytest.mark.parametrize("python", find_pythons())
def test_a_look_tells_more_than_hello_does(python: str, tmp_path: Path) -> None:
    """With ``look``, hello brings the texts and the time that a probe needs, on any Python from 3.8 on."""
    with AgentClient(tmp_path / "root", python=python) as client:
        plain = client.hello(lock=False)
        full = client.hello(lock=False, look=True)
        assert "texts" not in plain
        assert set(plain["facts"]) < set(full["facts"])
        assert "OpenSSH" in full["texts"]["ssh"]
        assert abs(full["time_s"] - time.time()) < 60
        assert client.request("probe").keys() == {"facts", "texts", "notes", "time_s"}


def test_programs_that_hang_or_fail_cost_one_fact_each(tmp_path: Path) -> None:
    """A vcgencmd that hangs is ended, a Python that is broken is said to be; everything else is told, in time."""
    program(tmp_path / "bin", "vcgencmd", "exec sleep 60")
    program(tmp_path / "bin", "python3.10", "echo broken >&2; exit 7")
    program(tmp_path / "bin", "python3.12", "echo 3.12.1 64")
    hurried = tmp_path / "agent.py"
    hurried.write_text(AGENT.read_text().replace("LOOK_S = 10.0", "LOOK_S = 1.0"))
    path = f"{tmp_path}/bin:/usr/bin:/bin"
    before = time.monotonic()
    with AgentClient(tmp_path / "root", env={"PATH": path, "HOME": str(tmp_path)}, agent=hurried) as client:
        seen = client.hello(lock=False, look=True)
    assert time.monotonic() - before < 20
    assert f"python {tmp_path}/bin/python3.10: ended with 7" in seen["notes"]
    assert "throttled: did not answer in 1 s" in seen["notes"]
    assert seen["texts"]["throttled"] == ""
    assert seen["texts"][f"python {tmp_path}/bin/python3.12"] == "3.12.1 64\n"
    assert seen["facts"]["python"]


def test_a_fact_that_cannot_be_read_takes_no_other_with_it(agent: LoadedAgent) -> None:
    """It is null, and a note says why."""

    def broken() -> None:
        raise OSError(5, "Input/output error")

    facts, notes = agent.read_each({"model": lambda: "a board", "cpus": broken, "home": lambda: "/home/pi"})
    assert facts == {"model": "a board", "cpus": None, "home": "/home/pi"}
    assert notes == ["cpus: OSError: [Errno 5] Input/output error"]


def test_pythons_are_found_once_each_wherever_people_put_them(
    agent: LoadedAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PATH, in the home folder's virtual environments and version managers; no shims, nothing below 3.8."""
    program(tmp_path / "path", "python3.9", "")
    (tmp_path / "path" / "python3").symlink_to("python3.9")
    (tmp_path / "path" / "python3-config").write_text("")
    program(tmp_path / "path", "python3.6", "")
    (tmp_path / ".pyenv" / "versions" / "3.13.0").mkdir(parents=True)
    program(tmp_path / ".pyenv" / "versions" / "3.13.0" / "bin", "python3.13", "")
    (tmp_path / ".pyenv" / "shims").mkdir()
    program(tmp_path / ".pyenv" / "shims", "python3.13", "")
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python3").symlink_to(tmp_path / "path" / "python3.9")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}/path:{tmp_path}/.pyenv/shims")
    found = [path for path in agent.find_pythons() if path.startswith(str(tmp_path))]
    assert found == [f"{tmp_path}/path/python3.9", f"{tmp_path}/.pyenv/versions/3.13.0/bin/python3.13"]


def test_a_library_of_the_other_word_size_is_none(
    agent: LoadedAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 64-bit libedgetpu beside a 32-bit Python (or the other way round) cannot be loaded, so it is not there."""
    mine = struct.calcsize("P") // 4
    (tmp_path / "libedgetpu.so.1").write_bytes(b"\x7fELF" + bytes([3 - mine]) + bytes(60))
    (tmp_path / "libvx_delegate.so").write_bytes(b"\x7fELF" + bytes([mine]) + bytes(60))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    found = agent.find_delegates()
    assert found["libvx_delegate.so"] == f"{tmp_path}/libvx_delegate.so"
    assert not found.get("libedgetpu.so.1", "").startswith(str(tmp_path))


def test_heat_power_and_voltage_are_read_as_the_kernel_writes_them(agent: LoadedAgent, tmp_path: Path) -> None:
    """A Raspberry Pi's thermal zone, supply alarm and governor; a laptop's battery and mains."""
    system = tmp_path / "sys"
    files(system / "class" / "thermal" / "thermal_zone0", type="cpu-thermal", temp="52095")
    files(system / "class" / "thermal" / "thermal_zone1", type="broken", temp="")
    files(system / "class" / "thermal" / "cooling_device0", type="Processor")
    files(system / "class" / "power_supply" / "BAT0", type="Battery", status="Discharging", capacity="81")
    files(system / "class" / "power_supply" / "AC", type="Mains", online="0")
    files(system / "class" / "hwmon" / "hwmon1", name="rpi_volt", in0_lcrit_alarm="1")
    files(system / "devices" / "system" / "cpu" / "cpu0" / "cpufreq", scaling_governor="ondemand")
    assert agent.thermal_zones(str(system)) == [
        {"name": "cpu-thermal", "temperature_c": 52.095},
        {"name": "broken", "temperature_c": None},
    ]
    assert agent.power_supplies(str(system)) == [
        {"name": "AC", "type": "Mains", "online": "0"},
        {"name": "BAT0", "type": "Battery", "status": "Discharging", "capacity": "81"},
    ]
    assert agent.undervoltage(str(system)) is True
    assert agent.governor(str(system)) == "ondemand"
    bare = str(tmp_path / "none")
    assert (agent.thermal_zones(bare), agent.power_supplies(bare)) == ([], [])
    assert (agent.undervoltage(bare), agent.governor(bare)) == (None, None)


def test_the_python_that_answers_is_not_among_the_others(agent: LoadedAgent) -> None:
    """It is the one in use already."""
    assert os.path.realpath(sys.executable) not in [os.path.realpath(path) for path in agent.find_pythons()]
