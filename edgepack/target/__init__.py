"""A target: what a kind of device runs, how a model for it is quantized, and what it must keep to.

A profile is one TOML file (docs/targets.md). :func:`load_target` finds it by name or path, follows ``extends``, tells
all faults at once and gives a :class:`Target`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgepack.target.platform import Platform, libc_fits, version_tuple

if TYPE_CHECKING:
    from edgepack.target.find import builtin_folder, list_targets, load_target, target_folders
    from edgepack.target.values import (
        BUDGET,
        INTEGER_SCHEMES,
        Budget,
        Delegate,
        MeasurePolicy,
        Quantization,
        Runtime,
        Scheme,
        Target,
    )

__all__ = [
    "BUDGET",
    "INTEGER_SCHEMES",
    "Budget",
    "Delegate",
    "MeasurePolicy",
    "Platform",
    "Quantization",
    "Runtime",
    "Scheme",
    "Target",
    "builtin_folder",
    "libc_fits",
    "list_targets",
    "load_target",
    "target_folders",
    "version_tuple",
]


_FINDING = ("builtin_folder", "list_targets", "load_target", "target_folders")


def __getattr__(name: str) -> Any:
    """Values and what finds profiles are imported when they are asked for: a bundle names its target itself."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{'find' if name in _FINDING else 'values'}"), name)
    globals()[name] = value
    return value
