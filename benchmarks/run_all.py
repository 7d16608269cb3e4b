"""Every benchmark of this folder, one after the other, on this machine.

    python benchmarks/run_all.py

Tables go to stderr, one JSON document with all of them to stdout. Takes several minutes; docs/benchmarks.md says what
the figures mean.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    "startup.py",
    "quantize.py",
    "matrix.py",
    "closeness.py",
    "predict.py",
    "latency.py",
    "claims.py",
    "bundle.py",
    "fuzz.py",
    "speed.py",
)


def main() -> None:
    """Run each script; one that fails ends the run."""
    folder = Path(__file__).parent
    documents = {}
    for script in SCRIPTS:
        print(f"== {script}", file=sys.stderr)
        done = subprocess.run([sys.executable, str(folder / script)], stdout=subprocess.PIPE, check=True)
        documents[script.removesuffix(".py")] = json.loads(done.stdout)
    print(json.dumps(documents, indent=2))


if __name__ == "__main__":
    main()
