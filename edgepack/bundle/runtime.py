"""Which runtime a device runs a release with: what it has already, what the bundle has to bring; pure functions.

Refused here means refused before a byte moves. The rules (each the lesson of a failure, measured for this project): a
wheel loads only on its own Python and architecture and on a C library at least as new as it was built for; NumPy 2 with
tflite-runtime imports and then dies in ``Interpreter()``; an older runtime may lack the model's operators.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from edgepack.bundle.manifest import Manifest, PlatformNeed, runtime_id
from edgepack.errors import IntegrityError, MisfitError
from edgepack.target import Platform, version_tuple

NUMPY_FOR = {"tflite-runtime": ">=1.23.2,<2", "ai-edge-litert": ">=1.23.2"}
"""NumPy that each runtime takes: both ask for 1.23.2, and tflite-runtime 2.14.0 was built against the ABI before 2."""


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


def choose_runtime(manifest: Manifest, device: Platform, installed: Mapping[str, str]) -> RuntimeChoice:
    """The runtime of a release on a device with the distributions ``installed`` (name → version).

    Raises :class:`MisfitError`: "no-platform" where the bundle is not for the device, "no-runtime" and "numpy-mismatch"
    where neither the bundle nor the device has a fitting part.
    """
    need = _fitting_platform(manifest, device)
    runtime = need.runtime
    wheels: list[str] = []
    use_installed: list[str] = []
    version = runtime.version
    shipped = _wheel_of(runtime.wheels, runtime.package)
    if runtime_fits(runtime.package, runtime.version, installed.get(runtime.package)):
        use_installed.append(runtime.package)
        version = installed[runtime.package]
    elif shipped is not None:
        wheels.append(shipped)
    else:
        raise _no_runtime(need, installed.get(runtime.package))
    numpy_wheel = _wheel_of(runtime.wheels, "numpy")
    if numpy_fits(runtime.numpy, installed.get("numpy")):
        use_installed.append("numpy")
    elif numpy_wheel is not None:
        wheels.append(numpy_wheel)
    else:
        raise _no_numpy(need, device, installed.get("numpy"))
    return RuntimeChoice(
        platform=need.platform,
        runtime_id=_id_of(manifest, wheels),
        package=runtime.package,
        version=version,
        wheels=tuple(sorted(wheels)),
        use_installed=tuple(sorted(use_installed)),
    )


def platform_fits(need: Platform, device: Platform) -> bool:
    """Whether what was made for ``need`` loads on ``device``: same Python, same architecture, glibc at least as new."""
    return (
        need.python == device.python
        and need.arch == device.arch
        and device.libc.startswith("glibc-")
        and version_tuple(need.libc) <= version_tuple(device.libc)
    )


def runtime_fits(package: str, needed: str, installed: str | None) -> bool:
    """Whether an installed runtime does: the same major version, and at least the needed one."""
    have = _version(installed)
    return have is not None and have.major == Version(needed).major and have >= Version(needed) and package in NUMPY_FOR


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


def _fitting_platform(manifest: Manifest, device: Platform) -> PlatformNeed:
    fitting = [need for need in manifest.platforms if platform_fits(need.platform, device)]
    if fitting:
        return max(fitting, key=lambda need: version_tuple(need.platform.libc))
    carried = "; ".join(need.platform.label for need in manifest.platforms) or "no platform at all"
    raise MisfitError(
        "no-platform",
        f"The bundle is not for this device: the device has {device.label}, the bundle carries {carried}.",
        hint=_platform_hint(manifest, device),
        device=device.to_json(),
        platforms=[need.platform.to_json() for need in manifest.platforms],
    )


def _platform_hint(manifest: Manifest, device: Platform) -> str:
    """What would fit, from the nearest miss."""
    same_python = [
        need
        for need in manifest.platforms
        if (need.platform.python, need.platform.arch) == (device.python, device.arch)
    ]
    if same_python:
        oldest = min((need.platform.libc for need in same_python), key=version_tuple)
        return f"It needs {oldest} or newer: update the device's system, or bundle for an older C library."
    same_arch = sorted(
        {need.platform.python for need in manifest.platforms if need.platform.arch == device.arch}, key=version_tuple
    )
    if same_arch:
        return (
            f"Name another Python of the device, such as --python python{same_arch[-1]}, or bundle with a "
            f'target profile whose [[platforms]] has python = "{device.python}".'
        )
    return f'Bundle with a target profile whose [[platforms]] has arch = "{device.arch}": `edgepack targets list`.'


def _wheel_of(wheels: Iterable[str], package: str) -> str | None:
    """The wheel of a distribution; file names spell it with underscores (binary distribution format, PEP 427)."""
    prefix = package.replace("-", "_").lower() + "-"
    return next((wheel for wheel in wheels if wheel.rpartition("/")[2].lower().startswith(prefix)), None)


def _id_of(manifest: Manifest, wheels: Iterable[str]) -> str | None:
    digests = {file.path: file.sha256 for file in manifest.files}
    return runtime_id({wheel.rpartition("/")[2]: digests[wheel] for wheel in wheels})


def _no_runtime(need: PlatformNeed, installed: str | None) -> MisfitError:
    runtime = need.runtime
    state = f"has {runtime.package} {installed}" if installed else f"has no {runtime.package}"
    return MisfitError(
        "no-runtime",
        f"The device {state} and the bundle brings none; the release needs {runtime.package} {runtime.version}.",
        hint=f"Bundle again without --without-runtime, or install it on the device: "
        f"python3 -m pip install '{runtime.package}=={runtime.version}' 'numpy{runtime.numpy}'",
    )


def _no_numpy(need: PlatformNeed, device: Platform, installed: str | None) -> MisfitError:
    runtime = need.runtime
    state = f"has NumPy {installed}" if installed else "has no NumPy"
    hint = "Install it on the device: sudo apt install python3-numpy"
    if installed:
        hint = f"Install a fitting one on the device: python3 -m pip install --user 'numpy{runtime.numpy}'"
    return MisfitError(
        "numpy-mismatch",
        f"The device {state}, the bundle brings none for {device.label}, and {runtime.package} {runtime.version} needs "
        f"NumPy {runtime.numpy}.",
        hint=hint,
    )
