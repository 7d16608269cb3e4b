"""What ``edgepack quantize`` costs against the shortest plain TFLiteConverter scripts: time, and peak memory.

    python benchmarks/quantize.py [--runs 5] [--data FOLDER] [--only plain,schemes,cached,memory]

``plain``, ``schemes`` and ``cached`` take the keyword-spotting SavedModel of MLPerf Tiny, 100 samples, int8, no
evaluation; whole processes in turn. There are two plain scripts, because TensorFlow alone reads that file of Keras 2 in
neither way: one loads it as a Keras model, one hands the folder to the converter. Neither pins the batch, inspects its
result or compares it with the source. ``schemes`` compares four targets in one run with one, ``cached`` a run whose
results are all in the cache with the plain scripts. ``memory`` converts a small network of images with 2,000 samples of
96x96x3 (221 MB) and adds up the proportional set sizes of the process tree (Linux). Prints a table on stderr and JSON
on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paired import paired, show

PARTS = ("plain", "schemes", "cached", "memory")
SCHEMES = ("int8", "dynamic", "float16", "int16x8")
EDGEPACK = [sys.executable, "-m", "edgepack", "quantize"]

_CONVERT = """
x = numpy.load(sys.argv[2])["x"]
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = lambda: ([x[i:i + 1]] for i in range(100))
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
converter.inference_input_type = converter.inference_output_type = tf.int8
open(sys.argv[3], "wb").write(converter.convert())
"""
_FROM_KERAS = """
import os, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy, tensorflow as tf
converter = tf.lite.TFLiteConverter.from_keras_model(tf.keras.models.load_model(sys.argv[1]))
"""
_FROM_FOLDER = """
import sys
import numpy, tensorflow as tf, tf_keras
converter = tf.lite.TFLiteConverter.from_saved_model(sys.argv[1])
"""

_NETWORK = """
import sys
import keras, numpy
layers = [keras.Input((96, 96, 3))]
for filters in (16, 32, 64):
    layers.append(keras.layers.Conv2D(filters, 3, 2, activation="relu"))
keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]).save(sys.argv[1])
numpy.savez(sys.argv[2], x=numpy.random.default_rng(0).random((2000, 96, 96, 3), "float32"))
"""
_CONVERT_NETWORK = """
import sys
import numpy, tensorflow as tf
x = numpy.load(sys.argv[2])["x"]
converter = tf.lite.TFLiteConverter.from_keras_model(tf.keras.models.load_model(sys.argv[1]))
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = lambda: ([x[i:i + 1]] for i in range(2000))
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
converter.inference_input_type = converter.inference_output_type = tf.int8
open(sys.argv[3], "wb").write(converter.convert())
"""


def timed(parts: list[str], data: Path, folder: Path, runs: int) -> Iterator[dict[str, Any]]:
    """The rows of ``plain``, ``schemes`` and ``cached``."""
    model, samples = data / "kws" / "saved_model", data / "kws" / "samples.npz"
    one = [*EDGEPACK, str(model), "--target", "x86-64", "--calibration", f"{samples}#0:100"]
    one += ["-o", f"{folder}/ours.tflite"]
    plain = [
        (name, [sys.executable, "-c", script + _CONVERT, str(model), str(samples), f"{folder}/plain.tflite"])
        for name, script in (("plain, load_model", _FROM_KERAS), ("plain, from_saved_model", _FROM_FOLDER))
    ]
    for name, command in plain:
        if "plain" in parts:
            yield paired("edgepack quantize", [*one, "--no-cache"], name, command, runs, goal=1.05)
        if "cached" in parts:  # the first run, which fills the cache, is the warm-up
            yield paired("edgepack quantize, cached", one, name, command, runs, goal=0.1)
    if "schemes" in parts:
        profiles = [folder / f"{scheme}.toml" for scheme in SCHEMES]
        for scheme, path in zip(SCHEMES, profiles, strict=True):
            path.write_text(f'extends = "x86-64"\n[quantization]\nscheme = "{scheme}"\n')
        targets = [word for path in profiles for word in ("--target", str(path))]
        four = [*EDGEPACK, str(model), *targets, "--calibration", f"{samples}#0:100"]
        four += ["-o", str(folder / "{target}.tflite"), "--no-cache"]
        yield paired("four schemes in one run", four, "one scheme", [*one, "--no-cache"], runs, goal=1.6)


def memory(folder: Path, runs: int) -> dict[str, Any]:
    """Peak memory of both sides in turn, in bytes, and the ratio of each pair."""
    model, samples = folder / "network.keras", folder / "samples.npz"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([sys.executable, "-c", _NETWORK, str(model), str(samples)], check=True, **quiet)
    ours = [*EDGEPACK, str(model), "--target", "x86-64", "--calibration", str(samples), "--no-cache"]
    ours += ["-o", f"{folder}/ours.tflite"]
    plain = [sys.executable, "-c", _CONVERT_NETWORK, str(model), str(samples), f"{folder}/plain.tflite"]
    peaks = [(peak_bytes(ours), peak_bytes(plain)) for _ in range(runs)]
    ratios = [a / b for a, b in peaks]
    median = statistics.median(ratios)
    return {
        "a": "edgepack quantize, 2,000 samples",
        "b": "plain, load_model",
        "runs": runs,
        "a_bytes": statistics.median(a for a, _ in peaks),
        "b_bytes": statistics.median(b for _, b in peaks),
        "ratio": {"median": median, "min": min(ratios), "max": max(ratios)},
        "goal": 1.1,
        "met": median <= 1.1,
    }


def peak_bytes(command: list[str]) -> int:
    """The largest sum of the proportional set sizes of a command and all that it starts, looked at 20 times a second.

    Shared pages count once (https://docs.kernel.org/filesystems/proc.html, smaps_rollup).
    """
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(_pss, _tree(process.pid))))
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"quantize: {' '.join(command[:4])} ended with {process.returncode}")
    return peak


def _tree(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has just ended
        return []
    return [pid, *(one for child in children for one in _tree(child))]


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "mlperf-tiny"
    parser.add_argument("--data", type=Path, default=beside, help="the folder mlperf-tiny")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS))
    options = parser.parse_args()
    if not options.data.is_dir():
        print(f"quantize: {options.data} is not there; name the MLPerf Tiny data with --data", file=sys.stderr)
        options.only = [part for part in options.only if part == "memory"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        if options.data.is_dir():
            for row in timed(options.only, options.data, Path(folder), options.runs):
                show([row])
                rows.append(row)
        if "memory" in options.only:
            rows.append(memory(Path(folder), options.runs))
            print("{a}: {a_bytes:.3e} bytes  {b}: {b_bytes:.3e}  ratio {ratio[median]:.3f}".format(**rows[-1]),
                  file=sys.stderr)  # fmt: skip
    print(json.dumps({"benchmark": "quantize", "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
