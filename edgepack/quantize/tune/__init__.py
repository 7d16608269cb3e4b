"""The smallest and fastest model that keeps an accuracy budget on a target, or the plain word that there is none."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import TYPE_CHECKING

from edgepack.events import Reporter, ignore_events
from edgepack.quantize.request import Request
from edgepack.quantize.tune.trial import Measure, Measurement

if TYPE_CHECKING:
    from edgepack.documents import TuneDocument

__all__ = ["Measure", "Measurement", "check_request", "tune"]


def check_request(request: Request) -> None:
    """Refuse what no file has to be read for: the budget, missing samples, the output; a run does so too."""
    from edgepack.quantize.tune.whole import check_request as check

    check(request)


def tune(
    request: Request,
    *,
    measure: Measure | None = None,
    executor: Executor | None = None,
    report: Reporter = ignore_events,
) -> TuneDocument:
    """Search for the request's one goal within its ``max_drop``; nothing is written where it raises.

    Raises what :func:`edgepack.tuning.tune` says.
    """
    from edgepack.quantize.tune.whole import run_tune

    return run_tune(request, measure, executor, report)
