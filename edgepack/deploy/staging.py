"""What a push has to do, as values: pure functions of a bundle's manifest and of a device's facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from edgepack.bundle import RuntimeChoice, choose_runtime
from edgepack.bundle.manifest import MANIFEST_NAME
from edgepack.documents import FileEntry
from edgepack.target.refusal import Surroundings

if TYPE_CHECKING:
    from edgepack.bundle import Bundle
    from edgepack.device import DeviceFacts

SCHEMA = 1
_WHEELS = "wheels/"


@dataclass(frozen=True, slots=True)
class Piece:
    """What is missing of one file of the bundle: its bytes from ``offset`` on."""

    path: str
    bytes: int
    sha256: str
    offset: int


@dataclass(frozen=True, slots=True)
class Staging:
    """A release on one device: the files of its folder, and the wheels of its runtime where the device needs some.

    ``op`` is the id of the operation that commits it, the same however often it has to be tried. ``shown`` is the
    manifest's text for a pinned device, which says before anything is sent whether it would take it.
    """

    app: str
    release: str
    files: tuple[FileEntry, ...]
    wheels: tuple[FileEntry, ...]
    runtime: RuntimeChoice
    device: Mapping[str, str]
    signature: str | None = None
    op: str = ""
    shown: str | None = None

    @property
    def bytes(self) -> int:
        """The bytes of every file that the release needs on this device, its runtime's wheels included."""
        return sum(file.bytes for file in _once(self.files + self.wheels))

    @property
    def fit(self) -> str:
        """For people: what the release will run with there."""
        brought = ", ".join(" ".join(_wheel_name(wheel)) for wheel in self.wheels)
        own = ", ".join(self.runtime.use_installed)
        parts = [f"brings {brought}" if brought else "", f"uses the device's own {own}" if own else ""]
        return "; ".join(part for part in parts if part)

    def missing_arguments(self) -> dict[str, Any]:
        """The arguments of the agent's ``missing``."""
        shown = {"release": self.release, "manifest": self.shown, "signature": self.signature}
        return {
            "app": self.app,
            "files": [{"sha256": file.sha256, "bytes": file.bytes} for file in _once(self.files + self.wheels)],
            "runtime": None if not self.wheels else self._runtime() if self.shown else {"id": self.runtime.runtime_id},
            **({} if self.shown is None else shown),
        }

    def commit_arguments(self) -> dict[str, Any]:
        """The arguments of the agent's ``commit``."""
        return {
            "op": self.op,
            "app": self.app,
            "release": self.release,
            "files": [{"path": file.path, "sha256": file.sha256, "bytes": file.bytes} for file in self.files],
            "runtime": self._runtime() if self.wheels else None,
            "device": self.device_json(),
            "signature": self.signature,
        }

    def _runtime(self) -> dict[str, Any]:
        return {"id": self.runtime.runtime_id, "wheels": [_wheel(wheel) for wheel in self.wheels]}

    def device_json(self) -> dict[str, Any]:
        """The content of device.json: what was chosen on this device; the agent adds the interpreter."""
        return {
            "schema": SCHEMA,
            "platform": dict(self.device),
            "runtime": {
                "package": self.runtime.package,
                "version": self.runtime.version,
                "id": self.runtime.runtime_id,
                "dists": [_dist(wheel) for wheel in self.wheels],
                "installed": list(self.runtime.use_installed),
            },
        }

    def lacking(self, have: Mapping[str, int], *, runtime_present: bool) -> tuple[Piece, ...]:
        """What has to be sent: ``have`` tells, by SHA-256, how many bytes of a file the device already holds.

        A file with the same content as another is sent once; the wheels of a runtime that is there are not sent at all.
        """
        wanted = _once(self.files + (() if runtime_present else self.wheels))
        pieces = (Piece(file.path, file.bytes, file.sha256, _held(have, file)) for file in wanted)
        # An empty file is always "whole", also where it is not there: it costs nothing to send it.
        return tuple(piece for piece in pieces if piece.offset < piece.bytes or piece.bytes == 0)


def plan_staging(bundle: Bundle, facts: DeviceFacts) -> Staging:
    """The staging of a bundle on the device with those facts. Raises MisfitError where the two do not fit together."""
    manifest = bundle.manifest
    around = Surroundings(facts.executable, facts.machine, facts.pythons)
    choice = choose_runtime(manifest, facts.platform, facts.installed, around)
    content = bundle.manifest_bytes
    own = FileEntry(MANIFEST_NAME, len(content), sha256(content).hexdigest())
    by_path = {file.path: file for file in manifest.files}
    return Staging(
        app=manifest.name,
        release=bundle.release,
        files=(own, *(file for file in manifest.files if not file.path.startswith(_WHEELS))),
        wheels=tuple(by_path[wheel] for wheel in choice.wheels),
        runtime=choice,
        device=facts.platform.to_json(),
        signature=None if bundle.signature is None else bundle.signature.decode("ascii"),
    )


def _held(have: Mapping[str, int], file: FileEntry) -> int:
    """How many bytes the device holds, kept within what there can be."""
    held = have.get(file.sha256, 0)
    return min(max(held, 0), file.bytes) if isinstance(held, int) else 0


def _once(files: tuple[FileEntry, ...]) -> tuple[FileEntry, ...]:
    """The first file of each content."""
    return tuple({file.sha256: file for file in reversed(files)}.values())[::-1]


def _wheel(file: FileEntry) -> dict[str, Any]:
    return {
        "filename": file.path.removeprefix(_WHEELS),
        "sha256": file.sha256,
        "bytes": file.bytes,
        "dist": _dist(file),
    }


def _wheel_name(wheel: FileEntry) -> tuple[str, str]:
    """Distribution and version: what stands before the first two dashes of a wheel's file name (PEP 427)."""
    dist, version = wheel.path.removeprefix(_WHEELS).split("-")[:2]
    return dist, version


def _dist(wheel: FileEntry) -> str:
    return _wheel_name(wheel)[0]
