"""Fetching locked wheels: from a folder, from the cache, or through pip; whatever comes is held against its digest.

The cache is ``$XDG_CACHE_HOME/edgepack/wheels/<sha256>/<filename>`` (``~/.cache`` by default): what was bundled once is
bundled again without a network.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion

from edgepack.bundle.download import pip_download
from edgepack.bundle.lock import oldest_glibc, platform_tags
from edgepack.bundle.wheelfile import require_wheel
from edgepack.cachefolder import cache_folder
from edgepack.digest import sha256_file
from edgepack.errors import InputError, IntegrityError
from edgepack.events import Event, Reporter, ignore_events
from edgepack.target import Platform, version_tuple
from edgepack.target.lock import Wheel, shipped_wheels
from edgepack.target.solver import NUMPY_FOR


def wheel_cache() -> Path:
    """Where fetched wheels are kept."""
    return cache_folder() / "wheels"


def fetch_wheels(
    wheels: Sequence[Wheel],
    *,
    cache: Path | None = None,
    folder: Path | None = None,
    extra_indexes: Sequence[str] = (),
    report: Reporter = ignore_events,
) -> Mapping[str, Path]:
    """The path of each wheel by its file name.

    With a ``folder`` they are taken from there alone: neither the cache nor an index is asked. ``extra_indexes`` are
    asked beside those that pip is set up for. Raises :class:`InputError` where one cannot be had,
    :class:`IntegrityError` where one is not what the lock says.
    """
    if folder is not None:
        _require_folder(folder)
    cache = cache or wheel_cache()
    found: dict[str, Path] = {}
    missing: list[Wheel] = []
    for wheel in {wheel.filename: wheel for wheel in wheels}.values():
        path = _in_cache(wheel, cache) if folder is None else _in_folder(wheel, folder)
        if path is None:
            missing.append(wheel)
        else:
            found[wheel.filename] = path
    if missing and folder is not None:
        names = ", ".join(wheel.filename for wheel in missing)
        raise InputError(
            "wheel-missing",
            f"{folder} lacks {names}.",
            hint="Fill the folder on a machine with a network: " + _download_command(missing, folder),
            missing=[wheel.filename for wheel in missing],
        )
    for done, group in enumerate(_groups(missing)):
        report(
            Event("bundle", f"fetching {', '.join(w.filename for w in group)}", done, len(_groups(missing)), "fetches")
        )
        found |= _fetch(group, cache, extra_indexes)
    return found


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError("no-wheels", f"There is no folder {folder}.", hint="Name one with --wheels.")


def folder_wheels(folder: Path, platforms: Iterable[Platform]) -> tuple[Wheel, ...]:
    """The runtimes and NumPys in a folder that load on one of the platforms, as their file names say; sorted.

    Their digests are computed here and go into the manifest: what was bundled can be bundled again from the same files.
    Each is opened: raises :class:`InputError` "bad-wheel" for what only bears a wheel's name, and
    :class:`IntegrityError` "damaged-wheel", or "wheel-digest" where the lock knows a file of that name with another
    content.
    """
    _require_folder(folder)
    locked = {wheel.filename: wheel for wheel in shipped_wheels()}
    found: list[Wheel] = []
    platforms = tuple(platforms)
    for path in sorted(folder.glob("*.whl")):
        if not named_wheels(path.name, platforms):
            continue
        if path.name in locked:
            _in_folder(locked[path.name], folder)
        else:
            require_wheel(path)
        found += named_wheels(path.name, platforms, sha256_file(path), path.stat().st_size)
    return tuple(found)


def named_wheels(filename: str, platforms: Iterable[Platform], sha256: str = "", size: int = 0) -> list[Wheel]:
    """What a wheel of that file name is to each Python and architecture of the platforms that it loads on."""
    package, version = _named(filename)
    return [
        Wheel(package, version, filename, sha256, size, python, arch, libc)
        for python, arch in sorted({(platform.python, platform.arch) for platform in platforms})
        if (libc := _lowest_libc(filename, python, arch)) is not None
    ]


def _named(filename: str) -> tuple[str, str]:
    """Distribution and version of a wheel (PEP 427); ("", "") where the name is none of a wheel's."""
    try:
        name, version, _, _ = parse_wheel_filename(filename)
    except (InvalidWheelFilename, InvalidVersion):
        return "", ""
    return str(name), str(version)


