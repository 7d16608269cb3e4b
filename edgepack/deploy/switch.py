"""Switching the active release: activate and rollback, one atomic step on the device, undone where a hook fails."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from edgepack.deploy.hooks import Hooks
from edgepack.device.opened import chosen_app, opened
from edgepack.documents import ActivateDocument
from edgepack.errors import GateFailed
from edgepack.events import Event, Reporter, ignore_events

if TYPE_CHECKING:
    from edgepack.device import ConnectOptions, DeviceAddress, Session


def activate(
    device: str | DeviceAddress | Session,
    *,
    app: str | None = None,
    release: str | None = None,
    unchecked: bool = False,
    hooks: Hooks | None = None,
    options: ConnectOptions | None = None,
    dry_run: bool = False,
    report: Reporter = ignore_events,
) -> ActivateDocument:
    """Switch to the candidate (or to ``release``), run the hooks, and go back where one fails.

    With ``dry_run`` the device tells what it would do, every refusal included, and does none of it: no hook runs.

    Raises GateFailed where no PASS is recorded on the device for the release and ``unchecked`` is not given, where the
    candidate is marked bad (name it as ``release`` to take it all the same), and where a hook failed (the release
    before is active again then); InputError where there is no such app or release;
    IntegrityError where the release on the device is damaged.
    """
    with opened(device, options, app=app, lock=not dry_run, report=report) as session:
        name = chosen_app(session, app)
        return _switch(session, "activate", name, release, hooks, report, dry_run=dry_run, unchecked=unchecked)


def rollback(
    device: str | DeviceAddress | Session,
    *,
    app: str | None = None,
    release: str | None = None,
    hooks: Hooks | None = None,
    options: ConnectOptions | None = None,
    dry_run: bool = False,
    report: Reporter = ignore_events,
) -> ActivateDocument:
    """Switch back to the release that was active before (or to a ``release`` that was active or passed once).

    A release that was rolled back from is gone back to only by name: a second rollback goes further back, and a plain
    :func:`activate` does not take it as the candidate any more.
    ``dry_run`` and what is raised are as with :func:`activate`; InputError "no-previous" where there is none to go
    back to.
    """
    with opened(device, options, app=app, lock=not dry_run, report=report) as session:
        name = chosen_app(session, app)
        return _switch(session, "rollback", name, release, hooks, report, dry_run=dry_run)


def _switch(
    session: Session,
    verb: str,
    app: str,
    release: str | None,
    hooks: Hooks | None,
    report: Reporter,
    *,
    dry_run: bool,
    **more: object,
) -> ActivateDocument:
    from edgepack.device.opening import operator_name

    goal = release or ("its candidate" if verb == "activate" else "the release before")
    if not dry_run:
        report(Event(verb, f"switching {app} to {goal}"))
    arguments: dict[str, Any] = {
        "app": app,
        "release": release,
        "hooks": (hooks or Hooks()).to_json(),
        "by": operator_name(),
        "dry_run": dry_run,
        **more,
    }
    op = secrets.token_hex(8)
    result = session.persist(lambda: session.request(verb, op=op, **arguments).result)
    return ActivateDocument(
        app=app,
        current=result["current"],
        previous=result.get("previous"),
        changed=result.get("changed") is True,
        unchecked=result.get("unchecked") is True,
        hooks=tuple(result.get("hooks") or ()),
        was_bad=result.get("was_bad") is True,
        withdrawn=result.get("withdrawn"),
    )


def marked_bad(message: str, release: str) -> GateFailed:
    """The refusal of a release whose hooks failed on the device, with what brings it back all the same."""
    return GateFailed(
        "marked-bad",
        message,
        hint="Push a mended bundle; or mend what the hooks complained about, and activate it by its name: "
        f"edgepack activate DEVICE --release {release}.",
    )
