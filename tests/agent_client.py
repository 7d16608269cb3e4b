"""A small client of the agent's protocol for the tests: a real agent in a real process, and releases made by hand."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import importlib
import io
import json
import os
import runpy
import secrets
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from edgepack.device.bootstrap import installed_agent

ONDEVICE = Path(__file__).parent.parent / "edgepack" / "ondevice"


def _written_agent() -> Path:
    """The agent as it is laid down on a pinned device, in a folder that goes when these tests end."""
    folder = Path(tempfile.mkdtemp(prefix="edgepack-agent-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "agent.py").write_bytes(installed_agent())
    return folder / "agent.py"


AGENT = _written_agent()
# Begins a script that gets AGENT as its first argument and then imports from ``edgepack_agent``.
FIND_MODULES = "import runpy, sys\nsys.meta_path.insert(0, runpy.run_path(sys.argv[1])['Assembled'])\n"
TINY = Path(__file__).parent / "data"

# Runs the agent with every call that changes the disk counted; at the Nth the process dies, before the call is made.
DYING_AGENT = """
import os, runpy, signal, sys
left = int(sys.argv[2])
def dying(call):
    def wrapper(*args, **more):
        global left
        if call is not real_open or len(args) > 1 and args[1] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **more)
    return wrapper
real_open = os.open
for name in ("open", "replace", "rename", "symlink", "link", "unlink", "rmdir", "mkdir", "fsync", "chmod", "pwrite"):
    setattr(os, name, dying(getattr(os, name)))
runpy.run_path(sys.argv[1], run_name="__main__")
"""


class LoadedAgent:
    """The agent's modules as one: a name is looked up in all of them, and replaced wherever it is used."""

    def __init__(self, modules: list[ModuleType]) -> None:
        vars(self)["_modules"] = modules

    def _holders(self, name: str) -> list[ModuleType]:
        holders = [module for module in vars(self)["_modules"] if name in vars(module)]
        if not holders:
            raise AttributeError(f"The agent has nothing of the name {name}.")
        return holders

    def __getattr__(self, name: str) -> Any:
        return getattr(self._holders(name)[0], name)

    def __setattr__(self, name: str, value: Any) -> None:
        for module in self._holders(name):
            setattr(module, name, value)


def load_agent() -> LoadedAgent:
    """The agent's modules in this process, fresh ones each time; they speak to nobody until main is called."""
    program = runpy.run_path(str(AGENT))
    package = program["PACKAGE"]
    sys.meta_path.insert(0, program["Assembled"])
    try:
        names = [name for name in program["MODULES"] if name != "__init__"]
        return LoadedAgent([importlib.import_module(f"{package}.{name}") for name in names])
    finally:
        sys.meta_path.remove(program["Assembled"])
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[name]


class AgentFailure(Exception):
    """The agent answered with an error; ``code`` is the protocol's word for it."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code = error["code"]
        self.error = error


class AgentClient:
    """Speaks the protocol to an agent in a child process."""

    def __init__(
        self,
        root: Path,
        *,
        python: str = sys.executable,
        env: Mapping[str, str] | None = None,
        kill_at: int = 0,
        agent: Path = AGENT,
    ) -> None:
        """``kill_at`` makes the agent die of SIGKILL at its Nth call that changes the disk."""
        self.root = root
        program = ["-c", DYING_AGENT, str(agent), str(kill_at)] if kill_at else [str(agent)]
        self.process = subprocess.Popen(
            [python, "-I", "-u", *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
        )
        self.progress: list[dict[str, Any]] = []
        self._next_id = 0
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"\n"
        assert self.process.stdout.readline() == b"EDGEPACK1 -\n"

    def __enter__(self) -> AgentClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the session as a host does: by closing the agent's input."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # the test may have killed the agent
                    stream.close()
        self.process.wait(20)

    def kill(self) -> None:
        """Pulls the plug: SIGKILL."""
        self.process.kill()
        self.process.wait(20)

    def send_raw(self, data: bytes) -> None:
        """Bytes as they are, frames or not."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, verb: str, payload: bytes = b"", **args: Any) -> int:
        """Sends a request without waiting for its reply; returns its id."""
        self._next_id += 1
        header = {"id": self._next_id, "verb": verb, "n": len(payload), **args}
        self.send_raw(json.dumps(header).encode() + b"\n" + payload)
        return self._next_id

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next frame that is no progress: its header and payload."""
        assert self.process.stdout is not None
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise EOFError("the agent ended")
            header = json.loads(line)
            payload = self.process.stdout.read(header["n"])
            if "progress" not in header:
                return header, payload
            self.progress.append(header["progress"])

    def request(self, verb: str, payload: bytes = b"", **args: Any) -> dict[str, Any]:
        """Sends a request and returns its result; raises :class:`AgentFailure`."""
        return self.request_with_payload(verb, payload, **args)[0]

    def request_with_payload(self, verb: str, payload: bytes = b"", **args: Any) -> tuple[dict[str, Any], bytes]:
        """As :meth:`request`, with the reply's payload."""
        sent = self.send(verb, payload, **args)
        header, received = self.receive()
        assert header["id"] in (sent, None)
        if not header["ok"]:
            raise AgentFailure(header["error"])
        if header.get("body"):
            return json.loads(received), b""
        return header["result"], received

    def hello(self, *, lock: bool = True, app: str | None = None, **more: Any) -> dict[str, Any]:
        """Opens the session on this client's root."""
        return self.request("hello", protocol=1, root=str(self.root), app=app, lock=lock, who="a test", **more)

    def hello_and_push(self, release: FakeRelease) -> None:
        """A whole push."""
        self.hello()
        self.push(release)

    def activate(self, release: FakeRelease, **more: Any) -> dict[str, Any]:
        """Activates a release without a check."""
        args = {"op": new_op(), "app": release.app, "release": release.release, "unchecked": True, "by": "test"}
        return self.request("activate", **{**args, "hooks": None, **more})

    def put(self, data: bytes, offset: int = 0) -> dict[str, Any]:
        """Stages one file."""
        sha256 = hashlib.sha256(data).hexdigest()
        return self.request("put", data[offset:], sha256=sha256, bytes=len(data), offset=offset)

    def push(self, release: FakeRelease) -> dict[str, Any]:
        """Sends what is missing of a release and commits it."""
        every = [*release.files.values(), *(data for data, _ in release.wheels.values())]
        runtime = {"id": release.runtime_id} if release.wheels else None
        wanted = [{"sha256": digest(data), "bytes": len(data)} for data in every]
        found = self.request("missing", app=release.app, files=wanted, runtime=runtime)
        self.sent = 0
        for name, data in release.files.items():
            if found["have"][digest(data)] < len(data):
                self.put(data, found["have"][digest(data)])
                self.sent += len(data) - found["have"][digest(data)]
            assert name
        if not found["runtime_present"]:
            for data, _ in release.wheels.values():
                self.put(data)
        return self.request("commit", **release.commit_arguments())


