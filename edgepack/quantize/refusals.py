"""Refusals in the words of the person who asked: what several targets say at once, what to pin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgepack.errors import EdgepackError, InputError, MisfitError
from edgepack.quantize.arrays import Port
from edgepack.quantize.binding import bind_inputs, fit_samples
from edgepack.quantize.checking import CheckedSamples
from edgepack.quantize.delegation import accelerator_of, is_accelerated
from edgepack.quantize.request import Goal
from edgepack.quantize.samples import Samples
from edgepack.quantize.shapes import InputShape, parse_input_shapes, shape_text


def all_refused(refused: Sequence[tuple[Goal, MisfitError]], goals: int) -> MisfitError:
    """The refusals of several targets as one; nothing is written for the others either."""
    told = " ".join(f"{goal.target.name}: {error.message}" for goal, error in refused)
    return MisfitError(
        refused[0][1].code,
        f"{len(refused)} of {goals} targets cannot have this model, and nothing was written. {told}",
        hint="Leave them out, or: " + " ".join(dict.fromkeys(error.hint for _, error in refused if error.hint)),
        refused=[
            {"target": goal.target.name, "code": error.code, "message": error.message, "details": error.details}
            for goal, error in refused
        ],
    )


def advise_pins(error: EdgepackError, inputs: Sequence[Port], samples: CheckedSamples | None) -> None:
    """Add to the hint which options pin what the model leaves open to what the samples have; nothing where none is.

    The advice takes the place of the general one that conformance gives for an open size.
    """
    if samples is None or all(None not in port.shape[1:] for port in inputs):
        return
    bound = bind_inputs(fit_samples(samples.samples, inputs), inputs)
    sizes = {port.name: bound[port.name].shape[-len(port.shape[1:]) :] for port in inputs if None in port.shape[1:]}
    told = [f"--input-shape {name}={','.join(map(str, (1, *shape)))}" for name, shape in sizes.items()]
    details: Mapping[str, Any] = error.details
    findings = details.get("findings", ())
    others = [found["cure"] for found in findings if found["code"] != "open-shape"]
    advice = f"The model leaves sizes open: pin them, {' '.join(told)}."
    error.hint = " ".join(dict.fromkeys(filter(None, [advice, *(others if findings else [error.hint])])))


def refuse_open_sizes(source: Path, inputs: Sequence[Port], samples: CheckedSamples | None) -> None:
    """Raise InputError "open-sizes" for a .tflite with more than its batch open that samples are to go through.

    The hint pins them to what the samples have.
    """
    opened = next((port for port in inputs if None in port.shape[1:]), None)
    if opened is None or samples is None:
        return
    error = InputError(
        "open-sizes",
        f"{source} cannot be fed with samples: its input {opened.name!r} is {shape_text(opened.shape)} (? is open).",
    )
    advise_pins(error, inputs, samples)
    raise error


def refuse_open_batch(goals: Sequence[Goal], inputs: Sequence[Port], batch: int | None) -> None:
    """Raise InputError "open-batch" where nobody pins an open batch, and an accelerator takes fixed sizes only."""
    if batch is not None or all(port.shape[:1] != (None,) for port in inputs):
        return
    lists = ((goal.target.name, accelerator_of(goal.target)) for goal in goals if is_accelerated(goal.target))
    fixed = [
        f"{name} ({accelerator.title})" for name, accelerator in lists if accelerator and not accelerator.open_batch
    ]
    if fixed:
        raise InputError(
            "open-batch",
            f"--batch 0 leaves the batch open, and {' and '.join(fixed)} "
            f"{'takes' if len(fixed) == 1 else 'take'} fixed sizes only.",
            hint="Leave --batch out, which pins 1, or pin another; quantize for these targets apart from others.",
        )


def require_fit(samples: Samples, inputs: Sequence[Port], input_shapes: Sequence[str]) -> None:
    """Raise what :func:`fit_samples` does, with the shape to state where the fault may be an ``--input-shape``."""
    try:
        fit_samples(samples, inputs)
    except InputError as error:
        for shape in parse_input_shapes(input_shapes):
            corrected = _corrected(shape, error.details)
            if corrected:
                error.hint = f"{error.hint} Or correct --input-shape: {corrected} fits these samples."
        raise


def _corrected(shape: InputShape, details: Mapping[str, Any]) -> str | None:
    """The shape as the samples have it; None where they contradict more than the sizes that it states."""
    name = details.get("input")
    if name is None or shape.name not in (None, name):
        return None
    expected, got = details["expected"][1:], details["got"][1:]
    if len(expected) != len(got) or len(shape.sizes) != len(got) + 1:
        return None
    stated = zip(expected, got, shape.sizes[1:], strict=True)
    if any(want not in (None, have) and size is None for want, have, size in stated):
        return None
    batch = "?" if shape.sizes[0] is None else shape.sizes[0]
    return f"{name}={','.join(map(str, (batch, *got)))}"
