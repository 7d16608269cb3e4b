"""Verbs that decide what is active: activate, rollback, and record, which keeps a check's verdict."""

from __future__ import annotations

import contextlib
from typing import Any, Dict

from .admission import require_runnable, standing_floor
from .arguments import take, take_name, take_who
from .counters import require_newer
from .errors import AgentError, bad_request
from .facts import now
from .failpoints import reach
from .hooks import Hooks, hook_environment, run_hook
from .limits import RELEASE_PATTERN
from .releases import (
    list_releases,
    named_release,
    point_current,
    read_current,
    read_manifest,
    require_release,
    setup_digest,
)
from .session import Session
from .state import (
    conclude,
    conclude_failure,
    find_previous,
    is_interrupted,
    load_state,
    note_event,
    read_verdict,
    save_state,
)
from .wire import Request

CANDIDATE_HINT = "Push a bundle, or name a release that is there with --release."


def activate(session: Session, request: Request) -> Dict[str, Any]:
    """Switches to a release that passed its check here (or says that it was not checked)."""
    root, app = session.home(), session.known_app(request)
    state = load_state(root, app)
    done = session.replay(state, request)
    if done is not None:
        return done
    release = request.args.get("release")
    if release is None:
        release = state["candidate"]
        if release is None:
            raise AgentError("no-candidate", f"{app} has no candidate to activate.", CANDIDATE_HINT)
        if release in state["bad"]:
            raise AgentError(
                "marked-bad",
                f"The candidate {release} of {app} is marked bad: its hooks failed on this device.",
                "Push a mended bundle; or mend what the hooks complained about, and activate it by its name: "
                f"edgepack activate DEVICE --release {release}.",
            )
    release = named_release(root, app, release)
    unchecked = request.args.get("unchecked") is True
    folder = require_runnable(session, app, release)
    if session.pin is not None:
        counter = read_manifest(folder)[0].get("counter")
        require_newer(root, app, release, counter, standing_floor(root, session.pin, app))
    if not unchecked:
        require_pass(state, app, release, folder)
    return switch(session, request, app, state, release, unchecked)


def rollback(session: Session, request: Request) -> Dict[str, Any]:
    """Switches back to the release that was active before, or to a named one that was active or passed once."""
    root, app = session.home(), session.known_app(request)
    state = load_state(root, app)
    done = session.replay(state, request)
    if done is not None:
        return done
    release = request.args.get("release")
    if release is None:
        current = read_current(root, app)
        again = is_interrupted(state, "rollback", current)
        release = current if again else find_previous(root, app, state, current)
        if release is None:
            raise AgentError(
                "no-previous",
                f"{app} has no earlier release to go back to.",
                "`edgepack status DEVICE` lists the releases; name one with --release.",
            )
    release = named_release(root, app, release)
    folder = require_runnable(session, app, release)
    was_active = any(entry.get("to") == release and entry.get("outcome") == "done" for entry in state["history"])
    if not was_active:
        require_pass(state, app, release, folder)
    return switch(session, request, app, state, release, unchecked=False)


def require_pass(state: Dict[str, Any], app: str, release: str, folder: str) -> None:
    """Raises ``not-checked`` where no PASS is recorded for this release with what it runs with on this device."""
    word = read_verdict(state, release, folder)
    if word != "pass":
        found = f"its last check here ended in {word}" if word else "it was not checked here"
        raise AgentError(
            "not-checked",
            f"Release {release} of {app} has no PASS on this device: {found}.",
            f"Check it: edgepack check DEVICE --release {release}; "
            f"or take it unchecked: edgepack activate DEVICE --release {release} --unchecked.",
            verdict=word,
        )


