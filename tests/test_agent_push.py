from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import stat
import sys
import zipfile
from pathlib import Path

import pytest
from agent_client import AgentClient, AgentFailure, FakeRelease, digest, find_pythons


def make_wheel(files: dict[str, bytes], *, name: str = "toy", damage: str = "", unlisted: str = "") -> bytes:
    """A wheel with a RECORD; ``damage`` names a file whose content is not what RECORD says."""
    record = f"{name}-1.0.dist-info/RECORD"
    rows = []
    for path, data in files.items():
        sha256 = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        if path != unlisted:
            rows.append(f"{path},sha256={sha256},{len(data)}")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(path, data + b"!" if path == damage else data)
        archive.writestr(record, "\n".join([*rows, f"{record},,"]) + "\n")
    return buffer.getvalue()


TOY = {
    "toy/__init__.py": b"answer = 42\n",
    "toy/data.bin": bytes(range(256)),
    "toy-1.0.dist-info/METADATA": b"Name: toy\n",
}


def release_with_wheel(wheel: bytes, **more: object) -> FakeRelease:
    """A release whose runtime is one wheel."""
    return FakeRelease(wheels={"toy-1.0-py3-none-any.whl": (wheel, "toy")}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("python", find_pythons())
def test_a_push_puts_exactly_the_release_in_place(python: str, tmp_path: Path) -> None:
    """After a push the release holds the bundle's files and what was chosen here, read-only; nothing lies around."""
    release = release_with_wheel(make_wheel(TOY))
    release.contents["assets/deep/er.bin"] = b"nested"
    with AgentClient(tmp_path / "root", python=python) as agent:
        agent.hello()
        assert agent.push(release) == {"release": release.release, "already": False}
        status = agent.request("status", app=None)
    assert (status["current"], status["candidate"]) == (None, release.release)
    folder = tmp_path / "root" / "apps" / "kws" / "releases" / release.release
    there = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    assert set(there) == {*release.files, "device.json"}
    assert all(there[name].read_bytes() == data for name, data in release.files.items())
    assert all(not path.stat().st_mode & 0o222 for path in [folder, *folder.rglob("*")])
    device = json.loads(there["device.json"].read_text())
    assert device["runtime"]["dists"] == ["toy"]
    assert os.access(device["interpreter"], os.X_OK)
    assert list((tmp_path / "root" / "incoming").iterdir()) == []
    runtime = tmp_path / "root" / "runtimes" / release.runtime_id / "toy"
    assert (runtime / "toy" / "data.bin").read_bytes() == bytes(range(256))


def test_what_the_device_has_is_not_sent_again(tmp_path: Path) -> None:
    """A second release that shares a file with the first sends only what is new, and stores the shared file once."""
    model = os.urandom(50_000)
    first = FakeRelease(contents={"model.tflite": model, "loader.py": b"old"})
    second = FakeRelease(version="2.0", contents={"model.tflite": model, "loader.py": b"new"})
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        agent.push(first)
        agent.push(second)
        assert agent.sent == len(second.manifest) + 3
        agent.push(second)
        assert agent.sent == 0
    releases = tmp_path / "root" / "apps" / "kws" / "releases"
    inodes = {(releases / r.release / "model.tflite").stat().st_ino for r in (first, second)}
    assert len(inodes) == 1


def test_the_runtime_is_shared_between_releases(tmp_path: Path) -> None:
    """A runtime that one release brought is there for the next; its wheels do not travel again."""
    wheel = make_wheel(TOY)
    first, second = release_with_wheel(wheel), release_with_wheel(wheel, version="2.0")
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        agent.push(first)
        asked = agent.request("missing", app="kws", files=[], runtime={"id": second.runtime_id})
        assert asked["runtime_present"] is True
        assert agent.push(second)["already"] is False


def test_bytes_that_are_not_the_file_are_thrown_away(tmp_path: Path) -> None:
    """A file that arrived changed is an integrity error, and nothing of it stays to be resumed from."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        with pytest.raises(AgentFailure, match="digest-mismatch"):
            agent.request("put", b"changed!", sha256=digest(b"original"), bytes=8, offset=0)
        assert list((tmp_path / "root" / "incoming").iterdir()) == []


@pytest.mark.parametrize(("offset", "size"), [(5, 8), (0, 7), (9, 8)])
def test_a_put_outside_of_its_file_is_refused(offset: int, size: int, tmp_path: Path) -> None:
    """Offsets beyond what is there and payloads beyond the end are bad requests."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        with pytest.raises(AgentFailure, match="bad-request"):
            agent.request("put", b"12345678", sha256=digest(b"12345678"), bytes=size, offset=offset)


def test_a_file_may_come_in_pieces(tmp_path: Path) -> None:
    """A file sent in several puts is whole when its last byte is there, and only then."""
    data = os.urandom(10_000)
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        for start in range(0, len(data), 3000):
            piece = data[start : start + 3000]
            answer = agent.request("put", piece, sha256=digest(data), bytes=len(data), offset=start)
            assert answer == {"bytes": start + len(piece)}
        assert agent.request("put", b"", sha256=digest(b""), bytes=0, offset=0) == {"bytes": 0}
        files = [{"sha256": digest(data), "bytes": len(data)}, {"sha256": digest(b""), "bytes": 0}]
        have = agent.request("missing", app="kws", files=files, runtime=None)["have"]
        assert have == {digest(data): len(data), digest(b""): 0}


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(tmp_path: Path) -> None:
    """Disk full is found before the bytes move, with what is free and what is needed, and changes nothing."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        agent.push(FakeRelease())
        before = sorted((tmp_path / "root").rglob("*"))
        agent.send_raw(
            json.dumps(
                {"id": 50, "verb": "put", "n": 1 << 60, "sha256": "0" * 64, "bytes": 1 << 60, "offset": 0}
            ).encode()
            + b"\n"
        )
        header, _ = agent.receive()
        assert header["error"]["code"] == "disk-full"
        assert header["error"]["details"]["needed_bytes"] == 1 << 60
        assert header["error"]["details"]["free_bytes"] > 0
    assert sorted((tmp_path / "root").rglob("*")) == before


@pytest.mark.parametrize("damage", ["model.tflite", "manifest.json", "gone", "runtime"])
def test_a_damaged_release_is_found_and_the_next_push_repairs_it(damage: str, tmp_path: Path) -> None:
    """A flipped bit on the SD card stops the activation with the cure, and the cure works."""
    release = release_with_wheel(make_wheel(TOY))
    folder = tmp_path / "root" / "apps" / "kws" / "releases" / release.release
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        agent.push(release)
        victim = folder / ("model.tflite" if damage == "gone" else damage)
        if damage == "runtime":
            victim = tmp_path / "root" / "runtimes" / release.runtime_id / "toy" / "toy" / "data.bin"
        folder.chmod(0o700)
        if damage == "gone":
            victim.unlink()
        else:
            victim.chmod(0o600)
            data = bytearray(victim.read_bytes())
            data[7] ^= 1
            victim.write_bytes(bytes(data))
        with pytest.raises(AgentFailure, match="release-damaged") as refused:
            agent.activate(release)
        assert "edgepack push" in refused.value.error["hint"]
        assert agent.push(release)["already"] is (damage == "runtime")
        assert agent.activate(release)["current"] == release.release


def test_a_release_must_be_what_its_manifest_says(tmp_path: Path) -> None:
    """Files that the manifest does not name, or names otherwise, cannot be committed, nor another id's manifest."""
    release = FakeRelease(contents={"model.tflite": b"the model"})
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        for data in (*release.files.values(), b"another model"):
            agent.put(data)
        good = release.commit_arguments()
        another = {"path": "model.tflite", "bytes": 13, "sha256": digest(b"another model")}
        for odd in (
            {"files": [good["files"][0], another]},
            {"files": [*good["files"], dict(another, path="extra.bin")]},
            {"files": good["files"][:1]},
            {"files": good["files"][1:]},
            {"files": [*good["files"], good["files"][1]]},
            {"release": "1.0.0-000000000000"},
        ):
            with pytest.raises(AgentFailure, match="digest-mismatch"):
                agent.request("commit", **{**good, **odd})
            assert agent.request("status", app="kws")["releases"] == []
        assert agent.request("commit", **good)["already"] is False


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "", "a//b", "a\\b", "a\x00b", "./a", "a\nb"])
def test_no_path_leads_out_of_a_release(path: str, tmp_path: Path) -> None:
    """Whatever a manifest or a request calls a file, it lies inside the release or is refused."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        data = b"evil"
        agent.put(data)
        arguments = FakeRelease().commit_arguments()
        arguments["files"].append({"path": path, "bytes": 4, "sha256": digest(data)})
        with pytest.raises(AgentFailure, match=r"bad-request|digest-mismatch"):
            agent.request("commit", **arguments)
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".", "..", "-x", "a" * 70])
def test_an_app_name_is_no_path(name: str, tmp_path: Path) -> None:
    """App names that could be paths are refused by every verb."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        for verb in ("commit", "activate", "status", "gc", "measure", "record", "rollback"):
            with pytest.raises(AgentFailure, match="bad-request"):
                agent.request(verb, **{**FakeRelease().commit_arguments(), "app": name})


