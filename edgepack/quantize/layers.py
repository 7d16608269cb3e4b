"""Where a quantized model goes wrong: each layer's output against the float model's, so that the bad one has a name."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.documents import Histogram, LayerError
from edgepack.hostruntime import HostModel
from edgepack.quantize.pairing import Pair, pair_tensors
from edgepack.tflite import read_model

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    Batches = Callable[[int], Iterable[Mapping[str, Array]]]

NO_NOISE_DB = 200.0
"""Where two tensors are equal: float32 has 24 bits, 144 dB; a finite number, because JSON has no infinity."""

BAD_SQNR_DB = 10.0
"""Below it a layer is bad: its noise has a tenth of its signal's power."""

DOUBTFUL_SQNR_DB, BAD_FALL_DB = 20.0, 12.0
"""Below the first a layer is bad that is by the second worse than its worst input: it alone has cost two bits of eight
(6.02 dB a bit). In the int8 models of MLPerf Tiny, which lose no accuracy, every layer but one is above 22 dB.
"""

_BINS = 48


@dataclass(frozen=True, slots=True)
class Layers:
    """Layer errors in the order of execution.

    ``left_out`` counts layers that the float model has no equal of, or whose output holds nothing after a run.
    """

    layers: tuple[LayerError, ...]
    left_out: int

    @property
    def first_bad(self) -> str | None:
        """The tensor of the first bad layer; None where all are good."""
        return first_bad_layer(self.layers)


def layers_to_json(layers: Layers) -> dict[str, Any]:
    """As a plain JSON value."""
    return dataclasses.asdict(layers)


def layers_from_json(value: Mapping[str, Any]) -> Layers:
    """What :func:`layers_to_json` gave."""
    return Layers(tuple(_layer_from_json(one) for one in value["layers"]), int(value["left_out"]))


def _layer_from_json(value: Mapping[str, Any]) -> LayerError:
    told = value["histogram"]
    histogram = told and Histogram(told["low"], told["high"], tuple(told["reference"]), tuple(told["quantized"]))
    return LayerError(**{**value, "histogram": histogram})


def first_bad_layer(layers: Sequence[LayerError]) -> str | None:
    """The tensor of the first bad layer in the order of execution; None where all are good.

    Bad is a layer below :data:`BAD_SQNR_DB`, or below :data:`DOUBTFUL_SQNR_DB` and by more than :data:`BAD_FALL_DB`
    worse than its worst input. What comes after it inherits its noise, and so the first one is the one to look at.
    """
    for layer in layers:
        fall = 0.0 if layer.input_sqnr_db is None else layer.input_sqnr_db - layer.sqnr_db
        if layer.sqnr_db < BAD_SQNR_DB or (layer.sqnr_db < DOUBTFUL_SQNR_DB and fall > BAD_FALL_DB):
            return layer.tensor
    return None


def sqnr_db(signal: float, noise: float) -> float:
    """The signal-to-quantization-noise ratio in decibels: ``10 log10(sum(x^2) / sum((x - q)^2))``.

    As in M. Nagel et al., A White Paper on Neural Network Quantization (arXiv 2106.08295), and in PyTorch's
    ``compute_sqnr``. Kept within 200 dB to either side.
    """
    if noise == 0:
        return NO_NOISE_DB
    if signal == 0:
        return -NO_NOISE_DB
    return max(-NO_NOISE_DB, min(NO_NOISE_DB, 10 * math.log10(signal / noise)))


