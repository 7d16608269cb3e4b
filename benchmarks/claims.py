"""Whether edgepack.statistics holds what it claims, on synthetic traces whose truth is known.

    python benchmarks/claims.py [--trials 1000]

Early stopping: the fewest runs for each percentile, beside those that LoadGen publishes. Intervals: of how many traces
a percentile's 95 % interval is given, and how many of those hold the true percentile; the goal is 92 %, for independent
runs, heavy tails and runs that resemble their neighbours (AR(1)). A row of which fewer than one trace in twenty got an
interval has no goal: which traces these are is chance. Ratio: how often identical releases, run in turns under 12 %
drift and 2 % noise, are flagged (the 99 % interval of their ratio excludes 1; or, as a gate ``<= 1.05x`` does it, the
ratio is more than 1.05), goal 2.5 %; how often a release that is 6 % slower is found (the interval lies above 1),
goal 95 %. ``one after the other`` is the same without turns. Prints a table on stderr and JSON on stdout; takes about
five minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from traces import DRIFTS, TRACES, in_turns  # noqa: E402 (the tests' own)

from edgepack.statistics import MIN_RUNS, latency_intervals, paired_ratio, warmup_runs  # noqa: E402

PUBLISHED = {90: 64, 99: 662}
"""What LoadGen publishes of its single-stream floors (mlcommons/endpoints, pull request 417)."""

GOAL_HELD, RARELY = 0.92, 0.05
GOAL_FLAGGED, GOAL_FOUND = 0.025, 0.95


def coverage(trace: str, n: int, trials: int) -> list[dict[str, Any]]:
    """A row for each percentile that n runs may claim."""
    drawn, quantile = TRACES[trace]
    random = np.random.RandomState(n)
    found = [latency_intervals(drawn(random, n).tolist()) for _ in range(trials)]
    rows = []
    for p in (p for p, needed in MIN_RUNS.items() if n >= needed):
        intervals = [interval for one in found if (interval := getattr(one, f"p{p}")) is not None]
        held = sum(interval.low <= quantile(p / 100) <= interval.high for interval in intervals)
        given, share = len(intervals) / trials, held / len(intervals) if intervals else None
        met = None if share is None or given < RARELY else share >= GOAL_HELD
        rows.append({"trace": trace, "runs": n, "p": p, "given": given, "held": share, "met": met})
    return rows


def ratios(statistic: str, trials: int, **how: Any) -> dict[str, Any]:
    """Identical releases and one that is 6 % slower, under one kind of drift."""
    random = np.random.RandomState(6)
    same = [paired_ratio(in_turns(random, 1.0, **how), statistic) for _ in range(trials)]
    slower = [paired_ratio(in_turns(random, 1.06, **how), statistic) for _ in range(trials)]
    row = {
        "statistic": statistic,
        **how,
        "flagged": sum(found is None or not found.low <= 1 <= found.high for found in same) / trials,
        "flagged_by_gate": sum(found is None or found.estimate > 1.05 for found in same) / trials,
        "found": sum(found is not None and found.low > 1 for found in slower) / trials,
        "found_by_gate": sum(found is not None and found.estimate > 1.05 for found in slower) / trials,
    }
    return row | {"met": row["flagged"] <= GOAL_FLAGGED and row["found"] >= GOAL_FOUND}


def one_after_the_other(trials: int) -> float:
    """How often identical releases differ by more than 5 % in their medians, measured one after the other."""
    random = np.random.RandomState(7)
    flagged = 0
    for _ in range(trials):
        runs = np.concatenate([np.concatenate(pair) for pair in in_turns(random, 1.0)])
        flagged += float(np.median(runs[240:]) / np.median(runs[:240])) > 1.05
    return flagged / trials


def speed() -> float:
    """Seconds for the intervals of 50,000 runs that resemble their neighbours, the most that a check brings back."""
    runs = TRACES["AR(1) 0.8"][0](np.random.RandomState(8), 50_000).tolist()
    started = time.perf_counter()
    latency_intervals(runs)
    return time.perf_counter() - started


def settled(trials: int) -> dict[str, float]:
    """How often 40 runs at 1.3 times the level are found as warm-up to two batches, and how often none is invented."""
    random, drawn = np.random.RandomState(9), TRACES["AR(1) 0.5"][0]
    cold = hot = 0
    for _ in range(trials):
        trace = drawn(random, 400)
        found = warmup_runs(trace.tolist())
        hot += found is not None and found <= 10
        trace[:40] *= 1.3
        cold += 40 <= (warmup_runs(trace.tolist()) or 0) <= 50
    return {"cold_start_found": cold / trials, "none_invented": hot / trials}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    trials = parser.parse_args().trials
    early = {p: {"runs": runs, "published": PUBLISHED.get(p)} for p, runs in MIN_RUNS.items()}
    say(", ".join(f"p{p} {row['runs']} (LoadGen {row['published'] or '-'})" for p, row in early.items()))
    covered = [row for trace in TRACES for n in (100, 200, 700, 2000) for row in show(coverage(trace, n, trials))]
    turned = [ratios(statistic, trials) for statistic in ("p50", "p90", "p95", "mean")]
    turned += [ratios("p50", trials, shape=shape) for shape in DRIFTS if shape != "steady"]
    turned += [ratios("p50", trials, memory=0.8)]
    for row in turned:
        say(", ".join(f"{key} {value}" for key, value in row.items()))
    document = {
        "benchmark": "claims",
        "trials": trials,
        "early_stopping": early,
        "intervals": covered,
        "ratios": turned,
        "one_after_the_other_flagged": one_after_the_other(trials),
        "warmup": settled(trials),
        "seconds_for_50000_runs": speed(),
    }
    for key in ("one_after_the_other_flagged", "warmup", "seconds_for_50000_runs"):
        say(f"{key} {document[key]}")
    print(json.dumps(document, indent=2))


def show(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, told on standard error."""
    for row in rows:
        held = "-" if row["held"] is None else f"{row['held']:.1%}"
        verdict = {True: "", False: "  MISSED", None: "  (rarely given)"}[row["met"]]
        say(f"{row['trace']:<12} {row['runs']:>5} runs  p{row['p']}  given {row['given']:.1%}  held {held}{verdict}")
    return rows


def say(line: str) -> None:
    """A line of the table."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
