"""A float .tflite with open sizes, pinned by --input-shape and --batch as the runtime proves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from test_quantize_conformance import target

import edgepack
from edgepack.building import quantize
from edgepack.errors import InputError
from edgepack.hostruntime import HostModel
from edgepack.quantize.floatmodel import open_float_model
from edgepack.target import Scheme
from edgepack.tflite import read_model

OPEN = ("open_loop", "open_branch", "open_mask")


def resized(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """What the original answers, its inputs resized in the interpreter."""
    runner = Interpreter(model_path=str(path)).get_signature_runner()
    answer: dict[str, Any] = runner(**given)  # resizes by itself
    return answer


def pinned(path: Path, scratch: Path, *shapes: str, batch: int = 1) -> Path:
    """The model as a conversion starts from it."""
    scratch.mkdir(exist_ok=True)
    return open_float_model(path, scratch, shapes, batch).path


def draw(*shape: int) -> Any:
    """Other numbers than those that pinning proves itself with."""
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("batch", "steps"), [(1, 12), (1, 5), (3, 20)])
def test_a_pinned_model_answers_as_the_original_resized(
    small_models: Path, tmp_path: Path, batch: int, steps: int
) -> None:
    """Two inputs, one of open length, sizes computed from it: nothing stays open, and every output is the same."""
    original = small_models / "open_steps.tflite"
    made = pinned(original, tmp_path, f"steps={batch},{steps},8", batch=batch)
    model = read_model(made)
    assert [(name, tensor.shape_signature) for name, tensor in model.named_inputs] == [
        ("steps", (batch, steps, 8)),
        ("extra", (batch, 4)),
    ]
    assert all(-1 not in tensor.shape_signature for tensor in model.tensors)
    assert {"SHAPE", "EXPAND_DIMS", "SQUEEZE"}.isdisjoint(operator.name for operator in model.operators)
    given = {"steps": draw(batch, steps, 8), "extra": draw(batch, 4)}
    answers = HostModel(made).run(given)
    expected = resized(original, given)
    assert set(answers) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(answers[name], values, atol=1e-5)


@pytest.mark.parametrize("name", OPEN)
def test_loops_branches_and_masks_answer_as_before(small_models: Path, tmp_path: Path, name: str) -> None:
    """Their inputs are pinned; what values or loops decide stays open, and is what it was for either branch."""
    original = small_models / f"{name}.tflite"
    made = pinned(original, tmp_path, "1,7,16")
    assert read_model(made).inputs[0].shape_signature == (1, 7, 16)
    for sign in (1, -1):
        given = {"v": sign * np.abs(draw(1, 7, 16)) + 0.1 * draw(1, 7, 16)}
        np.testing.assert_allclose(HostModel(made).run(given)["out"], resized(original, given)["out"], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shapes", "batch", "told"),
    [
        ("open_steps", ["steps=1,3,8"], 1, "CONV_2D 'functional.*' refuses what it would get"),
        ("open_steps", ["steps=1,?,8"], 1, r"would keep open sizes at its input 'steps' \(1,\?,8\)"),
        ("open_steps", ["steps=1,12,9"], 1, "size 3 is fixed at 8, not 9"),
        ("open_steps", ["stops=1,12,8"], 1, "Did you mean 'steps'"),
    ],
)
def test_what_the_graph_cannot_take_is_named(
    small_models: Path, tmp_path: Path, name: str, shapes: list[str], batch: int, told: str
) -> None:
    """Exit 2 with the operator, the size or the input; the runtime's own words are in the details."""
    with pytest.raises(InputError, match=told) as refusal:
        pinned(small_models / f"{name}.tflite", tmp_path, *shapes, batch=batch)
    assert refusal.value.code == "bad-input-shape"