def measure_layers(reference: Path, quantized: Path, batches: Batches, *, worst: int = 5) -> Layers:
    """Run both models over ``batches(size)`` and compare layer by layer; the ``worst`` ones get histograms.

    ``batches(size)`` gives arrays by input name with exactly that many rows, the same whenever it is called. Sums are
    streamed: memory is that of one run. Raises MisfitError "runtime-refused".
    """
    threads = min(4, os.cpu_count() or 1)
    models = HostModel(reference, threads, keep_all=True), HostModel(quantized, threads, keep_all=True)
    pairs, left_out = pair_tensors(read_model(reference), read_model(quantized))
    sums = [_Sums() for _ in pairs]
    for expected, got in _runs(models, pairs, batches):
        for number, total in enumerate(sums):
            total.add(expected[number], got[number])
    alike = [number for number, total in enumerate(sums) if total.alike and total.elements]
    ratios = {number: sqnr_db(sums[number].signal, sums[number].noise) for number in alike}
    layers = {number: _layer(pairs[number], sums[number], ratios, number) for number in alike}
    chosen = sorted(alike, key=lambda number: ratios[number])[:worst]
    histograms = _histograms(models, [pairs[number] for number in chosen], [sums[number] for number in chosen], batches)
    for number, histogram in zip(chosen, histograms, strict=True):
        layers[number] = dataclasses.replace(layers[number], histogram=histogram)
    return Layers(tuple(layers.values()), left_out + len(pairs) - len(alike))


def _layer(pair: Pair, total: _Sums, ratios: Mapping[int, float], number: int) -> LayerError:
    inputs = [ratios[one] for one in pair.inputs if one in ratios]
    lowest = round(min(inputs), 2) if inputs else None
    ratio = round(ratios[number], 2)
    return LayerError(pair.tensor, pair.operator, ratio, lowest, total.elements, total.low, total.high)


class _Sums:
    """What is known of one tensor so far."""

    __slots__ = ("alike", "elements", "high", "highest", "low", "lowest", "noise", "signal")

    def __init__(self) -> None:
        self.alike = True
        self.elements = 0
        self.signal = self.noise = 0.0
        # Of the float model's numbers; and of both models'.
        self.low = self.lowest = math.inf
        self.high = self.highest = -math.inf

    def add(self, expected: Array | None, got: Array | None) -> None:
        """Count one run; what is not finite (a mask's infinity) has no ratio and is left out."""
        import numpy as np

        if expected is None or got is None or expected.shape != got.shape:
            self.alike = False
            return
        finite = np.isfinite(expected) & np.isfinite(got)
        if not finite.all():
            expected, got = expected[finite], got[finite]
        if not expected.size:
            return
        self.elements += expected.size
        self.signal += float(np.square(expected, dtype=np.float64).sum())
        self.noise += float(np.square(expected - got, dtype=np.float64).sum())
        self.low, self.high = min(self.low, float(expected.min())), max(self.high, float(expected.max()))
        self.lowest = min(self.lowest, self.low, float(got.min()))
        self.highest = max(self.highest, self.high, float(got.max()))


def _runs(
    models: tuple[HostModel, HostModel], pairs: Sequence[Pair], batches: Batches
) -> Iterator[tuple[list[Array | None], list[Array | None]]]:
    """Both models' tensors, pair by pair, run after run; None for one that holds nothing."""
    reference, quantized = models
    for batch in batches(quantized.batch):
        expected = reference.tensors(batch, {pair.reference for pair in pairs})
        got = quantized.tensors(batch, {pair.quantized for pair in pairs})
        yield [expected.get(pair.reference) for pair in pairs], [got.get(pair.quantized) for pair in pairs]


def _histograms(
    models: tuple[HostModel, HostModel], pairs: Sequence[Pair], sums: Sequence[_Sums], batches: Batches
) -> list[Histogram]:
    """How the values of these tensors lie, over the range that a first pass found."""
    import numpy as np

    counts = np.zeros((2, len(pairs), _BINS), np.int64)
    for both in _runs(models, pairs, batches):
        for side, tensors in enumerate(both):
            for number, (values, total) in enumerate(zip(tensors, sums, strict=True)):
                if values is not None:
                    counts[side, number] += np.histogram(values, _BINS, (total.lowest, total.highest))[0]
    return [
        Histogram(total.lowest, total.highest, tuple(map(int, expected)), tuple(map(int, got)))
        for total, expected, got in zip(sums, *counts, strict=True)
    ]
