"""manifest.json: what a bundle is and holds. Parsing and writing are pure; the bytes are canonical.

The release id is ``<version>-<first 12 hex digits of the manifest's SHA-256>``: since the manifest holds every file's
size and digest, the id stands for the whole content.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgepack.bundle.fields import array, size, table, text
from edgepack.bundledocuments import FileEntry
from edgepack.errors import InputError, IntegrityError, MisfitError
from edgepack.jsonvalues import canonical_json, nests_deeper
from edgepack.target import Platform

SCHEMA = 1
MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.json.sig"
"""Beside the manifest, and so outside of what it lists: the release id is the same with and without it."""
MODEL_NAME = "model.tflite"
CHECK_SET_NAME = "check.npz"
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILES = 10_000
MAX_LEVELS = 32
"""How deep a manifest nests at most; what edgepack writes has six levels."""
MAX_COUNTER = (1 << 32) - 2
MAX_FILE_BYTES = (1 << 32) - 2
"""What a ZIP without the zip64 extension can hold, and no more: one way to write a size, nothing to lie about."""

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*){0,7}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """The model inside the bundle."""

    file: str
    scheme: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class RuntimeNeed:
    """What a platform runs the model with.

    ``id`` names the set of ``wheels`` (paths inside the bundle), None where the bundle carries none; ``numpy`` is a
    version specifier (PEP 440) that the device's NumPy has to meet. ``enough`` are the runtimes that do as well where
    the device has them (package → lowest version); None where nobody held the model against others.
    """

    id: str | None
    package: str
    version: str
    wheels: tuple[str, ...]
    numpy: str
    enough: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class PlatformNeed:
    """One platform that the bundle is for, and its runtime."""

    platform: Platform
    runtime: RuntimeNeed


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of manifest.json; ``extra`` keeps top-level fields that a newer edgepack wrote.

    ``counter`` orders the releases of an app: a device that is pinned (docs/security.md) takes no lower one again.
    ``contents`` is what the model is to a person (:mod:`edgepack.bundle.contents`), so that nobody has to parse it.
    ``records`` is the SHA-256 of each wheel's own RECORD, by the wheel's path: by it a pinned device knows an unpacked
    runtime again. None where there are no wheels.
    """

    name: str
    version: str
    target: Mapping[str, Any]
    model: ModelEntry
    platforms: tuple[PlatformNeed, ...]
    files: tuple[FileEntry, ...]
    provenance: Mapping[str, Any] | None = None
    counter: int | None = None
    contents: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    records: Mapping[str, str] | None = None


def check_label(value: str, what: str) -> str:
    """``value`` if it can name an app or a version; else :class:`InputError` that says what can."""
    if not _LABEL.fullmatch(value):
        raise InputError(
            f"bad-{what}",
            f"{value!r} cannot be the {what} of a bundle.",
            hint="Use 1 to 64 letters, digits and . _ + - , beginning with a letter or digit.",
        )
    return value


def safe_path(path: str) -> bool:
    """Whether a path may stand in a bundle: relative, plain ASCII, no dot files, no way out."""
    return len(path) <= 200 and _PATH.fullmatch(path) is not None


def runtime_id(wheels: Mapping[str, str]) -> str | None:
    """The name of a set of wheels (file name → SHA-256): 16 hex digits over the sorted lines; None for no wheels."""
    if not wheels:
        return None
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(wheels.items()))
    return hashlib.sha256(lines.encode("ascii")).hexdigest()[:16]


def release_id(manifest_bytes: bytes, version: str) -> str:
    """``<version>-<12 hex digits>``."""
    return f"{version}-{hashlib.sha256(manifest_bytes).hexdigest()[:12]}"


