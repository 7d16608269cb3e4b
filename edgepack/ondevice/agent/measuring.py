"""Verbs about a check: manifest, model, measure and collect."""

from __future__ import annotations

import os
from typing import Any, Dict, Iterable, Tuple

from .admission import require_numbers, require_runnable
from .arguments import take, take_name, take_seconds
from .children import MEASURE_FOLDERS
from .disk import confined, digest_file, make_folder, read_chunks, read_json, size_of
from .errors import MEMORY_HINT, AgentError, bad_request
from .facts import memory_bytes
from .limits import MANIFEST_LIMIT, NAME_PATTERN
from .loaderrun import MeasureRun
from .releases import named_release, read_current, require_release, setup_digest
from .session import Session
from .state import load_state
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


def measure(session: Session, request: Request) -> Dict[str, Any]:
    """Runs a release's own loader with its own runtime, and hands on what it measured."""
    root = session.home()
    release, folder = choose_release(session, request)
    options: Dict[str, Any] = take(request.args, "options", dict)
    if session.pin is not None:
        require_runnable(session, session.known_app(request), release)
        require_numbers(options)
    require_memory(folder)
    session.setups[folder] = setup_digest(folder)
    make_folder(confined(root, "incoming"))
    output = confined(root, "incoming", f"measure-{os.urandom(8).hex()}")
    MEASURE_FOLDERS.append(output)  # first: the agent may be ended while it makes the folder
    make_folder(output)
    limit_s = take_seconds(options, "limit_s", take_seconds(options, "max_seconds", 60.0) + MEASURE_SLACK_S)
    run = MeasureRun(folder, output, options, limit_s)
    run.wait(lambda progress: session.wire.send({"id": request.id, "progress": progress, "n": 0}))
    measurement = read_json(os.path.join(output, "measurement.json"))
    if not measurement:
        raise run.failure()
    outputs = os.path.join(output, "outputs.npz")
    here = os.path.isfile(outputs)
    measurement["release"] = release
    measurement["outputs"] = os.path.basename(output) if here else None
    measurement["outputs_bytes"] = size_of(outputs) if here else 0
    return measurement


def require_memory(folder: str) -> None:
    """Raises ``memory-short`` where the model and its runtime cannot fit into the memory that is available."""
    available = memory_bytes("MemAvailable")
    needed = size_of(os.path.join(folder, "model.tflite")) + MEMORY_FOR_RUNTIME
    if available is not None and available < needed:
        raise AgentError(
            "memory-short",
            f"The device has {available} bytes of memory available; the model and its runtime need about {needed}.",
            MEMORY_HINT,
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
