"""Making a device's file system: debootstrap in namespaces of its own, then a user, keys and an sshd that lets it in.

Everything happens in a folder beside the device's own and is renamed into place when it is whole. debootstrap's mounts
are in a mount namespace and its processes in a PID namespace, so that both end with it, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edgepack.device.emulated.aptsources import MIRRORS_HINT
from edgepack.device.emulated.needs import keyring, which
from edgepack.device.emulated.systems import USER, Places, System
from edgepack.errors import DeviceFailure, InputError
from edgepack.events import Event, Reporter

# What a Raspberry Pi has and the main job needs there, NumPy from Debian because PyPI has none for armv7l.
PACKAGES = ("python3", "openssh-server", "python3-numpy")
_UID = 1000
_SCRIPTS = Path("/usr/share/debootstrap/scripts")
# UsePAM no: its modules log and count logins, each of them another program under QEMU.
_SSHD_CONFIG = """\
# Written by edgepack emulate.
UsePAM no
PasswordAuthentication no
PermitRootLogin no
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile none
"""
_SAID = re.compile(r"I: (Retrieving|Extracting|Unpacking|Configuring) (?!.*packages)(\S+?)\.*( |$)")
_TAIL_LINES = 40


def debootstrap_command(system: System, mirror: str, root: Path, packages: Path) -> list[str]:
    """The command that makes the file system at ``root``; pure but for looking for the release's script.

    debootstrap knows the releases of its own time; Debian's newer ones are made as its ``sid`` is.
    """
    command = [
        which("debootstrap") or "debootstrap",
        f"--arch={system.dpkg_arch}",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        f"--cache-dir={packages}",
        f"--keyring={keyring()}",
        "--force-check-gpg",
        system.suite,
        str(root),
        mirror,
    ]
    return command if (_SCRIPTS / system.suite).exists() else [*command, str(_SCRIPTS / "sid")]


def alone(command: Sequence[str]) -> list[str]:
    """The command in a mount and a PID namespace, ended with all its children as soon as whoever started it ends."""
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--"]
    return ["setpriv", "--pdeathsig", "KILL", *namespaces, *command]


def make(system: System, mirror: str, places: Places, report: Reporter) -> None:
    """Make a system whose folder is not there, and put it into place; the caller holds the lock.

    Raises InputError "mirror", DeviceFailure "debootstrap", "emulated-setup"; what was fetched stays for the next try.
    """
    started = time.monotonic()
    remove_tree(places.making)
    root = places.making / "root"
    places.packages.mkdir(parents=True, exist_ok=True)
    # dpkg(1): else every file is synced, for a folder that counts for nothing until it is whole.
    unsafe = root / "etc" / "dpkg" / "dpkg.cfg.d" / "edgepack"
    unsafe.parent.mkdir(parents=True)
    unsafe.write_text("force-unsafe-io\n")
    try:
        _debootstrap(system, mirror, root, places, report)
        report(Event("emulate", f"{system.name}: adding the user {USER} and keys"))
        _furnish(system, places)
        unsafe.unlink()
        made = {"schema": 1, "suite": system.suite, "mirror": mirror, "seconds": round(time.monotonic() - started, 1)}
        (places.making / "made.json").write_text(json.dumps(made) + "\n")
        places.making.rename(places.folder)
    except BaseException:
        remove_tree(places.making)
        raise
    remove_tree(places.packages)


def _debootstrap(system: System, mirror: str, root: Path, places: Places, report: Reporter) -> None:
    command = alone(debootstrap_command(system, mirror, root, places.packages))
    tail: list[str] = []
    progress = _Progress(system, mirror, report)
    with (
        places.making_log.open("w", buffering=1) as log,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(system),
            start_new_session=True,
            text=True,
            errors="replace",
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                log.write(line)
                tail = [*tail[1 - _TAIL_LINES :], line.strip()]
                progress.said(line)
            code = process.wait()
        except BaseException:
            process.kill()
            raise
    if code:
        with contextlib.suppress(OSError), places.making_log.open("ab") as log_end:
            log_end.write((root / "debootstrap" / "debootstrap.log").read_bytes())
        raise failed(system, mirror, tail, places.making_log)


def failed(system: System, mirror: str, tail: Sequence[str], log: Path) -> InputError | DeviceFailure:
    """What to say when debootstrap gave up, from the last lines that it said; pure."""
    words = next((line for line in reversed(tail) if line.startswith("E: ")), "") or (tail[-1] if tail else "no word")
    words = words.removeprefix("E: ")
    if re.search(r"release|couldn't download|couldn't find these debs|invalid mirror|unknown location", words, re.I):
        return InputError(
            "mirror",
            f"The mirror {mirror} does not give Debian {system.suite} for {system.dpkg_arch}: {words}",
            hint=f"{MIRRORS_HINT} debootstrap's log: {log}",
        )
    return DeviceFailure(
        "debootstrap",
        f"debootstrap could not make {system.name}: {words}",
        hint=f"Its log is {log}. What was fetched is kept: run the command again once that is mended.",
    )


class _Progress:
    """Tells what debootstrap is at: a message for each phase, and how many packages it has gone through."""

    def __init__(self, system: System, mirror: str, report: Reporter) -> None:
        self._report = report
        self._name = system.name
        self._from = f" from {mirror}"
        self._phase = ""
        self._done = 0

    def said(self, line: str) -> None:
        """Take a line of debootstrap's."""
        found = _SAID.match(line)
        if found is None:
            return
        phase = found[1].lower()
        message = f"{self._name}: {phase} packages"
        if phase != self._phase:
            self._phase, self._done = phase, 0
            self._report(Event("emulate", message + (self._from if phase == "retrieving" else "")))
        self._done += 1
        self._report(Event("emulate", message, self._done, None, "packages"))


