"""How long a first push takes against scp, over a real OpenSSH sshd here; its memory; what a repeated push costs.

    python benchmarks/push.py [--mib 4 40 400] [--runs 5] [--folder DIR]

It starts its own throw-away sshd. For each size, in pairs that alternate: the library call (log in, agent, transfer,
SHA-256 and fsync on the device, commit) and the whole ``edgepack push`` process, against ``scp`` alone and ``scp`` with
the ``sha256sum`` and the ``sync`` of that file that make it comparable. Prints a table on stderr and JSON on stdout.
Slow lines are those of ``links.py``.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from paired import paired_calls, show

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from deploying import TINY, tiny_target  # noqa: E402 (needs the path above)
from real_sshd import RealSshd  # noqa: E402

from edgepack.bundle.build import build_bundle  # noqa: E402
from edgepack.deploy.push import push  # noqa: E402
from edgepack.device import ConnectOptions, connect  # noqa: E402

# The library call, as a ratio: against a copy that is checked and on the disk too, and against a bare one.
GOAL_VERIFIED, GOAL_BARE = 0.8, 1.1
# Peak resident memory, for a bundle of any size: 100 MB and 64 MB.
GOAL_HOST_KIB, GOAL_DEVICE_KIB = 100_000_000 // 1024, 64_000_000 // 1024


class Bench:
    """One device, one bundle, and the ways to bring it there; every call brings it to a folder that is new.

    ``port`` is where the line to the sshd begins [the sshd itself].
    """

    def __init__(self, sshd: RealSshd, folder: Path, mib: int, port: int | None = None) -> None:
        self.sshd = sshd
        self.port = port or sshd.port
        self.address = f"{sshd.user}@127.0.0.1:{self.port}"
        self.known_hosts = folder / f"known_hosts-{self.port}"
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {sshd.host_key}\n")
        self.folder = folder
        self._number = itertools.count()
        model = folder / "model.tflite"
        # Incompressible bytes behind a real model, so that nothing on the way can be clever about them.
        model.write_bytes(TINY.read_bytes() + os.urandom(mib << 20))
        self.bundle = folder / "app.edgepack"
        build_bundle(model, target=tiny_target(), name="app", version="1.0.0", output=self.bundle, with_runtime=False)
        model.unlink()
        self._ssh_options = [
            "-q",
            "-F",
            os.devnull,
            "-i",
            str(sshd.key),
            "-o",
            f"UserKnownHostsFile={self.known_hosts}",
        ]

    @property
    def options(self) -> ConnectOptions:
        """What it takes to log in there."""
        return dataclasses.replace(self.sshd.options, known_hosts=self.known_hosts)

    def root(self) -> Path:
        """A new folder on the device."""
        return self.folder / "device" / str(next(self._number))

    def library(self) -> None:
        """The Python function."""
        push(self.bundle, self.address, options=dataclasses.replace(self.options, root=str(self.root())))

    def command(self) -> None:
        """The whole process, as a shell starts it."""
        subprocess.run(
            [sys.executable, "-m", "edgepack", "push", str(self.bundle), self.address, "--json",
             "--ssh-config", os.devnull, "-i", str(self.sshd.key), "--known-hosts", str(self.known_hosts),
             "--python", self.options.python, "--root", str(self.root())],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=REPOSITORY,
        )  # fmt: skip

    def scp(self) -> Path:
        """The file, copied and nothing else."""
        target = self.root()
        target.mkdir(parents=True)
        where = f"{self.sshd.user}@127.0.0.1:{target}/app"
        subprocess.run(["scp", "-P", str(self.port), *self._ssh_options, str(self.bundle), where], check=True)
        return target / "app"

    def scp_verified(self) -> None:
        """The file, copied, hashed there and on the disk there."""
        copied = self.scp()
        subprocess.run(
            ["ssh", "-p", str(self.port), *self._ssh_options, f"{self.sshd.user}@127.0.0.1",
             f"sha256sum {copied} && sync {copied}"],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def rsync(self) -> None:
        """The file, brought by rsync."""
        target = self.root()
        target.mkdir(parents=True)
        shell = shlex.join(["ssh", "-p", str(self.port), *self._ssh_options])
        where = f"{self.sshd.user}@127.0.0.1:{target}/app"
        subprocess.run(["rsync", "-e", shell, str(self.bundle), where], check=True)

    def clean(self) -> None:
        """Make room."""
        shutil.rmtree(self.folder / "device", ignore_errors=True)


def time_pushes(bench: Bench, mib: int, runs: int) -> list[dict[str, Any]]:
    """The rows of one size."""
    verified = "scp, sha256sum, sync"
    rows = []
    for name, work, against, other, goal in (
        (f"push {mib} MiB", bench.library, verified, bench.scp_verified, GOAL_VERIFIED),
        (f"push {mib} MiB", bench.library, "scp", bench.scp, GOAL_BARE),
        (f"edgepack push {mib} MiB", bench.command, verified, bench.scp_verified, None),
    ):
        rows.append(paired_calls(name, work, against, other, runs, goal=goal))
        bench.clean()
    show(rows)
    return rows


def measure_memory(bench: Bench) -> dict[str, Any]:
    """Peak resident memory of the host's process and of the agent, of one push in a process of its own."""
    root = bench.root()
    answer = subprocess.run(
        [sys.executable, __file__, "--one", str(bench.bundle), bench.sshd.address, str(bench.sshd.folder), str(root)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    bench.clean()
    peak = json.loads(answer.stdout)
    return {**peak, "met": peak["host_kib"] <= GOAL_HOST_KIB and peak["device_kib"] <= GOAL_DEVICE_KIB}


def push_once(bundle: Path, address: str, keys: Path, root: Path) -> dict[str, int]:
    """One push in this process, and the memory that it took at both ends."""
    options = dataclasses.replace(RealSshd(keys).options, root=str(root))
    before = peak_kib("self")
    with connect(address, options, app="app", lock=True) as session:
        push(bundle, session)
        agent = json.loads((root / "lock").read_text())["pid"]
        return {"host_kib": peak_kib("self"), "host_before_kib": before, "device_kib": peak_kib(agent)}


def peak_kib(process: int | str) -> int:
    """The most memory that a process had resident so far (proc(5), VmHWM)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def push_again(bench: Bench) -> dict[str, Any]:
    """What a push costs that finds everything there: bytes of files, bytes on the wire, round trips after ``hello``."""
    root = bench.root()
    options = dataclasses.replace(bench.options, root=str(root))
    for _ in range(2):
        with connect(bench.address, options, app="app", lock=True) as session:
            greeted = session.round_trips
            document = push(bench.bundle, session)
            wire, after = session.bytes_sent, session.round_trips - greeted
    bench.clean()
    met = document.bytes.sent == 0 and after <= 1
    return {"file_bytes": document.bytes.sent, "wire_bytes": wire, "round_trips_after_hello": after, "met": met}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, nargs="+", default=[4, 40, 400])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where both ends' files lie [the system's temporary folder]")
    parser.add_argument("--one", nargs=4, type=str, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        bundle, address, keys, root = arguments.one
        print(json.dumps(push_once(Path(bundle), address, Path(keys), Path(root))))
        return
    rows, memory, again = [], {}, {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        with RealSshd(folder / "sshd", "Subsystem=sftp internal-sftp") as sshd:
            for mib in arguments.mib:
                bench = Bench(sshd, folder, mib)
                rows += time_pushes(bench, mib, arguments.runs)
                memory[f"{mib} MiB"] = measure_memory(bench)
                again[f"{mib} MiB"] = push_again(bench)
    for size in memory:
        print(f"{size}: memory {memory[size]}; again {again[size]}", file=sys.stderr)
    print(json.dumps({"benchmark": "push", "rows": rows, "memory": memory, "again": again}, indent=2))


if __name__ == "__main__":
    main()
