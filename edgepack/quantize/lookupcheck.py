"""Runs what a model looks up in tables before the conversion, so that a bad token is found in time."""

from __future__ import annotations

from collections.abc import Sequence

from edgepack.quantize.arrays import Port
from edgepack.quantize.job import Job
from edgepack.quantize.reference import Reference
from edgepack.quantize.workshop import Workshop

# What models look up in tables by; whole numbers of 8 bits are pixels.
_LOOKED_UP = ("int32", "int64")


def try_lookups(shop: Workshop, reference: Reference, inputs: Sequence[Port], job: Job) -> None:
    """Run the source over all samples where it takes whole numbers; nothing where it takes none.

    Over those that judge it would run later anyway; calibration samples are only tried. Raises InputError
    "index-out-of-range".
    """
    if all(port.dtype not in _LOOKED_UP for port in inputs):
        return
    if job.calibration is not None:
        shop.try_rows(job.calibration)
    for samples in filter(None, (job.evaluation, job.check_set)):
        reference.outputs(samples)
