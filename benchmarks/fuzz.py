"""Hostile input for every reader of what strangers write: bundles, manifests, signatures, wheels, requests, replies.

    nice python benchmarks/fuzz.py [--cases 100000] [--seed N] [--room agent]

The goal is that every case ends in one of edgepack's own errors or is taken, that no file outside of the case's folder
is written, that no program is started, and that memory does not grow (docs/security.md). The first case that does
otherwise is made small, shown, and ends the run. Prints a table on stderr, JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from fuzzing import ROOMS, Room, try_room  # noqa: E402 (the tests' own)
from fuzzing_pinned import PINNED, signatures  # noqa: E402

ALL = (*ROOMS, PINNED)
ROUND = 1000
"""Cases after which Hypothesis forgets what it tried; it keeps some 60 KB of each."""


def fuzz(room: Room, cases: int, number: int) -> dict[str, object]:
    """What came of so many cases; raises what none of them may bring forth."""
    outcomes: Counter[str] = Counter()
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        for start in range(0, cases, ROUND):
            outcomes += try_room(room, Path(name), min(ROUND, cases), number + start)
    return {
        "room": room.name,
        "cases": sum(outcomes.values()),
        "seconds": round(time.monotonic() - began, 1),
        "peak_rss_growth_mib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024, 1),
        "outcomes": dict(outcomes.most_common()),
    }


def main() -> None:
    """Run the rooms one after the other; each takes an equal share of the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--room", choices=[room.name for room in ALL])
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "Duplicate name")  # of zipfile, about the archives that are made to be refused
    signatures()  # made by ssh-keygen, before no program may be started
    rooms = [room for room in ALL if options.room in (None, room.name)]
    rows = []
    for room in rooms:
        row = fuzz(room, -(-options.cases // len(rooms)), options.seed)
        rows.append(row)
        print("{room:10} {cases:7} cases {seconds:7} s  +{peak_rss_growth_mib} MiB  {outcomes}".format(**row),
              file=sys.stderr)  # fmt: skip
    print(
        json.dumps(
            {"benchmark": "fuzz", "seed": options.seed, "cases": sum(row["cases"] for row in rows), "rows": rows}
        )
    )


if __name__ == "__main__":
    main()
