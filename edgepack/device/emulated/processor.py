"""What an emulated device says of its processor: QEMU 7 shows the host's /proc/cpuinfo, which no ARM library can read.

TFLite runtimes choose their kernels by it (github.com/pytorch/cpuinfo, in XNNPACK and ruy), and do without the fast
ones where they cannot read it.
"""

from __future__ import annotations

# As Linux (arch/arm64/kernel/cpuinfo.c, arch/arm/kernel/setup.c) tells them on a Raspberry Pi 3 and a Raspberry Pi 2.
_TOLD = {
    "cortex-a53": {
        "BogoMIPS": "38.40",
        "Features": "fp asimd evtstrm crc32 cpuid",
        "CPU implementer": "0x41",
        "CPU architecture": "8",
        "CPU variant": "0x0",
        "CPU part": "0xd03",
        "CPU revision": "4",
    },
    "cortex-a7": {
        "model name": "ARMv7 Processor rev 5 (v7l)",
        "BogoMIPS": "38.40",
        "Features": "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm",
        "CPU implementer": "0x41",
        "CPU architecture": "7",
        "CPU variant": "0x0",
        "CPU part": "0xc07",
        "CPU revision": "5",
    },
}


def cpuinfo(cpu: str, count: int) -> str:
    """The text of /proc/cpuinfo for ``count`` processors of a kind that QEMU names so; pure."""
    told = "".join(f"{name}\t: {value}\n" for name, value in _TOLD[cpu].items())
    return "\n".join(f"processor\t: {number}\n{told}" for number in range(count))
