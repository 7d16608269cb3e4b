"""How to log in to an emulated device: an ssh configuration with its key and its pinned host key."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgepack.device.emulated.running import ADDRESS
from edgepack.device.emulated.systems import USER, Places, System
from edgepack.files import write_whole


def write_access(system: System, places: Places, port: int) -> None:
    """Write the device's ``known_hosts`` and ``ssh_config`` for the port that it has now."""
    kind, key = (places.folder / "host_key.pub").read_text().split()[:2]
    write_whole(places.known_hosts, f"[{ADDRESS}]:{port} {kind} {key}\n")
    write_whole(places.ssh_config, ssh_config(system, places, port))
    give_to_sudoer((places.key, places.known_hosts, places.ssh_config))


def give_to_sudoer(paths: Iterable[Path], environment: Mapping[str, str] = os.environ) -> None:
    """Under sudo, make these the files of whoever called it: that user logs in to the device, without root."""
    user, group = (environment.get(name, "") for name in ("SUDO_UID", "SUDO_GID"))
    if user.isdecimal() and group.isdecimal() and os.geteuid() == 0:
        for path in paths:
            os.chown(path, int(user), int(group))


def ssh_config(system: System, places: Places, port: int) -> str:
    """The text of a file for ``ssh -F``, in which the device goes by its name or its address; pure."""
    return (
        f"# {system.name}, written by edgepack emulate start\n"
        f"Host {system.name} {ADDRESS}\n"
        f"    HostName {ADDRESS}\n"
        f"    Port {port}\n"
        f"    User {USER}\n"
        f"    IdentityFile {_quoted(places.key)}\n"
        "    IdentitiesOnly yes\n"
        f"    UserKnownHostsFile {_quoted(places.known_hosts)}\n"
        "    StrictHostKeyChecking yes\n"
    )


def _quoted(path: Path) -> str:
    """A path as ssh_config(5) takes it: quotes for blanks, and a percent sign that begins no token."""
    return '"' + str(path).replace("%", "%%") + '"'
