"""Recurrent models are loops, some of whose outputs nobody reads: every look inside goes through them all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import pytest
from test_quantize_conformance import target

import edgepack
from edgepack.errors import MisfitError
from edgepack.events import ignore_events
from edgepack.quantize.arrays import Port
from edgepack.quantize.conversion import Conversion
from edgepack.quantize.failures import library_failure
from edgepack.quantize.job import prepare_job
from edgepack.quantize.layernotes import layer_notes
from edgepack.quantize.request import Goal, Request
from edgepack.quantize.tune.bench import opened_bench
from edgepack.quantize.tune.candidates import apart, candidate
from edgepack.quantize.tune.mixed import next_layers
from edgepack.quantize.tune.trial import Made
from edgepack.quantize.workshop import Workshop
from edgepack.target import Scheme

CPU = target("ai-edge-litert")
FLOAT = Path(__file__).parent / "data" / "tiny_spiky.float.tflite"


def labelled(small_models: Path, folder: Path) -> Path:
    """Samples for the GRU: 30 rows with labels."""
    with np.load(small_models / "gru.npz") as samples:
        np.savez(folder / "gru.npz", x=samples["x"], y=np.arange(30) % 3)
    return folder / "gru.npz"


@pytest.mark.parametrize(("name", "samples"), [("gru", "gru.npz"), ("recurrent", "sequences.npz")])
def test_a_recurrent_models_layers_and_ranges_are_looked_into(
    small_models: Path, tmp_path: Path, name: str, samples: str
) -> None:
    """GRU and LSTM get their layers' errors; a loop's output that holds nothing is counted, not stumbled over."""
    document = edgepack.quantize(
        small_models / f"{name}.keras",
        target=CPU,
        output=tmp_path / "out.tflite",
        calibration=small_models / samples,
        diagnose=True,
    )
    codes = [found.code for found in document.conformance.findings]
    assert "ranges-not-seen" not in codes
    assert "layers-not-compared" not in codes
    assert "WHILE" in [layer.operator for layer in document.layers]
    assert document.layers_left_out is not None
    assert document.layers_left_out >= 1


def test_tune_takes_a_recurrent_models_layers_apart(small_models: Path, tmp_path: Path) -> None:
    """int8, its layers' errors, then the worst layer in float: each step of tune's mixed precision is a legal model."""
    samples = labelled(small_models, tmp_path)
    goal = Goal(CPU, tmp_path / "out.tflite")
    request = Request(small_models / "gru.keras", (goal,), f"{samples}#0:15", f"{samples}#15:30", max_drop=0.99)
    plain = candidate(Conversion(Scheme.INT8, CPU.quantization.io, CPU.quantization.granularity, float_fallback=True))
    with opened_bench(prepare_job(request, ignore_events), tmp_path, ignore_events) as bench:
        layers, feeds = bench.layer_errors(plain), bench.layer_feeds(plain)
        assert layers
        mixed = bench.try_candidate(apart(plain, next_layers(layers, feeds, (), 2)))
    assert isinstance(mixed, Made), mixed.reason


def test_a_comparison_of_layers_that_fails_is_a_note() -> None:
    """What only explains a model refuses none: the model may be as good as any, and the reason is told."""

    class Failing:
        def layers(self, *_: Any) -> NoReturn:
            raise MisfitError("litert-failed", "LiteRT failed.")

    layers, (found,) = layer_notes(cast(Workshop, Failing()), FLOAT, FLOAT, (Port("x", (1, 6), "float32"),), None)
    assert layers is None
    assert (found.code, found.severity) == ("layers-not-compared", "note")
    assert "LiteRT failed." in found.message


@pytest.mark.parametrize("verb", ["load", "convert", "reference", "host", "layers", "ranges"])
def test_a_failure_names_the_library_that_it_came_from_and_what_it_was_at(verb: str) -> None:
    """Neither a verb of the protocol nor another library's name is in the sentence, whatever the worker was at."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(FLOAT))
    with pytest.raises(ValueError, match="index") as fault:
        interpreter.get_tensor(10**6)
    error = library_failure(verb, fault.value)
    assert error.code == "litert-failed"
    assert error.message.startswith("LiteRT failed to ")
    assert " model" in error.message
    assert "runtime" in error.hint


def test_a_failure_of_no_library_is_that_of_the_one_asked() -> None:
    """An exception without a library's frame is told by what was being done."""
    assert library_failure("layers", ValueError("odd")).code == "litert-failed"
    told = library_failure("load", ValueError("first\nlast"))
    assert (told.code, told.message) == ("tensorflow-failed", "TensorFlow failed to load the model: ValueError: last")
