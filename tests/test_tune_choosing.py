"""What tune tries, which of it is worth having, and which one it takes: pure, without a model."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.documents import Accuracy, LatencyMs, LayerError
from edgepack.errors import GateFailed, InconclusiveError, MisfitError
from edgepack.quantize.conversion import LITERT, Conversion, calibration_picks, refuse_conversion
from edgepack.quantize.tune.candidates import (
    apart,
    candidate,
    first_candidates,
    legal_schemes,
    needs_calibration,
    variants,
)
from edgepack.quantize.tune.choose import choose, nearest, none_keeps
from edgepack.quantize.tune.mixed import next_layers
from edgepack.quantize.tune.pareto import Point, dominates, pareto_front
from edgepack.quantize.tune.trial import Made, Measurement, Refused, Trial
from edgepack.target import Scheme, Target, load_target

CPU, NPU = load_target("generic-cpu"), load_target("coral-usb")


def trial(scheme: str, drop: float, size: int = 100, ms: float | None = None, **other: Any) -> Made:
    """A candidate in that scheme, tried."""
    conversion = Conversion(Scheme(scheme), float_layers=other.pop("float_layers", ()))
    latency = None if ms is None else Measurement(LatencyMs(ms, None, None, None, ms, ms, 50))
    accuracy = Accuracy("top1", 0.9, 0.9 - drop, drop, 400, None)
    return Made(candidate(conversion), size, f"{scheme}{drop}{size}", accuracy, measurement=latency, **other)


@pytest.mark.parametrize(
    ("target", "schemes"),
    [
        ("generic-cpu", ["int8", "dynamic", "float16", "int16x8", "float32"]),
        ("raspberry-pi-4", ["int8", "dynamic", "float16", "int16x8", "float32"]),
        ("coral-usb", ["int8"]),
        ("ethos-u65", ["int8"]),
        ("stm32mp25-npu", ["int8"]),
    ],
)
def test_only_what_the_profile_allows_is_tried(target: str, schemes: list[str]) -> None:
    """An integer-only accelerator gets int8 and nothing else; a CPU computes in anything."""
    assert list(map(str, legal_schemes(load_target(target)))) == schemes


def test_a_gpu_and_an_accelerator_that_may_fall_back_keep_to_their_own() -> None:
    """A GPU takes float16 and float32; an accelerator's list of operators holds for its own scheme."""
    wanted = dataclasses.replace(CPU.quantization, scheme=Scheme.FLOAT16, operators="gpu-delegate")
    gpu = dataclasses.replace(CPU, quantization=wanted)
    assert legal_schemes(gpu) == (Scheme.FLOAT16, Scheme.FLOAT32)
    assert not needs_calibration(gpu)
    npu = dataclasses.replace(CPU, quantization=dataclasses.replace(CPU.quantization, operators="vx"))
    assert legal_schemes(npu) == (Scheme.INT8,)


@pytest.mark.parametrize("target", [CPU, NPU])
@pytest.mark.parametrize("engine", ["tensorflow", "litert"])
@pytest.mark.parametrize("scheme", [Scheme.INT8, Scheme.DYNAMIC])
def test_every_candidate_is_one_that_its_engine_can_make(target: Target, engine: str, scheme: Scheme) -> None:
    """Nothing is tried that must fail; no two have the same name; the profile's border and granularity hold in all."""
    found = [*first_candidates(target, engine), *variants(target, scheme, 100, engine)]
    for one in found:
        refuse_conversion(one.conversion)
        assert (one.conversion.io, one.conversion.granularity) == (
            target.quantization.io,
            target.quantization.granularity,
        )
    assert len({one.name for one in found}) == len(found)
    if engine == LITERT:
        assert {one.conversion.engine for one in found} == {LITERT}


def test_few_calibration_samples_are_not_split() -> None:
    """A quarter of ten samples measures no range."""
    assert not any(one.conversion.calibration_rows for one in variants(CPU, Scheme.INT8, 10))
    assert {one.conversion.calibration_rows for one in variants(CPU, Scheme.INT8, 100)} == {None, 50, 25}


