"""How near edgepack's int8 models are to the float ones, beside the int8 models that MLPerf Tiny ships.

    python benchmarks/closeness.py [--data FOLDER] [--tiny CHECKOUT]

Keyword spotting: top-1 over the rows 100 and on, against MLPerf's own .900. Wake word: errors of the outputs against
the float model's over the 45 samples that the data has, with all of them as calibration samples, and over the last 15
with the first 30. Anomaly detection: the data holds neither an int8 model nor samples; a checkout of mlcommons/tiny
has both (ad01_int8.tflite, and the log-mel frames of one recording of a machine): the first half of the recording
calibrates, the second half is compared. So edgepack's model has seen this very machine, the shipped one many others.
Everything runs on ai-edge-litert. A table goes to stderr, JSON to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import interpreting
import numpy as np
from ai_edge_litert.interpreter import Interpreter

import edgepack

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "mlperf-tiny"
MLPERF_KWS = 0.900
# In mlcommons/tiny, seen at commit 1afd2c9.
AD01_INT8 = "benchmark/training/anomaly_detection/trained_models/ad01_int8.tflite"
RECORDING = "benchmark/reference_submissions/anomaly_detection/datasets/dcase01/normal_id_01_00000000_hist_librosa.bin"


def outputs(model: Path, x: np.ndarray) -> np.ndarray:
    """Float32 [rows, ...] of a model on ai-edge-litert."""
    return interpreting.outputs(Interpreter(str(model), num_threads=1), x.astype(np.float32))


def errors(name: str, plain: np.ndarray, answered: np.ndarray) -> dict[str, Any]:
    """Mean and largest error, and the signal-to-quantization-noise ratio in decibels."""
    off = np.abs(plain - answered)
    noise = float((off**2).sum())
    return {
        "model": name,
        "mean_error": float(off.mean()),
        "max_error": float(off.max()),
        "sqnr_db": 10 * float(np.log10(float((plain**2).sum()) / noise)) if noise else None,
        "samples": len(plain),
    }


def convert(model: Path, folder: Path, calibration: str) -> tuple[Path, Path]:
    """The model in float32 and in int8."""
    plain = folder / "float.toml"
    plain.write_text('extends = "generic-cpu"\n[quantization]\nscheme = "float32"\n')
    made = folder / f"{len(list(folder.iterdir()))}"
    made.mkdir()
    edgepack.quantize(model, target=[str(plain), "generic-cpu"], output=made, calibration=calibration)
    return made / "float.tflite", made / "generic-cpu.tflite"


def kws(data: Path, folder: Path) -> list[dict[str, Any]]:
    """Top-1 of both."""
    samples = data / "kws" / "samples.npz"
    x, y = (np.load(samples)[name][100:] for name in ("x", "y"))
    made = convert(data / "kws" / "saved_model", folder, f"{samples}#0:100")
    plain, ours = (float((outputs(model, x).argmax(1) == y).mean()) for model in made)
    return [{"model": "edgepack int8", "top1": ours, "float_top1": plain, "mlperf_int8_top1": MLPERF_KWS}]


def wakeword(data: Path, folder: Path) -> list[dict[str, Any]]:
    """In and out of the calibration samples."""
    x = np.load(data / "wakeword" / "calibration_samples.npz")["specs"].astype(np.float32)
    samples = folder / "wakeword.npz"
    np.savez(samples, x=x)
    model, shipped = (data / "wakeword" / f"str_ww_ref_model.{end}" for end in ("h5", "tflite"))
    rows = []
    for calibration, held in ((str(samples), x), (f"{samples}#0:30", x[30:])):
        plain, ours = (outputs(one, held) for one in convert(model, folder, calibration))
        rows += [errors("edgepack int8", plain, ours), errors("shipped int8", plain, outputs(shipped, held))]
    return rows


def anomaly(data: Path, folder: Path, tiny: Path) -> list[dict[str, Any]]:
    """From the .h5 and from the float .tflite; a window is 5 frames of 128 mel bands."""
    frames = np.fromfile(tiny / RECORDING, "<f4").reshape(-1, 128)
    x = np.stack([frames[at : at + 5].ravel() for at in range(len(frames) - 4)])
    samples = folder / "anomaly.npz"
    np.savez(samples, x=x)
    half, rows = len(x) // 2, []
    held = x[half + 4 :]  # no frame of it stands in a calibration window
    for source in ("ad01.h5", "ad01_fp32.tflite"):
        made = convert(data / "anomaly" / source, folder, f"{samples}#0:{half}")
        plain, ours = (outputs(model, held) for model in made)
        rows.append(errors(f"edgepack int8, {source}", plain, ours))
    return [*rows, errors("shipped int8", plain, outputs(tiny / AD01_INT8, held))]


def main() -> None:
    """Convert, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=BESIDE, help="the folder mlperf-tiny")
    parser.add_argument("--tiny", type=Path, help="a checkout of mlcommons/tiny, for anomaly detection")
    options = parser.parse_args()
    document: dict[str, Any] = {"benchmark": "closeness"}
    if not options.data.is_dir():
        print(f"closeness: {options.data} is not there; name the MLPerf Tiny data with --data", file=sys.stderr)
        print(json.dumps(document))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        for name, measure in (("kws", kws), ("wakeword", wakeword)):
            document[name] = measure(options.data, Path(folder))
        document["anomaly"] = anomaly(options.data, Path(folder), options.tiny) if options.tiny else []
    for name in ("kws", "wakeword", "anomaly"):
        for row in document[name]:
            told = "  ".join(f"{key} {value:.4g}" for key, value in row.items() if isinstance(value, (int, float)))
            print(f"{name:<10} {row['model']:<32} {told}", file=sys.stderr)
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
