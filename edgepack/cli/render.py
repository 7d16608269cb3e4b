"""Every document as a person wants to read it; pure text from values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgepack import documents
from edgepack.cli.progress import size

if TYPE_CHECKING:
    from edgepack.demo import DemoDocument
    from edgepack.doctor import DoctorDocument
    from edgepack.target import Target

_COLUMN = 40  # three columns then fit the width of a terminal, or nearly so

EXIT_CODE_OF_VERDICT = {"pass": 0, "fail": 1, "inconclusive": 3}


def table(rows: Iterable[Sequence[str]], header: Sequence[str] | None = None) -> str:
    """Left-aligned columns, two blanks apart; a rule under the header."""
    lines = [list(row) for row in rows]
    if header is not None:
        lines.insert(0, list(header))
    if not lines:
        return ""
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))]
    if header is not None:
        lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in lines
    )


def quantized(document: documents.QuantizeDocument | documents.QuantizeSetDocument, *, dry_run: bool = False) -> str:
    """What quantize made, or would make, for one target or for several."""
    from edgepack.documents import QuantizeSetDocument

    if isinstance(document, QuantizeSetDocument):
        return "\n\n".join(quantized(one, dry_run=dry_run) for one in document.models)
    ratio = document.source.bytes / document.model.bytes if document.model.bytes else 0.0
    rows = [
        *_nothing_written(dry_run),
        ["model", f"{document.model.path}  ({size(document.model.bytes)}, {document.model.scheme})"],
        [
            "source",
            f"{document.source.path}  ({size(document.source.bytes)}, {document.source.kind}, {ratio:.1f}x the model)",
        ],
        ["target", document.target],
    ]
    if document.uncompiled:
        rows.append(["uncompiled", document.uncompiled])
    rows += _shares(document.conformance)
    if document.accuracy is not None:
        rows.append(["accuracy", accuracy(document.accuracy)])
    else:
        rows.append(["accuracy", "not measured: no --eval samples"])
    if document.check_set:
        rows.append(["check set", document.check_set])
    if document.cached:
        rows.append(["cached", "all of it was made before from the same content; --no-cache makes it again"])
    rows += [[found.severity, f"{found.message} {found.cure}".strip()] for found in document.conformance.findings]
    rows += _worst_layers(document.layers)
    return table(rows)


def _worst_layers(layers: Sequence[documents.LayerError], count: int = 5) -> list[list[str]]:
    """The noisiest first: what computes them, their names, signal to noise there and in what they read."""
    worst = sorted(layers, key=lambda layer: layer.sqnr_db)[:count]
    return [
        [
            "layer" if place else "worst layer",
            f"{layer.sqnr_db:.1f} dB  {layer.operator} {layer.tensor.split(';', 1)[0]}"
            + ("" if layer.input_sqnr_db is None else f"  (reads {layer.input_sqnr_db:.1f} dB)"),
        ]
        for place, layer in enumerate(worst)
    ]


def _shares(conformance: documents.Conformance) -> list[list[str]]:
    """What is in 8 bits, and what goes to the accelerator."""
    rows = []
    if conformance.int8_weight_share is not None:
        rows.append(["weights", f"{conformance.int8_weight_share:.1%} of their bytes are int8"])
    if conformance.delegated_share is not None:
        rows.append(["accelerator", f"takes {conformance.delegated_share:.1%} of the operators"])
    return rows


def _nothing_written(dry_run: bool) -> list[list[str]]:
    return [["dry run", "nothing was written; this is what would be"]] if dry_run else []


def accuracy(value: documents.Accuracy) -> str:
    """``top1 0.9000 → 0.9025, drop -0.0025 [-0.0100, +0.0050] over 400 samples``."""
    if value.reference is None or value.drop is None:
        return f"{value.metric} {value.quantized:.4f} over {value.samples} samples (no reference)"
    interval = f" [{value.interval.low:+.4f}, {value.interval.high:+.4f}]" if value.interval else ""
    moves = "grows by" if value.smaller_is_better else "drop"
    return (
        f"{value.metric} {value.reference:.4f} → {value.quantized:.4f}, "
        f"{moves} {value.drop:+.4f}{interval} over {value.samples} samples"
    )


def _platform(platform: Mapping[str, Any]) -> str:
    runtime = platform.get("runtime") or {}
    carried = f"{runtime.get('package')} {runtime.get('version')}" if runtime else "the device's own runtime"
    return f"Python {platform.get('python')}, {platform.get('arch')}, {platform.get('libc')}: {carried}"


def bundled(document: documents.BundleDocument, *, dry_run: bool = False) -> str:
    """What bundle made, or would make."""
    rows = [
        *_nothing_written(dry_run),
        ["bundle", f"{document.path}  ({size(document.bytes)})"],
        ["release", document.release],
        ["target", document.target],
        *(["platform", _platform(platform)] for platform in document.platforms),
    ]
    return table(rows)


def inspected(document: documents.BundleDocument) -> str:
    """What is in a bundle."""
    budget = ", ".join(f"{key} {value}" for key, value in document.budget.items() if value is not None)
    head = [
        ["app", f"{document.name} {document.version}"],
        ["release", document.release],
        ["target", document.target],
        ["model", f"{document.model.get('scheme')}, {size(document.model.get('bytes'))}"],
        ["budget", budget or "none"],
        ["signature", "none" if document.signature is None else str(document.signature.get("signer"))],
        ["sha256", document.sha256],
        *(["platform", _platform(platform)] for platform in document.platforms),
    ]
    files = [[entry.path, size(entry.bytes), entry.sha256[:16]] for entry in document.files]
    return table(head) + "\n\n" + table(files, ["file", "size", "sha256"])


def bundle_diff(changes: Mapping[str, Any]) -> str:
    """What changed from one bundle to another."""
    rows = [[str(change["what"]), _short(change["before"]), _short(change["after"])] for change in changes["changes"]]
    return table(rows, ["what", "before", "after"]) if rows else "The two bundles hold the same."


def _short(value: object) -> str:
    """A value in a column; --json has all of it."""
    text = str(value)
    return text if len(text) <= _COLUMN else text[: _COLUMN - 1] + "…"


def verified(document: documents.VerifyDocument) -> str:
    """What verify found."""
    signed = "unsigned" if document.signature is None else f"signed by {document.signature.get('signer')}"
    return (
        f"{document.path}: whole. {document.files} files, {size(document.bytes)}, release {document.release}, {signed}."
    )


def pushed(document: documents.PushDocument, *, dry_run: bool) -> str:
    """What push did."""
    release = f"Release {document.release} of {document.app}"
    if document.already_present:
        return f"{release} is on {document.device} already, and the candidate; {size(document.bytes.sent)} sent."
    verb = "would send" if dry_run else "sent"
    return (
        f"{release} {'would be' if dry_run else 'is'} the candidate on {document.device}; "
        f"{verb} {size(document.bytes.sent)} of {size(document.bytes.total)}"
        + ("." if dry_run else f" in {document.seconds:.1f} s and {document.round_trips} round trips.")
    )


def milliseconds(value: float | None) -> str:
    """``1.234 ms``, or ``—`` where it was not measured often enough."""
    return "—" if value is None else f"{value:.3f} ms"


def checked(document: documents.CheckDocument, *, dry_run: bool = False) -> str:
    """A verdict and what it rests on."""
    rows = [
        *([["dry run", "measured; the device keeps no verdict"]] if dry_run else []),
        ["verdict", document.verdict.upper()],
        *(["", reason] for reason in document.reasons),
        ["release", f"{document.app} {document.release}"],
        ["latency", _percentiles(document.latency_ms)],
        ["load", milliseconds(document.load_ms)],
        ["peak memory", size(document.peak_rss_bytes)],
        [
            "accuracy",
            "not measured: no labelled check set" if document.accuracy is None else accuracy(document.accuracy),
        ],
        ["parity", "not measured: no check set" if document.parity is None else parity(document.parity)],
        ["device", _device(document.device)],
        [
            "runtime",
            " ".join(str(document.runtime.get(key)) for key in ("package", "version") if document.runtime.get(key)),
        ],
        ["conditions", _conditions(document.conditions)],
    ]
    return table(rows)


def _conditions(conditions: Mapping[str, Any]) -> str:
    """What could be read of them, with units; the raw throttle counts stay in the JSON document."""
    throttled, degrees = conditions.get("throttled"), conditions.get("temperature_c")
    load, memory = conditions.get("load1"), conditions.get("memory_available_bytes")
    told = [
        "" if throttled is None else "throttled" if throttled else "not throttled",
        "" if degrees is None else f"{degrees:.0f} °C",
        "" if load is None else f"load {load:.1f}",
        "" if memory is None else f"{size(memory)} free",
        f"governor {conditions['governor']}" if conditions.get("governor") else "",
        "emulated" if conditions.get("emulated") else "",
    ]
    return ", ".join(filter(None, told)) or "none could be read"


def _percentiles(latency: documents.LatencyMs) -> str:
    shown = (f"{name} {milliseconds(getattr(latency, name))}" for name in ("p50", "p90", "p95", "p99"))
    return f"{', '.join(shown)} over {latency.n} runs"


def parity(value: documents.Parity) -> str:
    """The device's outputs against the host's."""
    agreement = "" if value.top1_agreement is None else f"top-1 agrees on {value.top1_agreement:.2%}, "
    return f"{agreement}largest difference {value.max_abs_error:.3g} over {value.samples} samples"


def _device(device: Mapping[str, Any]) -> str:
    name = device.get("model") or device.get("hostname") or "device"
    return f"{name} ({device.get('arch')}, Python {device.get('python')}, {device.get('libc')})"


def activated(document: documents.ActivateDocument, verb: str, *, dry_run: bool) -> str:
    """What activate or rollback did."""
    if not document.changed:
        return f"{document.app}: {document.current} is active already; nothing to do."
    before = f" (before: {document.previous})" if document.previous else ""
    unchecked = ", unchecked" if document.unchecked else ""
    lines = [f"{document.app}: {'would have ' if dry_run else ''}{verb} {document.current}{unchecked}{before}."]
    if document.was_bad:
        lines.append("  It was marked bad: its hooks had failed on this device before.")
    if document.withdrawn:
        lines.append(f"  {document.withdrawn} is the candidate no more; --release brings it back.")
    lines += [f"  {hook.get('hook')}: exit {hook.get('code')}" for hook in document.hooks]
    return "\n".join(lines)


def status(document: documents.StatusDocument) -> str:
    """Which release is what on a device."""
    rows = []
    for release in document.releases:
        name = str(release.get("release"))
        roles = [role for role in ("current", "previous", "candidate") if getattr(document, role) == name]
        marks = [*roles, *(["bad"] if release.get("bad") else [])]
        verdict = str(release.get("verdict") or "unchecked")
        if release.get("rechecked"):
            verdict += f", later {release['rechecked']}"
        rows.append([name, size(release.get("bytes")), verdict, ", ".join(marks)])
    head = f"{document.app}: {document.current or 'no release'} is active."
    if document.state_broken:
        head += f"\n{_STATE_BROKEN}"
    return head + "\n\n" + table(rows, ["release", "size", "verdict", "is"])


_STATE_BROKEN = (
    "The device's notes cannot be read: candidate, verdicts and history are lost. The next command that changes "
    "something keeps the broken file aside and begins anew."
)


def history(document: documents.HistoryDocument) -> str:
    """What was activated and rolled back."""
    rows = [
        [str(entry.get(key) or "—") for key in ("at", "verb", "from", "to", "outcome", "by")]
        + ["unchecked" if entry.get("unchecked") else ""]
        for entry in document.history
    ]
    if document.state_broken:
        return _STATE_BROKEN
    return (
        table(rows, ["at", "what", "from", "to", "outcome", "by", ""])
        if rows
        else f"{document.app}: no activation yet."
    )


def collected(document: documents.GcDocument, *, dry_run: bool) -> str:
    """What gc removed."""
    if dry_run and document.removed:
        return f"{document.app}: would remove {', '.join(document.removed)}, {size(document.bytes)} of files."
    if not document.removed:
        return f"{document.app}: nothing to remove; {size(document.bytes)} freed."
    return f"{document.app}: removed {', '.join(document.removed)}; {size(document.bytes)} freed."


def probed(document: documents.ProbeDocument) -> str:
    """What a device is."""
    facts = document.facts
    installed = ", ".join(f"{name} {version}" for name, version in (facts.get("installed") or {}).items())
    rows = [
        ["device", document.device],
        ["is", _device(facts)],
        ["system", f"{facts.get('os')}, {facts.get('cpus')} CPUs, {size(facts.get('memory_bytes'))} memory"],
        ["free disk", size(facts.get("disk_free_bytes"))],
        ["installed", installed or "no numpy, no TFLite runtime"],
        ["fits", ", ".join(document.fits) or "no built-in profile"],
    ]
    missing = [
        [str(gap.get("target")), str(gap.get("missing")), str(gap.get("mend") or "")] for gap in document.missing
    ]
    return table(rows) + ("\n\n" + table(missing, ["profile", "missing", "mend"]) if missing else "")


def deployed(document: documents.DeployDocument, *, dry_run: bool) -> str:
    """Everything in one go, step by step."""
    parts = []
    if document.quantize is not None:
        parts.append(quantized(document.quantize))
    if document.bundle is not None:
        parts.append(bundled(document.bundle))
    parts.append(pushed(document.push, dry_run=dry_run))
    if document.check is not None:
        parts.append(checked(document.check))
    if document.activate is not None:
        parts.append(activated(document.activate, "activated", dry_run=dry_run))
    elif not dry_run:
        parts.append("Not activated: the check did not pass. The release stays the candidate.")
    return "\n\n".join(parts)


def targets(found: Iterable[Target]) -> str:
    """The profiles, a line each."""
    rows = [
        [
            target.name,
            str(target.quantization.scheme),
            target.tested,
            "yes" if target.deployable else "no",
            target.description,
        ]
        for target in found
    ]
    return table(rows, ["target", "scheme", "tested", "deployable", "description"])


def target(found: Target) -> str:
    """One profile, every value."""
    return table([key, _plain(value)] for key, value in _flat(found.to_json()))


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "; ".join(_plain(item) for item in value) or "—"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return "—" if value is None else str(value)


def doctor(document: DoctorDocument) -> str:
    """What this machine has and lacks."""
    rows = [
        [
            "ok" if check.ok else "MISSING",
            check.name,
            check.found or "—",
            check.needed_for,
            "" if check.ok else check.mend,
        ]
        for check in document.checks
    ]
    return table(rows, ["", "what", "found", "needed for", "mend"])


def demo(document: DemoDocument) -> str:
    """The demo's story, a step a line."""
    steps = [[step.name, step.result, f"{step.seconds:.1f} s"] for step in document.steps]
    verdict = document.check.verdict.upper()
    return table(steps, ["step", "result", "time"]) + f"\n\n{verdict}: " + " ".join(document.check.reasons)
