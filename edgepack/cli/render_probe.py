"""What a device is and what this machine has, as a person wants to read it; text from values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from edgepack.cli.tables import table
from edgepack.deploy.ailments import duration, hottest_c, on_battery
from edgepack.words import size

if TYPE_CHECKING:
    from edgepack import documents
    from edgepack.doctor import DoctorDocument, HostCheck


def probed(document: documents.ProbeDocument) -> str:
    """What a device is, what fits it, what is wrong with it, and what keeps the other profiles from it."""
    facts = document.facts
    rows = [
        ["device", document.device],
        ["is", _identity(facts)],
        ["system", _system(facts)],
        ["CPU", _cpu(facts)],
        ["memory", f"{size(facts.get('memory_bytes'))}, {size(facts.get('memory_available_bytes'))} free"],
        ["disk", f"{size(facts.get('disk_free_bytes'))} free at edgepack's folder"],
        ["Pythons", _pythons(facts)],
        ["installed", _pairs(facts.get("installed")) or "no numpy, no TFLite runtime"],
        ["accelerators", _accelerators(facts)],
        ["heat", _heat(facts)],
        ["power", _power(facts)],
        ["clock", _clock(facts.get("clock"))],
        ["SSH", _ssh(facts.get("openssh") or {})],
        *(["warning", f"{one['what']}; mend: {one['mend']}"] for one in document.warnings),
        *(["not known", note] for note in document.notes),
        ["fits", ", ".join(document.fits) or "no profile that edgepack knows"],
        *([["use", f"--target {document.fits[0]}"]] if document.fits else []),
    ]
    lacking = _grouped(document.missing)
    missing = f"\n\nmissing for the other profiles:\n{table(lacking)}" if lacking else ""
    return table([row for row in rows if row[1]]) + missing


def _grouped(missing: Iterable[Mapping[str, str]]) -> list[list[str]]:
    """What is missing, the profiles that lack it, and on a line of its own what mends it."""
    names: dict[tuple[str, str], list[str]] = {}
    for gap in missing:
        names.setdefault((str(gap.get("missing")), str(gap.get("mend") or "")), []).append(str(gap.get("target")))
    rows = []
    for (what, mend), lacking in names.items():
        rows += [[what, ", ".join(lacking)], *([["", f"mend: {mend}"]] if mend else [])]
    return rows


def _identity(facts: Mapping[str, Any]) -> str:
    name = facts.get("model") or facts.get("hostname") or "device"
    return f"{name} ({facts.get('arch')}, Python {facts.get('python')}, {facts.get('libc')})"


def _system(facts: Mapping[str, Any]) -> str:
    mixed = (facts.get("userland_bits"), facts.get("kernel_bits")) == (32, 64)
    parts = [
        str(facts.get("os") or "unknown"),
        f"kernel {facts['release']}" if facts.get("release") else "",
        "a 32-bit system on a 64-bit kernel" if mixed else "",
        "emulated" if facts.get("emulated") else "",
    ]
    return ", ".join(filter(None, parts))


_INSTRUCTIONS = {"dot_product": "dot product", "fp16": "fp16", "i8mm": "i8mm", "bf16": "bf16"}


def _cpu(facts: Mapping[str, Any]) -> str:
    kinds = " and ".join(facts.get("cpu") or ())
    cores = f"{facts.get('cpus')} cores" + (f", {kinds}" if kinds else "")
    has = facts.get("instructions") or {}
    if not has:
        return cores
    told = ", ".join(word for key, word in _INSTRUCTIONS.items() if has.get(key))
    lacks = ", ".join(f"no {_INSTRUCTIONS[key]}" for key in ("dot_product", "fp16") if not has.get(key))
    return f"{cores}; {', '.join(filter(None, (told, lacks)))}"


def _pythons(facts: Mapping[str, Any]) -> str:
    others = (f"{version} ({path})" for path, version in (facts.get("python_versions") or {}).items())
    return ", ".join([f"{facts.get('python')} ({facts.get('executable')}, in use)", *others])


def _pairs(values: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in (values or {}).items())


def _accelerators(facts: Mapping[str, Any]) -> str:
    places = facts.get("delegate_paths") or {}
    return ", ".join(str(places.get(name, name)) for name in facts.get("delegates") or ()) or "no library of any"


def _heat(facts: Mapping[str, Any]) -> str:
    degrees = hottest_c(facts)
    told = facts.get("throttling")
    parts = [
        "" if degrees is None else f"{degrees:.0f} °C ({len(facts.get('thermal') or ())} thermal zones)",
        "" if told is None else "throttled now" if told["now"] else "not throttled now",
        "" if told is None else ("it was since it started" if told["since_boot"] else "nor since it started"),
        f"governor {facts['governor']}" if facts.get("governor") else "",
    ]
    return ", ".join(filter(None, parts)) or "no source tells of heat or throttling"


def _power(facts: Mapping[str, Any]) -> str:
    supplies = facts.get("power") or ()
    battery = on_battery(supplies)
    levels = [f"{one['name']} {one['capacity']} %" for one in supplies if one.get("capacity")]
    state = "" if battery is None else "on battery" if battery else "on mains"
    voltage = {None: "", True: "undervoltage", False: "voltage in order"}[facts.get("undervoltage")]
    return ", ".join(filter(None, [state, *levels, voltage]))


def _clock(clock: Mapping[str, float] | None) -> str:
    if not clock:
        return ""
    skew_s, within_s = clock["skew_s"], clock["within_s"]
    if abs(skew_s) <= within_s:
        return f"as this machine's (within {duration(within_s)})"
    return f"{duration(abs(skew_s))} {'ahead of' if skew_s > 0 else 'behind'} this machine's"


def _ssh(openssh: Mapping[str, str | None]) -> str:
    return ", ".join(f"{role} {openssh[role]}" for role in ("server", "client") if openssh.get(role))


def doctor(document: DoctorDocument) -> str:
    """What this machine has, a line each; what mends a lack on a line of its own."""
    rows = []
    for check in document.checks:
        found = "—" if check.found is None else check.found
        rows.append([_state(check), check.name, f"{found}  ({check.needed_for})"])
        rows += [] if check.ok else [["", "", f"mend: {check.mend}"]]
    lacks = "Nothing that the main job needs is missing." if document.healthy else "The main job needs what is MISSING."
    return f"{table(rows)}\n\n{lacks}"


def _state(check: HostCheck) -> str:
    return "ok" if check.ok else "not here" if check.optional else "MISSING"
