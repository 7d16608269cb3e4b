"""How large bundles are against what they have to carry, and how fast inspect, verify and probe are.

    python benchmarks/bundle.py [--runs 7] [--data FOLDER] [--model KWS.tflite] [--only sizes,inspect,verify,probe]

``sizes``: the keyword spotter of MLPerf Tiny in int8 for one Raspberry Pi with bookworm: the bundle against the sum of
its wheels and model, and without the runtime against model and check set, also against the check set that float32
inputs would make (``--model`` takes one that ``edgepack quantize`` made before, with its check set beside it).
``inspect``: the whole process on a bundle of 100 MB against ``edgepack --help``. ``verify``: the library call on that
bundle against one pass of hashlib, and against ``sha256sum``.
``probe``: the library call (log in, agent, answer) over a real sshd against ``ssh HOST python -c pass``: what edgepack
needs beyond its own start, that is with everything imported. Prints a table on stderr and JSON on stdout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from paired import paired, paired_calls, show

REPOSITORY = Path(__file__).resolve().parent.parent
BESIDE = REPOSITORY.parent / "shared" / "data" / "mlperf-tiny"
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from deploying import TINY, tiny_target  # noqa: E402 (needs the path above)
from real_sshd import RealSshd  # noqa: E402

import edgepack  # noqa: E402
from edgepack.bundle import open_bundle  # noqa: E402
from edgepack.bundle.build import build_bundle  # noqa: E402
from edgepack.bundle.contents import part_bytes  # noqa: E402
from edgepack.target import Platform  # noqa: E402

PARTS = ("sizes", "inspect", "verify", "probe")
BOOKWORM = Platform("3.11", "aarch64", "glibc-2.36")
GOALS = {
    "with runtime": 1.02,
    "with runtime and check set": 1.02,
    "without runtime": 1.1,
    "inspect": 3.0,
    "verify": 1.1,
    "sha256sum": 1.0,
    "probe": 1.5,
}


def quantized(data: Path, folder: Path) -> Path:
    """The keyword spotter in int8, with a check set of 400 samples."""
    samples = data / "kws" / "samples.npz"
    output = folder / "kws.tflite"
    edgepack.quantize(
        data / "kws" / "saved_model", target="raspberry-pi-4", calibration=f"{samples}#0:100",
        evaluation=f"{samples}#100:500", output=output,
    )  # fmt: skip
    return output


def saved_bytes(check_set: Path) -> int:
    """What a check set takes less than with its inputs as float32."""
    with np.load(check_set) as arrays:
        return sum(4 * array.size - array.nbytes for name, array in arrays.items() if name.startswith("raw/"))


def sizes(model: Path, folder: Path) -> list[dict[str, Any]]:
    """Bundles of one model for one platform, against the bytes that nobody can leave out."""
    rows = []
    bare = folder / "bare" / "kws.tflite"
    bare.parent.mkdir()
    bare.write_bytes(model.read_bytes())
    saved = saved_bytes(model.with_suffix(".check.npz"))
    for what, source, with_runtime, parts, more in (
        ("with runtime", bare, True, ("model", "runtime"), 0),
        ("with runtime and check set", model, True, ("model", "runtime"), 0),
        ("without runtime", model, False, ("model", "check set"), 0),
        ("without runtime, as float32", model, False, ("model", "check set"), saved),
    ):
        bundle = edgepack.bundle(
            source, target="raspberry-pi-4", name="kws", version="1", output=folder / f"{what}.edgepack",
            platforms=[BOOKWORM], with_runtime=with_runtime,
        )  # fmt: skip
        found = part_bytes(open_bundle(Path(bundle.path)).entries.values())
        carried = sum(found[part] for part in parts) + more
        ratio, goal = bundle.bytes / carried, GOALS.get(what)
        rows.append(
            {
                "a": f"bundle {what}", "b": " + ".join(parts), "a_bytes": bundle.bytes, "b_bytes": carried,
                "ratio": ratio, "goal": goal, "met": None if goal is None else ratio <= goal,
            }
        )  # fmt: skip
        verdict = "" if goal is None else f"  goal {goal:.2f}  {'met' if ratio <= goal else 'MISSED'}"
        print(f"{rows[-1]['a']:<36} {bundle.bytes:>10} B   {rows[-1]['b']:<20} {carried:>10} B   "
              f"ratio {ratio:.4f}{verdict}", file=sys.stderr)  # fmt: skip
    return rows


def large_bundle(folder: Path) -> Path:
    """A bundle of 100 MB: a real model with incompressible bytes behind it."""
    model, path = folder / "large.tflite", folder / "large.edgepack"
    model.write_bytes(TINY.read_bytes() + os.urandom(100_000_000))
    build_bundle(model, target=tiny_target(), name="app", version="1", output=path, with_runtime=False)
    model.unlink()
    return path


def inspect(bundle: Path, runs: int) -> list[dict[str, Any]]:
    """Whole processes."""
    program = [sys.executable, "-m", "edgepack"]
    return [
        paired("inspect, 100 MB", [*program, "inspect", str(bundle)], "edgepack --help", [*program, "--help"], runs,
               goal=GOALS["inspect"])
    ]  # fmt: skip


def verify(bundle: Path, runs: int) -> list[dict[str, Any]]:
    """The library call against what the machine's own tools take to hash the same bytes."""

    def by_hashlib() -> None:
        with bundle.open("rb") as file:
            hashlib.file_digest(file, "sha256")

    def by_sha256sum() -> None:
        subprocess.run(["sha256sum", str(bundle)], check=True, stdout=subprocess.DEVNULL)

    def call() -> None:
        edgepack.verify(bundle)

    return [
        paired_calls("verify, 100 MB", call, "hashlib.file_digest", by_hashlib, runs, goal=GOALS["verify"]),
        paired_calls("verify, 100 MB", call, "sha256sum", by_sha256sum, runs, goal=GOALS["sha256sum"]),
    ]


def probe(folder: Path, runs: int) -> list[dict[str, Any]]:
    """Over an sshd of its own; both sides start the same Python there."""
    with RealSshd(folder / "sshd") as sshd:
        command = ["ssh", "-F", str(sshd.ssh_config), "device", sys.executable, "-c", "pass"]

        def pass_() -> None:
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

        def call() -> None:
            edgepack.probe(sshd.address, options=sshd.options)

        return [paired_calls("probe", call, "ssh HOST python -c pass", pass_, runs, goal=GOALS["probe"])]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--data", type=Path, default=BESIDE)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--only", default=",".join(PARTS))
    given = parser.parse_args()
    parts = given.only.split(",")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "sizes" in parts:
            rows += sizes(given.model or quantized(given.data, folder), folder)
        timed = []
        bundle = large_bundle(folder) if {"inspect", "verify"} & set(parts) else folder
        timed += inspect(bundle, given.runs) if "inspect" in parts else []
        timed += verify(bundle, given.runs) if "verify" in parts else []
        timed += probe(folder, given.runs) if "probe" in parts else []
        show(timed)
    print(json.dumps({"benchmark": "bundle", "rows": rows + timed}, indent=2))


if __name__ == "__main__":
    main()
