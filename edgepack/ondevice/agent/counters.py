"""The highest counter of a release that this device has seen, for each app.

It runs in ``counters.json`` under the root. On a pinned device it has a floor, which the owner laid down with the pin:
what that account's folder held when the device was pinned last.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Mapping, Optional, Tuple

from .arguments import parse_json
from .disk import confined, read_foreign, read_json, write_json
from .errors import AgentError, broken_pin
from .limits import APP_PATTERN

COUNTERS = "counters.json"
COUNTERS_LIMIT = 1024 * 1024


def read_counters(root: str) -> Optional[Dict[str, Any]]:
    """What ``counters.json`` holds: app to the highest counter of a release, and that release; None where it is broken.

    It lies outside of the apps: no gc, and no broken state.json, lets the device forget what it has seen.
    """
    path = confined(root, COUNTERS)
    counters = read_json(path)
    return counters if counters or not os.path.exists(path) else None


def read_counter(root: str, app: str, floor: Mapping[str, Any]) -> Tuple[Optional[int], Optional[str]]:
    """The highest counter that this device has seen for an app, and the release that had it."""
    entries = [sound_entry(counted.get(app)) for counted in (floor, read_counters(root) or {})]
    seen = [entry for entry in entries if entry]
    if not seen:
        return None, None
    highest = max(seen, key=lambda entry: entry["counter"])
    return highest["counter"], str(highest.get("release"))


def sound_entry(entry: Any) -> Dict[str, Any]:
    """What ``counters.json`` holds for an app; empty where it is no counter."""
    counter = entry.get("counter") if isinstance(entry, dict) else None
    return entry if isinstance(counter, int) and not isinstance(counter, bool) else {}


def note_counter(root: str, app: str, release: str, counter: Any) -> None:
    """Keeps the highest counter of an app."""
    highest = read_counter(root, app, {})[0]
    if isinstance(counter, int) and (highest is None or counter > highest):
        counters = dict(read_counters(root) or {})
        counters[app] = {"counter": counter, "release": release}
        write_json(confined(root, COUNTERS), counters)


def require_newer(root: str, app: str, release: str, counter: Any, floor: Mapping[str, Any]) -> None:
    """Refuses what is older than what a pinned device has seen; the newest itself may come again."""
    if read_counters(root) is None:
        raise broken_pin(f"{os.path.join(root, COUNTERS)} cannot be read, so a replay could not be told")
    if not isinstance(counter, int) or isinstance(counter, bool):
        raise AgentError(
            "replayed",
            f"Release {release} of {app} has no counter, and this device is pinned: it takes only what counts up.",
            "Bundle it with --counter N, higher than before.",
        )
    highest, holder = read_counter(root, app, floor)
    if highest is not None and (counter < highest or (counter == highest and release != holder)):
        raise AgentError(
            "replayed",
            f"Release {release} of {app} has the counter {counter}, and this device has seen {highest} ({holder}).",
            f"Bundle it with a counter above {highest}; back to a release that is there: edgepack rollback DEVICE.",
            counter=counter,
            highest=highest,
        )


def raised_floor(floor: Any, root: str) -> Tuple[Dict[str, Any], bool]:
    """A floor, raised to what a root has counted since; and whether its counters could be read, where it has some.

    The owner's login reads here what the deploying account may have written.
    """
    raised = {app: entry for app, entry in (floor if isinstance(floor, dict) else {}).items() if sound_entry(entry)}
    try:
        counted = parse_json(read_foreign(os.path.join(root, COUNTERS), COUNTERS_LIMIT))
    except (FileNotFoundError, NotADirectoryError):
        return raised, True
    except (OSError, ValueError, RecursionError):
        return raised, False
    if not isinstance(counted, dict):
        return raised, False
    for app, value in counted.items():
        entry, known = sound_entry(value), raised.get(app)
        if APP_PATTERN.fullmatch(app) and entry and (known is None or entry["counter"] > known["counter"]):
            raised[app] = {"counter": entry["counter"], "release": str(entry.get("release"))[:100]}
    return raised, True
