"""Checking a release: the device measures it, its outputs are compared here, the verdict is recorded there.

What is measured and against which limits stands in the release's own manifest, which is read from the device and held
against the release id. The device runs its own loader with its own runtime; every number comes from there.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.check.against import CURRENT, InTurns, ratios, read_in_turns
from edgepack.check.asking import STEP, ask, teller
from edgepack.check.conditions import instability, unsound
from edgepack.check.evidence import delegated_share, evidence
from edgepack.check.ratiogates import ratio_limits
from edgepack.check.rejudging import evidence_of
from edgepack.check.verdict import DelegateUse, Measured, RunsWanted, judge
from edgepack.device.opened import chosen_app, opened
from edgepack.documents import CheckDocument, LatencyMs
from edgepack.errors import InputError, IntegrityError
from edgepack.events import Event, Reporter, ignore_events
from edgepack.metric import load_metric
from edgepack.statistics import MIN_RUNS, find_outliers, latency_intervals, latency_summary, warmup_runs
from edgepack.target import Budget
from edgepack.tflite import read_model

if TYPE_CHECKING:
    from edgepack.bundle import Manifest
    from edgepack.check.compare import Comparison
    from edgepack.check.streaming import SampleStream
    from edgepack.device import ConnectOptions, DeviceAddress, DeviceFacts, Session


@dataclass(frozen=True, slots=True)
class Measuring:
    """How a release is to be measured and judged, where that is not as the release itself has it.

    ``budget`` overrides limits of the release's own, the three numbers (None: as the release has it) its way to
    measure. A gated percentile always gets the runs that it needs, as far as ``max_seconds`` allows. ``metric`` is the
    name of a built-in one or ``module:function`` of (outputs, labels). ``nice`` (0 to 19, as of nice(1)) lets what else
    runs on the device go first; latencies then grow with it. ``layers`` compares device and host layer by layer also
    where their outputs agree; ``layers_of`` is a .tflite to hold the device against, instead of the release's own.
    With ``retry_when_cool`` a measurement on a throttled device is thrown away and made again once the device is cool,
    where that comes in 10 minutes, twice at most. With ``random_inputs`` the timed runs take random inputs in the sizes
    of the check set's; accuracy and parity are those of its samples all the same.
    ``against`` is the release that it is compared with, in turns: an id, or "current" for the active one.
    ``check_set`` is a set of samples on this machine that goes to the device in pieces: accuracy is then that over its
    labels. ``preprocessing`` is the ``[samples]`` table of edgepack.toml, for it.
    """

    budget: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "top1"
    min_runs: int | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None
    nice: int = 0
    layers: bool = False
    layers_of: Path | None = None
    retry_when_cool: bool = False
    against: str | None = None
    check_set: str | None = None
    preprocessing: Mapping[str, Any] | None = None
    random_inputs: bool = False

    @property
    def wants_layers(self) -> bool:
        """Whether somebody asked for a comparison layer by layer."""
        return self.layers or self.layers_of is not None

    def refuse_unsound(self) -> None:
        """Before a device is called: raises InputError "bad-budget", "unknown-metric", "usage" (a contradiction)."""
        Budget().override(self.budget)
        load_metric(self.metric)
        if self.layers_of is not None:
            read_model(self.layers_of)
        least, most = self.min_seconds, self.max_seconds
        if least is not None and most is not None and least > most:
            raise InputError(
                "usage",
                f"--min-seconds {least:g} is more than --max-seconds {most:g}.",
                hint="Raise the second, or lower the first.",
            )
        if not 0 <= self.nice <= 19:
            raise InputError(
                "usage",
                f"--nice {self.nice} is no niceness.",
                hint="0 (as any program) to 19 (only when nothing else runs).",
            )


@dataclass(frozen=True, slots=True)
class Plan:
    """What one check does: on which release, how it measures (the loader's options), against which limits.

    ``against`` runs in turns with it; ``uncompared`` says that limits were left out for want of an active release.
    """

    app: str
    release: str
    model_bytes: int
    measure: Mapping[str, Any]
    budget: Budget
    delegate: Mapping[str, Any]
    runs_wanted: RunsWanted
    against: str | None = None
    uncompared: bool = False


def check(
    device: str | DeviceAddress | Session,
    *,
    app: str | None = None,
    release: str | None = None,
    options: ConnectOptions | None = None,
    budget: Mapping[str, Any] | None = None,
    metric: str = "top1",
    min_runs: int | None = None,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    nice: int = 0,
    layers: bool = False,
    layers_of: str | Path | None = None,
    retry_when_cool: bool = False,
    random_inputs: bool = False,
    against: str | None = None,
    check_set: str | Path | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    report: Reporter = ignore_events,
) -> CheckDocument:
    """Measure the candidate (or ``release``) on the device and give a verdict, which the device keeps.

    With ``dry_run`` it keeps nothing. An inconclusive check takes no PASS away from the release that is active.

    With ``against`` ("current" or a release's id) that release runs in turns with the checked one, and ``ratio`` says
    how the two compare; ``max_seconds`` is then for both.

    ``budget``, ``metric``, the three numbers, ``nice``, ``layers``, ``layers_of``, ``retry_when_cool``,
    ``random_inputs``, ``check_set`` and ``preprocessing`` are those of :class:`Measuring`. Where ``min_runs`` is
    given and not reached within ``max_seconds``, the verdict is "inconclusive". A verdict of "fail" or "inconclusive"
    is a result, not an error.

    Raises InputError (no such app, release, metric or limit; labels that are none; "no-current" and "same-release":
    nothing to compare with), MisfitError (the runtime or the delegate refuses; "no-turns": one of the two releases, or
    a pinned device's agent, is too old to be compared), DeviceFailure (out of memory, killed).
    """
    measuring = Measuring(
        budget or {},
        metric,
        min_runs,
        min_seconds,
        max_seconds,
        nice,
        layers=layers,
        layers_of=None if layers_of is None else Path(layers_of),
        retry_when_cool=retry_when_cool,
        against=against,
        check_set=None if check_set is None else str(check_set),
        preprocessing=preprocessing,
        random_inputs=random_inputs,
    )
    return check_release(device, measuring, app=app, release=release, options=options, dry_run=dry_run, report=report)


def check_release(
    device: str | DeviceAddress | Session,
    measuring: Measuring,
    *,
    app: str | None = None,
    release: str | None = None,
    options: ConnectOptions | None = None,
    dry_run: bool = False,
    report: Reporter = ignore_events,
) -> CheckDocument:
    """What :func:`check` does, with its way to measure as one value."""
    started = time.monotonic()
    measuring.refuse_unsound()
    with (
        _streamed(measuring) as stream,
        opened(device, options, app=app, lock=not dry_run, report=report) as session,
    ):
        name, op = chosen_app(session, app), secrets.token_hex(8)

        def measured() -> CheckDocument:
            found, manifest = _manifest(session, name, release)
            current = ((session.hello.get("apps") or {}).get(name) or {}).get("current")
            plan = plan_check(name, found, manifest, measuring, current)
            if plan.uncompared:
                report(Event(STEP, "there is no other active release: the budget's ratio to it is left out"))
            report(Event(STEP, f"measuring {name} {found} on {session.description}"))
            arguments: dict[str, Any] = {"app": name, "release": found, "options": dict(plan.measure)}
            if plan.against is not None:
                arguments["against"] = plan.against
            measurement = ask(session, arguments, report, retry_when_cool=measuring.retry_when_cool)
            comparison = _compare(session, plan, measuring, manifest, measurement, report)
            if stream is not None:
                comparison = _compare_streamed(session, plan, measuring, stream, measurement, comparison, report)
            rival = read_in_turns(measurement, session.description) if plan.against is not None else None
            document = conclude(plan, measurement, comparison, session.facts, time.monotonic() - started, rival)
            if stream is not None:
                document = replace(document, check_set=stream.told())
            if not dry_run:
                verdict = {"verdict": document.verdict, "reasons": list(document.reasons)}
                session.request("record", op=op, app=name, release=found, verdict=verdict)
            return document

        document = session.persist(measured)
    report(Event(STEP, f"{document.verdict}: {' '.join(document.reasons)}", concludes=True))
    return document


def plan_check(app: str, release: str, manifest: Manifest, measuring: Measuring, current: str | None = None) -> Plan:
    """What to measure, and against what; pure. Raises InputError "bad-budget".

    A budget that limits a ratio to the active release (``current``) compares with it unasked; where there is none, or
    it is the checked release itself, those limits are left out.
    """
    limits = Budget().override(manifest.target.get("budget") or {}).override(measuring.budget)
    against = measuring.against
    uncompared = limits.wants_current and against is None and current in (None, release)
    if uncompared:
        limits = limits.override({"max_p50_ratio": None, "max_p95_ratio": None})
    elif limits.wants_current and against is None:
        against = CURRENT
    policy = dict(manifest.target.get("measure") or {})
    asked = {key: getattr(measuring, key) for key in ("min_runs", "min_seconds", "max_seconds")}
    policy |= {key: value for key, value in asked.items() if value is not None}
    runs = RunsWanted(int(policy.get("min_runs", 1)), asked=measuring.min_runs is not None)
    least, most = float(policy.get("min_seconds", 0.0)), float(policy.get("max_seconds", 60.0))
    if least > most and measuring.min_seconds is not None:
        most = least  # the profile's own end gives way to what was asked for
    needed = MIN_RUNS[limits.gated_percentile] if limits.gated_percentile is not None else 1
    measure = {
        "threads": int(policy.get("threads", 1)),
        "min_runs": max(runs.count, needed),
        "min_seconds": min(least, most),
        "max_seconds": most,
        "check": True,
        "nice": measuring.nice,
        "random_inputs": measuring.random_inputs,
    }
    return Plan(
        app,
        release,
        manifest.model.bytes,
        measure,
        limits,
        manifest.target.get("delegate") or {},
        runs,
        against,
        uncompared,
    )


def conclude(
    plan: Plan,
    measurement: Mapping[str, Any],
    comparison: Comparison | None,
    facts: DeviceFacts,
    seconds: float,
    rival: InTurns | None = None,
) -> CheckDocument:
    """The document of a finished measurement, its verdict included; pure. ``rival`` ran in turns with the release."""
    measured = _measured(plan, measurement, comparison, facts, rival)
    accuracy = comparison.accuracy if comparison else None
    verdict = judge(measured, accuracy, comparison.drop_bound if comparison else None, plan.budget)
    return CheckDocument(
        verdict=verdict.verdict,
        reasons=verdict.reasons,
        app=plan.app,
        release=plan.release,
        latency_ms=_rounded(latency_summary(measured.latency_ms)),
        load_ms=measured.load_ms,
        peak_rss_bytes=measured.peak_rss_bytes,
        model_bytes=plan.model_bytes,
        accuracy=accuracy,
        parity=comparison.parity if comparison else None,
        device=_device(facts, measurement),
        runtime=dict(measurement.get("runtime") or {}) | {"delegate": measurement.get("delegate")},
        conditions=dict(measurement.get("conditions") or {}) | {"emulated": measured.emulated},
        budget=plan.budget.to_json(),
        seconds=round(seconds, 3),
        gates=verdict.gates,
        intervals=latency_intervals(measured.latency_ms),
        ratio=next(iter(measured.ratios), None),
        first_ms=measured.first_ms,
        cold_load_ms=measured.cold_load_ms,
        delegated_share=measured.delegated_share,
        evidence=replace(evidence(measurement, comparison, rival), measured=evidence_of(measured)),
        outliers=find_outliers(measured.latency_ms),
        warmup_left=warmup_runs(measured.latency_ms),
    )


def _manifest(session: Session, app: str, release: str | None) -> tuple[str, Manifest]:
    """The release that is meant and its manifest, which is what the release id says."""
    from edgepack.bundle.manifest import parse, release_id

    reply = session.request("manifest", app=app, release=release)
    found = str(reply.result["release"])
    manifest = parse(reply.payload)
    if release_id(reply.payload, manifest.version) != found:
        raise IntegrityError(
            "release-damaged",
            f"The manifest of {app} {found} on {session.description} was changed: its digest differs.",
            hint="Push the bundle again: `edgepack push FILE.edgepack DEVICE`.",
        )
    return found, manifest


def _compare(
    session: Session,
    plan: Plan,
    measuring: Measuring,
    manifest: Manifest,
    measurement: Mapping[str, Any],
    report: Reporter,
) -> Comparison | None:
    """The device's outputs over the check set against the host's; None where there is no check set."""
    from edgepack.check.collecting import collect
    from edgepack.check.compare import compare
    from edgepack.check.looking import Asked, find_diverging

    token = measurement.get("outputs")
    if not token:
        return None
    arrays, scales = collect(session, str(token)), output_scales(measurement)
    if measuring.check_set is not None:
        arrays.pop("labels", None)  # accuracy is that over the other set's
    found = compare(arrays, load_metric(measuring.metric), plan.budget.max_accuracy_drop, scales)
    if found is None or found.bad_outputs:
        return found
    if measuring.wants_layers or (found.parity is not None and not found.parity.tolerated):
        report(Event(STEP, "comparing device and host layer by layer"))
        asked = Asked(plan.app, plan.release, manifest.model, int(plan.measure["threads"]), measuring.layers_of)
        found = find_diverging(session, asked, found, arrays, scales, teller(report))
    return found


def _streamed(measuring: Measuring) -> AbstractContextManager[SampleStream | None]:
    if measuring.check_set is None:
        return nullcontext()
    from edgepack.check.streaming import streamed

    return streamed(measuring.check_set, measuring.preprocessing)


def _compare_streamed(
    session: Session,
    plan: Plan,
    measuring: Measuring,
    stream: SampleStream,
    measurement: Mapping[str, Any],
    own: Comparison | None,
    report: Reporter,
) -> Comparison | None:
    """What the device says to the samples of this machine; parity from the release's own set where they have none."""
    from edgepack.check.compare import compare

    where = {"app": plan.app, "release": plan.release}
    arrays = stream.run(session, where, measurement, measuring.nice, report)
    metric, limit = load_metric(measuring.metric), plan.budget.max_accuracy_drop
    found = compare(arrays, metric, limit, output_scales(measurement), where=stream.samples.place)
    if found is None or own is None:
        return found or own
    return replace(
        found,
        samples=found.samples + (own.samples if own.bad_outputs else 0),
        bad_outputs=found.bad_outputs + own.bad_outputs,
        parity=own.parity if found.parity is None else found.parity,
        worst=own.worst,
        layers=own.layers,
    )


def output_scales(measurement: Mapping[str, Any]) -> dict[str, float]:
    """One quantization step by output, of those that are integers; none from a loader that does not tell."""
    outputs = (measurement.get("tensors") or {}).get("outputs") or ()
    return {str(one["name"]): float(one["scale"]) for one in outputs if one.get("scale")}


def _measured(
    plan: Plan,
    measurement: Mapping[str, Any],
    comparison: Comparison | None,
    facts: DeviceFacts,
    rival: InTurns | None,
) -> Measured:
    conditions = measurement.get("conditions") or {}
    taken = measurement.get("delegate") or {}
    library = plan.delegate.get("library")
    return Measured(
        latency_ms=tuple(nanoseconds / 1e6 for nanoseconds in measurement.get("latency_ns") or ()),
        load_ms=measurement.get("load_ms"),
        peak_rss_bytes=measurement.get("peak_rss_bytes"),
        model_bytes=plan.model_bytes,
        throttled=conditions.get("throttled"),
        emulated=facts.emulated or conditions.get("emulated") is True,
        delegate=DelegateUse(library, plan.delegate.get("required") is True, taken.get("operators"))
        if library
        else None,
        samples=comparison.samples if comparison else 0,
        parity=comparison.parity if comparison else None,
        bad_outputs=comparison.bad_outputs if comparison else 0,
        runs_wanted=plan.runs_wanted,
        instability=instability(measurement),
        unsound=unsound(measurement),
        throttled_by=tuple(conditions.get("throttled_by") or ()),
        ratios=ratios(rival, list(ratio_limits(plan.budget))) if rival is not None else (),
        first_ms=measurement.get("first_ms"),
        cold_load_ms=measurement.get("cold_load_ms"),
        delegated_share=delegated_share(measurement),
    )


def _rounded(latency: LatencyMs) -> LatencyMs:
    """To whole nanoseconds, which is what was measured."""
    fields = ("p50", "p90", "p95", "p99", "mean", "min")
    values = {name: getattr(latency, name) for name in fields}
    return LatencyMs(**{k: None if v is None else round(v, 6) for k, v in values.items()}, n=latency.n)


def _device(facts: DeviceFacts, measurement: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was measured on: its ``python`` is the one that ran the model, which the release's device.json names."""
    names = ("arch", "python", "libc", "model", "hostname", "os", "release", "cpus", "memory_bytes", "emulated")
    ran = (measurement.get("runtime") or {}).get("python")
    return {name: getattr(facts, name) for name in names} | ({"python": ran} if ran else {})
