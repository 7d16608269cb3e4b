from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from agent_client import TINY, AgentClient, FakeRelease, device_pythons
from bundle_models import through_the_index
from deploying import TINY as MODEL
from deploying import host_scores
from ondevice_release import model_release, run_program

from edgepack.bundle.runtime import NUMPY_FOR, numpy_fits
from edgepack.bundle.wheels import fetch_wheels
from edgepack.target.lock import Wheel, read_lock
from edgepack.target.platform import version_tuple

QUICK = {"threads": 1, "min_runs": 20, "min_seconds": 0, "max_seconds": 10, "check": False}


@dataclass(frozen=True)
class Pair:
    """A Python and a TFLite runtime that has a wheel for it, with the newest numpy that both take."""

    runtime: Wheel
    numpy: Wheel

    @property
    def label(self) -> str:
        """For people."""
        return f"python-{self.runtime.python}-{self.runtime.package}-{self.runtime.version}"


def find_pairs() -> Iterator[Pair]:
    """Every pair on this machine's architecture that the two lock files know."""
    every = (*read_lock(), *read_lock(TINY / "more-runtimes.lock"))
    here = {wheel.filename: wheel for wheel in every if wheel.arch == platform.machine()}.values()
    for runtime in here:
        if runtime.package == "numpy":
            continue
        fitting = [
            wheel
            for wheel in here
            if (wheel.package, wheel.python) == ("numpy", runtime.python)
            and numpy_fits(NUMPY_FOR[runtime.package], wheel.version)
        ]
        yield Pair(runtime, max(fitting, key=lambda wheel: version_tuple(wheel.version)))


def marked(pairs: list[Pair]) -> list[object]:
    """The pairs as a test's parameters: always one of each Python, and the oldest of all; the rest is slow."""
    best = {
        pair.runtime.python: pair
        for pair in sorted(pairs, key=lambda one: (one.runtime.package, version_tuple(one.runtime.version)))
    }
    oldest = min(pairs, key=lambda one: (version_tuple(one.runtime.python), version_tuple(one.runtime.version)))
    return [
        pytest.param(pair, id=pair.label, marks=() if pair in (*best.values(), oldest) else pytest.mark.slow)
        for pair in pairs
    ]


def carried(release: FakeRelease, pair: Pair, wheels: dict[str, Path]) -> FakeRelease:
    """The release with the pair's wheels, to be unpacked on the device."""
    for wheel in (pair.runtime, pair.numpy):
        release.wheels[wheel.filename] = (wheels[wheel.filename].read_bytes(), wheel.package.replace("-", "_"))
    runtime = {"package": pair.runtime.package, "version": pair.runtime.version, "id": release.runtime_id}
    release.runtime = {**runtime, "dists": [dist for _, dist in release.wheels.values()], "installed": []}
    return release


@pytest.mark.network
@pytest.mark.parametrize("pair", marked(list(find_pairs())))
def test_the_loader_runs_on_every_python_with_every_runtime(pair: Pair, toy_delegate: Path, tmp_path: Path) -> None:
    """From Python 3.8 to 3.13 a release with its wheels is pushed, measured (in turns with another one), and asked."""
    python = device_pythons().get(pair.runtime.python)
    if python is None:
        pytest.skip(f"this machine has no Python {pair.runtime.python}")
    with through_the_index():
        wheels = dict(fetch_wheels([pair.runtime, pair.numpy]))
    release = carried(model_release(), pair, wheels)
    helped = carried(model_release(app="helped"), pair, wheels)
    wanted = {"library": str(toy_delegate), "required": True, "options": {"take": "2"}}
    helped.extra["target"] = {"delegate": wanted}
    with AgentClient(tmp_path, python=python) as agent:
        agent.hello()
        for pushed in (release, helped):
            agent.push(pushed)
            agent.activate(pushed)
        agent.push(carried(model_release("tiny_float"), pair, wheels))
        options = {**QUICK, "max_seconds": 1}
        measured = agent.request("measure", app="tiny", release=None, against="current", options=options)
    assert measured["runs"] >= 20
    assert len(measured["against"]["latency_ns"]) == measured["runs"]
    runtime = measured["runtime"]
    assert (runtime["package"], runtime["numpy"]) == (pair.runtime.package, pair.numpy.version)
    assert runtime["python"].startswith(pair.runtime.python + ".")
    images = np.random.default_rng(5).uniform(0, 1, (3, 8, 8, 1)).astype(np.float32)
    body = f"""
import edgepack_device
model, helped = edgepack_device.load("tiny"), edgepack_device.load("helped")
worker = edgepack_device.load("tiny", isolated=True)
pictures = {images.tolist()}
result = [model.predict(pictures).tolist(), worker.predict(pictures).tolist(), helped.info()["delegate"]]
"""
    scores, isolated, delegate = run_program(tmp_path, body, python=python)
    # A step or two of the int8 output: kernels round differently from one runtime to the next.
    np.testing.assert_allclose(scores, host_scores(MODEL, images)[1], atol=2.01 / 256)
    assert isolated == scores
    assert delegate == {"library": str(toy_delegate), "operators": 2}
    loader = str(tmp_path / "apps" / "tiny" / "current" / "loader.py")
    verified = subprocess.run([python, "-I", loader, "verify"], capture_output=True, text=True, check=True)
    assert f"whole; loads on {pair.runtime.package} {pair.runtime.version}" in verified.stdout