@pytest.mark.parametrize("where", ["apps", "apps/kws", "apps/kws/releases", "incoming", "runtimes", "lib"])
def test_a_planted_symlink_is_not_followed(where: str, tmp_path: Path) -> None:
    """A link inside edgepack's folder cannot make it write elsewhere on the device."""
    outside = tmp_path / "outside"
    outside.mkdir()
    link = tmp_path / "root" / where
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    release = release_with_wheel(make_wheel(TOY))
    release.contents["edgepack_device.py"] = b"DOOR_VERSION = 1\n"
    with AgentClient(tmp_path / "root") as agent, pytest.raises(AgentFailure, match="unsafe-path"):
        agent.hello_and_push(release)
    assert list(outside.iterdir()) == []


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    """A user may keep edgepack's folder on another disk and link to it."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    with AgentClient(tmp_path / "root") as agent:
        assert agent.hello()["root"] == str(tmp_path / "disk")
        agent.push(FakeRelease())


@pytest.mark.parametrize(
    ("wheel", "why"),
    [
        (make_wheel(TOY, damage="toy/data.bin"), "digest"),
        (make_wheel(TOY, unlisted="toy/data.bin"), "not in its RECORD"),
        (make_wheel({**TOY, "../evil.py": b"evil"}), "Not a path"),
        (make_wheel({**TOY, "/evil.py": b"evil"}), "Not a path"),
        (b"no zip at all", "not a zip"),
        (make_wheel(TOY)[:-30], "not a zip"),
    ],
)
def test_a_bad_wheel_is_refused_whole(wheel: bytes, why: str, tmp_path: Path) -> None:
    """A wheel that is not what its RECORD says, or that names paths outside, leaves no runtime and no release."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        with pytest.raises(AgentFailure, match=why):
            agent.push(release_with_wheel(wheel))
    root = tmp_path / "root"
    assert not any((root / "runtimes").iterdir())
    assert not any((root / "apps" / "kws" / "releases").iterdir())
    assert not list(tmp_path.rglob("evil*"))


