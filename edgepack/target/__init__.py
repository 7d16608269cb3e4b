"""A target: what a kind of device runs, how a model for it is quantized, and what it must keep to.

A profile is one TOML file (docs/targets.md). :func:`load_target` finds it by name or path, follows ``extends``, tells
all faults at once and gives a :class:`Target`.
"""

from __future__ import annotations

from edgepack.target.find import builtin_folder, list_targets, load_target, target_folders
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
