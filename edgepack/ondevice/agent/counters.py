"""The highest counter of a release that this device has seen, for each app."""

from __future__ import annotations

import os
from typing import Any, Dict, Optional, Tuple

from .disk import confined, read_json, write_json
from .errors import AgentError, broken_pin

COUNTERS = "counters.json"


def read_counters(root: str) -> Optional[Dict[str, Any]]:
    """What ``counters.json`` holds: app to the highest counter of a release, and that release; None where it is broken.

    It lies outside of the apps: no gc, and no broken state.json, lets the device forget what it has seen.
    """
    path = confined(root, COUNTERS)
    counters = read_json(path)
    return counters if counters or not os.path.exists(path) else None


def read_counter(root: str, app: str) -> Tuple[Optional[int], Optional[str]]:
    """The highest counter that this device has seen for an app, and the release that had it."""
    entry = (read_counters(root) or {}).get(app)
    if not isinstance(entry, dict) or not isinstance(entry.get("counter"), int):
        return None, None
    return entry["counter"], str(entry.get("release"))


def note_counter(root: str, app: str, release: str, counter: Any) -> None:
    """Keeps the highest counter of an app."""
    highest = read_counter(root, app)[0]
    if isinstance(counter, int) and (highest is None or counter > highest):
        counters = dict(read_counters(root) or {})
        counters[app] = {"counter": counter, "release": release}
        write_json(confined(root, COUNTERS), counters)


def require_newer(root: str, app: str, release: str, counter: Any) -> None:
    """Refuses what is older than what a pinned device has seen; the newest itself may come again."""
    if read_counters(root) is None:
        raise broken_pin(f"{os.path.join(root, COUNTERS)} cannot be read, so a replay could not be told")
    if not isinstance(counter, int) or isinstance(counter, bool):
        raise AgentError(
            "replayed",
            f"Release {release} of {app} has no counter, and this device is pinned: it takes only what counts up.",
            "Bundle it with --counter N, higher than before.",
        )
    highest, holder = read_counter(root, app)
    if highest is not None and (counter < highest or (counter == highest and release != holder)):
        raise AgentError(
            "replayed",
            f"Release {release} of {app} has the counter {counter}, and this device has seen {highest} ({holder}).",
            f"Bundle it with a counter above {highest}; back to a release that is there: edgepack rollback DEVICE.",
            counter=counter,
            highest=highest,
        )
