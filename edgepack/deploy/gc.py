"""Making room on a device: old releases go, and the runtimes that none of the others needs."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgepack.device.opened import chosen_app, opened
from edgepack.documents import GcDocument

if TYPE_CHECKING:
    from edgepack.device import ConnectOptions, DeviceAddress, Session

DEFAULT_KEEP = 3


def gc(
    device: str | DeviceAddress | Session,
    *,
    app: str | None = None,
    keep: int = DEFAULT_KEEP,
    options: ConnectOptions | None = None,
    dry_run: bool = False,
) -> GcDocument:
    """Remove all but the ``keep`` newest releases of an app; never the current, the previous or the candidate.

    With ``dry_run`` nothing is removed, and ``bytes`` is what the files of those releases add up to: less is freed
    where other releases share them, more where a runtime is needed by none any more.

    Raises InputError "no-app" or "several-apps", LockedError while somebody else works on the device.
    """
    with opened(device, options, app=app, lock=not dry_run) as session:
        name = chosen_app(session, app)
        if dry_run:
            return _would_collect(session.request("status", app=name).result, keep)
        result = session.request("gc", op=secrets.token_hex(8), app=name, keep=keep).result
    return GcDocument(app=name, removed=tuple(result["removed"]), bytes=result["bytes"])


def _would_collect(status: Mapping[str, Any], keep: int) -> GcDocument:
    """What the device would choose, by the rule of ondevice/agent.py; pure."""
    needed = {status.get("current"), status.get("previous"), status.get("candidate")}
    found = sorted(status.get("releases") or (), key=lambda one: (str(one.get("committed_at") or ""), one["release"]))
    old = [one for one in found[: max(len(found) - keep, 0)] if one["release"] not in needed]
    return GcDocument(
        app=status["app"], removed=tuple(one["release"] for one in old), bytes=sum(one["bytes"] for one in old)
    )
