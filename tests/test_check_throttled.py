"""A device that is throttled, or misbehaves otherwise while it measures, and what `check` makes of it."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import need_sshd
from deploying import Device, tiny_bundle
from real_sshd import RealSshd

import edgepack
from edgepack.cli.main import run
from edgepack.events import Event
from edgepack.ondevice import loader

BITS = "sys/devices/platform/soc/soc:firmware/get_throttled"


@pytest.fixture
def bits(tmp_path: Path) -> Path:
    """A file that stands for a Raspberry Pi's throttling bits, all clear."""
    path = tmp_path / "extra" / BITS
    path.parent.mkdir(parents=True)
    path.write_text("0\n")
    return path


def throttle_in_mid_run(events: Path, bits: Path) -> None:
    """Throttles the device once its timed runs have begun; afterwards its bits say that this was since boot."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (events.exists() and '"latency"' in events.read_text()):
        time.sleep(0.02)
    bits.write_text("4\n")
    time.sleep(0.5)
    bits.write_text("40000\n")


@pytest.mark.sshd
def test_throttling_in_mid_run_is_exit_3(bits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A device over a real sshd that is throttled only between its first and its last run: inconclusive, by name."""
    need_sshd()
    events = tmp_path / "events.jsonl"
    path, _ = tiny_bundle(tmp_path, budget={"p50_ms": 500.0}, check_set=False)
    with RealSshd(tmp_path / "sshd", f"SetEnv=EDGEPACK_EXTRA_SYSTEM={tmp_path}/extra") as sshd:
        where = ["--ssh-config", str(sshd.ssh_config), "--python", sys.executable, "--root", str(tmp_path / "root")]
        assert run(["push", str(path), "device", *where]) == 0
        capsys.readouterr()
        meddler = threading.Thread(target=throttle_in_mid_run, args=(events, bits))
        meddler.start()
        try:
            code = run(["check", "device", *where, "--min-seconds", "1.5", "--events", str(events), "--json"])
        finally:
            meddler.join()
    found = json.loads(capsys.readouterr().out)
    assert (code, found["verdict"]) == (3, "inconclusive")
    assert "while the device was throttled (throttled)" in found["reasons"][0]
    looks = [look.get("throttled_bits") for look in found["evidence"]["series"]]
    assert (looks[0], looks[-1] in (4, 0x40000)) == (0, True)


def test_a_throttled_device_is_measured_again_once_it_is_cool(
    here: Device, bits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--retry-when-cool throws the hot measurement away, waits on the device, and judges the cool one."""
    monkeypatch.setenv("EDGEPACK_EXTRA_SYSTEM", str(tmp_path / "extra"))
    edgepack.push(tiny_bundle(tmp_path, budget={"p50_ms": 500.0}, check_set=False)[0], **here.where)
    bits.write_text("8\n")
    hot = edgepack.check(dry_run=True, **here.where)
    assert hot.verdict == "inconclusive"
    assert "throttled (soft temperature limit)" in hot.reasons[0]
    said: list[str] = []

    def cool_down(event: Event) -> None:
        said.append(event.message)
        if event.message == "cooling":
            bits.write_text("0\n")

    cool = edgepack.check(retry_when_cool=True, report=cool_down, **here.where)
    assert (cool.verdict, cool.conditions["throttled"]) == ("pass", False)
    assert cool.conditions["cooled_s"] > 0
    assert any("was throttled; waiting until it is cool, 10 minutes at most" in message for message in said)
    assert said.count(f"measuring tiny {cool.release} on {here.address}") == 1


LOADER = """
import json, os, signal, sys
output = sys.argv[2]
def finish(**found):
    with open(os.path.join(output, "measurement.json"), "w") as file:
        json.dump({"latency_ns": [1000] * 64, **found}, file)
def refuse(code):
    with open(os.path.join(output, "error.json"), "w") as file:
        json.dump({"code": code, "message": "The runtime does not take this model.", "hint": ""}, file)
"""


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("finish()", 0, "pass"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 7, "killed"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 7, "out-of-memory"),
        ("print('{' * 100_000); sys.exit(1)", 7, "measure-failed"),
        ("finish(latency_ns='fast')", 7, "measure-failed"),
        ("finish(latency_ns=[float('nan')])", 7, "measure-failed"),
        ("open(os.path.join(output, 'measurement.json'), 'w').write('[[[')", 7, "measure-failed"),
        ("refuse('runtime-refused')", 5, "runtime-refused"),
        ("finish(latency_ns=[0] * 64)", 3, "took no time at all"),
        ("finish(latency_ns=[])", 3, "Not a single run"),
        ("finish(conditions={'clock_jump_s': 3600.0})", 3, "clock was set by +3600.0 s"),
        ("finish(conditions={'slept_s': 60.0})", 3, "slept for 60.0 s"),
    ],
)
def test_every_way_to_misbehave_has_a_reason_and_an_exit_code(
    here: Device, tmp_path: Path, body: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loader that crashes, is killed, writes rubbish, or measures on a clock that jumps never gives a PASS."""
    pushed = edgepack.push(tiny_bundle(tmp_path, budget={"p50_ms": 500.0}, check_set=False)[0], **here.where)
    path = here.release("tiny", pushed.release) / "loader.py"
    path.chmod(0o644)
    path.write_text(LOADER + body)
    assert run(["check", here.address, "--python", sys.executable, "--json"]) == code
    answer = capsys.readouterr().out
    assert said in answer
    assert json.loads(answer).get("verdict") == {0: "pass", 3: "inconclusive"}.get(code)
    recorded = edgepack.status(**here.where).releases[0]["verdict"]
    assert recorded == {0: "pass", 3: "inconclusive"}.get(code)


def test_a_measurement_is_less_than_a_megabyte(here: Device, tmp_path: Path) -> None:
    """The most times and looks that a loader keeps, of nine digits each, reach the host in less than 1 MB."""
    pushed = edgepack.push(tiny_bundle(tmp_path, check_set=False)[0], **here.where)
    path = here.release("tiny", pushed.release) / "loader.py"
    path.chmod(0o644)
    look = {"at_s": 9999.999, "run": 99999, "temperature_c": 71.234, "clock_khz": 1500000, "throttled_bits": 327685}
    kept = [loader.KEPT_RUNS, loader.WARMUP_LIMIT, loader.SERIES_LIMIT]
    body = f"finish(latency_ns=[123456789] * {kept[0]}, warmup_ns=[123456789] * {kept[1]}, series=[{look}] * {kept[2]})"
    path.write_text(LOADER + body)
    with here.session(lock=True, app="tiny") as session:
        before = session.bytes_received
        found = edgepack.check(session, dry_run=True)
        assert session.bytes_received - before < 1_000_000
    assert found.evidence is not None
    assert [len(found.evidence.latency_ns), len(found.evidence.warmup_ns), len(found.evidence.series)] == kept
