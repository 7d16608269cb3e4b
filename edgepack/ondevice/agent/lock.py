"""The lock of a root, and what is cleared away by whoever takes it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shlex
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
    path = os.path.join(root, "lock")
    while True:
        try:
            make_folder(root)
            path = confined(root, "lock")
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except PermissionError as error:
            raise denied_error(root, error.filename or path) from None
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
    origin = os.environ.get("SSH_CONNECTION", "").partition(" ")[0]  # sshd(8), ENVIRONMENT: the client's address first
    session.holder = {"who": who, "from": origin, "since": now(), "verb": "hello", "pid": os.getpid()}
    session.holder["session"] = session.token
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
    origin = str(holder.get("from") or "")[:200]
    doing = "".join(("" if verb == "hello" else f"{verb}, ", f"from {origin}, " if origin else "", f"since {since}"))
    return AgentError(
        "locked",
        f"{who} holds the lock of {root} on the device ({doing}).",
        "Add --wait to wait for it, or try again later; the lock falls by itself when its session ends.",
        holder=holder,
    )


def require_writable(root: str) -> None:
    """Refuses a root that this account could not make, before anything is sent for it."""
    above = root
    while not os.path.isdir(above) and above != os.path.dirname(above):
        above = os.path.dirname(above)
    read_only = os.statvfs(above).f_flag & os.ST_RDONLY  # has its own words, once something is written
    if not read_only and not os.access(above, os.W_OK | os.X_OK):
        raise denied_error(root, above)


def denied_error(root: str, path: str) -> AgentError:
    """The account of this login may not write where edgepack is to keep its releases."""
    try:
        account = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        account = str(os.geteuid())
    return AgentError(
        "no-permission",
        f"The account {account} may not write to {path} on the device, and edgepack's folder there is {root}.",
        f"Leave --root out (~/.edgepack needs no rights), or give {account} the folder, once, on the device: "
        f"sudo install -d -o {account} {shlex.quote(root)}",
        root=root,
        path=path,
    )
