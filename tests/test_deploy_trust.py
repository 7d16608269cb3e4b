"""A pinned device: what a key can still do that may run nothing but the pinned agent, behind a real sshd."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agent_client import AGENT, FakeRelease, digest
from deploying import tiny_model, tiny_target
from pinning import commit_by_hand, make_key, refused
from real_sshd import RealSshd
from test_agent_push import TOY, make_wheel

import edgepack
from edgepack.bundle import open_bundle, runtime_id
from edgepack.bundle.build import build_bundle
from edgepack.bundle.signature import sign
from edgepack.cli.main import run
from edgepack.deploy.hooks import Hooks
from edgepack.deploy.staging import plan_staging
from edgepack.device import ConnectOptions, DeviceAddress, Session, connect, open_session, open_transport
from edgepack.device.pinmemory import remember
from edgepack.documents import TrustDocument
from edgepack.errors import EdgepackError, InputError
from edgepack.events import Event

pytestmark = [
    pytest.mark.sshd,
    pytest.mark.skipif(os.geteuid() != 0, reason="what pins a device belongs to another account: it takes root"),
]


@dataclass(frozen=True)
class Pinned:
    """A device behind a real sshd, pinned to alice: ``options`` log in with the key that may only deploy."""

    sshd: RealSshd
    folder: Path
    document: TrustDocument
    hook: tuple[str, ...]

    @property
    def options(self) -> ConnectOptions:
        """The restricted key."""
        return replace(self.sshd.options, identity=self.folder / "deploy")

    @property
    def where(self) -> dict[str, Any]:
        """What reaches it with the restricted key."""
        return {"device": self.sshd.address, "options": self.options}

    @property
    def root(self) -> Path:
        """Its edgepack folder."""
        return Path(self.document.root)

    def session(self, **more: Any) -> Session:
        """A session that holds the lock."""
        return connect(self.sshd.address, self.options, lock=True, **more)

    def bundle(self, counter: int | None, key: str | None = "alice", version: str | None = None) -> Path:
        """A bundle of the tiny classifier with that counter, signed by that key."""
        path = self.folder / f"{secrets.token_hex(4)}.edgepack"
        build_bundle(
            self.folder / "model" / "tiny.tflite", target=tiny_target(), name="tiny", version=version or f"1.{counter}",
            output=path, with_runtime=False, counter=counter, sign_key=None if key is None else self.folder / key,
        )  # fmt: skip
        return path

    def ssh(
        self, *words: str, program: str = "ssh", given: bytes = b"", timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[bytes]:
        """The user's own ssh, scp or sftp with the restricted key."""
        port = "-p" if program == "ssh" else "-P"
        argv = [program, "-F", os.devnull, port, str(self.sshd.port), "-i", str(self.folder / "deploy")]
        argv += ["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={self.sshd.known_hosts}"]
        return subprocess.run([*argv, *words], input=given, capture_output=True, timeout=timeout_s, check=False)

    def trust(self, signers: Path, **more: Any) -> TrustDocument:
        """The owner pins it again."""
        owner = replace(self.sshd.options, root=str(self.root))
        lib = str(self.folder / "lib")
        return edgepack.trust(self.sshd.address, allowed_signers=signers, install_root=lib, options=owner, **more)

    def forget(self) -> None:
        """As it was at first: nothing on it, no counter seen."""
        shutil.rmtree(self.document.folder)
        subprocess.run(["rm", "-rf", str(self.root)], check=True)
        self.trust(self.folder / "signers", hooks=Hooks(after_activate=self.hook))

    @property
    def login(self) -> str:
        """``user@host`` for ssh and scp."""
        return f"{self.sshd.user}@127.0.0.1"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that other accounts can read, as pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="edgepack-trust-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def pinned(folder: Path) -> Iterator[Pinned]:
    """The owner pins the device over SSH, and lets the key ``deploy`` run what trust printed."""
    for name in ("alice", "mallory"):
        make_key(folder / name)
    make_key(folder / "deploy")
    tiny_model(folder / "model")
    hook = ("touch", str(folder / "hooked"))
    (folder / "signers").write_text(f"alice {(folder / 'alice.pub').read_text()}")
    with RealSshd(folder / "sshd") as sshd:
        document = edgepack.trust(
            sshd.address,
            allowed_signers=folder / "signers",
            key=folder / "deploy.pub",
            install_root=str(folder / "lib"),
            hooks=Hooks(after_activate=hook),
            options=replace(sshd.options, root=str(folder / "device")),
        )
        keys = Path(f"{sshd.key}.pub")
        keys.write_text(keys.read_text() + document.authorized_keys + "\n")
        yield Pinned(sshd, folder, document, hook)


@pytest.fixture(autouse=True)
def _empty_device(request: pytest.FixtureRequest) -> None:
    """Each test begins with an empty edgepack folder."""
    if "pinned" in request.fixturenames:
        device: Pinned = request.getfixturevalue("pinned")
        subprocess.run(["rm", "-rf", str(device.root)], check=True)


def stage_and_commit(session: Session, path: Path, **changes: Any) -> dict[str, Any]:
    """What a host of another mind sends: every file of a bundle, then a commit with whatever it likes."""
    bundle = open_bundle(path)
    staging = plan_staging(bundle, session.facts)
    for file in staging.files:
        with bundle.open_entry(file.path) as stream:
            content = stream.read()
        session.request("put", [content], len(content), sha256=file.sha256, bytes=file.bytes, offset=0)
    arguments = {**staging.commit_arguments(), "op": secrets.token_hex(8), **changes}
    return session.request("commit", **arguments).result


