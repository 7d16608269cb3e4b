"""What a kill or a power cut left of an app, settled by the next session that takes the lock."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from typing import Optional

from .disk import confined, digest_file, link_or_copy
from .facts import now
from .failpoints import reach
from .releases import list_releases, point_current, read_current, release_folder
from .state import conclude, conclude_failure, load_state, read_state, save_state


def settle(root: str, app: str) -> Optional[str]:
    """Settles what a kill or a power cut left of an app: temporary names and an unfinished activation.

    Returns where a broken state file was kept, if it was one.

    ``current`` decides. It names the new release: the activation happened, its hooks were not confirmed ("interrupted";
    asking for it again runs them). It names the old one: nothing happened. A failed hook was being undone: that is
    finished here.
    """
    sweep_temporaries(confined(root, "apps", app))
    for release in list_releases(root, app):
        sweep_temporaries(release_folder(root, app, release))
    kept = rebuild_state(root, app)
    state = load_state(root, app)
    intent = state["intent"]
    if not isinstance(intent, dict):
        return kept
    reach("settle:begun")
    entry = {key: intent.get(key) for key in ("op", "verb", "from", "to", "at", "by", "unchecked", "origin")}
    if intent.get("back"):
        if read_current(root, app) == intent.get("to"):
            point_current(root, app, intent.get("from"))
        conclude_failure(state, entry, intent.get("error") or {})
    elif read_current(root, app) == intent.get("to"):
        conclude(state, entry, "interrupted")
    state["intent"] = None
    save_state(root, app, state)
    reach("settle:settled")
    return kept


def settle_if_possible(root: str, app: str) -> Optional[str]:
    """As :func:`settle`; on a full disk it is left to the next session, because making room needs a session too."""
    try:
        return settle(root, app)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
    return None


def rebuild_state(root: str, app: str) -> Optional[str]:
    """Keeps a broken ``state.json`` aside and begins a new one, whose history says so; returns where it is kept.

    The symlink knows what is active; verdicts, candidate and history are lost, as far as they could not be read.
    """
    state, broken = read_state(root, app)
    if not broken:
        return None
    path = confined(root, "apps", app, "state.json")
    kept = f"{path}.broken-{digest_file(path)[:8]}"
    with contextlib.suppress(FileExistsError):
        link_or_copy(path, kept)
    entry = {"verb": "rebuilt", "from": None, "to": read_current(root, app), "at": now(), "by": "", "unchecked": False}
    state["history"].append(dict(entry, op="", outcome="rebuilt"))
    save_state(root, app, state)
    return kept


def sweep_temporaries(folder: str) -> None:
    """Removes what :func:`write_atomically` and :func:`point_current` leave in a folder when they are killed."""
    for name in os.listdir(folder):
        if re.search(r"\.new-[0-9a-f]{8}$", name):
            os.unlink(os.path.join(folder, name))
