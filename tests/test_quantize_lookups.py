"""A token outside the vocabulary is the samples' fault: the row is named before anything is converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_quantize_conformance import target

import edgepack
from edgepack.errors import InputError, MisfitError
from edgepack.events import Event
from edgepack.hostruntime import HostModel
from edgepack.target import Scheme

CPU = target("ai-edge-litert")
FLOATS = target("ai-edge-litert", scheme=Scheme.FLOAT32, io="float32")
SETS = [{"calibration": "bad"}, {"evaluation": "bad"}, {"check_set": "bad"}]


def saved(folder: Path) -> dict[str, str]:
    """Tokens of a vocabulary of 50, and the same with a 50 in row 35."""
    tokens = np.random.default_rng(4).integers(0, 50, (60, 5)).astype(np.int32)
    labels = np.arange(60) % 3
    np.savez(folder / "good.npz", x=tokens, y=labels)
    tokens[35, 2] = 50
    np.savez(folder / "bad.npz", x=tokens, y=labels)
    return {name: f"{folder}/{name}.npz" for name in ("good", "bad")}


def refused(model: Path, folder: Path, **sets: str) -> tuple[InputError, list[str]]:
    """What is said, and what was done until then."""
    files = saved(folder)
    rows = {
        "calibration": "#20:60" if "calibration" in sets else "#0:20",
        "evaluation": "#20:60",
        "check_set": "#20:60",
    }
    given: dict[str, Any] = {"calibration": "good", **sets}
    done: list[Event] = []
    with pytest.raises(InputError) as refusal:
        edgepack.quantize(
            model,
            target=CPU,
            output=folder / "out.tflite",
            report=done.append,
            **{name: files[which] + rows[name] for name, which in given.items()},
        )
    assert not (folder / "out.tflite").exists()
    return refusal.value, [event.message for event in done]


@pytest.mark.parametrize("sets", SETS, ids=lambda sets: next(iter(sets)))
def test_a_token_outside_the_vocabulary_names_its_row_before_the_conversion(
    small_models: Path, tmp_path: Path, sets: dict[str, str]
) -> None:
    """Wherever the samples are used: the file, the row, what it holds and what the table has; exit code 2."""
    error, done = refused(small_models / "tokens.keras", tmp_path, **sets)
    assert (error.code, error.exit_code, error.details["row"]) == ("index-out-of-range", 2, 35)
    assert "bad.npz: row 35 " in error.message
    assert "0 to 49" in error.message
    assert "to 50" in error.message
    assert not any(message.startswith("converting") for message in done)


def test_a_float_tflite_tells_the_row_too(small_models: Path, tmp_path: Path) -> None:
    """LiteRT does not say which number it was; the row is found all the same, and its numbers' range is told."""
    edgepack.quantize(small_models / "tokens.keras", target=FLOATS, output=tmp_path / "float.tflite")
    with pytest.raises(MisfitError, match=r"out of bounds\. Node number [0-9]+ \(GATHER\)"):
        HostModel(tmp_path / "float.tflite").run({"tokens": np.full((1, 5), 50, np.int32)})
    error, done = refused(tmp_path / "float.tflite", tmp_path, evaluation="bad")
    assert (error.code, error.details["row"]) == ("index-out-of-range", 35)
    assert "to 50" in error.message
    assert not any(message.startswith("converting") for message in done)
