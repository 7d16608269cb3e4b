"""A model's outputs, row by row, on whichever TFLite runtime is asked: what ``matrix.py`` and ``closeness.py`` compare.

    python benchmarks/interpreting.py tflite_runtime '[["model.tflite", "model.check.npz"]]'

runs models on the inputs of their check sets in a process of its own, because two runtimes in one process die; each
model's outputs go into MODEL.answer.npy, what fails is a JSON line [MODEL, reason]. It needs numpy and the runtime.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import numpy as np


def outputs(interpreter: Any, x: np.ndarray) -> np.ndarray:
    """Float32 [rows, ...] of a model with one input, batch 1, and one output, quantized and dequantized as it says."""
    interpreter.allocate_tensors()
    [taken], [given] = interpreter.get_input_details(), interpreter.get_output_details()
    if taken["dtype"] != x.dtype:
        (scale, zero), limits = taken["quantization"], np.iinfo(taken["dtype"])
        x = np.clip(np.rint(x / np.float32(scale)) + zero, limits.min, limits.max).astype(taken["dtype"])
    rows = []
    for row in x:
        interpreter.set_tensor(taken["index"], row.reshape(taken["shape"]))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(given["index"])[0])
    answered = np.array(rows).astype(np.float32)
    if given["dtype"] != np.float32:
        scale, zero = given["quantization"]
        answered = (answered - zero) * np.float32(scale)
    return answered


def main() -> None:
    """Run each model on its check set's input."""
    runtime, asked = sys.argv[1:]
    interpreter = importlib.import_module(f"{runtime}.interpreter").Interpreter
    for path, check in json.loads(asked):
        try:
            x = next(array for name, array in np.load(check).items() if name.startswith(("input/", "raw/")))
            np.save(f"{path}.answer.npy", outputs(interpreter(path, num_threads=1), x))
        except Exception as error:  # noqa: BLE001 (whatever a runtime raises is a row of the table)
            print(json.dumps([path, f"{type(error).__name__}: {error}"]), flush=True)


if __name__ == "__main__":
    main()
