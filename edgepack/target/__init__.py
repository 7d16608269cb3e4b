"""A target: what a kind of device runs, how a model for it is quantized, and what it must keep to.

A profile is one TOML file (docs/targets.md). :func:`load_target` finds it by name or path, follows ``extends``, tells
all faults at once and gives a :class:`Target`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgepack.target.values import (
    BUDGET,
    INTEGER_SCHEMES,
    Budget,
    Delegate,
    MeasurePolicy,
    Platform,
    Quantization,
    Runtime,
    Scheme,
    Target,
    libc_fits,
    version_tuple,
)

if TYPE_CHECKING:
    from edgepack.target.find import builtin_folder, list_targets, load_target, target_folders

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


def __getattr__(name: str) -> Any:
    """What finds profiles is imported when it is asked for: many commands know their target from a bundle."""
    if name not in ("builtin_folder", "list_targets", "load_target", "target_folders"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edgepack.target import find

    value = getattr(find, name)
    globals()[name] = value
    return value
