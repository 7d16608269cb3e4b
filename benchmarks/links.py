"""How long a first push takes over slow lines, against bare ``scp`` and ``rsync`` over the same line.

    python benchmarks/links.py [--runs 3] [--mib 4] [--folder DIR]

A throw-away OpenSSH sshd behind a proxy in user space, a process of its own, that delays every byte (20 and 100 ms for
a round trip) or limits the rate (20 Mbit/s in each direction; it stands for Linux's TBF, which needs root). All are
whole processes, in pairs that alternate. ``edgepack push`` has its SHA-256 checked and is on the device's disk when it
ends; the others promise neither. Prints a table on stderr and JSON on stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from paired import paired_calls, show
from push import REPOSITORY, Bench
from real_sshd import RealSshd

GOAL = 1.0
LINES = (("20 ms", ("--rtt-ms", "20")), ("100 ms", ("--rtt-ms", "100")), ("20 Mbit/s", ("--mbit-s", "20")))


@contextlib.contextmanager
def slow_line(port: int, settings: Sequence[str]) -> Iterator[int]:
    """A line to ``port`` on 127.0.0.1 with those settings of tests/cutting_proxy.py; gives the port of its near end."""
    program = [sys.executable, str(REPOSITORY / "tests" / "cutting_proxy.py"), str(port), *settings]
    # It ends when its input does: communicate() closes it, and waits.
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            yield int(next(iter(proxy.stdout or ())))
        finally:
            proxy.communicate()


def time_line(bench: Bench, line: str, mib: int, runs: int) -> list[dict[str, Any]]:
    """The rows of one line."""
    rows = []
    for name, other in (("scp", bench.scp), ("rsync", bench.rsync)):
        ours = f"edgepack push {mib} MiB, {line}"
        rows.append(paired_calls(ours, bench.command, name, other, runs, goal=GOAL))
        bench.clean()
    show(rows)
    return rows


def need_rivals() -> None:
    """End in plain words where a program that is compared with is missing."""
    lacking = [name for name in ("ssh", "scp", "rsync") if shutil.which(name) is None]
    if lacking:
        sys.exit(f"This needs {', '.join(lacking)} (Debian: sudo apt install openssh-client rsync).")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--mib", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where both ends' files lie [the system's temporary folder]")
    arguments = parser.parse_args()
    need_rivals()
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        with RealSshd(folder / "sshd", "Subsystem=sftp internal-sftp") as sshd:
            for line, settings in LINES:
                with slow_line(sshd.port, settings) as port:
                    rows += time_line(Bench(sshd, folder, arguments.mib, port), line, arguments.mib, arguments.runs)
    print(json.dumps({"benchmark": "links", "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
