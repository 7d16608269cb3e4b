"""What a device said about itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from edgepack.target import Platform


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _MOST_CHARACTERS


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) <= _MOST_ENTRIES and all(map(_text, value))


def _text_table(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) <= _MOST_ENTRIES and all(map(_text, (*value, *value.values())))


def _supplies(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) <= _MOST_ENTRIES and all(map(_text_table, value))


def _zones(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) <= _MOST_ENTRIES
        and all(isinstance(zone, Mapping) and _degrees(zone.get("temperature_c")) for zone in value)
    )


def _degrees(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and abs(value) < 1e6)  # neither NaN nor infinity


_MOST_CHARACTERS = 4096
_MOST_ENTRIES = 2000

_KINDS: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(
        ("python", "arch", "libc", "executable", "machine", "system", "release", "os", "hostname", "model", "home",
         "throttled_source", "governor"), _text,
    ),
    "umask": lambda value: _text(value) or _whole(value),
    **dict.fromkeys(("cpus", "memory_bytes", "memory_available_bytes", "disk_free_bytes"), _whole),
    **dict.fromkeys(("cpu_features", "delegates", "pythons"), _texts),
    **dict.fromkeys(("installed", "python_versions", "delegate_paths"), _text_table),
    **dict.fromkeys(("emulated", "undervoltage"), _flag),
    "thermal": _zones,
    "power": _supplies,
}  # fmt: skip


def sound_facts(facts: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What a device told, without what is of another kind than it should be, and a note on each of those.

    A device is not believed to speak the truth, only not to crash whoever asks it. Facts that a newer agent adds stay.
    """
    if not isinstance(facts, Mapping):
        return {}, ["the device told nothing about itself"]
    odd = [name for name, kind in _KINDS.items() if facts.get(name) is not None and not kind(facts[name])]
    kept = {str(name): None if name in odd else value for name, value in facts.items()}
    return kept, [f"{name}: the device told something else than it should" for name in odd]


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceFacts:
    """The agent's ``facts``, typed. What the agent did not say is None or empty; what a newer one adds is in ``extra``.

    ``arch`` is that of the userland ("aarch64", "armv7l", "x86_64"), which is what wheels are chosen by; ``machine`` is
    the kernel's word for it. Sizes in bytes. ``installed`` maps distributions (numpy, tflite-runtime, ai-edge-litert)
    to versions, ``python_versions`` the paths of ``pythons`` (those beside this one) to versions, as far as a probe
    asked.
    """

    python: str
    arch: str
    libc: str
    executable: str = ""
    machine: str = ""
    system: str = ""
    release: str = ""
    os: str = ""
    hostname: str = ""
    model: str | None = None
    cpus: int | None = None
    cpu_features: tuple[str, ...] = ()
    memory_bytes: int | None = None
    memory_available_bytes: int | None = None
    disk_free_bytes: int | None = None
    home: str = ""
    umask: str | int | None = None
    installed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    delegates: tuple[str, ...] = ()
    throttled_source: str | None = None
    emulated: bool = False
    pythons: tuple[str, ...] = ()
    python_versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> DeviceFacts:
        """The facts in a ``hello`` or ``probe`` result; what is of another kind than it should be is not known."""
        facts, _ = sound_facts(facts)
        names = {field.name for field in dataclasses.fields(cls)} - {"extra"}
        known = {name: facts[name] for name in names & facts.keys()}
        for name in ("cpu_features", "delegates", "pythons"):
            known[name] = tuple(known.get(name) or ())
        for name in ("installed", "python_versions"):
            known[name] = dict(known.get(name) or {})
        for name in ("python", "arch", "libc", "machine", "os"):
            known[name] = str(known.get(name) or "")
        return cls(**known, extra={name: value for name, value in facts.items() if name not in names})

    @property
    def platform(self) -> Platform:
        """The platform that a runtime is chosen for: "3.11", "aarch64", "glibc-2.36"."""
        return Platform(python=".".join(self.python.split(".")[:2]), arch=self.arch, libc=self.libc)

    @property
    def kernel_bits(self) -> int | None:
        """Word size of the kernel, where it can be told: a 64-bit one may carry a 32-bit system."""
        return {"aarch64": 64, "x86_64": 64, "armv7l": 32, "armv6l": 32, "i686": 32}.get(self.machine)

    @property
    def userland_bits(self) -> int | None:
        """Word size of the Python that answered, and so of the wheels that it can load."""
        return {"aarch64": 64, "x86_64": 64, "armv7l": 32, "armv6l": 32, "i686": 32}.get(self.arch)
