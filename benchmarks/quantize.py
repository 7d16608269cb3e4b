"""How long ``edgepack quantize`` takes against the shortest plain TFLiteConverter scripts; the goal is 1.05 at most.

    python benchmarks/quantize.py [--runs 5] [--data FOLDER]

The keyword-spotting SavedModel of MLPerf Tiny, 100 samples, int8, no evaluation; whole processes in turn. There are two
plain scripts, because TensorFlow alone reads that file of Keras 2 in neither way: one loads it as a Keras model, one
hands the folder to the converter. Neither pins the batch, inspects its result or compares it with the source. Prints a
table on stderr and JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from paired import paired, show

GOAL = 1.05

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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "mlperf-tiny"
    parser.add_argument("--data", type=Path, default=beside, help="the folder mlperf-tiny")
    options = parser.parse_args()
    model, samples = options.data / "kws" / "saved_model", options.data / "kws" / "samples.npz"
    if not model.is_dir():
        print(f"quantize: {model} is not there; name the MLPerf Tiny data with --data", file=sys.stderr)
        print(json.dumps({"benchmark": "quantize", "rows": []}))
        return
    with tempfile.TemporaryDirectory() as folder:
        ours = [sys.executable, "-m", "edgepack", "quantize", str(model), "--target", "x86-64"]
        ours += ["--calibration", f"{samples}#0:100", "-o", f"{folder}/ours.tflite"]
        rows = [
            paired(
                "edgepack quantize", ours, name,
                [sys.executable, "-c", script + _CONVERT, str(model), str(samples), f"{folder}/plain.tflite"],
                options.runs, goal=GOAL,
            )
            for name, script in (("plain, load_model", _FROM_KERAS), ("plain, from_saved_model", _FROM_FOLDER))
        ]  # fmt: skip
    show(rows)
    print(json.dumps({"benchmark": "quantize", "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
