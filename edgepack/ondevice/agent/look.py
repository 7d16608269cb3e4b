"""What a probe wants to know beyond the facts.

The host reads these texts (edgepack/deploy/devicetexts.py): here they are only fetched, all at once, bounded in time.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from typing import Any, Dict, List, Optional, Tuple

from .children import CHILDREN, Tail
from .disk import read_text
from .facts import (
    THROTTLED_FILE,
    find_delegates,
    find_pythons,
    is_emulated,
    libc_name,
    list_folder,
    read_each,
    read_facts,
)

LOOK_S = 10.0  # how long the programs that a probe asks may take, together
VERSION_IN_PATH = re.compile(r"/[^/]*?(3\.\d+\.\d+)[^/]*/bin/[^/]+")
CPU_LINE = re.compile(r"(?:model name|CPU implementer|CPU part|CPU revision|Model|Hardware|Revision|vendor_id)\s*:")
TELL_PYTHON = 'import struct,sys;print("%d.%d.%d"%sys.version_info[:3],struct.calcsize("P")*8)'


def look(root: str) -> Dict[str, Any]:
    """All that ``probe`` shows: the facts, the texts that the host reads more from, and what could not be read."""
    deadline = time.monotonic() + LOOK_S
    asked = {name: start_asking(argv) for name, argv in programs_to_ask().items()}
    facts, notes = read_facts(root)
    more, troubles = read_each(
        {
            "delegate_paths": find_delegates,
            "thermal": thermal_zones,
            "power": power_supplies,
            "undervoltage": undervoltage,
            "governor": governor,
        }
    )
    texts = {
        "cpu": "" if is_emulated() else unique_lines(read_text("/proc/cpuinfo", 1024 * 1024), CPU_LINE),
        "os_release": read_text("/etc/os-release", 4096),
        "throttled": read_text(THROTTLED_FILE, 64).strip(),
    }
    for path in facts["pythons"] or []:
        version = VERSION_IN_PATH.search(path)
        texts[f"python {path}"] = version.group(1) if version else ""
    for name, program in asked.items():
        text, trouble = hear(program, deadline)
        texts[name] = text
        # Some sshd and ldd know no option for their version, complain, and tell it all the same.
        if trouble and not (text and name in ("sshd", "ldd")):
            troubles.append(f"{name}: {trouble}")
    return {"facts": {**facts, **more}, "texts": texts, "notes": notes + troubles, "time_s": time.time()}


def unique_lines(text: str, wanted: Any) -> str:
    """The lines that hold what is wanted, each once: 64 cores say the same 64 times."""
    return "\n".join(dict.fromkeys(line for line in text.splitlines() if wanted.search(line)))[:8192]


def programs_to_ask() -> Dict[str, List[str]]:
    """The programs that tell what no file does, by the name that the host knows their answer by."""
    search = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin:/opt/vc/bin"
    commands = {"ssh": ["ssh", "-V"], "sshd": ["sshd", "-V"]}
    if not is_emulated() and not os.access(THROTTLED_FILE, os.R_OK):
        commands["throttled"] = ["vcgencmd", "get_throttled"]
    if libc_name() == "musl":
        commands["ldd"] = ["ldd", "--version"]
    asked = {}
    for name, argv in commands.items():
        program = shutil.which(argv[0], path=search)
        if program:
            asked[name] = [program, *argv[1:]]
    for path in find_pythons():
        if VERSION_IN_PATH.search(path) is None:
            asked[f"python {path}"] = [path, "-I", "-S", "-c", TELL_PYTHON]
    return asked


def start_asking(argv: List[str]) -> Any:
    """The started program and the reader of its output, or the ``OSError`` where it cannot be started."""
    try:
        child = CHILDREN.start(argv, stdin=subprocess.DEVNULL, env=dict(os.environ, LC_ALL="C"), cwd="/")
    except OSError as error:
        return error
    return child, Tail(child.stdout)


def hear(asked: Any, deadline: float) -> Tuple[str, str]:
    """A program's answer and what was wrong with it ("" where nothing was); one that hangs is ended."""
    if isinstance(asked, OSError):
        return "", str(asked.strerror)
    child, tail = asked
    tail.join(deadline - time.monotonic())
    try:
        code = child.wait(max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        CHILDREN.kill(child)
        return "", f"did not answer in {LOOK_S:g} s"
    CHILDREN.done(child)
    return tail.text(), f"ended with {code}" if code else ""


def thermal_zones(system: str = "/sys") -> List[Dict[str, Any]]:
    """Where the kernel tells temperatures; under qemu-user they would be the host's."""
    zones = []
    for zone in [] if is_emulated() else list_folder(f"{system}/class/thermal"):
        degrees = read_text(f"{zone}/temp").strip()
        if os.path.basename(zone).startswith("thermal_zone"):
            known = re.fullmatch(r"-?\d{1,9}", degrees) is not None
            name = read_text(f"{zone}/type").strip()[:64]
            zones.append({"name": name, "temperature_c": int(degrees) / 1000 if known else None})
    return zones


def power_supplies(system: str = "/sys") -> List[Dict[str, Any]]:
    """Batteries and mains as the kernel tells them (sysfs-class-power); words and numbers as they stand there."""
    supplies = []
    for folder in [] if is_emulated() else list_folder(f"{system}/class/power_supply"):
        told = {name: read_text(f"{folder}/{name}").strip()[:64] for name in ("type", "status", "online", "capacity")}
        supplies.append({"name": os.path.basename(folder), **{key: value for key, value in told.items() if value}})
    return supplies


def undervoltage(system: str = "/sys") -> Optional[bool]:
    """Whether a Raspberry Pi's supply is too weak now (driver rpi_volt); None where no driver tells."""
    for folder in [] if is_emulated() else list_folder(f"{system}/class/hwmon"):
        if read_text(f"{folder}/name").strip() == "rpi_volt":
            return read_text(f"{folder}/in0_lcrit_alarm").strip() == "1"
    return None


def governor(system: str = "/sys") -> Optional[str]:
    """Who sets the CPU's clock rate: "performance", "ondemand" and the like."""
    path = f"{system}/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    return None if is_emulated() else read_text(path).strip()[:64] or None
