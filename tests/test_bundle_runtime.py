"""Choosing the runtime of a device: what fits is used, what does not is refused before a byte moves."""

from __future__ import annotations

from typing import Any

import pytest
from bundle_tiny import digest, manifest_value
from hypothesis import given
from hypothesis import strategies as st

from edgepack.bundle.manifest import Manifest, parse, runtime_id
from edgepack.bundle.runtime import NUMPY_FOR, choose_runtime, numpy_fits, platform_fits, runtime_fits
from edgepack.documents import canonical_json
from edgepack.errors import MisfitError
from edgepack.target import Platform

TFLITE = "wheels/tflite_runtime-2.14.0-cp311-cp311-manylinux_2_34_aarch64.whl"
NUMPY = "wheels/numpy-1.26.4-cp311-cp311-manylinux_2_17_aarch64.whl"
BOOKWORM = Platform("3.11", "aarch64", "glibc-2.36")


def need(platform: Platform, package: str, wheels: list[str]) -> dict[str, Any]:
    """A platform of a manifest."""
    version = {"tflite-runtime": "2.14.0", "ai-edge-litert": "2.3.0"}[package]
    names = {wheel.removeprefix("wheels/"): digest(wheel.encode()) for wheel in wheels}
    runtime = {"id": runtime_id(names), "package": package, "version": version, "wheels": sorted(wheels)}
    return {**platform.to_json(), "runtime": {**runtime, "numpy": NUMPY_FOR[package]}}


def manifest(*needs: dict[str, Any]) -> Manifest:
    """A manifest for those platforms."""
    wheels = {wheel for entry in needs for wheel in entry["runtime"]["wheels"]}
    files = {"model.tflite": b"m", **{wheel: wheel.encode() for wheel in wheels}}
    return parse(canonical_json(manifest_value(files, platforms=list(needs))))


FULL = manifest(need(BOOKWORM, "tflite-runtime", [TFLITE, NUMPY]))
SLIM = manifest(need(BOOKWORM, "tflite-runtime", []))


def _misfit(bundle: Manifest, device: Platform, installed: dict[str, str]) -> MisfitError:
    with pytest.raises(MisfitError) as caught:
        choose_runtime(bundle, device, installed)
    assert caught.value.exit_code == 5
    assert caught.value.hint
    return caught.value


def test_a_bare_device_gets_everything() -> None:
    """A device with nothing but Python is sent the runtime and NumPy."""
    choice = choose_runtime(FULL, BOOKWORM, {})
    assert choice.wheels == (NUMPY, TFLITE)
    assert choice.use_installed == ()
    assert choice.runtime_id == FULL.platforms[0].runtime.id
    assert (choice.package, choice.version) == ("tflite-runtime", "2.14.0")


def test_what_is_installed_and_fits_is_not_sent() -> None:
    """Debian's python3-numpy is used, so that only the runtime's 2 MB travel; the set that travels has its own id."""
    choice = choose_runtime(FULL, BOOKWORM, {"numpy": "1.24.2"})
    assert choice.wheels == (TFLITE,)
    assert choice.use_installed == ("numpy",)
    assert choice.runtime_id not in (None, FULL.platforms[0].runtime.id)
    everything = choose_runtime(FULL, BOOKWORM, {"numpy": "1.24.2", "tflite-runtime": "2.16.2"})
    assert everything.runtime_id is None
    assert everything.wheels == ()
    assert everything.version == "2.16.2"


def test_numpy_2_never_meets_tflite_runtime() -> None:
    """A device with NumPy 2 is sent NumPy 1.26 along with tflite-runtime, and refused where the bundle has none."""
    assert NUMPY in choose_runtime(FULL, BOOKWORM, {"numpy": "2.2.4"}).wheels
    error = _misfit(SLIM, BOOKWORM, {"numpy": "2.2.4", "tflite-runtime": "2.14.0"})
    assert error.code == "numpy-mismatch"
    assert "<2" in error.message


