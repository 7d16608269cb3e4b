"""Rows that both set ranges and judge the result: refused, or noted where they are few."""

from __future__ import annotations

from edgepack.documents import Finding
from edgepack.errors import InputError
from edgepack.quantize.checking import CheckedSamples
from edgepack.quantize.functions import SampleFunction

TOLERATED_SHARE = 0.01
"""Of the judging samples, each counted once, how many may be calibrated on as well: they flatter by a point at most."""

TOLERATED_ROWS = 0.1
"""Of the judging rows, how many may be one and the same sample (digital silence, say) that was calibrated on too."""


def repeated_rows(calibration: CheckedSamples | None, judging: CheckedSamples | None) -> Finding | None:
    """A note where a few samples stand on both sides, with their rows. Raises InputError "overlap"."""
    if calibration is None or judging is None:
        return None
    alike = refuse_overlap(calibration, judging)
    if not alike:
        return None
    counted = "1 row equals a calibration row" if len(alike) == 1 else f"{len(alike)} rows equal calibration rows"
    share = f"{100 * len(alike) / judging.samples.rows:.2g} %"
    shown = ", ".join(f"{a} = {b}" for a, b in alike[:5]) + (", ..." if len(alike) > 5 else "")
    return Finding(
        "repeated-rows",
        "note",
        judging.samples.text,
        f"{judging.samples.name}: {counted} ({shown}), {share} of those that judge: the accuracy may "
        "flatter by so much at most.",
        "Take them out of one side if they should not be there.",
    )


def refuse_overlap(calibrating: CheckedSamples, judging: CheckedSamples) -> list[tuple[int, int]]:
    """Raise InputError "overlap" where rows that set the ranges also judge the result.

    Those are the rows of one file that stand in both ranges, and equal content, in one file or in two: more than one
    sample, and more than :data:`TOLERATED_SHARE` of those that judge; or more than one row, and more than
    :data:`TOLERATED_ROWS` of the rows. Returns the rows of fewer that look alike: real
    recordings repeat themselves (silence).
    """
    calibration, evaluation = calibrating.samples, judging.samples
    rows = {digest: row for row, digest in enumerate(calibrating.rows, calibration.start)}
    pairs = [(rows[digest], row) for row, digest in enumerate(judging.rows, evaluation.start) if digest in rows]
    shared = len({calibrating.rows[row - calibration.start] for row, _ in pairs})
    both = range(max(calibration.start, evaluation.start), min(calibration.stop, evaluation.stop))
    if both and calibration.is_of(evaluation):
        pairs = [(row, row) for row in both]
    elif (shared < 2 or shared <= TOLERATED_SHARE * len(set(judging.rows))) and (
        len(pairs) < 2 or len(pairs) <= TOLERATED_ROWS * len(judging.rows)
    ):
        return pairs
    shown = ", ".join(f"{a} = {b}" for a, b in pairs[:3]) + (", ..." if len(pairs) > 3 else "")
    hint = "Take rows apart, for example FILE#0:100 to calibrate and FILE#100:500 to evaluate."
    if not both and isinstance(evaluation.store, SampleFunction) and calibration.is_of(evaluation):
        hint = "Does it give another order each time it is called? Fix the seed, or do not shuffle."
    raise InputError(
        "overlap",
        f"{evaluation.text} shares {len(pairs)} {'row' if len(pairs) == 1 else 'rows'} with the calibration "
        f"{calibration.text} ({shown}), {100 * len(pairs) / evaluation.rows:.2g} % of those that judge: an accuracy "
        "over them would flatter.",
        hint=hint,
        rows=[list(pair) for pair in pairs[:100]],
    )
