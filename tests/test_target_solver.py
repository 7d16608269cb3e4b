"""The runtime solver, a table: each Python, architecture and C library gets a runtime, or a refusal that says why."""

from __future__ import annotations

import dataclasses
import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import InputError
from edgepack.target import Delegate, Platform, load_target
from edgepack.target.lock import Wheel, shipped_wheels
from edgepack.target.refusal import missing_part, runtimes_for, systems_for, ways_out
from edgepack.target.select import select_platforms
from edgepack.target.solver import RuntimeOption, own_runtime, runtime_options, takes_numpy

CPU = load_target("generic-cpu")
LIBCS = ("glibc-2.31", "glibc-2.36", "glibc-2.41", "musl")
PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
ARCHS = ("x86_64", "aarch64", "armv7l")

# What each cell gets (T tflite-runtime, L ai-edge-litert; the NumPy that goes along): Debian 11, 12, 13, then musl.
T14, T13, L23 = "T 2.14.0", "T 2.13.0", "L 2.3.0"
CELLS = {
    ("3.8", "x86_64"): (f"{T14} 1.24.4", f"{T14} 1.24.4", f"{T14} 1.24.4", ""),
    ("3.8", "aarch64"): (f"{T13} 1.24.4", f"{T14} 1.24.4", f"{T14} 1.24.4", ""),
    ("3.8", "armv7l"): (T13, T14, T14, ""),
    ("3.9", "x86_64"): (f"{T14} 1.26.4", f"{T14} 1.26.4", f"{T14} 1.26.4", ""),
    ("3.9", "aarch64"): (f"{T13} 1.26.4", f"{T14} 1.26.4", f"{T14} 1.26.4", ""),
    ("3.9", "armv7l"): (T13, T14, T14, ""),
    ("3.10", "x86_64"): (f"{T14} 1.26.4", f"{T14} 1.26.4", f"{T14} 1.26.4", ""),
    ("3.10", "aarch64"): (f"{T13} 1.26.4", f"{T14} 1.26.4", f"{T14} 1.26.4", ""),
    ("3.10", "armv7l"): (T13, T14, T14, ""),
    ("3.11", "x86_64"): (f"{T14} 1.26.4", f"{T14} 1.26.4", f"{T14} 1.26.4", ""),
    ("3.11", "aarch64"): (f"{L23} 1.26.4", f"{T14} 1.26.4", f"{T14} 1.26.4", ""),
    ("3.11", "armv7l"): ("", T14, T14, ""),
    ("3.12", "x86_64"): (f"{L23} 2.5.5",) * 3 + ("",),
    ("3.12", "aarch64"): (f"{L23} 2.5.5",) * 3 + ("",),
    ("3.12", "armv7l"): ("",) * 4,
    ("3.13", "x86_64"): (f"{L23} 2.5.5",) * 3 + ("",),
    ("3.13", "aarch64"): (f"{L23} 2.5.5",) * 3 + ("",),
    ("3.13", "armv7l"): ("",) * 4,
    ("3.14", "x86_64"): (f"{L23} 2.5.5",) * 3 + ("",),
    ("3.14", "aarch64"): (f"{L23} 2.5.5",) * 3 + ("",),
    ("3.14", "armv7l"): ("",) * 4,
}


def told(option: RuntimeOption) -> str:
    """An option as the table writes it."""
    numpy = [wheel.version for wheel in option.wheels if wheel.package == "numpy"]
    return " ".join([{"tflite-runtime": "T", "ai-edge-litert": "L"}[option.package], option.version, *numpy])


@pytest.mark.parametrize(("python", "arch"), CELLS)
def test_every_cell_has_its_runtime_or_its_refusal(python: str, arch: str) -> None:
    """Each Python and architecture gets what the table says with the C library of Debian 11, 12, 13 and with musl.

    Where that is nothing, one paragraph says which part is missing and what would fit.
    """
    wheels = shipped_wheels()
    for libc, expected in zip(LIBCS, CELLS[python, arch], strict=True):
        platform = Platform(python, arch, libc)
        options = runtime_options(CPU, platform, wheels)
        assert (told(options[0]) if options else "") == expected, platform.label
        if not options:
            missing = missing_part(platform, wheels)
            named = {"musl": "musl", "glibc-2.31": "glibc 2.34"}.get(libc, f"Python {python} on {arch}")
            assert named in missing or f"Python {python} on {arch}" in missing
            assert f"--platform {platform.spec} --wheels FOLDER" in ways_out(platform, wheels)[-1]
            release = "a system with glibc: " if libc == "musl" else "another OS release: "
            assert any(release in way for way in ways_out(platform, wheels))


def test_the_table_has_every_cell() -> None:
    """No Python from 3.8 to 3.14 and no architecture is left out."""
    assert set(CELLS) == set(product(PYTHONS, ARCHS))


