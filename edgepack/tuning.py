"""The ``tune`` verb: the smallest and fastest model within an accuracy budget, tried on the device itself if wanted."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack import building, bundling
from edgepack.arguments import as_path, as_target, as_text, report_place, with_budget, written
from edgepack.check.measure import check
from edgepack.check.verdict import FAIL, INCONCLUSIVE
from edgepack.deploy.gc import forget_app
from edgepack.deploy.probe import require_fit
from edgepack.deploy.push import push
from edgepack.device.opened import opened
from edgepack.documents import CheckDocument, TuneDocument
from edgepack.errors import DeviceFailure, EdgepackError, GateFailed, InputError, IntegrityError, MisfitError
from edgepack.events import Event, Reporter, ignore_events
from edgepack.quantize.naming import filled_name
from edgepack.quantize.preprocessing import preprocessing_from
from edgepack.quantize.request import Goal, Request, SourceOptions
from edgepack.quantize.tune import Measurement, check_request
from edgepack.quantize.tune import tune as run
from edgepack.report import NONE_KEEPS, broken_budget
from edgepack.report import report as write_report

if TYPE_CHECKING:
    from edgepack.arguments import TargetLike
    from edgepack.device import ConnectOptions, DeviceAddress, Session
    from edgepack.target import Target

STEP = "tune"
# The device fails with these because of the model; with anything else whatever the model.
_THE_MODELS_FAULT = ("killed", "out-of-memory", "memory-short", "measure-failed", "worker-died")
_PINNED = "{device} is pinned to its signers, and the candidates that tune would try there are not signed."
_TRY_ELSEWHERE = (
    "Tune on a device of the same kind that is not pinned, or without --on; then sign what was found (edgepack bundle "
    "--sign KEY --counter N), push it, and `edgepack check DEVICE` measures it there."
)


def tune(
    model: str | Path,
    *,
    target: TargetLike,
    evaluation: str | Path,
    output: str | Path,
    max_drop: float | None = None,
    budget: Mapping[str, Any] | None = None,
    calibration: str | Path | None = None,
    check_set: str | Path | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    metric: str = "top1",
    batch: int | None = 1,
    signature: str | None = None,
    input_shapes: Sequence[str] = (),
    cache: bool = True,
    on: str | DeviceAddress | None = None,
    app: str | None = None,
    options: ConnectOptions | None = None,
    executor: Executor | None = None,
    report_file: str | Path | None = None,
    dry_run: bool = False,
    report: Reporter = ignore_events,
    resamples: int | None = None,
) -> TuneDocument:
    """Find the smallest and fastest model for ``target`` whose accuracy drop is at most ``max_drop`` (0.01 = 1 point).

    Without ``max_drop`` it is the ``max_accuracy_drop`` of the target's budget, over which ``budget`` goes (the
    ``[budget]`` table of edgepack.toml as a dict); its ``min_accuracy`` and ``model_bytes`` are kept too.

    Tries each scheme that the profile allows; where int8 or dynamic loses too much, other calibration subsets, ranges
    and weight algorithms; then int8 with the worst layers in float, where the profile allows float. Writes what
    :func:`edgepack.quantize` writes; samples, ``preprocessing``, ``metric``, ``batch``, ``signature``,
    ``input_shapes``, ``cache`` and ``resamples`` are as there. ``calibration`` may be left out for a target
    without integer schemes.

    ``on`` is a device: every candidate within the budget is bundled, pushed and checked there as ``edgepack.check``
    does, under an app name of its own (``app`` or the output's name, with ``-tune``), activated never and removed
    afterwards. With ``executor`` candidates are tried on it, a few to a task, each task with a worker process of its
    own; tasks and results are picklable, and models and samples have to be readable by their paths there.
    ``report_file`` (OUT.html) is where one offline page goes that shows what was found, also where no candidate keeps
    the budget. With ``dry_run`` nothing is written here, and nothing goes to the device.

    Raises GateFailed where no candidate keeps the budget, with the nearest one named; InconclusiveError where the
    device's latency says nothing for any that does (throttled, emulated, unstable, too few runs); InputError about the
    model, the samples, the target or the options; MisfitError where the target takes no candidate, or does not fit the
    device; and whatever reaching the device can raise.
    """
    chosen = with_budget(as_target(target), budget)
    place = filled_name(as_path("output", output), chosen)
    limit = chosen.budget.max_accuracy_drop if max_drop is None else max_drop
    request = Request(
        model=as_path("model", model),
        goals=(Goal(chosen, place),),
        calibration=as_text("calibration", calibration),
        evaluation=as_text("evaluation", evaluation),
        check_set=as_text("check_set", check_set),
        preprocessing=preprocessing_from(preprocessing or {}),
        metric=metric,
        options=SourceOptions(batch, signature, tuple(input_shapes)),
        cache=cache,
        max_drop=limit,
        resamples=resamples,
    )
    check_request(request)
    page_at = report_place(report_file, request.model)
    bed = None
    if on is not None and not dry_run:
        bed = _TestBed(on, options, _app_name(app or place.stem), chosen, metric, report)
        bed.require_fit()
    elif on is not None:
        report(Event(STEP, f"a dry run measures nothing on {on}"))
    with (
        written([place], dry_run=dry_run) as (made_at,),
        _reported_failure(None if dry_run else page_at),
    ):
        goals = (Goal(chosen, made_at),)
        document = run(dataclasses.replace(request, goals=goals), measure=bed, executor=executor, report=report)
    placed = building.placed(document, place, page_at)
    answer = dataclasses.replace(placed, device=bed.description if bed else None)
    if page_at is not None and not dry_run:
        write_report(answer, output=page_at)
    return answer


@contextlib.contextmanager
def _reported_failure(page_at: Path | None) -> Iterator[None]:
    """That no candidate keeps the budget has its page too, and the error says where."""
    try:
        yield
    except GateFailed as error:
        if page_at is not None and error.code == NONE_KEEPS:
            error.details["report"] = str(page_at)
            write_report(broken_budget(error.message, error.hint, error.details), output=page_at)
            error.hint += f" What was tried: {page_at}."
        raise


class _TestBed:
    """A device on which candidates are measured, one after the other, and leave nothing."""

    def __init__(
        self,
        device: str | DeviceAddress,
        options: ConnectOptions | None,
        app: str,
        target: Target,
        metric: str,
        report: Reporter,
    ) -> None:
        self._device = device
        self._options = options
        self._app = app
        self._target = target
        self._metric = metric
        self._report = report
        self._with_runtime = False
        self.description = str(device)

    def require_fit(self) -> None:
        """Raises MisfitError where the target does not fit, InputError where somebody uses the app's name.

        IntegrityError "pinned" where the device takes nothing unsigned: candidates are not signed.
        """
        with opened(self._device, self._options) as session:
            self.description = session.description
            if session.hello.get("pinned"):
                raise IntegrityError("pinned", _PINNED.format(device=session.description), hint=_TRY_ELSEWHERE)
            require_fit(self._target, session)
            held = (session.hello.get("apps") or {}).get(self._app) or {}
            if held.get("current"):
                raise InputError(
                    "app-exists",
                    f"{session.description} runs an app called {self._app}, and candidates would be tried under it.",
                    hint="Name another one: --app NAME tries them as NAME-tune.",
                )

    def __call__(self, path: Path) -> Measurement:
        """Push and check the model at ``path``; what speaks against it there is in the measurement."""
        with opened(self._device, self._options, app=self._app, lock=True) as session:
            try:
                measured = self._measured(path, session)
            except BaseException:
                with contextlib.suppress(EdgepackError):  # the line may be what broke
                    forget_app(session, self._app)
                raise
            with contextlib.suppress(InputError):  # refused before anything was pushed
                forget_app(session, self._app)
            return measured

    def _measured(self, path: Path, session: Session) -> Measurement:
        try:
            release = self._pushed(path, session)
            # The drop is the search's to judge; what fails here is what no other scale would mend.
            lifted = {"max_accuracy_drop": None}
            checked = check(
                session, app=self._app, release=release, budget=lifted, metric=self._metric, report=self._report
            )
        except MisfitError as refusal:
            return Measurement(None, refused=refusal.message)
        except DeviceFailure as failure:
            if failure.code not in _THE_MODELS_FAULT:
                raise
            return Measurement(None, refused=failure.message)
        return _measurement(checked)

    def _pushed(self, path: Path, session: Session) -> str:
        """The release that the model became there; the runtime travels only where the device has none that fits."""
        if not self._with_runtime:
            try:
                return push(self._bundled(path, session), session, report=ignore_events).release
            except MisfitError:
                self._with_runtime = True
        return push(self._bundled(path, session), session, report=self._report).release

    def _bundled(self, path: Path, session: Session) -> Path:
        bundle = path.with_suffix(".edgepack")
        bundling.bundle(
            path,
            target=self._target,
            name=self._app,
            version="tune",
            output=bundle,
            platforms=[session.facts.platform],
            with_runtime=self._with_runtime,
            report=ignore_events,
        )
        return bundle


def _measurement(checked: CheckDocument) -> Measurement:
    drop = checked.accuracy.drop if checked.accuracy else None
    told = " ".join(checked.reasons)
    if checked.verdict == FAIL:
        return Measurement(checked.latency_ms, drop, refused=f"It fails the check on the device: {told}")
    if checked.verdict == INCONCLUSIVE:
        return Measurement(None, drop, inconclusive=f"The check on the device is inconclusive: {told}")
    found = [word for word in ("throttled", "emulated") if checked.conditions.get(word) is True]
    if found:  # no limit on time was there to say so
        return Measurement(None, drop, inconclusive=f"The device was {' and '.join(found)}.")
    return Measurement(checked.latency_ms, drop)


def _app_name(name: str) -> str:
    """A label that bundles and devices take, made from any file's name."""
    kept = re.sub(r"[^A-Za-z0-9._+-]+", "-", name).lstrip("._+-")[:48]
    return f"{kept or 'model'}-tune"
