"""Runs a .tflite on a TFLite runtime in a process of its own: two of them in one process die in a constructor."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

MODULES = {"ai-edge-litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
# tflite-runtime ends at Python 3.11.
INSTALLED = tuple(name for name, module in MODULES.items() if importlib.util.find_spec(module) is not None)
SCRIPT = """
import importlib, sys
import numpy as np
package, model, samples, answer = sys.argv[1:]
interpreter = importlib.import_module(package + ".interpreter").Interpreter(model, num_threads=1)
interpreter.allocate_tensors()
[taken], [given] = interpreter.get_input_details(), interpreter.get_output_details()
rows = []
for row in np.load(samples):
    value = row[None]
    if taken["dtype"] != np.float32:
        scale, zero = taken["quantization"]
        limits = np.iinfo(taken["dtype"])
        value = np.clip(np.rint(value / scale) + zero, limits.min, limits.max).astype(taken["dtype"])
    interpreter.set_tensor(taken["index"], value)
    interpreter.invoke()
    answered = interpreter.get_tensor(given["index"])[0]
    if given["dtype"] != np.float32:
        scale, zero = given["quantization"]
        answered = (answered.astype(np.float32) - zero) * scale
    rows.append(answered)
np.save(answer, np.array(rows))
"""


class Refused(Exception):
    """The runtime did not take the model."""


def run_on(runtime: str, model: Path, rows: np.ndarray[Any, Any], scratch: Path) -> np.ndarray[Any, Any]:
    """The outputs of a model with one float input and one output, row by row. Raises Refused with its words."""
    np.save(scratch / "rows.npy", rows)
    asked = [MODULES[runtime], str(model), str(scratch / "rows.npy"), str(scratch / "answer.npy")]
    ran = subprocess.run([sys.executable, "-c", SCRIPT, *asked], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise Refused(ran.stderr[-1000:])
    answer: np.ndarray[Any, Any] = np.load(scratch / "answer.npy")
    return answer