@given(
    st.sampled_from(PYTHONS), st.sampled_from(ARCHS), st.sampled_from([*LIBCS, "glibc-2.17", "glibc-2.28", ""]),
    st.sampled_from(["tflite-runtime", "ai-edge-litert"]),
)  # fmt: skip
def test_no_option_ever_breaks_a_rule(python: str, arch: str, libc: str, package: str) -> None:
    """Whatever a platform is, its wheels load there, and NumPy 2 never meets tflite-runtime."""
    platform = Platform(python, arch, libc)
    target = dataclasses.replace(CPU, runtime=dataclasses.replace(CPU.runtime, package=package))
    options = runtime_options(target, platform, shipped_wheels())
    assert bool(options) == bool(runtimes_for(platform, shipped_wheels()))
    for option in options:
        assert all(wheel.fits(platform) for wheel in option.wheels)
        assert [wheel.package for wheel in option.wheels] in ([option.package], [option.package, "numpy"])
        assert all(takes_numpy(option.package, wheel.version) for wheel in option.wheels[1:])
    if package in [option.package for option in options]:
        assert options[0].package == package, "the profile's own goes first"


def test_a_profile_with_a_delegate_keeps_its_pair() -> None:
    """Where the profile names a delegate, the other runtime is taken only where its own has no wheel at all.

    Where it requires the delegate, never.
    """
    paired = dataclasses.replace(CPU, delegate=Delegate("libedgetpu.so.1", True))
    bookworm = Platform("3.11", "aarch64", "glibc-2.36")
    packages = [one.package for one in runtime_options(CPU, bookworm, shipped_wheels())]
    assert packages == ["tflite-runtime", "ai-edge-litert"]
    assert [one.package for one in runtime_options(paired, bookworm, shipped_wheels())] == ["tflite-runtime"]
    trixie = Platform("3.13", "aarch64", "glibc-2.41")
    assert runtime_options(paired, trixie, shipped_wheels()) == ()
    wished = dataclasses.replace(CPU, delegate=Delegate("libgpu.so", False))
    assert [one.package for one in runtime_options(wished, trixie, shipped_wheels())] == ["ai-edge-litert"]
    assert own_runtime(paired, trixie, shipped_wheels()).package == "tflite-runtime"
    assert own_runtime(wished, trixie, shipped_wheels()).package == "ai-edge-litert"


def test_a_folder_fills_what_the_lock_lacks_and_no_more() -> None:
    """A wheel of a folder is taken where none is locked; a locked one goes before it."""
    trixie32 = Platform("3.13", "armv7l", "glibc-2.41")
    own = Wheel("tflite-runtime", "2.17.0", "a.whl", "0" * 64, 1, "3.13", "armv7l", "2.34")
    numpy1 = Wheel("numpy", "1.26.4", "b.whl", "0" * 64, 1, "3.13", "armv7l", "")
    numpy2 = Wheel("numpy", "2.5.5", "c.whl", "0" * 64, 1, "3.13", "armv7l", "")
    (option,) = runtime_options(CPU, trixie32, shipped_wheels(), [own, numpy2, numpy1])
    assert option.wheels == (own, numpy1)
    (option,) = runtime_options(CPU, trixie32, shipped_wheels(), [own, numpy2])
    assert option.wheels == (own,), "the device's own NumPy has to fit"
    newer, bookworm = dataclasses.replace(own, python="3.11", arch="aarch64"), Platform("3.11", "aarch64", "glibc-2.36")
    assert runtime_options(CPU, bookworm, shipped_wheels(), [newer])[0].version == "2.14.0"
    musl = dataclasses.replace(own, glibc="musl")
    assert runtime_options(CPU, Platform("3.13", "armv7l", "musl"), (), [musl])
    assert not runtime_options(CPU, trixie32, (), [musl])


def test_the_systems_that_are_recommended_have_a_numpy_too() -> None:
    """On 32-bit ARM, where no NumPy has a wheel, Debian 11's own is too old and Debian 13 has no runtime: Debian 12."""
    assert [system.name for system in systems_for("armv7l", shipped_wheels())] == ["Debian 12"]
    assert systems_for("aarch64", shipped_wheels())[0].name == "Ubuntu 20.04"
    assert systems_for("riscv64", shipped_wheels()) == []
    riscv = Platform("3.11", "riscv64", "glibc-2.36")
    assert "only for aarch64, armv7l, x86_64" in missing_part(riscv, shipped_wheels())


def test_platforms_are_chosen_by_any_part_or_named_whole() -> None:
    """--platform picks the target's platforms by a part, and takes one that the target does not name as it stands."""
    names = [platform.spec for platform in CPU.platforms]
    assert [one.spec for one in select_platforms(CPU, ["3.11"])] == [one for one in names if one.startswith("3.11")]
    assert [one.spec for one in select_platforms(CPU, ["aarch64, 3.13", "3.13"])] == [
        "3.13,aarch64,glibc-2.41", "3.13,x86_64,glibc-2.41",
    ]  # fmt: skip
    bullseye = Platform("3.9", "aarch64", "glibc-2.31")
    assert select_platforms(CPU, [bullseye.spec, bullseye]) == (bullseye,)
    for text, fault in [
        ("3.9", "no platform '3.9'"),
        ("", "no platform ''"),
        ("3.9,arm64,glibc-2.31", "arch: must be one of aarch64, armv7l, x86_64, not 'arm64'"),
        ("3.9,aarch64,uclibc", "libc"),
        ("3.7,aarch64,glibc-2.31", "3.8 or newer"),
    ]:
        with pytest.raises(InputError, match=re.escape(fault)) as caught:
            select_platforms(CPU, [text])
        assert "3.11,aarch64,glibc-2.36" in caught.value.hint
