"""Every model of MLPerf Tiny for every shipped profile: what converts has to answer rightly on the profile's runtimes.

    python benchmarks/matrix.py [--sources kws,image-tflite] [--targets raspberry-pi-4,coral-usb] [--data FOLDER]

Each pair ends in one of four ways. ``right``: it was converted, and each runtime that the profile's platforms get and
this Python has (each in a process of its own) loads it and answers as the host did: its largest difference is at most
5 % of the outputs' range, or it is as near to the float model as the host is (within 3 dB). ``refused``: there is a
named reason and no file. ``untried``: none of the profile's runtimes is installed here. ``WRONG``: anything else. The
profile generic-cpu is tried in dynamic, int16x8 and float32 too. Compiled models are tried before their compiler.

Keyword spotting and wake word run on the data's own samples. The data has none for anomaly detection and images: random
numbers in the range of the models' inputs take their place, which tell whether runtimes agree and nothing of accuracy.
A table goes to stderr, JSON to stdout; the exit code is 1 where a pair is WRONG.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import interpreting
import numpy as np

import edgepack
from edgepack.documents import QuantizeDocument, QuantizeSetDocument
from edgepack.errors import EdgepackError
from edgepack.target import list_targets, load_target
from edgepack.target.solver import runtimes_of

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "mlperf-tiny"
SOURCES = {
    "kws": "kws/saved_model",
    "wakeword": "wakeword/str_ww_ref_model.h5",
    "anomaly": "anomaly/ad01.h5",
    "anomaly-tflite": "anomaly/ad01_fp32.tflite",
    "image": "image/pretrainedResnet.h5",
    "image-tflite": "image/pretrainedResnet.tflite",
}
MORE_SCHEMES = ("dynamic", "int16x8", "float32")
RUNTIMES = {"tflite-runtime": "tflite_runtime", "ai-edge-litert": "ai_edge_litert"}
# Kernels that round in another order differ by a few steps of 1/256; garbage differs by the whole range.
AGREE = 0.05
# Single outputs of hundreds move by more, and in the dynamic scheme runtimes quantize activations differently: then the
# runtime has to be as near to the float model as the host is, within so many decibels.
AS_NEAR_DB = 3.0


def samples_of(source: str, data: Path, folder: Path) -> tuple[str, str]:
    """A calibration set and a check set for the source, as ``quantize`` takes them."""
    name = source.removesuffix("-tflite")
    if name == "kws":
        return f"{data}/kws/samples.npz#0:100", f"{data}/kws/samples.npz#100:500"
    place = folder / f"{name}.npz"
    if name == "wakeword":
        specs = np.load(data / "wakeword" / "calibration_samples.npz")["specs"]
        np.savez(place, x=specs.astype(np.float32))
        return f"{place}#0:30", f"{place}#30:45"
    random = np.random.default_rng(23)
    # Log-mel energies in decibels: ad01_int8.tflite of MLPerf Tiny takes -101 to 2; pixels are 0..255.
    made = random.normal(-30, 12, (160, 640)) if name == "anomaly" else random.integers(0, 256, (120, 32, 32, 3))
    np.savez(place, x=made.astype(np.float32))
    return f"{place}#0:100", f"{place}#100:"


def profiles(names: list[str] | None, folder: Path) -> list[str]:
    """The shipped profiles, and generic-cpu in the other schemes; only those in ``names`` where there are any."""
    found = [target.name for target in list_targets()]
    for scheme in MORE_SCHEMES:
        path = folder / f"generic-cpu-{scheme}.toml"
        path.write_text(f'extends = "generic-cpu"\n[quantization]\nscheme = "{scheme}"\n')
        found.append(str(path))
    return [one for one in found if names is None or Path(one).stem in names]


def convert(
    model: Path, targets: list[str], folder: Path, samples: tuple[str, str]
) -> tuple[list[QuantizeDocument], dict[str, dict[str, str]]]:
    """What was made, and by target's name why something was not; a refusal leaves the others another chance."""
    refused: dict[str, dict[str, str]] = {}
    calibration, check_set = samples
    while left := [one for one in targets if Path(one).stem not in refused]:
        try:
            made = edgepack.quantize(model, target=left, output=folder, calibration=calibration, check_set=check_set)
        except EdgepackError as error:
            named = {"code": error.code, "message": error.message}
            told = error.details.get("refused") or [{"target": Path(one).stem, **named} for one in left]
            refused |= {one["target"]: {key: one[key] for key in named} for one in told}
        else:
            return list(made.models if isinstance(made, QuantizeSetDocument) else [made]), refused
    return [], refused


def tried_here(targets: list[str]) -> dict[str, list[str]]:
    """By target's name, its runtimes that this Python has in the very version that the platforms get."""
    have = {name: importlib.metadata.version(name) for name in RUNTIMES if importlib.util.find_spec(RUNTIMES[name])}
    return {
        Path(one).stem: sorted({name for name, version in runtimes_of(load_target(one)) if have.get(name) == version})
        for one in targets
    }


