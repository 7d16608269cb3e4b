"""Verbs that tell what is here: hello, which opens the session, probe and status."""

from __future__ import annotations

import os
from typing import Any, Dict

from .arguments import is_file_name, take, take_name, take_seconds, take_who
from .disk import is_executable, mount_of
from .errors import bad_request, pinned_error
from .facts import read_facts
from .limits import APP_PATTERN, DEFAULT_ROOT, HISTORY_KEPT, NAME_PATTERN, PROTOCOL, SILENCE_S
from .lock import require_writable, take_lock
from .look import look
from .releases import list_apps
from .session import Session
from .state import summarize
from .wire import Request


def hello(session: Session, request: Request) -> Dict[str, Any]:
    """Opens the session: root, app, and the lock where something is to be changed."""
    args = request.args
    if take(args, "protocol", int) != PROTOCOL:
        raise bad_request(f"This agent speaks protocol {PROTOCOL}, not {args['protocol']}.")
    session.wire.silence_s = take_seconds(args, "silence_s", SILENCE_S)
    if args.get("heartbeat") is True:
        session.wire.beat_s = session.wire.silence_s / 4
    wanted: str = take(args, "root", str)
    if not wanted or not is_file_name(wanted):
        raise bad_request("'root' names no folder.")
    root = os.path.realpath(os.path.join(os.path.expanduser("~"), os.path.expanduser(wanted)))
    if session.pin is not None:
        if wanted != DEFAULT_ROOT and root != session.pin.root:
            raise pinned_error(f"This device is pinned to the folder {session.pin.root}; {wanted} is out of bounds.")
        root = session.pin.root
    if session.lock_fd is not None and root != session.root:
        raise bad_request("This session already holds the lock of another root.")
    session.app = take_name(args, "app", APP_PATTERN) if args.get("app") is not None else None
    if args.get("lock") is True and session.lock_fd is None:
        who = take_who(args, "who")
        session.token = take_name(args, "session", NAME_PATTERN) if args.get("session") is not None else ""
        # A session that changes nothing leaves nothing: a root that is not there is made by the first change.
        session.lock_later = None if os.path.isdir(root) else who
        if session.lock_later is None:
            take_lock(session, root, who)
        else:
            require_writable(root)
    session.root = root
    apps = {app: summarize(root, app, 10, session.floor()) for app in list_apps(root)}
    if args.get("look") is True:
        seen = look(root)
    else:
        facts, notes = read_facts(root)
        seen = {"facts": facts, "notes": notes}
    seen["pinned"] = None if session.pin is None else {"agent": session.pin.agent}
    seen["empty"] = session.pin is None and is_empty(root)
    beats = {"heartbeat_s": session.wire.beat_s}
    return {"protocol": PROTOCOL, "root": root, "apps": apps, "rebuilt": session.rebuilt, **beats, **seen}


def is_empty(root: str) -> bool:
    """Whether ``missing`` has nothing to tell: nothing was ever brought to this root, and libraries load from it."""
    incoming = os.path.join(root, "incoming")
    try:
        if not os.path.lexists(root):
            return is_executable(mount_of(root))
        staged = os.listdir(incoming) if os.path.lexists(incoming) else []
        return not staged and {*os.listdir(root)} <= {"lock", "incoming"} and is_executable(mount_of(root))
    except OSError:
        return False


def probe(session: Session, request: Request) -> Dict[str, Any]:
    """What this device is, and all that ``hello`` tells of it with ``look``."""
    return look(session.home())


def status(session: Session, request: Request) -> Dict[str, Any]:
    """A release's life on this device."""
    return summarize(session.home(), session.known_app(request), HISTORY_KEPT, session.floor(), HISTORY_KEPT)
