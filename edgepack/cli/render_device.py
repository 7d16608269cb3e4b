"""What is on a device, and what was done there, as a person wants to read it; text from values."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgepack.cli.render import accuracy, bundled, quantized
from edgepack.cli.tables import table
from edgepack.words import printable, shown_number, size

if TYPE_CHECKING:
    from edgepack import documents

EXIT_CODE_OF_VERDICT = {"pass": 0, "fail": 1, "inconclusive": 3}


def pushed(document: documents.PushDocument, *, dry_run: bool) -> str:
    """What push did."""
    release = f"Release {document.release} of {document.app}"
    if document.already_present:
        return printable(
            f"{release} is on {document.device} already, and the candidate; {size(document.bytes.sent)} sent."
        )
    verb = "would send" if dry_run else "sent"
    return printable(
        f"{release} {'would be' if dry_run else 'is'} the candidate on {document.device}; "
        f"{verb} {size(document.bytes.sent)} of {size(document.bytes.total)}"
        + ("." if dry_run else f" in {document.seconds:.1f} s and {document.round_trips} round trips.")
    )


def milliseconds(value: float | None) -> str:
    """``1.234 ms`` (three significant digits at least), or ``—`` where it was not measured often enough."""
    return "—" if value is None else f"{shown_number(value, 3)} ms"


def checked(document: documents.CheckDocument, *, dry_run: bool = False) -> str:
    """A verdict and what it rests on."""
    rows = [
        *([["dry run", "measured; the device keeps no verdict"]] if dry_run else []),
        ["verdict", document.verdict.upper()],
        *(["", reason] for reason in document.reasons),
        ["release", f"{document.app} {document.release}"],
        ["latency", _percentiles(document.latency_ms)],
        *([["against", against(document.ratio)]] if document.ratio else []),
        ["load", _loading(document)],
        ["peak memory", size(document.peak_rss_bytes)],
        [
            "accuracy",
            "not measured: no labelled check set" if document.accuracy is None else accuracy(document.accuracy),
        ],
        *([["check set", _streamed(document.check_set)]] if document.check_set else []),
        ["parity", "not measured: no check set" if document.parity is None else parity(document.parity)],
        ["device", _device(document.device)],
        [
            "runtime",
            " ".join(str(document.runtime.get(key)) for key in ("package", "version") if document.runtime.get(key)),
        ],
        ["conditions", _conditions(document.conditions)],
    ]
    return table(rows)


def _loading(document: documents.CheckDocument) -> str:
    """With warm file caches, and what more is known of the start."""
    more = (("from the disk", document.cold_load_ms), ("the first run", document.first_ms))
    told = (f"{name} {milliseconds(value)}" for name, value in more if value is not None)
    return ", ".join([milliseconds(document.load_ms), *told])


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
        f"nice {conditions['nice']}" if conditions.get("nice") else "",
        "emulated" if conditions.get("emulated") else "",
    ]
    return ", ".join(filter(None, told)) or "none could be read"


def _percentiles(latency: documents.LatencyMs) -> str:
    shown = (f"{name} {milliseconds(getattr(latency, name))}" for name in ("p50", "p90", "p95", "p99"))
    return f"{', '.join(shown)} over {latency.n} runs"


def against(ratio: documents.Ratio) -> str:
    """How the release compares with the one that ran in turns with it."""
    between = f"{ratio.confidence:.0%} interval {ratio.low:.3f} to {ratio.high:.3f}, {ratio.pairs} pairs of blocks"
    return f"{ratio.statistic} is {ratio.estimate:.3f} times that of {ratio.release} ({between})"


def parity(value: documents.Parity) -> str:
    """The device's outputs against the host's."""
    agreement = "" if value.top1_agreement is None else f"top-1 agrees on {value.top1_agreement:.2%}, "
    steps = "" if value.max_steps is None else f" ({value.max_steps:g} quantization steps)"
    layer = f"; the first layer that differs is {value.diverging}" if value.diverging else ""
    cause = f"; {value.cause}" if value.cause else ""
    apart = f"largest difference {value.max_abs_error:.3g}{steps} over {value.samples} samples"
    return f"{agreement}{apart}{layer}{cause}"


def _streamed(told: Mapping[str, Any]) -> str:
    """What went over the line of a set that is not the release's own."""
    return (
        f"{told.get('samples', 0):,} samples of {told.get('name')} in {told.get('pieces')} pieces:"
        f" {size(told.get('sent_bytes'))} sent, {size(told.get('received_bytes'))} came back"
    )


def _device(device: Mapping[str, Any]) -> str:
    name = device.get("model") or device.get("hostname") or "device"
    return f"{name} ({device.get('arch')}, Python {device.get('python')}, {device.get('libc')})"


