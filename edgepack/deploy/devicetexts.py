"""What files and programs of a device say, read into values: pure functions that no text can crash.

The agent only fetches these texts (``ondevice/agent/look.py``). Where a text does not tell, the answer is None
or empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# "CPU part" of cores made by Arm ("CPU implementer" 0x41): arch/arm64/include/asm/cputype.h of Linux, and lscpu-arm.c
# of util-linux for the 32-bit ones.
_ARM = "0x41"
_ARM_CORES = {
    "0xb76": "ARM1176", "0xc07": "Cortex-A7", "0xc08": "Cortex-A8", "0xc09": "Cortex-A9", "0xc0e": "Cortex-A17",
    "0xc0f": "Cortex-A15", "0xd03": "Cortex-A53", "0xd04": "Cortex-A35", "0xd05": "Cortex-A55", "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72", "0xd09": "Cortex-A73", "0xd0a": "Cortex-A75", "0xd0b": "Cortex-A76", "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77", "0xd41": "Cortex-A78", "0xd42": "Cortex-A78AE", "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710", "0xd49": "Neoverse-N2", "0xd4d": "Cortex-A715", "0xd80": "Cortex-A520",
    "0xd81": "Cortex-A720",
}  # fmt: skip

# The kernel's words for what makes quantized and half-precision models fast. Arm:
# https://docs.kernel.org/arch/arm64/elf_hwcaps.html (asimddp: SDOT and UDOT; asimdhp: half precision in vectors);
# x86: arch/x86/include/asm/cpufeatures.h (VNNI multiplies and adds 8-bit integers).
_INSTRUCTIONS = {
    "dot_product": ("asimddp", "avx512_vnni", "avx_vnni"),
    "fp16": ("asimdhp", "avx512_fp16"),
    "i8mm": ("i8mm",),
    "bf16": ("bf16", "avx512_bf16"),
    "simd": ("asimd", "neon", "avx2"),
}

# https://www.raspberrypi.com/documentation/computers/os.html#get_throttled; since boot: the same 16 bits higher.
_THROTTLE_BITS = ("undervoltage", "frequency_capped", "throttled", "soft_temperature_limit")

_MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Throttling:
    """What a Raspberry Pi's firmware says: which of _THROTTLE_BITS holds now, and which has held since it started."""

    now: tuple[str, ...]
    since_boot: tuple[str, ...]


def cpu_names(text: str) -> tuple[str, ...]:
    """The kinds of cores in a ``/proc/cpuinfo`` (or the lines of it that differ), as in ("Cortex-A72",).

    A core of Arm's that is not in the table is told by its numbers; x86 tells its name itself.
    """
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and value.strip():
            values.setdefault(key.strip(), []).append(value.strip()[:_MOST_CHARACTERS])
    implementer = values.get("CPU implementer", [""])[0].lower()
    parts = dict.fromkeys(part.lower() for part in values.get("CPU part", []))
    if parts:
        known = _ARM_CORES if implementer == _ARM else {}
        return tuple(known.get(part, f"implementer {implementer or 'unknown'}, part {part}") for part in parts)
    return tuple(dict.fromkeys(values.get("model name", [])))


def board_name(device_tree_model: str | None, cpuinfo: str) -> str | None:
    """What the board calls itself: in the device tree, else in ``/proc/cpuinfo``'s last lines."""
    found = re.search(r"^Model[ \t]*:[ \t]*(\S.*)$", cpuinfo, re.MULTILINE)
    name = (device_tree_model or "").replace("\0", "").strip() or (found.group(1).strip() if found else "")
    return name[:_MOST_CHARACTERS] or None


def instructions(features: Iterable[str]) -> dict[str, bool]:
    """Which of the instructions that matter for models a CPU has, by the kernel's words; {} where it told none."""
    words = set(features)
    return {name: not words.isdisjoint(wanted) for name, wanted in _INSTRUCTIONS.items()} if words else {}


def throttling(text: str) -> Throttling | None:
    """What ``vcgencmd get_throttled`` or the firmware's file says ("throttled=0x50005", "50005"); None for else."""
    found = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})", text.strip())
    if found is None:
        return None
    bits = int(found.group(1), 16)
    now = tuple(name for place, name in enumerate(_THROTTLE_BITS) if bits >> place & 1)
    since_boot = tuple(name for place, name in enumerate(_THROTTLE_BITS) if bits >> (16 + place) & 1)
    return Throttling(now, since_boot)


def libc_of_ldd(text: str) -> str | None:
    """The C library of ``ldd --version``: "glibc-2.36", "musl-1.2.4"."""
    musl = re.match(r"musl libc.*?^Version (\d{1,4}(?:\.\d{1,4}){1,3})", text.strip(), re.DOTALL | re.MULTILINE)
    if musl:
        return f"musl-{musl.group(1)}"
    # Debian and Ubuntu put their package's version in brackets; GNU's own comes last on the first line.
    gnu = re.match(r"ldd \(.*\) (\d{1,4}\.\d{1,4})\s*$", text.strip().split("\n", 1)[0])
    return f"glibc-{gnu.group(1)}" if gnu else None


def os_release(text: str) -> dict[str, str]:
    """The assignments of an os-release file (os-release(5)), without their quotes."""
    found = re.findall(r"^([A-Z][A-Z0-9_]*)=(.*)$", text, re.MULTILINE)
    return {key: value.strip().strip("\"'")[:_MOST_CHARACTERS] for key, value in found}


def debian_release(release: Mapping[str, str]) -> int | None:
    """The 12 of Debian 12, also where Raspberry Pi OS calls itself Raspbian; None for another system."""
    number = release.get("VERSION_ID", "")
    return int(number) if release.get("ID") in ("debian", "raspbian") and re.fullmatch(r"\d{1,3}", number) else None


def ssh_version(text: str | None) -> str | None:
    """The software of a server's banner (RFC 4253, 4.2) or of ``ssh -V``, as in "OpenSSH_9.2p1 Debian-2+deb12u3"."""
    banner = re.match(r"SSH-\d\.\d{1,2}-([^\r\n]+)", text or "")
    if banner:
        return banner.group(1).strip()[:_MOST_CHARACTERS] or None
    told = re.search(r"\b((?:OpenSSH|[Dd]ropbear)[_ ]v?\d[^,\r\n]*)", text or "")
    return told.group(1).strip()[:_MOST_CHARACTERS] if told else None


def python_version(text: str) -> tuple[str, int | None] | None:
    """Version and word size that a Python told ("3.11.2 64"); None for anything else."""
    found = re.fullmatch(r"(3\.\d{1,3}\.\d{1,3})(?: (32|64))?", text.strip())
    return (found.group(1), int(found.group(2)) if found.group(2) else None) if found else None


def clock_skew(asked_at: float, answered_at: float, device_time: object) -> dict[str, float] | None:
    """How far the device's clock is ahead of this machine's (``skew_s``), and how sure that is (``within_s``).

    The device read its clock at some moment between the question and the answer, so half of that time is the doubt.
    Unix times in seconds. None where the device told no time.
    """
    if isinstance(device_time, bool) or not isinstance(device_time, (int, float)) or not abs(device_time) < 1e12:
        return None
    within_s = max(answered_at - asked_at, 0.0) / 2
    return {"skew_s": round(device_time - (asked_at + within_s), 3), "within_s": round(within_s, 3)}