def switch(
    session: Session, request: Request, app: str, state: Dict[str, Any], release: str, unchecked: bool
) -> Dict[str, Any]:
    """Intent, swap, hooks, history; a hook that fails swaps back. A dry run does none of it."""
    root, op, hooks = session.home(), request.args.get("op"), Hooks(request.args.get("hooks"))
    if session.pin is not None:
        session.pin.require_hooks(hooks)
    current = read_current(root, app)
    last = state["history"][-1] if state["history"] else {}
    interrupted = last.get("outcome") == "interrupted" and last.get("to") == release
    changed = current != release or interrupted
    before = (last.get("from") if interrupted else current) if changed else find_previous(root, app, state, current)
    result: Dict[str, Any] = {
        "app": app,
        "current": release,
        "previous": before,
        "changed": changed,
        "unchecked": unchecked,
        "hooks": [],
        "was_bad": release in state["bad"],
        "withdrawn": None,
    }
    if result["changed"]:
        entry = {"op": op, "verb": request.verb, "from": result["previous"], "to": release, "at": now()}
        entry.update(by=take_who(request.args, "by"), unchecked=unchecked, origin=session.holder.get("from", ""))
        if not request.dry_run:
            state["intent"] = entry
            save_state(root, app, state)
            reach("switch:intended")
            if current != release:
                point_current(root, app, release)
            reach("switch:swapped")
            result["hooks"], failure = hooks.run(hook_environment(root, app, release))
            reach("switch:hooked")
            if failure is not None:
                swap_back(session, app, state, entry, hooks, failure)
                raise failure
        candidate = state["candidate"]
        conclude(state, entry, "done")
        result["withdrawn"] = candidate if state["candidate"] is None else None
        state["bad"] = [name for name in state["bad"] if name != release]
    if request.dry_run:
        return result
    state["operations"][op] = {"result": result}
    save_state(root, app, state)
    if result["changed"]:
        reach("switch:noted")
    return result


def swap_back(
    session: Session, app: str, state: Dict[str, Any], entry: Dict[str, Any], hooks: Hooks, failure: AgentError
) -> None:
    """Undoes an activation whose hooks failed, and runs the hook again for the release that is back.

    Whatever the disk takes of the notes, the old release returns and its program is started again. The intent says what
    is going on until both are done.
    """
    root, before = session.home(), entry["from"]
    if before not in list_releases(root, app):
        before = None
    state["intent"] = dict(entry, back=True, error=failure.to_json(), **{"from": before})
    with contextlib.suppress(OSError):
        save_state(root, app, state)
    reach("back:intended")
    point_current(root, app, before)
    reach("back:swapped")
    failure.message += f" {before} is active again." if before else " Nothing is active: it was the first release."
    if before is not None and hooks.after:
        again = run_hook("after_activate", hooks.after, hooks.timeout_s, hook_environment(root, app, before))
        failure.details["restart"] = again
        if again["code"] != 0:
            failure.message += f" That hook failed for {before} too: look whether your program runs."
    conclude_failure(state, entry, failure.to_json())
    with contextlib.suppress(OSError):
        save_state(root, app, state)
    reach("back:noted")


def record(session: Session, request: Request) -> Dict[str, Any]:
    """Keeps the verdict of a check on this device; activate asks for it."""
    root, app = session.home(), session.known_app(request)
    release, verdict = take_name(request.args, "release", RELEASE_PATTERN), take(request.args, "verdict", dict)
    state = load_state(root, app)
    done = session.replay(state, request)
    if done is not None:
        return done
    folder = require_release(root, app, release)
    word = take(verdict, "verdict", str)
    if word not in ("pass", "fail", "inconclusive"):
        raise bad_request(f"Not a verdict: {word!r}.")
    found = dict(verdict, at=now(), setup=session.setups.get(folder) or setup_digest(folder))
    passed = read_current(root, app) == release and read_verdict(state, release, folder) == "pass"
    if word == "inconclusive" and passed:
        # Not to know takes no PASS away from what is active; what was found stands beside it.
        found = dict(state["verdicts"][release], rechecked=found)
    state["verdicts"][release] = found
    note_event(state, "check", session.holder, release=release, verdict=word)
    state["operations"][request.args["op"]] = {"result": {}}
    save_state(root, app, state)
    reach("record:noted")
    return {}
