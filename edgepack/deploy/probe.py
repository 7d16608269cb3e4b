"""What a device is, which target profiles fit it, and what stands in the way of the others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgepack.bundle.runtime import NUMPY_FOR, numpy_fits, platform_fits
from edgepack.device.opened import opened
from edgepack.documents import ProbeDocument
from edgepack.errors import MisfitError
from edgepack.target import Platform, Target, list_targets, version_tuple

if TYPE_CHECKING:
    from edgepack.device import ConnectOptions, DeviceAddress, DeviceFacts, Session

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

# PyPI has no NumPy wheel for armv7l: such a device needs Debian's.
_ARCHS_WITHOUT_NUMPY_WHEEL = ("armv7l",)


def probe(device: str | DeviceAddress | Session, *, options: ConnectOptions | None = None) -> ProbeDocument:
    """Log in, look, change nothing. ``fits`` names the profiles that a bundle for this device can be made with.

    Each line of ``missing`` has ``target``, ``missing`` (what stands in the way) and ``mend`` (a command, or "").
    """
    with opened(device, options) as session:
        facts = session.facts
        told = session.hello.get("facts") or {}
        name = session.description
    fits = []
    missing = []
    for target in list_targets():
        gaps = find_gaps(target, facts)
        if not gaps:
            fits.append(target.name)
        missing += [{"target": target.name, "missing": what, "mend": mend} for what, mend in gaps]
    return ProbeDocument(name, dict(told), tuple(fits), tuple(missing))


def find_gaps(target: Target, facts: DeviceFacts) -> list[tuple[str, str]]:
    """What keeps a target from this device, each with the command that mends it ("" where none can); pure."""
    if not target.deployable:
        return [("not reached over SSH: edgepack only quantizes and bundles for it", "")]
    device = facts.platform
    same_arch = [platform for platform in target.platforms if platform.arch == device.arch]
    if not same_arch:
        archs = " or ".join(sorted({platform.arch for platform in target.platforms}))
        return [(f"{archs} (this device's system is {device.arch})", "")]
    fitting = [platform for platform in same_arch if platform_fits(platform, device)]
    gaps = [] if fitting else [_platform_gap(same_arch, facts)]
    delegate = target.delegate
    if delegate.required and delegate.library in LOOKED_FOR and delegate.library not in facts.delegates:
        mend = _DELEGATE_PACKAGES.get(delegate.library, "")
        gaps.append((f"the library {delegate.library}" + ("" if mend else " (of the board's vendor)"), mend))
    if device.arch in _ARCHS_WITHOUT_NUMPY_WHEEL and fitting:
        needed = NUMPY_FOR[target.runtime.package_for(device.python)]
        if not numpy_fits(needed, facts.installed.get("numpy")):
            gaps.append((f"NumPy {needed}", "sudo apt install python3-numpy"))
    return gaps


def require_fit(target: Target, session: Session) -> None:
    """Say before minutes are spent that a device cannot run what is made for the target. Raises MisfitError."""
    gaps = find_gaps(target, session.facts)
    if gaps:
        raise MisfitError(
            "no-platform",
            f"The target {target.name} does not fit {session.description}: it needs "
            + "; ".join(what for what, _ in gaps)
            + ".",
            hint="; ".join(mend for _, mend in gaps if mend) or "`edgepack probe DEVICE` shows the profiles that fit.",
            missing=[what for what, _ in gaps],
        )


def _platform_gap(platforms: list[Platform], facts: DeviceFacts) -> tuple[str, str]:
    device = facts.platform
    same_python = [platform for platform in platforms if platform.python == device.python]
    if same_python:
        oldest = min((platform.libc for platform in same_python), key=version_tuple)
        return f"{oldest} or newer (this device has {device.libc})", ""
    pythons = sorted({platform.python for platform in platforms}, key=version_tuple)
    other = next((path for path in facts.pythons if _python_of(path) in pythons), None)
    return f"Python {' or '.join(pythons)} (this is {device.python})", f"--python {other}" if other else ""


def _python_of(path: str) -> str:
    """The "3.11" of ``/usr/bin/python3.11``; "" where the name tells none."""
    found = re.search(r"python(3\.\d+)$", path)
    return found.group(1) if found else ""
