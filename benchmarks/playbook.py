"""How long a push takes against Ansible's ``copy`` and ``command`` of the same bundle: whole process and library call.

    python benchmarks/playbook.py [--runs 3] [--mib 4] [--ansible FOLDER] [--folder DIR]

Ansible is warmed up: pipelining is on, no facts are gathered, and its SSH connection stays open from run to run, while
every push logs in anew. ``copy`` brings the bundle, ``command`` runs ``sha256sum`` on it. ansible-playbook
is taken from ``--ansible`` or the PATH; where there is none, the JSON says so. Prints a table on stderr and JSON on
stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from paired import paired_calls, show
from push import Bench
from real_sshd import RealSshd

# At least five times faster.
GOAL = 0.2
_PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - copy: {src: "{{ bundle }}", dest: "{{ root }}/app"}
    - command: {argv: [sha256sum, "{{ root }}/app"]}
"""


class Ansible:
    """Ansible, set up for one bench."""

    def __init__(self, program: str, bench: Bench) -> None:
        self._program = program
        self._bench = bench
        self._play = bench.folder / "play.yml"
        self._play.write_text(_PLAY)
        self._inventory = bench.folder / "inventory"
        self._inventory.write_text(
            f"device ansible_host=127.0.0.1 ansible_port={bench.port} ansible_user={bench.sshd.user} "
            f"ansible_ssh_private_key_file={bench.sshd.key} ansible_python_interpreter={sys.executable}\n"
        )
        known = f"-F {os.devnull} -o UserKnownHostsFile={bench.known_hosts}"
        self._environment = os.environ | {
            "ANSIBLE_PIPELINING": "True",
            "ANSIBLE_SSH_ARGS": f"{known} -o ControlMaster=auto -o ControlPersist=60s",
            "ANSIBLE_HOME": str(bench.folder / "ansible"),
        }

    def copy(self) -> None:
        """The bundle, copied and hashed there."""
        root = self._bench.root()
        root.mkdir(parents=True)
        variables = json.dumps({"bundle": str(self._bench.bundle), "root": str(root)})
        subprocess.run(
            [self._program, "-i", str(self._inventory), str(self._play), "-e", variables],
            check=True, stdout=subprocess.DEVNULL, env=self._environment,
        )  # fmt: skip

    def version(self) -> str:
        """What it calls itself."""
        told = subprocess.run([self._program, "--version"], check=True, capture_output=True, text=True)
        return told.stdout.splitlines()[0]


def time_playbook(bench: Bench, program: str | None, mib: int, runs: int) -> dict[str, Any]:
    """The figures, or why there are none."""
    if program is None:
        print("no ansible-playbook: not measured (pip install ansible-core, then --ansible FOLDER)", file=sys.stderr)
        return {"benchmark": "playbook", "missing": "ansible-playbook", "rows": []}
    ansible = Ansible(program, bench)
    other = "Ansible's copy and command"
    rows = [
        paired_calls(name, ours, other, ansible.copy, runs, goal=GOAL)
        for name, ours in ((f"edgepack push {mib} MiB", bench.command), (f"push {mib} MiB", bench.library))
    ]
    show(rows)
    return {"benchmark": "playbook", "ansible": ansible.version(), "rows": rows}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--mib", type=int, default=4)
    parser.add_argument("--ansible", type=Path, help="the folder that holds ansible-playbook [the PATH]")
    parser.add_argument("--folder", type=Path, help="where both ends' files lie [the system's temporary folder]")
    arguments = parser.parse_args()
    program = shutil.which("ansible-playbook", path=arguments.ansible)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        with RealSshd(folder / "sshd", "Subsystem=sftp internal-sftp") as sshd:
            found = time_playbook(Bench(sshd, folder, arguments.mib), program, arguments.mib, arguments.runs)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