def serialize(manifest: Manifest) -> bytes:
    """The canonical bytes of manifest.json."""
    value = (
        dict(manifest.extra)
        | {
            "schema": SCHEMA,
            "name": manifest.name,
            "version": manifest.version,
            "target": manifest.target,
            "model": {key: getattr(manifest.model, key) for key in ModelEntry.__slots__},
            "platforms": [
                need.platform.to_json() | {"runtime": _runtime_json(need.runtime)} for need in manifest.platforms
            ],
            "files": [{"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in manifest.files],
            "provenance": manifest.provenance,
            "counter": manifest.counter,
        }
        | ({} if manifest.contents is None else {"contents": manifest.contents})
        | ({} if manifest.records is None else {"records": manifest.records})
    )
    return canonical_json(value)


def _runtime_json(runtime: RuntimeNeed) -> dict[str, Any]:
    """The plain values; ``enough`` stands only where it is known."""
    value = {key: getattr(runtime, key) for key in RuntimeNeed.__slots__ if key != "enough"}
    return value | {"wheels": list(runtime.wheels)} | ({} if runtime.enough is None else {"enough": runtime.enough})


def parse(content: bytes) -> Manifest:
    """The manifest of those bytes.

    Raises :class:`IntegrityError` "bad-manifest" where they are not canonical or say what cannot be, and
    :class:`MisfitError` "newer-bundle" where a later edgepack wrote a schema that this one does not know.
    """
    value = _canonical_value(content)
    schema = value.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise MisfitError(
            "newer-bundle",
            f"The bundle's manifest has schema {schema}; this edgepack knows schema {SCHEMA}.",
            hint="Update edgepack: python -m pip install --upgrade edgepack",
        )
    try:
        manifest = _build(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise bad_manifest(f"a field is missing or of the wrong kind ({error})") from error
    fault = _fault(manifest, schema)
    if fault:
        raise bad_manifest(fault)
    return manifest


def bad_manifest(fault: str) -> IntegrityError:
    """The error of a manifest that cannot be trusted."""
    return IntegrityError(
        "bad-manifest",
        f"The bundle's manifest is damaged: {fault}.",
        hint="Copy the bundle again, or make it anew with `edgepack bundle`.",
    )


def _canonical_value(content: bytes) -> dict[str, Any]:
    if len(content) > MAX_MANIFEST_BYTES:
        raise bad_manifest("it is larger than 1 MiB")
    try:
        value = json.loads(content.decode("utf-8"))
        if nests_deeper(value, MAX_LEVELS):
            raise bad_manifest(f"it nests deeper than {MAX_LEVELS} levels")
        canonical = canonical_json(value)
    except (ValueError, RecursionError) as error:
        raise bad_manifest("it is no plain JSON") from error
    if not isinstance(value, dict) or canonical != content:
        raise bad_manifest("it is not written in the canonical form")
    return value


def _build(value: dict[str, Any]) -> Manifest:
    value = dict(value)
    value.pop("schema")
    model = value.pop("model")
    platforms = value.pop("platforms")
    files = value.pop("files")
    return Manifest(
        name=text(value.pop("name")),
        version=text(value.pop("version")),
        target=table(value.pop("target")),
        model=ModelEntry(
            text(model["file"]), text(model["scheme"]), size(model["bytes"], MAX_FILE_BYTES), text(model["sha256"])
        ),
        platforms=tuple(_platform_need(entry) for entry in array(platforms)),
        files=tuple(
            FileEntry(text(file["path"]), size(file["bytes"], MAX_FILE_BYTES), text(file["sha256"]))
            for file in array(files)
        ),
        provenance=None if (provenance := value.pop("provenance")) is None else table(provenance),
        counter=None if (counter := value.pop("counter")) is None else size(counter, MAX_COUNTER),
        contents=table(value.pop("contents")) if "contents" in value else None,
        records=_texts(value.pop("records")) if "records" in value else None,
        extra=value,
    )


def _platform_need(entry: Any) -> PlatformNeed:
    runtime = entry["runtime"]
    return PlatformNeed(
        platform=Platform(text(entry["python"]), text(entry["arch"]), text(entry["libc"])),
        runtime=RuntimeNeed(
            id=None if runtime["id"] is None else text(runtime["id"]),
            package=text(runtime["package"]),
            version=text(runtime["version"]),
            wheels=tuple(text(wheel) for wheel in array(runtime["wheels"])),
            numpy=text(runtime["numpy"]),
            enough=_texts(runtime["enough"]) if "enough" in runtime else None,
        ),
    )


def _texts(value: Any) -> dict[str, str]:
    return {name: text(said) for name, said in table(value).items()}


def _fault(manifest: Manifest, schema: object) -> str:
    """What the manifest says that cannot be; empty where all is well."""
    if schema != SCHEMA or isinstance(schema, bool):
        return "its schema is none that there ever was"
    if not _LABEL.fullmatch(manifest.name) or not _LABEL.fullmatch(manifest.version):
        return "its name or version is malformed"
    return _files_fault(manifest.files) or _references_fault(manifest)


def _files_fault(files: tuple[FileEntry, ...]) -> str:
    if len(files) >= MAX_FILES:
        return f"it lists more than {MAX_FILES} files"
    paths = [file.path for file in files]
    for file in files:
        if not safe_path(file.path) or file.path in (MANIFEST_NAME, SIGNATURE_NAME):
            return f"the path {file.path!r} is not allowed"
        if not _DIGEST.fullmatch(file.sha256):
            return f"{file.path} has no SHA-256"
    if paths != sorted(paths) or len({path.casefold() for path in paths}) < len(paths):
        return "its files are not in order, or two have the same name"
    folders = {path[: match.start()].casefold() for path in paths for match in re.finditer("/", path)}
    if folders & {path.casefold() for path in paths}:
        return "a file has the name of a folder"
    return ""


def _references_fault(manifest: Manifest) -> str:
    files = {file.path: file for file in manifest.files}
    model = files.get(manifest.model.file)
    if manifest.model.file != MODEL_NAME or model is None:
        return f"it lists no {MODEL_NAME}"
    if (model.bytes, model.sha256) != (manifest.model.bytes, manifest.model.sha256):
        return "it names two different models"
    for need in manifest.platforms:
        if any(not wheel.startswith("wheels/") or wheel not in files for wheel in need.runtime.wheels):
            return f"a wheel for {need.platform.label} is not among its files"
        digests = {wheel.removeprefix("wheels/"): files[wheel].sha256 for wheel in need.runtime.wheels}
        if need.runtime.id != runtime_id(digests):
            return f"the runtime id for {need.platform.label} does not fit its wheels"
    return _records_fault(manifest)


def _records_fault(manifest: Manifest) -> str:
    if manifest.records is None:
        return ""
    if set(manifest.records) != {file.path for file in manifest.files if file.path.startswith("wheels/")}:
        return "its records are not those of its wheels"
    odd = [path for path, sha256 in manifest.records.items() if not _DIGEST.fullmatch(sha256)]
    return f"{odd[0]} has no SHA-256 of its RECORD" if odd else ""
