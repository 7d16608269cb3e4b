"""The projects of examples/ do what docs/getting-started.md says of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from deploying import this_machine

from edgepack.project import load_project

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
MODEL = Path(__file__).with_name("data") / "digits.float.tflite"


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A copy of the example with a model that needs no TensorFlow, and a profile of this machine."""
    pytest.importorskip("litert_quantizer")
    pytest.importorskip("ai_edge_litert")
    folder = tmp_path / "digits"
    shutil.copytree(EXAMPLES / "digits", folder)
    shutil.copyfile(MODEL, folder / "digits.float.tflite")
    this_machine(folder)
    return folder


def ran(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A program run in the example's folder; ``python3`` is this Python, there and on the device."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    paths = f"{EXAMPLES.parent}:{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": paths}
    command = ["python3", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_main_job_in_python_ends_with_the_hooks_of_the_project(digits: Path) -> None:
    """Samples out of functions, five steps, and the release is active; its hooks ran on the device."""
    given = ["--model", "digits.float.tflite", "--target", "this-machine.toml", "--without-runtime"]
    done = ran(digits, "main_job.py", f"local:{digits}/device", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    told = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    release = told["bundled"]
    assert told["checked"].startswith("pass: ")
    assert told["activated"] == f"{release}, hooks after_activate, health"
    assert (digits / "device" / "activated").read_text() == f"{release}\n"


def test_the_main_job_in_python_ends_with_edgepack_s_exit_code(digits: Path) -> None:
    """What is wrong is told in a sentence, with the code of the command that would have said it."""
    done = ran(digits, "main_job.py", f"local:{digits}/device", "--model", "none.keras")
    assert done.returncode == 2
    assert "none.keras" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_metric_judges_by_the_worst_digit(digits: Path) -> None:
    """A function of the project's is the metric, and its edgepack.toml says the samples."""
    metric = ["--metric", "metrics:worst_digit", "--max-drop", "0.5", "-o", "out.tflite", "--json", "-q"]
    done = ran(digits, "-m", "edgepack", "quantize", "digits.float.tflite", "-t", "this-machine.toml", *metric)
    assert done.returncode == 0, done.stdout + done.stderr
    accuracy = json.loads(done.stdout)["accuracy"]
    assert (accuracy["metric"], accuracy["samples"]) == ("metrics:worst_digit", 597)
    assert 0.5 < accuracy["reference"] < 1


def test_the_project_file_is_whole() -> None:
    """Every line of it is one that edgepack knows."""
    project = load_project(EXAMPLES / "digits" / "edgepack.toml")
    assert (project.name, project.target, project.budget["p95_ms"]) == ("digits", "raspberry-pi-4", 20.0)
    assert project.hooks is not None


@pytest.mark.slow
@pytest.mark.network
def test_what_the_guide_says_of_the_example_is_so(digits: Path) -> None:
    """Train, then the main job with the runtime in the bundle: as a person types it, on this machine."""
    pytest.importorskip("tensorflow")
    assert ran(digits, "-m", "edgepack.demo_training", ".").returncode == 0
    done = ran(digits, "main_job.py", f"local:{digits}/device", "--target", "this-machine.toml")
    assert done.returncode == 0, done.stdout + done.stderr
