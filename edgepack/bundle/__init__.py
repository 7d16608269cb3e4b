"""One deterministic file that holds a release: model, loader, check set, runtimes, and a manifest with every digest.

``build.build_bundle`` makes one, :func:`open_bundle` reads one, :func:`choose_runtime` says how a device runs it. What
is named here is imported when it is asked for: ``inspect`` waits neither for the solver nor for ssh-keygen's side.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgepack.bundle.archive import open_bundle
    from edgepack.bundle.inspection import diff_bundles, diff_models, document, explain, verify_bundle
    from edgepack.bundle.manifest import Manifest, ModelEntry, PlatformNeed, RuntimeNeed, runtime_id
    from edgepack.bundle.opened import Bundle, Entry
    from edgepack.bundle.runtime import RuntimeChoice, choose_runtime

__all__ = [
    "Bundle",
    "Entry",
    "Manifest",
    "ModelEntry",
    "PlatformNeed",
    "RuntimeChoice",
    "RuntimeNeed",
    "choose_runtime",
    "diff_bundles",
    "diff_models",
    "document",
    "explain",
    "open_bundle",
    "runtime_id",
    "verify_bundle",
]

_HOMES = {
    "open_bundle": "archive",
    **dict.fromkeys(("diff_bundles", "diff_models", "document", "explain", "verify_bundle"), "inspection"),
    **dict.fromkeys(("Manifest", "ModelEntry", "PlatformNeed", "RuntimeNeed", "runtime_id"), "manifest"),
    **dict.fromkeys(("Bundle", "Entry"), "opened"),
    **dict.fromkeys(("RuntimeChoice", "choose_runtime"), "runtime"),
}


def __getattr__(name: str) -> Any:
    """The value of that name, from the module that has it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