def _lowest_libc(filename: str, python: str, arch: str) -> str | None:
    """The C library that a wheel needs on a Python and architecture, as in :class:`Wheel`; None where it loads not."""
    if _named(filename)[0] not in (*NUMPY_FOR, "numpy"):
        return None
    libcs = _loading_tags(python, arch)
    needed = [libcs[tag] for tag in parse_wheel_filename(filename)[3] if tag in libcs]
    return min(needed, key=lambda libc: (libc == "musl", version_tuple(libc)), default=None)


@functools.cache
def _loading_tags(python: str, arch: str) -> Mapping[Tag, str]:
    """Every tag of a wheel that loads, with the C library that it asks for.

    A ``linux_`` tag says nothing of the C library; on armv7l ``linux_armv6l`` loads too, as the wheels for Raspberry
    Pi OS are tagged.
    """
    plain = [f"linux_{one}" for one in ((arch, "armv6l") if arch == "armv7l" else (arch,))]
    libcs = dict.fromkeys(("any", *plain), "") | {f"musllinux_1_{minor}_{arch}": "musl" for minor in range(1, 9)}
    libcs |= {tag: oldest_glibc(tag) for tag in platform_tags(arch) if "manylinux1_" not in tag and "2010" not in tag}
    numbers, interpreter = [int(number) for number in python.split(".")], f"cp{python.replace('.', '')}"
    tags = (*cpython_tags(numbers, [interpreter], libcs), *compatible_tags(numbers, interpreter, libcs))
    return {tag: libcs[tag.platform] for tag in tags}


def _groups(wheels: Iterable[Wheel]) -> list[list[Wheel]]:
    """The wheels that one pip call can fetch: the same Python and architecture."""
    ordered = sorted(wheels, key=lambda wheel: (wheel.python, wheel.arch, wheel.filename))
    return [list(group) for _, group in groupby(ordered, key=lambda wheel: (wheel.python, wheel.arch))]


def _download_command(wheels: Sequence[Wheel], folder: Path) -> str:
    """What fetches all of them into the folder: one command for each Python and architecture."""
    commands = []
    for group in _groups(wheels):
        tags = [tag for tag in platform_tags(group[0].arch) if any(tag in wheel.filename for wheel in group)]
        commands.append(
            f"python -m pip download --no-deps --only-binary=:all: --python-version {group[0].python} "
            + "".join(f"--platform {tag} " for tag in sorted(tags))
            + f"--dest {shlex.quote(str(folder))} "
            + " ".join(f"{wheel.package}=={wheel.version}" for wheel in group)
        )
    return " && ".join(commands)


def _in_folder(wheel: Wheel, folder: Path) -> Path | None:
    path = folder / wheel.filename
    if not path.is_file():
        return None
    if path.stat().st_size != wheel.bytes or sha256_file(path) != wheel.sha256:
        raise IntegrityError(
            "wheel-digest",
            f"{path} is not the wheel that runtimes.lock names (sha256 {wheel.sha256}).",
            hint="Remove it and fetch it again: " + _download_command([wheel], folder),
        )
    return path


def _in_cache(wheel: Wheel, cache: Path) -> Path | None:
    """The cached wheel; a damaged one is fetched again."""
    path = cache / wheel.sha256 / wheel.filename
    if path.is_file() and path.stat().st_size == wheel.bytes and sha256_file(path) == wheel.sha256:
        return path
    return None


def _fetch(group: Sequence[Wheel], cache: Path, extra_indexes: Sequence[str]) -> dict[str, Path]:
    requirements = [f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}" for wheel in group]
    found = {}
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as folder:
            pip_download(
                requirements,
                python=group[0].python,
                arch=group[0].arch,
                folder=Path(folder),
                hashes=True,
                extra_indexes=extra_indexes,
            )
            for wheel in group:
                found[wheel.filename] = _keep(Path(folder) / wheel.filename, wheel, cache)
    except OSError as error:
        raise InputError(
            "wheel-cache",
            f"The wheel cache {cache} cannot be written: {error.strerror}.",
            hint="Point XDG_CACHE_HOME at a folder that is yours and has room.",
        ) from error
    return found


def _keep(path: Path, wheel: Wheel, cache: Path) -> Path:
    if not path.is_file() or sha256_file(path) != wheel.sha256:
        raise IntegrityError(
            "wheel-digest",
            f"What pip fetched for {wheel.filename} is not the wheel that runtimes.lock names.",
            hint="Check the index that pip is set up for.",
        )
    kept = cache / wheel.sha256 / wheel.filename
    kept.parent.mkdir(exist_ok=True)
    staged = kept.parent / f".{path.parent.name}.{os.getpid()}"
    shutil.move(path, staged)
    staged.replace(kept)
    return kept
