"""Choosing the runtime of a device: what fits is used, what does not is refused before a byte moves."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from bundle_models import write_wheel
from bundle_tiny import digest, manifest_value
from hypothesis import given
from hypothesis import strategies as st

import edgepack
from edgepack.bundle.manifest import Manifest, parse, runtime_id, serialize
from edgepack.bundle.runtime import NUMPY_FOR, choose_runtime, numpy_fits, platform_fits, runtime_fits
from edgepack.device import ConnectOptions
from edgepack.documents import canonical_json
from edgepack.errors import MisfitError
from edgepack.target import Platform, load_target
from edgepack.target.lock import shipped_wheels
from edgepack.target.refusal import Surroundings, numpy_mend
from edgepack.target.solver import runtime_options

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


def _misfit(
    bundle: Manifest, device: Platform, installed: dict[str, str], around: Surroundings | None = None
) -> MisfitError:
    with pytest.raises(MisfitError) as caught:
        choose_runtime(bundle, device, installed, around)
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
    assert "without --without-runtime" in error.hint


def test_a_32_bit_device_brings_numpy_from_debian() -> None:
    """On armv7l, where NumPy has no wheel, the error is the command that installs Debian's."""
    device = Platform("3.11", "armv7l", "glibc-2.36")
    bundle = manifest(need(device, "tflite-runtime", [TFLITE]))
    assert "sudo apt install python3-numpy" in _misfit(bundle, device, {}).hint
    assert choose_runtime(bundle, device, {"numpy": "1.24.2"}).wheels == (TFLITE,)


@pytest.mark.parametrize(
    ("device", "hint"),
    [
        (Platform("3.9", "aarch64", "glibc-2.31"), "Bundle for it: --platform 3.9,aarch64,glibc-2.31."),
        (Platform("3.12", "x86_64", "glibc-2.39"), "or with a profile that has it: x86-64."),
        (
            Platform("3.11", "armv7l", "glibc-2.36"),
            "profile that has it: raspberry-pi-4-32bit. But first its",
        ),
        (Platform("3.11", "aarch64", "glibc-2.31"), "Bundle for it: --platform 3.11,aarch64,glibc-2.31."),
        (Platform("3.11", "aarch64", "musl"), "built for musl, all are for glibc. What would fit: a system with"),
        (Platform("3.13", "armv7l", "glibc-2.41"), "no TFLite runtime has a wheel for Python 3.13 on armv7l"),
    ],
)
def test_a_device_of_another_platform_is_refused_with_what_would_fit(device: Platform, hint: str) -> None:
    """The refusal names what the device is, what the bundle carries, and what would fit."""
    error = _misfit(FULL, device, {})
    assert error.code == "no-platform"
    assert device.label in error.message
    assert BOOKWORM.label in error.message
    assert hint in error.hint


def test_what_else_computes_the_model_is_used_where_it_is_installed() -> None:
    """Where the model was held against both runtimes, a device that has the other one is sent none."""
    wider = dataclasses.replace(
        SLIM.platforms[0],
        runtime=dataclasses.replace(
            SLIM.platforms[0].runtime, enough={"tflite-runtime": "2.13", "ai-edge-litert": "2.1"}
        ),
    )
    bundle = dataclasses.replace(SLIM, platforms=(wider,))
    assert parse(serialize(bundle)) == bundle
    other = choose_runtime(bundle, BOOKWORM, {"ai-edge-litert": "2.3.0", "numpy": "2.2.4"})
    assert (other.package, other.version, other.wheels) == ("ai-edge-litert", "2.3.0", ())
    older = choose_runtime(bundle, BOOKWORM, {"tflite-runtime": "2.13.0", "numpy": "1.24.2"})
    assert (older.package, older.version) == ("tflite-runtime", "2.13.0")
    both = {"tflite-runtime": "2.14.0", "ai-edge-litert": "2.3.0", "numpy": "2.2.4"}
    assert choose_runtime(bundle, BOOKWORM, both).package == "ai-edge-litert", "NumPy 2 leaves that one only"
    with pytest.raises(MisfitError, match=r"needs tflite-runtime 2\.13 or newer or ai-edge-litert 2\.1 or newer"):
        choose_runtime(bundle, BOOKWORM, {"numpy": "1.24.2"})


