from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from agent_client import FakeRelease, find_pythons
from ondevice_release import lay_out, model_release, run_program

LOAD = "import edgepack_device, numpy as np\nmodel = edgepack_device.load('tiny')\n"


@pytest.fixture
def int8(tmp_path: Path) -> Path:
    """An edgepack folder with the int8 classifier active."""
    lay_out(tmp_path, model_release())
    return tmp_path


@pytest.fixture
def float32(tmp_path: Path) -> Path:
    """An edgepack folder with the float model of two inputs and two outputs active."""
    lay_out(tmp_path, model_release("tiny_float"))
    return tmp_path


def test_floats_go_in_and_come_out_of_an_int8_model(int8: Path) -> None:
    """Predict quantizes as clip(rint(x / scale) + zero_point), dequantizes as (q - zero_point) * scale, in float32."""
    result = run_program(
        int8,
        LOAD
        + """
x = np.random.default_rng(0).uniform(-0.5, 1.5, (1, 8, 8, 1)).astype(np.float32)
i, o = model.inputs[0], model.outputs[0]
q = np.clip(np.rint(x / np.float32(i.scale)) + np.float32(i.zero_point), -128, 127).astype(np.int8)
expected = (model.predict_raw(q).astype(np.float32) - np.float32(o.zero_point)) * np.float32(o.scale)
y = model.predict(x)
same = bool(np.array_equal(y, expected))
result = [same, str(y.dtype), list(y.shape), float(y.sum()), float(q.min()), float(q.max())]
""",
    )
    assert result[:3] == [True, "float32", [1, 4]]
    assert result[3] == pytest.approx(1, abs=0.05)
    assert result[4:] == [-128, 127]


def test_any_number_of_samples_may_be_given(int8: Path) -> None:
    """One sample with or without its batch axis, or many: the result has one row per sample."""
    result = run_program(
        int8,
        LOAD
        + """
x = np.random.default_rng(0).uniform(0, 1, (5, 8, 8, 1))
one = [model.predict(x[i:i + 1]) for i in range(5)]
many = model.predict(x)
result = [list(many.shape), bool(np.array_equal(many, np.concatenate(one))), list(model.predict(x[0]).shape),
          list(model.predict(x[0].tolist()).shape)]
""",
    )
    assert result == [[5, 4], True, [1, 4], [1, 4]]


def test_several_inputs_and_outputs_go_by_name(float32: Path) -> None:
    """A model with several inputs takes a mapping or keywords and gives a dict, named as its signature names them."""
    result = run_program(
        float32,
        LOAD
        + """
l, r = [[1, 2, 3]], [[10, 20, 30]]
a, b = model.predict({"left": l, "right": r}), model.predict(right=r, left=l)
result = [{k: v.tolist() for k, v in a.items()}, {k: v.tolist() for k, v in b.items()}]
""",
    )
    expected = {"total": [[12, 24, 36]], "product": [[10, 40, 90]]}
    assert result == [expected, expected]


def test_a_model_of_any_batch_size_is_resized(float32: Path) -> None:
    """Where the model allows any batch, a batch runs in one go, and the next one of another size too."""
    result = run_program(
        float32,
        LOAD
        + """
shapes = []
for n in (1, 7, 7, 2, 1):
    out = model.predict(left=np.ones((n, 3)), right=np.full((n, 3), 2))
    assert (out["total"] == 4).all()
    shapes.append(list(out["total"].shape))
result = shapes
""",
    )
    assert result == [[1, 3], [7, 3], [7, 3], [2, 3], [1, 3]]


