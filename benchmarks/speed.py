"""The proof of speed: every figure of pushing against scp, rsync and Ansible, in one run on one machine.

    python benchmarks/speed.py [--quick] [--ansible FOLDER] [--folder DIR]

Runs ``push.py``, ``links.py``, ``playbook.py`` and ``delta.py``, one after the other. ``--quick`` leaves out 400 MiB
and the models that TensorFlow makes, and takes one pair of each. Prints their tables on stderr, then every goal that
was missed; one JSON document with all of them, the date, the versions and the load is on stdout. A goal that was missed
does not end the run: times on a shared machine stray.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from links import need_rivals

import edgepack


def conditions() -> dict[str, Any]:
    """When and with what this is measured."""
    clients = {
        "openssh": subprocess.run(["ssh", "-V"], check=True, capture_output=True, text=True).stderr.strip(),
        "rsync": subprocess.run(["rsync", "--version"], check=True, capture_output=True, text=True).stdout,
    }
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "edgepack": edgepack.__version__,
        "paramiko": importlib.metadata.version("paramiko"),
        "openssh": clients["openssh"],
        "rsync": clients["rsync"].splitlines()[0],
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def missed(found: Any, place: str = "") -> Iterator[str]:
    """Where in a document ``met`` is false: the names on the way there. Pure."""
    if isinstance(found, dict):
        if found.get("met") is False:
            name = found.get("case") or " against ".join(str(found[side]) for side in "ab" if side in found)
            yield f"{place} {name}".strip()
        for key, value in found.items():
            yield from missed(value, f"{place} {key}".strip())
    elif isinstance(found, list):
        for value in found:
            yield from missed(value, place)


def main() -> None:
    """Run each script; one that fails ends the run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, one pair of each")
    parser.add_argument("--ansible", help="the folder that holds ansible-playbook [the PATH]")
    parser.add_argument("--folder", help="where both ends' files lie [the system's temporary folder]")
    arguments = parser.parse_args()
    need_rivals()
    few = ["--runs", "1"] if arguments.quick else []
    scripts = {
        "push": [*few, *(["--mib", "4", "40"] if arguments.quick else [])],
        "links": few,
        "playbook": [*few, *(["--ansible", arguments.ansible] if arguments.ansible else [])],
    }
    if not arguments.quick:
        scripts["delta"] = []
    place = ["--folder", arguments.folder] if arguments.folder else []
    documents: dict[str, Any] = {"conditions": conditions()}
    for script, options in scripts.items():
        print(f"== {script}", file=sys.stderr)
        program = str(Path(__file__).with_name(f"{script}.py"))
        done = subprocess.run([sys.executable, program, *options, *place], stdout=subprocess.PIPE, check=True)
        documents[script] = json.loads(done.stdout)
    for goal in missed(documents):
        print(f"MISSED: {goal}", file=sys.stderr)
    print(json.dumps(documents, indent=2))


if __name__ == "__main__":
    main()
