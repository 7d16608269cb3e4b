"""Pushing a release to a device: over a real sshd, and to this machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bundle_tiny import content_of, manifest_value
from deploying import PLATFORM, Device, tiny_bundle, tiny_target

import edgepack
from edgepack.bundle import open_bundle
from edgepack.bundle.archive import write_archive
from edgepack.device import ConnectOptions
from edgepack.documents import FileEntry, canonical_json
from edgepack.errors import (
    DeviceFailure,
    EdgepackError,
    InputError,
    IntegrityError,
    LockedError,
    MisfitError,
    UnreachableError,
)
from edgepack.events import Event
from edgepack.target import Platform


def test_a_first_push_sends_every_file_and_activates_nothing(device: Device, tmp_path: Path) -> None:
    """The release is there, whole, and is the candidate; nothing is current; it took two round trips."""
    path, bundle = tiny_bundle(tmp_path)
    pushed = edgepack.push(path, **device.where)
    assert (pushed.app, pushed.release, pushed.already_present) == ("tiny", bundle.release, False)
    assert pushed.bytes.sent == pushed.bytes.total > sum(file.bytes for file in bundle.files)
    assert pushed.round_trips == 2
    status = edgepack.status(**device.where)
    assert (status.candidate, status.current, status.previous) == (bundle.release, None, None)
    opened = open_bundle(path)
    for file in bundle.files:
        assert (device.release("tiny", bundle.release) / file.path).read_bytes() == content_of(opened, file.path)


def test_what_is_there_sends_nothing_and_takes_two_round_trips(device: Device, tmp_path: Path) -> None:
    """The same push again moves no byte of a file and waits for the device at most twice after the login."""
    path, _ = tiny_bundle(tmp_path)
    edgepack.push(path, **device.where)
    again = edgepack.push(path, **device.where)
    assert (again.already_present, again.bytes.sent) == (True, 0)
    assert again.round_trips <= 2


def test_two_pushes_in_one_session_send_what_differs(here: Device, tmp_path: Path) -> None:
    """A program that pushes twice in a session to an empty device sends the second time only what is new."""
    with here.session(lock=True) as session:
        assert session.hello["empty"]
        edgepack.push(tiny_bundle(tmp_path)[0], session)
        path, _ = tiny_bundle(tmp_path, version="1.0.1")
        assert edgepack.push(path, session).bytes.sent == len(open_bundle(path).manifest_bytes)


@pytest.mark.parametrize("left", ["apps", "runtimes", "incoming/part", "incoming"])
def test_a_root_is_empty_while_nothing_was_brought_there(here: Device, left: str) -> None:
    """Whoever made the folder and its lock brought nothing; a release, a runtime or half a file are something."""
    (here.root / left).mkdir(parents=True)
    with here.session() as session:
        assert session.hello["empty"] == (left == "incoming")


def test_only_the_files_that_differ_travel(here: Device, tmp_path: Path) -> None:
    """A new version of the same model sends its manifest and nothing else."""
    edgepack.push(tiny_bundle(tmp_path)[0], **here.where)
    path, bundle = tiny_bundle(tmp_path, version="1.0.1")
    pushed = edgepack.push(path, **here.where)
    assert pushed.bytes.sent == len(open_bundle(path).manifest_bytes)
    assert edgepack.status(**here.where).candidate == bundle.release


def test_an_interrupted_push_changes_nothing_and_the_next_one_goes_on(device: Device, tmp_path: Path) -> None:
    """Ctrl-C in the middle: the device's releases are as before; the next push sends only what is still missing."""
    edgepack.push(tiny_bundle(tmp_path)[0], **device.where)
    before = edgepack.status(**device.where)
    path, bundle = tiny_bundle(tmp_path, version="2.0.0", wrong=1)
    ballast = heavy_bundle(tmp_path, 6 << 20)

    def interrupt(event: Event) -> None:
        if event.done is not None and event.done > 3 << 20:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        edgepack.push(ballast, report=interrupt, **device.where)
    assert edgepack.status(**device.where) == before
    pushed = edgepack.push(ballast, **device.where)
    assert pushed.bytes.sent < pushed.bytes.total - (1 << 20)
    assert edgepack.status(**device.where).candidate == pushed.release
    assert edgepack.push(path, **device.where).release == bundle.release