def activated(document: documents.ActivateDocument, verb: str, *, dry_run: bool) -> str:
    """What activate or rollback did."""
    if not document.changed:
        return printable(f"{document.app}: {document.current} is active already; nothing to do.")
    before = f" (before: {document.previous})" if document.previous else ""
    unchecked = ", unchecked" if document.unchecked else ""
    lines = [f"{document.app}: {'would have ' if dry_run else ''}{verb} {document.current}{unchecked}{before}."]
    if document.was_bad:
        lines.append("  It was marked bad: its hooks had failed on this device before.")
    if document.withdrawn:
        lines.append(f"  {document.withdrawn} is the candidate no more; --release brings it back.")
    lines += [f"  {hook.get('hook')}: exit {hook.get('code')}" for hook in document.hooks]
    return "\n".join(map(printable, lines))


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
    head = printable(f"{document.app}: {document.current or 'no release'} is active.")
    if document.counter is not None:
        head += f" The highest counter seen here: {document.counter}."
    if document.state_broken:
        head += f"\n{_STATE_BROKEN}"
    return head + "\n\n" + table(rows, ["release", "size", "verdict", "is"])


_STATE_BROKEN = (
    "The device's notes cannot be read: candidate, verdicts and history are lost. The next command that changes "
    "something keeps the broken file aside and begins anew."
)


def trusted(document: documents.TrustDocument, *, dry_run: bool) -> str:
    """What trust pinned, and the line that is the owner's to put in place."""
    rows = [
        *([["dry run", "nothing was written"]] if dry_run else []),
        ["pinned" if not document.again else "pinned anew", f"{document.account} on {document.device}"],
        ["laid down", document.folder],
        ["works in", document.root],
        ["signers", ", ".join(document.signers)],
        ["hooks", "; ".join(" ".join(argv) for argv in document.hooks) or "none may run"],
        ["counters", ", ".join(f"{app} {count}" for app, count in document.counters.items()) or "none seen yet"],
    ]
    advice = (
        f"Put this line into the authorized_keys of {document.account}: a key that has no other line there deploys and "
        "does nothing else."
    )
    return f"{table(rows)}\n\n{printable(advice)}\n\n{printable(document.authorized_keys)}"


def history(document: documents.HistoryDocument) -> str:
    """What was pushed, checked, activated, rolled back and collected, oldest first."""
    # Merged, not sorted: a device's clock jumps, and what happened one after the other stays so.
    entries = heapq.merge(document.history, map(_as_entry, document.events), key=lambda entry: str(entry.get("at")))
    rows = [
        [str(entry.get(key) or "—") for key in ("at", "verb", "from", "to", "outcome", "by")] + [_remarks(entry)]
        for entry in entries
    ]
    if document.state_broken:
        return _STATE_BROKEN
    return (
        table(rows, ["at", "what", "from", "to", "outcome", "by", ""])
        if rows
        else printable(f"{document.app}: nothing happened yet.")
    )


def _as_entry(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """A push, a check or a gc in the columns of an activation."""
    outcome = event.get("verdict") or ("there already" if event.get("already") else "done")
    if event.get("verb") == "gc":
        freed = event.get("bytes")
        outcome = (
            f"removed {event.get('releases')}, freed {size(freed) if isinstance(freed, int) else 'an unknown size'}"
        )
    return {**event, "to": event.get("release"), "outcome": outcome}


def _remarks(entry: Mapping[str, Any]) -> str:
    origin = f"from {entry['origin']}" if entry.get("origin") else ""
    return ", ".join(filter(None, [origin, "unchecked" if entry.get("unchecked") else "", _evidence(entry)]))


def _evidence(entry: Mapping[str, Any]) -> str:
    """What the hook that undid an activation printed last."""
    failure = entry.get("failure")
    said = str(failure.get("output") or "") if isinstance(failure, Mapping) else ""
    lines = said.strip().splitlines()
    return printable(lines[-1])[:100] if lines else ""


def collected(document: documents.GcDocument, *, dry_run: bool) -> str:
    """What gc removed."""
    if dry_run and document.removed:
        done = f"would remove {', '.join(document.removed)}, {size(document.bytes)} of files"
    elif not document.removed:
        done = f"nothing to remove; {size(document.bytes)} freed"
    else:
        done = f"removed {', '.join(document.removed)}; {size(document.bytes)} freed"
    kept = f" Kept, because a program has it loaded: {', '.join(document.in_use)}." if document.in_use else ""
    return printable(f"{document.app}: {done}.{kept}")


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
