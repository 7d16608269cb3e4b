"""Switching the active release: activate and rollback, one atomic step on the device, undone where a hook fails."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgepack.deploy.hooks import Hooks
from edgepack.device.opened import chosen_app, opened
from edgepack.documents import ActivateDocument
from edgepack.errors import GateFailed, InputError
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

    ``dry_run`` tells what would happen by the device's own rules; it runs no hook and recomputes no digest there.

    Raises GateFailed where no PASS is recorded on the device for the release and ``unchecked`` is not given, where the
    candidate is marked bad (name it as ``release`` to take it all the same), and where a hook failed (the release
    before is active again then); InputError where there is no such app or release;
    IntegrityError where the release on the device is damaged.
    """
    with opened(device, options, app=app, lock=not dry_run, report=report) as session:
        name = chosen_app(session, app)
        if dry_run:
            return _would_activate(_status(session, name), release, unchecked=unchecked)
        return _switch(session, "activate", name, release, hooks, report, unchecked=unchecked)


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
        if dry_run:
            return _would_roll_back(_status(session, name), release)
        return _switch(session, "rollback", name, release, hooks, report)


def _switch(
    session: Session,
    verb: str,
    app: str,
    release: str | None,
    hooks: Hooks | None,
    report: Reporter,
    **more: object,
) -> ActivateDocument:
    from edgepack.device.opening import operator_name

    goal = release or ("its candidate" if verb == "activate" else "the release before")
    report(Event(verb, f"switching {app} to {goal}"))
    arguments: dict[str, Any] = {
        "app": app,
        "release": release,
        "hooks": (hooks or Hooks()).to_json(),
        "by": operator_name(),
        **more,
    }
    result = session.request(verb, op=secrets.token_hex(8), **arguments).result
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


def _status(session: Session, app: str) -> Mapping[str, Any]:
    return session.request("status", app=app).result


def _would_activate(status: Mapping[str, Any], release: str | None, *, unchecked: bool) -> ActivateDocument:
    """What the device would answer, refusals included; pure. The rules are those of ondevice/agent.py."""
    name = release or status.get("candidate")
    if name is None:
        raise InputError(
            "no-candidate",
            f"{status['app']} has no candidate to activate.",
            hint="Push a bundle, or name a release that is there with --release.",
        )
    found = _found(status, name)
    if release is None and found.get("bad"):
        raise marked_bad(
            f"The candidate {name} of {status['app']} is marked bad: its hooks failed on this device.", name
        )
    if not unchecked:
        _require_pass(status, found)
    return _would_switch(status, found, unchecked=unchecked)


def marked_bad(message: str, release: str) -> GateFailed:
    """The refusal of a release whose hooks failed on the device, with what brings it back all the same."""
    return GateFailed(
        "marked-bad",
        message,
        hint="Push a mended bundle; or mend what the hooks complained about, and activate it by its name: "
        f"edgepack activate DEVICE --release {release}.",
    )


def _would_roll_back(status: Mapping[str, Any], release: str | None) -> ActivateDocument:
    """As :func:`_would_activate`: a named release has to have been active once, or to have passed here."""
    current, history = status.get("current"), status.get("history") or ()
    last: Mapping[str, Any] = history[-1] if history else {}
    # An interrupted rollback is completed.
    again = (last.get("outcome"), last.get("verb"), last.get("to")) == ("interrupted", "rollback", current)
    name = release or (current if again else status.get("previous"))
    if name is None:
        raise InputError(
            "no-previous",
            f"{status['app']} has no earlier release to go back to.",
            hint="`edgepack status DEVICE` lists the releases; name one with --release.",
        )
    found = _found(status, name)
    if not any(entry.get("to") == name and entry.get("outcome") == "done" for entry in history):
        _require_pass(status, found)
    done = _would_switch(status, found, unchecked=False)
    left = status.get("candidate") if done.changed and status.get("candidate") == done.previous else None
    return dataclasses.replace(done, withdrawn=left)


def _would_switch(status: Mapping[str, Any], found: Mapping[str, Any], *, unchecked: bool) -> ActivateDocument:
    """An interrupted switch to the same release would be completed, which is a change."""
    release = found["release"]
    current, history = status.get("current"), status.get("history")
    last: Mapping[str, Any] = history[-1] if history else {}
    interrupted = last.get("outcome") == "interrupted" and last.get("to") == release
    return ActivateDocument(
        app=status["app"],
        current=release,
        previous=last.get("from") if interrupted else current,
        changed=release != current or interrupted,
        unchecked=unchecked,
        was_bad=found.get("bad") is True,
    )


def _require_pass(status: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    verdict = found.get("verdict")
    if verdict != "pass":
        so_far = f"its last check here ended in {verdict}" if verdict else "it was not checked here"
        raise GateFailed(
            "not-checked",
            f"Release {found['release']} of {status['app']} has no PASS on this device: {so_far}.",
            hint=f"Check it: edgepack check DEVICE --release {found['release']}; "
            f"or take it unchecked: edgepack activate DEVICE --release {found['release']} --unchecked.",
            verdict=verdict,
        )


def _found(status: Mapping[str, Any], release: str) -> Mapping[str, Any]:
    for found in status.get("releases") or ():
        if found.get("release") == release:
            return dict(found)
    there = [str(found.get("release")) for found in status.get("releases") or ()]
    meant = [name for name in there if name.startswith(release)]
    raise InputError(
        "no-release",
        f"{status['app']} has no release {release} on this device (there: {', '.join(there) or 'none'}).",
        hint=f"Did you mean --release {meant[0]}?"
        if len(meant) == 1
        else "`edgepack status DEVICE` lists them; push the bundle that you mean.",
    )