def heavy_bundle(folder: Path, size: int) -> Path:
    """A bundle with a check set of that many random bytes more; it can be pushed, not checked."""
    light = open_bundle(tiny_bundle(folder / "light", version="3.0.0")[0])
    files = {path: content_of(light, path) for path in light.entries} | {"ballast.bin": os.urandom(size)}
    value = manifest_value(files, name="tiny", version="3.0.0", target=dict(light.manifest.target))
    need = light.manifest.platforms[0]
    runtime = {"id": None, "package": need.runtime.package, "version": need.runtime.version, "wheels": []}
    value["platforms"] = [PLATFORM.to_json() | {"runtime": runtime | {"numpy": need.runtime.numpy}}]
    path = folder / "heavy.edgepack"
    entries = {entry["path"]: FileEntry(**entry) for entry in value["files"]}
    with path.open("wb") as stream:
        write_archive(stream, canonical_json(value), [(entries[name], files[name]) for name in sorted(files)])
    return path


def test_half_a_file_that_is_there_is_not_sent_again(here: Device, tmp_path: Path) -> None:
    """What an earlier push left of a file counts: only the rest of it travels."""
    path, _ = tiny_bundle(tmp_path)
    content = open_bundle(path)
    model = content.entries["model.tflite"]
    half = model.bytes // 2
    with here.session(lock=True) as session:
        first = content_of(content, "model.tflite")[:half]
        session.request("put", [first], half, sha256=model.sha256, bytes=model.bytes, offset=0)
    pushed = edgepack.push(path, **here.where)
    assert pushed.bytes.sent == pushed.bytes.total - half


def test_a_release_that_was_damaged_on_the_device_is_mended(here: Device, tmp_path: Path) -> None:
    """A model whose bytes rotted on the card is found by the next push, and only it is sent again."""
    path, bundle = tiny_bundle(tmp_path)
    edgepack.push(path, **here.where)
    model = here.release("tiny", bundle.release) / "model.tflite"
    sound = model.read_bytes()
    model.chmod(0o644)
    model.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    mended = edgepack.push(path, **here.where)
    assert (mended.already_present, mended.bytes.sent) == (False, len(sound))
    assert model.read_bytes() == sound


def test_a_dry_run_tells_what_would_be_sent_and_creates_nothing(device: Device, tmp_path: Path) -> None:
    """--dry-run counts the bytes and leaves the device without even a folder."""
    path, bundle = tiny_bundle(tmp_path)
    told = edgepack.push(path, dry_run=True, **device.where)
    assert not device.root.exists()
    assert (told.release, told.already_present) == (bundle.release, False)
    assert told.bytes == edgepack.push(path, **device.where).bytes
    again = edgepack.push(path, dry_run=True, **device.where)
    assert (again.already_present, again.bytes.sent) == (True, 0)


def test_progress_counts_every_byte_once(here: Device, tmp_path: Path) -> None:
    """The last progress event has done == total == the bytes that were sent."""
    events: list[Event] = []
    pushed = edgepack.push(tiny_bundle(tmp_path)[0], report=events.append, **here.where)
    counted = [event for event in events if event.done is not None]
    assert [event.done for event in counted] == sorted(event.done or 0 for event in counted)
    assert (counted[-1].done, counted[-1].total) == (pushed.bytes.sent, pushed.bytes.sent)


# Refused, each with its error, and the device as it was.


@pytest.fixture
def settled(here: Device, tmp_path: Path) -> Iterator[Device]:
    """A device that holds a release; after the test it still holds that release, whole, as its candidate."""
    path, bundle = tiny_bundle(tmp_path / "settled")
    edgepack.push(path, **here.where)
    before = edgepack.status(**here.where)
    yield here
    assert edgepack.status(**here.where) == before
    assert edgepack.push(path, **here.where).already_present
    assert bundle.release == before.candidate


def test_a_bundle_for_other_devices_is_refused_before_a_byte_moves(settled: Device, tmp_path: Path) -> None:
    """A bundle for another architecture is a MisfitError that names both platforms; nothing was sent."""
    other = Platform("3.11", "armv7l", "glibc-2.36")
    path, _ = tiny_bundle(tmp_path, target=replace(tiny_target(), platforms=(other,)))
    events: list[Event] = []
    with pytest.raises(MisfitError) as caught:
        edgepack.push(path, report=events.append, **settled.where)
    assert caught.value.code == "no-platform"
    assert other.label in caught.value.message
    assert not [event for event in events if event.done is not None]