@pytest.mark.parametrize(
    ("device", "around", "parts"),
    [
        (
            Platform("3.9", "aarch64", "glibc-2.36"),
            Surroundings("/usr/bin/python3", "aarch64", ("/usr/bin/python3.9", "/usr/bin/python3.11")),
            ["another Python that fits: --python /usr/bin/python3.11"],
        ),
        (
            Platform("3.11", "armv7l", "glibc-2.36"),
            Surroundings("/usr/bin/python3", "aarch64"),
            ["a 32-bit system on a 64-bit kernel, aarch64", "--platform 3.11,armv7l,glibc-2.36"],
        ),
        (
            Platform("3.13", "armv7l", "glibc-2.41"),
            Surroundings("/usr/bin/python3", "aarch64"),
            ["the 64-bit edition of its system", "Debian 12 (Python 3.11)", "--wheels FOLDER"],
        ),
        (
            Platform("3.13", "armv7l", "glibc-2.41"),
            Surroundings("/usr/bin/python3", "armv7l", ("/opt/bin/python3.10",)),
            ["another Python of the device, --python /opt/bin/python3.10", "Debian 12"],
        ),
    ],
)
def test_what_the_probe_found_makes_the_refusal_more_useful(
    device: Platform, around: Surroundings, parts: list[str]
) -> None:
    """Another Python on the device, and a 64-bit kernel under a 32-bit system, are told with what to do about it."""
    error = _misfit(FULL, device, {}, around)
    assert "\n" not in str(error)
    for part in parts:
        assert part in str(error)


@pytest.mark.parametrize(
    ("device", "installed", "executable", "hint"),
    [
        (Platform("3.11", "armv7l", "glibc-2.36"), None, "/usr/bin/python3", "device: sudo apt install python3-numpy"),
        (
            Platform("3.11", "armv7l", "glibc-2.36"), "2.2.4", "/usr/bin/python3",
            "~/edgepack-python/bin/python -m pip install 'numpy>=1.23.2,<2'`",
        ),
        (Platform("3.11", "armv7l", "glibc-2.36"), None, "/opt/bin/python3", "/opt/bin/python3 -m pip install 'numpy"),
        (Platform("3.9", "armv7l", "glibc-2.31"), "1.19.5", "", "python3-numpy of Debian 11 is 1.19.5, which does not"),
        (Platform("3.8", "armv7l", "glibc-2.31"), None, "", "python3-numpy of Ubuntu 20.04 is 1.17.4, which does not"),
        (BOOKWORM, "2.2.4", "", "Bundle again without --without-runtime"),
    ],
)  # fmt: skip
def test_a_numpy_that_lacks_is_told_with_the_command_that_brings_it(
    device: Platform, installed: str | None, executable: str, hint: str
) -> None:
    """Debian's package where it fits, else a Python of the release's own, or that Python's pip."""
    bundle = manifest(need(device, "tflite-runtime", [] if device == BOOKWORM else [TFLITE]))
    have = {"numpy": installed} if installed else {}
    error = _misfit(bundle, device, {**have, "tflite-runtime": "2.14.0"}, Surroundings(executable))
    assert error.code == "numpy-mismatch"
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


