"""Two releases measured in the same minutes: each by its own loader in its own process, a block of runs at a time.

The order of the blocks is A B B A A B B A ..., so that a device that grows slower in a steady way is as slow to the one
as to the other. While one runs, the other waits: loaded, warm and idle.
"""

from __future__ import annotations

import math
import os
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from .disk import read_json
from .errors import AgentError
from .loaderrun import MeasureRun, new_output

PAIRS = 24  # of neighbouring blocks: an interval needs some
BLOCK_S = 0.1  # long against the settling at its beginning (loader.py, SETTLING_S)
HANDOVER_S = 0.01  # that settling, and the way between the processes, on a slow device
BLOCK_RUNS = 250  # where a run is so short that more of them tell nothing
MOST_RUNS = 50_000  # of each release: what comes back stays under 1 MB
TOLD_EVERY_S = 0.25

Report = Callable[[Dict[str, Any]], None]


class Contender:
    """One of the two releases: its loader's child, and the runs that it has made."""

    def __init__(self, name: str, release: str, run: MeasureRun) -> None:
        self.name = name
        self.release = release
        self.run = run
        self.made = 0

    def ready(self, report: Report) -> float:
        """Waits until the model is loaded and warm; returns what a run takes, in nanoseconds."""
        while True:
            for progress in self.run.listen():
                usual_ns = count_in(progress, "ready")
                if usual_ns is not None:
                    return max(usual_ns, 1.0)
                # It measures without being asked to, as loaders did that knew no turns.
                if progress.get("step") == "latency":
                    raise no_turns(self.release)
                report(dict(progress, step=f"{self.name}: {progress.get('step')}"))
            if self.run.ended and os.path.isfile(os.path.join(self.run.output, "measurement.json")):
                raise no_turns(self.release)
            self._require_alive()

    def take_turn(self, count: int) -> int:
        """Lets the release run so often; returns how often it did."""
        self.run.expect_life()
        self.run.say(str(count))
        while True:
            for progress in self.run.listen():
                made = count_in(progress, "turn")
                if made is not None:
                    before, self.made = self.made, int(made)
                    return self.made - before
            self._require_alive()

    def finish(self, report: Report) -> None:
        """There are no more turns: the release does what else it has to do, and ends."""
        self.run.say("0")
        self.run.wait(report)

    def _require_alive(self) -> None:
        if self.run.ended or self.run.timed_out:
            self.run.close()
            error = self.run.failure()
            raise rivals_failure(self.release, error) if self.name == "current" else error


def count_in(progress: Dict[str, Any], key: str) -> Optional[float]:
    """The number that a report tells under this key; None where it tells none."""
    value = progress.get(key)
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0 else float(value)


def no_turns(release: str) -> AgentError:
    """A loader of before turns were known: it would measure while the other does."""
    return AgentError(
        "no-turns",
        f"The loader of release {release} cannot measure in turns: an older edgepack made its bundle.",
        "Bundle its model again with this edgepack and push that, or check without --against.",
        release=release,
    )


def rivals_failure(release: str, error: AgentError) -> AgentError:
    """What went wrong with the release that was to be compared with, told as that."""
    return AgentError(
        error.code,
        f"The release to compare with, {release}, could not be measured: {error.message}",
        f"{error.hint} Or check without --against.".strip(),
        **dict(error.details, release=release),
    )


def plan_block(min_runs: int, max_s: float, usual_ns: Tuple[float, float]) -> int:
    """How many runs make a block: enough for all pairs to hold the wanted runs, as far as the time allows; at least 1.

    ``usual_ns`` is what a run of each release takes. Both make as many, so that each pair weighs the same.
    """
    wanted = max(math.ceil(min_runs / PAIRS), min(BLOCK_RUNS, math.ceil(BLOCK_S * 1e9 / min(usual_ns))))
    affordable = (max_s / PAIRS - 2 * HANDOVER_S) * 1e9 / sum(usual_ns)
    return max(1, min(wanted, int(affordable), MOST_RUNS // PAIRS))


def measure_both(
    root: str,
    candidate: Tuple[str, str],
    current: Tuple[str, str],
    options: Dict[str, Any],
    limit_s: float,
    report: Report,
) -> Tuple[MeasureRun, Dict[str, Any]]:
    """Measures two releases (each: its id and its folder) in turns.

    Returns the candidate's run, ended, and what comparing adds to its measurement. What goes wrong with the other is
    told as the other's. Whatever happens, neither is left running.
    """
    runs: List[MeasureRun] = []

    def start(name: str, contender: Tuple[str, str], **more: Any) -> Contender:
        runs.append(MeasureRun(contender[1], new_output(root), dict(options, turns=True, **more), limit_s))
        return Contender(name, contender[0], runs[-1])

    try:
        # The candidate first: what it takes to load it cold is no longer to be had where the other has the same runtime
        # mapped.
        one = start("candidate", candidate)
        ones_ns = one.ready(report)
        try:
            # Each with the threads of its own profile; the device got cool for the first, where it was to.
            other = start("current", current, latency_only=True, threads=None, cool_s=None)
        except AgentError as error:
            raise rivals_failure(current[0], error) from None
        blocks, stopped_by = alternate(one, other, (ones_ns, other.ready(report)), options, report)
        other.finish(lambda _: None)
        measured = read_json(os.path.join(other.run.output, "measurement.json"))
        if not measured:
            raise rivals_failure(current[0], other.run.failure())
        one.finish(report)
    finally:
        for run in runs:
            run.close()
    kept = ("latency_ns", "load_ms", "first_ms", "runtime", "threads")
    against = dict({key: measured.get(key) for key in kept}, release=current[0])
    return one.run, {"against": against, "blocks": blocks, "stopped_by": stopped_by}


def alternate(
    candidate: Contender, current: Contender, usual_ns: Tuple[float, float], options: Dict[str, Any], report: Report
) -> Tuple[List[Tuple[str, int]], str]:
    """Lets both run in turns, a run of which takes ``usual_ns``.

    Returns the blocks, ("candidate" or "current", runs) in their order, and what ended it. As for one release alone:
    "runs" where both made ``min_runs`` in at least ``min_seconds``, "seconds" where ``max_seconds``, for both together,
    were over before.
    """
    min_runs = max(int(options.get("min_runs") or 50), 1)
    min_s, max_s = float(options.get("min_seconds", 2.0)), float(options.get("max_seconds", 60.0))
    count = plan_block(min_runs, max_s, usual_ns)
    blocks: List[Tuple[str, int]] = []
    started, told_at = time.monotonic(), 0.0
    while True:
        pairs = len(blocks) // 2
        order = (candidate, current) if pairs % 2 == 0 else (current, candidate)
        blocks += [(contender.name, contender.take_turn(count)) for contender in order]
        made, now = min(candidate.made, current.made), time.monotonic()
        elapsed = now - started
        balanced = pairs % 2 == 1
        if balanced and made >= min_runs and pairs + 1 >= PAIRS and elapsed >= min(min_s, max_s):
            return blocks, "runs"
        if candidate.made >= MOST_RUNS or current.made >= MOST_RUNS:
            return blocks, "runs"
        if elapsed >= max_s:
            return blocks, "seconds"
        if now - told_at >= TOLD_EVERY_S:
            told_at = now
            report({"step": "latency in turns", "done": made, "total": max(min_runs, PAIRS * count), "unit": "runs"})
