"""From a trained model to a .tflite that its target can run, inspected and measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.documents import QuantizeDocument
from edgepack.events import Reporter, ignore_events

if TYPE_CHECKING:
    from edgepack.target import Target

__all__ = ["quantize"]


def quantize(
    model: str | Path,
    *,
    target: str | Path | Target,
    output: Path,
    calibration: str | Path | None = None,
    evaluation: str | Path | None = None,
    check_set: str | Path | None = None,
    metric: str = "top1",
    batch: int | None = 1,
    report: Reporter = ignore_events,
) -> QuantizeDocument:
    """Convert a SavedModel folder, .keras, .h5 (Keras 2 or 3) or float .tflite to what ``target`` asks for.

    ``calibration``, ``evaluation`` and ``check_set`` are sets of samples: ``FILE``, or ``FILE#100:500`` for rows.
    ``metric`` is ``top1``, ``top5``, ``mae``, ``roc-auc`` or ``module:function`` of (outputs, labels). ``batch`` is
    pinned; None leaves it as it is.
    Writes ``output`` (OUT.tflite), OUT.provenance.json and, with an evaluation or check set, OUT.check.npz; nothing
    where it raises.

    Raises InputError about the model, the samples, the target or the options, and MisfitError where the converted
    model is not what the target takes ("conformance") or cannot be made.
    """
    import time

    from edgepack.quantize.job import prepare_job
    from edgepack.quantize.run import run_job

    started = time.perf_counter()
    job = prepare_job(
        model,
        target=target,
        output=Path(output),
        calibration=calibration,
        evaluation=evaluation,
        check_set=check_set,
        metric=metric,
        batch=batch,
        report=report,
    )
    return run_job(job, report, started)
