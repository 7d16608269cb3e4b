"""Tune on real models that int8 spoils: what it wins back, and what it says where nothing can."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from deploying import Device, this_machine

import edgepack
from edgepack.cli.main import run
from edgepack.device import ConnectOptions
from edgepack.device.embedded import EmbeddedDevice
from edgepack.documents import TuneDocument
from edgepack.errors import GateFailed, InputError, MisfitError
from edgepack.events import Event
from edgepack.quantize import workshop
from edgepack.quantize.process import WorkerProcess
from edgepack.tflite import read_model

pytest.importorskip("tensorflow")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that int8 spoils, with samples; see tests/make_hostile_models.py."""
    folder = tmp_path_factory.mktemp("hostile")
    script = Path(__file__).parent / "make_hostile_models.py"
    made = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    return folder


def profile(folder: Path, name: str, quantization: str = "") -> Path:
    """A profile of this machine with another [quantization]."""
    folder.mkdir(parents=True, exist_ok=True)
    path = this_machine(folder).rename(folder / f"{name}.toml")
    path.write_text(f"{path.read_text()}\n[quantization]\n{quantization}\n")
    return path


def tune(hostile: Path, model: str, target: str | Path, to: Path, **options: Any) -> TuneDocument:
    """Tune one of the models to a point; judged on rows that neither training nor calibration has seen."""
    samples = hostile / "samples.npz"
    asked: dict[str, Any] = {
        "calibration": f"{samples}#0:200",
        "evaluation": f"{samples}#200:800",
        "max_drop": 0.01,
        "output": to,
    }
    return edgepack.tune(hostile / f"{model}.keras", target=target, **(asked | options))


def require_won_back(document: TuneDocument) -> None:
    """Plain int8 loses more than 10 points, and the chosen model has 95 % of that again."""
    plain = next(one for one in document.candidates if one.name == "int8")
    assert plain.drop is not None
    assert plain.drop > 0.1
    assert document.accuracy is not None
    assert document.accuracy.drop is not None
    assert document.accuracy.drop <= 0.05 * plain.drop


@dataclasses.dataclass(frozen=True)
class Spoiled:
    """A finished search: its document, what was told meanwhile, where it wrote, and the cache it left."""

    document: TuneDocument
    events: list[Event]
    folder: Path
    cache: str


@pytest.fixture(scope="module")
def spoiled(hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> Spoiled:
    """The model with a spoiled layer, for an accelerator that knows int8 and may leave single operators in float."""
    folder = tmp_path_factory.mktemp("spoiled")
    events: list[Event] = []
    target = profile(folder, "npu", 'operators = "vx"')
    document = tune(hostile, "spoiled", target, folder / "out.tflite", report=events.append)
    return Spoiled(document, events, folder, os.environ["XDG_CACHE_HOME"])


def test_the_one_layer_that_int8_destroys_goes_back_to_float(
    spoiled: Spoiled,
) -> None:
    """It is found by its error, confirmed by evaluation, and the others stay int8: smaller than any float model."""
    document = spoiled.document
    require_won_back(document)
    (taken,) = [one for one in document.candidates if one.chosen]
    assert taken.name == document.chosen
    assert len(taken.float_layers) == 1
    assert "second" in taken.float_layers[0]
    assert taken.on_front
    assert "second" in document.reason
    types = {tensor.dtype for tensor in read_model(Path(document.model.path)).tensors if tensor.constant}
    assert {"int8", "float32"} <= types
    assert any("second" in layer.tensor for layer in document.layers)


def test_what_quantize_writes_is_written(spoiled: Spoiled) -> None:
    """Model, check set and provenance, which says how it was converted; nothing else is left."""
    document, folder = spoiled.document, spoiled.folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "npu.toml", "out.check.npz", "out.provenance.json", "out.tflite",
    ]  # fmt: skip
    data = Path(document.model.path).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (document.model.bytes, document.model.sha256)
    provenance = json.loads(Path(document.provenance).read_bytes())
    (taken,) = [one for one in document.candidates if one.chosen]
    assert provenance["options"]["conversion"]["float_layers"] == list(taken.float_layers)
    bundle = edgepack.bundle(
        document.model.path, target=folder / "npu.toml", name="spoiled", version="1",
        output=folder.parent / "spoiled.edgepack", with_runtime=False,
    )  # fmt: skip
    assert bundle.model["sha256"] == document.model.sha256