def test_a_model_of_any_size_takes_each_picture_as_it_is(tmp_path: Path) -> None:
    """Where the model leaves height and width open, each call has its own, several pictures too; too small is said."""
    lay_out(tmp_path, model_release("tiny_open"))
    body = """
picture = np.random.default_rng(0).uniform(0, 1, (1, 6, 9, 1)).astype(np.float32)
three = np.concatenate([picture, picture[:, ::-1], picture[:, :, ::-1]])
expected = [model.predict(x[None]) for x in three]
shapes = [list(model.predict(np.zeros((h, w, 1))).shape) for h, w in ((3, 3), (20, 4), (6, 9))]
same = bool(np.array_equal(model.predict(three), np.concatenate(expected)))
said = []
for wrong in (np.zeros((1, 1, 1, 1)), np.zeros((1, 6, 9, 3)), np.zeros((0, 6, 9, 1)), np.zeros(5)):
    try:
        model.predict(wrong)
    except ValueError as error:
        said.append(str(error))
raw = model.predict_raw(np.zeros((1, 5, 5, 1), np.int8))
again = bool(np.array_equal(model.predict(picture), expected[0]))
result = [shapes, same, said, raw.shape, again, model.info()["inputs"]]
"""
    shapes, same, said, raw, again, inputs = run_program(tmp_path, LOAD + body)
    assert shapes == [[1, 1, 1, 2], [1, 18, 2, 2], [1, 4, 7, 2]]
    assert same
    assert "cannot resize the model to [1, 1, 1, 1]" in said[0]
    assert [message.split(" The")[0].rpartition(" takes ")[2] for message in said[1:]] == [
        "the shape [1, -1, -1, 1], not [1, 6, 9, 3]. model.inputs tells all that the model takes.",
        "the shape [1, -1, -1, 1], not [0, 6, 9, 1]. model.inputs tells all that the model takes.",
        "the shape [1, -1, -1, 1], not [5]. model.inputs tells all that the model takes.",
    ]
    assert raw == [1, 3, 3, 2]
    assert again
    assert inputs[0]["shape"] == [1, -1, -1, 1]


def test_inputs_of_different_numbers_of_samples_are_told_both(float32: Path) -> None:
    """A model of a fixed batch size runs batch after batch; where its inputs disagree, each one's count is said."""
    body = """
for info in model.inputs:
    info.shape = (1, 3)
try:
    model.predict(left=np.ones((2, 3)), right=np.ones((3, 3)))
except ValueError as error:
    message = str(error)
result = [message, model.predict(left=np.ones((2, 3)), right=np.ones((2, 3)))["total"].tolist()]
"""
    message, total = run_program(float32, LOAD + body)
    assert "'left' 2, 'right' 3" in message
    assert total == [[3.0] * 3] * 2


def test_a_tensor_prints_what_it_is(int8: Path) -> None:
    """`print(model.inputs)` tells name, type, shape and quantization, no address in memory."""
    said = run_program(int8, LOAD + "result = repr(model.inputs[0])")
    assert said.startswith("<'image': int8 [1, 8, 8, 1], scale 0.00")
    assert "zero_point -128" in said


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("model.predict(np.zeros((8, 8)))", "takes the shape [1, 8, 8, 1]"),
        ("model.predict(np.zeros((1, 8, 8, 3)))", "takes the shape [1, 8, 8, 1]"),
        ("model.predict(np.zeros((0, 8, 8, 1)))", "takes the shape [1, 8, 8, 1]"),
        ("model.predict({'picture': np.zeros((1, 8, 8, 1))})", "not among them: picture; not given: image"),
        ("model.predict()", "not given: image"),
        ("model.predict_raw(np.zeros((1, 8, 8, 1), np.float32))", "takes int8, not float32"),
        ("model.predict('a cat')", "could not convert"),
        ("model.predict(np.full((1, 8, 8, 1), np.nan))", "NaN"),
    ],
)
def test_an_input_that_does_not_fit_is_a_value_error(call: str, said: str, int8: Path) -> None:
    """Wrong shapes, names, types and NaN are refused with what the model takes, and the model stays usable."""
    body = f"""
try:
    {call}
except ValueError as error:
    message = str(error)
result = [message, model.predict(np.zeros((1, 8, 8, 1))).shape[1]]
"""
    message, outputs = run_program(int8, LOAD + body)
    assert said in message
    assert outputs == 4


def test_a_damaged_model_is_never_loaded(tmp_path: Path) -> None:
    """A model whose bytes are not what the manifest says is refused, with the cure."""
    folder = lay_out(tmp_path, model_release())
    data = bytearray((folder / "model.tflite").read_bytes())
    data[-1] ^= 1
    (folder / "model.tflite").write_bytes(bytes(data))
    said = run_program(tmp_path, LOAD, fails=True)
    assert "LoadError" in said
    assert "Push the bundle again" in said


