"""The user's ssh configuration for one host, as ``ssh -G`` tells it.

OpenSSH's own program reads its configuration (Include, Match, tokens, precedence) better than anybody who imitates it.
Where there is no such program, OpenSSH's defaults are used.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgepack.device.address import DeviceAddress
from edgepack.device.options import ConnectOptions
from edgepack.errors import InputError

# Match exec in a configuration may run programs; a hanging one must not hang us.
_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class SshPlace:
    """Where and as whom to log in. ``proxy_jump`` lists the hops, the nearest first; tokens are expanded everywhere."""

    host: str
    port: int
    user: str
    identity_files: tuple[Path, ...]
    user_known_hosts: tuple[Path, ...]
    global_known_hosts: tuple[Path, ...]
    identities_only: bool = False
    identity_agent: str | None = None
    host_key_alias: str | None = None
    hash_known_hosts: bool = False
    proxy_jump: tuple[str, ...] = ()
    proxy_command: str | None = None

    @property
    def known_hosts(self) -> tuple[Path, ...]:
        """Every file of host keys, the one to write to first."""
        return self.user_known_hosts + self.global_known_hosts


def resolve(address: DeviceAddress, options: ConnectOptions) -> SshPlace:
    """What the user's configuration says about an address; ``options`` win over it.

    Raises InputError "bad-ssh-config" with ssh's own words where the configuration cannot be read.
    """
    settings = _ask_ssh(address, options)
    place = parse_settings(settings, address)
    identity, known_hosts = options.identity, options.known_hosts
    changes: dict[str, object] = {}
    if identity is not None:
        if not identity.expanduser().is_file():
            raise InputError(
                "no-identity",
                f"There is no private key {identity}.",
                hint="Name one with -i, or make one: ssh-keygen -t ed25519",
            )
        changes["identity_files"] = (identity.expanduser(), *place.identity_files)
    if known_hosts is not None:
        changes |= {"user_known_hosts": (known_hosts.expanduser(),), "global_known_hosts": ()}
    if not changes:
        return place
    import dataclasses

    return dataclasses.replace(place, **changes)  # type: ignore[arg-type]


def parse_settings(text: str, address: DeviceAddress) -> SshPlace:
    """An :class:`SshPlace` from what ``ssh -G`` printed, with OpenSSH's defaults for what is missing."""
    settings: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        settings.setdefault(key.lower(), []).append(value.strip())

    def one(key: str) -> str | None:
        value = settings.get(key, [""])[0]
        return value if value and value.lower() != "none" else None

    account = _account()
    host = one("hostname") or address.host
    port = int(one("port") or address.port or 22)
    user = one("user") or address.user or account.name
    jump = one("proxyjump")
    tokens = {
        "%": "%",
        "d": account.home,
        "h": host,
        "i": str(os.getuid()),
        "j": jump or "",
        "k": one("hostkeyalias") or address.host,
        "L": os.uname().nodename.partition(".")[0],
        "l": os.uname().nodename,
        "n": address.host,
        "p": str(port),
        "r": user,
        "u": account.name,
    }

    def paths(values: list[str]) -> tuple[Path, ...]:
        named = (value for value in values if value and value.lower() != "none")
        return tuple(Path(_home(expand(value, tokens), account.home)) for value in named)

    ssh = f"{account.home}/.ssh"
    identities = settings.get("identityfile") or [f"{ssh}/id_{kind}" for kind in ("rsa", "ecdsa", "ed25519")]
    user_files = settings.get("userknownhostsfile") or [f"{ssh}/known_hosts {ssh}/known_hosts2"]
    global_files = settings.get("globalknownhostsfile") or ["/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"]
    command, agent = one("proxycommand"), settings.get("identityagent", [""])[0]
    return SshPlace(
        host=host,
        port=port,
        user=user,
        identity_files=paths(identities),
        user_known_hosts=paths(_split_paths(user_files[0])),
        global_known_hosts=paths(_split_paths(global_files[0])),
        identities_only=one("identitiesonly") == "yes",
        identity_agent=_home(expand(agent, tokens), account.home) if agent else None,
        host_key_alias=one("hostkeyalias"),
        hash_known_hosts=one("hashknownhosts") == "yes",
        proxy_jump=tuple(hop for hop in (jump or "").split(",") if hop),
        proxy_command=expand(command, tokens) if command else None,
    )


def expand(text: str, tokens: dict[str, str]) -> str:
    """``text`` with its percent tokens (ssh_config(5), TOKENS) replaced; unknown ones stay as they are."""
    parts, rest = [], text
    while "%" in rest:
        before, _, rest = rest.partition("%")
        key, rest = rest[:1], rest[1:]
        parts += [before, tokens.get(key, f"%{key}")]
    return "".join(parts) + rest


def _ask_ssh(address: DeviceAddress, options: ConnectOptions) -> str:
    program = shutil.which("ssh")
    if program is None:
        if options.ssh_config is not None:
            raise InputError(
                "no-ssh-program",
                "--ssh-config is read by the ssh program, which this machine lacks.",
                hint="Install it (Debian: sudo apt install openssh-client), or write user@host:port and -i instead.",
            )
        return ""
    argv = [program, "-G"]
    argv += ["-F", str(options.ssh_config.expanduser())] if options.ssh_config else []
    argv += ["-p", str(address.port)] if address.port is not None else []
    argv += ["-l", address.user] if address.user else []
    try:
        done = subprocess.run(
            [*argv, "--", address.host], stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            "bad-ssh-config",
            f"Reading the ssh configuration for {address} took longer than {_TIMEOUT_S:.0f} s.",
            hint=f"Look at what `ssh -G {address.host}` waits for: a Match exec line.",
        ) from None
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip() or f"ssh -G ended with {done.returncode}"
        raise InputError(
            "bad-ssh-config",
            f"The ssh configuration for {address} cannot be read: {words}",
            hint="Mend the file that it names, or name another with --ssh-config.",
        )
    return done.stdout.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    home: str


def _account() -> _Account:
    """Who runs this. ssh takes both from the account database, and so do we where it has an entry."""
    try:
        entry = pwd.getpwuid(os.getuid())
        return _Account(entry.pw_name, entry.pw_dir)
    except KeyError:
        return _Account(os.environ.get("USER", "root"), str(Path("~").expanduser()))


def _home(path: str, home: str) -> str:
    return home + path[1:] if path == "~" or path.startswith("~/") else path


def _split_paths(value: str) -> list[str]:
    """The files of a list that ``ssh -G`` printed: with blanks between, and no quotes around a name with blanks."""
    return [value] if Path(value).exists() else value.split()
