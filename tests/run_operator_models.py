"""Runs every .tflite of the folder argv[1] on one sample, on the runtime argv[2]: tflite_runtime or ai_edge_litert.

Prints JSON: a file's name to its outputs in one row, as text; null where the runtime refuses it, fails or dies. Has to
run on Python 3.8: tflite-runtime 2.13 ends at 3.10.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np


def answers(interpreter):  # type: ignore[no-untyped-def]
    """The outputs, dequantized."""
    interpreter.allocate_tensors()
    draw = np.random.default_rng(0)
    for port in interpreter.get_input_details():
        sample = draw.normal(size=port["shape"])
        scale, zero = port["quantization"]
        if scale:
            sample = np.clip(np.round(sample / scale) + zero, -128, 127)
        interpreter.set_tensor(port["index"], sample.astype(port["dtype"]))
    interpreter.invoke()
    row = []
    for port in interpreter.get_output_details():
        output = interpreter.get_tensor(port["index"]).astype(np.float64).ravel()
        scale, zero = port["quantization"]
        row += [str(value) for value in ((output - zero) * scale if scale else output)]
    return row


def tried(runtime, path):  # type: ignore[no-untyped-def]
    """The answers, worked out in a child: some models end the process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            with os.fdopen(writer, "w") as answer:
                json.dump(answers(runtime.Interpreter(str(path))), answer)
        except (RuntimeError, ValueError):
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    return json.loads(text) if os.waitpid(child, 0)[1] == 0 else None


runtime = importlib.import_module(f"{sys.argv[2]}.interpreter")
paths = sorted(Path(sys.argv[1]).glob("*.tflite"))
sys.stdout.write(json.dumps({path.name: tried(runtime, path) for path in paths}))
