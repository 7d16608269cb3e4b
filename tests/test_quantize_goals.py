"""The goals of quantize against others, in short form; docs/benchmarks.md has the long one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_quantize_conformance import target

from edgepack.building import quantize
from edgepack.hostruntime import HostModel
from edgepack.tflite import read_model

pytest.importorskip("tensorflow")


def test_the_wake_word_in_int8_is_as_near_to_float_as_the_shipped_reference(data: Path, tmp_path: Path) -> None:
    """On recordings that calibrated neither, its mean distance from the float model is at most MLPerf's own."""
    samples = data / "wakeword" / "calibration_samples.npz"
    quantize(
        data / "wakeword" / "str_ww_ref_model.h5",
        target=target(),
        output=tmp_path / "ww.tflite",
        calibration=f"{samples}#0:30",
        check_set=f"{samples}#30:45",
        preprocessing={"inputs": {"x": ["specs"]}},
    )
    with np.load(tmp_path / "ww.check.npz") as held:
        (floats, ours) = (next(held[name] for name in held.files if name.startswith(f"{kind}/"))
                          for kind in ("float", "quantized"))  # fmt: skip
    reference = data / "wakeword" / "str_ww_ref_model.tflite"
    ((name, _),) = read_model(reference).named_inputs
    host = HostModel(reference)
    rows = np.load(samples)["specs"][30:45].astype(np.float32)
    shipped = np.concatenate([next(iter(host.run({name: row[None]}).values())) for row in rows])
    assert np.abs(ours - floats).mean() <= 1.01 * np.abs(shipped - floats).mean()
