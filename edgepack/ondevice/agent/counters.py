"""The highest counter of a release that this device has seen, for each app.

It runs in ``counters.json`` under the root. On a pinned device it has a floor, which the owner laid down with the pin:
what that account's folder held when the device was pinned last. Where the owner set an app's counter back, its floor
bears the mark of that (``reset``), and what was counted without the same mark counts no more.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Optional, Tuple

from .arguments import parse_json
from .disk import confined, read_foreign, read_json, write_json
from .errors import AgentError, broken_pin
from .limits import APP_PATTERN

COUNTERS = "counters.json"
COUNTERS_LIMIT = 1024 * 1024
COUNTER_LIMIT = (1 << 32) - 2  # the highest that a manifest can have


def read_counters(root: str) -> Optional[Dict[str, Any]]:
    """What ``counters.json`` holds: app to the highest counter of a release, and that release; None where it is broken.

    It lies outside of the apps: no gc, and no broken state.json, lets the device forget what it has seen.
    """
    path = confined(root, COUNTERS)
    counters = read_json(path)
    return counters if counters or not os.path.exists(path) else None


def read_counter(root: str, app: str, floor: Mapping[str, Any]) -> Tuple[Optional[int], Optional[str]]:
    """The highest counter that this device has seen for an app, and the release that had it."""
    laid_down, running = sound_entry(floor.get(app)), sound_entry((read_counters(root) or {}).get(app))
    seen = [entry for entry in (laid_down, running if running.get("reset") == reset_mark(floor, app) else {}) if entry]
    if not seen:
        return None, None
    highest = max(seen, key=lambda entry: entry["counter"])
    return highest["counter"], str(highest.get("release"))


def sound_entry(entry: Any) -> Dict[str, Any]:
    """What ``counters.json`` holds for an app; empty where it is no counter."""
    counter = entry.get("counter") if isinstance(entry, dict) else None
    return entry if isinstance(counter, int) and not isinstance(counter, bool) else {}


def reset_mark(floor: Mapping[str, Any], app: str) -> Optional[str]:
    """The mark of the last time that the owner set an app's counter back; None where that never was."""
    entry = floor.get(app)
    return entry.get("reset") if isinstance(entry, dict) else None


def note_counter(root: str, app: str, release: str, counter: Any, floor: Mapping[str, Any]) -> None:
    """Keeps the highest counter of an app."""
    mark = reset_mark(floor, app)
    highest = read_counter(root, app, {app: {"reset": mark}})[0]
    if isinstance(counter, int) and (highest is None or counter > highest):
        counters = dict(read_counters(root) or {})
        counters[app] = {"counter": counter, "release": release, **({} if mark is None else {"reset": mark})}
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
            f"Bundle it with a counter above {highest}; back to a release that is there: edgepack rollback DEVICE."
            if highest < COUNTER_LIMIT
            else f"No counter is above that. Its owner can set it back: edgepack trust DEVICE --reset-counter {app}.",
            counter=counter,
            highest=highest,
        )


def raised_floor(floor: Any, root: str) -> Tuple[Dict[str, Any], bool]:
    """A floor, raised to what a root has counted since; and whether its counters could be read, where it has some.

    The owner's login reads here what the deploying account may have written.
    """
    laid_down: Dict[str, Any] = floor if isinstance(floor, dict) else {}
    raised = {app: entry for app, entry in laid_down.items() if sound_entry(entry) or reset_mark(laid_down, app)}
    try:
        counted = parse_json(read_foreign(os.path.join(root, COUNTERS), COUNTERS_LIMIT))
    except (FileNotFoundError, NotADirectoryError):
        return raised, True
    except (OSError, ValueError, RecursionError):
        return raised, False
    if not isinstance(counted, dict):
        return raised, False
    for app, value in counted.items():
        entry, known = sound_entry(value), raised.get(app, {})
        if not APP_PATTERN.fullmatch(app) or not entry or entry.get("reset") != reset_mark(raised, app):
            continue
        if entry["counter"] > known.get("counter", -1):
            raised[app] = {**known, "counter": entry["counter"], "release": str(entry.get("release"))[:100]}
    return raised, True


def set_back(floor: Dict[str, Any], apps: List[str], note: Dict[str, Any]) -> None:
    """Takes the counters of apps back to none: what was counted before counts no more. ``note``: when and by whom."""
    for app in apps:
        if not sound_entry(floor.get(app)):
            raise AgentError(
                "no-app", f"This device has counted no release of {app}.", "Name one that it has: trust prints them."
            )
        floor[app] = {**note, "reset": os.urandom(8).hex(), "was": floor[app]["counter"]}
