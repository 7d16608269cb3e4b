"""Making room on a device: old releases go, and the runtimes that none of the others needs."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

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

    Nor one that a program on the device has loaded: ``in_use`` names those that stayed for that alone.

    ``bytes`` is what that frees, the runtimes that none of the others needs included; a file that another release
    shares frees nothing. With ``dry_run`` the device tells the same, and nothing is removed.

    Raises InputError "no-app" or "several-apps", LockedError while somebody else works on the device.
    """
    with opened(device, options, app=app, lock=not dry_run) as session:
        name, op = chosen_app(session, app), secrets.token_hex(8)
        result = session.persist(lambda: session.request("gc", op=op, app=name, keep=keep, dry_run=dry_run).result)
    return GcDocument(
        app=name, removed=tuple(result["removed"]), bytes=result["bytes"], in_use=tuple(result.get("in_use") or ())
    )


def forget_app(session: Session, app: str) -> None:
    """Remove an app that was never activated, with everything that it left. Raises InputError where it is active."""
    session.request("gc", op=secrets.token_hex(8), app=app, keep=0, forget=True)
