"""What runtimes and accelerators know of operators: data with its source, and pure functions over it."""

from __future__ import annotations

from edgepack.quantize.operators.required import derived_version, needed_version
from edgepack.quantize.operators.traps import traps_of
from edgepack.quantize.operators.versions import RUNTIMES, TF_SELECT, RuntimeTable, runtime_table

__all__ = ["RUNTIMES", "TF_SELECT", "RuntimeTable", "derived_version", "needed_version", "runtime_table", "traps_of"]
