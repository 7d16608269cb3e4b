"""The main job, whole, on emulated Raspberry Pis: from a trained model to its answers there, and back again."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated_pi import Pi

import edgepack
from edgepack.errors import GateFailed

# On each device the profiles whose system it is; each profile once.
JOBS = [
    ("pi-bookworm64", "raspberry-pi-4"),
    ("pi-bookworm32", "raspberry-pi-4-32bit"),
    ("pi-trixie64", "raspberry-pi-5"),
    ("pi-bookworm64", "raspberry-pi-3"),
    ("pi-trixie64", "raspberry-pi-zero-2w"),
]
RUNTIMES = {"pi-bookworm64": "tflite-runtime", "pi-bookworm32": "tflite-runtime", "pi-trixie64": "ai-edge-litert"}
ROWS = slice(20, 120)

# What a user's program on the device does. The samples come in on standard input.
PREDICT = """
import io, json, sys
sys.path.insert(0, "/home/pi/.edgepack/lib")
import edgepack_device
model = edgepack_device.load("patterns")
import numpy
samples = numpy.load(io.BytesIO(sys.stdin.buffer.read()))
print(json.dumps([model.predict(x[None]).ravel().tolist() for x in samples]))
"""


def predict(device: Pi, images: Any) -> Any:
    """The scores that ``edgepack_device.load`` gives a program on the device."""
    packed = io.BytesIO()
    np.save(packed, images)
    return np.array(json.loads(device.run(f"python3 -c '{PREDICT}'", packed.getvalue())))


@pytest.mark.parametrize(("name", "target"), JOBS)
def test_the_main_job_on_an_emulated_raspberry_pi(
    pi: Callable[[str], Pi], bundle: Callable[[str, str], Path], models: Path, name: str, target: str
) -> None:
    """Push, check, activate, predict and roll back work there with the device's own Python and the bundle's runtime."""
    device = pi(name)
    device.run("mkdir -p .edgepack && chmod -R u+w .edgepack && rm -r .edgepack")  # releases are read-only
    facts = edgepack.probe(**device.where)
    assert target in facts.fits
    assert facts.facts["emulated"] is True

    first = edgepack.push(bundle(target, "1.0.0"), **device.where)
    with pytest.raises(GateFailed) as refused:
        edgepack.activate(**device.where)
    assert refused.value.code == "not-checked"
    limits = {"p95_ms": None, "peak_rss_bytes": None}
    checked = edgepack.check(budget=limits, min_runs=20, min_seconds=0.0, **device.where)
    assert checked.verdict == "pass", checked.reasons
    assert checked.runtime["package"] == RUNTIMES[name]
    assert checked.accuracy is not None
    assert checked.accuracy.samples == 100
    assert checked.parity is not None
    assert checked.parity.top1_agreement == 1.0, "the device computes what this machine computed"
    assert edgepack.activate(**device.where).current == first.release

    samples = np.load(models / "images.npz")
    scores = predict(device, samples["x"][ROWS])
    assert scores.shape == (100, 4)
    assert float(np.mean(scores.argmax(axis=1) == samples["y"][ROWS])) == checked.accuracy.quantized

    second = edgepack.push(bundle(target, "2.0.0"), **device.where)
    assert second.bytes.sent < 100_000, "the model and the runtime are there already"
    timed = edgepack.check(min_seconds=0.0, **device.where)
    assert timed.verdict == "inconclusive", "nobody is told that a time under QEMU is that of a Raspberry Pi"
    assert any("emulated device, which says nothing" in reason for reason in timed.reasons)
    told = [timed.conditions[key] for key in ("emulated", "throttled", "temperature_c", "governor", "others_cpu_share")]
    assert told == [True, None, None, None, None], "the rest would be this machine's"
    assert timed.cold_load_ms is None
    assert timed.evidence is not None
    assert len(timed.evidence.latency_ns) == timed.latency_ms.n
    assert timed.evidence.warmup_ns
    assert edgepack.activate(unchecked=True, **device.where).previous == first.release
    assert edgepack.rollback(**device.where).current == first.release
    assert np.array_equal(predict(device, samples["x"][ROWS][:5]), scores[:5])
