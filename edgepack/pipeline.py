"""The ``deploy`` verb: from a trained model, or a bundle, to a release that runs on a device."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack import building, bundling
from edgepack.arguments import as_path, as_text
from edgepack.bundle.build import bundle_options
from edgepack.bundle.download import require_fetching
from edgepack.bundle.signature import require_key, require_signers
from edgepack.bundle.wheels import folder_wheels
from edgepack.check.measure import Measuring
from edgepack.deploy.probe import require_fit
from edgepack.deploy.push import verified_bundle
from edgepack.device.opened import opened
from edgepack.documents import BundleDocument, DeployDocument, QuantizeDocument, to_json_value
from edgepack.errors import GateFailed, InputError
from edgepack.events import Event, Reporter, ignore_events
from edgepack.order import Order, Packing, Sets, make_order, needs_quantizing, refuse_idle_flags, source_of
from edgepack.project import own_settings
from edgepack.quantize import SourceOptions
from edgepack.quantize.gate import OVER_BUDGET
from edgepack.release import STEP, ReleasePolicy, deploy_release
from edgepack.target import Target
from edgepack.target.lock import Wheel

if TYPE_CHECKING:
    from edgepack.device import ConnectOptions, DeviceAddress, Session
    from edgepack.project import Project
    from edgepack.target import Platform

BUILD_FOLDER = "build"


@dataclass(frozen=True, slots=True)
class Built:
    """A bundle's path, and the documents of the steps that it took (None: not needed)."""

    path: Path
    quantize: QuantizeDocument | None = None
    bundle: BundleDocument | None = None


def deploy(
    device: str | DeviceAddress,
    source: str | Path | None = None,
    *,
    project: Project | None = None,
    target: str | Path | Target | None = None,
    name: str | None = None,
    version: str | None = None,
    calibration: str | None = None,
    evaluation: str | None = None,
    check_set: str | None = None,
    batch: int | None = 1,
    signature: str | None = None,
    input_shapes: Sequence[str] = (),
    metric: str = "top1",
    budget: Mapping[str, Any] | None = None,
    min_runs: int | None = None,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    nice: int = 0,
    retry_when_cool: bool = False,
    against: str | None = None,
    unchecked: bool = False,
    sign: str | Path | None = None,
    counter: int | None = None,
    platforms: Sequence[Platform | str] | None = None,
    with_runtime: bool = True,
    wheels: str | Path | None = None,
    extra_indexes: Sequence[str] = (),
    allowed_signers: str | Path | None = None,
    options: ConnectOptions | None = None,
    dry_run: bool = False,
    report: Reporter = ignore_events,
) -> DeployDocument:
    """Quantize, bundle, push, check and activate; only the steps that ``source`` still needs.

    ``source`` is a trained model, a .tflite that is quantized already, or a bundle; without it, the project's model.
    What is not given comes from ``project`` (an edgepack.toml): names, samples, budget, hooks. What was built stays
    in ``build/`` beside the edgepack.toml (else in the current folder). One session serves all steps, and holds the
    device's lock: where the target does not fit, or somebody else is at work there, nothing is built. A check that does
    not pass ends the deployment before ``activate``, which is then None; the release stays the candidate.

    ``calibration`` to ``metric`` are those of :func:`edgepack.quantize`, ``metric`` to ``against`` those of
    :func:`edgepack.check`; ``budget`` goes before the project's. With any of the latter, a release that is active and
    has passed is checked again.

    ``sign`` to ``extra_indexes`` are those of :func:`edgepack.bundle`, ``allowed_signers`` that of
    :func:`edgepack.verify`; key and allowed signers are the project's where they are not given.

    ``name`` names the app of a model; a bundle has to be of that app. Hooks and budget are never another app's than the
    project's.

    A model that is beyond the budget in accuracy or size goes nowhere unless ``unchecked``: GateFailed "over-budget".
    ``unchecked`` pushes and checks it all the same and activates it whatever the check says; the documents keep what
    was found, and the device's history how it came there.
    Raises whatever its steps raise; run it again, and it goes on from what is there.
    """
    chosen = source_of(source, project)
    samples = Sets(
        as_text("calibration", calibration),
        as_text("evaluation", evaluation),
        as_text("check_set", check_set),
    )
    taken = SourceOptions(batch, signature, tuple(input_shapes))
    packing = Packing(
        None if platforms is None else tuple(platforms),
        with_runtime,
        None if wheels is None else as_path("wheels", wheels),
        tuple(extra_indexes),
    )
    making = {
        "--target": target,
        "--version": version,
        "--sign": sign,
        "--counter": counter,
        "--platform": platforms,
        "--without-runtime": None if with_runtime else True,
        "--wheels": wheels,
        "--extra-index": extra_indexes or None,
    }
    refuse_idle_flags(chosen, making, samples, taken)
    signers = allowed_signers if allowed_signers or not project else project.sign.get("allowed_signers")
    order, content, brought = None, None, tuple[Wheel, ...]()
    if chosen.suffix == ".edgepack":
        # Before the device is called: of a damaged bundle, nothing reaches it.
        content = verified_bundle(chosen, app=name, allowed_signers=signers, report=report)
        app = content.bundle.manifest.name
    else:
        order = make_order(chosen, project, (target, name, version), samples, taken, metric, (sign, counter), packing)
        app = order.name
        brought = _require_packing(order)
        _require_signing(order, signers)
    limits = {**(own_settings(project, app, "budget") or {}), **(budget or {})}
    measuring = Measuring(
        limits, metric, min_runs, min_seconds, max_seconds, nice, retry_when_cool=retry_when_cool, against=against
    )
    measuring.refuse_unsound()
    policy = ReleasePolicy(measuring, unchecked=unchecked, hooks=own_settings(project, app, "hooks"))
    with (
        _build_folder(project, dry_run=dry_run) as folder,
        opened(device, options, app=app, lock=not dry_run, report=report) as session,
    ):
        built = Built(chosen)
        if order is not None:
            _require_fit(session, order, brought, report)
            built = build(order, folder, budget=limits, unchecked=unchecked, report=report)
        shown = _placed(built, _kept_folder(project))
        outcome = deploy_release(
            session,
            content or verified_bundle(built.path, allowed_signers=signers),
            policy=policy,
            dry_run=dry_run,
            report=report,
        )
        return DeployDocument(
            device=session.description,
            quantize=shown.quantize,
            bundle=shown.bundle,
            push=outcome.push,
            check=outcome.check,
            activate=outcome.activate,
        )


