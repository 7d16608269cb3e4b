from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.hostruntime import dequantize, quantize

details = st.tuples(
    st.sampled_from(["int8", "uint8", "int16"]), st.floats(1e-4, 10), st.integers(0, 127), st.booleans()
).map(lambda drawn: {"dtype": drawn[0], "quantization": (drawn[1], drawn[2] if drawn[0] != "int16" else 0)})


@given(details, st.lists(st.floats(-1e5, 1e5, width=32), min_size=1, max_size=20))
def test_a_number_comes_back_within_half_a_step(detail: dict[str, object], values: list[float]) -> None:
    """Quantizing and dequantizing moves a number by at most half a step, or to the end of the range."""
    scale, zero_point = detail["quantization"]  # type: ignore[misc]
    limits = np.iinfo(str(detail["dtype"]))
    real = np.array(values, np.float32)
    back = dequantize(quantize(real, detail), detail)
    lowest, highest = (limits.min - zero_point) * scale, (limits.max - zero_point) * scale
    inside = np.clip(real, lowest, highest)
    assert np.all(np.abs(back - inside) <= scale * 0.5 + 1e-5 * np.abs(inside) + 1e-6)
    assert quantize(real, detail).dtype == detail["dtype"]


def test_quantizing_rounds_half_to_even() -> None:
    """Halves round to the even neighbour, as numpy's rint does on the device too."""
    detail = {"dtype": np.int8, "quantization": (1.0, 0)}
    assert quantize(np.array([0.5, 1.5, 2.5, -0.5, -1.5, 200.0]), detail).tolist() == [0, 2, 2, 0, -2, 127]


def test_floats_pass_unchanged() -> None:
    """A float tensor, or an integer one without a scale, is not quantized."""
    assert quantize(np.array([1.25], np.float64), {"dtype": np.float32, "quantization": (0.0, 0)}).dtype == np.float32
    assert quantize(np.array([7]), {"dtype": np.int32, "quantization": (0.0, 0)}).tolist() == [7]
    assert dequantize(np.array([7], np.int32), {"quantization": (0.0, 0)}).tolist() == [7.0]


_RUN = """
import json, sys
import numpy as np
from pathlib import Path
from edgepack.errors import EdgepackError
from edgepack.hostruntime import HostModel
try:
    found = HostModel(Path(sys.argv[1])).run({"image": np.ones((1, 3), np.float32)})
    print(json.dumps({name: values.tolist() for name, values in found.items()}))
except EdgepackError as error:
    print(json.dumps({"code": error.code}))
"""


def run(path: Path) -> dict[str, object]:
    """One run of a model in a process of its own: two runtimes must not meet in this one."""
    ran = subprocess.run([sys.executable, "-c", _RUN, str(path)], check=True, capture_output=True, text=True)
    answer: dict[str, object] = json.loads(ran.stdout)
    return answer


def test_a_model_runs_float_in_float_out(tmp_path: Path) -> None:
    """Weights 1 to 6 with scales 0.5 and 0.25 on inputs of 1: 3.0 and 3.75, within the output's step of 0.2."""
    pytest.importorskip("flatbuffers")
    from tiny_tflite import tiny_model

    path = tmp_path / "model.tflite"
    path.write_bytes(tiny_model())
    ((scores,),) = run(path).values()  # type: ignore[misc]
    assert scores == pytest.approx([3.0, 3.75], abs=0.1001)


def test_a_model_that_the_runtime_refuses_is_a_misfit(tmp_path: Path) -> None:
    """What the runtime cannot load is said in one sentence."""
    from tiny_tflite import tiny_model

    path = tmp_path / "model.tflite"
    path.write_bytes(tiny_model(version=99))
    assert run(path) == {"code": "runtime-refused"}
