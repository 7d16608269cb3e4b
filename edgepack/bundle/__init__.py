"""One deterministic file that holds a release: model, loader, check set, runtimes, and a manifest with every digest.

``build.build_bundle`` makes one, :func:`open_bundle` reads one, :func:`choose_runtime` says how a device runs it.
"""

from __future__ import annotations

from edgepack.bundle.archive import Bundle, Entry, open_bundle
from edgepack.bundle.inspection import diff_bundles, diff_models, document, explain, verify_bundle
from edgepack.bundle.manifest import Manifest, ModelEntry, PlatformNeed, RuntimeNeed, runtime_id
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
