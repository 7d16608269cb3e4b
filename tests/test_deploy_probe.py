"""What a device is, which profiles fit, what is missing for the others."""

from __future__ import annotations

import ast
import dataclasses
import sys
from pathlib import Path
from typing import Literal

import device_texts as texts
import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_sshd import RealSshd

import edgepack
from edgepack.cli.render_probe import probed
from edgepack.deploy.ailments import find_ailments
from edgepack.deploy.probe import LOOKED_FOR, find_gaps, rank, read_facts
from edgepack.device import ConnectOptions, DeviceFacts
from edgepack.device.facts import sound_facts
from edgepack.documents import ProbeDocument, to_json, to_json_value
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
        (
            "raspberry-pi-4",
            {"libc": "glibc-2.31"},
            "glibc-2.36 or newer (this device has glibc-2.31)",
            "edgepack bundle MODEL.tflite --target raspberry-pi-4 --platform 3.11,aarch64,glibc-2.31",
        ),
        (
            "raspberry-pi-4",
            {"python": "3.7.3", "libc": "glibc-2.28"},
            "Python 3.11 or 3.13 (this is 3.7)",
            "another OS release: ",
        ),
        (
            "raspberry-pi-4",
            {"libc": "musl-1.2.4"},
            "glibc (this device has musl-1.2.4, for which no runtime has wheels)",
            "a system with glibc: ",
        ),
        (
            "raspberry-pi-4",
            {"arch": "armv7l", "machine": "aarch64"},
            "aarch64 (this device's system is armv7l: 32-bit, on a 64-bit kernel)",
            "",
        ),
        (
            "raspberry-pi-4",
            {"python": "3.12.1"},
            "Python 3.11 or 3.13 (this is 3.12)",
            "edgepack bundle MODEL.tflite --target raspberry-pi-4 --platform 3.12,aarch64,glibc-2.36",
        ),
        (
            "raspberry-pi-4",
            {"python": "3.9.2", "pythons": ("/usr/bin/python3.9", "/usr/local/bin/python3.11")},
            "Python 3.11 or 3.13 (this is 3.9)",
            "--python /usr/local/bin/python3.11",
        ),
        (
            "raspberry-pi-4",
            {"python": "3.12.1", "pythons": ("/opt/my python/bin/python3.13",), "libc": "glibc-2.41"},
            "Python 3.11 or 3.13 (this is 3.12)",
            "--python '/opt/my python/bin/python3.13'",
        ),
        (
            "raspberry-pi-4",  # the profile has that Python with a newer C library only
            {"python": "3.12.1", "pythons": ("/usr/bin/python3.13",)},
            "Python 3.11 or 3.13 (this is 3.12)",
            "--platform 3.12,aarch64,glibc-2.36",
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
    [found] = find_gaps(load_target(target), dataclasses.replace(PI, **changes))
    assert found[0] == missing
    assert (mend in found[1]) if mend else not found[1]


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
    bare = dataclasses.replace(computer, delegates=(library,), python="3.12.1", installed={})
    if any(platform.python == "3.12" for platform in target.platforms):
        [(missing, _)] = find_gaps(target, bare)
        assert missing.startswith("tflite-runtime, which has no wheel for python 3.12")
        assert find_gaps(target, dataclasses.replace(bare, installed={"tflite-runtime": "2.16.2"})) == []


def test_a_bundle_for_another_python_is_advised_with_the_numpy_that_it_needs() -> None:
    """32-bit bullseye needs its own bundle, and first a NumPy: both are told."""
    old = dataclasses.replace(PI, arch="armv7l", python="3.9.2", libc="glibc-2.31", pythons=(), installed={})
    [(missing, mend)] = find_gaps(load_target("raspberry-pi-4-32bit"), old)
    assert missing == "Python 3.11 (this is 3.9)"
    assert "The python3-numpy of Debian 11 is 1.19.5" in mend
    assert "--platform 3.9,armv7l,glibc-2.31" in mend


def test_a_library_that_nobody_looks_for_is_no_gap() -> None:
    """Whether a vendor's own delegate is there, only a check can tell: the probe does not claim that it is missing."""
    target = load_target("coral-usb")
    own = dataclasses.replace(target, delegate=dataclasses.replace(target.delegate, library="libmine.so"))
    assert find_gaps(own, PI) == []


def test_the_host_knows_what_the_agent_looks_for() -> None:
    """The list of delegates is the agent's own."""
    agent = Path(edgepack.__file__).parent / "ondevice" / "agent" / "facts.py"
    values = [
        ast.literal_eval(node.value)
        for node in ast.parse(agent.read_text()).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DELEGATES"
    ]
    assert values == [LOOKED_FOR]


PI_4 = "Raspberry Pi 4 Model B Rev 1.5"


@pytest.mark.parametrize(
    ("model", "first"),
    [
        (PI_4, ["raspberry-pi-4", "generic-cpu"]),
        ("Raspberry Pi Zero 2 W Rev 1.0", ["raspberry-pi-zero-2w", "generic-cpu"]),
        ("Raspberry Pi 5 Model B Rev 1.0", ["raspberry-pi-5", "generic-cpu"]),
        (None, ["generic-cpu"]),
    ],
)
def test_the_best_profile_comes_first(model: str | None, first: list[str]) -> None:
    """The board's own profile, then those for any computer, then those of other boards."""
    fits = [target for target in list_targets() if not find_gaps(target, PI)]
    names = [target.name for target in sorted(fits, key=lambda target: rank(target, model))]
    assert names[: len(first)] == first
    assert rank(load_target("coral-usb"), model) < rank(load_target("raspberry-pi-4"), model)
    assert rank(load_target("x86-64"), model) < rank(load_target("generic-cpu"), model)


def seen(**more: object) -> dict[str, object]:
    """What the agent of a Raspberry Pi 4 sends for a probe."""
    facts = {**dataclasses.asdict(PI), "machine": "aarch64", "cpus": 4, "pythons": ["/usr/bin/python3.9", "/x/python3"]}
    facts |= {"model": PI_4 + "\0", "cpu_features": texts.PI_4.split("Features\t: ")[1].split("\n")[0].split()}
    said = {
        "cpu": texts.PI_4,
        "os_release": texts.BULLSEYE,
        "throttled": "throttled=0x50000",
        "ssh": "OpenSSH_9.2p1, x",
    }
    said |= {"python /usr/bin/python3.9": "3.9.2 64\n", "python /x/python3": "3.11.2 32\n"}
    return {"facts": {**facts, **more}, "texts": said, "time_s": 2000.1, "notes": []}


def test_a_raspberry_pi_is_told_as_a_person_wants_to_know_it() -> None:
    """Board, cores, what they can do, Pythons that load the same wheels, throttling, clock, SSH: from its own texts."""
    facts = read_facts(seen(), "SSH-2.0-OpenSSH_9.2p1 Debian-2", (1000.0, 1000.2))
    wanted = {
        "model": PI_4,
        "cpu": ["Cortex-A72"],
        "debian": 11,
        "python_versions": {"/usr/bin/python3.9": "3.9.2"},
        "throttling": {"now": (), "since_boot": ("undervoltage", "throttled")},
        "clock": {"skew_s": 1000.0, "within_s": 0.1},
        "openssh": {"server": "OpenSSH_9.2p1 Debian-2", "client": "OpenSSH_9.2p1"},
    }
    assert {key: facts[key] for key in wanted} == wanted
    text = probed(ProbeDocument("pi@kiosk", facts, ("raspberry-pi-4",), (), find_ailments(facts)))
    for line in (
        "4 cores, Cortex-A72; no dot product, no fp16",
        "since it started, its supply voltage was too low at times",
        "its clock is 17 min ahead of this machine's; mend: sudo timedatectl set-ntp true",
        "--target raspberry-pi-4",
    ):
        assert line in text


def test_what_an_older_agent_does_not_tell_is_not_known() -> None:
    """A device with an agent of its own that sends facts only is probed all the same."""
    facts = read_facts({"facts": seen()["facts"]}, None, (0.0, 0.0))
    assert facts["throttling"] is None
    assert facts["clock"] is None
    assert facts["pythons"] == ["/usr/bin/python3.9", "/x/python3"]
    assert find_ailments({}) == ()
    assert probed(ProbeDocument("pi", {}, (), ()))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = [*seen()["facts"], "thermal", "power", "undervoltage", "governor", "delegate_paths"]  # type: ignore[misc]


@given(st.dictionaries(st.sampled_from(NAMES), JSON), JSON, JSON, JSON)
def test_no_device_crashes_a_probe(facts: dict[str, object], texts: object, notes: object, time_s: object) -> None:
    """A device that tells nonsense, in any field, is shown as far as it can be: what it told wrong is not known."""
    told = read_facts({"facts": facts, "texts": texts, "notes": notes, "time_s": time_s}, None, (0.0, 1.0))
    for target in list_targets()[:3]:
        find_gaps(target, DeviceFacts.from_json(told))
        rank(target, told["model"])
    assert probed(ProbeDocument("device", told, (), (), find_ailments(told), ()))
    sound, wrong = sound_facts({"cpus": "many", "model": 3, "thermal": [{"temperature_c": "hot"}], "new": {}})
    assert sound == {"cpus": None, "model": None, "thermal": None, "new": {}}
    assert len(wrong) == 3


@pytest.mark.parametrize(
    ("facts", "what", "mend"),
    [
        ({"throttling": {"now": ("throttled",), "since_boot": ("throttled",)}}, "throttles it now", "heat sink"),
        ({"undervoltage": True}, "its supply voltage is too low now", "power supply"),
        (
            {"power": [{"type": "Battery", "status": "Discharging"}, {"type": "Mains", "online": "0"}]},
            "it runs on battery",
            "plug it in",
        ),
        ({"thermal": [{"name": "cpu", "temperature_c": 84.6}, {"temperature_c": None}]}, "85 °C", "fan"),
        ({"memory_available_bytes": 50_000_000}, "only 50 MB of memory are free", "stop other programs"),
        ({"disk_free_bytes": 50_000_000}, "only 50 MB of disk are free", "edgepack gc"),
        ({"clock": {"skew_s": -86400.0 * 20, "within_s": 1.0}}, "its clock is 20 days behind", "set-ntp true"),
    ],
)
def test_a_device_s_own_troubles_are_told_with_what_mends_them(facts: dict[str, object], what: str, mend: str) -> None:
    """Throttling, undervoltage, battery, heat, memory, disk, clock: each has its sentence and its cure."""
    [found] = find_ailments(facts)
    assert what in found["what"]
    assert mend in found["mend"]


def test_a_device_in_order_has_no_troubles() -> None:
    """Plugged in, cool, in step: nothing to say."""
    power = [{"type": "Battery", "status": "Discharging"}, {"type": "Mains", "online": "1"}]
    thermal = [{"name": "cpu", "temperature_c": 47.0}]
    assert find_ailments({"power": power, "thermal": thermal, "clock": {"skew_s": 50.0, "within_s": 1.0}}) == ()


def test_probing_this_machine_tells_what_it_is(tmp_path: Path) -> None:
    """Facts come from the device itself; every built-in profile is in one of the two lists; the document is JSON."""
    found = edgepack.probe(f"local:{tmp_path}/none", options=ConnectOptions(python=sys.executable))
    assert found.facts["python"].startswith(f"3.{sys.version_info.minor}.")
    named = {*found.fits, *(gap["target"] for gap in found.missing)}
    assert {"raspberry-pi-4", "x86-64", "coral-usb", "android-gpu"} <= named
    assert not set(found.fits) & {gap["target"] for gap in found.missing}
    assert to_json(to_json_value(found))
    assert found.facts["cpu"]
    assert found.facts["openssh"]["client"]
    assert abs(found.facts["clock"]["skew_s"]) <= found.facts["clock"]["within_s"]
    assert not (tmp_path / "none").exists()


@pytest.mark.sshd
@pytest.mark.parametrize("transport", ["ssh", "openssh"])
def test_a_probe_of_a_real_sshd_takes_one_round_trip(sshd: RealSshd, transport: Literal["ssh", "openssh"]) -> None:
    """One question, one answer; what is told is the same when an open session is asked, and names its SSH server."""
    options = dataclasses.replace(sshd.options, transport=transport)
    with edgepack.connect(sshd.address, options, look=True) as session:
        found = edgepack.probe(session)
        assert session.round_trips == 1
    with edgepack.connect(sshd.address, options) as session:
        again = edgepack.probe(session)
    alone = edgepack.probe(sshd.address, options=options)
    assert found.fits == again.fits == alone.fits
    for key in ("python", "cpu", "python_versions", "openssh", "libc"):
        assert found.facts[key] == again.facts[key] == alone.facts[key]
    assert found.facts["openssh"]["server"].startswith("OpenSSH_")
