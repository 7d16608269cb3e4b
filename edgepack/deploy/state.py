"""What a device holds for an app: which release is active, and what happened so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgepack.device.opened import chosen_app, opened
from edgepack.documents import HistoryDocument, StatusDocument

if TYPE_CHECKING:
    from edgepack.device import ConnectOptions, DeviceAddress, Session


def status(
    device: str | DeviceAddress | Session, *, app: str | None = None, options: ConnectOptions | None = None
) -> StatusDocument:
    """Which release of an app is current, previous and candidate, and which others the device holds.

    Changes nothing on the device and takes no lock. Raises InputError "no-app" or "several-apps".
    """
    found = _status(device, app, options)
    return StatusDocument(
        app=found["app"],
        current=found.get("current"),
        previous=found.get("previous"),
        candidate=found.get("candidate"),
        releases=tuple(found.get("releases") or ()),
        counter=found.get("counter"),
        state_broken=found.get("state_broken") is True,
    )


def history(
    device: str | DeviceAddress | Session, *, app: str | None = None, options: ConnectOptions | None = None
) -> HistoryDocument:
    """Every activation and rollback that the device remembers (200 of them), oldest first, and as many other events.

    Those are pushes, checks and gcs; a device that was pinned by an older edgepack tells none. Raises as
    :func:`status`.
    """
    found = _status(device, app, options)
    return HistoryDocument(
        app=found["app"],
        history=tuple(found.get("history") or ()),
        state_broken=found.get("state_broken") is True,
        events=tuple(event for event in found.get("events") or () if isinstance(event, Mapping)),
    )


def _status(
    device: str | DeviceAddress | Session, app: str | None, options: ConnectOptions | None
) -> Mapping[str, Any]:
    with opened(device, options, app=app) as session:
        return session.persist(lambda: session.request("status", app=chosen_app(session, app)).result)
