"""The proof of speed at a small size: what it counts, never how long it takes."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import need_sshd
from real_sshd import RealSshd

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.sshd


@pytest.fixture(scope="module")
def modules() -> Any:
    """The benchmarks push, links and speed."""
    before = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    yield [importlib.import_module(name) for name in ("push", "links", "speed")]
    sys.path[:] = before


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSshd]:
    """A real sshd with SFTP, which scp needs."""
    need_sshd()
    with RealSshd(tmp_path_factory.mktemp("sshd"), "Subsystem=sftp internal-sftp") as running:
        yield running


def test_what_is_there_costs_no_byte_and_one_round_trip_after_hello(
    modules: Any, device: RealSshd, tmp_path: Path
) -> None:
    """A push of a release that the device holds sends no byte of a file and waits once for the device after hello."""
    push, _, speed = modules
    again = push.push_again(push.Bench(device, tmp_path, 1))
    assert (again["file_bytes"], again["round_trips_after_hello"], again["met"]) == (0, 1, True)
    assert list(speed.missed({"push": {"again": again}})) == []


def test_memory_stays_within_its_bounds_at_both_ends(modules: Any, device: RealSshd, tmp_path: Path) -> None:
    """A push of 40 MiB takes at most 100 MB of memory on the host and 64 MB on the device."""
    push, _, _ = modules
    assert push.measure_memory(push.Bench(device, tmp_path, 40))["met"]


def test_every_rival_brings_the_same_bytes_over_a_slow_line(modules: Any, device: RealSshd, tmp_path: Path) -> None:
    """What is compared over the proxy's line arrives whole: the copies of scp and rsync, and the release of push."""
    push, links, _ = modules
    with links.slow_line(device.port, ("--rtt-ms", "5")) as port:
        bench = push.Bench(device, tmp_path, 1, port)
        bench.command()
        bench.scp_verified()
        if shutil.which("rsync"):  # a CI's machine may lack it
            bench.rsync()
    sent = bench.bundle.read_bytes()
    copies = [copy for copy in tmp_path.glob("device/*/app") if copy.is_file()]
    assert copies
    assert all(copy.read_bytes() == sent for copy in copies)
    (model,) = tmp_path.glob("device/*/apps/app/releases/*/model.tflite")
    assert model.stat().st_size > 1 << 20


def test_a_missed_goal_is_named_with_its_case(modules: Any) -> None:
    """Every goal that a run missed is listed with where it stands in the document; one that was met is not."""
    rows = [{"a": "push", "b": "scp", "met": False}, {"a": "push", "b": "rsync", "met": True}, {"met": None}]
    found = {"links": {"rows": rows}, "delta": {"rows": [{"case": "new head", "met": False}]}}
    found["push"] = {"memory": {"4 MiB": {"met": False}}}
    named = ["links rows push against scp", "delta rows new head", "push memory 4 MiB"]
    assert list(modules[2].missed(found)) == named
