"""Which runtime, NumPy and wheels a platform gets, in order of preference: pure functions of a profile and of wheels.

The rules, each the lesson of a failure: a wheel loads only on its own Python and architecture and on a C library at
least as new as it was built for; tflite-runtime with NumPy 2 imports and then dies in ``Interpreter()``; tflite-runtime
has a tenth of ai-edge-litert's size and goes first where the profile does not say otherwise; a profile with a delegate
names a pair, so its runtime is exchanged only where it has no wheel at all, and where the delegate is required never.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from edgepack.target.lock import Wheel, choose_wheel, shipped_wheels
from edgepack.target.platform import Platform, version_tuple
from edgepack.target.values import Target

NUMPY_FOR = {"tflite-runtime": ">=1.23.2,<2", "ai-edge-litert": ">=1.23.2"}
"""NumPy that each runtime takes: both ask for 1.23.2, and tflite-runtime 2.14.0 was built against the ABI before 2.

tflite-runtime 2.13.0 asks for 1.21.2, and dies with the 1.19.5 of Debian 11; no system has one in between to gain.
"""


@dataclass(frozen=True, slots=True)
class RuntimeOption:
    """A runtime for a platform: the ``wheels`` that bring it there (without NumPy's where none is locked for it).

    ``enough`` are the runtimes that will do as well where a device has them: package → lowest version; None where
    nobody held a model against them.
    """

    platform: Platform
    package: str
    version: str
    wheels: tuple[Wheel, ...]
    enough: Mapping[str, str] | None = None


def runtime_options(
    target: Target, platform: Platform, locked: Sequence[Wheel], folder: Sequence[Wheel] = ()
) -> tuple[RuntimeOption, ...]:
    """Every runtime that there are wheels of for the platform, the profile's own first; none where nothing fits.

    The wheels of a user's ``folder`` are for what the lock lacks: where a locked one fits, that is taken.
    """
    others = [] if target.delegate.required else [name for name in NUMPY_FOR if name != target.runtime.package]
    packages = (target.runtime.package, *others)
    found = []
    for package in packages:
        runtime = choose_wheel(locked, package, platform) or choose_wheel(folder, package, platform)
        if runtime is not None:
            numpy = numpy_wheel(package, platform, locked) or numpy_wheel(package, platform, folder)
            needed = (runtime, numpy) if numpy else (runtime,)
            found.append(RuntimeOption(platform, package, runtime.version, needed))
    return tuple(found[:1] if target.delegate.library else found)


def numpy_wheel(package: str, platform: Platform, wheels: Iterable[Wheel]) -> Wheel | None:
    """The newest NumPy among the wheels that loads on the platform and that the runtime ``package`` works with."""
    fitting = [wheel for wheel in wheels if wheel.package == "numpy" and takes_numpy(package, wheel.version)]
    return choose_wheel(fitting, "numpy", platform)


def takes_numpy(package: str, version: str) -> bool:
    """Whether the runtime ``package`` works with a version of NumPy."""
    try:
        return Version(version) in SpecifierSet(NUMPY_FOR[package])
    except InvalidVersion:  # a vendor's odd build is not trusted to fit
        return False


def own_runtime(target: Target, platform: Platform, locked: Iterable[Wheel]) -> RuntimeOption:
    """The option of a device that has to have its runtime itself: no wheels, and the version that edgepack knows."""
    package = target.runtime.package if target.delegate.required else target.runtime.package_for(platform.python)
    versions = [wheel.version for wheel in locked if wheel.package == package]
    return RuntimeOption(platform, package, max(versions, key=version_tuple, default="0"), ())


def runtimes_of(target: Target, locked: Sequence[Wheel] | None = None) -> tuple[tuple[str, str | None], ...]:
    """Package and version of the first runtime that each of the target's platforms gets from the lock; sorted.

    The version is None where nothing is locked for a platform. A target without platforms has the newest locked version
    of its package.
    """
    known = shipped_wheels() if locked is None else locked
    found: set[tuple[str, str | None]] = set()
    for platform in target.platforms:
        options = runtime_options(target, platform, known)
        found.add((options[0].package, options[0].version) if options else (target.runtime.package, None))
    if not target.platforms:
        versions = [wheel.version for wheel in known if wheel.package == target.runtime.package]
        found.add((target.runtime.package, max(versions, key=version_tuple, default=None)))
    return tuple(sorted(found, key=lambda one: (one[0], version_tuple(one[1] or "0"))))
