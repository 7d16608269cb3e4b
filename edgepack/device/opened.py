"""What every verb does first: reach the device, or go on with an open session, and settle which app is meant."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from edgepack.device.bootstrap import installed_agent
from edgepack.errors import EdgepackError, InputError
from edgepack.events import Event, Reporter, ignore_events

if TYPE_CHECKING:
    from edgepack.device.address import DeviceAddress
    from edgepack.device.options import ConnectOptions
    from edgepack.device.session import Session

_REBUILT = (
    "warning: the notes on {app} on {device} could not be read and were begun anew; verdicts, candidate and history "
    "are lost, what is active is not; the broken file is kept as {kept}"
)
_OTHER_AGENT = (
    "note: the agent that is pinned on {device} is that of another version of edgepack; its owner can renew it: "
    "edgepack trust"
)


@contextlib.contextmanager
def opened(
    device: str | DeviceAddress | Session,
    options: ConnectOptions | None = None,
    *,
    app: str | None = None,
    lock: bool = False,
    look: bool = False,
    sudo: bool = False,
    report: Reporter = ignore_events,
) -> Iterator[Session]:
    """A session with the device: a new one, closed at the end, or the given one, left open (and locked as it is).

    Hints say DEVICE where no address is known; here it is. ``report`` hears of what the device had to mend when the
    session took its lock.
    """
    from edgepack.device import ConnectOptions, Session, connect

    if isinstance(device, Session):
        yield device
        return
    options = options or ConnectOptions()
    if options.report is ignore_events:
        options = dataclasses.replace(options, report=report)
    try:
        with connect(device, options, app=app, lock=lock, look=look, sudo=sudo) as session:
            for name, kept in (session.hello.get("rebuilt") or {}).items():
                report(Event("device", _REBUILT.format(app=name, device=session.description, kept=kept)))
            _note_pinned(session, report)
            yield session
    except EdgepackError as error:
        error.hint = re.sub(r"\bDEVICE\b", lambda _: str(device), error.hint)
        raise


def _note_pinned(session: Session, report: Reporter) -> None:
    """The agent of a pinned device is the one that its owner laid down, and may be of another edgepack."""
    pinned = session.hello.get("pinned")
    if isinstance(pinned, Mapping) and pinned.get("agent") != hashlib.sha256(installed_agent()).hexdigest():
        report(Event("device", _OTHER_AGENT.format(device=session.description)))


def chosen_app(session: Session, app: str | None) -> str:
    """The app that is meant: the named one, else the only one that the device held when the session began.

    Raises InputError "no-app" where it held none, "several-apps" where one must be named.
    """
    if app is not None:
        return app
    apps = sorted(str(name) for name in session.hello.get("apps") or {})
    if len(apps) == 1:
        return apps[0]
    if not apps:
        raise InputError(
            "no-app",
            f"{session.description} holds no app yet in {session.hello.get('root')}.",
            hint="Push a bundle first (`edgepack push FILE.edgepack DEVICE`), or name another folder with --root.",
            apps=[],
        )
    held = ", ".join(apps)
    raise InputError(
        "several-apps", f"{session.description} holds several apps: {held}.", hint="Name one with --app.", apps=apps
    )
