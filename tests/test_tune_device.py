"""What the device says drives the search, as soon as it is known; without a converter or a device."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest

from edgepack.documents import Accuracy, CheckDocument, LatencyMs, LayerError
from edgepack.events import ignore_events
from edgepack.quantize.conversion import refuse_conversion
from edgepack.quantize.request import Request
from edgepack.quantize.tune.bench import Bench
from edgepack.quantize.tune.candidates import Candidate
from edgepack.quantize.tune.choose import choose, none_keeps
from edgepack.quantize.tune.search import Search
from edgepack.quantize.tune.trial import Made, Measurement, Trial
from edgepack.target import Scheme, Target, load_target
from edgepack.tuning import _measurement

CPU, NPU = load_target("generic-cpu"), load_target("coral-usb")
ETHOS = load_target("ethos-u65")
MIXED = dataclasses.replace(CPU, quantization=dataclasses.replace(CPU.quantization, operators="vx"))
TIMES = LatencyMs(1.0, 1.0, 1.0, None, 1.0, 1.0, 50)


class NothingLostHere:
    """A bench on which every candidate keeps the budget; ``bad`` is the layer with the largest error."""

    def try_candidate(self, candidate: Candidate) -> Trial:
        """Made, with no drop."""
        return Made(candidate, 100, candidate.name, Accuracy("top1", 0.9, 0.9, 0.0, 400, None))

    def layer_feeds(self, _: Candidate) -> dict[str, tuple[str, ...]]:
        """Three layers in a row."""
        return {"good": (), "bad": ("good",), "last": ("bad",)}

    def layer_errors(self, _: Candidate) -> tuple[LayerError, ...]:
        """What a diagnosis finds, asked for or not."""
        return tuple(LayerError(name, "CONV_2D", db, 40.0, 100, -1.0, 1.0) for name, db in (("good", 39), ("bad", 4)))


def searched(target: Target, measure: Any) -> tuple[tuple[Trial, ...], list[str]]:
    """Everything that is tried within a point, and the candidates that were measured."""
    asked: list[str] = []

    def measured(candidate: Candidate) -> Measurement:
        asked.append(candidate.name)
        return cast("Measurement", measure(candidate))

    request = Request(model=Path("model.keras"), goals=())
    search = Search(request, 0.01, cast("Bench", NothingLostHere()), None, ignore_events, measure=measured)
    return search.run(target, 100), asked


def whole_int8_loses(candidate: Candidate) -> Measurement:
    """A device whose kernels spoil int8 unless the bad layer is in float."""
    spoiled = candidate.conversion.scheme == Scheme.INT8 and "bad" not in candidate.conversion.float_layers
    return Measurement(TIMES, 0.5 if spoiled else 0.0)


def test_what_only_the_device_loses_is_won_back() -> None:
    """int8 that keeps the budget here and not there: the other ways and layers in float are tried, and measured."""
    trials, asked = searched(MIXED, whole_int8_loses)
    assert any(one.candidate.conversion.range_method == "mse" for one in trials)
    choice = choose(trials, 0.01, MIXED)
    assert choice is not None
    assert choice.trial.candidate.conversion.float_layers == ("bad",), "the worst layer there, by its error here"
    assert sorted(asked) == sorted(one.candidate.name for one in trials), "each once"


def test_where_nothing_helps_on_the_device_it_is_said_after_trying() -> None:
    """The error counts the variants too, names the device's drop and this machine's, and the layers."""
    trials, _ = searched(NPU, lambda _: Measurement(TIMES, 0.5))
    error = none_keeps(trials, 0.01, NPU)
    assert len(trials) > 5
    assert f"None of the {len(trials)} candidates" in error.message
    assert "loses 0.5000 on the device, and 0.0000 on this machine" in error.message
    assert "bad (4.0 dB)" in error.message


def test_what_the_device_refuses_for_its_time_is_not_tried_in_other_scales() -> None:
    """Another range makes no model faster: the search does not go on for it."""
    trials, _ = searched(NPU, lambda _: Measurement(TIMES, 0.0, refused="p95 latency is 9 ms, more than 1 ms."))
    assert [one.candidate.name for one in trials] == ["int8"]


def test_an_integer_only_target_gets_its_worst_layers_in_16_bits() -> None:
    """Where there is no float, 16-bit layers are tried, by the engine that can make them."""

    def mended(candidate: Candidate) -> Measurement:
        return Measurement(TIMES, 0.0 if "bad" in candidate.conversion.int16_layers else 0.5)

    trials, _ = searched(ETHOS, mended)
    choice = choose(trials, 0.01, ETHOS)
    assert choice is not None
    assert choice.trial.candidate.conversion.int16_layers == ("bad",)
    assert choice.trial.candidate.name.endswith("bad in 16 bits")
    for one in trials:
        refuse_conversion(one.candidate.conversion)
        assert not one.candidate.conversion.float_layers
    nothing, _ = searched(ETHOS, lambda _: Measurement(TIMES, 0.5))
    assert "its worst layers in 16 bits are not enough" in none_keeps(nothing, 0.01, ETHOS).message


def checked(verdict: str, **conditions: bool) -> CheckDocument:
    """A check's document."""
    accuracy = Accuracy("top1", 0.9, 0.9, 0.0, 400, None)
    return CheckDocument(
        verdict,
        ("p95 latency is unstable.",),
        "app",
        "1",
        TIMES,
        1.0,
        1,
        100,
        accuracy,
        None,
        {},
        {},
        conditions,
        {},
        1.0,
    )


@pytest.mark.parametrize(
    "document",
    [checked("inconclusive"), checked("pass", throttled=True), checked("pass", emulated=True)],
    ids=["unstable", "throttled", "emulated"],
)
def test_an_inconclusive_check_gives_no_latency(document: CheckDocument) -> None:
    """What was throttled, unstable or too short says why instead, also where no limit asked; its drop stays."""
    measured = _measurement(document)
    assert measured.latency_ms is None
    assert measured.inconclusive
    assert (measured.drop, measured.refused) == (0.0, None)
    assert _measurement(checked("pass", throttled=False)).latency_ms == TIMES
    assert _measurement(checked("fail")).refused is not None
