"""One app's ``state.json``: verdicts, candidate, history, and what was done for which operation id."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Optional, Tuple

from .counters import read_counter
from .disk import confined, read_json, write_json
from .errors import AgentError
from .facts import now
from .limits import HISTORY_KEPT, SCHEMA
from .releases import list_releases, manifest_files, read_current, read_manifest, release_folder, setup_digest

OPERATIONS_KEPT = 64
EVIDENCE_KEPT = 1000  # characters


def load_state(root: str, app: str) -> Dict[str, Any]:
    """An app's ``state.json``; fields that this agent does not know are carried through."""
    return read_state(root, app)[0]


def read_state(root: str, app: str) -> Tuple[Dict[str, Any], bool]:
    """An app's ``state.json``, and whether it was broken: what cannot be read of it is empty then."""
    path = confined(root, "apps", app, "state.json")
    state = read_json(path)
    broken = not state and os.path.exists(path)
    empty: Dict[str, Any] = {
        "schema": SCHEMA,
        "app": app,
        "candidate": None,
        "intent": None,
        "verdicts": {},
        "bad": [],
        "history": [],
        "events": [],
        "operations": {},
    }
    for key, value in empty.items():
        if value is not None and not isinstance(state.setdefault(key, value), type(value)):
            state[key], broken = value, True
        state.setdefault(key, value)
    return state, broken


def save_state(root: str, app: str, state: Dict[str, Any]) -> None:
    """Replaces an app's ``state.json`` atomically, with the lists that grow cut to their bounds."""
    operations = state["operations"]
    state["operations"] = {op: operations[op] for op in list(operations)[-OPERATIONS_KEPT:]}
    state["history"] = state["history"][-HISTORY_KEPT:]
    state["events"] = state["events"][-HISTORY_KEPT:]
    write_json(confined(root, "apps", app, "state.json"), state)


def note_event(state: Dict[str, Any], verb: str, holder: Mapping[str, Any], **what: Any) -> None:
    """Notes a push, a check or a gc, with who did it and from where: what ``history`` tells beside the activations."""
    by, origin = holder.get("who", ""), holder.get("from", "")
    state["events"].append({"verb": verb, "at": now(), "by": by, "origin": origin, **what})


def read_verdict(state: Dict[str, Any], release: str, folder: str) -> Optional[str]:
    """The word of a release's last check on this device; None also where it would run with something else by now."""
    verdict = state["verdicts"].get(release)
    if not isinstance(verdict, dict) or verdict.get("setup") != setup_digest(folder):
        return None
    return str(verdict.get("verdict"))


def read_recheck(state: Dict[str, Any], release: str) -> Optional[str]:
    """The word of a later check that could not tell, and so left the PASS of an active release standing."""
    verdict = state["verdicts"].get(release)
    later = verdict.get("rechecked") if isinstance(verdict, dict) else None
    return str(later.get("verdict")) if isinstance(later, dict) else None


def find_previous(root: str, app: str, state: Dict[str, Any], current: Optional[str]) -> Optional[str]:
    """The release that rollback goes to: active before the current one, still here, and given up by nobody.

    Activations pile releases up, a rollback takes those off that it goes back over; a release that failed its hooks is
    bad. So a rollback never goes forward to a release that another one fled from.
    """
    pile: List[str] = []
    for entry in state["history"]:
        before, release = entry.get("from"), entry.get("to")
        if entry.get("outcome") not in ("done", "interrupted"):
            continue
        if before is not None and before not in pile:
            pile.append(before)
        given_up = release if release in pile else before
        if entry.get("verb") == "rollback" and given_up in pile:
            del pile[pile.index(given_up) :]
        pile = [name for name in pile if name != release] + [release]
    if current in pile:
        pile = pile[: pile.index(current)]
    here = set(list_releases(root, app)) - set(state["bad"]) - {current}
    return next((name for name in reversed(pile) if name in here), None)


def is_interrupted(state: Dict[str, Any], verb: str, release: Optional[str]) -> bool:
    """Whether the last switch was this one, and ended before its hooks were confirmed: asking again completes it."""
    last = state["history"][-1] if state["history"] else {}
    return (last.get("outcome"), last.get("verb"), last.get("to")) == ("interrupted", verb, release)


def conclude(state: Dict[str, Any], entry: Dict[str, Any], outcome: str) -> None:
    """Moves an activation to the history; one that was interrupted before is completed, not entered twice."""
    last = state["history"][-1] if state["history"] else {}
    if last.get("outcome") == "interrupted" and last.get("to") == entry["to"]:
        state["history"].pop()
        entry = dict(entry, **{"from": last.get("from")})
    state["history"].append(dict(entry, outcome=outcome))
    state["intent"] = None
    if outcome in ("done", "interrupted") and entry["verb"] == "rollback" and state["candidate"] == entry["from"]:
        state["candidate"] = None  # or a plain activate would bring back what was just left


def conclude_failure(state: Dict[str, Any], entry: Dict[str, Any], error: Dict[str, Any]) -> None:
    """Enters an activation whose hooks failed: the release is marked bad, the same operation fails the same way.

    What the hook printed stays in the history as ``failure``: its end.
    """
    details = error.get("details")
    failure = dict(details) if isinstance(details, dict) else {}
    failure["output"] = str(failure.get("output") or "")[-EVIDENCE_KEPT:]
    conclude(state, dict(entry, failure=failure), str(error.get("code", "hook-failed")))
    if entry["to"] not in state["bad"]:
        state["bad"].append(entry["to"])
    if error:
        state["operations"][str(entry["op"])] = {"error": error}


def summarize(root: str, app: str, history: int, floor: Mapping[str, Any], events: int = 0) -> Dict[str, Any]:
    """A release's life on this device: the result of ``status``. ``floor``: that of a pinned device's counters.

    ``history`` and ``events`` are how many of the last ones it tells.
    """
    state, broken = read_state(root, app)
    current = read_current(root, app)
    return {
        "app": app,
        "current": current,
        "previous": find_previous(root, app, state, current),
        "candidate": state["candidate"],
        "releases": [summarize_release(root, app, release, state) for release in list_releases(root, app)],
        "counter": read_counter(root, app, floor)[0],
        "history": state["history"][-history:],
        "events": state["events"][-events:] if events else [],
        "state_broken": broken,
    }


def summarize_release(root: str, app: str, release: str, state: Dict[str, Any]) -> Dict[str, Any]:
    """One line of ``status``."""
    folder = release_folder(root, app, release)
    try:
        size = sum(size for _, size, _ in manifest_files(read_manifest(folder)[0]))
    except AgentError:
        size = 0
    return {
        "release": release,
        "version": release[:-13],
        "bytes": size,
        "verdict": read_verdict(state, release, folder),
        "rechecked": read_recheck(state, release),
        "bad": release in state["bad"],
        "committed_at": read_json(os.path.join(folder, "device.json")).get("committed_at"),
    }