def digest(data: bytes) -> str:
    """The SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def record_digest(wheel: bytes) -> str:
    """The SHA-256 of a wheel's RECORD; of nothing where it has none."""
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            return digest(archive.read(next(name for name in archive.namelist() if name.endswith("/RECORD"))))
    except (zipfile.BadZipFile, zlib.error, StopIteration, OSError, RuntimeError, ValueError, EOFError):
        return digest(b"")


def new_op() -> str:
    """A fresh operation id."""
    return secrets.token_hex(8)


@dataclass
class FakeRelease:
    """A release made by hand: its files, and a manifest that fits them."""

    app: str = "kws"
    version: str = "1.0.0"
    contents: dict[str, bytes] = field(default_factory=lambda: {"model.tflite": b"no real model " * 100})
    wheels: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    runtime: dict[str, Any] | None = None

    @property
    def manifest(self) -> bytes:
        """The bytes of manifest.json."""
        files = [
            {"path": path, "bytes": len(data), "sha256": digest(data)} for path, data in sorted(self.contents.items())
        ]
        files += [
            {"path": f"wheels/{name}", "bytes": len(data), "sha256": digest(data)}
            for name, (data, _) in sorted(self.wheels.items())
        ]
        records = {f"wheels/{name}": record_digest(data) for name, (data, _) in sorted(self.wheels.items())}
        manifest = {"schema": 1, "name": self.app, "version": self.version, "files": files, "records": records}
        manifest |= self.extra
        return json.dumps(manifest).encode()

    @property
    def release(self) -> str:
        """The release id."""
        return f"{self.version}-{digest(self.manifest)[:12]}"

    @property
    def runtime_id(self) -> str:
        """The id of its runtime."""
        return digest(repr(sorted(self.wheels)).encode())[:16]

    @property
    def files(self) -> dict[str, bytes]:
        """Everything that is installed into the release's folder."""
        return {"manifest.json": self.manifest, **self.contents}

    def commit_arguments(self) -> dict[str, Any]:
        """The arguments of ``commit``."""
        wheels = [
            {"filename": name, "bytes": len(data), "sha256": digest(data), "dist": dist}
            for name, (data, dist) in self.wheels.items()
        ]
        runtime_id = self.runtime_id if self.wheels else None
        return {
            "op": new_op(),
            "app": self.app,
            "release": self.release,
            "files": [{"path": path, "bytes": len(data), "sha256": digest(data)} for path, data in self.files.items()],
            "runtime": {"id": runtime_id, "wheels": wheels} if wheels else None,
            "device": {
                "platform": {"python": "3", "arch": "any", "libc": "any"},
                "runtime": self.runtime
                or {
                    "package": "none",
                    "version": "0",
                    "id": runtime_id,
                    "dists": [dist for _, dist in self.wheels.values()],
                    "installed": [],
                },
            },
        }


@functools.cache
def device_pythons() -> dict[str, str]:
    """Every Python from 3.8 on that tests may run the device's side with, by version ("3.8"); at least this one.

    Those on the PATH, those that pyenv keeps, and what ``EDGEPACK_TEST_PYTHONS`` names (paths, separated as PATH is).
    """
    named = os.environ.get("EDGEPACK_TEST_PYTHONS", "").split(os.pathsep)
    found = [shutil.which(f"python3.{minor}") for minor in range(8, 15)]
    kept = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv").glob("versions/3.*/bin/python3")
    working: dict[str, str] = {}
    for python in [*named, sys.executable, *found, *sorted(map(str, kept))]:
        if python and os.access(python, os.X_OK):
            code = "import sys; print('%d.%d' % sys.version_info[:2] if sys.version_info >= (3, 8) else '')"
            answer = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False)
            if answer.returncode == 0 and answer.stdout.strip():
                working.setdefault(answer.stdout.strip(), python)
    return dict(sorted(working.items(), key=lambda item: int(item[0].partition(".")[2])))


def find_pythons() -> list[str]:
    """The paths of :func:`device_pythons`."""
    return list(device_pythons().values())