def test_a_device_without_a_runtime_gets_no_bundle_without_one(tmp_path: Path) -> None:
    """--without-runtime on a bare Python: exit 5 before a byte moves, with the command that mends it."""
    bare, root = tmp_path / "bare", tmp_path / "device"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    path, bundle = tiny_bundle(tmp_path)
    assert not any(platform["runtime"]["wheels"] for platform in bundle.platforms), "the manifest says so"
    events: list[Event] = []
    with pytest.raises(MisfitError) as caught:
        edgepack.push(
            path, f"local:{root}", options=ConnectOptions(python=str(bare / "bin" / "python")), report=events.append
        )
    assert (caught.value.code, caught.value.exit_code) == ("no-runtime", 5)
    assert "Bundle again without --without-runtime" in caught.value.hint
    assert not [event for event in events if event.done is not None]
    assert not (root / "apps").exists()


def test_a_target_that_is_not_reached_over_ssh_is_refused_without_connecting(tmp_path: Path) -> None:
    """A bundle for Android is refused before anything is tried: the address does not even exist."""
    path, _ = tiny_bundle(tmp_path, target=replace(tiny_target(), deployable=False))
    with pytest.raises(MisfitError) as caught:
        edgepack.push(path, "nobody@device.invalid")
    assert caught.value.code == "not-deployable"


def test_two_pushes_at_once_do_not_mix(settled: Device, tmp_path: Path) -> None:
    """While one session holds the device, a push is a LockedError that says who holds it."""
    path, _ = tiny_bundle(tmp_path, version="2.0.0")
    with settled.session(lock=True), pytest.raises(LockedError) as caught:
        edgepack.push(path, **settled.where)
    assert "holder" in caught.value.details


def changed(path: Path, entry: str) -> Path:
    """A copy of a bundle with one byte of that entry changed."""
    offset = open_bundle(path).entries[entry].offset
    content = bytearray(path.read_bytes())
    content[offset + 10] ^= 1
    copy = path.with_name("changed.edgepack")
    copy.write_bytes(content)
    return copy


def cut(path: Path, entry: str) -> Path:
    """A copy of a bundle without its last bytes."""
    copy = path.with_name("cut.edgepack")
    copy.write_bytes(path.read_bytes()[:-100])
    return copy


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: the bytes of each file, None for a folder."""
    return {
        found.relative_to(folder).as_posix(): found.read_bytes() if found.is_file() else None
        for found in folder.rglob("*")
    }


@pytest.mark.parametrize("damage", [changed, cut])
def test_a_damaged_bundle_is_an_integrity_error(
    settled: Device, tmp_path: Path, damage: Callable[[Path, str], Path]
) -> None:
    """One changed byte, or a file that ends too early: the error names the bundle, not the device."""
    path = damage(tiny_bundle(tmp_path, version="2.0.0", wrong=2)[0], "check.npz")
    with pytest.raises(IntegrityError) as caught:
        edgepack.push(path, **settled.where)
    assert path.name in caught.value.message


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("entry", ["check.npz", "model.tflite", "loader.py"])
def test_a_damaged_bundle_changes_nothing_on_the_device(
    settled: Device, tmp_path: Path, entry: str, dry_run: bool
) -> None:
    """Damage in a file that would travel or in one that is there already: exit 6, and no file over there differs."""
    path = changed(tiny_bundle(tmp_path, version="2.0.0", wrong=2)[0], entry)
    before = tree(settled.root)
    with pytest.raises(IntegrityError) as caught:
        edgepack.push(path, dry_run=dry_run, **settled.where)
    assert caught.value.exit_code == 6
    assert f"{entry} in {path}" in caught.value.message
    assert tree(settled.root) == before


def test_of_a_damaged_bundle_no_device_ever_hears(tmp_path: Path) -> None:
    """The bundle is verified before anybody is called: push and deploy find the damage, not the missing device."""
    path = changed(heavy_bundle(tmp_path, 4 << 20), "ballast.bin")
    for verb in (edgepack.push, lambda file, device: edgepack.deploy(device, file)):
        with pytest.raises(IntegrityError) as caught:
            verb(path, "nobody@device.invalid")
        assert f"ballast.bin in {path}" in caught.value.message


def test_what_is_no_bundle_is_refused_without_connecting(tmp_path: Path) -> None:
    """A .npz is a ZIP, but no bundle: InputError, and nobody was called."""
    path = tmp_path / "samples.npz"
    shutil.copyfile(tiny_bundle(tmp_path)[0].parent / "tiny-1.0.0" / "tiny.check.npz", path)
    for name in (path, tmp_path / "missing.edgepack"):
        with pytest.raises(InputError) as caught:
            edgepack.push(name, "nobody@device.invalid")
        assert caught.value.code == "not-a-bundle"


def test_nobody_listening_is_unreachable(tmp_path: Path) -> None:
    """A port where nothing listens is an UnreachableError with the address in it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"somebody@127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1"):
        edgepack.push(tiny_bundle(tmp_path)[0], address, options=ConnectOptions(ssh_config=Path(os.devnull)))


