"""The agent's main: requests in, replies out, every failure as data."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterable, Optional

from .answering import answer as answer_samples
from .children import end_agent, end_on_signal
from .cleaning import gc
from .committing import commit
from .delta import chunks, delta
from .disk import free_bytes
from .errors import MEMORY_HINT, AgentError, bad_request, internal_error, pinned_error, translate_os_error
from .limits import CHUNK, PROTOCOL, SILENCE_S
from .lock import note_verb, take_lock
from .measuring import collect, manifest, measure, model
from .opening import hello, probe, status
from .pin import Pin
from .pinning import trust
from .session import Session
from .staging import missing, put
from .switching import activate, record, rollback
from .wire import Payload, Request, Wire

FIRST_WORD_S = 20  # a host speaks at once, without being spoken to


VERBS: Dict[str, Callable[[Session, Request], Any]] = {
    "hello": hello,
    "probe": probe,
    "missing": missing,
    "put": put,
    "delta": delta,
    "chunks": chunks,
    "commit": commit,
    "activate": activate,
    "rollback": rollback,
    "status": status,
    "manifest": manifest,
    "model": model,
    "measure": measure,
    "answer": answer_samples,
    "collect": collect,
    "record": record,
    "gc": gc,
    "trust": trust,
}
CHANGING = ("put", "delta", "chunks", "commit", "activate", "rollback", "record", "gc")  # they need the lock


def answer(session: Session, request: Request) -> None:
    """Runs one request and sends its reply; every failure is data."""
    header: Dict[str, Any] = {"id": request.id, "ok": True, "n": 0}
    payload: Optional[Iterable[bytes]] = None
    try:
        result = dispatch(session, request)
        if isinstance(result, tuple):
            result, header["n"], payload = result
        header["result"] = result
    except AgentError as error:
        header.update(ok=False, error=error.to_json())
    except OSError as error:
        header.update(ok=False, error=describe_os_error(session, error, request.verb))
    except MemoryError:
        header.update(
            ok=False, error=AgentError("out-of-memory", "The device is out of memory.", MEMORY_HINT).to_json()
        )
    except Exception as error:  # noqa: BLE001 (the protocol promises: never a traceback on the wire)
        header.update(ok=False, error=internal_error(error).to_json())
    try:
        session.wire.send(header, payload)
    finally:
        request.payload.drain()


def describe_os_error(session: Session, error: OSError, verb: str) -> Dict[str, Any]:
    """An ``OSError`` as data; a full disk tells what is free, and never advises the verb that met it."""
    translated = translate_os_error(error)
    if translated.code == "disk-full" and verb == "gc":
        translated.hint = "Delete something else on the device first: gc needs a few KiB for its own notes."
    if translated.code == "disk-full" and session.root:
        with contextlib.suppress(OSError):
            translated.details["free_bytes"] = free_bytes(session.root)
    return translated.to_json()


def dispatch(session: Session, request: Request) -> Any:
    """Finds the verb, sees that it may run, runs it."""
    verb = VERBS.get(request.verb)
    if verb is trust and session.pin is not None:
        raise pinned_error("This device is pinned, and this login cannot change what it trusts.")
    if verb is None:
        raise bad_request(f"This agent has no verb {request.verb[:50]!r}; it speaks protocol {PROTOCOL}.")
    if session.root is None and request.verb != "hello":
        raise bad_request("The first request must be hello.")
    request.read_body()
    looking = request.dry_run and request.verb in ("delta", "activate", "rollback", "gc")
    if request.verb in CHANGING and not looking:
        if session.lock_fd is None and session.lock_later is not None:
            take_lock(session, session.home(), session.lock_later)
        if session.lock_fd is None:
            raise bad_request(f"{request.verb} needs the lock: say hello with lock true.")
        note_verb(session, request.verb)
    elif request.verb == "measure":
        note_verb(session, "check")
    return verb(session, request)


def watch_silence(wire: Wire) -> None:
    """Ends the agent when the host has sent nothing for too long: half-open connections hold no lock forever."""
    while True:
        time.sleep(min(1.0, wire.silence_s / 4))
        if wire.silent_for_s() > wire.silence_s:
            end_agent(3)


def beat(wire: Wire) -> None:
    """Lets the host know that this agent lives and the line carries, whatever a verb is doing meanwhile."""
    while True:
        time.sleep(wire.beat_s or 1.0)
        if wire.beat_s is not None:
            try:
                wire.send({"id": 0, "progress": {"step": "alive"}, "n": 0})
            except OSError:
                end_agent(0)


def read_requests(wire: Wire, requests: queue.Queue[Optional[Request]]) -> None:
    """Reads frames for as long as there are any; answers pings at once and queues the rest."""
    try:
        while True:
            header = wire.read_header()
            payload = Payload(wire, header["n"])
            if header["verb"] == "ping" and not header["n"]:
                wire.send({"id": header["id"], "ok": True, "n": 0, "result": {}})
                continue
            requests.put(Request(header, payload))
            payload.drained.wait()
    except AgentError as error:
        wire.send({"id": None, "ok": False, "n": 0, "error": error.to_json()})
        end_agent(2)
    except OSError:
        end_agent(0)


def pass_bootstrap() -> str:
    """Throws away, unread, the agent that a host streams; returns its nonce. Ends where it is no host that speaks."""
    signal.alarm(FIRST_WORD_S)  # the silence watch begins with the session
    stream: Any = sys.stdin.buffer
    line = b""
    while not line.endswith(b"\n"):
        byte = stream.read(1)
        line += byte
        # Byte for byte: scp and sftp say what no host says at once, and then wait.
        if not byte or not re.fullmatch(rb"\d{1,7}( [0-9a-f]{0,64}\n?)?", line):
            sys.exit("This key may run edgepack's agent and nothing else.")
    size, nonce = line.split()
    left = int(size)
    signal.alarm(int(SILENCE_S))
    while left:
        chunk = stream.read1(min(left, CHUNK))
        if not chunk:
            sys.exit(0)
        left -= len(chunk)
    signal.alarm(0)
    return str(nonce.decode("ascii"))


def main(nonce: str, program: str) -> None:
    """Serves one session on standard input and output.

    ``nonce`` is the host's, as the bootstrap read it. ``program`` is the file that this agent was started from; what a
    pinned agent holds to lies beside it. An agent that was streamed has none.
    """
    for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(name, end_on_signal)
    pinned = sys.argv[1:] == ["--pinned"]
    wire = Wire(pass_bootstrap() if pinned else nonce)
    try:
        session = Session(wire, Pin(os.path.dirname(os.path.abspath(program))) if pinned else None)
    except AgentError as error:
        wire.send({"id": None, "ok": False, "n": 0, "error": error.to_json()})
        end_agent(2)
        return
    requests: queue.Queue[Optional[Request]] = queue.Queue(64)
    threading.Thread(target=watch_silence, args=(wire,), daemon=True).start()
    threading.Thread(target=beat, args=(wire,), daemon=True).start()
    threading.Thread(target=read_requests, args=(wire, requests), daemon=True).start()
    try:
        while True:
            request = requests.get()
            if request is not None:
                answer(session, request)
    except BrokenPipeError:
        end_agent(0)
