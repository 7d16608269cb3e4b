"""The main job, whole: a trained model goes to a real sshd, is proved there, and answers through the user's door."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from deploying import Device, this_machine, tiny_bundle
from real_sshd import RealSshd

import edgepack
from edgepack.device import ConnectOptions
from edgepack.device.embedded import EmbeddedDevice
from edgepack.project import load_project

_PREDICT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import edgepack_device
model = edgepack_device.load(sys.argv[2])
import numpy
samples = numpy.load(sys.argv[3])
print(json.dumps([model.predict(x).ravel().tolist() for x in samples["x"]]))
"""


def bare_python() -> str:
    """The Python that this environment was made from: where it has no runtime, the bundle's own is proved."""
    return str(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")


@pytest.mark.network
@pytest.mark.sshd
def test_kws_goes_from_the_saved_model_to_a_device(data: Path, sshd: RealSshd, tmp_path: Path) -> None:
    """Under 2 points lost there, host and device agree but for 2 samples; a second device costs no second build."""
    pytest.importorskip("tensorflow")
    kws = data / "kws"
    this_machine(tmp_path)
    (tmp_path / "edgepack.toml").write_text(
        '[app]\nname = "kws"\nversion = "1.0.0"\ntarget = "./this-machine.toml"\n'
        f'model = "{kws}/saved_model"\ncalibration = "{kws}/samples.npz#0:100"\neval = "{kws}/samples.npz#100:500"\n'
    )
    root = tmp_path / "device"
    options = replace(sshd.options, root=str(root), python=bare_python())
    device = Device(sshd.address, options, root)
    done = edgepack.deploy(project=load_project(tmp_path / "edgepack.toml"), **device.where)
    assert done.quantize is not None
    assert done.quantize.accuracy is not None
    assert done.check is not None
    assert done.check.verdict == "pass"
    accuracy, parity = done.check.accuracy, done.check.parity
    assert accuracy is not None
    assert accuracy.drop is not None
    assert accuracy.samples == 400
    assert accuracy.drop < 0.02
    assert parity is not None
    assert parity.top1_agreement is not None
    assert parity.top1_agreement >= 398 / 400
    assert abs(accuracy.quantized - done.quantize.accuracy.quantized) <= 2 / 400
    assert done.activate is not None
    assert edgepack.status(**device.where).current == done.activate.current
    second = Device(sshd.address, replace(options, root=str(tmp_path / "second")), tmp_path / "second")
    again = edgepack.deploy(project=load_project(tmp_path / "edgepack.toml"), **second.where)
    assert again.quantize is not None
    assert again.quantize.cached
    assert again.activate is not None
    assert again.activate.current == done.activate.current
    scores = through_the_door(root, "kws", kws / "samples.npz", options.python, rows=slice(100, 500), folder=tmp_path)
    labels = np.load(kws / "samples.npz")["y"][100:500]
    assert abs(float(np.mean(scores.argmax(axis=1) == labels)) - accuracy.quantized) <= 1e-9


def through_the_door(
    root: Path, app: str, samples: Path, python: str, *, rows: slice, folder: Path
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """What a user's own program on the device gets from ``edgepack_device.load``; it knows nothing of edgepack."""
    chosen = folder / "rows.npz"
    np.savez(chosen, x=np.load(samples)["x"][rows])
    # The program's numpy comes with the release: it opens the door before it imports numpy.
    command = [python, "-c", _PREDICT, str(root / "lib"), app, str(chosen)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout))


@pytest.mark.parametrize("transport", ["ssh", "openssh"])
@pytest.mark.sshd
def test_the_whole_life_of_a_release_over_both_ssh_transports(sshd: RealSshd, tmp_path: Path, transport: str) -> None:
    """From the first push to the rollback: the same over edgepack's own SSH client and over the ssh program."""
    root = tmp_path / "device"
    options = replace(sshd.options, root=str(root), transport=transport)  # type: ignore[arg-type]
    whole_life(Device(sshd.address, options, root), tmp_path)


def test_the_whole_life_of_a_release_on_the_embedded_device(tmp_path: Path) -> None:
    """What the demo and a user's own CI use does the same as a real sshd."""
    with EmbeddedDevice(tmp_path / "embedded") as embedded:
        options = replace(embedded.options, python=sys.executable)
        whole_life(Device(embedded.address, options, embedded.home / ".edgepack"), tmp_path)


def test_the_whole_life_of_a_release_on_this_machine(tmp_path: Path) -> None:
    """local: needs no SSH at all."""
    root = tmp_path / "device"
    whole_life(Device(f"local:{root}", ConnectOptions(python=sys.executable), root), tmp_path)


def whole_life(device: Device, folder: Path) -> None:
    """Two versions, from the first push to the rollback."""
    budget = {"p95_ms": 100.0, "max_accuracy_drop": 0.02}
    releases = []
    for version in ("1.0.0", "2.0.0"):
        path, bundle = tiny_bundle(folder, version=version, budget=budget)
        releases.append(bundle.release)
        assert edgepack.push(path, **device.where).release == bundle.release
        assert edgepack.check(**device.where).verdict == "pass"
        assert edgepack.activate(**device.where).current == bundle.release
    first, second = releases
    assert edgepack.rollback(**device.where).current == first
    status = edgepack.status(**device.where)
    assert (status.current, status.previous, status.candidate) == (
        first,
        None,
        None,
    )  # what was fled from is no candidate
    assert [entry["to"] for entry in edgepack.history(**device.where).history] == [first, second, first]
    assert (device.root / "lib" / "edgepack_device.py").is_file()
