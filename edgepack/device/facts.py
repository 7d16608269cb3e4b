"""What a device said about itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from edgepack.target import Platform


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
        """The facts in a ``hello`` or ``probe`` result."""
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
