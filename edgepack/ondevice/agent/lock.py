"""The lock of a root, and what is cleared away by whoever takes it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from typing import Any, Dict

from .disk import confined, make_folder, read_json, remove_tree
from .errors import AgentError
from .facts import now
from .limits import DIGEST_PATTERN
from .releases import list_apps
from .session import Session
from .settling import settle_if_possible


def take_lock(session: Session, root: str, who: str) -> None:
    """Takes the lock of a root, which is the kernel's (flock): it falls with the process, so none is ever stale."""
    make_folder(root)
    path = confined(root, "lock")
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = read_json(path)
            os.close(descriptor)
            raise locked_error(root, holder) from None
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                break
        os.close(descriptor)
    session.lock_fd = descriptor
    session.holder = {"who": who, "since": now(), "verb": "hello", "pid": os.getpid()}
    note_verb(session, "hello")
    make_folder(confined(root, "incoming"))
    sweep_incoming(session, root, everything=False)
    for app in list_apps(root):
        kept = settle_if_possible(root, app)
        if kept is not None:
            session.rebuilt[app] = kept


def note_verb(session: Session, verb: str) -> None:
    """Writes into the lock who holds it and what for; it only tells people."""
    session.holder["verb"] = verb
    if session.lock_fd is not None:
        data = json.dumps(session.holder).encode("ascii")
        with contextlib.suppress(OSError):  # a full disk must not keep anybody from making room
            os.pwrite(session.lock_fd, data, 0)
            os.ftruncate(session.lock_fd, len(data))


def sweep_incoming(session: Session, root: str, everything: bool) -> None:
    """Removes what others left in ``incoming/``: half-built folders, and after a commit the staged files as well.

    A folder of a running measurement (younger than an hour; its session may hold no lock) stays.
    """
    folder = confined(root, "incoming")
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        staged = DIGEST_PATTERN.fullmatch(name[:64]) is not None
        with contextlib.suppress(FileNotFoundError):
            fresh = name.startswith("measure-") and time.time() - os.lstat(path).st_mtime < 3600
            if not fresh and (everything or not staged):
                remove_tree(path)


def locked_error(root: str, holder: Dict[str, Any]) -> AgentError:
    """Somebody else works on this root; the lock's content tells who."""
    who, since, verb = (str(holder.get(key) or "somebody")[:200] for key in ("who", "since", "verb"))
    return AgentError(
        "locked",
        f"{who} holds the lock of {root} on the device ({'' if verb == 'hello' else verb + ', '}since {since}).",
        "Try again when that is done; the lock falls by itself when its session ends.",
        holder=holder,
    )
