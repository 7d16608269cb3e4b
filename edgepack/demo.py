"""The whole main job on this machine: train, quantize, bundle, push over SSH, check, activate, predict.

The device is edgepack's own loopback SSH server with a pinned throw-away host key, a home folder of its own and a
Python without a single package, as on a fresh Raspberry Pi: numpy and the TFLite runtime come out of the bundle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edgepack import documents
from edgepack.errors import InputError, InternalError, MisfitError
from edgepack.events import Event, Reporter, ignore_events

if TYPE_CHECKING:
    from edgepack.target import Platform

T = TypeVar("T")

APP = "digits"
VERSION = "1.0.0"
# The model was trained on the first 1,200 rows. Typical inputs set the int8 ranges, seen before or not; what judges was
# never seen.
CALIBRATION_ROWS = "0:200"
EVALUATION_ROWS = "1200:1797"

_PREDICT = """
import sys
sys.path.insert(0, sys.argv[1])
import edgepack_device
model = edgepack_device.load(sys.argv[2])
import numpy  # the release's own: this Python has none
samples = numpy.load(sys.argv[3])
scores = model.predict(samples["x"][-1:])
print(int(scores.argmax()), int(samples["y"][-1]), round(float(scores.max()), 3))
"""


@dataclass(frozen=True, slots=True)
class DemoStep:
    """One step of the demo: what came out of it and how long it took."""

    name: str
    result: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """One digit predicted through the user's door, the digit that it is, and the score (0 to 1)."""

    predicted: int
    expected: int
    score: float


@dataclass(frozen=True, slots=True)
class DemoDocument:
    """The demo's story; ``prediction`` is None where the check did not pass."""

    steps: tuple[DemoStep, ...]
    check: documents.CheckDocument
    prediction: Prediction | None
    seconds: float


class _Story:
    def __init__(self, report: Reporter) -> None:
        self.steps: list[DemoStep] = []
        self._report = report

    def tell(self, name: str, work: Callable[[], T], say: Callable[[T], str]) -> T:
        """Do one step, remember what it gave and how long it took."""
        self._report(Event("demo", f"{name} ..."))
        started = time.perf_counter()
        outcome = work()
        self.steps.append(DemoStep(name, say(outcome), round(time.perf_counter() - started, 2)))
        return outcome


def run_demo(*, keep: Path | None = None, report: Reporter = ignore_events) -> DemoDocument:
    """Run the demo in a temporary folder, or in the new folder ``keep``.

    Raises InputError where ``keep`` exists or the extra for quantizing is missing, and whatever a step raises.
    """
    started = time.perf_counter()
    _require_training()
    with _workspace(keep) as folder:
        return _run(folder, _Story(report), started)


def _run(folder: Path, story: _Story, started: float) -> DemoDocument:
    import edgepack
    from edgepack.device.embedded import EmbeddedDevice

    story.tell("train", lambda: _train(folder), lambda value: f"a small conv net, accuracy {value:.3f}")
    samples = folder / "digits.npz"
    target = _this_machines_target()
    model = folder / "digits.tflite"
    story.tell(
        "quantize",
        lambda: edgepack.quantize(
            folder / "digits.keras",
            target=target,
            calibration=f"{samples}#{CALIBRATION_ROWS}",
            evaluation=f"{samples}#{EVALUATION_ROWS}",
            output=model,
        ),
        _say_quantized,
    )
    bundle = folder / f"{APP}.edgepack"
    story.tell(
        "bundle",
        lambda: edgepack.bundle(
            model, target=target, name=APP, version=VERSION, output=bundle, platforms=[_this_platform()]
        ),
        lambda document: f"{bundle.name}, {document.bytes / 1e6:.1f} MB with the runtime, release {document.release}",
    )
    with EmbeddedDevice(folder / "device") as device:
        python = _bare_python(folder / "python")
        options = dataclasses.replace(device.options, python=str(python))
        story.tell(
            "push",
            lambda: edgepack.push(bundle, device.address, options=options),
            lambda document: f"{document.bytes.sent / 1e6:.1f} MB over SSH in {document.round_trips} round trips",
        )
        check = story.tell("check", lambda: edgepack.check(device.address, app=APP, options=options), _say_checked)
        prediction = None
        if check.verdict == "pass":
            story.tell(
                "activate",
                lambda: edgepack.activate(device.address, app=APP, options=options),
                lambda document: f"{document.current} is current",
            )
            prediction = story.tell("predict", lambda: _predict(python, device.home, samples), _say_predicted)
    return DemoDocument(tuple(story.steps), check, prediction, round(time.perf_counter() - started, 2))