# What a person has, what they typed, and what comes of it: the rows of the issue that people open.
NEW_NUMPY, OLD_NUMPY = {"numpy": "2.2.4"}, {"numpy": "1.24.2"}
PI_32_ON_64 = Surroundings("/usr/bin/python3", "aarch64", ("/usr/bin/python3.11",))
SLIM_32 = manifest(need(Platform("3.10", "x86_64", "glibc-2.35"), "tflite-runtime", []))
DEVICES = {
    "bookworm, NumPy from Debian": (("3.11", "aarch64", "glibc-2.36"), OLD_NUMPY, "tflite-runtime 2.14.0 sends 1"),
    "bookworm, no NumPy": (("3.11", "aarch64", "glibc-2.36"), {}, "tflite-runtime 2.14.0 sends 2"),
    "bookworm, NumPy 2 installed": (("3.11", "aarch64", "glibc-2.36"), NEW_NUMPY, "tflite-runtime 2.14.0 sends 2"),
    "bookworm, runtime and NumPy installed": (
        ("3.11", "aarch64", "glibc-2.36"), {"tflite-runtime": "2.14.0", **OLD_NUMPY}, "tflite-runtime 2.14.0 sends 0",
    ),
    "bookworm, the other runtime installed": (
        ("3.11", "aarch64", "glibc-2.36"), {"ai-edge-litert": "2.3.0", **NEW_NUMPY}, "ai-edge-litert 2.3.0 sends 0",
    ),
    "bullseye, NumPy 1.19": (("3.9", "aarch64", "glibc-2.31"), {"numpy": "1.19.5"}, "tflite-runtime 2.13.0 sends 2"),
    "Python 3.11 on bullseye": (("3.11", "aarch64", "glibc-2.31"), {}, "ai-edge-litert 2.3.0 sends 2"),
    "Ubuntu 20.04": (("3.8", "aarch64", "glibc-2.31"), {"numpy": "1.17.4"}, "tflite-runtime 2.13.0 sends 2"),
    "32-bit Ubuntu 20.04": (("3.8", "armv7l", "glibc-2.31"), {"numpy": "1.17.4"}, "take Debian 12"),
    "Ubuntu 24.04": (("3.12", "aarch64", "glibc-2.39"), {"numpy": "1.26.4"}, "ai-edge-litert 2.3.0 sends 1"),
    "trixie": (("3.13", "aarch64", "glibc-2.41"), NEW_NUMPY, "ai-edge-litert 2.3.0 sends 1"),
    "Python 3.14": (("3.14", "x86_64", "glibc-2.41"), {}, "ai-edge-litert 2.3.0 sends 2"),
    "Yocto with its vendor's runtime": (
        ("3.12", "aarch64", "glibc-2.39"), {"tflite-runtime": "2.16.2", "numpy": "1.26.4"},
        "tflite-runtime 2.16.2 sends 0",
    ),
    "32-bit bookworm": (("3.11", "armv7l", "glibc-2.36"), OLD_NUMPY, "tflite-runtime 2.14.0 sends 1"),
    "32-bit bookworm, no NumPy": (("3.11", "armv7l", "glibc-2.36"), {}, "sudo apt install python3-numpy"),
    "32-bit bullseye": (("3.9", "armv7l", "glibc-2.31"), {"numpy": "1.19.5"}, "take Debian 12"),
    "32-bit trixie": (("3.13", "armv7l", "glibc-2.41"), NEW_NUMPY, "the 64-bit edition of its system"),
    "Alpine": (("3.12", "aarch64", "musl"), {}, "no wheel of a TFLite runtime is built for musl"),
    "a 32-bit PC": (("3.11", "i686", "glibc-2.36"), {}, "no TFLite runtime has a wheel for i686"),
    "a Raspberry Pi Zero": (("3.11", "armv6l", "glibc-2.36"), {}, "armv7l, x86_64. What would fit: a board of one"),
    "Python 3.15": (("3.15", "aarch64", "glibc-2.41"), {}, "another Python of the device, --python /usr/bin/"),
}  # fmt: skip


@pytest.mark.parametrize("row", DEVICES)
def test_every_device_gets_a_runtime_or_a_precise_refusal(row: str) -> None:
    """From a bare Python to the wrong NumPy: what runs, and how many wheels travel; or which part is missing."""
    spec, installed, outcome = DEVICES[row]
    device = Platform(*spec)
    options = runtime_options(load_target("generic-cpu"), device, shipped_wheels())
    if not options:
        around = PI_32_ON_64 if device.python == "3.15" or device.arch == "armv7l" else None
        said = str(_misfit(SLIM_32, device, installed, around))
    else:
        wheels = [f"wheels/{wheel.filename}" for wheel in options[0].wheels]
        entry = need(device, options[0].package, wheels)
        entry["runtime"] |= {
            "version": options[0].version, "enough": {"tflite-runtime": "2.13", "ai-edge-litert": "2.1"},
        }  # fmt: skip
        try:
            choice = choose_runtime(manifest(entry), device, installed)
            said = f"{choice.package} {choice.version} sends {len(choice.wheels)}"
        except MisfitError as error:
            said = str(error)
    assert outcome in said
    assert "\n" not in said


