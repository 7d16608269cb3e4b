"""What a device is, which profiles fit, what is missing for the others."""

from __future__ import annotations

import ast
import dataclasses
import sys
from pathlib import Path

import pytest

import edgepack
from edgepack.deploy.probe import LOOKED_FOR, find_gaps
from edgepack.device import ConnectOptions, DeviceFacts
from edgepack.documents import to_json, to_json_value
from edgepack.target import Target, list_targets, load_target

TARGETS = Path(__file__).parents[1] / "targets"
PI = DeviceFacts(python="3.11.2", arch="aarch64", libc="glibc-2.36")


def test_a_raspberry_pi_fits_its_profile() -> None:
    """Raspberry Pi OS bookworm, 64-bit, needs nothing more."""
    assert find_gaps(load_target("raspberry-pi-4"), PI) == []


@pytest.mark.parametrize(
    ("target", "changes", "missing", "mend"),
    [
        ("x86-64", {}, "x86_64 (this device's system is aarch64)", ""),
        ("raspberry-pi-4", {"libc": "glibc-2.31"}, "glibc-2.36 or newer (this device has glibc-2.31)", ""),
        ("raspberry-pi-4", {"python": "3.9.2"}, "Python 3.11 or 3.13 (this is 3.9)", ""),
        (
            "raspberry-pi-4",
            {"python": "3.9.2", "pythons": ("/usr/bin/python3.9", "/usr/local/bin/python3.11")},
            "Python 3.11 or 3.13 (this is 3.9)",
            "--python /usr/local/bin/python3.11",
        ),
        ("stm32mp25-npu", {}, "the library libvx_delegate.so.2 (of the board's vendor)", ""),
        ("imx8m-plus-npu", {}, "the library libvx_delegate.so (of the board's vendor)", ""),
        ("raspberry-pi-4-32bit", {"arch": "armv7l"}, "NumPy >=1.23.2,<2", "sudo apt install python3-numpy"),
        ("android-gpu", {}, "not reached over SSH: edgepack only quantizes and bundles for it", ""),
    ],
)
def test_each_gap_is_told_with_the_command_that_mends_it(
    target: str, changes: dict[str, object], missing: str, mend: str
) -> None:
    """Another architecture, an old C library, another Python, a library or NumPy that lacks: each has its sentence."""
    assert find_gaps(load_target(target), dataclasses.replace(PI, **changes)) == [(missing, mend)]


def test_what_was_missing_and_is_there_now_is_no_gap() -> None:
    """Debian's NumPy and the Edge TPU's library close their gaps."""
    assert find_gaps(load_target("coral-usb"), dataclasses.replace(PI, delegates=("libedgetpu.so.1",))) == []
    armv7 = dataclasses.replace(PI, arch="armv7l", installed={"numpy": "1.24.2"})
    assert find_gaps(load_target("raspberry-pi-4-32bit"), armv7) == []


def test_the_edge_tpu_is_mended_with_the_library_that_its_profile_pairs_with_the_runtime() -> None:
    """Google's own package crashes with the profile's runtime: the build that the profile names is advised instead."""
    [(missing, mend)] = find_gaps(load_target("coral-usb"), PI)
    assert missing == "the library libedgetpu.so.1"
    profile = (TARGETS / "coral-usb.toml").read_text()
    for word in ("16.0TF2.15.1-1 or newer", "https://github.com/feranick/libedgetpu/releases"):
        assert word in mend
        assert word in profile
    assert mend.startswith("sudo apt install ./libedgetpu1-std_*.deb ")


@pytest.mark.parametrize(
    "target", [found for found in list_targets() if found.deployable and found.delegate.required], ids=lambda t: t.name
)
def test_a_board_without_the_accelerator_s_library_fits_no_profile_that_needs_it(target: Target) -> None:
    """What a built-in profile requires is looked for: a plain computer never passes for an accelerator."""
    library = str(target.delegate.library)
    assert library in LOOKED_FOR
    computer = dataclasses.replace(
        PI, python=target.platforms[0].python, arch=target.platforms[0].arch, libc=target.platforms[0].libc
    )
    assert [what for what, _ in find_gaps(target, computer) if what.startswith(f"the library {library}")]
    assert find_gaps(target, dataclasses.replace(computer, delegates=(library,))) == []


def test_a_library_that_nobody_looks_for_is_no_gap() -> None:
    """Whether a vendor's own delegate is there, only a check can tell: the probe does not claim that it is missing."""
    target = load_target("coral-usb")
    own = dataclasses.replace(target, delegate=dataclasses.replace(target.delegate, library="libmine.so"))
    assert find_gaps(own, PI) == []


def test_the_host_knows_what_the_agent_looks_for() -> None:
    """The list of delegates is the agent's own."""
    agent = Path(edgepack.__file__).parent / "ondevice" / "agent.py"
    values = [
        ast.literal_eval(node.value)
        for node in ast.parse(agent.read_text()).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DELEGATES"
    ]
    assert values == [LOOKED_FOR]


def test_probing_this_machine_tells_what_it_is(tmp_path: Path) -> None:
    """Facts come from the device itself; every built-in profile is in one of the two lists; the document is JSON."""
    found = edgepack.probe(f"local:{tmp_path}/none", options=ConnectOptions(python=sys.executable))
    assert found.facts["python"].startswith(f"3.{sys.version_info.minor}.")
    named = {*found.fits, *(gap["target"] for gap in found.missing)}
    assert {"raspberry-pi-4", "x86-64", "coral-usb", "android-gpu"} <= named
    assert not set(found.fits) & {gap["target"] for gap in found.missing}
    assert to_json(to_json_value(found))
