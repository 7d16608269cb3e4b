"""What a person asks ``quantize`` for: plain values, checked by :mod:`edgepack.quantize.job`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgepack.quantize.conversion import Conversion
from edgepack.quantize.preprocessing import UNSTATED, Preprocessing
from edgepack.target import Target


@dataclass(frozen=True, slots=True)
class Goal:
    """A .tflite to be made: for which target, and where it goes.

    ``conversion`` says how, where it is not just as the target's [quantization] has it.
    """

    target: Target
    output: Path
    conversion: Conversion | None = None


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How the model is taken: its ``batch`` (None leaves it as it is), which of a SavedModel's signatures, open sizes.

    ``input_shapes`` are texts as :mod:`edgepack.quantize.shapes` reads them.
    """

    batch: int | None = 1
    signature: str | None = None
    input_shapes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One run of ``quantize``: a model, what to make of it, and the samples to make and judge it with.

    ``calibration``, ``evaluation`` and ``check_set`` are sets of samples as the command line takes them (``FILE``,
    ``FOLDER`` or ``module:function``, and after it ``#100:500`` for rows), made into inputs as ``preprocessing`` says.
    ``metric`` is built in or ``module:function`` of (outputs, labels). With ``cache`` what was made before from the
    same content is taken from the user's cache. ``max_drop`` goes before the targets' own ``max_accuracy_drop``.
    ``diagnose`` looks into layers and calibration samples also where accuracy is kept. ``resamples`` are those of the
    metric's interval; None takes :func:`edgepack.metric.load_metric`'s own number.
    """

    model: Path
    goals: tuple[Goal, ...]
    calibration: str | None = None
    evaluation: str | None = None
    check_set: str | None = None
    metric: str = "top1"
    options: SourceOptions = SourceOptions()
    cache: bool = True
    max_drop: float | None = None
    diagnose: bool = False
    preprocessing: Preprocessing = UNSTATED
    resamples: int | None = None
