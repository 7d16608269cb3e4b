"""How long ``edgepack --help`` takes against ``python -c "import typer"``; the goal is a ratio of at most 1.5.

    python benchmarks/startup.py [--runs 15]

Whole processes, alternating, so that a drifting machine touches both alike. Prints a table on stderr, JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys

from paired import paired, show

GOAL = 1.5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    help_command = [sys.executable, "-m", "edgepack", "--help"]
    rows = [
        paired("edgepack --help", help_command, "import typer", [sys.executable, "-c", "import typer"], runs, goal=GOAL)
    ]
    show(rows)
    print(json.dumps({"benchmark": "startup", "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
