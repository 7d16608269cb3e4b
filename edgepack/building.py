"""From a model to a bundle, by the names and paths that people give: quantize, bundle, inspect, verify, compare."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, overload

from edgepack.digest import BackgroundDigest
from edgepack.documents import BundleDocument, QuantizeDocument, QuantizeSetDocument, TuneDocument, VerifyDocument
from edgepack.errors import InputError
from edgepack.events import Event, Reporter, ignore_events

Document = TypeVar("Document", QuantizeDocument, TuneDocument)

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from edgepack.target import Platform, Target
    from edgepack.target.solver import RuntimeOption

    TargetLike = str | Path | Target
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
) -> QuantizeDocument | QuantizeSetDocument:
    """Convert a SavedModel folder, .keras, .h5 (Keras 2 or 3) or float .tflite to what ``target`` asks for.

    ``calibration``, ``evaluation`` and ``check_set`` are sets of samples: an .npz, a CSV file, a folder of .npy or of
    images, or ``module:function``; ``FILE#100:500`` takes rows. ``preprocessing`` is the ``[samples]`` table of
    edgepack.toml as a dict: how images and CSV become inputs, and which range samples have to keep to. ``metric`` is
    top1, top5, mae, roc-auc or ``module:function`` of (outputs, labels). ``batch`` is pinned; None leaves it as it is.
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


def with_budget(target: Target, budget: Mapping[str, Any] | None) -> Target:
    """The target with limits of edgepack.toml or of flags on top of its own. Raises InputError "bad-budget"."""
    return dataclasses.replace(target, budget=target.budget.override(budget)) if budget else target


def as_path(name: str, value: str | Path) -> Path:
    """The path that an argument gives; people who come from numpy hand in the array itself."""
    if isinstance(value, (str, os.PathLike)):
        return Path(value)
    raise InputError(
        "not-a-path",
        f"{name} takes a path, and got a value of the type {type(value).__name__}.",
        hint="Save it first, samples for example with numpy.savez('samples.npz', x=..., y=...), and name the file.",
    )


def as_text(name: str, samples: str | Path | None) -> str | None:
    """A set of samples as the command line writes it."""
    return None if samples is None else str(as_path(name, samples))


def report_place(report_file: str | Path | None, model: Path) -> Path | None:
    """Where the report goes, if anywhere. Raises InputError "bad-output"."""
    if report_file is None:
        return None
    place = as_path("report_file", report_file)
    from edgepack.report import check_report_place

    check_report_place(place, [model])
    return place


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


def bundle(
    model: str | Path,
    *,
    target: str | Path | Target,
    name: str,
    version: str,
    output: str | Path,
    platforms: Sequence[Platform | str] | None = None,
    with_runtime: bool = True,
    wheels: str | Path | None = None,
    sign: str | Path | None = None,
    counter: int | None = None,
    dry_run: bool = False,
    report: Reporter = ignore_events,
) -> BundleDocument:
    """Pack a .tflite, the check set beside it, the loader and the runtime's wheels into one reproducible file.

    ``target`` is a profile's name, file or value; ``platforms`` bundles for those instead of the target's: values, or
    texts as ``--platform`` takes them ("3.9,aarch64,glibc-2.31"; "3.11" picks from the target's). Each gets the
    profile's runtime, or the other one where that has no wheel or lacks an operator of the model. ``wheels`` is a
    folder that wheels are taken from, also ones that edgepack does not know, instead of an index; without
    ``with_runtime`` there are none, and the device has to have its runtime.

    ``sign`` is an SSH key's file: the private one, or a public one whose private half is in ssh-agent. The signature
    covers the manifest and lies outside of the release id. ``counter`` orders the releases for devices that are pinned;
    it stands in the manifest, so another counter makes another release id.

    With ``dry_run`` the bundle is made in a temporary folder and thrown away, so that the document tells what would be
    there.

    Raises InputError about the model, the target, the names, the wheels and the key, MisfitError where no runtime fits
    a platform, and "conformance" where the target cannot run the model.
    """
    from edgepack.bundle.build import build_bundle, bundle_options, check_bundle_output
    from edgepack.target.select import select_platforms

    model, output = as_path("model", model), as_path("output", output)
    folder = None if wheels is None else as_path("wheels", wheels)
    check_bundle_output(output, model)
    chosen = as_target(target)
    meant = chosen.platforms if platforms is None else select_platforms(chosen, platforms)
    options = bundle_options(chosen, meant, wheels=folder, with_runtime=with_runtime)
    runtimes = _hold_against(model, chosen, options, report)
    with written([output], dry_run=dry_run) as (place,):
        document = build_bundle(
            model,
            target=chosen,
            name=name,
            version=version,
            output=place,
            runtimes=runtimes,
            with_runtime=with_runtime,
            wheels=folder,
            counter=counter,
            sign_key=None if sign is None else as_path("sign", sign),
            report=report,
        )
    return dataclasses.replace(document, path=str(output))


