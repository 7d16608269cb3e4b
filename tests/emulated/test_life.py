"""An emulated device's own life: started once, stopped whole, never half made, never in anybody's way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from emulated_pi import Pi

from edgepack.device.emulated import SYSTEMS, list_devices, start, stop
from edgepack.device.emulated.making import mounted_below
from edgepack.device.emulated.systems import Places

NAME = "pi-bookworm64"


def edgepack_command(*words: str) -> list[str]:
    """The command as people type it."""
    return [sys.executable, "-m", "edgepack", "emulate", *words]


def processes_with(text: str) -> list[str]:
    """The command lines on this machine in which a text stands."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_it_is_the_system_that_it_says(pi: Callable[[str], Pi], name: str) -> None:
    """A stock ssh logs in as a user without power to Debian's own Python, C library and processor of that name."""
    device, system = pi(name), SYSTEMS[name]
    machine = {"aarch64": "aarch64", "armv7l": "armv7l"}[system.platform.arch]
    libc = system.platform.libc.removeprefix("glibc-")
    # Bit 20 of AT_HWCAP (16): the dot product instructions, which boards before the Pi 5 lack (aarch64's hwcap.h).
    dot_product = "__import__('ctypes').CDLL(None).getauxval(16) >> 20 & 1" if machine == "aarch64" else "0"
    python = (
        f"import os,platform as p; print(p.machine(), p.python_version(), p.libc_ver()[1], os.getuid(), {dot_product})"
    )
    told = device.run(f'hostname; dpkg --print-architecture; python3 -c "{python}"').split()
    assert told[:4] == [name, system.dpkg_arch, machine, told[3]]
    assert told[3].startswith(f"{system.platform.python}.")
    assert told[4:] == [libc, "1000", "0"]


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_its_processor_is_the_oldest_board_s(pi: Callable[[str], Pi], name: str) -> None:
    """What chooses kernels by /proc/cpuinfo finds a Cortex-A53 or Cortex-A7 there, and nothing of this machine's."""
    told = pi(name).run("cat /proc/cpuinfo; cat /sys/devices/system/cpu/possible")
    assert f"CPU part\t: {'0xc07' if name == 'pi-bookworm32' else '0xd03'}\n" in told
    assert told.count("processor\t: ") == os.cpu_count()
    assert "vendor_id" not in told


def test_two_starts_run_one_device(pi: Callable[[str], Pi]) -> None:
    """Whoever starts what runs, or is being started, gets the same address; there is one process."""
    pi(NAME)
    stop(NAME)
    with ThreadPoolExecutor(3) as starters:
        started = list(starters.map(lambda _: start(NAME), range(3)))
    assert len({document.port for document in started}) == 1
    assert [document.already_running for document in started].count(False) == 1
    assert not any(document.made for document in started)
    assert start(NAME).already_running


def test_stop_leaves_nothing_but_files(pi: Callable[[str], Pi]) -> None:
    """No process of it is left, mounts of this machine never were; what lay on its disk stays, and so does its port."""
    device = pi(NAME)
    device.run("echo kept >note; nohup sleep 600 >/dev/null 2>&1 &")
    places = Places.of(SYSTEMS[NAME])
    assert mounted_below(places.folder, Path("/proc/self/mountinfo").read_text()) == []
    port = start(NAME).port
    stop(NAME)
    assert processes_with(str(places.root)) == []
    assert processes_with("sleep 600") == []
    assert {told.name: told.state for told in list_devices().devices}[NAME] == "stopped"
    assert not stop(NAME).changed
    again = start(NAME)
    assert (again.made, again.port) == (False, port)
    assert device.run("cat note; rm note") == "kept\n"


def test_the_command_tells_scripts_how_to_reach_it(pi: Callable[[str], Pi]) -> None:
    """`emulate start --json` has `device` and `ssh_config`, with which the other commands reach the device."""
    pi(NAME)
    words = edgepack_command("start", NAME, "--json")
    told = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=120).stdout)
    status = [sys.executable, "-m", "edgepack", "probe", told["device"], "--ssh-config", told["ssh_config"], "--json"]
    probed = json.loads(subprocess.run(status, capture_output=True, check=True, timeout=120).stdout)
    assert probed["facts"]["arch"] == "aarch64"
    assert "raspberry-pi-4" in probed["fits"]


def test_under_sudo_the_caller_may_log_in(pi: Callable[[str], Pi]) -> None:
    """Key, host key and configuration are the files of whoever called sudo, and nobody else reads the key."""
    pi(NAME)
    places = Places.of(SYSTEMS[NAME])
    stop(NAME)
    words = [*edgepack_command("start", NAME, "--quiet")]
    subprocess.run(words, env={**os.environ, "SUDO_UID": "65534", "SUDO_GID": "65534"}, check=True, timeout=120)
    told = [path.stat() for path in (places.key, places.known_hosts, places.ssh_config)]
    for path in (places.key, places.known_hosts, places.ssh_config):
        os.chown(path, 0, 0)
    assert [entry.st_uid for entry in told] == [65534] * 3
    assert told[0].st_mode & 0o777 == 0o600


def test_a_kill_on_the_way_leaves_no_process_and_no_half_device(tmp_path: Path) -> None:
    """Killed with -9 while it is made, it is half made and never taken for whole; nothing goes on in the background."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    making = tmp_path / "edgepack" / "emulated" / f"{NAME}.part"
    with subprocess.Popen(edgepack_command("start", NAME), env=environment, stderr=subprocess.DEVNULL) as starting:
        deadline = time.monotonic() + 120
        while not (making / "root" / "debootstrap").is_dir():
            assert time.monotonic() < deadline
            assert starting.poll() is None
            time.sleep(0.1)
        starting.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while processes_with(f"{making}/root"):
        assert time.monotonic() < deadline, processes_with(f"{making}/root")
        time.sleep(0.1)
    listed = subprocess.run(edgepack_command("list", "--json"), env=environment, capture_output=True, check=True)
    assert json.loads(listed.stdout)["devices"][0]["state"] == "half-made"
    removed = subprocess.run(
        edgepack_command("remove", NAME, "--json"), env=environment, capture_output=True, check=True
    )
    assert json.loads(removed.stdout)["bytes"] > 0
    assert not making.exists()


def test_a_mirror_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A wrong --mirror ends at once with its address and debootstrap's words, and leaves no half device."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    words = edgepack_command("start", NAME, "--mirror", "http://127.0.0.1:9/debian", "--json")
    done = subprocess.run(words, env=environment, capture_output=True, timeout=120, check=False)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (2, "mirror")
    assert "http://127.0.0.1:9/debian" in error["message"]
    assert not (tmp_path / "edgepack" / "emulated" / f"{NAME}.part").exists()


def test_what_is_mounted_into_a_device_outlives_its_removal(tmp_path: Path) -> None:
    """Somebody's folder, mounted into a device, is neither emptied nor unmounted by `remove`, which says why."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    place = tmp_path / "edgepack" / "emulated" / NAME / "root" / "mnt"
    place.mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(precious), str(place)], check=True)
    try:
        done = subprocess.run(edgepack_command("remove", NAME), env=environment, capture_output=True, check=False)
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert done.returncode == 2
    assert f"umount {place}" in done.stderr.decode()
    assert (precious / "file").read_text() == "kept"
    subprocess.run(edgepack_command("remove", NAME), env=environment, capture_output=True, check=True)
    assert not place.exists()
