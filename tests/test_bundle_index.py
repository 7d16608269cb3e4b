"""The package index, as pip is set up for it: each cell of the solver's table is what there is to be had."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest
from bundle_models import through_the_index
from packaging.utils import parse_wheel_filename
from test_target_solver import CELLS, CPU, LIBCS, told

from edgepack.bundle.lock import WANTED, ageing, index_wheels, platform_tags
from edgepack.bundle.wheels import named_wheels
from edgepack.errors import InputError
from edgepack.target import Platform, version_tuple
from edgepack.target.lock import read_lock
from edgepack.target.solver import runtime_options

pytestmark = pytest.mark.network

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
NEWEST = {
    package: max((one[1] for one in WANTED if one[0] == package), key=version_tuple)
    for package in ("tflite-runtime", "ai-edge-litert", "numpy")
}


@pytest.fixture(scope="module")
def listed() -> dict[str, set[str]]:
    """What pip lists of each package."""
    with through_the_index():
        return {package: index_wheels(package) for package in NEWEST}


@pytest.fixture(scope="module")
def index(listed: dict[str, set[str]]) -> list[str]:
    """The name of each wheel in the index, up to the newest version that is locked.

    Those tagged ``linux_`` do not tell their C library; nobody but who built them knows where they load.
    """
    names = []
    for package, newest in NEWEST.items():
        for name in (one for one in listed[package] if "-linux_" not in one):
            version = parse_wheel_filename(name)[1]
            if version_tuple(str(version)) <= version_tuple(newest) and not version.is_prerelease:
                names.append(name)
    return sorted(names)


@pytest.mark.parametrize(("python", "arch"), CELLS)
def test_the_index_has_what_the_table_says(index: list[str], python: str, arch: str) -> None:
    """What the solver would take of the whole index is what it takes of the lock, and nothing where that has nothing.

    NumPy beside ai-edge-litert may be any that fits.
    """
    platforms = [Platform(python, arch, libc) for libc in LIBCS]
    there = [wheel for name in index for wheel in named_wheels(name, platforms)]
    for platform, expected in zip(platforms, CELLS[python, arch], strict=True):
        options = runtime_options(CPU, platform, (), there)
        best = told(options[0]) if options else ""
        if best.startswith("L"):
            best, expected = (" ".join(one.split()[:2]) + " NumPy" * one.count(" ") for one in (best, expected))
        assert best == expected, platform.label


def pip_resolves(requirement: str, platform: Platform) -> tuple[str, str] | None:
    """(file name, SHA-256) of the wheel that pip's own resolver takes for a platform; None for none."""
    tags = [f"musllinux_1_{minor}_{platform.arch}" for minor in range(5, 0, -1)]
    if platform.libc != "musl":
        tags = list(platform_tags(platform.arch, version_tuple(platform.libc)[1]))
    command = [*PIP, "install", "--dry-run", "--quiet", "--ignore-installed", "--no-deps", "--only-binary=:all:"]
    command += ["--ignore-requires-python"]  # else pip asks the Python that it runs on; the tags name the device's
    command += ["--implementation=cp", f"--python-version={platform.python}", "--target=nowhere", "--report=-"]
    command += [f"--abi=cp{platform.python.replace('.', '')}", *(f"--platform={tag}" for tag in tags), requirement]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        if "No matching distribution" not in run.stderr:
            raise InputError("wheels-unavailable", f"pip resolved nothing: {run.stderr[-500:]}", hint="")
        return None
    found = json.loads(run.stdout)["install"][0]["download_info"]
    return found["url"].rpartition("/")[2].replace("%2B", "+"), found["archive_info"]["hashes"]["sha256"]


def wanted(platform: Platform) -> Iterator[tuple[str, set[tuple[str, str]]]]:
    """What to ask pip for on a platform, and the locked wheels that may be the answer: the newest of each package."""
    for package, newest in NEWEST.items():
        if package != "numpy":
            fitting = [wheel for wheel in read_lock() if wheel.package == package and wheel.fits(platform)]
            best = max((version_tuple(wheel.version) for wheel in fitting), default=())
            answers = {(wheel.filename, wheel.sha256) for wheel in fitting if version_tuple(wheel.version) == best}
            yield f"{package}<={newest}", answers


def held_to_pip(platform: Platform) -> None:
    """Hold what is locked for a platform against what pip's own resolver takes."""
    for requirement, answers in wanted(platform):
        found = pip_resolves(requirement, platform)
        assert ({found} if found else set()) == answers, (platform.label, requirement)
    for wheel in read_lock():
        if wheel.package == "numpy" and wheel.fits(platform):
            assert pip_resolves(f"numpy=={wheel.version}", platform) == (wheel.filename, wheel.sha256)


@pytest.mark.parametrize("spec", ["3.11,aarch64,glibc-2.36", "3.9,armv7l,glibc-2.31", "3.13,x86_64,glibc-2.41"])
def test_pip_resolves_some_cells_to_what_is_locked(spec: str) -> None:
    """Bookworm, 32-bit bullseye and a PC with trixie: pip's newest wheels are the locked ones, digest and all."""
    with through_the_index():
        held_to_pip(Platform(*spec.split(",")))


def test_what_is_locked_grows_old_with_a_word(listed: dict[str, set[str]]) -> None:
    """A newer version in the index fails nothing: it is a warning that a maintainer sees."""
    for package, (locked, newer) in ageing(listed.__getitem__).items():
        warnings.warn(f"{package} {newer} is in the index, {locked} is locked", UserWarning, stacklevel=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("python", "arch"), CELLS)
def test_pip_resolves_every_cell_to_what_is_locked(python: str, arch: str) -> None:
    """For each platform pip's newest wheel of either runtime is the locked one, digest and all, or there is none."""
    with through_the_index():
        assert pip_resolves("numpy==1.26.4", Platform("3.11", "x86_64", "glibc-2.36")), "the index is there"
    for libc in LIBCS:
        held_to_pip(Platform(python, arch, libc))
