"""Running a device: an sshd under QEMU in namespaces of its own, known by its process and told by a small file.

The mounts (/proc, /sys, /dev/pts, /dev/shm, /run) are in the process's mount namespace and all of the device's
processes in its PID namespace: ending the one process ends and unmounts everything.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from edgepack.device.emulated.needs import needs_qemu
from edgepack.device.emulated.processor import cpuinfo
from edgepack.device.emulated.systems import Places, System
from edgepack.errors import DeviceFailure

ADDRESS = "127.0.0.1"
# A start of sshd under QEMU takes 1 to 3 s; a busy machine is given a minute and a half.
_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 20.0
_PAUSE_S = 0.05

# $1 is the device's file system, $2 its name, $3 its port, $4 where it listens, $5 the processor, $6 what that says of
# itself ("" without QEMU). sshd hands nothing of its own environment on; SetEnv is for what runs in a session.
_SCRIPT = """\
mount -t proc proc "$1/proc"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$1/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$1/dev/shm"
mount -t tmpfs -o mode=0755 tmpfs "$1/run"
mkdir "$1/run/sshd"
mount -t tmpfs -o mode=0755 tmpfs "$1/sys"
mkdir -p "$1/sys/devices/system/cpu"
for file in possible present online; do
  cat "/sys/devices/system/cpu/$file" >"$1/sys/devices/system/cpu/$file"
done
if [ -n "$6" ]; then
  printf %s "$6" >"$1/run/cpuinfo"
  mount --bind "$1/run/cpuinfo" "$1/proc/cpuinfo"
fi
hostname "$2"
export QEMU_CPU="$5"
exec chroot "$1" /usr/sbin/sshd -D -e -p "$3" -o "ListenAddress=$4" -o "SetEnv=QEMU_CPU=$5"
"""
# Starts a process that outlives its starter and is nobody's child; prints its number.
_DETACH = (
    "import subprocess as s, sys; log = open(sys.argv[1], 'wb'); "
    "print(s.Popen(sys.argv[2:], stdin=s.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd='/').pid)"
)


@dataclass(frozen=True, slots=True)
class Process:
    """What runs a device: its process, told from a later one with the same number by when it started, and its port.

    ``started`` is in clock ticks after the boot that ``boot`` names.
    """

    pid: int
    started: int
    boot: str
    port: int


def command(system: System, places: Places, port: int | str) -> list[str]:
    """The command that runs a device in the foreground; depends on this machine's processors, starts nothing."""
    namespaces = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--"]
    told = cpuinfo(system.cpu, os.cpu_count() or 1) if needs_qemu(system) else ""
    values = [str(places.root), system.name, str(port), ADDRESS, system.cpu, told]
    return [*namespaces, "sh", "-eu", "-c", _SCRIPT, "sh", *values]


def read_state(places: Places) -> Process | None:
    """Who runs the device, or ran it last, by its file; None where there is none, or none that makes sense."""
    try:
        value = json.loads(places.state.read_bytes())
        return Process(int(value["pid"]), int(value["started"]), str(value["boot"]), int(value["port"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def running(places: Places) -> Process | None:
    """The process that runs the device now, None where none does."""
    process = read_state(places)
    return process if process is not None and is_alive(process) else None


def is_alive(process: Process) -> bool:
    """Whether just this process still runs: not another one with its number, nor a dead one that nobody buried."""
    return process.boot == _boot() and _started(process.pid) == process.started


def start(system: System, places: Places, port: int | None) -> Process:
    """Run the device, on ``port`` where that is free, and wait until its sshd answers; the caller holds the lock.

    Raises DeviceFailure "emulated-start" with sshd's last words.
    """
    chosen = port if port is not None and _is_free(port) else _free_port()
    done = subprocess.run(
        [sys.executable, "-I", "-c", _DETACH, str(places.log), *command(system, places, chosen)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        check=False,
    )
    if done.returncode:
        raise _not_started(system, done.stderr)
    pid = int(done.stdout)
    process = Process(pid, _started(pid) or 0, _boot(), chosen)
    partial = places.state.with_suffix(".part")
    partial.write_text(json.dumps({"schema": 1, **asdict(process)}) + "\n")
    partial.replace(places.state)
    try:
        _wait_for_answer(system, places, process)
    except BaseException:
        stop(process)
        raise
    return process


def stop(process: Process) -> None:
    """End a device's process, and with it all others of the device, and wait until they are gone.

    Its state stays, for the port that it had. Raises DeviceFailure "emulated-stop" where they do not go.
    """
    family = {pid: _started(pid) for pid in (process.pid, *_children(process.pid))}
    if is_alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while any(started is not None and _started(pid) == started for pid, started in family.items()):
        if time.monotonic() > deadline:
            raise DeviceFailure(
                "emulated-stop",
                f"The process {process.pid} was killed and does not end.",
                hint=f"Look at what it waits for: cat /proc/{process.pid}/stack",
            )
        time.sleep(_PAUSE_S)


def answers(process: Process) -> bool:
    """Whether an SSH server answers at the device's port within a second or two."""
    try:
        with socket.create_connection((ADDRESS, process.port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _wait_for_answer(system: System, places: Places, process: Process) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not answers(process):
        if not is_alive(process) or time.monotonic() > deadline:
            raise _not_started(system, places.log.read_text(errors="replace"))
        time.sleep(_PAUSE_S)


def _not_started(system: System, said: str) -> DeviceFailure:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return DeviceFailure(
        "emulated-start",
        f"The sshd of {system.name} did not start" + (f": {lines[-1]}" if lines else "."),
        hint=f"Run the command again; where it stays so: edgepack emulate remove {system.name}, then start it anew.",
    )


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks after boot (proc_pid_stat(5)); None where it is gone or dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((ADDRESS, 0))
        return int(found.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((ADDRESS, port))
        except OSError:
            return False
    return True