def _furnish(system: System, places: Places) -> None:
    """Give a fresh file system its name, a user, keys, and settings of sshd."""
    root = places.making / "root"
    for key in ("key", "host_key"):
        comment = f"{USER}@{system.name}" if key == "key" else system.name
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(places.making / key)]
        _run(command, system)
    # "*" is a password that nobody has; "!" would lock the account, and sshd lets no locked account in.
    account = ["useradd", "--create-home", "--shell", "/bin/bash", "--uid", str(_UID), "--password", "*", USER]
    _run(["chroot", str(root), *account], system)
    (root / "etc" / "hostname").write_text(f"{system.name}\n")
    (root / "etc" / "hosts").write_text(f"127.0.0.1 localhost {system.name}\n::1 localhost\n")
    (root / "etc" / "ssh" / "sshd_config.d" / "edgepack.conf").write_text(_SSHD_CONFIG)
    for old in (root / "etc" / "ssh").glob("ssh_host_*"):
        old.unlink()
    host_key = root / "etc" / "ssh" / "ssh_host_ed25519_key"
    shutil.copyfile(places.making / "host_key", host_key)
    host_key.chmod(0o600)
    folder = root / "home" / USER / ".ssh"
    folder.mkdir(mode=0o700)
    shutil.copyfile(places.making / "key.pub", folder / "authorized_keys")
    for path in (folder, folder / "authorized_keys"):
        os.chown(path, _UID, _UID)
    for package in (root / "var" / "cache" / "apt" / "archives").glob("*.deb"):
        package.unlink()


def _run(command: Sequence[str], system: System) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=_environment(system), check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise DeviceFailure(
            "emulated-setup",
            f"{system.name} could not be set up: {command[0]} ended with {done.returncode}"
            + (f": {said[-1]}" if said else "."),
            hint="Run the command again; where it fails the same way, look at what the message names.",
        )


def _environment(system: System) -> dict[str, str]:
    """English messages, the folders of administrators' programs, for here and for inside; the device's processor.

    QEMU's own choice of a processor has pointer authentication, which trixie's programs use and QEMU computes slowly:
    the same work takes four times as long with it.
    """
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
    return {**os.environ, "LC_ALL": "C", "PATH": path, "QEMU_CPU": system.cpu}


def remove_tree(folder: Path, mounts: Callable[[], str] = lambda: Path("/proc/self/mountinfo").read_text()) -> None:
    """Remove a folder and all in it, unless something is mounted there: that may be anybody's files.

    Raises InputError "mounted" with nothing removed.
    """
    if not folder.exists():
        return
    mounted = mounted_below(folder, mounts())
    if mounted:
        raise InputError(
            "mounted",
            f"{mounted[0]} is a mount: {folder} is not removed, and nothing in it.",
            hint="; ".join(f"umount {place}" for place in reversed(mounted)),
        )
    shutil.rmtree(folder)


def mounted_below(folder: Path, mountinfo: str) -> list[str]:
    """The mount points at or below a folder, as /proc/self/mountinfo (proc_pid_mountinfo(5)) tells them; pure."""
    places = (line.split()[4] for line in mountinfo.splitlines() if len(line.split()) > 4)
    # The kernel writes a blank, a tab, a newline and a backslash as octal numbers.
    plain = (re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), place) for place in places)
    return [place for place in plain if Path(place).is_relative_to(folder)]
