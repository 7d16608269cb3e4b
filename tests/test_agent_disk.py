from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_client import AgentClient, AgentFailure, FakeRelease, digest, new_op
from ondevice_release import lay_out, model_release, run_program
from test_agent_delta import ask
from test_agent_push import TOY, make_wheel, release_with_wheel


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts: a disk that is small, full, read-only or noexec is a mount of the test's own")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_on_the_way_leaves_the_old_release_working(small_disk: Path) -> None:
    """A push that finds the disk full on its way says so, frees its part, and leaves all else as it was."""
    first = FakeRelease()
    big = os.urandom(1_500_000)
    with AgentClient(small_disk / "root") as agent:
        agent.hello()
        agent.push(first)
        agent.activate(first)
        header = {"id": 9, "verb": "put", "n": len(big), "sha256": digest(big), "bytes": len(big), "offset": 0}
        agent.send_raw(json.dumps(header).encode() + b"\n" + big[:200_000])
        with pytest.raises(OSError, match="No space"):
            (small_disk / "hog").write_bytes(bytes(3 << 20))
        agent.send_raw(big[200_000:])
        reply, _ = agent.receive()
        assert reply["error"]["code"] == "disk-full"
        assert list((small_disk / "root" / "incoming").iterdir()) == []
        (small_disk / "hog").unlink()
        assert agent.request("status", app=None)["current"] == first.release
        assert agent.put(big) == {"bytes": len(big)}


def test_a_failed_health_check_on_a_full_disk_restarts_the_old_release(small_disk: Path, tmp_path: Path) -> None:
    """Where not even a note can be written, the old release is active again and its program runs again."""
    old, new = FakeRelease(), FakeRelease(version="2.0.0")
    log = tmp_path / "log"
    hooks = {
        "after_activate": ["sh", "-c", f"echo $EDGEPACK_RELEASE >>'{log}'"],
        "health": ["sh", "-c", f"cat /dev/zero >'{small_disk}/hog' 2>&1; echo sick; exit 1"],
        "health_retries": 1,
    }
    with AgentClient(small_disk / "root") as agent:
        agent.hello_and_push(old)
        agent.activate(old)
        agent.hello_and_push(new)
        with pytest.raises(AgentFailure, match="health-failed") as failed:
            agent.activate(new, hooks=hooks)
        assert f"{old.release} is active again" in failed.value.error["message"]
        assert failed.value.error["details"]["restart"]["code"] == 0
        assert log.read_text().split() == [new.release, old.release]
        assert agent.request("status", app=None)["current"] == old.release


def test_a_disk_that_fills_up_amid_a_delta_is_freed_of_it(small_disk: Path) -> None:
    """The model that grows is a file with holes: where the disk has no room for them, it goes, and all else stays."""
    model = os.urandom(1_000_000)
    with AgentClient(small_disk / "root") as agent:
        agent.hello()
        agent.push(FakeRelease())
        with pytest.raises(AgentFailure, match="disk-full"):
            ask(agent, model * 4)
        assert len(ask(agent, model)) == 1000
        with pytest.raises(OSError, match="No space"):
            (small_disk / "hog").write_bytes(bytes(3 << 20))
        with pytest.raises(AgentFailure, match="disk-full"):
            agent.request("chunks", model, sha256=digest(model), bytes=len(model))
        assert not list((small_disk / "root" / "incoming").glob("*.woven"))
        (small_disk / "hog").unlink()
        assert len(ask(agent, model)) == 1000
        assert agent.request("chunks", model, sha256=digest(model), bytes=len(model)) == {"left": 0}


def test_a_runtime_that_does_not_fit_is_told_before_it_is_unpacked(small_disk: Path) -> None:
    """Wheels are small and unpack to much: a disk that would be full is told with the numbers, and nothing is left."""
    release = release_with_wheel(make_wheel({**TOY, "toy/large.bin": bytes(8 << 20)}))
    with AgentClient(small_disk / "root") as agent:
        agent.hello()
        with pytest.raises(AgentFailure, match="disk-full") as refused:
            agent.push(release)
        assert refused.value.error["details"]["needed_bytes"] > 8 << 20
        assert not (small_disk / "root" / "runtimes" / release.runtime_id).exists()
        assert agent.request("status", app="kws")["candidate"] is None


