"""What is in a bundle, whether it is whole, and what differs between two."""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.bundle.archive import open_bundle
from edgepack.bundle.contents import read_bundled_model, read_contents
from edgepack.bundle.manifest import MODEL_NAME
from edgepack.bundle.opened import Bundle
from edgepack.bundle.sshsig import read_signature
from edgepack.bundledocuments import BundleDocument, SignatureInfo, VerifyDocument
from edgepack.errors import InputError
from edgepack.events import Reporter, ignore_events

if TYPE_CHECKING:
    from edgepack.bundle.modeldiff import ReadConstant


def document(bundle: Bundle, sha256: str | None = None) -> BundleDocument:
    """What ``bundle`` prints; ``sha256`` is that of the whole file, where it is known already."""
    manifest = bundle.manifest
    model = manifest.model
    budget = manifest.target.get("budget")
    return BundleDocument(
        path=str(bundle.path),
        name=manifest.name,
        version=manifest.version,
        release=bundle.release,
        sha256=sha256 or bundle.sha256(),
        bytes=bundle.size,
        target=str(manifest.target.get("name", "")),
        platforms=tuple(
            need.platform.to_json()
            | {
                "runtime": {
                    "id": need.runtime.id,
                    "package": need.runtime.package,
                    "version": need.runtime.version,
                    "wheels": list(need.runtime.wheels),
                    "numpy": need.runtime.numpy,
                    "enough": dict(need.runtime.enough or {}),
                }
            }
            for need in manifest.platforms
        ),
        files=manifest.files,
        signature=_stated(bundle),
        model={"file": model.file, "scheme": model.scheme, "bytes": model.bytes, "sha256": model.sha256},
        budget=budget if isinstance(budget, dict) else {},
        counter=manifest.counter,
    )


def explain(bundle: Bundle, sha256: str | None = None) -> BundleDocument:
    """What ``inspect`` prints: also what its files are. ``sha256`` is that of the whole file, where it is known."""
    told = document(bundle, sha256)
    return dataclasses.replace(told, contents=read_contents(bundle), provenance=bundle.manifest.provenance)


def _stated(bundle: Bundle) -> SignatureInfo | None:
    """What the signature says of itself; whether it is right, :func:`verify_bundle` tells."""
    if bundle.signature is None:
        return None
    found = read_signature(bundle.signature)
    return SignatureInfo(None, found.fingerprint, found.key_type, found.namespace)


def verify_bundle(
    path: Path, report: Reporter = ignore_events, *, allowed_signers: Path | None = None
) -> VerifyDocument:
    """Recompute every digest and check the signature, against the allowed signers where they are named.

    Whatever is not right is an :class:`~edgepack.errors.IntegrityError`, not a document.
    """
    from edgepack.bundle.signature import check_signature

    bundle = open_bundle(path)
    signature = check_signature(bundle.manifest_bytes, bundle.signature, allowed_signers, str(path))
    bundle.verify(report)
    return VerifyDocument(
        path=str(path),
        release=bundle.release,
        files=len(bundle.entries),
        bytes=sum(entry.bytes for entry in bundle.entries.values()),
        signature=signature,
        counter=bundle.manifest.counter,
    )


def diff_models(before: Bundle, after: Bundle) -> dict[str, Any] | None:
    """What changed in the model, tensor by tensor; None where it is the same file, ``unreadable`` where one is none."""
    from edgepack.bundle.modeldiff import compare_models

    if before.manifest.model.sha256 == after.manifest.model.sha256:
        return None
    try:
        models = read_bundled_model(before), read_bundled_model(after)
    except InputError as error:
        return {"unreadable": error.message}
    with mapped_model(before) as old, mapped_model(after) as new:
        return compare_models(*models, old, new)


@contextlib.contextmanager
def mapped_model(bundle: Bundle) -> Iterator[ReadConstant]:
    """A function that gives the bytes of the model's constants, which stay where they are in the file."""
    begin = bundle.entries[MODEL_NAME].offset
    with bundle.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        yield lambda tensor: mapped[begin + tensor.offset : begin + tensor.offset + tensor.bytes]


def diff_bundles(before: Bundle, after: Bundle) -> dict[str, Any]:
    """What changed from one bundle to another: files by path, and the manifest's fields that differ."""
    old = {file.path: file for file in before.manifest.files}
    new = {file.path: file for file in after.manifest.files}
    return {
        "before": before.release,
        "after": after.release,
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": [
            {"path": path, "bytes_before": old[path].bytes, "bytes_after": new[path].bytes}
            for path in sorted(old.keys() & new.keys())
            if old[path].sha256 != new[path].sha256
        ],
        "unchanged": sum(old[path].sha256 == new[path].sha256 for path in old.keys() & new.keys()),
        "fields": [
            field
            for field in ("name", "version", "target", "model", "platforms", "provenance", "counter")
            if getattr(before.manifest, field) != getattr(after.manifest, field)
        ],
    }
