"""Refusals in the words of the person who asked: what several targets say at once, what to pin."""

from __future__ import annotations

from collections.abc import Sequence

from edgepack.errors import MisfitError
from edgepack.quantize.arrays import Port
from edgepack.quantize.binding import bind_inputs, fit_samples
from edgepack.quantize.checking import CheckedSamples
from edgepack.quantize.request import Goal


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


def pin_advice(inputs: Sequence[Port], samples: CheckedSamples | None) -> str | None:
    """The options that pin what the model leaves open to what the samples have; None where nothing is open."""
    if samples is None or all(None not in port.shape[1:] for port in inputs):
        return None
    bound = bind_inputs(fit_samples(samples.samples, inputs), inputs)
    sizes = {port.name: bound[port.name].shape[-len(port.shape[1:]) :] for port in inputs if port.shape[1:]}
    told = [f"--input-shape {name}={','.join(map(str, (1, *shape)))}" for name, shape in sizes.items()]
    return f"The model leaves sizes open: pin them, {' '.join(told)}."
