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

BITS = "sys/devices/platform/soc/soc:firmware/get_throttled"


@pytest.fixture
def bits(tmp_path: Path) -> Path:
    """A file that stands for a Raspberry Pi's throttling bits, all clear."""
    path = tmp_path / "extra" / BITS
    path.parent.mkdir(parents=True)
    path.write_text("0\n")
    return path


def throttle_in_mid_run(events: Path, bits: Path) -> None:
    """Throttles the device once its timed runs have begun, for three quarters of a second."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (events.exists() and '"latency"' in events.read_text()):
        time.sleep(0.02)
    bits.write_text("4\n")
    time.sleep(0.75)
    bits.write_text("0\n")


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
            code = run(["check", "device", *where, "--min-seconds", "2", "--events", str(events), "--json"])
        finally:
            meddler.join()
    found = json.loads(capsys.readouterr().out)
    assert (code, found["verdict"]) == (3, "inconclusive")
    assert "while the device was throttled (throttled)" in found["reasons"][0]
    conditions, seen = found["conditions"], [look["throttled_bits"] for look in found["evidence"]["series"]]
    assert (conditions["throttled_before"], conditions["throttled_after"]) == (0, 0)
    assert (seen[0], max(seen), seen[-1]) == (0, 4, 0)


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
