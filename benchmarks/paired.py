"""Paired timings: two things in turn, A B A B ..., and the ratio of each pair; what every benchmark here reports."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any


def paired_calls(
    name_a: str,
    work_a: Callable[[], object],
    name_b: str,
    work_b: Callable[[], object],
    runs: int,
    *,
    goal: float | None = None,
    warmup: int = 1,
) -> dict[str, Any]:
    """Time two calls in turn; seconds and ratios A/B as median, minimum and maximum over ``runs`` pairs.

    The order inside a pair alternates (AB BA AB ...), so that a steady drift touches both alike.
    """
    for _ in range(warmup):
        work_a()
        work_b()
    seconds_a, seconds_b = [], []
    for run in range(runs):
        order = [(work_a, seconds_a), (work_b, seconds_b)]
        for work, seconds in order if run % 2 == 0 else reversed(order):
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
    ratios = [a / b for a, b in zip(seconds_a, seconds_b, strict=True)]
    return {
        "a": name_a,
        "b": name_b,
        "runs": runs,
        "a_seconds": _summary(seconds_a),
        "b_seconds": _summary(seconds_b),
        "ratio": _summary(ratios),
        "goal": goal,
        "met": None if goal is None else statistics.median(ratios) <= goal,
    }


def paired(
    name_a: str,
    command_a: Sequence[str],
    name_b: str,
    command_b: Sequence[str],
    runs: int,
    *,
    goal: float | None = None,
) -> dict[str, Any]:
    """Time two commands as whole processes, in turn; a command that fails ends the benchmark."""
    return paired_calls(name_a, lambda: _run(command_a), name_b, lambda: _run(command_b), runs, goal=goal)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """A table of the rows on standard error."""
    for row in rows:
        goal = "" if row["goal"] is None else f"  goal {row['goal']:.2f}  {'met' if row['met'] else 'MISSED'}"
        sides = "".join(f"{row[side]:<34} {row[f'{side}_seconds']['median']:>9.4f} s   " for side in "ab")
        print(
            f"{sides}ratio {row['ratio']['median']:.3f} ({row['ratio']['min']:.3f} to {row['ratio']['max']:.3f}){goal}",
            file=sys.stderr,
        )


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
