"""Files and outputs of real devices, as their owners published them (the serial numbers left out)."""

from __future__ import annotations


def _cpuinfo(core: str, last: str, cores: int = 4) -> str:
    """A /proc/cpuinfo, in which every core says the same."""
    return "".join(f"processor\t: {number}\n{core}\n" for number in range(cores)) + last


# https://github.com/hrw/arm-socs-table/issues/96 (Linux 6.1, 64-bit)
PI_5 = _cpuinfo(
    "BogoMIPS\t: 108.00\n"
    "Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp\n"
    "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n",
    "Hardware\t: BCM2835\nRevision\t: d04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
)
# https://github.com/fastfetch-cli/fastfetch/issues/1529 (64-bit)
PI_4 = _cpuinfo(
    "BogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
    "CPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n",
    "Revision\t: d03115\nModel\t\t: Raspberry Pi 4 Model B Rev 1.5\n",
)
# https://github.com/hrw/arm-socs-table/issues/31 (32-bit)
PI_4_32BIT = _cpuinfo(
    "model name\t: ARMv7 Processor rev 3 (v7l)\nBogoMIPS\t: 108.00\n"
    "Features\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm crc32 \n"
    "CPU implementer\t: 0x41\nCPU architecture: 7\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n",
    "Hardware\t: BCM2711\nRevision\t: c03112\nModel\t\t: Raspberry Pi 4 Model B Rev 1.2\n",
)
# https://github.com/hrw/arm-socs-table/issues/6 (64-bit)
PI_3 = _cpuinfo(
    "model name\t: ARMv8 Processor rev 4 (v8l)\nBogoMIPS\t: 38.40\nFeatures\t: fp asimd evtstrm crc32 cpuid\n"
    "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd03\nCPU revision\t: 4\n",
    "Hardware\t: BCM2835\nRevision\t: a02082\nModel\t\t: Raspberry Pi 3 Model B Rev 1.2\n",
)
X86 = _cpuinfo(
    "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 97\nmodel name\t: AMD Ryzen 9 7900 12-Core Processor\n"
    "flags\t\t: fpu sse sse2 avx avx2 avx512f avx512_vnni avx512_bf16\n",
    "",
    cores=2,
)

BULLSEYE = """PRETTY_NAME="Debian GNU/Linux 11 (bullseye)"
NAME="Debian GNU/Linux"
VERSION_ID="11"
VERSION="11 (bullseye)"
VERSION_CODENAME=bullseye
ID=debian
HOME_URL="https://www.debian.org/"
"""
BOOKWORM_32BIT = """PRETTY_NAME="Raspbian GNU/Linux 12 (bookworm)"
NAME="Raspbian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
VERSION_CODENAME=bookworm
ID=raspbian
ID_LIKE=debian
HOME_URL="http://www.raspbian.org/"
"""
TRIXIE = """PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
NAME="Debian GNU/Linux"
VERSION_ID="13"
VERSION="13 (trixie)"
VERSION_CODENAME=trixie
DEBIAN_VERSION_FULL=13.1
ID=debian
"""

LDD_BULLSEYE = "ldd (Debian GLIBC 2.31-13+rpt2+rpi1+deb11u5) 2.31\nCopyright (C) 2020 Free Software Foundation, Inc.\n"
LDD_BOOKWORM = "ldd (Debian GLIBC 2.36-9+rpt2+deb12u4) 2.36\nCopyright (C) 2022 Free Software Foundation, Inc.\n"
LDD_TRIXIE = "ldd (Debian GLIBC 2.41-12) 2.41\nCopyright (C) 2024 Free Software Foundation, Inc.\n"
LDD_FEDORA = "ldd (GNU libc) 2.38\nCopyright (C) 2023 Free Software Foundation, Inc.\n"
LDD_ALPINE = "musl libc (aarch64)\nVersion 1.2.4\nDynamic Program Loader\nUsage: /lib/ld-musl-aarch64.so.1 [options]\n"