def test_the_samples_that_stretch_a_range_are_left_out_of_one_candidate() -> None:
    """They are tried without, first of all, where enough others are left."""
    first = variants(CPU, Scheme.INT8, 100, stretching=(3, 99))[0]
    assert first.conversion.calibration_without == (3, 99)
    assert first.name == "int8, without 2 calibration samples that stretch ranges"
    assert calibration_picks(first.conversion, 100) == [*range(3), *range(4, 99)]
    assert not any(one.conversion.calibration_without for one in variants(CPU, Scheme.INT8, 9, stretching=(3, 4)))


@given(st.integers(1, 300), st.none() | st.integers(1, 300), st.sets(st.integers(0, 299), max_size=20))
def test_a_subset_of_the_calibration_is_evenly_spread(rows: int, some: int | None, without: set[int]) -> None:
    """As many as asked for, from the first on, none left out taken, and no gap of more than twice the mean and one."""
    there = [row for row in range(rows) if row not in without]
    asked = Conversion(Scheme.INT8, calibration_rows=some, calibration_without=tuple(sorted(without)))
    if not there:
        return
    picks = calibration_picks(asked, rows)
    assert len(picks) == min(len(there), some or len(there))
    assert sorted(set(picks) & set(there)) == picks
    places = [there.index(row) for row in picks]
    steps = [after - before for before, after in itertools.pairwise([*places, len(there)])]
    assert places[0] == 0
    assert max(steps) - min(steps) <= 1


def test_a_candidate_names_its_layers_as_people_know_them() -> None:
    """The layer's own name, not the converter's list of everything that was fused into it."""
    mixed = apart(first_candidates(CPU)[0], ("model/a/Relu;model/a/BiasAdd;model/b", "model/c/MatMul", "model/d"))
    assert mixed.name == "int8, a/Relu and c/MatMul and 1 more in float"


costs = st.tuples(
    st.floats(-1, 1, allow_nan=False), st.integers(1, 9), st.one_of(st.none(), st.floats(0.1, 9, allow_nan=False))
)


