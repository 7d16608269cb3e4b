"""Which calibration rows the audit of ranges runs, so that it stays a small part of a conversion; pure.

Running a float model with every tensor kept costs about as much for a row as calibrating does. What counts is how much
the model multiplies, not how long it took: the same model and samples give the same rows on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgepack.tflite import TfliteModel

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

MOST_ROWS = 500
"""The guide's upper end of a calibration set (ai.google.dev/edge/litert, "Post-training quantization")."""

MOST_WORK = 5_000_000_000
"""Multiplications: less than a second of CPU time (a row of a MobileNetV2 of 224x224 is 370 million and took 52 ms)."""

FEWEST_ROWS = 16
"""Of however large a model: a sixth of what calibrating with 100 samples costs."""

_OUTERMOST = 4
# Reading a number and looking for the least and the largest, in multiplications.
_WORK_PER_NUMBER = 10


def runs_to_look_at(model: TfliteModel, rows: int, outermost: Sequence[int]) -> tuple[int, ...]:
    """Numbers of the runs, of as many rows as the model takes at once, that fit the bounds; () for all of them.

    Those of the ``outermost`` rows (half of what fits at most), and the others evenly spread.
    """
    shape = model.inputs[0].shape
    rows_per_run = max(1, shape[0] if shape else 1)
    runs = math.ceil(rows / rows_per_run)
    most = min(MOST_ROWS, max(FEWEST_ROWS, MOST_WORK // work_of(model)))
    if runs <= most:
        return ()
    first = list(dict.fromkeys(row // rows_per_run for row in outermost))[: most // 2]
    others = [run for run in range(runs) if run not in first]
    left = most - len(first)
    return tuple(sorted([*first, *(others[place * len(others) // left] for place in range(left))]))


def work_of(model: TfliteModel) -> int:
    """About how many multiplications one run takes: each output's numbers times the weights that meet in one of them.

    A weight tensor serves one output channel with its size over the number of channels, in convolutions, depthwise
    ones and dense layers alike.
    """
    work = 1
    for operator in model.operators:
        outputs = [model.tensor(operator.subgraph, index) for index in operator.outputs if index >= 0]
        inputs = [model.tensor(operator.subgraph, index) for index in operator.inputs if index >= 0]
        weights = [math.prod(one.shape) for one in inputs if one.constant and len(one.shape) > 1]
        numbers = sum(math.prod(one.shape) for one in outputs)
        channels = outputs[0].shape[-1] if outputs and outputs[0].shape else 1
        work += numbers * _WORK_PER_NUMBER + numbers * max(weights, default=0) // max(1, channels)
    return work


def outermost_rows(lows: Array, highs: Array) -> tuple[int, ...]:
    """The rows that reach furthest to either end of an input, furthest first; of [rows, inputs] least and largest."""
    import numpy as np

    ends = np.concatenate([lows, -highs], axis=1)
    order = np.argsort(ends, axis=0, kind="stable")[:_OUTERMOST]
    return tuple(dict.fromkeys(int(row) for row in order.reshape(-1)))
