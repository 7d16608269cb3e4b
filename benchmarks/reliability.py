"""The long proof of reliability: agent and host killed, disk filled at every named point, the line cut, over and over.

    nice python benchmarks/reliability.py [--times 100] [--cuts 500] [--seconds N]

Over a real sshd on 127.0.0.1. The rounds go through all points, so a run that ``--seconds`` ends has tried each about
as often; the table says how often. After each blow the device is held to the rules of tests/dying.py; the first that
is broken ends the run. As root it fills a disk of its own too (a tmpfs). Prints a table on stderr, JSON on stdout.
docs/reliability.md says what it showed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from dying import Proving, random_cuts, small_disk  # noqa: E402 (the tests' own)
from real_sshd import RealSshd  # noqa: E402 (the tests' own)

import edgepack  # noqa: E402
from edgepack.ondevice.agent.failpoints import POINTS  # noqa: E402


def trials(proving: Proving, disk: Path | None, seed: int) -> dict[str, Callable[[], str]]:
    """What is tried in each round, by name; each tells what was active after the blow."""
    faults = random_cuts(seed)

    def cut() -> str:
        active, ended_it = proving.cut(next(faults))
        return active if ended_it else "done all the same"

    found: dict[str, Callable[[], str]] = {}
    for point in POINTS:
        found[f"agent killed at {point}"] = lambda point=point: proving.blow(point, "agent")
        found[f"host killed at {point}"] = lambda point=point: proving.blow(point, "host")
        if disk is not None:
            found[f"disk full at {point}"] = lambda point=point: proving.blow(point, "disk", on=disk)
    found["line cut"] = cut
    return found


def run(seconds: float, times: int, cuts: int, seed: int, only: str) -> dict[str, Counter[str]]:
    """How often each blow fell, by what was active then."""
    ends = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sshd = stack.enter_context(RealSshd(folder / "sshd"))
        disk = stack.enter_context(small_disk(folder / "disk")) if os.geteuid() == 0 else None
        proving = stack.enter_context(Proving(folder, sshd))
        tried = {name: trial for name, trial in trials(proving, disk, seed).items() if only in name}
        counts: dict[str, Counter[str]] = {name: Counter() for name in tried}
        per_round = dict.fromkeys(tried, 1) | {"line cut": -(-cuts // times)}
        for _ in range(times):
            for name, trial in tried.items():
                for _ in range(per_round[name]):
                    if time.monotonic() > ends:
                        return counts
                    counts[name][trial()] += 1
    return counts


def _ssh_version() -> str:
    return subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr.split(",")[0]


def main() -> None:
    """Run, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=100, help="how often each point is struck")
    parser.add_argument("--cuts", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="WORDS", help="the blows whose name holds this, say 'line cut'")
    asked = parser.parse_args()
    versions = {"edgepack": edgepack.__version__, "python": platform.python_version(), "ssh": _ssh_version()}
    began = time.monotonic()
    counts = run(asked.seconds, asked.times, asked.cuts, asked.seed, asked.only)
    for name, found in counts.items():
        print(f"{name:36} {found.total():5}  " + ", ".join(f"{n} {word}" for word, n in sorted(found.items())),
              file=sys.stderr)  # fmt: skip
    print(
        json.dumps(
            {
                "benchmark": "reliability",
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "versions": versions,
                "seconds": round(time.monotonic() - began, 1),
                "trials": sum(found.total() for found in counts.values()),
                "rows": [{"blow": name, **dict(found)} for name, found in counts.items()],
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
