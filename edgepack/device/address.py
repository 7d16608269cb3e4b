"""A device's address, as a person writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edgepack.errors import InputError

_SHAPES = "user@host, user@host:port, an alias of ~/.ssh/config, ssh://user@host:port, local: or local:/some/root"
# What no device is called; who names such a file forgot the device, or took one argument for the other.
_FILES = (".edgepack", ".tflite", ".npz", ".keras", ".h5", ".json", ".toml")
# What a host, an alias or a user may not hold: blanks and control characters (they end up in messages and in ssh's
# argument vector), quotes, and whatever a shell takes for more than itself: a ProxyCommand of the user's may name them.
_FORBIDDEN = re.compile(r"[\s\x00-\x1f\x7f'\"\\<>|;&$`(){}*?!#]")


@dataclass(frozen=True, slots=True)
class DeviceAddress:
    """Where a device is: over SSH, or this machine itself.

    ``host`` is a name, an IP address (IPv6 without brackets) or an alias of the user's ssh configuration; ``user`` and
    ``port`` are None where the ssh configuration or its defaults decide. ``root`` is set by ``local:/some/root`` only:
    the edgepack folder to use on this machine. ``str()`` gives an address that :meth:`parse` reads back to the same
    value.
    """

    kind: Literal["ssh", "local"]
    host: str = ""
    user: str | None = None
    port: int | None = None
    root: str | None = None

    @classmethod
    def parse(cls, text: str) -> DeviceAddress:
        """The address that ``text`` writes; InputError "bad-address" where it writes none."""
        if text.startswith("local:"):
            return cls(kind="local", root=_local_root(text))
        scheme, marked, _ = text.partition("://")
        if marked and scheme != "ssh":
            raise _bad(text, f"it is a {scheme} address, and devices are reached over SSH")
        if text.endswith(_FILES):
            raise _bad(text, "it is the name of a file")
        rest = text.removeprefix("ssh://")
        if rest is not text and text.startswith("ssh://"):
            rest = rest.removesuffix("/")
        user, at, place = rest.rpartition("@")
        host, port = _split_port(place, text)
        if scheme == "ssh" and marked and ":" in host:
            host = host.replace("%25", "%", 1)  # how a URL writes the zone of an IPv6 address (RFC 6874)
        if at and not user:
            raise _bad(text, "nothing stands before the @")
        for part, value in (("user", user), ("host", host)):
            if _FORBIDDEN.search(value):
                raise _bad(text, f"the {part} holds a character that no {part} has")
            if value.startswith("-"):
                raise _bad(text, f"the {part} begins with a dash")
        if not host:
            raise _bad(text, "it names no host")
        return cls(kind="ssh", host=host, user=user or None, port=port)

    @property
    def ssh_words(self) -> str:
        """The address as ssh and ssh-copy-id take it, which know no ``host:port``: ``-p 2222 pi@board``."""
        port = f"-p {self.port} " if self.port is not None else ""
        return f"{port}{self.user}@{self.host}" if self.user else f"{port}{self.host}"

    def __str__(self) -> str:
        if self.kind == "local":
            return f"local:{self.root or ''}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port is not None else ""
        return f"{user}{host}{port}"


def ssh_words(text: str) -> str:
    """:attr:`DeviceAddress.ssh_words` of an address as text; what is none stays as it is."""
    try:
        return DeviceAddress.parse(text).ssh_words
    except InputError:
        return text


def _local_root(text: str) -> str | None:
    root = text.removeprefix("local:")
    if not root:
        return None
    if not root.startswith(("/", "~/")) or "\x00" in root or "\n" in root:
        raise _bad(text, "the folder after local: has to begin with / or ~/")
    return root


def _split_port(place: str, text: str) -> tuple[str, int | None]:
    """Host and port of ``host``, ``host:port``, ``[v6]``, ``[v6]:port`` or a bare IPv6 address."""
    if place.startswith("["):
        host, closed, after = place[1:].partition("]")
        if not closed or (after and not after.startswith(":")) or ":" not in host:
            raise _bad(text, "brackets hold an IPv6 address, a port comes after them and a colon")
        return host, _port(after[1:], text) if after else None
    if place.count(":") > 1:
        return place, None
    host, colon, digits = place.partition(":")
    return host, _port(digits, text) if colon else None


def _port(digits: str, text: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and 1 <= int(digits) <= 65535):
        raise _bad(text, f"{digits!r} is no port, which is a number from 1 to 65535")
    return int(digits)


def _bad(text: str, why: str) -> InputError:
    return InputError("bad-address", f"{text!r} is no device's address: {why}.", hint=f"Write {_SHAPES}.", address=text)
