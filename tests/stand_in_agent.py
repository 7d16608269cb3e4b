"""A small agent that speaks the protocol and does what a test asks; sent to the device in place of the real one."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import time

stdin = sys.stdin.buffer
replies = os.fdopen(os.dup(1), "wb", 0)
os.dup2(2, 1)
pings = 0
children = []
# Also when an answer finds nobody any more.
atexit.register(lambda: [child.kill() for child in children])


def answer(id_: int, result: object = None, error: object = None, payload: bytes = b"") -> None:
    """Send one reply."""
    header = {"id": id_, "ok": error is None, "n": len(payload)}
    header.update({"error": error} if error else {"result": result or {}})
    line = json.dumps(header).encode() + b"\n"
    if len(line) > 65536:
        payload = json.dumps(header.pop("result")).encode()
        line = json.dumps({**header, "n": len(payload), "body": True}).encode() + b"\n"
    replies.write(line + payload)


def read_payload(n: int) -> int:
    """Drain a payload."""
    total = 0
    while total < n:
        data = stdin.read(min(65536, n - total))
        if not data:
            sys.exit(0)
        total += len(data)
    return total


def hello(id_: int, request: dict) -> None:
    """Answer the handshake; the app "locked-app" is always locked."""
    if request["app"] == "locked-app":
        answer(id_, error={"code": "locked", "message": "held", "details": {"holder": {"who": "ada@host"}}})
        return
    facts = {"python": "3.11.2"}
    answer(id_, {"protocol": 1, "root": request["root"], "facts": facts, "apps": {}, "pid": os.getpid()})


sys.stdout.write("a stray print goes to stderr\n")
replies.write(b"\nEDGEPACK1 " + EDGEPACK_NONCE.encode() + b"\n")  # noqa: F821 (given by the bootstrap)
while True:
    line = stdin.readline()
    if not line:
        break
    request = json.loads(line)
    id_, verb, n = request["id"], request["verb"], request["n"]
    if verb == "refuse-early":
        stdin.read(1000)
        answer(id_, error={"code": "disk-full", "message": "no room"})
        read_payload(n - 1000)
        continue
    if verb == "echo":
        answer(id_, payload=stdin.read(n))
        continue
    if request.get("body"):
        request.update(json.loads(stdin.read(n)))
        n = 0
    received = read_payload(n)
    if verb == "hello":
        hello(id_, request)
    elif verb == "ping":
        pings += 1
        answer(id_)
    elif verb == "pings":
        answer(id_, {"pings": pings})
    elif verb == "fail":
        answer(id_, error=request["error"])
    elif verb == "progress":
        for done in range(3):
            replies.write(json.dumps({"id": id_, "progress": {"done": done}, "n": 0}).encode() + b"\n")
        answer(id_)
    elif verb == "die":
        sys.stderr.write("Out of luck\n")
        sys.stderr.flush()
        os._exit(3)
    elif verb == "kill":
        os.kill(os.getpid(), 9)
    elif verb == "sleep":
        time.sleep(request["seconds"])
        answer(id_)
    elif verb == "babble":
        sys.stderr.write("x" * request["bytes"] + "the end\n")
        sys.stderr.flush()
        answer(id_)
    elif verb == "garbage":
        replies.write(b"this is no frame\n")
    elif verb == "reject":
        replies.write(
            b'{"id": null, "ok": false, "n": 0, "error": {"code": "bad-request", "message": "not understood"}}\n'
        )
        break
    elif verb == "child":
        children.append(subprocess.Popen(["sleep", "1000"]))
        answer(id_, {"pid": children[-1].pid})
    else:
        answer(id_, {"verb": verb, "received": received, "arguments": request})