def test_each_candidate_is_told_while_it_is_tried(spoiled: Spoiled) -> None:
    """A person sees which of how many it is, and what came of each."""
    document, events = spoiled.document, spoiled.events
    told = [event.message for event in events if event.step == "tune"]
    tried = [match for message in told if (match := re.match(r"candidate (\d+) of (\d+): (.+)", message))]
    assert [int(match[1]) for match in tried] == list(range(1, len(document.candidates) + 1))
    assert [match[3] for match in tried] == [one.name for one in document.candidates]
    assert all(int(match[1]) <= int(match[2]) for match in tried)
    assert told[-1] == document.reason


def test_the_same_search_again_starts_nothing(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled: Spoiled
) -> None:
    """Every step is kept by its content: the same document and bytes, without a worker."""

    def no_worker(*_: object) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setenv("XDG_CACHE_HOME", spoiled.cache)
    monkeypatch.setattr(workshop, "WorkerProcess", no_worker)
    first = spoiled.document
    again = tune(hostile, "spoiled", spoiled.folder / "npu.toml", tmp_path / "again.tflite")
    assert dataclasses.replace(again, **same_places(first)) == first
    for suffix in (".tflite", ".check.npz", ".provenance.json"):
        assert (tmp_path / f"again{suffix}").read_bytes() == (spoiled.folder / f"out{suffix}").read_bytes()
    with pytest.raises(AssertionError, match="a worker was started"):
        tune(hostile, "spoiled", spoiled.folder / "npu.toml", tmp_path / "again.tflite", cache=False)


