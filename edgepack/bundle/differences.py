"""What differs between two bundles, a line for each field and file; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgepack.bundle.sshsig import read_signature

if TYPE_CHECKING:
    from edgepack.bundle import Bundle


def changes_between(old: Bundle, new: Bundle, files: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each leaf of the manifests, the signatures and each file that differs, with what was before and after.

    Values keep their types: a number is one, and None is what one side lacks. A file's is its size in bytes.

    ``files`` is what :func:`edgepack.bundle.diff_bundles` says of them: ``added``, ``removed``, ``changed``.
    """
    old_sizes = {file.path: file.bytes for file in old.manifest.files}
    new_sizes = {file.path: file.bytes for file in new.manifest.files}
    paths = sorted([*files["added"], *files["removed"], *(change["path"] for change in files["changed"])])
    return [
        *_differences("", _fields(old), _fields(new)),
        *_differences("signature", _signer(old), _signer(new)),
        *(
            {"what": path, "before": old_sizes.get(path), "after": new_sizes.get(path), "unit": "bytes"}
            for path in paths
        ),
    ]


def _signer(bundle: Bundle) -> dict[str, Any] | None:
    """Whose key signed a bundle; None where nobody's did."""
    if bundle.signature is None:
        return None
    found = read_signature(bundle.signature)
    return {"fingerprint": found.fingerprint, "key_type": found.key_type}


def _fields(bundle: Bundle) -> dict[str, Any]:
    """The manifest but for its list of files, and what it says of the model: that is compared tensor by tensor."""
    value: dict[str, Any] = json.loads(bundle.manifest_bytes)
    return {key: inner for key, inner in value.items() if key not in ("files", "contents")}


def _differences(where: str, before: Any, after: Any) -> list[dict[str, Any]]:
    """Each leaf of two JSON values that differs, by its dotted name; None is what one side lacks."""
    if before == after:
        return []
    old, new = _branches(before), _branches(after)
    if (old or new) and old is not None and new is not None:
        prefix = f"{where}." if where else ""
        keys = sorted(old.keys() | new.keys())
        return [line for key in keys for line in _differences(prefix + key, old.get(key), new.get(key))]
    return [{"what": where, "before": before, "after": after}]


def _branches(value: Any) -> dict[str, Any] | None:
    """What is inside of an object, or of a list of objects by their numbers; None for a leaf."""
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        return {str(number): one for number, one in enumerate(value)}
    if value is None:
        return {}
    return value if isinstance(value, dict) else None
