"""From a trained model to a .tflite that its target can run, inspected and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepack.documents import QuantizeDocument
from edgepack.events import Reporter, ignore_events
from edgepack.quantize.request import Goal, Request, SourceOptions

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["Goal", "Request", "SourceOptions", "check_outputs", "quantize"]


def check_outputs(request: Request) -> None:
    """Refuse what cannot be written, or must not be written over; a run does so too. Raises InputError "bad-output"."""
    from edgepack.quantize.job import check_outputs as check

    check(request)


def quantize(
    request: Request, report: Reporter = ignore_events, executor: Executor | None = None
) -> tuple[QuantizeDocument, ...]:
    """Make what the request asks for: a document for each of its goals, in their order.

    Long evaluations are split over ``executor``, without one over this machine's cores.

    Nothing is written where it raises. Raises what :func:`edgepack.building.quantize` says.
    """
    import time

    from edgepack.quantize.job import prepare_job
    from edgepack.quantize.run import run_job

    started = time.perf_counter()
    return run_job(prepare_job(request, report), report, started, executor)