def same_places(document: TuneDocument) -> dict[str, Any]:
    """What may differ between two runs of the same search."""
    return {name: getattr(document, name) for name in ("model", "check_set", "provenance", "seconds")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_any_executor_gives_the_same(hostile: Path, tmp_path: Path, spoiled: Spoiled, kind: Callable[..., Any]) -> None:
    """On threads or processes of somebody else's, each task with a worker of its own: the very same search."""
    how = {} if kind is ThreadPoolExecutor else {"mp_context": get_context("spawn")}
    with kind(2, **how) as executor:
        target = profile(tmp_path, "npu", 'operators = "vx"')
        document = tune(hostile, "spoiled", target, tmp_path / "out.tflite", executor=executor)
    assert document.candidates == spoiled.document.candidates
    assert document.model.sha256 == spoiled.document.model.sha256


@pytest.mark.slow
def test_outliers_in_activations_cost_two_layers(hostile: Path, tmp_path: Path) -> None:
    """No range helps where one unit dwarfs the others: what makes it and what reads it go to float together."""
    document = tune(hostile, "outliers", profile(tmp_path, "cpu"), tmp_path / "out.tflite")
    require_won_back(document)
    mixed = [one for one in document.candidates if len(one.float_layers) == 2 and (one.drop or 0) < 0.01]
    assert mixed
    assert all(any(name in layer for layer in mixed[0].float_layers) for name in ("second", "third"))
    assert {one.scheme for one in document.candidates} == {"int8", "dynamic", "float16", "int16x8", "float32"}


@pytest.mark.slow
def test_uneven_channels_are_won_back_where_the_profile_allows_float(hostile: Path, tmp_path: Path) -> None:
    """One scale for a layer whose channels differ by 100x: the CPU computes the model another way."""
    target = profile(tmp_path, "per-tensor", 'granularity = "per-tensor"')
    require_won_back(tune(hostile, "uneven", target, tmp_path / "out.tflite"))


def test_an_integer_only_target_says_what_it_cannot(hostile: Path, tmp_path: Path) -> None:
    """Exit 1 with the nearest candidate and the worst layers; nothing is written, and nothing but int8 was tried."""
    events: list[Event] = []
    with pytest.raises(GateFailed) as failure:
        tune(hostile, "uneven", "stm32mp25-npu", tmp_path / "out.tflite", report=events.append)
    error = failure.value
    assert error.exit_code == 1
    assert error.code == "no-candidate-keeps-budget"
    assert "no layer can be kept in float there" in error.message
    assert "win the accuracy back. Nor in 16 bits: QUANTIZE has int8" in error.message
    assert error.details["nearest"]["name"] in error.message  # type: ignore[index]
    assert error.details["nearest"]["drop"] > 0.05  # type: ignore[index]
    assert error.details["layers"]
    told = [event.message for event in events if event.message.startswith("candidate")]
    assert told
    assert all(": int8" in message and "in float" not in message for message in told)
    assert list(tmp_path.iterdir()) == []


def _no_labels(hostile: Path) -> dict[str, Any]:
    import numpy as np

    with np.load(hostile / "samples.npz") as arrays:
        np.savez(hostile / "unlabelled.npz", x=arrays["x"][400:])
    return {"evaluation": hostile / "unlabelled.npz"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda _: {"max_drop": -0.01}, "bad-max-drop"),
        (lambda _: {"max_drop": float("nan")}, "bad-max-drop"),
        (lambda _: {"max_drop": 1.0}, "bad-max-drop"),
        (lambda _: {"max_drop": 1.5, "metric": "roc-auc"}, "bad-max-drop"),
        (lambda _: {"calibration": None}, "no-calibration"),
        (lambda folder: {"evaluation": f"{folder}/samples.npz#100:300"}, "overlap"),
        (_no_labels, "no-labels"),
        (lambda folder: {"output": folder / "absent" / "out.tflite"}, "bad-output"),
        (lambda _: {"metric": "no_module:at_all"}, "unknown-metric"),
    ],
)
def test_what_is_wrong_is_told_before_a_worker_starts(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], dict[str, Any]], code: str,
) -> None:  # fmt: skip
    """Budgets, samples and options that cannot be right are exit 2 within a moment."""

    def no_worker(*_: object) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(workshop, "WorkerProcess", no_worker)
    with pytest.raises(InputError) as refusal:
        tune(hostile, "spoiled", "generic-cpu", tmp_path / "out.tflite", **change(hostile))
    assert refusal.value.code == code
    assert refusal.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def kept(spoiled: Spoiled, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests of this module have made is there."""
    monkeypatch.setenv("XDG_CACHE_HOME", spoiled.cache)


FAST = 'scheme = "float16"\noperators = "gpu-delegate"\nio = "float32"'
"""A profile with two candidates, which need no calibration."""


@pytest.mark.usefixtures("kept")
def test_survivors_are_measured_on_the_device_and_leave_it_as_it_was(hostile: Path, tmp_path: Path) -> None:
    """Each gets the latency of a real check there; then the app that was tried is gone, the active one untouched."""
    root = tmp_path / "device"
    device = Device(f"local:{root}", ConnectOptions(python=sys.executable), root)
    target = profile(tmp_path, "gpu", FAST)
    document = tune(
        hostile, "spoiled", target, tmp_path / "out.tflite", calibration=None, on=device.address, options=device.options
    )
    assert document.device is not None
    assert [one.scheme for one in document.candidates] == ["float16", "float32"]
    for one in document.candidates:
        assert one.latency_ms is not None
        assert one.latency_ms.p50 is not None
        assert one.latency_ms.p95 is not None
    assert not list((root / "apps").iterdir())

    edgepack.bundle(
        tmp_path / "out.tflite", target=target, name="out-tune", version="1", output=tmp_path / "one.edgepack",
        with_runtime=False,
    )  # fmt: skip
    edgepack.push(tmp_path / "one.edgepack", **device.where)
    edgepack.activate(unchecked=True, **device.where)
    before = edgepack.status(**device.where)
    asked = {"calibration": None, "on": device.address, "options": device.options}
    with pytest.raises(InputError, match="out-tune"):
        tune(hostile, "spoiled", target, tmp_path / "out.tflite", **asked)
    tune(hostile, "spoiled", target, tmp_path / "out.tflite", app="other", **asked)
    assert edgepack.status(**device.where) == before
    assert [path.name for path in (root / "apps").iterdir()] == ["out-tune"]


@pytest.mark.usefixtures("kept")
def test_a_device_over_ssh_and_one_that_does_not_fit(hostile: Path, tmp_path: Path) -> None:
    """The embedded device measures too; a target that does not fit it is refused before anything is tried."""
    with EmbeddedDevice(tmp_path / "embedded") as embedded:
        asked = {
            "calibration": None,
            "on": embedded.address,
            "options": dataclasses.replace(embedded.options, python=sys.executable),
        }
        document = tune(hostile, "spoiled", profile(tmp_path, "gpu", FAST), tmp_path / "out.tflite", **asked)
        assert all(one.latency_ms for one in document.candidates)
        assert not list((embedded.home / ".edgepack" / "apps").iterdir())
        samples = f"{hostile}/samples.npz#0:200"
        with pytest.raises(MisfitError, match="does not fit"):
            tune(
                hostile, "spoiled", "raspberry-pi-4-32bit", tmp_path / "out.tflite", **asked | {"calibration": samples}
            )


@pytest.mark.usefixtures("kept")
def test_what_the_device_fails_is_not_chosen(hostile: Path, tmp_path: Path) -> None:
    """A latency limit of the profile that nothing meets there: the reasons name it, and nothing is written."""
    target = profile(tmp_path, "gpu", FAST)
    target.write_text(target.read_text().replace("p95_ms = 1000.0", "p95_ms = 0.001\nload_ms = 0.001"))
    root = tmp_path / "device"
    with pytest.raises(GateFailed, match="fails the check on the device") as failure:
        tune(
            hostile, "spoiled", target, tmp_path / "out.tflite", calibration=None, on=f"local:{root}",
            options=ConnectOptions(python=sys.executable),
        )  # fmt: skip
    assert "more than 0.001 ms" in failure.value.message
    assert not list((root / "apps").iterdir())
    assert not (tmp_path / "out.tflite").exists()


def test_a_candidate_that_crashes_the_converter_is_left_out(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Native code that dies takes one candidate with it: the search goes on in a new process."""
    started: list[Any] = []

    class Recorded(workshop.WorkerProcess):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            started.append(self._process)

    def crash_once(event: Event) -> None:
        if event.message.startswith("candidate 1 of"):
            started[0].send_signal(signal.SIGSEGV)
            started[0].wait()

    monkeypatch.setattr(workshop, "WorkerProcess", Recorded)
    target = profile(tmp_path, "gpu", FAST)
    document = tune(hostile, "spoiled", target, tmp_path / "out.tflite", calibration=None, report=crash_once)
    crashed, fine = document.candidates
    assert not crashed.legal
    assert "SIGSEGV" in str(crashed.reason)
    assert fine.chosen
    assert len(started) == 2


@pytest.mark.usefixtures("kept")
def test_the_command_answers_people_and_scripts(
    hostile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table and a reason; one JSON document with --json; --dry-run writes nothing and names where it would be."""
    monkeypatch.chdir(tmp_path)
    target = profile(tmp_path, "gpu", FAST)
    line = ["tune", f"{hostile}/spoiled.keras", "-t", str(target), "--eval", f"{hostile}/samples.npz#200:800"]
    line += ["--max-drop", "0.01", "-o", "out.tflite"]
    assert run([*line, "--dry-run", "--on", f"local:{tmp_path}/device"]) == 0
    out, told = capsys.readouterr()
    assert "a dry run measures nothing on local:" in told
    assert not (tmp_path / "device").exists()
    assert "→  float16" in out
    assert "dry run" in out
    assert not (tmp_path / "out.tflite").exists()
    assert run([*line, "--json", "--events", "events.jsonl"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    assert document["chosen"] == "float16"
    assert document["model"]["path"] == "out.tflite"
    assert [one["on_front"] for one in document["candidates"]] == [True, False]
    events = [json.loads(text) for text in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert "candidate 2 of 2: float32" in [event["message"] for event in events]
    capsys.readouterr()
    assert run([*line[:-4], "-o", "out.tflite", "--json"]) == 0, "without --max-drop"
    assert json.loads(capsys.readouterr().out)["max_drop"] == 0.02, "as the profile says"
    assert run([*line[:-4], "-o", "out.tflite", "--max-drop", "nan"]) == 2


def test_ctrl_c_leaves_nothing(hostile: Path, tmp_path: Path) -> None:
    """Interrupted while a candidate is converted, the caller ends at once with its worker, and no file is left."""
    arguments = [f"{hostile}/spoiled.keras", "-t", "generic-cpu", "--calibration", f"{hostile}/samples.npz#0:200"]
    arguments += ["--eval", f"{hostile}/samples.npz#200:800", "--max-drop", "0.01", "-o", str(tmp_path / "out.tflite")]
    running = subprocess.Popen(
        [sys.executable, "-m", "edgepack", "tune", *arguments, "--no-cache"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ},
    )  # fmt: skip
    assert running.stderr is not None
    while "candidate 2" not in running.stderr.readline():
        assert running.poll() is None
    time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=10)
    assert running.returncode == 130
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_search_goes_on_where_it_was(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the cache on, the same command converts what is not there yet, and nothing a second time."""
    converted: list[str] = []
    ask = workshop.WorkerProcess.ask

    def counted(worker: WorkerProcess, verb: str, **arguments: Any) -> dict[str, Any]:
        answer = ask(worker, verb, **arguments)
        if verb == "convert":
            converted.append(json.dumps(arguments["conversion"]))
        return answer

    def interrupt(event: Event) -> None:
        if event.message.startswith("candidate 3"):
            raise KeyboardInterrupt

    monkeypatch.setattr(workshop.WorkerProcess, "ask", counted)
    with pytest.raises(KeyboardInterrupt):
        tune(hostile, "spoiled", "generic-cpu", tmp_path / "out.tflite", max_drop=0.99, report=interrupt)
    assert list(tmp_path.iterdir()) == []
    before = list(converted)
    converted.clear()
    document = tune(hostile, "spoiled", "generic-cpu", tmp_path / "out.tflite", max_drop=0.99)
    assert len(document.candidates) == 5
    assert len(before) >= 2
    assert 0 < len(converted) <= 3
    assert not set(before) & set(converted)
