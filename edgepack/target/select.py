"""Which platforms a bundle is for: the target's, some of them, or ones that a person names; pure."""

from __future__ import annotations

from collections.abc import Sequence

from edgepack.errors import InputError
from edgepack.strict_toml import find_faults
from edgepack.target.platform import Platform
from edgepack.target.profile import PLATFORM
from edgepack.target.values import Target

_FORM = "Write PYTHON,ARCH,LIBC, such as 3.9,aarch64,glibc-2.31, or a part of it that picks from the target's: "


def select_platforms(target: Target, wanted: Sequence[Platform | str]) -> tuple[Platform, ...]:
    """The platforms that are meant, each once.

    "3.9,aarch64,glibc-2.31" stands for itself, whether the target names it or not; a part ("3.11", "aarch64",
    "3.11,aarch64") for those of the target's that have it. Raises :class:`InputError` "bad-platform".
    """
    found: dict[Platform, None] = {}
    for one in wanted:
        found |= dict.fromkeys([one] if isinstance(one, Platform) else _meant(target, one))
    return tuple(found)


def _meant(target: Target, text: str) -> list[Platform]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 3:
        value = dict(zip(("python", "arch", "libc"), parts, strict=True))
        faults = find_faults(value, PLATFORM)
        if faults:
            raise InputError("bad-platform", f"{text!r} is no platform: {'; '.join(faults)}.", hint=_hint(target))
        return [Platform(**value)]
    picked = [one for one in target.platforms if set(parts) <= {one.python, one.arch, one.libc}]
    if not picked:
        raise InputError("bad-platform", f"{target.name} has no platform {text!r}.", hint=_hint(target))
    return picked


def _hint(target: Target) -> str:
    return _FORM + "; ".join(platform.spec for platform in target.platforms) + "."