def test_another_batch_is_proven_row_by_row_or_refused(small_models: Path, tmp_path: Path) -> None:
    """A file with a fixed batch gets another one where each row answers as it did; else it is told what hinders it."""
    four = pinned(small_models / "open_steps.tflite", tmp_path / "four", "steps=4,12,8", batch=4)
    with pytest.raises(InputError, match=r"batch of 4, and cannot have 1: RESHAPE") as refusal:
        pinned(four, tmp_path / "one")
    assert refusal.value.code == "batch-fixed"
    assert "--batch 4" in refusal.value.hint
    for name, why in (("open_loop", "WHILE calls"), ("open_mask", "RESHAPE"), ("open_branch", "IF calls")):
        one = pinned(small_models / f"{name}.tflite", tmp_path / name, "1,7,16")
        with pytest.raises(InputError, match=why):
            pinned(one, tmp_path / "two", batch=2)


def test_the_anomaly_model_of_mlperf_takes_any_batch(data: Path, tmp_path: Path) -> None:
    """ad01_fp32.tflite is of a time when files could not say that a size is open; four rows at once are four rows."""
    original, rows = data / "anomaly" / "ad01_fp32.tflite", draw(4, 640)
    made = HostModel(pinned(original, tmp_path, batch=4)).run({"input_1": rows})["Identity"]
    alone = HostModel(original)
    np.testing.assert_allclose(
        made, [alone.run({"input_1": row[None]})["Identity"][0] for row in rows], rtol=1e-4, atol=1e-4
    )


def test_an_open_file_is_quantized_with_the_shape_that_the_samples_have(small_models: Path, tmp_path: Path) -> None:
    """Without a shape the error says which; with it int8 comes out near the float model, and the cache knows shapes."""
    output, samples = tmp_path / "out.tflite", f"{small_models / 'steps.npz'}"

    def made(*shapes: str) -> Any:
        return quantize(
            small_models / "open_steps.tflite",
            target=target("ai-edge-litert"),
            output=output,
            calibration=f"{samples}#0:30",
            check_set=f"{samples}#30:60",
            input_shapes=shapes,
        )

    with pytest.raises(InputError) as refusal:
        made()
    assert (refusal.value.code, list(tmp_path.iterdir())) == ("open-sizes", [])
    assert "--input-shape steps=1,12,8." in refusal.value.hint
    with pytest.raises(InputError, match=r"takes \[N, 13, 8\]"):
        made("steps=1,13,8")
    assert [made("steps=1,12,8").cached for _ in range(2)] == [False, True]
    with np.load(tmp_path / "out.check.npz") as check:
        for name in ("output_0", "output_1"):
            reference = check[f"float/{name}"]
            assert np.abs(check[f"quantized/{name}"] - reference).mean() < 0.1 * np.abs(reference).mean()
    assert not made("steps=2,12,8").cached
    assert [tensor.shape[0] for tensor in read_model(output).inputs] == [2, 2]


def test_a_float_target_gets_the_pinned_model(small_models: Path, tmp_path: Path) -> None:
    """Where nothing is to be quantized the shape is pinned all the same."""
    floats = target("ai-edge-litert", scheme=Scheme.FLOAT32, io="float32")
    options = {"output": tmp_path / "out.tflite", "input_shapes": ["1,7,16"]}
    quantize(small_models / "open_branch.tflite", target=floats, **options)
    assert read_model(tmp_path / "out.tflite").inputs[0].shape_signature == (1, 7, 16)


def test_tune_takes_an_open_file_with_its_shape(small_models: Path, tmp_path: Path) -> None:
    """Every candidate starts from the pinned model."""
    rows = draw(60, 7, 16)
    model = HostModel(small_models / "open_loop.tflite", shapes={"v": (1, 7, 16)})
    labels = [model.run({"v": row[None]})["out"].argmax() for row in rows]
    np.savez(tmp_path / "rows.npz", v=rows, y=labels)
    document = edgepack.tune(
        small_models / "open_loop.tflite",
        target=target("ai-edge-litert"),
        output=tmp_path / "out.tflite",
        calibration=f"{tmp_path / 'rows.npz'}#0:20",
        evaluation=f"{tmp_path / 'rows.npz'}#20:60",
        max_drop=0.1,
        input_shapes=["1,7,16"],
    )
    assert all(candidate.legal for candidate in document.candidates)
    assert read_model(tmp_path / "out.tflite").inputs[0].shape_signature == (1, 7, 16)
