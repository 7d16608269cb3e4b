from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from test_device_session import gone

from edgepack.device import DeviceAddress, open_transport
from edgepack.device.embedded import EmbeddedDevice
from edgepack.errors import UnreachableError


def run(device: EmbeddedDevice, command: str) -> bytes:
    """The output of one command on the device."""
    transport = open_transport(DeviceAddress.parse(device.address), device.options)
    try:
        channel = transport.open(command)
        return b"".join(iter(lambda: channel.read(1000), b""))
    finally:
        transport.close()


def test_it_has_a_home_of_its_own(tmp_path: Path) -> None:
    """What the demo deploys lands in the demo's own folder, not in the user's home."""
    with EmbeddedDevice(tmp_path / "device") as device:
        assert run(device, "cd; pwd; echo $HOME").split() == [os.fsencode(device.home)] * 2


def test_nobody_else_gets_in(tmp_path: Path) -> None:
    """Another key of this machine does not open the device, and neither does the ssh program with it."""
    with EmbeddedDevice(tmp_path / "device") as device:
        subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
        options = dataclasses.replace(device.options, identity=tmp_path / "other")
        with pytest.raises(UnreachableError, match="refused"):
            open_transport(DeviceAddress.parse(device.address), options)


def test_the_ssh_program_gets_in(tmp_path: Path) -> None:
    """It is a real SSH server: OpenSSH's client logs in with the same options."""
    with EmbeddedDevice(tmp_path / "device") as device:
        options = dataclasses.replace(device.options, transport="openssh")
        transport = open_transport(DeviceAddress.parse(device.address), options)
        channel = transport.open("cat; exit 4")
        channel.write(b"through")
        channel.finish_input()
        assert channel.read(100) == b"through"
        assert channel.wait(10) == 4
        transport.close()


def test_leaving_ends_everything(tmp_path: Path) -> None:
    """After the demo nothing of it runs: no process, no thread, no open port."""
    before = threading.active_count()
    with EmbeddedDevice(tmp_path / "device") as device:
        transport = open_transport(DeviceAddress.parse(device.address), device.options)
        channel = transport.open("sleep 1000 & echo $!; wait")
        pid = int(channel.read(100))
        port = int(device.address.rpartition(":")[2])
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert gone(pid)
    transport.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_silent_caller_stops_nobody(tmp_path: Path) -> None:
    """Whoever connects and says nothing does not keep the others out."""
    with EmbeddedDevice(tmp_path / "device") as device, socket.socket() as silent:
        silent.connect(("127.0.0.1", int(device.address.rpartition(":")[2])))
        assert run(device, "echo in") == b"in\n"


def test_it_can_be_started_again(tmp_path: Path) -> None:
    """The same folder serves again, with new keys and everything that was deployed before."""
    for expected in (b"", b"kept\n"):
        with EmbeddedDevice(tmp_path / "device") as device:
            assert run(device, "cat note 2>/dev/null; echo kept > note") == expected
