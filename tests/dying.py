"""Proofs of reliability: agent or host die at a named point, the disk fills there, or the line is cut; then the rules.

The rules, after each blow: ``current`` loads and is the old or the new release; what the host was told is true; the
next push completes; nothing is left in ``incoming/``. tests/test_deploy_reliability.py runs a handful of trials,
benchmarks/reliability.py as many as you like.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import random
import secrets
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from bundle_models import write_wheel
from cutting_proxy import CuttingProxy, Fault
from deploying import PLATFORM, tiny_model, tiny_target
from real_sshd import RealSshd

import edgepack
from edgepack.bundle.build import build_bundle
from edgepack.bundle.wheels import folder_wheels
from edgepack.deploy.delta import LEAST_BYTES
from edgepack.deploy.hooks import Hooks
from edgepack.device import ConnectOptions, connect
from edgepack.documents import BundleDocument
from edgepack.errors import EdgepackError
from edgepack.ondevice.agent.failpoints import EVENT, POINTS
from edgepack.target.lock import shipped_wheels
from edgepack.target.solver import own_runtime

APP = "tiny"
PATIENCE_S = 120
# What a whole deployment sends to the device, login and agent included, and what comes back.
BYTES_THERE, BYTES_BACK = 160_000, 7_000
# Stands in for a wheel that the device lacks. Nobody imports it: the program that loads has a NumPy already.
WHEEL = "numpy-1.26.99-py3-none-any.whl"

# The device's Python: it strikes once, at the point that the file `order` beside it names. It has none of `hidden`.
_DYING_PYTHON = """#!{python} -Iu
import json, os, signal, sys
from importlib import metadata
ORDER = {order!r}
def find_version(name, version=metadata.version):
    if name in {hidden!r}:
        raise metadata.PackageNotFoundError(name)
    return version(name)
metadata.version = find_version
def watch(event, arguments):
    if event != {event!r} or not os.path.exists(ORDER):
        return
    with open(ORDER) as file:
        order = json.load(file)
    if arguments[0] != order["point"]:
        return
    os.unlink(ORDER)
    if order["victim"] == "agent":
        os.kill(os.getpid(), signal.SIGKILL)
    if order["victim"] == "host":
        os.kill(order["pid"], signal.SIGKILL)
    if order["victim"] == "disk":
        try:
            with open(order["hog"], "wb", buffering=0) as hog:
                for size in (1 << 16, 1 << 12, 1):
                    try:
                        while hog.write(bytes(size)) == size:
                            pass
                    except OSError:
                        pass
        except OSError:
            pass
sys.addaudithook(watch)
program, sys.argv = sys.argv[-1], ["-c"]
exec(compile(program, "<bootstrap>", "exec"), dict(__name__="__main__"))
"""

# Another program on the device: loads the active release through the door of each folder that it is told.
_LOADING = """
import sys, types, numpy as np
for line in sys.stdin:
    path = line.strip() + "/lib/edgepack_device.py"
    door = types.ModuleType("door"); door.__file__ = path
    exec(compile(open(path).read(), path, "exec"), door.__dict__)
    model = door.load("tiny")
    assert np.isfinite(model.predict(np.zeros((1, 8, 8, 1), np.float32))).all()
    print(model.info()["release"], flush=True)
    model.close()
"""


def write_dying_python(path: Path, order: Path, hidden: tuple[str, ...] = ()) -> None:
    """Make a Python for a device that strikes at the point which ``order`` names, a JSON file; without it, it works.

    It says that it lacks the distributions that are ``hidden``.
    """
    path.write_text(_DYING_PYTHON.format(python=sys.executable, order=str(order), event=EVENT, hidden=hidden))
    path.chmod(0o755)


@dataclasses.dataclass(frozen=True)
class Way:
    """How a host reaches the device: picklable, for it is another process."""

    address: str
    options: ConnectOptions


class Door:
    """A program that runs on and loads what is active, as a user's service does when it starts."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LOADING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def load(self, root: Path) -> str:
        """The release that was loaded from there, and that computed something."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{root}\n")
        self._process.stdin.flush()
        release = self._process.stdout.readline().strip()
        assert release, f"nothing could be loaded from {root}"
        return release

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def deploy(way: Way, bundle: Path, order: Path, wanted: dict[str, Any] | None, hook: str, log: Path) -> None:
    """A host's work, in a process of its own that may be killed: push, activate, gc; each is noted when it is done."""
    if wanted is not None:
        order.write_text(json.dumps({**wanted, "pid": os.getpid()}))

    def note(word: str) -> None:
        with log.open("a") as file:
            file.write(f"{word}\n")

    try:
        with connect(way.address, way.options, lock=True) as session:
            release = edgepack.push(bundle, session).release
            note("pushed")
            verdict = {"verdict": "pass", "reasons": []}
            session.request("record", op=secrets.token_hex(8), app=APP, release=release, verdict=verdict)
            note("recorded")
            edgepack.activate(session, app=APP, hooks=Hooks(after_activate=(hook,), hook_timeout_s=60))
            note("activated")
            edgepack.gc(session, app=APP, keep=0)
            note("tidied")
    except EdgepackError as error:
        note(f"error:{error.code}")


