"""What a probe reads out of the texts that devices hold."""

from __future__ import annotations

import device_texts as texts
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.deploy import devicetexts
from edgepack.deploy.devicetexts import Throttling


@pytest.mark.parametrize(
    ("cpuinfo", "cores", "board"),
    [
        (texts.PI_5, ("Cortex-A76",), "Raspberry Pi 5 Model B Rev 1.0"),
        (texts.PI_4, ("Cortex-A72",), "Raspberry Pi 4 Model B Rev 1.5"),
        (texts.PI_4_32BIT, ("Cortex-A72",), "Raspberry Pi 4 Model B Rev 1.2"),
        (texts.PI_3, ("Cortex-A53",), "Raspberry Pi 3 Model B Rev 1.2"),
        (texts.X86, ("AMD Ryzen 9 7900 12-Core Processor",), None),
        ("CPU implementer\t: 0x51\nCPU part\t: 0xd08\n", ("implementer 0x51, part 0xd08",), None),
    ],
)
def test_a_cpu_and_its_board_are_named_as_people_name_them(cpuinfo: str, cores: tuple[str, ...], board: object) -> None:
    """Arm's kernels tell numbers; edgepack tells the core's name, once, however many of them there are."""
    assert devicetexts.cpu_names(cpuinfo) == cores
    assert devicetexts.board_name(None, cpuinfo) == board


def test_the_device_tree_knows_the_board_best() -> None:
    """/proc/device-tree/model ends in a zero byte; on kernels of others, /proc/cpuinfo names no board."""
    assert devicetexts.board_name("Raspberry Pi Zero 2 W Rev 1.0\0", texts.PI_4) == "Raspberry Pi Zero 2 W Rev 1.0"


@pytest.mark.parametrize(
    ("cpuinfo", "dot_product", "fp16"),
    [(texts.PI_5, True, True), (texts.PI_4, False, False), (texts.PI_4_32BIT, False, False), (texts.X86, True, False)],
)
def test_what_makes_a_model_fast_is_told(cpuinfo: str, dot_product: bool, fp16: bool) -> None:
    """A Pi 5 has dot product and half precision, a Pi 4 neither; x86 with VNNI counts as dot product."""
    line = next(line for line in cpuinfo.splitlines() if line.startswith(("Features", "flags")))
    found = devicetexts.instructions(line.partition(":")[2].split())
    assert (found["dot_product"], found["fp16"]) == (dot_product, fp16)
    assert devicetexts.instructions([]) == {}


@pytest.mark.parametrize(
    ("text", "now", "since_boot"),
    [
        ("throttled=0x0\n", (), ()),
        ("throttled=0x50005\n", ("undervoltage", "throttled"), ("undervoltage", "throttled")),
        ("throttled=0x80008", ("soft_temperature_limit",), ("soft_temperature_limit",)),
        ("20000", (), ("frequency_capped",)),
    ],
)
def test_throttling_is_told_for_now_and_since_the_start(
    text: str, now: tuple[str, ...], since_boot: tuple[str, ...]
) -> None:
    """The bits of vcgencmd get_throttled, in words; the firmware's file leaves the name and the 0x out."""
    assert devicetexts.throttling(text) == Throttling(now, since_boot)


@pytest.mark.parametrize("text", ["", "VCHI initialization failed", "throttled=", 'error=2 error_msg="Invalid"'])
def test_a_vcgencmd_that_fails_tells_nothing(text: str) -> None:
    """Without the rights for the firmware's device, vcgencmd prints an error: that is not "never throttled"."""
    assert devicetexts.throttling(text) is None


@pytest.mark.parametrize(
    ("text", "libc"),
    [
        (texts.LDD_BULLSEYE, "glibc-2.31"),
        (texts.LDD_BOOKWORM, "glibc-2.36"),
        (texts.LDD_TRIXIE, "glibc-2.41"),
        (texts.LDD_FEDORA, "glibc-2.38"),
        (texts.LDD_ALPINE, "musl-1.2.4"),
        ("sh: ldd: not found", None),
    ],
)
def test_the_c_library_and_its_version_are_told(text: str, libc: str | None) -> None:
    """Debian's ldd, GNU's own, and musl's, which complains and tells it all the same."""
    assert devicetexts.libc_of_ldd(text) == libc


@pytest.mark.parametrize(
    ("text", "number"),
    [(texts.BULLSEYE, 11), (texts.BOOKWORM_32BIT, 12), (texts.TRIXIE, 13), ('ID=fedora\nVERSION_ID="39"\n', None)],
)
def test_debian_s_release_is_known_by_its_number(text: str, number: int | None) -> None:
    """Raspberry Pi OS is Debian, also where its 32-bit edition calls itself Raspbian."""
    assert devicetexts.debian_release(devicetexts.os_release(text)) == number


@pytest.mark.parametrize(
    ("text", "software"),
    [
        ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n", "OpenSSH_9.2p1 Debian-2+deb12u3"),
        ("OpenSSH_9.2p1 Debian-2+deb12u3, OpenSSL 3.0.11 19 Sep 2023\n", "OpenSSH_9.2p1 Debian-2+deb12u3"),
        ("unknown option -- V\nOpenSSH_8.4p1 Debian-5, OpenSSL 1.1.1n\nusage: sshd", "OpenSSH_8.4p1 Debian-5"),
        ("SSH-2.0-dropbear_2022.83", "dropbear_2022.83"),
        ("Dropbear v2022.83", "Dropbear v2022.83"),
        (None, None),
        ("command not found", None),
    ],
)  # fmt: skip
def test_the_ssh_software_is_told_from_its_banner_or_its_programs(text: str | None, software: str | None) -> None:
    """OpenSSH and Dropbear, whoever of them speaks."""
    assert devicetexts.ssh_version(text) == software


def test_the_clock_s_skew_comes_with_its_doubt() -> None:
    """The device read its clock somewhere between question and answer: half of that time is not known."""
    assert devicetexts.clock_skew(1000.0, 1000.4, 1060.2) == {"skew_s": 60.0, "within_s": 0.2}
    for nothing in (None, "now", True, float("nan"), float("inf")):
        assert devicetexts.clock_skew(1000.0, 1000.4, nothing) is None


PIECES = [*"3.:=()9\n", "0x", "throttled=", "CPU part", "Model", "ID", "ldd", "musl libc", "Version ", "SSH-2.0-"]


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)))
def test_no_text_of_a_device_crashes_a_probe(text: str) -> None:
    """Whatever a device's files and programs say, reading it ends in a value or in nothing."""
    assert all(devicetexts.cpu_names(text)) or not devicetexts.cpu_names(text)
    assert devicetexts.board_name(text, text) is None or len(str(devicetexts.board_name(text, text))) <= 200
    for read in (devicetexts.throttling, devicetexts.libc_of_ldd, devicetexts.ssh_version, devicetexts.python_version):
        assert read(text) is None or read(text)
    release = devicetexts.os_release(text)
    number = devicetexts.debian_release(release)
    assert number is None or 0 <= number < 1000
    devicetexts.instructions(text.split())


@given(st.integers(0, 2**32 - 1))
def test_every_throttle_word_is_read(bits: int) -> None:
    """Bits that no firmware sets yet are not taken for others."""
    found = devicetexts.throttling(f"throttled={bits:#x}")
    assert found is not None
    assert len(found.now) == (bits & 0xF).bit_count()
    assert len(found.since_boot) == (bits >> 16 & 0xF).bit_count()
