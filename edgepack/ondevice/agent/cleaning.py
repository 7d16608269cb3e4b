"""The verb gc: old releases, and what only they needed."""

from __future__ import annotations

import fcntl
import os
from typing import Any, Dict, List, Optional

from .arguments import take_size
from .disk import change_tree_mode, confined, list_names, make_folder, remove_tree, sync_folder
from .errors import bad_request
from .failpoints import reach
from .limits import NAME_PATTERN
from .releases import commit_time, freed_bytes, list_apps, list_releases, read_current, release_folder, runtime_of
from .session import Session
from .state import find_previous, load_state, note_event, save_state
from .wire import Request

REMOVED_TOLD = 20  # names in a note of the history


def gc(session: Session, request: Request) -> Dict[str, Any]:
    """Removes old releases, and the runtimes that no release needs any more; with ``dry_run`` it only tells.

    What a program has loaded stays; the result names it (``in_use``), and the gc after that program takes it.
    With ``forget`` the app itself goes, with all that it left, unless it is in use.
    """
    root, app = session.home(), session.known_app(request)
    keep = take_size(request.args, "keep")
    state = load_state(root, app)
    done = session.replay(state, request)
    if done is not None:
        return done
    current = read_current(root, app)
    if request.args.get("forget") is True:
        return forget(session, root, app, current)
    wanted = {current, state["candidate"], find_previous(root, app, state, current)}
    newest = sorted((commit_time(root, app, name), name) for name in list_releases(root, app))
    wanted.update(name for _, name in newest[max(len(newest) - keep, 0) :])
    unwanted = [name for _, name in newest if name not in wanted]
    in_use = [name for name in unwanted if is_in_use(release_folder(root, app, name))]
    removed = [name for name in unwanted if name not in in_use]
    folders = [release_folder(root, app, name) for name in removed]
    folders += unused_runtimes(session, root, without=folders)
    result = {"removed": removed, "bytes": freed_bytes(folders), "in_use": in_use}
    if request.dry_run:
        return result
    for folder in folders:
        discard(session, folder)
    for name in removed:
        state["verdicts"].pop(name, None)
    state["bad"] = [name for name in state["bad"] if name not in removed]
    if folders:
        told = {"removed": removed[:REMOVED_TOLD], "releases": len(removed), "bytes": result["bytes"]}
        note_event(state, "gc", session.holder, **told)
    state["operations"][request.args["op"]] = {"result": result}
    save_state(root, app, state)
    reach("gc:noted")
    return result


def forget(session: Session, root: str, app: str, current: Optional[str]) -> Dict[str, Any]:
    """Removes an app that was only tried out, with all that it left; never one that is in use."""
    if current is not None:
        raise bad_request(f"{app} is active ({current}): it cannot be forgotten.")
    removed = list_releases(root, app)
    releases = [release_folder(root, app, name) for name in removed]
    runtimes = unused_runtimes(session, root, without=releases)
    result = {"removed": removed, "bytes": freed_bytes([*releases, *runtimes])}
    for folder in (confined(root, "apps", app), *runtimes):
        discard(session, folder)
    return result


def is_in_use(folder: str) -> bool:
    """Whether a program has loaded the release in this folder: it holds a shared lock then (``hold`` of the loader)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without such locks: the loader has none there either
        return False
    finally:
        os.close(descriptor)
    return False


def discard(session: Session, folder: str) -> None:
    """Takes a folder out of its place in one rename, then removes it."""
    trash = confined(session.home(), "incoming", f"trash-{os.urandom(8).hex()}")
    make_folder(os.path.dirname(trash))
    change_tree_mode(folder, writable=True)
    os.rename(folder, trash)
    sync_folder(os.path.dirname(folder))
    reach("gc:trashed")
    remove_tree(trash)
    reach("gc:removed")


def unused_runtimes(session: Session, root: str, without: List[str]) -> List[str]:
    """The unpacked runtimes that no release of any app uses, once the releases in these folders are gone."""
    releases = (release_folder(root, app, name) for app in list_apps(root) for name in list_releases(root, app))
    used = {runtime_of(folder) for folder in releases if folder not in without}
    unused = set(list_names(os.path.join(root, "runtimes"), NAME_PATTERN)) - used
    return [confined(root, "runtimes", name) for name in sorted(unused)]
