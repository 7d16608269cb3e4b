"""What the shell offers on TAB."""

from __future__ import annotations

from pathlib import Path


def target_names(incomplete: str) -> list[str]:
    """The profiles whose name starts with what was typed."""
    from edgepack.target import list_targets

    return [target.name for target in list_targets() if target.name.startswith(incomplete)]


def system_names(incomplete: str) -> list[str]:
    """The emulated devices whose name starts with what was typed."""
    from edgepack.device.emulated import SYSTEMS

    return [name for name in SYSTEMS if name.startswith(incomplete)]


def against_names(incomplete: str) -> list[str]:
    """The one word that ``--against`` knows; release ids lie on the device."""
    return [name for name in ("current",) if name.startswith(incomplete)]


def device_names(incomplete: str) -> list[str]:
    """The hosts of ~/.ssh/config (patterns left out) and ``local:``, where they start with what was typed."""
    config = Path.home() / ".ssh" / "config"
    try:
        lines = config.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    words = [word for line in lines if line.strip().lower().startswith("host ") for word in line.split()[1:]]
    hosts = [word for word in words if not set(word) & set("*?!")]
    return [name for name in [*hosts, "local:"] if name.startswith(incomplete)]
