"""The accuracy gate of ``quantize``: what it says, what the command ends with, and that nothing is deployed past it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from deploying import this_machine

import edgepack
from edgepack.cli.main import run
from edgepack.device import ConnectOptions
from edgepack.errors import GateFailed, InputError
from edgepack.metric import MAE, TOP1, Drop
from edgepack.quantize.gate import OVER_BUDGET, UNSETTLED, judge_drop

LOST_TWO = Drop(TOP1, 0.90, 0.88, 100, table=(88, 2, 0, 10))


@pytest.mark.parametrize(
    ("drop", "limit", "confident", "within", "codes"),
    [
        (LOST_TWO, 0.02, False, True, []),
        (LOST_TWO, 0.02, True, None, [UNSETTLED]),
        (LOST_TWO, 0.01, False, False, [OVER_BUDGET]),
        (LOST_TWO, 0.01, True, False, [OVER_BUDGET]),
        (LOST_TWO, 0.2, True, True, []),
        (Drop(MAE, 0.1, 0.3, 9), 0.1, False, False, [OVER_BUDGET]),
        (Drop(MAE, 0.1, 0.1, 9), 0.1, True, None, [UNSETTLED]),
        (Drop(MAE, 0.1, float("nan"), 9), 0.1, False, False, [OVER_BUDGET]),
        (LOST_TWO, None, False, None, []),
        (None, 0.02, False, None, []),
    ],
)
def test_a_drop_is_judged_as_check_judges_it(
    drop: Drop | None, limit: float | None, confident: bool, within: bool | None, codes: list[str]
) -> None:
    """Beyond the limit is broken; with gate = confident a bound beyond it is neither kept nor broken."""
    gate = judge_drop(drop, limit, confident=confident)
    assert gate.within is within
    assert [found.code for found in gate.findings] == codes


@pytest.mark.network
def test_a_broken_budget_is_written_told_and_not_deployed(
    small_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text says FAIL, the exit code is 1, and deploy sends nothing, or with --unchecked all of it, and says so."""
    monkeypatch.chdir(tmp_path)
    with np.load(small_models / "images.npz") as images:
        samples, labels = images["x"].copy(), images["y"]
    samples[13] *= 2000
    np.savez(tmp_path / "wild.npz", x=samples, y=labels)
    model = str(small_models / "keras3.keras")
    asked = ["--calibration", "wild.npz#0:20", "--eval", "wild.npz#20:120"]
    target = ["--target", "generic-cpu", "-o", "out.tflite"]
    assert run(["quantize", model, *target, *asked, "--max-drop", "0.02"]) == 1
    assert "budget" in (text := capsys.readouterr().out)
    assert "FAIL" in text
    assert Path("out.tflite").exists()
    assert run(["quantize", model, *target, *asked, "--max-drop", "0.02", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["within_budget"] is False
    assert document["cached"]
    assert run(["quantize", model, *target, *asked, "--max-drop", "0.99"]) == 0
    with pytest.raises(GateFailed) as error:
        edgepack.deploy(
            f"local:{tmp_path}/device",
            model,
            target=this_machine(tmp_path),
            name="wild",
            version="1",
            calibration="wild.npz#0:20",
            evaluation="wild.npz#20:120",
            budget={"max_accuracy_drop": 0.02},
            options=ConnectOptions(python=sys.executable),
        )
    assert error.value.code == OVER_BUDGET
    assert not (tmp_path / "device").exists() or not list((tmp_path / "device").rglob("*.tflite"))
    named = ["--name", "wild", "--version", "1", "--budget", "max_accuracy_drop=0.02", "--python", sys.executable]
    line = ["deploy", f"local:{tmp_path}/device", model, "-t", str(this_machine(tmp_path)), *named, *asked]
    capsys.readouterr()
    assert run([*line, "--unchecked", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["quantize"]["within_budget"] is False
    assert done["check"]["verdict"] == "fail"
    assert done["activate"]["unchecked"] is True


def test_a_limit_that_cannot_be_held_is_refused(small_models: Path, tmp_path: Path) -> None:
    """A negative drop is no budget; one without samples to measure it on would promise nothing."""
    for value in (-0.1, float("nan")):
        with pytest.raises(InputError) as error:
            edgepack.quantize(
                small_models / "keras3.keras", target="generic-cpu", output=tmp_path / "o.tflite", max_drop=value
            )
        assert error.value.code == "bad-max-drop"
    model, output = str(small_models / "keras3.keras"), str(tmp_path / "o.tflite")
    assert run(["quantize", model, "-t", "generic-cpu", "-o", output, "--max-drop", "0.1"]) == 2