def test_a_required_delegate_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Without its accelerator a model that requires it is not run on the CPU in silence; an optional one is."""
    for required in (True, False):
        release = model_release(app=f"tiny-{required}".lower())
        release.extra["target"] = {"delegate": {"library": "libnope.so.1", "required": required, "options": {}}}
        lay_out(tmp_path, release)
    said = run_program(tmp_path, "import edgepack_device; edgepack_device.load('tiny-true')", fails=True)
    assert "libnope.so.1" in said
    body = "import edgepack_device; result = edgepack_device.load('tiny-false').info()['delegate']"
    assert run_program(tmp_path, body) == {"library": "libnope.so.1", "operators": 0}


def test_a_runtime_that_is_gone_is_named(tmp_path: Path) -> None:
    """When the unpacked runtime was deleted, the error says what is gone and how to get it back."""
    release = model_release()
    release.runtime = {**(release.runtime or {}), "id": "0123456789abcdef", "dists": ["numpy"]}
    lay_out(tmp_path, release)
    assert "The release's runtime is gone" in run_program(tmp_path, LOAD, fails=True)


def test_the_loader_works_as_a_command(int8: Path, tmp_path: Path) -> None:
    """info, predict and verify tell what the model is, run it on a file, and check it."""
    loader = str(int8 / "apps" / "tiny" / "current" / "loader.py")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", loader, *arguments], capture_output=True, text=True, timeout=60, check=False
        )

    info = json.loads(command("info").stdout)
    assert (info["app"], info["inputs"][0]["name"], info["inputs"][0]["dtype"]) == ("tiny", "image", "int8")
    np.save(tmp_path / "in.npy", np.zeros((3, 8, 8, 1), np.float32))
    assert command("predict", str(tmp_path / "in.npy"), "-o", str(tmp_path / "out.npz")).returncode == 0
    with np.load(tmp_path / "out.npz") as out:
        assert out["output_0"].shape == (3, 4)
    assert "whole; loads on" in command("verify").stdout
    (tmp_path / "objects.npy").write_bytes(b"")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused = command("predict", str(tmp_path / "objects.npy"))
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)


@pytest.mark.parametrize("python", find_pythons())
def test_the_door_and_the_loader_speak_every_python_from_3_8_on(python: str, int8: Path) -> None:
    """On each Python, with or without numpy, the command explains itself and what is missing is named."""
    loader = str(int8 / "apps" / "tiny" / "current" / "loader.py")
    told = subprocess.run([python, "-I", loader, "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "measure" in told.stdout
    body = """
import edgepack_device
try:
    edgepack_device.load("tiny")
    result = "works"
except edgepack_device.LoadError as error:
    result = error.code
"""
    assert run_program(int8, body, python=python) in ("works", "no-runtime", "numpy-mismatch")


def test_a_model_made_without_a_device_json_runs_too(tmp_path: Path) -> None:
    """A release unpacked by hand uses the runtime that this Python has."""
    folder = lay_out(tmp_path, model_release())
    (folder / "device.json").unlink()
    assert run_program(tmp_path, LOAD + "result = model.info()['release']") == folder.name


def test_an_integer_input_takes_no_fractions(tmp_path: Path) -> None:
    """A float array is not cut down in silence for an input of whole numbers, nor a complex one for a float input."""
    lay_out(tmp_path, model_release("tiny_float"))
    body = """
try:
    model.predict(left=np.ones((1, 3), complex), right=np.ones((1, 3)))
except ValueError as error:
    result = str(error)
"""
    assert "takes float32, not complex128" in run_program(tmp_path, LOAD + body)


def test_closing_frees_the_model(float32: Path) -> None:
    """A closed model says so instead of crashing, whatever the size of what it is given."""
    body = """
with model:
    pass
result = []
for n in (1, 7):
    try:
        model.predict(left=np.ones((n, 3)), right=np.ones((n, 3)))
    except Exception as error:
        result.append([type(error).__name__, error.code])
"""
    assert run_program(float32, LOAD + body) == [["LoaderError", "closed"]] * 2


def test_a_folder_that_is_no_release_is_named(tmp_path: Path) -> None:
    """A release without its manifest is refused by name, not with a traceback of its own making."""
    release = FakeRelease(app="tiny", contents={"loader.py": model_release().contents["loader.py"]})
    folder = lay_out(tmp_path, release)
    (folder / "manifest.json").write_text("{}")
    assert "holds no release" in run_program(tmp_path, LOAD, fails=True)
