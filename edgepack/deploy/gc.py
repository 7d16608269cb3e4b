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
) -> GcDocument:
    """Remove all but the ``keep`` newest releases of an app; never the current, the previous or the candidate.

    Raises InputError "no-app" or "several-apps", LockedError while somebody else works on the device.
    """
    with opened(device, options, app=app, lock=True) as session:
        name = chosen_app(session, app)
        result = session.request("gc", op=secrets.token_hex(8), app=name, keep=keep).result
    return GcDocument(app=name, removed=tuple(result["removed"]), bytes=result["bytes"])