def build(
    order: Order,
    folder: Path,
    *,
    budget: Mapping[str, Any] | None = None,
    unchecked: bool = False,
    report: Reporter = ignore_events,
) -> Built:
    """Quantize, where that is still to be done, and bundle, into ``folder`` (made where it is missing).

    ``budget`` goes before the target's own. Raises GateFailed "over-budget" where
    the model is beyond its budget, unless it is to be deployed ``unchecked``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{order.name}-{order.version}"
    quantized = None
    model = order.source
    if needs_quantizing(order.source):
        model = folder / f"{stem}.tflite"
        report(Event(STEP, f"quantize {order.source} for {order.target.name}"))
        quantized = building.quantize(
            order.source,
            target=order.target,
            output=model,
            preprocessing=order.preprocessing,
            metric=order.metric,
            **dataclasses.asdict(order.samples),
            **dataclasses.asdict(order.taken),
            budget=budget,
            report=report,
        )
        if quantized.within_budget is False and not unchecked:
            raise _over_budget(quantized)
    else:
        report(Event(STEP, f"{order.source} is quantized already: it is bundled as it is"))
    path = folder / f"{stem}.edgepack"
    report(Event(STEP, f"bundle {path.name}"))
    bundled = bundling.bundle(
        model,
        target=order.target,
        name=order.name,
        version=order.version,
        output=path,
        sign=order.sign,
        counter=order.counter,
        platforms=order.packing.platforms,
        with_runtime=order.packing.with_runtime,
        wheels=order.packing.wheels,
        extra_indexes=order.packing.extra_indexes,
        report=report,
    )
    return Built(path, quantized, bundled)


def _require_packing(order: Order) -> tuple[Wheel, ...]:
    """Before minutes are spent: each platform has a runtime. Returns the wheels that a folder brings."""
    packing, platforms = order.packing, order.platforms
    require_fetching(packing.extra_indexes, wheels=packing.wheels, with_runtime=packing.with_runtime)
    bundle_options(order.target, platforms, wheels=packing.wheels, with_runtime=packing.with_runtime)
    return () if packing.wheels is None else folder_wheels(packing.wheels, platforms)


def _require_signing(order: Order, allowed_signers: str | Path | None) -> None:
    """Before minutes are spent: the key and the file of allowed signers are there."""
    if order.sign is not None:
        require_key(order.sign)
    if allowed_signers is not None:
        require_signers(Path(allowed_signers))
        if order.sign is None:
            raise InputError(
                "usage",
                "Only signed bundles are taken here (--allowed-signers), and there is no key to sign this one with.",
                hint="Name one with --sign KEY, or as key in [sign] of edgepack.toml.",
            )


def _over_budget(quantized: QuantizeDocument) -> GateFailed:
    said = [found for found in quantized.conformance.findings if found.code == OVER_BUDGET]
    return GateFailed(
        OVER_BUDGET,
        f"{' '.join(found.message for found in said)} Nothing was sent.",
        hint=f"{' '.join(dict.fromkeys(found.cure for found in said))} --unchecked deploys it all the same.",
        quantize=to_json_value(quantized),
    )


def _require_fit(session: Session, order: Order, brought: tuple[Wheel, ...], report: Reporter) -> None:
    """Before minutes are spent on building something that the device cannot run."""
    require_fit(dataclasses.replace(order.target, platforms=order.platforms), session, brought)
    report(Event(STEP, f"{order.target.name} fits {session.description} ({session.facts.platform.label})"))


def _kept_folder(project: Project | None) -> Path:
    return (project.folder if project else Path()) / BUILD_FOLDER


def _placed(built: Built, folder: Path) -> Built:
    """What was built, with its documents naming the files where they stay; in a dry run, where they would."""
    return dataclasses.replace(
        built,
        quantize=built.quantize and building.placed(built.quantize, folder / Path(built.quantize.model.path).name),
        bundle=built.bundle and dataclasses.replace(built.bundle, path=str(folder / Path(built.bundle.path).name)),
    )


@contextlib.contextmanager
def _build_folder(project: Project | None, *, dry_run: bool) -> Iterator[Path]:
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="edgepack-") as name:
            yield Path(name)
        return
    folder = _kept_folder(project)
    try:
        yield folder
    finally:
        # An interrupted or failed step leaves no empty folder behind.
        with contextlib.suppress(OSError):
            folder.rmdir()
