"""Looks what a set of calibration samples does to a float model's ranges, and says what is worth a note."""

from __future__ import annotations

from pathlib import Path

from edgepack.documents import Finding
from edgepack.errors import MisfitError
from edgepack.quantize.arrays import Port
from edgepack.quantize.checking import CheckedSamples
from edgepack.quantize.rangeaudit import audit_ranges, stretching_rows
from edgepack.quantize.rangerows import runs_to_look_at
from edgepack.quantize.workshop import Workshop
from edgepack.tflite import read_model


def range_notes(
    shop: Workshop, float_model: Path, inputs: tuple[Port, ...], calibration: CheckedSamples, *, whole: bool
) -> tuple[Finding, ...]:
    """Notes on the samples, over the rows that :mod:`edgepack.quantize.rangerows` allows, or with ``whole`` over all.

    "ranges-not-seen" where this machine cannot run the model with every tensor kept.
    """
    samples = calibration.samples
    runs = () if whole else runs_to_look_at(read_model(float_model), samples.rows, calibration.outermost)
    try:
        ranges = shop.ranges(float_model, inputs, calibration, runs)
    except MisfitError as refusal:
        return (
            Finding(
                "ranges-not-seen",
                "note",
                samples.text,
                f"{samples.name}: whether a sample stretches a range was not looked into. {refusal.message}",
                "Look through the calibration samples yourself.",
            ),
        )
    return audit_ranges(ranges, samples.name, samples.start, samples.rows)


def rows_that_stretch(
    shop: Workshop, float_model: Path, inputs: tuple[Port, ...], calibration: CheckedSamples
) -> tuple[int, ...]:
    """The calibration rows, counted within the set, that :func:`range_notes` names; () where they cannot be seen."""
    rows = calibration.samples.rows
    try:
        ranges = shop.ranges(
            float_model, inputs, calibration, runs_to_look_at(read_model(float_model), rows, calibration.outermost)
        )
    except MisfitError:
        return ()
    return tuple(row for row in stretching_rows(ranges) if row < rows)
