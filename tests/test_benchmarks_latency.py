"""The proof that check's median is a bare loop's, at a small size: that it measures, never what comes out."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def latency() -> Iterator[Any]:
    """The benchmark."""
    before = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("latency")
    sys.path[:] = before


def test_check_and_a_bare_loop_are_compared(latency: Any, tmp_path: Path) -> None:
    """Both sides run the same model on the same runtime, and every figure of the row is one."""
    model = Path(__file__).parent / "data" / "tiny_int8.tflite"
    row = latency.measure(model, pairs=1, seconds=1.3, folder=tmp_path)
    assert row["check_p50_ms"] > 0
    assert row["ratio"] == pytest.approx(row["check_p50_ms"] / row["bare_p50_ms"])
    assert 0 < row["own_share"] < 1
    assert 0 < row["between"] < 1
    assert row["runtime"]["package"] == latency.installed()