def test_the_whole_job_works_with_signed_and_newer_bundles(pinned: Pinned) -> None:
    """Push, check, activate, the next release, and an explicit rollback that the history keeps."""
    first, second = pinned.bundle(1), pinned.bundle(2)
    assert edgepack.push(first, **pinned.where).already_present is False
    assert edgepack.check(app="tiny", **pinned.where).verdict == "pass"
    hooks = Hooks(after_activate=pinned.hook)
    edgepack.activate(app="tiny", hooks=hooks, **pinned.where)
    assert (pinned.folder / "hooked").exists()
    deployed = edgepack.deploy(pinned.sshd.address, second, against="current", options=pinned.options)
    assert deployed.activate is not None
    assert deployed.check is not None
    assert deployed.check.ratio is not None
    status = edgepack.status(pinned.sshd.address, options=replace(pinned.options, transport="openssh"))
    assert (status.current, status.counter) == (open_bundle(second).release, 2)
    edgepack.rollback(app="tiny", **pinned.where)
    assert [entry["verb"] for entry in edgepack.history(**pinned.where).history] == ["activate"] * 2 + ["rollback"]
    assert edgepack.status(**pinned.where).current == open_bundle(first).release


def test_the_newest_may_come_again(pinned: Pinned) -> None:
    """What was interrupted or damaged is pushed again; the same release is no replay."""
    path = pinned.bundle(1)
    assert edgepack.push(path, **pinned.where).already_present is False
    assert edgepack.push(path, **pinned.where).already_present is True
    release = pinned.root / "apps" / "tiny" / "releases" / open_bundle(path).release
    (release / "model.tflite").unlink()
    assert edgepack.push(path, **pinned.where).bytes.sent > 0


def test_unsigned_and_foreign_bundles_are_not_installed(pinned: Pinned) -> None:
    """Neither by edgepack nor by a host of another mind: no release is there afterwards, and no candidate."""
    refused("unsigned", lambda: edgepack.push(pinned.bundle(1, key=None), **pinned.where))
    refused("replayed", lambda: edgepack.push(pinned.bundle(None), **pinned.where))
    refused("foreign-signature", lambda: edgepack.push(pinned.bundle(1, "mallory"), **pinned.where))
    path = pinned.bundle(2)
    elsewhere = sign(b"something else", pinned.folder / "alice").decode()
    namespace = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", str(pinned.folder / "alice")],
        input=open_bundle(path).manifest_bytes, check=True, capture_output=True,
    ).stdout.decode()  # fmt: skip
    for signature, code in [
        (None, "unsigned"), (elsewhere, "foreign-signature"), (namespace, "foreign-signature"),
        ("nonsense", "foreign-signature"),
    ]:  # fmt: skip
        with pinned.session() as session:
            refused(code, lambda s=session, w=signature: stage_and_commit(s, path, signature=w))  # type: ignore[misc]
    with pinned.session() as session:
        assert session.hello["apps"].get("tiny", {"releases": []})["releases"] == []


def test_replayed_bundles_are_not_installed(pinned: Pinned) -> None:
    """A counter that is not higher is refused, also after the app was removed, and also by activate."""
    old, new = pinned.bundle(4), pinned.bundle(5)
    edgepack.push(old, **pinned.where)
    edgepack.push(new, **pinned.where)
    other = pinned.bundle(5, version="other")
    refused("replayed", lambda: edgepack.push(old, **pinned.where))
    refused("replayed", lambda: edgepack.push(other, **pinned.where))
    downgrade: dict[str, Any] = {"app": "tiny", "release": open_bundle(old).release, "unchecked": True}
    assert "rollback" in refused("replayed", lambda: edgepack.activate(**downgrade, **pinned.where)).hint
    with pinned.session() as session:
        session.request("gc", op="x", app="tiny", keep=0, forget=True)
    refused("replayed", lambda: edgepack.push(old, **pinned.where))


def test_what_would_be_refused_is_refused_before_a_byte_moves(pinned: Pinned) -> None:
    """A dry run promises nothing that the push would refuse, and neither leaves anything there for it."""
    edgepack.push(pinned.bundle(4), **pinned.where)
    there = sorted(pinned.root.rglob("*"))
    for path, code in [(pinned.bundle(3), "replayed"), (pinned.bundle(4, version="other"), "replayed"),
                       (pinned.bundle(5, "mallory"), "foreign-signature")]:  # fmt: skip
        for dry_run in (True, False):
            refused(code, lambda p=path, d=dry_run: edgepack.push(p, dry_run=d, **pinned.where))  # type: ignore[misc]
            assert sorted(pinned.root.rglob("*")) == there, "no file of it came"
    assert edgepack.push(pinned.bundle(5), dry_run=True, **pinned.where).bytes.sent > 0
    subprocess.run(["rm", "-rf", str(pinned.root)], check=True)
    edgepack.push(pinned.bundle(5), dry_run=True, **pinned.where)
    assert not pinned.root.exists(), "to judge a signature, the device writes nothing"


def test_a_counter_that_is_lost_stops_everything_that_needs_it(pinned: Pinned) -> None:
    """A broken counters.json is no licence for a replay."""
    edgepack.push(pinned.bundle(4), **pinned.where)
    (pinned.root / "counters.json").write_text("{")
    refused("pin-broken", lambda: edgepack.push(pinned.bundle(5), **pinned.where))


def test_a_release_cannot_be_committed_for_another_app(pinned: Pinned) -> None:
    """The app's name is signed: what was signed for one app replaces no other."""
    path = pinned.bundle(1)
    with pinned.session() as session:
        refused("digest-mismatch", lambda: stage_and_commit(session, path, app="other"))
        release = open_bundle(path).release
        refused("digest-mismatch", lambda: stage_and_commit(session, path, release=f"9.9{release[-13:]}"))


