"""What differs between two bundles, a line for each field and file; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgepack.bundle import Bundle


def changes_between(old: Bundle, new: Bundle, files: Mapping[str, Any]) -> list[dict[str, str]]:
    """Each leaf of the manifests and each file that differs, with what was before and after.

    ``files`` is what :func:`edgepack.bundle.diff_bundles` says of them: ``added``, ``removed``, ``changed``.
    """
    old_sizes = {file.path: file.bytes for file in old.manifest.files}
    new_sizes = {file.path: file.bytes for file in new.manifest.files}
    paths = sorted([*files["added"], *files["removed"], *(change["path"] for change in files["changed"])])
    return _differences("", _fields(old), _fields(new)) + [
        {"what": path, "before": _bytes(old_sizes.get(path)), "after": _bytes(new_sizes.get(path))} for path in paths
    ]


def _fields(bundle: Bundle) -> dict[str, Any]:
    """The manifest but for its list of files, and what it says of the model: that is compared tensor by tensor."""
    value: dict[str, Any] = json.loads(bundle.manifest_bytes)
    return {key: inner for key, inner in value.items() if key not in ("files", "contents")}


def _differences(where: str, before: Any, after: Any) -> list[dict[str, str]]:
    """Each leaf of two JSON values that differs, by its dotted name; "absent" is what one side lacks."""
    if before == after:
        return []
    old, new = _branches(before), _branches(after)
    if (old or new) and old is not None and new is not None:
        prefix = f"{where}." if where else ""
        keys = sorted(old.keys() | new.keys())
        return [line for key in keys for line in _differences(prefix + key, old.get(key), new.get(key))]
    return [{"what": where, "before": _shown(before), "after": _shown(after)}]


def _branches(value: Any) -> dict[str, Any] | None:
    """What is inside of an object, or of a list of objects by their numbers; None for a leaf."""
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        return {str(number): one for number, one in enumerate(value)}
    if value is None:
        return {}
    return value if isinstance(value, dict) else None


def _shown(value: Any) -> str:
    if value is None:
        return "absent"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _bytes(size: int | None) -> str:
    return "absent" if size is None else f"{size} bytes"
