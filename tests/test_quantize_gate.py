"""The gate of ``quantize``: what it says, what the command ends with, and that nothing is deployed past it."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from deploying import this_machine
from hypothesis import given
from hypothesis import strategies as st

import edgepack
from edgepack.check.verdict import Measured, judge
from edgepack.cli.main import run
from edgepack.device import ConnectOptions
from edgepack.documents import Accuracy
from edgepack.errors import GateFailed, InputError
from edgepack.metric import MAE, TOP1, Drop
from edgepack.quantize.gate import OVER_BUDGET, UNSETTLED, judge_budget, judge_drop
from edgepack.target import Budget

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


HAD = Accuracy("top1", 0.90, 0.88, 0.02, 100, None)


@given(
    size=st.integers(1, 30_000),
    most=st.none() | st.integers(1, 30_000),
    hits=st.integers(0, 100),
    floor=st.none() | st.floats(0, 1),
    max_drop=st.none() | st.sampled_from([0.0, 0.01, 0.02, 0.05]),
)
def test_limits_that_need_no_device_mean_what_they_mean_to_check(
    size: int, most: int | None, hits: int, floor: float | None, max_drop: float | None
) -> None:
    """Whatever quantize says of drop, accuracy and size, check says of the same numbers and the same keys."""
    accuracy = Accuracy("top1", 0.90, hits / 100, 0.90 - hits / 100, 100, None)
    drop = Drop(TOP1, 0.90, hits / 100, 100)
    budget = Budget(max_accuracy_drop=max_drop, min_accuracy=floor, model_bytes=most)
    here = judge_budget(size, drop, accuracy, budget, max_drop)
    there = judge(Measured((1.0,), 1.0, 1, size), accuracy, None, budget)
    limited = (most, floor, max_drop) != (None, None, None)
    assert here.within is (there.verdict == "pass" if limited else None)
    broken = [gate.name for gate in there.gates if gate.outcome == "fail"]
    named = ["max_accuracy_drop" if one.subject == "top1" else one.subject for one in here.findings]
    assert sorted(named) == sorted(broken)


def test_a_model_beyond_a_size_or_below_an_accuracy_is_told_with_both_numbers() -> None:
    """The sentences name the key and the numbers; a float model that is below itself says so; an error has no floor."""
    budget = Budget(min_accuracy=0.99, model_bytes=20_000)
    poor, large = judge_budget(52_520, None, HAD, budget, None).findings
    assert large.message == "52,520 bytes are more than model_bytes 20,000."
    below = "Accuracy 0.8800 of top1 is less than min_accuracy 0.99"
    assert poor.message == f"{below}, and the float model itself has 0.9000."
    (lost,) = judge_budget(1, None, HAD, Budget(min_accuracy=0.89), None).findings
    assert "edgepack tune" in lost.cure
    unsettled = judge_budget(1, None, dataclasses.replace(HAD, smaller_is_better=True), budget, None)
    assert (unsettled.within, [one.code for one in unsettled.findings]) == (None, [UNSETTLED])
    assert judge_budget(1, None, None, budget, None).within is None, "nothing was measured"
    assert judge_budget(52_520, None, None, budget, None).within is False, "the size is known all the same"


def test_a_size_of_the_profile_or_of_edgepack_toml_fails_quantize(
    small_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """model_bytes ends the command with 1 and stands in the text, wherever it is written, also without samples."""
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(
        'extends = "generic-cpu"\n[quantization]\nscheme = "float32"\n[budget]\nmodel_bytes = 900\n'
    )
    line = ["quantize", str(small_models / "keras3.keras"), "-t", "own.toml", "-o", "out.tflite"]
    assert run(line) == 1
    assert "bytes are more than model_bytes 900" in capsys.readouterr().out
    Path("edgepack.toml").write_text("[budget]\nmodel_bytes = 900000\n")
    assert run(line) == 0, "edgepack.toml goes before the profile"
    samples = small_models / "images.npz"
    np.savez("bare.npz", x=np.load(samples)["x"][20:30])
    asked = [*line, "--eval", f"{samples}#20:120", "--check-set", "bare.npz", "--max-drop", "0", "--json"]
    capsys.readouterr()
    assert run(asked) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["within_budget"] is True
    notes = {one["code"]: one["cure"] for one in document["conformance"]["findings"]}
    assert notes["few-samples"].startswith("No number of samples settles it")
    assert "the --eval rows are labelled" in notes["unlabelled-check-set"]


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
