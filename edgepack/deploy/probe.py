"""What a device is, which target profiles fit it, and what stands in the way of the others."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgepack.bundle.runtime import platform_fits
from edgepack.deploy import devicetexts
from edgepack.deploy.ailments import find_ailments
from edgepack.device.facts import DeviceFacts, sound_facts
from edgepack.device.opened import opened
from edgepack.documents import ProbeDocument
from edgepack.errors import MisfitError
from edgepack.target import Platform, Target, list_targets, version_tuple
from edgepack.target.lock import Wheel, shipped_wheels
from edgepack.target.refusal import Surroundings, numpy_mend, other_python, python_option, ways_out
from edgepack.target.solver import NUMPY_FOR, numpy_wheel, runtime_options, takes_numpy

if TYPE_CHECKING:
    from edgepack.device import ConnectOptions, DeviceAddress, Session

LOOKED_FOR = (
    "libedgetpu.so.1",
    "libvx_delegate.so",
    "libvx_delegate.so.2",
    "libethosu_delegate.so",
    "libarmnnDelegate.so",
    "libtensorflowlite_gpu_delegate.so",
    "libQnnTFLiteDelegate.so",
)
"""The accelerator libraries that the agent looks for (its DELEGATES). Whether another one is there, a check tells."""

# Where people get an accelerator's library; the others come with the board vendor's image. Not Google's own package
# for the Edge TPU: it crashes with this runtime; why, and where the pair comes from, stands in targets/coral-usb.toml.
_DELEGATE_PACKAGES = {
    "libedgetpu.so.1": "sudo apt install ./libedgetpu1-std_*.deb (build 16.0TF2.15.1-1 or newer for Debian 12 of "
    "https://github.com/feranick/libedgetpu/releases, copied to the device; Google's own crashes with this runtime)"
}


def probe(device: str | DeviceAddress | Session, *, options: ConnectOptions | None = None) -> ProbeDocument:
    """Log in, look, change nothing: one round trip. ``fits`` names the profiles that fit, best first.

    Each line of ``missing`` has ``target``, ``missing`` (what stands in the way) and ``mend`` (a command, or "").
    """
    with opened(device, options, look=True) as session:
        seen, between = session.hello, session.hello_between
        if "texts" not in seen:  # a session that was opened for something else
            asked_at = time.time()
            seen = session.request("probe").result
            between = (asked_at, time.time())
        name, server = session.description, session.server
    told = read_facts(seen, server, between)
    facts = DeviceFacts.from_json(told)
    gaps = [(target, find_gaps(target, facts)) for target in list_targets()]
    fits = sorted((target for target, found in gaps if not found), key=lambda target: rank(target, told.get("model")))
    return ProbeDocument(
        device=name,
        facts=told,
        fits=tuple(target.name for target in fits),
        missing=tuple(
            {"target": target.name, "missing": what, "mend": mend} for target, found in gaps for what, mend in found
        ),
        warnings=find_ailments(told),
        notes=(*_notes(seen.get("notes")), *sound_facts(_table(seen.get("facts")))[1]),
    )


def read_facts(seen: Mapping[str, Any], server: str | None, between: tuple[float, float]) -> dict[str, Any]:
    """What the agent saw, with what its texts say read into values; pure. ``between``: asked and answered (Unix time).

    Older agents send no texts: what these would tell is then None or empty.
    """
    facts, _ = sound_facts(_table(seen.get("facts")))
    texts = {str(name): str(text) for name, text in _table(seen.get("texts")).items()}
    cpuinfo = texts.get("cpu", "")
    asked = {path: devicetexts.python_version(texts.get(f"python {path}", "")) for path in facts.get("pythons") or ()}
    told = DeviceFacts.from_json(facts)
    loads_same = {
        path: answer[0]
        for path, answer in asked.items()
        if answer and answer[1] in (None, told.userland_bits) and version_tuple(answer[0]) >= (3, 8)
    }
    throttled = devicetexts.throttling(texts.get("throttled", ""))
    release = devicetexts.os_release(texts.get("os_release", ""))
    facts |= {
        "model": devicetexts.board_name(told.model, cpuinfo),
        "kernel_bits": told.kernel_bits,
        "userland_bits": told.userland_bits,
        "libc": devicetexts.libc_of_ldd(texts.get("ldd", "")) or told.libc,
        "debian": devicetexts.debian_release(release),
        "cpu": list(devicetexts.cpu_names(cpuinfo)),
        "instructions": devicetexts.instructions(told.cpu_features),
        "throttling": None if throttled is None else {"now": throttled.now, "since_boot": throttled.since_boot},
        "clock": devicetexts.clock_skew(*between, seen.get("time_s")),
        "openssh": {
            "server": devicetexts.ssh_version(server) or devicetexts.ssh_version(texts.get("sshd")),
            "client": devicetexts.ssh_version(texts.get("ssh")),
        },
    }
    if texts:
        facts["python_versions"] = loads_same
        facts["pythons"] = list(loads_same)
    return facts


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _notes(value: Any) -> tuple[str, ...]:
    return tuple(str(note)[:300] for note in value[:100]) if isinstance(value, list) else ()


def rank(target: Target, model: str | None) -> tuple[int, str]:
    """The order of profiles that fit: an accelerator that is there, this very board, any computer, other boards.

    A profile is meant for the board (``model``, as the device tree names it) that has its name's words in its own.
    """
    words = _squashed(re.sub(r"-(32bit|npu|gpu)$", "", target.name))
    if target.delegate.required:
        return 0, target.name
    if words in _squashed(model or ""):
        return 1, target.name
    if words in (_squashed(platform.arch) for platform in target.platforms):
        return 2, target.name
    return 3 if words.startswith("generic") else 4, target.name


def _squashed(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def find_gaps(target: Target, facts: DeviceFacts, brought: Sequence[Wheel] = ()) -> list[tuple[str, str]]:
    """What keeps a target from this device, each with the command that mends it ("" where none can); pure.

    ``brought`` are wheels beside those of runtimes.lock.
    """
    if not target.deployable:
        return [("not reached over SSH: edgepack only quantizes and bundles for it", "")]
    device = facts.platform
    same_arch = [platform for platform in target.platforms if platform.arch == device.arch]
    if not same_arch:
        archs = " or ".join(sorted({platform.arch for platform in target.platforms}))
        mixed = ": 32-bit, on a 64-bit kernel" if (facts.userland_bits, facts.kernel_bits) == (32, 64) else ""
        return [(f"{archs} (this device's system is {device.arch}{mixed})", "")]
    fitting = [platform for platform in same_arch if platform_fits(platform, device)]
    gaps = [] if fitting else [_platform_gap(target, same_arch, facts)]
    delegate = target.delegate
    if delegate.required and delegate.library in LOOKED_FOR and delegate.library not in facts.delegates:
        mend = _DELEGATE_PACKAGES.get(delegate.library, "")
        gaps.append((f"the library {delegate.library}" + ("" if mend else " (of the board's vendor)"), mend))
    return gaps + (_runtime_gap(target, fitting[0], facts, brought) if fitting else [])


def require_fit(target: Target, session: Session, brought: Sequence[Wheel] = ()) -> None:
    """Say before minutes are spent that a device cannot run what is made for the target. Raises MisfitError."""
    gaps = find_gaps(target, session.facts, brought)
    if gaps:
        raise MisfitError(
            "no-platform",
            f"The target {target.name} does not fit {session.description}: it needs "
            + "; ".join(what for what, _ in gaps)
            + ".",
            hint="; ".join(mend for _, mend in gaps if mend) or "`edgepack probe DEVICE` shows the profiles that fit.",
            missing=[what for what, _ in gaps],
        )


def _platform_gap(target: Target, platforms: list[Platform], facts: DeviceFacts) -> tuple[str, str]:
    """Which Python or C library is missing, and the cheapest way out: another Python, a bundle for this one, ..."""
    device, locked, around = facts.platform, shipped_wheels(), _around(facts)
    same_python = [platform for platform in platforms if platform.python == device.python]
    if not device.libc.startswith("glibc-"):
        missing = f"glibc (this device has {device.libc or 'another C library'}, for which no runtime has wheels)"
    elif same_python:
        oldest = min((platform.libc for platform in same_python), key=version_tuple)
        missing = f"{oldest} or newer (this device has {device.libc})"
    else:
        pythons = sorted({platform.python for platform in platforms}, key=version_tuple)
        missing = f"Python {' or '.join(pythons)} (this is {device.python})"
    other = other_python(device, around, lambda one: any(platform_fits(platform, one) for platform in platforms))
    if other:
        return missing, python_option(other)
    if target.delegate.required:  # its library is made for the platforms of the profile
        return missing, ""
    if runtime_options(target, device, locked):
        first = "; ".join(mend for _, mend in _numpy_gap(target, device, facts, ()))
        bundled = f"edgepack bundle MODEL.tflite --target {target.name} --platform {device.spec}"
        return missing, f"{first}; {bundled}" if first else bundled
    return missing, "; ".join(ways_out(device, locked, around))


def _runtime_gap(
    target: Target, platform: Platform, facts: DeviceFacts, brought: Sequence[Wheel]
) -> list[tuple[str, str]]:
    """The runtime of a required delegate, where no wheel brings it and the device has none; else what NumPy lacks."""
    package = target.runtime.package
    if target.delegate.required and not runtime_options(target, platform, (*shipped_wheels(), *brought)):
        if facts.installed.get(package):
            return []
        return [(f"{package}, which has no wheel for {platform.label} (of the board's vendor)", "")]
    return _numpy_gap(target, platform, facts, brought)


def _numpy_gap(
    target: Target, platform: Platform, facts: DeviceFacts, brought: Sequence[Wheel]
) -> list[tuple[str, str]]:
    """NumPy, where no wheel of one can go along and the device's own does not fit."""
    known, installed = (*shipped_wheels(), *brought), facts.installed.get("numpy")
    packages = [option.package for option in runtime_options(target, platform, known)]
    if not packages or any(
        numpy_wheel(package, platform, known) or takes_numpy(package, installed or "") for package in packages
    ):
        return []
    return [(f"NumPy {NUMPY_FOR[packages[0]]}", numpy_mend(packages[0], facts.platform, installed, _around(facts)))]


def _around(facts: DeviceFacts) -> Surroundings:
    return Surroundings(facts.executable, facts.machine, facts.pythons)