def _hold_against(
    model: Path, target: Target, options: Sequence[Sequence[RuntimeOption]], report: Reporter
) -> list[RuntimeOption]:
    """The runtime for each platform. Refuse a .tflite that the target cannot run; tell what is worth a note.

    What is no .tflite is told when it is bundled.
    """
    from edgepack.quantize.conformance import check_fit, delegate_customs, fit_runtimes, refuse_misfit
    from edgepack.tflite import read_model

    try:
        described = read_model(model)
    except InputError:
        return [ordered[0] for ordered in options]
    fit = check_fit(described, target, options)
    refuse_misfit(fit, target)
    for found in fit.findings:
        report(Event("bundle", f"note: {found.message}"))
    return fit_runtimes(described, target, options, delegate_customs(described, target))


def inspect(path: str | Path) -> BundleDocument:
    """What a bundle holds. Raises InputError where it is none, IntegrityError where it was cut or changed."""
    place = as_path("path", path)
    with BackgroundDigest(place) as digest:  # hashing a large one takes as long as the import
        from edgepack.bundle import explain, open_bundle

        bundle = open_bundle(place)
        return explain(bundle, digest.result())


def verify(
    path: str | Path, *, allowed_signers: str | Path | None = None, report: Reporter = ignore_events
) -> VerifyDocument:
    """Recompute every digest of a bundle and check its signature.

    With ``allowed_signers``, a file as ``ssh-keygen -Y verify`` reads it, the bundle has to be signed by one of them;
    without it, a signature has to be one of this content. Raises as :func:`inspect`, and IntegrityError
    "digest-mismatch", "bad-signature", "unsigned", "foreign-signature", "signer-expired" or "wrong-namespace".
    """
    from edgepack.bundle import verify_bundle

    signers = None if allowed_signers is None else as_path("allowed_signers", allowed_signers)
    return verify_bundle(as_path("path", path), report, allowed_signers=signers)


def diff_bundles(before: str | Path, after: str | Path) -> dict[str, Any]:
    """What changed from one bundle to another: ``changes`` has a line for each field and file that differs.

    ``model`` says what changed inside of it: inputs, outputs, operators with their options, tensors with their types,
    shapes, scales and values (None where the model is the same).
    Raises as :func:`verify` for each of them: what is damaged is not compared.
    """
    from edgepack.bundle import diff_bundles as compare
    from edgepack.bundle import diff_models, open_bundle
    from edgepack.bundle.differences import changes_between

    old, new = open_bundle(Path(before)), open_bundle(Path(after))
    for one in (old, new):
        one.verify()
    found = compare(old, new)
    return {"schema": 1, **found, "changes": changes_between(old, new, found), "model": diff_models(old, new)}


def as_target(target: TargetLike) -> Target:
    """The profile of that name or in that file, or the value itself."""
    from edgepack.target import Target, load_target

    return target if isinstance(target, Target) else load_target(target)


@contextlib.contextmanager
def written(outputs: Sequence[Path], *, dry_run: bool) -> Iterator[list[Path]]:
    """Where to write: the outputs themselves, or in a dry run files of those names in folders that go away."""
    if not dry_run:
        yield list(outputs)
        return
    with tempfile.TemporaryDirectory(prefix="edgepack-") as name:
        folders = [Path(name) / str(place) for place in range(len(outputs))]
        for folder in folders:
            folder.mkdir()
        yield [folder / output.name for folder, output in zip(folders, outputs, strict=True)]