def answers(runtime: str, models: dict[str, Path], checks: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """By digest, how far the runtime's outputs are from the host's and the float model's."""
    asked = [(str(path), str(checks[digest])) for digest, path in models.items()]
    command = [sys.executable, interpreting.__file__, RUNTIMES[runtime], json.dumps(asked)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = dict(json.loads(line) for line in ran.stdout.splitlines())
    found = {}
    for digest, path in models.items():
        answer = Path(f"{path}.answer.npy")
        if answer.exists():
            found[digest] = compare(np.load(answer), checks[digest])
            answer.unlink()
        else:
            found[digest] = {"right": False, "error": errors.get(str(path), ran.stderr[-500:])}
    return found


def compare(answered: np.ndarray, check_set: Path) -> dict[str, Any]:
    """``difference``: the largest one from the host, as a share of the host's range; decibels against the float model.

    Where the outputs are class scores, also on which share of the rows the largest score is the host's.
    """
    arrays = np.load(check_set)
    host, plain = (next(arrays[key] for key in arrays if key.startswith(kind)) for kind in ("quantized/", "float/"))
    if answered.shape != host.shape or not np.isfinite(answered).all():
        return {"right": False, "error": f"answers with {answered.shape} numbers, some not finite"}
    difference = float(np.abs(answered - host).max() / np.ptp(host))
    same = float((answered.argmax(1) == host.argmax(1)).mean()) if host.ndim == 2 and host.shape[1] <= 20 else None
    sqnr_db, host_sqnr_db = decibels(plain, answered), decibels(plain, host)
    return {
        "right": difference <= AGREE or sqnr_db >= host_sqnr_db - AS_NEAR_DB,
        "difference": round(difference, 5),
        "sqnr_db": sqnr_db,
        "host_sqnr_db": host_sqnr_db,
        "same_top1": same,
        "samples": len(host),
    }


def decibels(plain: np.ndarray, answered: np.ndarray) -> float:
    """Signal to quantization noise, at most 200."""
    noise = float(((plain - answered) ** 2).sum())
    return round(min(200.0, 10 * math.log10(float((plain**2).sum()) / noise)), 1) if noise else 200.0


def pairs(source: str, data: Path, targets: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    """One row for each target."""
    folder.mkdir()
    made, refused = convert(data / SOURCES[source], targets, folder, samples_of(source, data, folder))
    models, checks = {}, {}
    for one in made:
        path = Path(one.uncompiled or one.model.path)
        models[one.target] = path
        checks[one.target] = Path(one.check_set or "")
    runtimes = tried_here(targets)
    told: dict[str, dict[str, Any]] = {name: {} for name in models}
    for runtime in RUNTIMES:
        wanted = distinct({name: path for name, path in models.items() if runtime in runtimes[name]})
        firsts = {names[0]: models[names[0]] for names in wanted}
        for first, answer in answers(runtime, firsts, checks).items() if firsts else ():
            for name in next(names for names in wanted if names[0] == first):
                told[name][runtime] = answer
    by_name = {one.target: one for one in made}
    for name in (Path(one).stem for one in targets):
        row: dict[str, Any] = {"source": source, "target": name}
        if name in refused:
            yield {**row, "outcome": "refused", **refused[name]}
            continue
        wrong = any(not answer["right"] for answer in told[name].values())
        outcome = "WRONG" if wrong else "right" if told[name] else "untried"
        document = by_name[name]
        facts = {"scheme": document.model.scheme, "bytes": document.model.bytes, "compiled": bool(document.uncompiled)}
        yield {**row, "outcome": outcome, **facts, "runtimes": told[name]}


def distinct(models: dict[str, Path]) -> list[list[str]]:
    """Names of equal files together: each file is tried once a runtime."""
    groups: dict[bytes, list[str]] = {}
    for name, path in models.items():
        groups.setdefault(path.read_bytes(), []).append(name)
    return list(groups.values())


def show(row: dict[str, Any]) -> None:
    """A line on standard error."""
    said = row.get("code", "") + " " + row.get("message", "")[:90]
    for runtime, answer in row.get("runtimes", {}).items():
        figures = answer.get("error") or f"{answer['difference']:.4f} {answer['sqnr_db']} dB"
        said += f"  {runtime}: {figures}"
    print(f"{row['source']:<15} {row['target']:<22} {row['outcome']:<8} {row.get('scheme', ''):<8} {said.strip()}",
          file=sys.stderr, flush=True)  # fmt: skip


def main() -> None:
    """Convert, try, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", type=lambda text: text.split(","), default=list(SOURCES))
    parser.add_argument("--targets", type=lambda text: text.split(","))
    parser.add_argument("--data", type=Path, default=BESIDE, help="the folder mlperf-tiny")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    started = time.perf_counter()
    if not options.data.is_dir():
        print(f"matrix: {options.data} is not there; name the MLPerf Tiny data with --data", file=sys.stderr)
        options.sources = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = f"{scratch}/cache"  # what an earlier run made is not what this one tries
        targets = profiles(options.targets, Path(scratch))
        for source in options.sources:
            for row in pairs(source, options.data, targets, Path(scratch) / source):
                show(row)
                rows.append(row)
    counts = {outcome: sum(row["outcome"] == outcome for row in rows) for outcome in ("right", "refused", "untried")}
    wrong = len(rows) - sum(counts.values())
    versions = {name: importlib.metadata.version(name) for name in RUNTIMES if importlib.util.find_spec(RUNTIMES[name])}
    seconds = round(time.perf_counter() - started, 1)
    print(f"{counts}, WRONG {wrong}, {seconds} s", file=sys.stderr)
    document = {"benchmark": "matrix", "counts": {**counts, "WRONG": wrong}, "runtimes": versions, "seconds": seconds}
    print(json.dumps({**document, "rows": rows}, indent=2))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