def test_wheels_that_the_signed_manifest_does_not_list_are_refused(pinned: Pinned) -> None:
    """The host chooses among what was signed; it brings no code of its own, and names no folder."""
    path, data = pinned.bundle(1), b"not a wheel of this bundle"
    wheel = {"filename": "evil-1-py3-none-any.whl", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    with pinned.session() as session:
        session.request("put", [data], len(data), sha256=wheel["sha256"], bytes=len(data), offset=0)
        for runtime in ({"id": "x", "wheels": [{**wheel, "dist": "evil"}]}, {"id": "x", "wheels": []}):
            refused("digest-mismatch", lambda r=runtime: stage_and_commit(session, path, runtime=r))  # type: ignore[misc]
        device = {"platform": {"python": "3"}, "runtime": {"id": "../../..", "dists": ["/tmp"], "package": "os"}}
        release = stage_and_commit(session, path, device=device)["release"]
    kept = json.loads((pinned.root / "apps" / "tiny" / "releases" / release / "device.json").read_text())
    assert (kept["runtime"]["id"], kept["runtime"]["dists"], kept["runtime"]["package"]) == (None, [], None)


def test_a_runtime_that_was_there_before_is_not_believed(pinned: Pinned) -> None:
    """The wheels of the signed manifest are unpacked into a folder of the pin's own, whatever lies under that id."""
    wheel = make_wheel(TOY)
    name = "toy-1.0-py3-none-any.whl"
    release = FakeRelease(extra={"counter": 1}, wheels={name: (wheel, "toy")})
    id_ = runtime_id({name: hashlib.sha256(wheel).hexdigest()})
    planted = pinned.root / "runtimes" / str(id_) / "toy"
    planted.mkdir(parents=True)
    (planted / "evil.py").touch()
    runtime = {**release.commit_arguments()["runtime"], "id": id_}
    signature = sign(release.manifest, pinned.folder / "alice").decode()
    wanted: dict[str, Any] = {"app": "kws", "files": [], "runtime": runtime, "release": release.release}
    wanted |= {"manifest": release.manifest.decode(), "signature": signature}
    with pinned.session() as session:
        assert session.request("missing", **wanted).result["runtime_present"] is False
        commit_by_hand(session, release, runtime=runtime, signature=signature)
        assert session.request("missing", **wanted).result["runtime_present"] is True
    kept = json.loads((pinned.root / "apps" / "kws" / "releases" / release.release / "device.json").read_text())
    used = pinned.root / "runtimes" / kept["runtime"]["id"] / "toy"
    assert used != planted
    assert (used / "toy" / "__init__.py").exists()
    assert not (used / "evil.py").exists()


def plant(folder: Path, how: str) -> None:
    """What somebody who once had the account leaves in an unpacked runtime."""
    package = folder / "toy" / "toy"
    if how == "fitting record":
        planted = {**TOY, "toy/__init__.py": b"answer = 'evil'\n"}
        shutil.rmtree(folder / "toy")
        with zipfile.ZipFile(io.BytesIO(make_wheel(planted))) as archive:
            archive.extractall(folder / "toy")
    elif how == "another file":
        (package / "data.abi3.so").write_bytes(b"evil")
    elif how == "linked":
        (package / "more").symlink_to("/tmp", target_is_directory=True)
    elif how == "another distribution":
        shutil.copytree(folder / "toy", folder / "evil")
    elif how == "compiled":
        (package / "__pycache__").mkdir()
        (package / "__pycache__" / "__init__.cpython-311.pyc").write_bytes(b"evil")


PLANTS = ["fitting record", "another file", "linked", "another distribution", "compiled"]


@pytest.mark.parametrize("how", PLANTS)
def test_a_runtime_that_was_planted_under_the_pin_is_not_run(pinned: Pinned, how: str) -> None:
    """A folder of the pin's own name is taken only as the signed manifest names it; else the wheel is unpacked anew."""
    wheel, name = make_wheel(TOY), "toy-1.0-py3-none-any.whl"
    release = FakeRelease(extra={"counter": 1}, wheels={name: (wheel, "toy")})
    runtime = {**release.commit_arguments()["runtime"], "id": runtime_id({name: digest(wheel)})}
    signature = sign(release.manifest, pinned.folder / "alice").decode()
    wanted: dict[str, Any] = {"app": "kws", "files": [], "runtime": runtime, "release": release.release}
    wanted |= {"manifest": release.manifest.decode(), "signature": signature}
    activate: dict[str, Any] = {"app": "kws", "release": release.release, "unchecked": True}
    with pinned.session() as session:
        commit_by_hand(session, release, runtime=runtime, signature=signature)
    folder = next((pinned.root / "runtimes").iterdir())
    plant(folder, how)
    try:
        pinned.trust(pinned.folder / "signers", hooks=Hooks(after_activate=pinned.hook))
        if (
            how != "compiled"
        ):  # a program of the owner's leaves the like: it goes, and is no reason to send wheels again
            refused("release-damaged", lambda: edgepack.activate(**activate, **pinned.where))
            with pinned.session() as session:
                of = {"app": "kws", "release": release.release, "options": {}}
                refused("release-damaged", lambda s=session, o=of: s.request("measure", **o))  # type: ignore[misc]
        with pinned.session() as session:
            assert session.request("missing", **wanted).result["runtime_present"] is (how == "compiled")
            commit_by_hand(session, release, runtime=runtime, signature=signature)
            assert session.request("missing", **wanted).result["runtime_present"] is True
        edgepack.activate(**activate, **pinned.where)
        files = [path for path in folder.rglob("*") if path.is_file()]
        there = {str(path.relative_to(folder / "toy")): path.read_bytes() for path in files}
        assert set(there) == {*TOY, "toy-1.0.dist-info/RECORD"}
        assert there["toy/__init__.py"] == TOY["toy/__init__.py"]
    finally:
        pinned.forget()


@pytest.mark.parametrize(
    "changes",
    [{"interpreter": "/tmp/evil"}, {"runtime": None}, {"dists": ["../../evil"]}, {"id": "evil"}, {"wheels": []}],
)
def test_a_set_up_that_was_planted_is_not_run(pinned: Pinned, changes: dict[str, Any]) -> None:
    """device.json lies within the account's reach: where it leads elsewhere than the signed manifest, it is refused."""
    wheel, name = make_wheel(TOY), "toy-1.0-py3-none-any.whl"
    release = FakeRelease(extra={"counter": 1}, wheels={name: (wheel, "toy")})
    runtime = {**release.commit_arguments()["runtime"], "id": runtime_id({name: digest(wheel)})}
    signature = sign(release.manifest, pinned.folder / "alice").decode()
    with pinned.session() as session:
        commit_by_hand(session, release, runtime=runtime, signature=signature)
    path = pinned.root / "apps" / "kws" / "releases" / release.release / "device.json"
    device = json.loads(path.read_text())
    of = device if changes.keys() & device.keys() else device["runtime"]
    of.update(changes)
    path.chmod(0o644)
    path.write_text(json.dumps(device))
    refused("pinned", lambda: edgepack.activate(app="kws", release=release.release, unchecked=True, **pinned.where))
    with pinned.session() as session:
        commit_by_hand(session, release, runtime=runtime, signature=signature)
    edgepack.activate(app="kws", release=release.release, unchecked=True, **pinned.where)


def test_wheels_whose_record_is_not_signed_are_refused(pinned: Pinned) -> None:
    """A bundle of an edgepack that named no RECORDs, or a wrong one, is told as that; nothing of it is unpacked."""
    wheel, name = make_wheel(TOY), "toy-1.0-py3-none-any.whl"
    for records, code in [({}, "pinned"), ({f"wheels/{name}": "0" * 64}, "digest-mismatch")]:
        release = FakeRelease(extra={"counter": 1, "records": records}, wheels={name: (wheel, "toy")})
        runtime = {**release.commit_arguments()["runtime"], "id": runtime_id({name: digest(wheel)})}
        signature = sign(release.manifest, pinned.folder / "alice").decode()
        with pinned.session() as session:
            refused(code, lambda s=session, r=release, t=runtime, w=signature: commit_by_hand(  # type: ignore[misc]
                s, r, runtime=t, signature=w
            ))  # fmt: skip
        assert not list(pinned.root.glob("runtimes/*"))
        subprocess.run(["rm", "-rf", str(pinned.root)], check=True)


@pytest.mark.parametrize("command", [["id"], []])
def test_the_key_gets_no_shell_and_runs_no_command(pinned: Pinned, command: list[str]) -> None:
    """Whatever is asked for, the agent starts, says so, and ends; nothing that was asked for has run."""
    done = pinned.ssh(pinned.login, *command, given=b"id\n")
    assert done.returncode != 0
    assert b"uid=" not in done.stdout + done.stderr
    assert b"nothing else" in done.stderr
    terminal = pinned.ssh("-tt", pinned.login, *command, given=b"id\n")
    assert b"uid=" not in terminal.stdout
    assert terminal.returncode != 0


def test_the_key_copies_nothing_in_or_out(pinned: Pinned) -> None:
    """Neither scp nor sftp, neither way."""
    stolen, planted = pinned.folder / "stolen", pinned.folder / "planted"
    for program, words in [
        ("scp", [f"{pinned.login}:/etc/passwd", str(stolen)]),
        ("scp", ["-O", f"{pinned.login}:/etc/passwd", str(stolen)]),
        ("scp", [str(pinned.folder / "signers"), f"{pinned.login}:{planted}"]),
        ("sftp", ["-b", os.devnull, pinned.login]),
    ]:
        assert pinned.ssh(*words, program=program).returncode != 0, words
    old = ["-O", str(pinned.folder / "signers"), f"{pinned.login}:{planted}"]
    with pytest.raises(subprocess.TimeoutExpired):  # the old protocol waits for the device to speak first
        pinned.ssh(*old, program="scp", timeout_s=3)
    assert not stolen.exists()
    assert not planted.exists()


def test_the_key_forwards_nothing(pinned: Pinned) -> None:
    """No connection goes through the device, in either direction."""
    through = pinned.ssh("-W", f"127.0.0.1:{pinned.sshd.port}", pinned.login)
    assert through.returncode != 0
    assert b"SSH-2.0" not in through.stdout
    back = pinned.ssh("-o", "ExitOnForwardFailure=yes", "-N", "-R", "127.0.0.1:0:127.0.0.1:1", pinned.login)
    assert back.returncode != 0


def test_the_agent_that_a_host_streams_is_not_run(pinned: Pinned) -> None:
    """The bootstrap and the program that come along are thrown away unread, and so is --python."""
    mark = pinned.folder / "streamed"
    evil = zlib.compress(f"open({str(mark)!r}, 'w')".encode())
    script = pinned.folder / "python"
    script.write_text(f"#!/bin/sh\ntouch {mark}\n")
    script.chmod(0o755)
    options = replace(pinned.options, python=str(script))
    transport = open_transport(DeviceAddress.parse(pinned.sshd.address), options)
    with open_session(transport, options, agent=evil) as session:
        assert session.hello["pinned"]
        assert session.facts.executable == sys.executable
    assert not mark.exists()


def test_a_device_that_is_known_to_be_pinned_is_sent_no_agent(pinned: Pinned) -> None:
    """Only the first meeting streams an agent in vain; after it nothing goes out but requests, in one round trip."""
    sent = []
    for _ in range(2):
        with connect(pinned.sshd.address, pinned.options) as session:
            sent.append((session.bytes_sent, session.round_trips))
    (first, _), (second, round_trips) = sent
    assert first > 20_000
    assert (second < 1000, round_trips) == (True, 1), "no byte of code, and no question before it"
    with connect(pinned.sshd.address, replace(pinned.options, transport="openssh")) as session:
        assert session.bytes_sent < 1000
    with connect(pinned.sshd.address, pinned.sshd.options) as session:
        assert session.bytes_sent > 20_000, "what is pinned is a key: the owner's is not"


@pytest.mark.parametrize("transport", ["ssh", "openssh"])
def test_a_device_that_is_not_pinned_any_more_asks_for_the_agent(pinned: Pinned, transport: Any) -> None:
    """A pin that was taken away costs one round trip, once, and no error; the same login goes on."""
    owner = replace(pinned.sshd.options, transport=transport)
    remember(pinned.sshd.address, owner, pinned=True)
    costs = []
    for _ in range(2):
        with connect(pinned.sshd.address, owner, lock=True) as session:
            costs.append(session.round_trips)
            assert session.hello["pinned"] is None
    assert costs == [2, 1]


def test_tune_tries_nothing_unsigned_there(pinned: Pinned) -> None:
    """`tune --on` ends before it converts or sends anything, with what to do instead."""
    rows = pinned.folder / "rows.npz"
    np.savez(rows, x=np.zeros((4, 2), np.float32), y=np.zeros(4, np.int64))
    model = pinned.folder / "model" / "tiny.tflite"
    found = pinned.folder / "found.tflite"
    error = refused("pinned", lambda: edgepack.tune(
        model, target="generic-cpu", evaluation=rows, calibration=rows, output=found, max_drop=0.5,
        on=pinned.sshd.address, options=pinned.options,
    ))  # fmt: skip
    assert f"edgepack check {pinned.sshd.address}" in error.hint
    assert not found.exists()
    assert not pinned.root.exists()


def test_looking_and_clearing_up_work_through_the_key(pinned: Pinned, tmp_path: Path) -> None:
    """A probe, a dry run, a niced check with limits and samples of one's own, history and gc need but the key."""
    assert edgepack.probe(pinned.sshd.address, options=pinned.options).facts["executable"] == sys.executable
    edgepack.push(pinned.bundle(1), **pinned.where)
    checked = edgepack.check(budget={"p95_ms": 1000.0}, min_runs=12, min_seconds=0.0, nice=5, **pinned.where)
    assert checked.verdict == "pass", checked.reasons
    samples = tiny_model(tmp_path / "samples").with_suffix(".check.npz")
    looked = edgepack.check(layers=True, check_set=samples, dry_run=True, **pinned.where)
    assert looked.evidence is not None
    assert len(looked.evidence.layers) > 1
    assert looked.check_set is not None
    assert looked.check_set["samples"] == 40
    assert edgepack.activate(dry_run=True, **pinned.where).changed
    edgepack.activate(**pinned.where)
    assert [entry["verb"] for entry in edgepack.history(**pinned.where).history] == ["activate"]
    assert edgepack.gc(keep=0, **pinned.where).removed == ()


def test_hooks_are_the_owners(pinned: Pinned) -> None:
    """An activation and a rollback run the pinned hooks or none; another one is refused before anything is switched."""
    mark = pinned.folder / "evil"
    edgepack.push(pinned.bundle(1), **pinned.where)
    for hooks in (Hooks(after_activate=("touch", str(mark))), Hooks(health=("touch", str(mark)))):
        refused("hook-refused", lambda h=hooks: edgepack.activate(unchecked=True, hooks=h, **pinned.where))  # type: ignore[misc]
    assert edgepack.status(**pinned.where).current is None
    edgepack.activate(unchecked=True, hooks=Hooks(after_activate=pinned.hook), **pinned.where)
    refused("hook-refused", lambda: edgepack.rollback(
        release=edgepack.status(**pinned.where).current, hooks=Hooks(health=("touch", str(mark))), **pinned.where
    ))  # fmt: skip
    assert not mark.exists()


def test_a_measurement_takes_numbers_only(pinned: Pinned) -> None:
    """No option can name a library or a file to load."""
    edgepack.push(pinned.bundle(1), **pinned.where)
    with pinned.session() as session:
        release = session.hello["apps"]["tiny"]["candidate"]
        for options in ({"delegate": "/tmp/evil.so"}, {"threads": {"library": "x"}}):
            refused("pinned", lambda o=options: session.request("measure", app="tiny", release=release, options=o))  # type: ignore[misc]


def test_no_other_folder_is_worked_in_and_trust_is_not_the_keys(pinned: Pinned) -> None:
    """--root leads nowhere else, and what the device trusts is not changed through the restricted key."""
    elsewhere = replace(pinned.options, root=str(pinned.folder / "elsewhere"))
    refused("pinned", lambda: edgepack.push(pinned.bundle(1), pinned.sshd.address, options=elsewhere))
    assert not (pinned.folder / "elsewhere").exists()
    refused("pinned", lambda: edgepack.trust(allowed_signers=pinned.folder / "signers", **pinned.where))


def test_what_was_installed_before_is_not_run(pinned: Pinned) -> None:
    """An unsigned release that the owner put there is neither measured nor activated through the restricted key."""
    owner = replace(pinned.sshd.options, root=str(pinned.root))
    before = pinned.bundle(1, key=None)
    edgepack.push(before, pinned.sshd.address, options=owner)
    refused("unsigned", lambda: edgepack.check(**pinned.where))
    with connect(pinned.sshd.address, pinned.options) as session:
        refused("unsigned", lambda: session.request("answer", [b"PK"], 2, app="tiny", release=None, options={}))
    refused("unsigned", lambda: edgepack.activate(unchecked=True, **pinned.where))
    edgepack.activate(pinned.sshd.address, unchecked=True, options=owner)
    edgepack.push(pinned.bundle(2), **pinned.where)
    refused("unsigned", lambda: edgepack.check(against="current", **pinned.where))
    edgepack.activate(unchecked=True, **pinned.where)
    refused("unsigned", lambda: edgepack.rollback(**pinned.where))


def test_a_signed_release_from_before_is_set_up_anew(pinned: Pinned) -> None:
    """Whoever set it up chose its interpreter and runtime: a push of the same bundle chooses them again."""
    path = pinned.bundle(1)
    edgepack.push(path, pinned.sshd.address, options=replace(pinned.sshd.options, root=str(pinned.root)))
    refused("pinned", lambda: edgepack.check(**pinned.where))
    refused("pinned", lambda: edgepack.activate(unchecked=True, **pinned.where))
    assert edgepack.push(path, **pinned.where).already_present is True
    edgepack.activate(unchecked=True, **pinned.where)


def test_what_only_a_removed_signer_signed_is_not_run_any_more(pinned: Pinned) -> None:
    """Pinning again renews the signers, also for what is on the device; the counters stay."""
    edgepack.push(pinned.bundle(3), **pinned.where)
    edgepack.activate(unchecked=True, **pinned.where)
    both = pinned.folder / "both"
    both.write_text(f"mallory {(pinned.folder / 'mallory.pub').read_text()}")
    try:
        again = pinned.trust(both)
        assert (again.again, again.signers, again.hooks) == (True, ("mallory",), ())
        edgepack.push(pinned.bundle(4, "mallory"), **pinned.where)
        edgepack.activate(unchecked=True, **pinned.where)
        refused("foreign-signature", lambda: edgepack.rollback(**pinned.where))
        refused("replayed", lambda: edgepack.push(pinned.bundle(2, "mallory"), **pinned.where))
    finally:
        pinned.forget()


def test_the_counters_of_the_last_trust_outlive_the_folder(pinned: Pinned) -> None:
    """Whatever becomes of the account's folder, no app falls below what was counted when the device was pinned last."""
    newest, older = pinned.bundle(3), pinned.bundle(2)
    edgepack.push(newest, **pinned.where)
    try:
        assert pinned.trust(pinned.folder / "signers", dry_run=True).counters == {"tiny": 3}
        assert pinned.trust(pinned.folder / "signers").counters == {"tiny": 3}
        for content in (None, '{"tiny": {"counter": 1, "release": "x"}}', '{"tiny": "x", "other": {"counter": 9}}'):
            subprocess.run(["rm", "-rf", str(pinned.root)], check=True)
            if content is not None:
                pinned.root.mkdir()
                (pinned.root / "counters.json").write_text(content)
            refused("replayed", lambda: edgepack.push(older, **pinned.where))
        refused("replayed", lambda: edgepack.push(pinned.bundle(3, version="other"), **pinned.where))
        edgepack.push(newest, **pinned.where)
        assert edgepack.status(**pinned.where).counter == 3
        edgepack.push(pinned.bundle(4), **pinned.where)
        assert pinned.trust(pinned.folder / "signers").counters["tiny"] == 4, "raised by every trust"
    finally:
        pinned.forget()


def test_an_owner_takes_a_counter_back_that_nothing_could_follow(pinned: Pinned) -> None:
    """The highest counter there is ends updates until the owner sets it back; the key cannot bring it back."""
    highest = (1 << 32) - 2
    edgepack.push(pinned.bundle(highest), **pinned.where)
    try:
        error = refused("replayed", lambda: edgepack.push(pinned.bundle(2), **pinned.where))
        assert "--reset-counter tiny" in error.hint
        with pytest.raises(EdgepackError, match="counted no release of other"):
            pinned.trust(pinned.folder / "signers", reset_counter=["other"])
        assert pinned.trust(pinned.folder / "signers", reset_counter=["tiny"]).counters == {}
        noted = json.loads((Path(pinned.document.folder) / "pin.json").read_text())["counters"]["tiny"]
        assert (noted["was"], bool(noted["by"])) == (highest, True)
        edgepack.push(pinned.bundle(2), **pinned.where)
        assert edgepack.status(**pinned.where).counter == 2
        refused("replayed", lambda: edgepack.push(pinned.bundle(1), **pinned.where))
        assert pinned.trust(pinned.folder / "signers").counters == {"tiny": 2}
        refused("replayed", lambda: edgepack.push(pinned.bundle(1), **pinned.where))
    finally:
        pinned.forget()


def test_what_was_counted_since_the_last_trust_goes_with_the_folder(pinned: Pinned) -> None:
    """What is not claimed: who can write the account's folder in another way takes the counter back to its floor."""
    edgepack.push(pinned.bundle(1), **pinned.where)
    try:
        pinned.trust(pinned.folder / "signers")
        edgepack.push(pinned.bundle(5), **pinned.where)
        (pinned.root / "counters.json").unlink()
        subprocess.run(["rm", "-rf", str(pinned.root / "apps")], check=True)
        assert edgepack.push(pinned.bundle(2), **pinned.where).bytes.sent > 0
    finally:
        pinned.forget()


def test_what_is_installed_counts_where_the_counters_are_gone(pinned: Pinned) -> None:
    """A counters.json that was deleted or set back lets nothing in that is older than a signed release beside it."""
    older, newest = pinned.bundle(2), pinned.bundle(5)
    edgepack.push(older, **pinned.where)
    edgepack.push(newest, **pinned.where)
    downgrade: dict[str, Any] = {"app": "tiny", "release": open_bundle(older).release, "unchecked": True}
    for content in (None, '{"tiny": {"counter": 1, "release": "x"}}'):
        (pinned.root / "counters.json").unlink()
        if content is not None:
            (pinned.root / "counters.json").write_text(content)
        refused("replayed", lambda: edgepack.push(older, **pinned.where))
        refused("replayed", lambda: edgepack.push(pinned.bundle(5, version="other"), **pinned.where))
        refused("replayed", lambda: edgepack.activate(**downgrade, **pinned.where))
        edgepack.push(newest, **pinned.where)
    (pinned.root / "counters.json").unlink()
    edgepack.push(pinned.bundle(6), **pinned.where)


@pytest.mark.parametrize("kind", ["pipe", "link", "broken", "huge"])
def test_counters_that_make_no_sense_hold_no_owner_up(pinned: Pinned, tmp_path: Path, kind: str) -> None:
    """What stands in the place of the counters is neither waited for nor followed, and the owner hears of it."""
    place = tmp_path / "counters.json"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "link":
        (tmp_path / "elsewhere").write_text('{"tiny": {"counter": 7}}')
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.write_text("{" if kind == "broken" else '{"tiny": {"counter": 7}}' + " " * (1 << 20))
    told: list[Event] = []
    document = edgepack.trust(
        "local:", allowed_signers=pinned.folder / "signers", account="root", install_root=str(pinned.folder / "lib2"),
        options=ConnectOptions(root=str(tmp_path), python=sys.executable), dry_run=True, report=told.append,
    )  # fmt: skip
    assert document.counters == {}
    assert any(f"{tmp_path}/counters.json" in event.message for event in told)


@pytest.mark.parametrize("damage", ["missing", "no json", "writable", "signers writable"])
def test_a_pin_that_is_not_whole_stops_everything(pinned: Pinned, tmp_path: Path, damage: str) -> None:
    """A pinned agent whose terms are gone, or could be changed by others, does nothing instead of anything."""
    lib = pinned.folder / f"lib-{secrets.token_hex(4)}"
    shutil.copytree(pinned.document.folder, lib)
    if damage == "missing":
        (lib / "pin.json").unlink()
    elif damage == "no json":
        (lib / "pin.json").write_text("[]")
    elif damage == "writable":
        lib.chmod(0o777)
    else:
        (lib / "allowed_signers").chmod(0o666)
    given = b"0 00\n" + json.dumps({"id": 1, "verb": "hello", "n": 0, "protocol": 1, "root": "~/.edgepack"}).encode()
    command = [sys.executable, "-I", "-u", str(lib / "agent.py"), "--pinned"]
    done = subprocess.run(command, input=given + b"\n", capture_output=True, timeout=60, check=False)
    assert b"pin-broken" in done.stdout
    assert b'"ok": true' not in done.stdout


@contextlib.contextmanager
def account(folder: Path) -> Iterator[str]:
    """A throw-away account with an ordinary shell, and a home of its own."""
    name = f"edgepack-{secrets.token_hex(4)}"
    home = folder / name
    subprocess.run(
        ["useradd", "--no-create-home", "--home-dir", str(home), "--shell", "/bin/sh", "--password", "*", name],
        check=True,
    )
    try:
        entry = pwd.getpwnam(name)
        home.mkdir(mode=0o700)
        os.chown(home, entry.pw_uid, entry.pw_gid)
        yield name
    finally:
        # 8: a process of the account, the agent that was just left, has not ended yet.
        deadline = time.monotonic() + 30
        while (code := subprocess.run(["userdel", name], check=False, capture_output=True).returncode) == 8:
            assert time.monotonic() < deadline, "processes of the account go on"
            time.sleep(0.2)
        assert code == 0
        subprocess.run(["rm", "-rf", str(home)], check=True)


def system_python() -> str:
    """A Python that every account can start."""
    for path in ("/usr/bin/python3", "/usr/local/bin/python3"):
        if os.access(path, os.X_OK) and not str(Path(path).resolve()).startswith("/root/"):
            return path
    pytest.skip("this machine has no Python for every account")


def test_an_account_of_its_own_cannot_change_what_pins_it(pinned: Pinned) -> None:
    """The agent works as the deploying account, which can write its own edgepack folder and nothing that pins it."""
    owner = replace(pinned.sshd.options, python=system_python())
    with account(pinned.folder) as name:
        home = pinned.folder / name
        with pytest.raises(InputError) as caught:
            edgepack.trust(
                pinned.sshd.address, allowed_signers=pinned.folder / "signers", account=name,
                install_root=str(home / "pins"), options=owner,
            )  # fmt: skip
        assert caught.value.code == "within-reach"
        assert not (home / "pins").exists()
        document = edgepack.trust(
            pinned.sshd.address,
            allowed_signers=pinned.folder / "signers",
            account=name,
            key=pinned.folder / "deploy.pub",
            install_root=str(pinned.folder / "lib"),
            options=owner,
        )
        assert document.root == str(home / ".edgepack")
        assert document.doors == ()
        keys = Path(f"{pinned.sshd.key}.pub")
        login = f"{name}@127.0.0.1:{pinned.sshd.port}"
        with contextlib.ExitStack() as undo:
            undo.callback(keys.write_text, keys.read_text())
            keys.write_text(document.authorized_keys + "\n")
            with connect(login, pinned.options, lock=True) as session:
                release = FakeRelease(extra={"counter": 1})
                signature = sign(release.manifest, pinned.folder / "alice").decode()
                refused("unsigned", lambda: commit_by_hand(session, release))
                commit_by_hand(session, release, signature=signature)
                assert session.request("status", app="kws").result["counter"] == 1
            at = f"{name}@127.0.0.1"
            for command in (["id"], []):
                done = pinned.ssh(at, *command, given=b"id\n")
                assert (done.returncode != 0, b"uid=" in done.stdout + done.stderr) == (True, False)
            assert pinned.ssh(f"{at}:/etc/passwd", str(pinned.folder / "taken"), program="scp").returncode != 0
            through = pinned.ssh("-W", f"127.0.0.1:{pinned.sshd.port}", at)
            assert (through.returncode != 0, b"SSH-2.0" in through.stdout) == (True, False)
        entry = pwd.getpwnam(name)
        assert (home / ".edgepack" / "counters.json").stat().st_uid == entry.pw_uid
        for path in [Path(document.folder), *Path(document.folder).iterdir()]:
            assert path.stat().st_uid == 0
            tried = ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", "test", "-w"]
            assert subprocess.run([*tried, str(path)], check=False).returncode == 1


def test_other_ways_into_the_account_are_told(pinned: Pinned) -> None:
    """A password, and keys that may run anything: the owner hears of them, for the pin does not hold who uses them."""
    owner = replace(pinned.sshd.options, python=system_python())
    line = f"ssh-ed25519 AAAA {pinned.hook}"
    with account(pinned.folder) as name:
        subprocess.run(["usermod", "--password", "$6$abc$def", name], check=True)
        keys = pinned.folder / name / ".ssh" / "authorized_keys"
        keys.parent.mkdir()
        keys.write_text(f'# ours\n\nrestrict,command="x" {line}\n{line}\nrestrict {line}\n')
        told: list[Event] = []
        document = edgepack.trust(
            pinned.sshd.address, allowed_signers=pinned.folder / "signers", account=name, dry_run=True,
            install_root=str(pinned.folder / "lib"), options=owner, report=told.append,
        )  # fmt: skip
    assert document.doors == ("a password", f"2 keys without a command in {keys}")
    assert any("a password; 2 keys" in event.message for event in told)


def test_an_account_that_cannot_deploy_is_told(pinned: Pinned) -> None:
    """No home and a shell that runs nothing: the owner hears of both before the key fails without a word."""
    told: list[Event] = []
    with account(pinned.folder) as name:
        subprocess.run(["usermod", "--shell", "/usr/sbin/nologin", name], check=True)
        (pinned.folder / name).rmdir()
        edgepack.trust(
            pinned.sshd.address, allowed_signers=pinned.folder / "signers", account=name, dry_run=True,
            install_root=str(pinned.folder / "lib"), report=told.append,
            options=replace(pinned.sshd.options, python=system_python()),
        )  # fmt: skip
    words = next(event.message for event in told if "cannot deploy" in event.message)
    assert f"{name} is not there" in words
    assert "/usr/sbin/nologin runs nothing" in words


def test_an_owner_may_become_root_with_sudo(pinned: Pinned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--sudo starts the agent through `sudo -n`; the account that logged in is the one that is pinned."""
    stand_in = tmp_path / "bin" / "sudo"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\n[ "$1" = -n ] || exit 1\nshift\nSUDO_USER=nobody exec "$@"\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    document = edgepack.trust(
        "local:", allowed_signers=pinned.folder / "signers", sudo=True, install_root=str(pinned.folder / "lib"),
        options=ConnectOptions(python=system_python()), dry_run=True,
    )  # fmt: skip
    assert document.account == "nobody"
    assert document.authorized_keys.endswith("PUBLIC-KEY-OF-WHO-DEPLOYS")
    assert not (pinned.folder / "lib" / "nobody").exists()
    stand_in.write_text("#!/bin/sh\necho sudo: a password is required >&2\nexit 1\n")
    with pytest.raises(EdgepackError, match=r"a password is required.*sudo -n true"):
        edgepack.trust("local:", allowed_signers=pinned.folder / "signers", sudo=True)


def test_what_cannot_be_pinned_is_refused_with_nothing_laid_down(pinned: Pinned) -> None:
    """No such account, a private key instead of a public one, a folder that cannot stand in authorized_keys."""
    lib = pinned.folder / "other lib"
    wanted: dict[str, Any] = {"device": pinned.sshd.address, "options": pinned.sshd.options}
    wanted |= {"allowed_signers": pinned.folder / "signers", "install_root": str(lib)}
    for changes, words in [
        ({"account": "nobody-at-all"}, "no account"),
        ({"key": pinned.folder / "deploy"}, "no public key"),
        ({}, "cannot stand in authorized_keys"),
        ({"allowed_signers": pinned.folder / "deploy"}, "no file of allowed signers"),
    ]:
        with pytest.raises(InputError, match=words):
            edgepack.trust(**{**wanted, **changes})
    assert not lib.exists()


def test_the_laid_down_agent_is_this_versions(pinned: Pinned) -> None:
    """What is laid down is the very agent that other devices get streamed."""
    assert (Path(pinned.document.folder) / "agent.py").read_bytes() == AGENT.read_bytes()
    assert dataclasses.asdict(pinned.document)["authorized_keys"].startswith('restrict,command="')


def test_the_command_prints_the_line_and_lays_nothing_down_in_a_dry_run(
    pinned: Pinned, capsys: pytest.CaptureFixture[str]
) -> None:
    """`edgepack trust` needs to be told who may sign; --dry-run says what would be."""
    lib = pinned.folder / "dry"
    command = ["trust", "local:", "--install-root", str(lib), "--python", sys.executable, "--dry-run"]
    assert run(command) == 2
    assert "--allowed-signers" in capsys.readouterr().err
    assert run([*command, "--allowed-signers", str(pinned.folder / "signers"), "--account", "root"]) == 0
    said = capsys.readouterr().out
    assert "nothing was written" in said
    assert f'restrict,command="{sys.executable} -I -u {lib}/root/agent.py --pinned"' in said
    assert not lib.exists()
