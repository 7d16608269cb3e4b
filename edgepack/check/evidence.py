"""What a verdict can be computed from again, as the document of a check keeps it; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgepack.checkdocuments import Evidence

if TYPE_CHECKING:
    from edgepack.check.against import InTurns
    from edgepack.check.compare import Comparison


def evidence(measurement: Mapping[str, Any], comparison: Comparison | None, rival: InTurns | None = None) -> Evidence:
    """The raw times in their order, the looks at the device, and what the outputs were held against.

    With a ``rival`` its times too, and the blocks in which both ran.

    ``operators`` stays empty: no TFLite runtime for Python tells the time of an operator (docs/check.md).
    """
    return Evidence(
        latency_ns=tuple(measurement.get("latency_ns") or ()),
        warmup_ns=tuple(measurement.get("warmup_ns") or ()),
        current_ns=rival.current_ns if rival else (),
        blocks=rival.blocks if rival else (),
        series=tuple(measurement.get("series") or ()),
        classes=comparison.classes if comparison else None,
        layers=comparison.layers if comparison else (),
        drop_bound=comparison.drop_bound if comparison else None,
        every=measurement.get("every") or 1,
    )


def delegated_share(measurement: Mapping[str, Any]) -> float | None:
    """The share of the model's operators that the target's delegate took; None without one, or where nothing tells."""
    share = (measurement.get("delegate") or {}).get("share")
    return None if share is None else float(share)