class Proving:
    """What the trials share; a context manager. ``sshd`` None reaches the device as this machine."""

    def __init__(self, folder: Path, sshd: RealSshd | None = None) -> None:
        self.folder = folder
        self.order = folder / "order"
        self.python = folder / "dying-python"
        self._sshd = sshd
        self._trials = 0
        self._known = folder / "known_hosts"

    def __enter__(self) -> Proving:
        write_dying_python(self.python, self.order, hidden=("numpy",))
        if self._sshd is not None:
            self._known.write_text(f"* {self._sshd.host_key}\n")
        bundles = [large_bundle(self.folder, number) for number in range(3)]
        self.releases = [bundle.release for _, bundle in bundles]
        (_, self.old, self.new), self.bundle = self.releases, bundles[2][0]
        self.template = self.folder / "template"
        # The first is a release that nobody needs, for gc.
        here: dict[str, Any] = {"device": f"local:{self.template}", "options": ConnectOptions(python=sys.executable)}
        for path, _ in bundles[:2]:
            edgepack.push(path, **here)
        edgepack.activate(unchecked=True, **here)
        self._hosts = multiprocessing.get_context("forkserver")
        self._hosts.set_forkserver_preload(["dying", "edgepack.device.ssh.client"])
        self.door = Door()
        self.interrupted = self.folder / "interrupted"
        shutil.copytree(self.template, self.interrupted, symlinks=True)
        self._strike(self.way(self.interrupted), {"point": "switch:swapped", "victim": "agent"}, "true")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.door.close()

    def way(self, root: Path, *, port: int | None = None) -> Way:
        """How the dying Python of a device is reached."""
        if self._sshd is None:
            options = ConnectOptions(python=str(self.python), retries=0, wait_s=60.0)
            return Way(f"local:{root}", options)
        options = dataclasses.replace(
            self._sshd.options,
            python=str(self.python), root=str(root), known_hosts=self._known, retries=0, wait_s=60.0,
        )  # fmt: skip
        return Way(f"{self._sshd.user}@127.0.0.1:{port or self._sshd.port}", options)

    def blow(self, point: str, victim: str, *, on: Path | None = None) -> str:
        """One trial: a deployment during which ``victim`` dies at ``point`` (or the disk fills); what was active then.

        ``on``: the folder of a small file system, for the disk.
        """
        assert point in POINTS
        hook = "false" if point.startswith("back:") else "true"
        with self._device(self.interrupted if point.startswith("settle:") else self.template, on) as root:
            wanted = {"point": point, "victim": victim, "hog": str(root.parent / "hog")}
            said = self._strike(self.way(root), wanted, hook)
            assert not self.order.exists(), f"{point} was never reached: {said}"
            if victim == "disk":
                (root.parent / "hog").unlink()
            elif victim == "agent":
                assert said[-1:] == ["error:agent-ended"], said
            return self._rules(root, said)

    def cut(self, fault: Fault) -> tuple[str, bool]:
        """One trial with a line that is cut; what was active then, and whether the cut ended the command."""
        assert self._sshd is not None
        with self._device(self.template, None) as root, CuttingProxy(self._sshd.port, faults=[fault]) as proxy:
            said = self._strike(self.way(root, port=proxy.port), None, "true")
            return self._rules(root, said), said != ["pushed", "recorded", "activated", "tidied"]

    @contextlib.contextmanager
    def _device(self, template: Path, on: Path | None) -> Iterator[Path]:
        self._trials += 1
        root = (on or self.folder) / f"device-{self._trials}"
        shutil.copytree(template, root, symlinks=True)
        yield root
        for base, _, _ in os.walk(root):
            Path(base).chmod(0o700)
        shutil.rmtree(root)

    def _strike(self, way: Way, wanted: dict[str, Any] | None, hook: str) -> list[str]:
        """What a host noted before it ended, or was ended."""
        log = self.folder / "log"
        log.unlink(missing_ok=True)
        self.order.unlink(missing_ok=True)
        host = self._hosts.Process(target=deploy, args=(way, self.bundle, self.order, wanted, hook, log))
        host.start()
        host.join(PATIENCE_S)
        assert host.exitcode is not None, f"the host hangs at {wanted}"
        killed = wanted is not None and wanted["victim"] == "host"
        assert host.exitcode == (-9 if killed else 0), f"the host ended with {host.exitcode} at {wanted}"
        said = log.read_text().split() if log.exists() else []
        assert not {"error:internal", "error:release-damaged", "error:digest-mismatch"} & set(said), said
        return said

    def _rules(self, root: Path, said: list[str]) -> str:
        """Hold a device that was struck to the rules; the word for what was active."""
        active = self.door.load(root)
        assert active in (self.old, self.new)
        assert active == self.new or "activated" not in said, "an activation was told that did not happen"
        assert active == self.old or "error:hook-failed" not in said, "a way back was told that did not happen"
        require_whole(root, active)
        if "pushed" in said:
            require_whole(root, self.new)
        way = self.way(root)
        with connect(way.address, way.options, lock=True) as session:
            status = edgepack.status(session, app=APP)
            assert status.current in (active, self.old)
            verdicts = {found["release"]: found["verdict"] for found in status.releases}
            assert verdicts.get(self.new) == "pass" or "recorded" not in said, "a verdict was told that is not kept"
            assert edgepack.push(self.bundle, session).release == self.new
            edgepack.activate(session, app=APP, release=self.new, unchecked=True)
            status = edgepack.status(session, app=APP)
            history = edgepack.history(session, app=APP).history
        assert (status.current, status.candidate) == (self.new, self.new)
        assert self.door.load(root) == self.new
        require_whole(root, self.new)
        outcomes = [entry["outcome"] for entry in history if entry["to"] == self.new]
        assert outcomes in (["done"], ["hook-failed", "done"]), outcomes
        assert list((root / "incoming").iterdir()) == []
        assert not list((root / "apps" / APP).glob("**/*.new-*"))
        return "old" if active == self.old else "new"


