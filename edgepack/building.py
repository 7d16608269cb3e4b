"""The ``quantize`` verb: from a trained model to a .tflite for each target, by the names and paths that people give."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, overload

from edgepack.arguments import as_path, as_target, as_text, report_place, with_budget, written
from edgepack.documents import QuantizeDocument, QuantizeSetDocument, TuneDocument
from edgepack.events import Reporter, ignore_events

Document = TypeVar("Document", QuantizeDocument, TuneDocument)

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from edgepack.arguments import TargetLike

    TargetList = list[TargetLike] | list[str] | tuple[TargetLike, ...]

    class QuantizeOptions(TypedDict, total=False):
        """The options of :func:`quantize`, whose signature has their defaults."""

        calibration: str | Path | None
        evaluation: str | Path | None
        check_set: str | Path | None
        preprocessing: Mapping[str, Any] | None
        metric: str
        batch: int | None
        signature: str | None
        input_shapes: Sequence[str]
        cache: bool
        max_drop: float | None
        budget: Mapping[str, Any] | None
        diagnose: bool
        executor: Executor | None
        report_file: str | Path | None
        dry_run: bool
        report: Reporter
        resamples: int | None


@overload
def quantize(
    model: str | Path, *, target: TargetLike, output: str | Path, **options: Unpack[QuantizeOptions]
) -> QuantizeDocument: ...
@overload
def quantize(
    model: str | Path, *, target: TargetList, output: str | Path, **options: Unpack[QuantizeOptions]
) -> QuantizeSetDocument: ...
def quantize(
    model: str | Path,
    *,
    target: TargetLike | TargetList,
    output: str | Path,
    calibration: str | Path | None = None,
    evaluation: str | Path | None = None,
    check_set: str | Path | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    metric: str = "top1",
    batch: int | None = 1,
    signature: str | None = None,
    input_shapes: Sequence[str] = (),
    cache: bool = True,
    max_drop: float | None = None,
    budget: Mapping[str, Any] | None = None,
    diagnose: bool = False,
    executor: Executor | None = None,
    report_file: str | Path | None = None,
    dry_run: bool = False,
    report: Reporter = ignore_events,
    resamples: int | None = None,
) -> QuantizeDocument | QuantizeSetDocument:
    """Convert a SavedModel folder, .keras, .h5 (Keras 2 or 3) or float .tflite to what ``target`` asks for.

    ``calibration``, ``evaluation`` and ``check_set`` are sets of samples: an .npz, a CSV file, a folder of .npy or of
    images, or ``module:function``; ``FILE#100:500`` takes rows. ``preprocessing`` is the ``[samples]`` table of
    edgepack.toml as a dict: how images and CSV become inputs, and which range samples have to keep to. ``metric`` is
    top1, top5, mae, roc-auc or ``module:function`` of (outputs, labels), ``resamples`` how many its bootstrap interval
    takes (None: 1,000, or 200 of a function of yours; 0: no interval). ``batch`` is pinned; None leaves it as it is.
    ``signature`` chooses one of a SavedModel's, and ``input_shapes`` ("NAME=1,98,40", "?" for a size that stays) pin
    open sizes. Writes ``output`` (OUT.tflite), OUT.provenance.json and, with an evaluation or check set, OUT.check.npz.
    With ``dry_run`` the model is made in a temporary folder and thrown away, so that the document tells what would be
    there. What the same content gave before comes from the user's cache folder, unless ``cache`` is off.

    ``budget`` is the ``[budget]`` table of edgepack.toml as a dict, before the target's own; of its limits those are
    held that need no device, ``max_accuracy_drop`` (``max_drop`` goes before it), ``min_accuracy`` and ``model_bytes``,
    and ``within_budget`` says whether they were kept. Where accuracy is beyond them, or with ``diagnose``, the document
    has each layer's error, and all calibration samples are looked at, however many. What takes long to evaluate is
    split over this machine's cores, or over ``executor`` (any of concurrent.futures' kind whose workers see the same
    files). ``report_file`` (OUT.html) is where one offline page goes that shows all of it, each layer's error too, as
    with ``diagnose``.

    A list of targets loads the model once and shares what they share; ``output`` then has ``{target}`` in its name, or
    is a folder, which gets a TARGET.tflite for each. Either all of them are written or none.

    Raises InputError about the model, the samples, the target or the options, and MisfitError where the converted model
    is not what the target takes, or cannot be made.
    """
    from edgepack.quantize import Goal, Request, SourceOptions, check_outputs
    from edgepack.quantize import quantize as run
    from edgepack.quantize.naming import filled_name, output_paths
    from edgepack.quantize.preprocessing import preprocessing_from

    started = time.perf_counter()
    several = isinstance(target, (list, tuple))
    named = target if isinstance(target, (list, tuple)) else (target,)
    targets = [with_budget(as_target(one), budget) for one in named]
    output = as_path("output", output)
    outputs = output_paths(output, targets) if several else [filled_name(output, targets[0])]
    request = Request(
        model=as_path("model", model),
        goals=tuple(map(Goal, targets, outputs)),
        calibration=as_text("calibration", calibration),
        evaluation=as_text("evaluation", evaluation),
        check_set=as_text("check_set", check_set),
        preprocessing=preprocessing_from(preprocessing or {}),
        metric=metric,
        options=SourceOptions(batch, signature, tuple(input_shapes)),
        cache=cache,
        max_drop=(budget or {}).get("max_accuracy_drop") if max_drop is None else max_drop,
        diagnose=diagnose or report_file is not None,
        resamples=resamples,
    )
    check_outputs(request)
    page_at = report_place(report_file, request.model)
    with written(outputs, dry_run=dry_run) as places:
        made = run(dataclasses.replace(request, goals=tuple(map(Goal, targets, places))), report, executor)
    documents = tuple(placed(document, path, page_at) for document, path in zip(made, outputs, strict=True))
    answer = QuantizeSetDocument(documents, round(time.perf_counter() - started, 3)) if several else documents[0]
    if page_at is not None and not dry_run:
        from edgepack.report import report as write_report

        write_report(answer, output=page_at)
    return answer


def placed(document: Document, output: Path, report_at: Path | None = None) -> Document:
    """The document of a model that was, or in a dry run would be, at ``output``, and of the page on it."""

    def beside(path: str | None) -> str | None:
        return path and str(output.with_name(Path(path).name))

    return dataclasses.replace(
        document,
        model=dataclasses.replace(document.model, path=str(output)),
        check_set=beside(document.check_set),
        provenance=str(output.with_name(Path(document.provenance).name)),
        uncompiled=beside(document.uncompiled),
        report=None if report_at is None else str(report_at),
    )
