"""Whether the median latency that ``check`` reports is that of a bare loop, and how much of its time is edgepack's own.

    python benchmarks/latency.py [MODEL.tflite ...] [--pairs 9] [--seconds 2] [--data FOLDER]

The goals: the medians at most 3 % apart, and at most 2 % of a reported time edgepack's own. A bare loop is a process of
the same Python with the same runtime that sets an input, reads the clock, invokes and reads the clock, nothing else.
Check and bare loop run in turns (A B B A ...) in the same minutes, one thread each; the median of the pairs' ratios
counts. The own share is what the loader's timing takes around a call that does nothing, ``between`` what of the timed
phase lay between the times: setting the input, keeping the time, looking at the device. Without models it takes MLPerf
Tiny's. Prints a table on stderr and JSON on stdout.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import edgepack
from edgepack.device import ConnectOptions
from edgepack.documents import CheckDocument
from edgepack.ondevice import loader
from edgepack.target import Platform, load_target

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "mlperf-tiny"
TINY = ("wakeword/str_ww_ref_model.tflite", "image/pretrainedResnet.tflite", "anomaly/ad01_fp32.tflite")
GOAL_APART = 0.03
GOAL_OWN_SHARE = 0.02

BARE_LOOP = """
import importlib, sys, time
import numpy
module, path, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
interpreter = importlib.import_module(module).Interpreter(model_path=path, num_threads=1)
interpreter.allocate_tensors()
[taken] = interpreter.get_input_details()
random = numpy.random.RandomState(0)
kind = numpy.dtype(taken["dtype"])
limits = (-1, 1) if kind.kind == "f" else (numpy.iinfo(kind).min, numpy.iinfo(kind).max)
x = random.uniform(*limits, taken["shape"]).astype(kind)
clock = time.perf_counter_ns
found, warm, end = [], time.monotonic() + seconds / 4, time.monotonic() + seconds * 1.25
while time.monotonic() < end:
    interpreter.set_tensor(taken["index"], x)
    before = clock()
    interpreter.invoke()
    after = clock()
    if time.monotonic() > warm:
        found.append(after - before)
print(sorted(found)[len(found) // 2])
"""
MODULES = {"tflite-runtime": "tflite_runtime.interpreter", "ai-edge-litert": "ai_edge_litert.interpreter"}


def bare_p50_ms(model: Path, package: str, seconds: float) -> float:
    """The median of a bare loop's invokes in milliseconds."""
    command = [sys.executable, "-I", "-c", BARE_LOOP, MODULES[package], str(model), str(seconds)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return int(told) / 1e6


class Nothing:
    """A model that takes no time."""

    def set_raw(self, tensors: list[Any]) -> None:
        """Takes no input."""

    def bare_invoke(self) -> Callable[[], None]:
        """What does nothing."""
        return lambda: None


def own_ms() -> float:
    """What the loader's timing adds to a time, in milliseconds."""
    times = list(itertools.islice(loader.timed_runs(Nothing(), [[]]), 20_000))
    return statistics.median(times) / 1e6


def between(document: CheckDocument) -> float:
    """What of the timed phase was not ``invoke``, from the first to the last look at the device during it."""
    evidence = document.evidence
    looks = [look for look in evidence.series if look["run"]] if evidence is not None else []
    if evidence is None or len(looks) < 2:
        raise SystemExit("too short: the device was not looked at twice during the runs (raise --seconds)")
    first, last = looks[0], looks[-1]
    invoked = evidence.latency_ns[first["run"] // evidence.every : last["run"] // evidence.every]
    return 1 - sum(invoked) * evidence.every / 1e9 / (last["at_s"] - first["at_s"])


def measure(model: Path, pairs: int, seconds: float, folder: Path) -> dict[str, Any]:
    """One row: ``check`` of a model on this machine against a bare loop."""
    libc = "-".join(platform.libc_ver())
    here = Platform(f"3.{sys.version_info.minor}", platform.machine(), libc)
    bundle = folder / f"{model.stem}.edgepack"
    edgepack.bundle(
        model,
        target=load_target("x86-64" if here.arch == "x86_64" else "generic-cpu"),
        name="latency",
        version="1",
        output=bundle,
        platforms=[here],
        with_runtime=False,
    )
    where: dict[str, Any] = {
        "device": f"local:{folder / model.stem}",
        "options": ConnectOptions(python=sys.executable),
    }
    edgepack.push(bundle, **where)
    ratios, shares, checked, bare = [], [], [], []
    for pair in range(pairs):
        for side in ("check", "bare") if pair % 2 == 0 else ("bare", "check"):
            if side == "check":
                document = edgepack.check(min_seconds=seconds, max_seconds=seconds * 10, **where)
                checked.append(document.latency_ms.p50 or 0.0)
                shares.append(between(document))
            else:
                bare.append(bare_p50_ms(model, installed(), seconds))
        ratios.append(checked[-1] / bare[-1])
    ratio, own = statistics.median(ratios), own_ms() / statistics.median(checked)
    return {
        "model": model.name,
        "runtime": dict(document.runtime),
        "pairs": pairs,
        "check_p50_ms": statistics.median(checked),
        "bare_p50_ms": statistics.median(bare),
        "ratio": ratio,
        "ratio_from": min(ratios),
        "ratio_to": max(ratios),
        "own_share": own,
        "between": statistics.median(shares),
        "met": abs(ratio - 1) <= GOAL_APART and own <= GOAL_OWN_SHARE,
    }


def installed() -> str:
    """The TFLite runtime of this Python, as the device's agent finds it."""
    return next(name for name, module in MODULES.items() if importlib.util.find_spec(module.split(".")[0]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, help="models with one input")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="of timed runs, of each side of a pair")
    parser.add_argument("--data", type=Path, default=BESIDE, help="the folder mlperf-tiny")
    arguments = parser.parse_args()
    models = arguments.models or [arguments.data / name for name in TINY]
    rows = []
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            row = measure(model, arguments.pairs, arguments.seconds, Path(folder))
        rows.append(row)
        print(
            f"{row['model']:<28} check {row['check_p50_ms']:.4f} ms, bare {row['bare_p50_ms']:.4f} ms, ratio"
            f" {row['ratio']:.3f} ({row['ratio_from']:.3f} to {row['ratio_to']:.3f}), own share {row['own_share']:.2%},"
            f" between {row['between']:.1%}{'' if row['met'] else '  MISSED'}",
            file=sys.stderr,
        )
    print(json.dumps({"benchmark": "latency", "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