def large_bundle(folder: Path, number: int) -> tuple[Path, BundleDocument]:
    """The tiny classifier in releases that differ, with as much behind it that it comes again in chunks.

    Some of those are new in each release, and each brings a wheel where the device has no NumPy.
    """
    model = tiny_model(folder / str(number), wrong=number)
    # S311: fills a model, guards nothing.
    tails = [random.Random(seed).randbytes(LEAST_BYTES // 2) for seed in (-1, number)]  # noqa: S311
    model.write_bytes(model.read_bytes() + b"".join(tails))
    shelf = folder / "shelf"
    write_wheel(shelf, WHEEL, {"numpy/__init__.py": b"", "numpy/core.py": b"# stands in\n" * 500})
    target, path = tiny_target(), folder / f"{APP}-{number}.edgepack"
    own = own_runtime(target, PLATFORM, shipped_wheels())
    runtime = dataclasses.replace(own, wheels=folder_wheels(shelf, [PLATFORM]))
    document = build_bundle(
        model, target=target, name=APP, version=f"{number}.0.0", output=path, runtimes=[runtime], wheels=shelf
    )
    return path, document


def require_whole(root: Path, release: str) -> None:
    """See that a release is there with every byte that its id vouches for."""
    folder = root / "apps" / APP / "releases" / release
    manifest = (folder / "manifest.json").read_bytes()
    assert hashlib.sha256(manifest).hexdigest()[:12] == release[-12:]
    for entry in json.loads(manifest)["files"]:
        if not entry["path"].startswith("wheels/"):
            assert hashlib.sha256((folder / entry["path"]).read_bytes()).hexdigest() == entry["sha256"], entry["path"]


@contextlib.contextmanager
def small_disk(folder: Path, mib: int = 4) -> Iterator[Path]:
    """A file system of so many MiB; root mounts it."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        # What somebody still holds open for a moment goes with them.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def random_cuts(seed: int) -> Iterator[Fault]:
    """Cuts and resets anywhere in a whole deployment, there or back, without an end."""
    # S311: spreads faults, guards nothing.
    chance = random.Random(seed)  # noqa: S311
    while True:
        kind: Literal["cut", "reset"] = "cut" if chance.random() < 0.5 else "reset"
        if chance.random() < 0.5:
            yield Fault(chance.randrange(BYTES_THERE), "device", kind)
        else:
            yield Fault(chance.randrange(BYTES_BACK), "host", kind)
