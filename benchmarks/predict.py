"""How much ``predict`` costs over a bare interpreter loop that quantizes and dequantizes the same way.

    python benchmarks/predict.py [MODEL.tflite ...] [--pairs 401] [--seconds 0.01]

The goal: at most 2 %, or at most 20 microseconds a call. Both sides run in this process on the same runtime, one
thread, in blocks that alternate. Without models it takes the tests' tiny int8 one, whose invoke is almost free: the
hardest case for the ratio, the clearest for the microseconds. Prints a table on stderr and JSON on stdout.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from paired import paired_calls, show

REPOSITORY = Path(__file__).resolve().parent.parent
GOAL_RATIO = 1.02
GOAL_EXTRA_US = 20.0


def load_model(model: Path, folder: Path) -> Any:
    """The model as a release's loader loads it."""
    data = model.read_bytes()
    (folder / "model.tflite").write_bytes(data)
    manifest = {"schema": 1, "model": {"file": "model.tflite", "sha256": hashlib.sha256(data).hexdigest()}, "files": []}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    spec = importlib.util.spec_from_file_location("loader", REPOSITORY / "edgepack" / "ondevice" / "loader.py")
    if spec is None or spec.loader is None:
        raise SystemExit("edgepack/ondevice/loader.py is not where it should be")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    return loader.Model(str(folder), threads=1)


def bare_loop(model: Any, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """What a careful person writes by hand with the same runtime: quantize, set, invoke, get, dequantize."""
    package = sys.modules[{"tflite-runtime": "tflite_runtime", "ai-edge-litert": "ai_edge_litert"}[model.package]]
    interpreter = sys.modules[f"{package.__name__}.interpreter"].Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = (np.float32(value) for value in source["quantization"])
    scale_out, zero_out = (np.float32(value) for value in result["quantization"])
    quantized, quantized_out = source["dtype"] != np.float32, result["dtype"] != np.float32
    low, high = (np.iinfo(source["dtype"]).min, np.iinfo(source["dtype"]).max) if quantized else (0, 0)

    def predict(x: np.ndarray) -> np.ndarray:
        q = np.clip(np.rint(x / scale) + zero, low, high).astype(source["dtype"]) if quantized else x
        interpreter.set_tensor(source["index"], q)
        interpreter.invoke()
        y = interpreter.get_tensor(result["index"])
        return (y.astype(np.float32) - zero_out) * scale_out if quantized_out else y

    return predict


def measure(path: Path, pairs: int, seconds: float) -> dict[str, Any]:
    """One row: blocks of ``predict`` against blocks of the bare loop."""
    with tempfile.TemporaryDirectory() as folder, load_model(path, Path(folder)) as model:
        bare = bare_loop(model, path)
        shape = [abs(n) for n in model.inputs[0].shape]
        x = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
        if not np.array_equal(bare(x), model.predict(x)):
            raise SystemExit(f"{path}: predict and the bare loop do not agree")
        started = time.perf_counter()
        calls = 0
        while time.perf_counter() - started < seconds or not calls:
            bare(x)
            calls += 1

        def block(predict: Callable[[np.ndarray], np.ndarray]) -> None:
            for _ in range(calls):
                predict(x)

        row = paired_calls(
            f"predict {path.name}",
            lambda: block(model.predict),
            "bare loop",
            lambda: block(bare),
            pairs,
            goal=GOAL_RATIO,
        )
        # The fastest block of each: other programs only ever add to a time.
        extra = (row["a_seconds"]["min"] - row["b_seconds"]["min"]) / calls * 1e6
        row.update(
            calls=calls,
            runtime=model.runtime_info(),
            call_us=row["b_seconds"]["min"] / calls * 1e6,
            extra_us=extra,
            goal_extra_us=GOAL_EXTRA_US,
            met=bool(row["met"] or extra <= GOAL_EXTRA_US),
        )
        return row


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, help="models with one input and one output")
    parser.add_argument("--pairs", type=int, default=401)
    parser.add_argument("--seconds", type=float, default=0.01, help="length of a block")
    arguments = parser.parse_args()
    models = arguments.models or [REPOSITORY / "tests" / "data" / "tiny_int8.tflite"]
    rows = [measure(path, arguments.pairs, arguments.seconds) for path in models]
    show(rows)
    for row in rows:
        print(
            f"{row['a']:<34} {row['call_us']:.1f} µs a bare call, {row['extra_us']:+.1f} µs with predict",
            file=sys.stderr,
        )
    print(json.dumps({"benchmark": "predict", "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
