"""Verbs about a check: manifest, model, measure and collect."""

from __future__ import annotations

import os
from typing import Any, Dict, Iterable, List, Optional, Tuple

from .admission import require_numbers, require_runnable
from .arguments import take, take_name, take_seconds
from .children import MEASURE_FOLDERS
from .disk import confined, digest_file, read_chunks, read_json, size_of
from .errors import MEMORY_HINT, AgentError, bad_request
from .facts import memory_bytes
from .limits import MANIFEST_LIMIT, NAME_PATTERN
from .loaderrun import MeasureRun, new_output
from .releases import named_release, read_current, require_release, setup_digest
from .session import Session
from .state import load_state
from .turns import measure_both
from .wire import Request

MEMORY_FOR_RUNTIME = 64 * 1024 * 1024
MEASURE_SLACK_S = 600.0


def choose_release(session: Session, request: Request) -> Tuple[str, str]:
    """The release that a check is about, and its folder: the named one, the candidate or the current one."""
    root, app = session.home(), session.known_app(request)
    release = request.args.get("release") or load_state(root, app)["candidate"] or read_current(root, app)
    if release is None:
        raise AgentError("no-candidate", f"{app} has no release to check.", "Push a bundle first.")
    return release, require_release(root, app, named_release(root, app, release))


def manifest(session: Session, request: Request) -> Tuple[Dict[str, Any], int, Iterable[bytes]]:
    """A release's manifest as the payload: the budget and the way to measure stand in it."""
    release, folder = choose_release(session, request)
    path = confined(folder, "manifest.json")
    size = size_of(path)
    if not 0 < size <= MANIFEST_LIMIT:
        raise AgentError("release-damaged", f"The manifest of {release} is gone.", "Push its bundle again.")
    return {"release": release}, size, read_chunks(path, size)


def model(session: Session, request: Request) -> Tuple[Dict[str, Any], int, Iterable[bytes]]:
    """A release's model as the payload, for a host that has no bundle of it."""
    release, folder = choose_release(session, request)
    path = confined(folder, "model.tflite")
    size = size_of(path)
    if not size:
        raise AgentError("release-damaged", f"The model of {release} is gone.", "Push its bundle again.")
    return {"release": release, "bytes": size}, size, read_chunks(path, size)


def choose_rival(session: Session, request: Request, release: str) -> Optional[Tuple[str, str]]:
    """What ``release`` is to be compared with, and its folder: the named release, or for "current" the active one."""
    root, app, against = session.home(), session.known_app(request), request.args.get("against")
    if against is None:
        return None
    rival = read_current(root, app) if against == "current" else named_release(root, app, against)
    if rival is None:
        raise AgentError(
            "no-current",
            f"{app} has no active release on this device, so there is nothing to compare {release} with.",
            "Check without --against; the next release can be compared once this one is active.",
        )
    if rival == release:
        raise AgentError(
            "same-release",
            f"{release} is the {'active' if against == 'current' else 'same'} release itself: there is nothing to"
            " compare it with.",
            "Push another release, or name two: --release ID --against ID.",
        )
    return rival, require_release(root, app, rival)


def measure(session: Session, request: Request) -> Dict[str, Any]:
    """Runs a release's own loader with its own runtime, and hands on what it measured.

    With ``against`` another release's loader runs in turns with it.
    """
    root = session.home()
    release, folder = choose_release(session, request)
    rival = choose_rival(session, request, release)
    options: Dict[str, Any] = take(request.args, "options", dict)
    limit_s = take_seconds(options, "limit_s", take_seconds(options, "max_seconds", 60.0) + MEASURE_SLACK_S)
    if session.pin is not None:
        for name in (release,) if rival is None else (release, rival[0]):
            require_runnable(session, session.known_app(request), name)
        require_numbers(options)
    require_memory([folder] if rival is None else [folder, rival[1]])
    session.setups[folder] = setup_digest(folder)

    def report(progress: Dict[str, Any]) -> None:
        session.wire.send({"id": request.id, "progress": progress, "n": 0})

    found: Dict[str, Any] = {}
    if rival is None:
        run = MeasureRun(folder, new_output(root), options, limit_s)
        run.wait(report)
    else:
        run, found = measure_both(root, (release, folder), rival, options, limit_s, report)
    measurement = read_json(os.path.join(run.output, "measurement.json"))
    if not measurement:
        raise run.failure()
    outputs = os.path.join(run.output, "outputs.npz")
    here = os.path.isfile(outputs)
    measurement.update(found, release=release)
    measurement["outputs"] = os.path.basename(run.output) if here else None
    measurement["outputs_bytes"] = size_of(outputs) if here else 0
    return measurement


def require_memory(folders: List[str]) -> None:
    """Raises ``memory-short`` where these releases' models and their runtimes cannot fit into the available memory."""
    available = memory_bytes("MemAvailable")
    needed = sum(size_of(os.path.join(folder, "model.tflite")) + MEMORY_FOR_RUNTIME for folder in folders)
    if available is not None and available < needed:
        what = "the model and its runtime need" if len(folders) == 1 else "both models with their runtimes need"
        raise AgentError(
            "memory-short",
            f"The device has {available} bytes of memory available; {what} about {needed}.",
            MEMORY_HINT if len(folders) == 1 else f"{MEMORY_HINT} Without --against one of them is enough.",
            available_bytes=available,
            needed_bytes=needed,
        )


def collect(session: Session, request: Request) -> Tuple[Dict[str, Any], int, Iterable[bytes]]:
    """The outputs that a measurement of this session wrote (.npz)."""
    token = take_name(request.args, "token", NAME_PATTERN)
    path = confined(session.home(), "incoming", token, "outputs.npz")
    if os.path.dirname(path) not in MEASURE_FOLDERS or not os.path.isfile(path):
        raise bad_request("There is no measurement with this token in this session.")
    size = os.path.getsize(path)
    return {"bytes": size, "sha256": digest_file(path)}, size, read_chunks(path, size)