@given(st.lists(costs.map(lambda one: Point(*one)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(points: list[Point]) -> None:
    """There always is a front, no point on it beats another, and each point off it is beaten by one on it."""
    front = [point for point, on_front in zip(points, pareto_front(points), strict=True) if on_front]
    assert front
    assert not any(dominates(one, other) for one in front for other in front)
    off = [point for point, on_front in zip(points, pareto_front(points), strict=True) if not on_front]
    assert all(any(dominates(one, point) for one in front) for point in off)


def test_what_was_not_measured_is_not_fast() -> None:
    """A candidate without a latency never pushes a measured one off the front by speed."""
    assert pareto_front([Point(0.1, 5, 1.0), Point(0.1, 5)]) == (True, False)
    assert pareto_front([Point(0.1, 5), Point(0.0, 5)]) == (False, True)


def any_trial(scheme: str, drop: float, size: int, ms: float | None, legal: bool) -> Trial:
    """A trial, measured or not, or one that the target refuses."""
    made = trial(scheme, drop, size, ms)
    return made if legal else Refused(made.candidate, "no kernel")


schemes, milliseconds = st.sampled_from(list(map(str, Scheme))), st.floats(0.1, 9, allow_nan=False)
trials = st.lists(
    st.builds(
        any_trial, schemes, st.floats(-0.1, 0.3, allow_nan=False), st.integers(1, 1000),
        st.one_of(st.none(), milliseconds), st.booleans(),
    ),
    max_size=8,
)  # fmt: skip


@given(trials, st.floats(0, 0.3, allow_nan=False))
def test_the_choice_keeps_the_budget_and_is_the_best_by_a_tenth(tried: list[Trial], max_drop: float) -> None:
    """Whatever is chosen is legal and within the budget; measured ones by time, the others by size."""
    choice = choose(tried, max_drop, CPU)
    keeping = [one for one in tried if isinstance(one, Made) and one.keeps(max_drop)]
    if choice is None:
        assert not keeping
        error = none_keeps(tried, max_drop, CPU)
        best = nearest(tried)
        assert isinstance(error, MisfitError if best is None else GateFailed)
        assert best is None or best.candidate.name in error.message
        assert [one["name"] for one in error.details["candidates"]] == [one.candidate.name for one in tried]  # type: ignore[attr-defined]
        json.dumps(error.details, allow_nan=False)
        return
    assert choice.trial in keeping
    assert choice.reason.endswith(".")
    measured = [one.latency_ms for one in keeping if one.latency_ms is not None]
    if measured:
        assert choice.trial.latency_ms is not None
        assert choice.trial.latency_ms <= 1.1 * min(measured)
    else:
        quick = [one for one in keeping if one.candidate.conversion.scheme != Scheme.INT16X8] or keeping
        assert choice.trial.bytes <= 1.1 * min(one.bytes for one in quick)


def chosen(*tried: Trial, max_drop: float = 0.01, target: Target = CPU) -> tuple[str, str]:
    """The chosen candidate's name and the reason."""
    choice = choose(tried, max_drop, target)
    assert choice is not None
    return choice.trial.candidate.name, choice.reason


def test_the_smallest_that_keeps_is_taken() -> None:
    """Of sizes within a tenth the profile's own scheme; int8 that loses too much is named with what it loses."""
    assert chosen(trial("int8", 0.0, 105), trial("dynamic", 0.0, 100), trial("float32", 0.0, 400))[0] == "int8"
    name, reason = chosen(trial("int8", 0.2, 100), trial("dynamic", 0.004, 120), trial("float32", 0.0, 400))
    assert name == "dynamic"
    assert "smallest" in reason
    assert "int8 would lose 0.2000" in reason


def test_int16x8_is_the_last_resort_on_a_cpu() -> None:
    """Its kernels are reference code: a float model is larger and far faster."""
    assert chosen(trial("int16x8", 0.0, 100), trial("float16", 0.0, 200))[0] == "float16"
    assert chosen(trial("int16x8", 0.0, 100), trial("float16", 0.2, 200))[0] == "int16x8"


def test_int8_that_does_not_pay_on_the_device_is_told() -> None:
    """Where the device computes float faster, the reason says so with both times."""
    name, reason = chosen(trial("int8", 0.0, 100, 1.4), trial("float32", 0.0, 400, 0.16))
    assert name == "float32"
    assert "int8 does not pay on this device" in reason
    assert "1.4 ms" in reason
    assert "0.16 ms" in reason
    assert chosen(trial("int8", 0.0, 100, 0.1), trial("float32", 0.0, 400, 0.16))[0] == "int8"


def test_what_the_device_loses_counts() -> None:
    """A model that keeps the budget here and not there, or that the device refuses, is not taken."""
    there = dataclasses.replace(trial("int8", 0.0), measurement=Measurement(None, drop=0.5))
    refused = dataclasses.replace(trial("dynamic", 0.0), measurement=Measurement(None, refused="no such operator"))
    assert chosen(there, refused, trial("float32", 0.0, 400))[0] == "float32"


def untold(one: Made, drop: float = 0.0) -> Made:
    """The same, checked on a throttled device."""
    return dataclasses.replace(one, measurement=Measurement(None, drop, inconclusive="The device was throttled."))


def test_a_latency_that_says_nothing_decides_nothing() -> None:
    """A throttled candidate is left out, and said; where that is all of them, nothing is chosen: exit 3."""
    name, reason = chosen(untold(trial("int8", 0.0, 100)), trial("float32", 0.0, 400, 0.16))
    assert name == "float32"
    assert "int8: The device was throttled." in reason
    with pytest.raises(InconclusiveError, match=r"int8: The device was throttled\.") as failure:
        choose([untold(trial("int8", 0.0)), untold(trial("float32", 0.0)), trial("dynamic", 0.5)], 0.01, CPU)
    assert failure.value.exit_code == 3
    details = failure.value.details["candidates"]
    assert [one["inconclusive"] is None for one in details] == [False, False, True]  # type: ignore[attr-defined]
    assert choose([untold(trial("int8", 0.0), drop=0.5)], 0.01, CPU) is None, "what it loses there counts all the same"


def test_an_integer_only_target_is_told_what_it_cannot() -> None:
    """The error names the nearest candidate, the worst layers, and that no layer can be in float there."""
    layers = (layer("model/good/Relu", 30.0), layer("model/bad/Relu", 4.0, "CONV_2D"))
    error = none_keeps([trial("int8", 0.2, layers=layers), trial("int8", 0.3)], 0.01, NPU)
    assert isinstance(error, GateFailed)
    assert error.exit_code == 1
    assert "loses 0.2000" in error.message
    assert "no layer can be kept in float there" in error.message
    assert "bad/Relu (4.0 dB)" in error.message
    assert "--max-drop 0.201" in error.hint


def test_a_size_or_an_accuracy_beyond_the_budget_is_not_chosen() -> None:
    """What is too large is none for this target, what is too poor is searched for further; the error says which."""
    large = trial("int8", 0.0, 90, oversize="90 bytes are more than model_bytes 80.")
    poor = trial("dynamic", 0.0, 70, too_poor="Accuracy 0.9000 of top1 is less than min_accuracy 0.95.")
    assert chosen(large, poor, trial("float32", 0.0, 400))[0] == "float32"
    budget = dataclasses.replace(CPU.budget, min_accuracy=0.95, model_bytes=80)
    target = dataclasses.replace(CPU, budget=budget)
    error = none_keeps([large], 0.01, target)
    assert isinstance(error, GateFailed)
    assert "keeps the drop within 0.01, min_accuracy 0.95 and model_bytes 80 on" in error.message
    assert "The nearest, int8, loses 0.0000. 90 bytes are more than model_bytes 80." in error.message
    assert "raise model_bytes in [budget] to 90" in error.hint
    error = none_keeps([large, poor], 0.01, target)
    assert "dynamic, loses 0.0000. Accuracy 0.9000 of top1 is less than min_accuracy 0.95." in error.message
    assert "lower min_accuracy in [budget] to 0.9" in error.hint
    assert [one["reason"] for one in error.details["candidates"]] == [large.oversize, None]  # type: ignore[attr-defined]


def layer(tensor: str, sqnr_db: float, operator: str = "CONV_2D", reads: float | None = 40.0) -> LayerError:
    """A layer's error."""
    return LayerError(tensor, operator, sqnr_db, reads, 100, -1.0, 1.0)


def test_the_layer_that_loses_most_by_itself_comes_first() -> None:
    """Not the one with the worst output: what comes after a bad layer inherits its noise."""
    layers = [layer("a", 38.0), layer("b", 5.0, reads=38.0), layer("c", 4.0, reads=5.0)]
    feeds = {"a": (), "b": ("a",), "c": ("b",)}
    assert next_layers(layers, feeds, (), 1) == ("b",)
    assert next_layers(layers, feeds, ("b",), 1) == ("a",), "b is in float and still bad: what it reads spoils it"
    assert next_layers(layers, feeds, ("a", "b"), 9) == ("c",)
    assert next_layers(layers, feeds, ("a", "b", "c"), 9) == ()


names = st.sampled_from(["a", "b", "c", "d", "e"])


@given(
    st.dictionaries(names, st.lists(names, max_size=2).map(tuple)), st.lists(st.tuples(names, st.floats(-5, 60))),
    st.sets(names), st.integers(1, 5),
)  # fmt: skip
def test_every_layer_is_reached_once(
    feeds: dict[str, tuple[str, ...]], errors: list[tuple[str, float]], taken: set[str], count: int
) -> None:
    """Taking what is next until nothing is left takes every known layer exactly once, whatever the graph."""
    layers = [layer(name, db) for name, db in errors]
    order: list[str] = []
    while more := next_layers(layers, feeds, {*taken, *order}, count):
        assert len(more) <= count
        order += more
    assert len(order) == len(set(order))
    assert set(order) >= ({*feeds, *(name for name, _ in errors)} - taken)