def script(folder: Path, text: str) -> str:
    """An executable shell script."""
    path = folder / "python-of-the-device"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_device_without_python_is_a_misfit(device: Device, tmp_path: Path) -> None:
    """No python3 there: the error says so, and what to install."""
    options = replace(device.options, python="/nonexistent/python3")
    with pytest.raises(MisfitError) as caught:
        edgepack.push(tiny_bundle(tmp_path)[0], device.address, options=options)
    assert caught.value.code == "no-python"
    assert "--python" in caught.value.hint
    assert not device.root.exists()


def test_a_python_that_is_too_old_is_a_misfit(device: Device, tmp_path: Path) -> None:
    """Python 3.7 there: the error names the version and what is needed."""
    options = replace(device.options, python=script(tmp_path, "echo EDGEPACK-PYTHON-TOO-OLD 3.7 >&2; exit 97"))
    with pytest.raises(MisfitError, match=r"3\.7.*3\.8") as caught:
        edgepack.push(tiny_bundle(tmp_path)[0], device.address, options=options)
    assert caught.value.code == "python-too-old"


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7"])
def test_every_old_python_is_told_for_what_it_is(version: str, device: Device) -> None:
    """Real Pythons that are too old, down to 2.7, end in the same refusal, and nothing is left on the device."""
    python = old_python(version)
    with pytest.raises(MisfitError, match=r"is too old: edgepack needs 3\.8") as caught:
        edgepack.status(device.address, options=replace(device.options, python=python))
    assert (caught.value.code, caught.value.exit_code) == ("python-too-old", 5)
    assert not device.root.exists()


def old_python(version: str) -> str:
    """A Python that edgepack does not run on, of the PATH or of pyenv's."""
    kept = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv").glob(f"versions/{version}.*/bin/python")
    for python in filter(None, (*sorted(map(str, kept)), shutil.which(f"python{version}"))):
        if subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:
            return python
    pytest.skip(f"this machine has no Python {version}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts: a full disk is a mount of the test's own")
def test_a_full_disk_fails_the_push_and_leaves_the_active_release_alone(tmp_path: Path) -> None:
    """No room: DeviceFailure "disk-full", exit 7; with more room the same push goes through."""
    root = tmp_path / "small"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", root], check=True)
    try:
        device = Device(f"local:{root}", ConnectOptions(python=sys.executable), root)
        first, bundle = tiny_bundle(tmp_path)
        edgepack.push(first, **device.where)
        edgepack.activate(unchecked=True, **device.where)
        heavy = heavy_bundle(tmp_path, 4 << 20)
        with pytest.raises(DeviceFailure) as caught:
            edgepack.push(heavy, **device.where)
        assert (caught.value.code, caught.value.exit_code) == ("disk-full", 7)
        assert edgepack.status(**device.where).current == bundle.release
        subprocess.run(["mount", "-o", "remount,size=40m", root], check=True)
        assert edgepack.push(heavy, **device.where).bytes.sent > 4 << 20
    finally:
        subprocess.run(["umount", root], check=True)


def test_every_refusal_has_an_exit_code_of_the_table() -> None:
    """Each error that a push can end in has its own exit code, 2 to 8."""
    kinds: list[type[EdgepackError]] = [
        InputError, UnreachableError, MisfitError, IntegrityError, DeviceFailure, LockedError,
    ]  # fmt: skip
    assert [kind.exit_code for kind in kinds] == [2, 4, 5, 6, 7, 8]
