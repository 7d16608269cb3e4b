"""``edgepack emulate``: make and start, stop, list and remove emulated devices."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import time
from collections.abc import Iterator

from edgepack.device.emulated import making, needs
from edgepack.device.emulated import running as process_of
from edgepack.device.emulated.access import give_to_sudoer, write_access
from edgepack.device.emulated.aptsources import mirror_for
from edgepack.device.emulated.systems import SYSTEMS, Places, System, find_system
from edgepack.documents import EmulateChangeDocument, EmulatedDevice, EmulateListDocument, EmulateStartDocument
from edgepack.errors import LockedError
from edgepack.events import Event, Reporter, ignore_events

# Making a system takes minutes; whoever starts it meanwhile waits for that, but not for ever.
_LOCK_TIMEOUT_S = 1800.0
_LOCK_PAUSE_S = 0.2


def start(
    name: str, *, mirror: str | None = None, dry_run: bool = False, report: Reporter = ignore_events
) -> EmulateStartDocument:
    """Make an emulated device where it is not there yet, and run it; where it runs already, tell how to reach it.

    ``mirror`` is the Debian mirror to make it from (None: that of this machine's apt). ``dry_run`` tells the commands.
    Raises InputError (no such device, no Linux, no root, missing packages, a full disk, no mirror), DeviceFailure.
    """
    began = time.monotonic()
    system = find_system(name)
    places = Places.of(system)
    needs.require_linux_root()
    made = places.root.is_dir()
    needs.require_packages(system, make=not made)
    if not made:
        needs.require_disk(places.folder)
        mirror = mirror_for(system.suite, mirror)
    if dry_run:
        return _planned(system, places, None if made else mirror)
    needs.enable_qemu(system)
    _make_cache(places)
    with _locked(system, places, report):
        if made_now := not places.root.is_dir():
            making.make(system, mirror or mirror_for(system.suite), places, report)
        before = process_of.running(places)
        process = _answering(system, places, before, report)
    return EmulateStartDocument(
        name=name,
        device=name,
        ssh_config=str(places.ssh_config),
        port=process.port,
        made=made_now,
        already_running=process == before,
        seconds=round(time.monotonic() - began, 1),
    )


def _make_cache(places: Places) -> None:
    """The cache folder, which under sudo is the caller's: edgepack keeps other things there without root."""
    new = [folder for folder in places.folder.parents if not folder.exists()]
    for folder in reversed(new):
        folder.mkdir(exist_ok=True)
    give_to_sudoer(new)


def stop(name: str, *, dry_run: bool = False) -> EmulateChangeDocument:
    """Stop an emulated device; its files stay. One that does not run is left as it is."""
    system = find_system(name)
    places = Places.of(system)
    process = process_of.running(places)
    if process is None:
        return EmulateChangeDocument(name, changed=False, bytes=0)
    needs.require_linux_root()
    if not dry_run:
        with _locked(system, places):
            process_of.stop(process)
    return EmulateChangeDocument(name, changed=True, bytes=0)


def remove(name: str, *, dry_run: bool = False) -> EmulateChangeDocument:
    """Stop an emulated device and remove all of its files.

    Raises InputError "mounted" where somebody has mounted something into it; then nothing is removed.
    """
    system = find_system(name)
    places = Places.of(system)
    folders = [folder for folder in (places.folder, places.making, places.packages) if folder.exists()]
    freed = sum(_bytes(str(folder)) for folder in folders)
    if folders and not dry_run:
        needs.require_linux_root()
        with _locked(system, places):
            process = process_of.running(places)
            if process is not None:
                process_of.stop(process)
            for folder in folders:
                making.remove_tree(folder)
            places.making_log.unlink(missing_ok=True)
    return EmulateChangeDocument(name, changed=bool(folders), bytes=freed)


def list_devices() -> EmulateListDocument:
    """Every emulated device that there can be, and what is there of it."""
    return EmulateListDocument(tuple(_told(system, Places.of(system)) for system in SYSTEMS.values()))


def _told(system: System, places: Places) -> EmulatedDevice:
    process = process_of.running(places)
    return EmulatedDevice(
        name=system.name,
        state=_state(places, process),
        suite=system.suite,
        python=system.platform.python,
        arch=system.platform.arch,
        libc=system.platform.libc,
        like=system.like,
        bytes=sum(_bytes(str(folder)) for folder in (places.folder, places.making, places.packages)),
        ssh_config=str(places.ssh_config) if process else None,
        port=process.port if process else None,
    )


def _state(places: Places, process: process_of.Process | None) -> str:
    if process is not None or places.root.is_dir():
        return "stopped" if process is None else "running"
    if not places.making.exists():
        return "absent"
    with places.lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return "being made"
    return "half-made"


def _answering(
    system: System, places: Places, before: process_of.Process | None, report: Reporter
) -> process_of.Process:
    """The process that runs the device, a new one where none does or where its sshd is deaf."""
    if before is not None:
        if process_of.answers(before) or process_of.answers(before):
            return before
        report(Event("emulate", f"{system.name} runs but does not answer at port {before.port}: starting it anew"))
        process_of.stop(before)
    last = process_of.read_state(places) or before
    report(Event("emulate", f"{system.name}: starting its sshd"))
    process = process_of.start(system, places, last.port if last else None)
    write_access(system, places, process.port)
    if last is not None and last.port != process.port:
        report(
            Event("emulate", f"{system.name}: port {last.port} is taken by another program; it is {process.port} now")
        )
    return process


def _planned(system: System, places: Places, mirror: str | None) -> EmulateStartDocument:
    commands = []
    if mirror is not None:
        command = making.debootstrap_command(system, mirror, places.making / "root", places.packages)
        commands.append(shlex.join(making.alone(command)))
    process = process_of.running(places)
    if process is None:
        last = process_of.read_state(places)
        commands.append(shlex.join(process_of.command(system, places, last.port if last else "PORT")))
    return EmulateStartDocument(
        name=system.name,
        device=system.name,
        ssh_config=str(places.ssh_config),
        port=process.port if process else None,
        made=False,
        already_running=process is not None,
        seconds=0.0,
        commands=tuple(commands),
    )


@contextlib.contextmanager
def _locked(system: System, places: Places, report: Reporter | None = None) -> Iterator[None]:
    """Hold the device's lock. With ``report``, whoever holds it is waited for; else LockedError "emulated-locked"."""
    deadline = time.monotonic() + (_LOCK_TIMEOUT_S if report else 0.0)
    told = False
    with places.lock.open("a+") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LockedError(
                        "emulated-locked",
                        f"Another edgepack is at work on {system.name}.",
                        hint="Wait until it is done, then run the command again.",
                    ) from None
            if report and not told:
                report(Event("emulate", f"{system.name}: another edgepack is at work on it; waiting for that"))
                told = True
            time.sleep(_LOCK_PAUSE_S)
        yield


def _bytes(folder: str) -> int:
    """What a folder takes on the disk; nothing of other file systems, and nothing where it is not there."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                told = entry.stat(follow_symlinks=False)
                total += told.st_blocks * 512
                if entry.is_dir(follow_symlinks=False) and not os.path.ismount(entry.path):
                    total += _bytes(entry.path)
    return total
