"""The models of MLPerf Tiny for the shipped profiles, by the script that docs/benchmarks.md reports."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from other_runtime import INSTALLED

from edgepack.target import builtin_folder

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "matrix.py"
# A CPU, an integer-only accelerator with a compiler, one scale per tensor, a GPU, and a scheme that runtimes differ in.
DISTINCT = ("raspberry-pi-4", "ethos-u65", "stm32mp25-npu", "generic-gpu", "generic-cpu-dynamic")


def matrix(*options: str) -> dict[str, Any]:
    """What the script says."""
    ran = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False)
    assert ran.stdout, ran.stderr[-2000:]
    document: dict[str, Any] = json.loads(ran.stdout)
    return document


def assert_none_wrong(document: dict[str, Any]) -> None:
    """Every pair either answers rightly on its profile's runtimes or was refused with a reason."""
    wrong = [row for row in document["rows"] if row["outcome"] not in ("right", "refused")]
    assert not wrong
    assert all(row["code"] and row["message"] for row in document["rows"] if row["outcome"] == "refused")


def test_garbage_is_told_from_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs that are a step off are right, those of other rows and NaN are wrong: the matrix can fail."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    script = importlib.import_module("matrix")
    plain = np.random.default_rng(0).dirichlet(np.full(12, 0.1), 100).astype(np.float32)
    check_set = tmp_path / "out.check.npz"
    np.savez(check_set, **{"float/y": plain, "quantized/y": np.rint(plain * 256) / np.float32(256)})
    assert script.compare(plain + np.float32(1 / 256), check_set)["right"]
    assert not script.compare(np.roll(plain, 1, axis=0), check_set)["right"]
    assert not script.compare(np.full_like(plain, np.nan), check_set)["right"]


@pytest.mark.skipif(not INSTALLED, reason="this Python has no TFLite runtime")
def test_a_model_answers_rightly_on_the_runtimes_of_each_kind_of_profile(data: Path) -> None:
    """Keyword spotting, and a float .tflite of an old converter: what edgepack lets through is right on the device."""
    document = matrix("--data", str(data), "--sources", "kws,anomaly-tflite", "--targets", ",".join(DISTINCT))
    assert_none_wrong(document)
    assert len(document["rows"]) == 2 * len(DISTINCT)
    assert document["counts"]["right"] == len(document["rows"])
    tried = {runtime for row in document["rows"] for runtime in row["runtimes"]}
    assert tried == set(INSTALLED)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_model_is_wrong_on_any_shipped_profile(data: Path) -> None:
    """All models of MLPerf Tiny for all shipped profiles: none loads and is wrong."""
    document = matrix("--data", str(data))
    assert_none_wrong(document)
    shipped = {path.stem for path in builtin_folder().glob("*.toml")}
    assert shipped <= {row["target"] for row in document["rows"]}
    assert all(row["outcome"] == "right" for row in document["rows"] if row["target"] in shipped)