def test_a_measurement_on_a_full_disk_says_so(small_disk: Path) -> None:
    """A loader that cannot write what it measured is no fault of the bundle: the disk is named."""
    loader = (
        b"import os, sys\n"
        b"with open(os.path.join(sys.argv[2], 'outputs.npz'), 'wb') as file:\n"
        b"    while True: file.write(bytes(4096)), file.flush()\n"
    )
    with AgentClient(small_disk / "root") as agent:
        agent.hello_and_push(FakeRelease(contents={"model.tflite": b"m", "loader.py": loader}))
        options = {"threads": 1, "min_runs": 1, "min_seconds": 0, "max_seconds": 1, "check": False}
        with pytest.raises(AgentFailure, match="disk-full"):
            agent.request("measure", app=None, release=None, options=options)


def test_a_read_only_disk_is_named(small_disk: Path) -> None:
    """A card that the kernel has mounted read-only is called that, and looking still works."""
    with AgentClient(small_disk / "root") as agent:
        agent.hello_and_push(FakeRelease())
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with AgentClient(small_disk / "root") as agent:
        with pytest.raises(AgentFailure, match="read-only"):
            agent.hello()
        assert agent.hello(lock=False)["apps"]["kws"]["current"] is None


def test_room_can_be_made_on_a_disk_that_is_full_to_the_brim(small_disk: Path) -> None:
    """With not a byte free the device can still be entered, its old releases removed, and the push done again."""
    first, second, third = (
        FakeRelease(version=v, contents={"model.tflite": os.urandom(700_000)}) for v in ("1", "2", "3")
    )
    with AgentClient(small_disk / "root") as agent:
        agent.hello_and_push(first)
        agent.push(second)
        agent.activate(second)
    with pytest.raises(OSError, match="No space"):
        (small_disk / "hog").write_bytes(bytes(3 << 20))
    with AgentClient(small_disk / "root") as agent:
        agent.hello()
        with pytest.raises(AgentFailure, match="disk-full"):
            agent.push(third)
        assert agent.request("gc", op=new_op(), app=None, keep=0)["removed"] == [first.release]
        (small_disk / "hog").unlink()
        agent.push(third)
        assert agent.activate(third)["previous"] == second.release


def test_a_runtime_on_a_noexec_disk_is_refused_by_name(small_disk: Path) -> None:
    """A disk from which no library can be loaded is named, with the cure, before a byte moves; a plain model may go."""
    subprocess.run(["mount", "-o", "remount,noexec", str(small_disk)], check=True)
    release = release_with_wheel(make_wheel({**TOY, "toy/native.so": b"\x7fELF"}))
    wanted = [{"sha256": digest(data), "bytes": len(data)} for data in release.files.values()]
    with AgentClient(small_disk / "root") as agent:
        agent.hello()
        with pytest.raises(AgentFailure, match=f"noexec: {small_disk} is mounted noexec") as refused:
            agent.request("missing", app=release.app, files=wanted, runtime={"id": release.runtime_id})
        assert f"remount,exec {small_disk}" in refused.value.error["hint"]
        assert "--root" in refused.value.error["hint"]
        with pytest.raises(AgentFailure, match="noexec"):
            agent.request("commit", **release.commit_arguments())
        assert agent.request("status", app="kws")["candidate"] is None
        agent.push(FakeRelease())


def test_a_runtime_that_has_become_noexec_is_named_by_the_loader(small_disk: Path, toy_delegate: Path) -> None:
    """Where somebody mounts the disk noexec later, a program that loads the model learns which disk, and the cure."""
    release = model_release()
    release.runtime = {**(release.runtime or {}), "id": "0123456789abcdef", "dists": ["numpy"]}
    lay_out(small_disk, release)
    numpy = small_disk / "runtimes" / "0123456789abcdef" / "numpy" / "numpy"
    numpy.mkdir(parents=True)
    shutil.copy(toy_delegate, numpy / "native.abi3.so")
    (numpy / "__init__.py").write_text("from . import native")
    subprocess.run(["mount", "-o", "remount,noexec", str(small_disk)], check=True)
    said = run_program(small_disk, "import edgepack_device; edgepack_device.load('tiny')", fails=True)
    assert f"LoadError: {small_disk} is mounted noexec" in said
    assert f"remount,exec {small_disk}" in said
