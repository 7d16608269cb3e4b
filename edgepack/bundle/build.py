"""Making a bundle: the same model, check set, options and runtimes.lock give the same bytes, on any machine and day.

A signed bundle's bytes depend on the key as well, and on nothing else where the key is Ed25519 or RSA; an ECDSA key and
a key in hardware (sk) sign differently every time. The release id never depends on the signature.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgepack.bundle.archive import is_bundle, open_bundle, write_archive
from edgepack.bundle.checkset import read_headers
from edgepack.bundle.contents import describe_model
from edgepack.bundle.inspection import document
from edgepack.bundle.manifest import (
    MAX_COUNTER,
    MAX_MANIFEST_BYTES,
    MODEL_NAME,
    Manifest,
    ModelEntry,
    PlatformNeed,
    RuntimeNeed,
    check_label,
    runtime_id,
    serialize,
)
from edgepack.bundle.misfit import no_wheel
from edgepack.bundle.recipe import RECIPE_NAME, make_recipe
from edgepack.bundle.signature import require_key, sign
from edgepack.bundle.wheelfile import record_sha256
from edgepack.bundle.wheels import fetch_wheels, folder_wheels
from edgepack.bundledocuments import BundleDocument, FileEntry
from edgepack.digest import sha256_file
from edgepack.errors import InputError
from edgepack.events import Event, Reporter, ignore_events
from edgepack.files import check_output
from edgepack.jsonvalues import canonical_json
from edgepack.target import Platform, Scheme, Target
from edgepack.target.lock import shipped_wheels
from edgepack.target.solver import NUMPY_FOR, RuntimeOption, own_runtime, runtime_options
from edgepack.tflite import Tensor, TfliteModel, buffer_regions, read_model

DEVICE_FILES = ("loader.py", "edgepack_device.py")
_MAX_PROVENANCE_BYTES = 256 * 1024


def build_bundle(
    model: Path,
    *,
    target: Target,
    name: str,
    version: str,
    output: Path,
    platforms: Sequence[Platform] | None = None,
    runtimes: Sequence[RuntimeOption] | None = None,
    with_runtime: bool = True,
    wheels: Path | None = None,
    extra_indexes: Sequence[str] = (),
    counter: int | None = None,
    sign_key: Path | None = None,
    report: Reporter = ignore_events,
) -> BundleDocument:
    """Bundle a .tflite with its loader, its check set and provenance (where ``quantize`` left them) and its runtimes.

    ``runtimes`` is what each platform gets; without it, the first of :func:`bundle_options` for each of ``platforms``
    (or the target's). ``wheels`` is a folder that they are taken from instead of an index, ``extra_indexes`` are asked
    beside the usual one; ``with_runtime=False`` leaves them out. ``counter`` goes into the manifest, and so into the
    release id; the signature by ``sign_key`` lies beside it. Nothing is at ``output`` before the bundle is whole.
    Raises :class:`InputError` for the model, the names, the wheels and the key, :class:`MisfitError` where there is no
    runtime for a platform.
    """
    check_label(name, "name")
    check_label(version, "version")
    _check_counter(counter)
    if sign_key is not None:
        require_key(sign_key)
    check_bundle_output(output, model)
    report(Event("bundle", "reading the model"))
    described = read_model(model)
    scheme = observed_scheme(described.tensors)
    _check_check_set(model, described)
    provenance = _provenance(model)
    if runtimes is None:
        chosen = target.platforms if platforms is None else platforms
        options = bundle_options(target, chosen, wheels=wheels, with_runtime=with_runtime)
        runtimes = [ordered[0] for ordered in options]
    shipped = [wheel for need in runtimes for wheel in need.wheels] if with_runtime else []
    fetched = fetch_wheels(shipped, folder=wheels, extra_indexes=extra_indexes, report=report)
    report(Event("bundle", "computing digests"))
    sources = _sources(model, fetched)
    entries = {path: _entry(path, source) for path, source in sorted(sources.items())}
    manifest = Manifest(
        name=name,
        version=version,
        target=target.to_json(),
        model=ModelEntry(MODEL_NAME, str(scheme), entries[MODEL_NAME].bytes, entries[MODEL_NAME].sha256),
        platforms=tuple(_platform_need(need, with_runtime=with_runtime) for need in runtimes),
        files=tuple(entries.values()),
        provenance=provenance,
        counter=counter,
        contents=describe_model(described),
        records={f"wheels/{filename}": record_sha256(path) for filename, path in fetched.items()} or None,
    )
    content = serialize(manifest)
    if len(content) > MAX_MANIFEST_BYTES:
        raise InputError(
            "manifest-too-large", "The manifest would be larger than 1 MiB.", hint="Shorten the provenance."
        )
    signature = None
    if sign_key is not None:
        report(Event("bundle", f"signing with {sign_key}"))
        signature = sign(content, sign_key)
    report(Event("bundle", "packing"))
    _write(output, content, [(entry, sources[path]) for path, entry in entries.items()], signature)
    return document(open_bundle(output))


def check_bundle_output(output: Path, model: Path) -> None:
    """Refuse what cannot be written, or must not be written over. Raises InputError "bad-output"."""
    beside = [model.with_suffix(suffix) for suffix in (".check.npz", ".provenance.json")]
    check_output(output, "a bundle", is_bundle, [model, *beside])


def _check_counter(counter: int | None) -> None:
    if counter is not None and not 0 <= counter <= MAX_COUNTER:
        raise InputError(
            "bad-counter",
            f"{counter} cannot be the counter of a release.",
            hint=f"Write a number from 0 to {MAX_COUNTER}, higher with each release: --counter 7",
        )


def _provenance(model: Path) -> Mapping[str, Any] | None:
    """What ``quantize`` wrote beside the model; None where there is nothing. It has to be about this very model."""
    path = model.with_suffix(".provenance.json")
    if not path.is_file():
        return None
    if path.stat().st_size > _MAX_PROVENANCE_BYTES:
        raise InputError("bad-provenance", f"{path} is larger than 256 KiB.", hint="Run `edgepack quantize` again.")
    try:
        value = json.loads(path.read_bytes().decode("utf-8"))
        canonical_json(value)
    except (ValueError, RecursionError) as error:
        raise InputError("bad-provenance", f"{path} is no JSON.", hint="Run `edgepack quantize` again.") from error
    if not isinstance(value, dict):
        raise InputError("bad-provenance", f"{path} holds no JSON object.", hint="Run `edgepack quantize` again.")
    recorded = value.get("model")
    if isinstance(recorded, dict) and recorded.get("sha256") not in (None, sha256_file(model)):
        raise InputError(
            "stale-provenance",
            f"{path} is about another model than {model}.",
            hint="Run `edgepack quantize` again, or remove the .provenance.json and .check.npz beside the model.",
        )
    return value


def _check_check_set(model: Path, described: TfliteModel) -> None:
    """A check set has to be one that a device can hold, and to name the model's inputs: compilers rename some.

    The device would find out last.
    """
    path = model.with_suffix(".check.npz")
    if not path.is_file():
        return
    try:
        with path.open("rb") as stream:
            names = read_headers(stream)
    except ValueError as error:
        raise InputError(
            "bad-check-set",
            f"{path} cannot be the check set of a device: {error}.",
            hint="Run `edgepack quantize` again, with fewer samples where there are too many: --check-set S#0:500.",
        ) from None
    missing = [name for name, _ in described.named_inputs if not {f"input/{name}", f"raw/{name}"} & names.keys()]
    if names and missing:
        raise InputError(
            "bad-check-set",
            f"{path} holds no samples for the input {missing[0]!r} of {model}.",
            hint="Where a compiler renamed it, let `edgepack quantize` run the compiler (docs/targets.md, Compiling).",
        )


def observed_scheme(tensors: Sequence[Tensor]) -> Scheme:
    """How a .tflite is quantized, read from its tensors and not from what anyone says about it.

    Integer activations decide first (int16 over int8), then how the constants are stored: float16 alone, or
    integers that meet float activations (dynamic range).
    """
    activations = {tensor.dtype for tensor in tensors if not tensor.constant and tensor.scales}
    constants = {tensor.dtype for tensor in tensors if tensor.constant}
    quantized = {tensor.dtype for tensor in tensors if tensor.constant and tensor.scales}
    if "int16" in activations:
        return Scheme.INT16X8
    if activations & {"int8", "uint8"}:
        return Scheme.INT8
    if quantized & {"int8", "uint8", "int4"}:
        return Scheme.DYNAMIC
    return Scheme.FLOAT16 if "float16" in constants else Scheme.FLOAT32


def bundle_options(
    target: Target, platforms: Sequence[Platform], *, wheels: Path | None = None, with_runtime: bool = True
) -> list[tuple[RuntimeOption, ...]]:
    """The runtimes that each platform can get, the profile's own first, from the lock and a folder of ``wheels``.

    Raises :class:`MisfitError` "no-wheel" for a platform that no wheel is there for. ``with_runtime=False`` needs none:
    the device has its own. So it has on a platform that a profile names itself beside a required delegate: vendors'
    images bring the runtime that their delegate is made for.
    """
    locked = shipped_wheels()
    brought = folder_wheels(wheels, platforms) if wheels is not None else ()
    found = []
    for platform in platforms:
        options = runtime_options(target, platform, locked, brought)
        vendors = target.delegate.required and platform in target.platforms
        if not options and with_runtime and not vendors:
            raise no_wheel(platform, target)
        found.append(options or (own_runtime(target, platform, locked),))
    return found


def _platform_need(need: RuntimeOption, *, with_runtime: bool) -> PlatformNeed:
    wheels = {wheel.filename: wheel.sha256 for wheel in need.wheels} if with_runtime else {}
    return PlatformNeed(
        platform=need.platform,
        runtime=RuntimeNeed(
            id=runtime_id(wheels),
            package=need.package,
            version=need.version,
            wheels=tuple(f"wheels/{name}" for name in sorted(wheels)),
            numpy=NUMPY_FOR[need.package],
            enough=need.enough,
        ),
    )


def _sources(model: Path, wheels: Mapping[str, Path]) -> dict[str, Path | bytes]:
    """Where each file of the bundle comes from, by its path inside."""
    device_side = Path(__file__).resolve().parent.parent / "ondevice"
    sources: dict[str, Path | bytes] = {MODEL_NAME: model}
    sources |= {file: device_side / file for file in DEVICE_FILES}
    sources |= {f"wheels/{filename}": path for filename, path in wheels.items()}
    sources[RECIPE_NAME] = canonical_json(make_recipe(model, buffer_regions(model)).to_json())
    for member, beside in (("check.npz", ".check.npz"), ("provenance.json", ".provenance.json")):
        path = model.with_suffix(beside)
        if path.is_file():
            sources[member] = path
    return sources


def _entry(path: str, source: Path | bytes) -> FileEntry:
    if isinstance(source, bytes):
        return FileEntry(path, len(source), hashlib.sha256(source).hexdigest())
    return FileEntry(path, source.stat().st_size, sha256_file(source))


def _write(
    output: Path, manifest: bytes, sources: Sequence[tuple[FileEntry, Path | bytes]], signature: bytes | None
) -> None:
    """Write beside the output, then rename: an interrupted run leaves what was there before."""
    staged = output.with_name(f".{output.name}.{secrets.token_hex(4)}.part")
    try:
        with staged.open("xb") as stream:
            write_archive(stream, manifest, sources, signature)
            stream.flush()
            os.fsync(stream.fileno())
        staged.replace(output)
    except OSError as error:
        raise InputError(
            "bad-output",
            f"{output} cannot be written: {error.strerror}.",
            hint="Name a folder that is yours and has room.",
        ) from error
    finally:
        staged.unlink(missing_ok=True)