def _require_training() -> None:
    import importlib.util

    missing = [name for name in ("tensorflow", "sklearn", "ai_edge_litert") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            "no-demo",
            f"The demo needs {', '.join(missing)}, not installed here.",
            hint="In edgepack's checkout: pip install '.[demo]'",
        )


@contextlib.contextmanager
def _workspace(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="edgepack-demo-") as name:
            yield Path(name)
        return
    try:
        keep.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            "keep",
            f"{keep} cannot be made: {os.strerror(error.errno or 0)}.",
            hint="Name a folder that does not exist yet.",
        ) from error
    yield keep.resolve()


def _this_machines_target() -> str:
    return "x86-64" if platform.machine() in ("x86_64", "AMD64") else "generic-cpu"


def _this_platform() -> Platform:
    """The platform that this machine is, its C library the oldest of the profile's that fits."""
    from edgepack.target import load_target

    target = load_target(_this_machines_target())
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in target.platforms:
        if (candidate.python, candidate.arch) == (python, platform.machine()):
            return candidate
    raise MisfitError(
        "no-demo",
        f"The profile {target.name} has no runtime for Python {python} on {platform.machine()}.",
        hint="Run the demo on Linux with Python 3.11, 3.12 or 3.13.",
    )


def _bare_python(folder: Path) -> Path:
    """This Python, whatever ``python3`` is on the PATH, in an environment that has no package at all."""
    venv.EnvBuilder(symlinks=True).create(folder)
    return folder / "bin" / "python"


def _train(folder: Path) -> float:
    """The accuracy of the model that a training process of its own left in the folder."""
    command = [sys.executable, "-m", "edgepack.demo_training", str(folder)]
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    return float(_output_of(command, quiet).split()[-1])


def _predict(python: Path, home: Path, samples: Path) -> Prediction:
    """One prediction by a program that knows nothing but the door, as a user's own service would."""
    command = [str(python), "-c", _PREDICT, str(home / ".edgepack" / "lib"), APP, str(samples)]
    predicted, expected, score = _output_of(command, {**os.environ, "HOME": str(home)}).split()
    return Prediction(int(predicted), int(expected), float(score))


def _output_of(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InternalError("demo-step", f"A step of the demo failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _say_quantized(document: documents.QuantizeDocument) -> str:
    accuracy = document.accuracy
    drop = "" if accuracy is None or accuracy.drop is None else f", accuracy drop {accuracy.drop:+.4f}"
    return f"{document.model.scheme}, {document.source.bytes} B source, {document.model.bytes} B model{drop}"


def _say_checked(document: documents.CheckDocument) -> str:
    runtime, p95_ms = document.runtime, document.latency_ms.p95
    latency = "no p95" if p95_ms is None else f"p95 {p95_ms:.3f} ms"
    accuracy = "" if document.accuracy is None else f", accuracy {document.accuracy.quantized:.4f} on the device"
    return f"{document.verdict.upper()} with {runtime.get('package')} {runtime.get('version')}: {latency}{accuracy}"


def _say_predicted(prediction: Prediction) -> str:
    said = f"edgepack_device.load({APP!r}) says {prediction.predicted}, score {prediction.score}"
    return f"{said} (it is {prediction.expected})"
