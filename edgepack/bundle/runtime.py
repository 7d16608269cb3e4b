"""Which runtime a device runs a release with: what it has already, what the bundle has to bring; pure functions.

Refused here means refused before a byte moves. What a device has already and fits goes first; of the rest only what it
lacks travels. The rules of fitting are edgepack.target.solver's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from edgepack.bundle.manifest import Manifest, PlatformNeed, runtime_id
from edgepack.bundle.misfit import no_numpy, no_platform, no_runtime, unknown_runtime
from edgepack.errors import IntegrityError
from edgepack.target import Platform, libc_fits, version_tuple
from edgepack.target.refusal import Surroundings
from edgepack.target.solver import NUMPY_FOR

__all__ = ["NUMPY_FOR", "RuntimeChoice", "choose_runtime", "numpy_fits", "platform_fits", "runtime_fits"]


@dataclass(frozen=True, slots=True)
class RuntimeChoice:
    """How one device runs a release.

    ``runtime_id`` names the set of ``wheels`` (bundle paths) that go to the device, None where none has to;
    ``use_installed`` are the distributions that the device's own Python already has. ``version`` is the runtime's.
    """

    platform: Platform
    runtime_id: str | None
    package: str
    version: str
    wheels: tuple[str, ...]
    use_installed: tuple[str, ...]


def choose_runtime(
    manifest: Manifest, device: Platform, installed: Mapping[str, str], around: Surroundings | None = None
) -> RuntimeChoice:
    """The runtime of a release on a device with the distributions ``installed`` (name → version).

    Raises :class:`MisfitError`: "no-platform" where the bundle is not for the device, "no-runtime" and "numpy-mismatch"
    where neither the bundle nor the device has a fitting part. ``around`` makes those more useful.
    """
    around = around or Surroundings()
    fitting = [need for need in manifest.platforms if platform_fits(need.platform, device)]
    if not fitting:
        raise no_platform(manifest, device, installed, around, platform_fits)
    need = max(fitting, key=lambda one: version_tuple(one.platform.libc))
    if need.runtime.package not in NUMPY_FOR:
        raise unknown_runtime(need)
    ways = list(_runtimes(need, installed))
    if not ways:
        raise no_runtime(need, device, installed)
    for package, version, wheel in ways:
        numpy = _numpy(need, package, installed)
        if numpy is not None:
            wheels = tuple(sorted(one for one in (wheel, numpy) if one))
            own = (package if not wheel else "", "numpy" if not numpy else "")
            return RuntimeChoice(
                platform=need.platform,
                runtime_id=_id_of(manifest, wheels),
                package=package,
                version=version,
                wheels=wheels,
                use_installed=tuple(sorted(name for name in own if name)),
            )
    package, version, _ = ways[0]
    raise no_numpy(f"{package} {version}", package, device, installed.get("numpy"), around)


def _runtimes(need: PlatformNeed, installed: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(package, version, wheel) of each runtime that would do, the best first; the wheel is "" for an installed one."""
    runtime = need.runtime
    enough = {runtime.package: runtime.version, **(runtime.enough or {})}
    for package, lowest in enough.items():
        if runtime_fits(package, lowest, installed.get(package)):
            yield package, installed[package], ""
    shipped = _wheel_of(runtime.wheels, runtime.package)
    if shipped is not None:
        yield runtime.package, runtime.version, shipped


def _numpy(need: PlatformNeed, package: str, installed: Mapping[str, str]) -> str | None:
    """The NumPy that the runtime is used with: "" for the device's own, a wheel, or None where neither fits."""
    specifier = need.runtime.numpy if package == need.runtime.package else NUMPY_FOR[package]
    if numpy_fits(specifier, installed.get("numpy")):
        return ""
    wheel = _wheel_of(need.runtime.wheels, "numpy")
    return wheel if wheel and numpy_fits(specifier, wheel.rpartition("/")[2].split("-")[1]) else None


def platform_fits(need: Platform, device: Platform) -> bool:
    """Whether what was made for ``need`` loads on ``device``: same Python, architecture and kind of C library."""
    return (need.python, need.arch) == (device.python, device.arch) and libc_fits(need.libc, device.libc)


def runtime_fits(package: str, needed: str, installed: str | None) -> bool:
    """Whether an installed runtime does: the same major version, and at least the needed one."""
    have, lowest = _version(installed), _version(needed)
    return (
        have is not None
        and lowest is not None
        and have.major == lowest.major
        and have >= lowest
        and package in NUMPY_FOR
    )


def numpy_fits(specifier: str, installed: str | None) -> bool:
    """Whether an installed NumPy meets the specifier."""
    have = _version(installed)
    try:
        return have is not None and have in SpecifierSet(specifier)
    except InvalidSpecifier as error:
        raise IntegrityError(
            "bad-manifest", f"The bundle's NumPy specifier {specifier!r} is malformed.", hint="Make the bundle anew."
        ) from error


def _version(text: str | None) -> Version | None:
    """A version, None where there is none or it is no version at all (a vendor's odd build is not trusted to fit)."""
    try:
        return Version(text) if text else None
    except InvalidVersion:
        return None


def _wheel_of(wheels: Iterable[str], package: str) -> str | None:
    """The wheel of a distribution; file names spell it with underscores (binary distribution format, PEP 427)."""
    prefix = package.replace("-", "_").lower() + "-"
    return next((wheel for wheel in wheels if wheel.rpartition("/")[2].lower().startswith(prefix)), None)


def _id_of(manifest: Manifest, wheels: Iterable[str]) -> str | None:
    digests = {file.path: file.sha256 for file in manifest.files}
    return runtime_id({wheel.rpartition("/")[2]: digests[wheel] for wheel in wheels})
