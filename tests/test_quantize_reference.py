"""What a conversion is held against, where a model has custom operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from compiled_tflite import compiled_model

from edgepack.errors import MisfitError
from edgepack.quantize.reference import Reference
from edgepack.quantize.workshop import Workshop
from edgepack.tflite import read_model

TINY = Path(__file__).parent / "data" / "tiny_int8.tflite"


class Answers:
    """A workshop whose two sides disagree; only an operator that no host of a test has would need a real one."""

    def host(self, *_: Any) -> dict[str, Any]:
        """The .tflite's answer."""
        return {"y": np.ones((1, 2), np.float32)}

    def reference(self, *_: Any) -> dict[str, Any]:
        """TensorFlow's."""
        return {"y": np.zeros((1, 2), np.float32)}


def reference_of(folder: Path, custom: str) -> tuple[Reference, Path]:
    """The reference, and a model with that custom operator."""
    model = read_model(TINY)
    path = folder / "custom.tflite"
    path.write_bytes(compiled_model(model.inputs, model.outputs, custom=custom))
    return Reference(cast("Workshop", Answers()), (), None), path


def test_only_a_placeholder_of_tensorflows_is_judged_by_the_tflite(tmp_path: Path) -> None:
    """The post-processing of detections has no body in TensorFlow: the note names it, and nothing is compared."""
    reference, path = reference_of(tmp_path, "TFLite_Detection_PostProcess")
    (note,) = reference.compare(path, None)
    assert note.subject == "TFLite_Detection_PostProcess"


def test_any_other_custom_operator_is_held_against_tensorflow(tmp_path: Path) -> None:
    """A wrong conversion is found also where a custom operator stands in it."""
    reference, path = reference_of(tmp_path, "AudioSpectrogram")
    with pytest.raises(MisfitError) as refusal:
        reference.compare(path, None)
    assert refusal.value.code == "conversion-differs"