def no_runtime_hint() -> str:
    """What a device without any runtime is told about a bundle that brings none."""
    return _misfit(SLIM, BOOKWORM, {}, Surroundings("/usr/bin/python3")).hint


def test_no_hint_installs_into_the_system_s_python() -> None:
    """Debian 12 refuses `pip install` there (PEP 668): every pip that a hint names is one of another Python."""
    hints = [no_runtime_hint()]
    for device, package in product(PLATFORMS, NUMPY_FOR):
        for have, executable in product((None, "1.19.5", "2.2.4"), ("", "/usr/bin/python3", "/opt/own/bin/python3")):
            hints.append(numpy_mend(package, device, have, Surroundings(executable)))
    pips = [found for hint in hints for found in re.findall(r"(\S+) -m pip", hint)]
    assert pips
    assert {pip for pip in pips if not pip.startswith(("~/edgepack-python/bin/", "/opt/own/bin/"))} == set()
    assert not [hint for hint in hints if "pip install" in re.sub(r"\S+ -m pip install", "", hint)]
    package = Path(edgepack.__file__).parent
    for folder in ("bundle", "target", "deploy", "device", "check", "ondevice"):
        for file in (package / folder).rglob("*.py"):
            assert not re.search(r"sudo (python3? -m )?pip|pip3? uninstall", file.read_text()), file.name


PLATFORMS = [
    Platform(python, arch, libc)
    for python, arch, libc in product(
        ("3.8", "3.9", "3.11", "3.13"), ("aarch64", "armv7l"), ("glibc-2.31", "glibc-2.36", "glibc-2.41")
    )
]


def test_the_mend_makes_a_python_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the hint, run as they stand, and its --python: a device finds runtime and NumPy there."""
    for name in ("tflite_runtime-2.14.0-py3-none-any.whl", "numpy-1.26.4-py3-none-any.whl"):
        write_wheel(tmp_path / "shelf", name)
    for variable, value in {
        "HOME": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": str(tmp_path / "shelf"), "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(variable, value)
    hint = no_runtime_hint()
    (command,) = re.findall(r"`([^`]*pip install[^`]*)`", hint)
    subprocess.run(["/bin/sh", "-ec", command], check=True, capture_output=True, timeout=120)
    (option,) = re.findall(r"--python ('[^']+')", hint)
    found = edgepack.probe("local:", options=ConnectOptions(python=shlex.split(option)[0])).facts["installed"]
    assert (found["tflite-runtime"], found["numpy"]) == ("2.14.0", "1.26.4")


# What a person has, with a bundle for the Coral accelerator, whose library is paired with tflite-runtime.
@pytest.mark.parametrize(
    ("device", "parts"),
    [
        (
            Platform("3.13", "aarch64", "glibc-2.41"),
            ["libedgetpu.so.1, is paired with tflite-runtime", "python 3.11, aarch64, glibc-2.36", "--without-runtime"],
        ),
        (Platform("3.9", "aarch64", "glibc-2.31"), ["Bundle for it: --platform 3.9,aarch64,glibc-2.31."]),
    ],
)
def test_a_required_accelerator_keeps_its_runtime(device: Platform, parts: list[str]) -> None:
    """No refusal advises the other runtime or a profile that drops the accelerator."""
    entry = need(BOOKWORM, "tflite-runtime", [TFLITE, NUMPY])
    files = {"model.tflite": b"m", TFLITE: TFLITE.encode(), NUMPY: NUMPY.encode()}
    value = manifest_value(files, platforms=[entry]) | {"target": load_target("coral-usb").to_json()}
    error = _misfit(parse(canonical_json(value)), device, {})
    for part in parts:
        assert part in error.hint
    assert "generic-cpu" not in error.hint
    assert "raspberry-pi" not in error.hint
    assert "ai-edge-litert" not in error.hint
