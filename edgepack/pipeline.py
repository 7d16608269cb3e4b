"""The ``deploy`` verb: from a trained model, or a bundle, to a release that runs on a device."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack import building
from edgepack.bundle.manifest import check_label
from edgepack.deploy.probe import require_fit
from edgepack.deploy.push import verified_bundle
from edgepack.device.opened import opened
from edgepack.documents import BundleDocument, DeployDocument, QuantizeDocument
from edgepack.errors import InputError
from edgepack.events import Event, Reporter, ignore_events
from edgepack.project import own_settings
from edgepack.release import STEP, ReleasePolicy, deploy_release
from edgepack.target import Target, load_target

if TYPE_CHECKING:
    from edgepack.device import ConnectOptions, DeviceAddress, Session
    from edgepack.project import Project

BUILD_FOLDER = "build"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be built: everything that quantize and bundle need, from flags and edgepack.toml."""

    source: Path
    target: Target
    name: str
    version: str
    calibration: str | None
    evaluation: str | None
    check_set: str | None
    preprocessing: Mapping[str, Any] | None
    metric: str


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
    metric: str = "top1",
    unchecked: bool = False,
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

    ``name`` names the app of a model; a bundle has to be of that app. Hooks and budget are never another app's than the
    project's.

    Raises whatever its steps raise; run it again, and it goes on from what is there.
    """
    chosen = _source(source, project)
    _refuse_idle_flags(
        chosen,
        {"--target": target, "--version": version},
        {"--calibration": calibration, "--eval": evaluation, "--check-set": check_set},
    )
    order, content = None, None
    if chosen.suffix == ".edgepack":
        # Before the device is called: of a damaged bundle, nothing reaches it.
        content = verified_bundle(chosen, app=name, report=report)
        app = content.manifest.name
    else:
        order = _order(chosen, project, target, name, version, calibration, evaluation, check_set, metric)
        app = order.name
    policy = ReleasePolicy(
        budget=dict(own_settings(project, app, "budget") or {}),
        metric=metric,
        unchecked=unchecked,
        hooks=own_settings(project, app, "hooks"),
    )
    with (
        _build_folder(project, dry_run=dry_run) as folder,
        opened(device, options, app=app, lock=not dry_run, report=report) as session,
    ):
        built = Built(chosen)
        if order is not None:
            _require_fit(session, order.target, report)
            built = build(order, folder, max_drop=policy.budget.get("max_accuracy_drop"), report=report)
        shown = _placed(built, _kept_folder(project))
        outcome = deploy_release(
            session, content or verified_bundle(built.path), policy=policy, dry_run=dry_run, report=report
        )
        return DeployDocument(
            device=session.description,
            quantize=shown.quantize,
            bundle=shown.bundle,
            push=outcome.push,
            check=outcome.check,
            activate=outcome.activate,
        )


def build(order: Order, folder: Path, *, max_drop: float | None = None, report: Reporter = ignore_events) -> Built:
    """Quantize, where that is still to be done, and bundle, into ``folder`` (made where it is missing).

    ``max_drop`` is the accuracy drop that the project allows, where it says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{order.name}-{order.version}"
    quantized = None
    model = order.source
    if _needs_quantizing(order.source):
        model = folder / f"{stem}.tflite"
        report(Event(STEP, f"quantize {order.source} for {order.target.name}"))
        quantized = building.quantize(
            order.source,
            target=order.target,
            output=model,
            calibration=order.calibration,
            evaluation=order.evaluation,
            check_set=order.check_set,
            preprocessing=order.preprocessing,
            metric=order.metric,
            max_drop=max_drop,
            report=report,
        )
    else:
        report(Event(STEP, f"{order.source} is quantized already: it is bundled as it is"))
    path = folder / f"{stem}.edgepack"
    report(Event(STEP, f"bundle {path.name}"))
    bundled = building.bundle(
        model, target=order.target, name=order.name, version=order.version, output=path, report=report
    )
    return Built(path, quantized, bundled)


def _source(source: str | Path | None, project: Project | None) -> Path:
    chosen = Path(source) if source is not None else (project.model if project else None)
    if chosen is None:
        raise InputError(
            "usage",
            "There is nothing to deploy: no model and no bundle was named.",
            hint="Name one, or write model = ... into [app] of edgepack.toml (`edgepack init` makes one).",
        )
    if not chosen.exists():
        raise InputError("no-model", f"There is no {chosen}.", hint="Check the path.", path=str(chosen))
    return chosen


def _refuse_idle_flags(source: Path, naming: Mapping[str, object], sampling: Mapping[str, object]) -> None:
    """A flag that could change nothing any more is an error, not a silence."""
    if source.suffix == ".edgepack":
        state, idle = "a bundle already", {**naming, **sampling}
    elif not _needs_quantizing(source):
        state, idle = "quantized already", {**sampling}
    else:
        return
    given = [flag for flag, value in idle.items() if value is not None]
    if given:
        raise InputError(
            "usage",
            f"{source} is {state}: {', '.join(given)} cannot change it.",
            hint="Leave the option out, or name the model that it was made from.",
        )


def _order(
    source: Path,
    project: Project | None,
    target: str | Path | Target | None,
    name: str | None,
    version: str | None,
    calibration: str | None,
    evaluation: str | None,
    check_set: str | None,
    metric: str,
) -> Order:
    """Flags before edgepack.toml; what is missing is told all at once."""
    wanted = target if target is not None else (project.target if project else None)
    app = name if name is not None else (project.name if project else None)
    release = version if version is not None else (project.version if project else None)
    needed = (("--target", wanted), ("--name", app), ("--version", release))
    missing = [flag for flag, value in needed if value is None]
    if wanted is None or app is None or release is None:
        raise InputError(
            "usage",
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.",
            hint="Give them, or write them into [app] of edgepack.toml (`edgepack init` makes one).",
        )
    check_label(app, "name")
    check_label(release, "version")
    return Order(
        source=source,
        target=wanted if isinstance(wanted, Target) else load_target(wanted),
        name=app,
        version=release,
        calibration=calibration or (project.calibration if project else None),
        evaluation=evaluation or (project.eval if project else None),
        check_set=check_set or (project.check_set if project else None),
        preprocessing=project.samples if project else None,
        metric=metric,
    )


def _require_fit(session: Session, target: Target, report: Reporter) -> None:
    """Before minutes are spent on building something that the device cannot run."""
    require_fit(target, session)
    report(Event(STEP, f"{target.name} fits {session.description} ({session.facts.platform.label})"))


def _needs_quantizing(source: Path) -> bool:
    """A .tflite with scales or float16 in it is the result of quantizing; everything else is still to be done."""
    if source.suffix != ".tflite":
        return True
    from edgepack.tflite import read_model

    return not any(tensor.scales or tensor.dtype == "float16" for tensor in read_model(source).tensors)


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
