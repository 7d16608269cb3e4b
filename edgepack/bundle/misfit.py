"""What is said where bundle and device do not fit together: which part is missing, and what would fit; pure functions.

Each refusal is one paragraph for a tired person: what the device has, what the bundle has, and the next command.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgepack.bundle.manifest import Manifest, PlatformNeed
from edgepack.errors import MisfitError
from edgepack.target import Platform, Target, list_targets
from edgepack.target.lock import shipped_wheels
from edgepack.target.refusal import (
    Surroundings,
    missing_part,
    numpy_mend,
    other_python,
    python_option,
    runtimes_for,
    venv_mend,
    ways_out,
)
from edgepack.target.solver import NUMPY_FOR, numpy_wheel, takes_numpy

Fits = Callable[[Platform, Platform], bool]


def no_platform(
    manifest: Manifest, device: Platform, installed: Mapping[str, str], around: Surroundings, fits: Fits
) -> MisfitError:
    """None of the bundle's platforms is the device's."""
    carried = "; ".join(need.platform.label for need in manifest.platforms) or "no platform at all"
    narrow = f" (a 32-bit system on a 64-bit kernel, {around.machine})" if _is_narrow(device, around) else ""
    return MisfitError(
        "no-platform",
        f"The bundle is not for this device: the device has {device.label}{narrow}, the bundle carries {carried}.",
        hint=_what_fits(manifest, device, installed.get("numpy"), around, fits),
        device=device.to_json(),
        platforms=[need.platform.to_json() for need in manifest.platforms],
    )


def _is_narrow(device: Platform, around: Surroundings) -> bool:
    return device.arch in ("armv7l", "i686") and around.machine in ("aarch64", "x86_64")


def _what_fits(manifest: Manifest, device: Platform, numpy: str | None, around: Surroundings, fits: Fits) -> str:
    """The next command: another Python of the device's, a bundle for it, or what else would do."""
    needs = [need.platform for need in manifest.platforms]
    other = other_python(device, around, lambda one: any(fits(need, one) for need in needs))
    if other:
        return f"The device has another Python that fits: {python_option(other)}"
    locked, paired = shipped_wheels(), _required_pair(manifest)
    runtimes = [package for package in runtimes_for(device, locked) if paired is None or package == paired[1]]
    if runtimes:
        profiles = [
            target.name
            for target in list_targets()
            if paired is None
            and not target.delegate.required
            and any(fits(platform, device) for platform in target.platforms)
        ]
        named = f", or with a profile that has it: {', '.join(profiles[:3])}" if profiles else ""
        lacks_numpy = not any(
            numpy_wheel(package, device, locked) or (numpy and takes_numpy(package, numpy)) for package in runtimes
        )
        first = f" But first its NumPy: {numpy_mend(runtimes[-1], device, numpy, around)}" if lacks_numpy else ""
        return f"Bundle for it: --platform {device.spec}{named}.{first}"
    if paired is not None:
        library, package = paired
        return _keeping_the_pair(device, needs, library, package)
    return f"Nothing can be bundled for it: {missing_part(device, locked)}. What would fit: " + "; ".join(
        ways_out(device, locked, around)
    )


def _required_pair(manifest: Manifest) -> tuple[str, str] | None:
    """The delegate's library and the runtime that the profile pairs it with, where it requires the delegate."""
    delegate, runtime = manifest.target.get("delegate"), manifest.target.get("runtime")
    if not isinstance(delegate, Mapping) or not isinstance(runtime, Mapping) or not delegate.get("required"):
        return None
    return str(delegate.get("library")), str(runtime.get("package"))


def _keeping_the_pair(device: Platform, named: Sequence[Platform], library: str, package: str) -> str:
    """What would do on a platform that the runtime of a required delegate has no wheel for; another one is no way."""
    systems = "; ".join(platform.label for platform in named)
    return (
        f"Its accelerator's library, {library}, is paired with {package}, and "
        f"{missing_part(device, shipped_wheels(), package)}. What would fit: a system with {systems}; a wheel of "
        f"{package} that you build, in a folder: --platform {device.spec} --wheels FOLDER; or, where the device brings "
        f"its own {package}, --platform {device.spec} --without-runtime"
    )


def no_runtime(need: PlatformNeed, device: Platform, installed: Mapping[str, str]) -> MisfitError:
    """The bundle carries no runtime, and the device has none that does."""
    runtime = need.runtime
    enough = {runtime.package: runtime.version, **(runtime.enough or {})}
    have = [f"{package} {installed[package]}" for package in NUMPY_FOR if installed.get(package)]
    state = f"has {' and '.join(have)}" if have else f"has no {' and no '.join(enough)}"
    needed = " or ".join(f"{package} {version} or newer" for package, version in enough.items())
    brings = "Bundle again without --without-runtime"
    if not set(runtimes_for(device, shipped_wheels())) & set(enough):
        brings = "Bundle again with --wheels FOLDER that has one"
    return MisfitError(
        "no-runtime",
        f"The device {state} and the bundle brings none; the release needs {needed}.",
        hint=f"{brings}, or give the release a Python of its own: "
        + venv_mend([f"{runtime.package}=={runtime.version}", f"numpy{runtime.numpy}"]),
    )


def unknown_runtime(need: PlatformNeed) -> MisfitError:
    """The bundle was made by an edgepack that knows more runtimes."""
    return MisfitError(
        "no-runtime",
        f"The release runs on {need.runtime.package!r}, a runtime that this edgepack does not know.",
        hint="Update edgepack: python -m pip install --upgrade edgepack",
    )


def no_numpy(title: str, package: str, device: Platform, installed: str | None, around: Surroundings) -> MisfitError:
    """A runtime is there, and no NumPy that it works with."""
    state = f"has NumPy {installed}" if installed else "has no NumPy"
    if numpy_wheel(package, device, shipped_wheels()):
        hint = "Bundle again without --without-runtime: a fitting NumPy then goes along, beside the device's own."
    else:
        hint = numpy_mend(package, device, installed, around)
    return MisfitError(
        "numpy-mismatch",
        f"The device {state}, the bundle brings none for {device.label}, and {title} needs NumPy {NUMPY_FOR[package]}.",
        hint=hint,
    )


def no_wheel(platform: Platform, target: Target) -> MisfitError:
    """No wheel of a runtime that the target may have is there to bundle for a platform."""
    locked = shipped_wheels()
    if target.delegate.required:
        package = target.runtime.package
        return MisfitError(
            "no-wheel",
            f"{package} cannot be bundled for {platform.label} (target {target.name}): "
            f"{missing_part(platform, locked, package)}.",
            hint=_keeping_the_pair(platform, target.platforms, str(target.delegate.library), package),
            platform=platform.to_json(),
        )
    return MisfitError(
        "no-wheel",
        f"No runtime can be bundled for {platform.label} (target {target.name}): {missing_part(platform, locked)}.",
        hint="What would fit: "
        + "; ".join(ways_out(platform, locked))
        + "; or a device that has its own runtime: --without-runtime",
        platform=platform.to_json(),
    )
