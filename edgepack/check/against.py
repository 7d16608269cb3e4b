"""The checked release against another one that ran in turns with it: from blocks to pairs to ratios; pure.

The device runs blocks A B B A A B B A ..., so two neighbours are one of each release, a moment apart, and each order
comes as often as the other: what a device's clock or temperature does over minutes touches both alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.checkdocuments import Interval, Ratio
from edgepack.errors import DeviceFailure, MisfitError
from edgepack.statistics import paired_ratio, samples_to_narrow

CURRENT = "current"
"""What ``against`` says for the release that is active on the device."""

STATISTICS = ("p50", "p95", "mean")

Pair = tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True, slots=True)
class InTurns:
    """Two releases' runs in nanoseconds, and the order of their blocks: ("candidate" or "current", runs)."""

    release: str
    candidate_ns: tuple[int, ...]
    current_ns: tuple[int, ...]
    blocks: tuple[tuple[str, int], ...]

    def pairs(self) -> list[Pair]:
        """(the candidate's runs, the current release's runs) of each two neighbouring blocks."""
        left = {"candidate": self.candidate_ns, CURRENT: self.current_ns}
        taken = {"candidate": 0, CURRENT: 0}
        runs = []
        for name, count in self.blocks:
            runs.append((name, left[name][taken[name] : taken[name] + count]))
            taken[name] += count
        return [
            (first, second) if name == "candidate" else (second, first)
            for (name, first), (_, second) in zip(runs[::2], runs[1::2], strict=True)
        ]


def read_in_turns(measurement: Mapping[str, Any], device: str) -> InTurns:
    """What a device measured in turns.

    Raises MisfitError "no-turns" where its agent measured one release only, DeviceFailure "measure-failed" where what
    it tells does not fit together.
    """
    against = measurement.get("against")
    if not isinstance(against, Mapping):
        raise MisfitError(
            "no-turns",
            f"The agent on {device} is older than this edgepack and cannot measure two releases in turns.",
            hint="Its owner can renew it: `edgepack trust DEVICE ...`. Or check without --against.",
        )
    try:
        blocks = tuple((str(name), int(count)) for name, count in measurement["blocks"])
        found = InTurns(str(against["release"]), tuple(measurement["latency_ns"]), tuple(against["latency_ns"]), blocks)
        sums = {"candidate": 0, CURRENT: 0}
        for name, count in blocks:
            sums[name] += count
        whole = sums == {"candidate": len(found.candidate_ns), CURRENT: len(found.current_ns)}
        whole = whole and all(one != other for (one, _), (other, _) in zip(blocks[::2], blocks[1::2], strict=True))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise DeviceFailure(
            "measure-failed",
            f"What {device} measured in turns does not fit together: its blocks are not its runs.",
            hint="Push both releases' bundles again and check again. If that is no cure, report it.",
        )
    return found


def ratios(found: InTurns, gated: Sequence[str] = ()) -> tuple[Ratio, ...]:
    """The candidate's latency over the other's in each statistic that the runs tell of; the ``gated`` ones first."""
    pairs = found.pairs()
    estimates = [paired_ratio(pairs, statistic) for statistic in sorted(STATISTICS, key=lambda name: name not in gated)]
    return tuple(
        Ratio(
            estimate=round(told.estimate, 6),
            low=round(told.low, 6),
            high=round(told.high, 6),
            confidence=told.confidence,
            statistic=told.statistic,
            pairs=told.pairs,
            release=found.release,
        )
        for told in estimates
        if told is not None
    )


def pairs_to_settle(ratio: Ratio, limit: float) -> int | None:
    """About how many pairs of blocks would settle on which side of ``limit`` a ratio lies; None where none would.

    As :func:`edgepack.statistics.samples_to_narrow`, on logarithms: there the interval reaches as far up as down.
    """
    interval = Interval(math.log(ratio.low), math.log(ratio.high), ratio.confidence)
    return samples_to_narrow(math.log(ratio.estimate), interval, ratio.pairs, math.log(limit))