def test_a_wheel_with_a_symlink_is_refused(tmp_path: Path) -> None:
    """Links inside a wheel are not unpacked."""
    buffer = io.BytesIO(make_wheel(TOY))
    with zipfile.ZipFile(buffer, "a") as archive:
        link = zipfile.ZipInfo("toy/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        with pytest.raises(AgentFailure, match="digest-mismatch"):
            agent.push(release_with_wheel(buffer.getvalue()))


def test_awkward_surroundings_are_fine(tmp_path: Path) -> None:
    """Blanks and umlauts in HOME, umask 077, a default root, a read-only TMPDIR: a push works all the same."""
    home = tmp_path / "Häuschen mit Garten"
    home.mkdir()
    read_only = tmp_path / "tmp"
    read_only.mkdir(mode=0o500)
    before = os.umask(0o077)
    try:
        agent = AgentClient(Path("~/.edgepack"), env={"HOME": str(home), "TMPDIR": str(read_only), "LC_ALL": "C"})
    finally:
        os.umask(before)
    with agent:
        hello = agent.hello()
        assert hello["root"] == str(home / ".edgepack")
        assert hello["facts"]["umask"] == "0077"
        release = FakeRelease(contents={"model.tflite": b"m", "Grüße.txt": b"hallo"})
        agent.push(release)
        agent.activate(release)
    current = home / ".edgepack" / "apps" / "kws" / "current"
    assert (current / "Grüße.txt").read_bytes() == b"hallo"
    assert not (home / ".edgepack").stat().st_mode & 0o077
    assert list(read_only.iterdir()) == []


def test_leftovers_of_other_pushes_are_swept_by_a_finished_one(tmp_path: Path) -> None:
    """What interrupted pushes left in incoming/ goes with the next push that finishes; a running measurement stays."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        agent.request("put", b"half", sha256=digest(b"half of it"), bytes=10, offset=0)
        incoming = tmp_path / "root" / "incoming"
        (incoming / "release-0123456789abcdef").mkdir()
        (incoming / "measure-0123456789abcdef").mkdir()
        agent.push(FakeRelease())
        assert [path.name for path in incoming.iterdir()] == ["measure-0123456789abcdef"]


def test_the_door_is_kept_at_its_newest_version(tmp_path: Path) -> None:
    """The programs' door is renewed by newer releases, mended when changed, and never made older."""
    door = tmp_path / "root" / "lib" / "edgepack_device.py"
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        for version, brought, expected in (("1", 5, 5), ("2", 6, 6), ("3", 4, 6)):
            source = f"DOOR_VERSION = {brought}\n".encode()
            agent.push(FakeRelease(version=version, contents={"model.tflite": b"m", "edgepack_device.py": source}))
            assert door.read_bytes() == f"DOOR_VERSION = {expected}\n".encode()
        door.write_bytes(b"DOOR_VERSION = 6\nraise SystemExit\n")
        agent.push(
            FakeRelease(version="2", contents={"model.tflite": b"m", "edgepack_device.py": b"DOOR_VERSION = 6\n"})
        )
        assert door.read_bytes() == b"DOOR_VERSION = 6\n"


def test_a_commit_sent_twice_is_done_once(tmp_path: Path) -> None:
    """A host that lost the reply may ask again with the same operation id and gets the same answer."""
    release = FakeRelease()
    arguments = release.commit_arguments()
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        for data in release.files.values():
            agent.put(data)
        first = agent.request("commit", **arguments)
        assert agent.request("commit", **arguments) == first == {"release": release.release, "already": False}


def test_a_release_learns_of_another_python(tmp_path: Path) -> None:
    """Pushing again after the device's Python changed renews what was chosen on the device, and only that."""
    others = [python for python in find_pythons() if os.path.realpath(python) != os.path.realpath(sys.executable)]
    if not others:
        pytest.skip("this machine has one Python only")
    release = FakeRelease()
    device = tmp_path / "root" / "apps" / "kws" / "releases" / release.release / "device.json"
    interpreters = []
    for python in (sys.executable, others[0]):
        with AgentClient(tmp_path / "root", python=python) as agent:
            agent.hello()
            agent.push(release)
        interpreters.append(json.loads(device.read_text())["interpreter"])
        assert not device.stat().st_mode & 0o222
    assert interpreters[0] != interpreters[1]