def test_an_older_runtime_is_replaced_or_refused() -> None:
    """A runtime that is older than the model needs is never used."""
    assert TFLITE in choose_runtime(FULL, BOOKWORM, {"tflite-runtime": "2.5.0.post1"}).wheels
    error = _misfit(SLIM, BOOKWORM, {"tflite-runtime": "2.13.0", "numpy": "1.24.2"})
    assert error.code == "no-runtime"
    assert "pip install 'tflite-runtime==2.14.0'" in error.hint


def test_a_32_bit_device_brings_numpy_from_debian() -> None:
    """On armv7l, where NumPy has no wheel, the error is the command that installs Debian's."""
    device = Platform("3.11", "armv7l", "glibc-2.36")
    bundle = manifest(need(device, "tflite-runtime", [TFLITE]))
    assert "sudo apt install python3-numpy" in _misfit(bundle, device, {}).hint
    assert choose_runtime(bundle, device, {"numpy": "1.24.2"}).wheels == (TFLITE,)


@pytest.mark.parametrize(
    ("device", "hint"),
    [
        (Platform("3.9", "aarch64", "glibc-2.31"), 'python = "3.9"'),
        (Platform("3.11", "x86_64", "glibc-2.36"), 'arch = "x86_64"'),
        (Platform("3.11", "aarch64", "glibc-2.31"), "glibc-2.36 or newer"),
        (Platform("3.11", "aarch64", "musl-1.2"), "glibc-2.36 or newer"),
    ],
)
def test_a_device_of_another_platform_is_refused_with_what_would_fit(device: Platform, hint: str) -> None:
    """The refusal names what the device is, what the bundle carries, and what would fit."""
    error = _misfit(FULL, device, {})
    assert error.code == "no-platform"
    assert device.label in error.message
    assert BOOKWORM.label in error.message
    assert hint in error.hint


def test_the_most_recent_fitting_build_is_taken() -> None:
    """Of two builds that load, the one for the newer C library is chosen."""
    older = Platform("3.11", "aarch64", "glibc-2.17")
    bundle = manifest(need(older, "tflite-runtime", [TFLITE]), need(BOOKWORM, "tflite-runtime", [TFLITE, NUMPY]))
    assert choose_runtime(bundle, Platform("3.11", "aarch64", "glibc-2.41"), {}).platform == BOOKWORM
    assert choose_runtime(bundle, Platform("3.11", "aarch64", "glibc-2.28"), {"numpy": "1.26.0"}).platform == older


@given(
    st.sampled_from(["3.9", "3.11", "3.12"]),
    st.sampled_from(["aarch64", "armv7l", "x86_64"]),
    st.sampled_from(["glibc-2.31", "glibc-2.36", "glibc-2.41", ""]),
    st.dictionaries(
        st.sampled_from(["numpy", "tflite-runtime", "ai-edge-litert"]),
        st.sampled_from(["1.24.2", "1.26.4", "2.2.4", "2.14.0", "2.16.2+nxp", "2.3.0", "git", ""]),
    ),
)
def test_a_choice_is_always_complete_and_consistent(
    python: str, arch: str, libc: str, installed: dict[str, str]
) -> None:
    """Whatever a device has, the choice covers the runtime and NumPy exactly once each, or the device is refused."""
    device = Platform(python, arch, libc)
    try:
        choice = choose_runtime(FULL, device, installed)
    except MisfitError:
        return
    assert len(choice.wheels) + len(choice.use_installed) == 2
    assert platform_fits(choice.platform, device)
    assert (choice.runtime_id is None) == (not choice.wheels)
    if "numpy" in choice.use_installed:
        assert numpy_fits(NUMPY_FOR[choice.package], installed["numpy"])
    if choice.package in choice.use_installed:
        assert runtime_fits(choice.package, "2.14.0", installed[choice.package])
