"""What the loader tells of the device that it measures on."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from agent_client import AgentClient
from hypothesis import given
from hypothesis import strategies as st
from ondevice_release import model_release

from edgepack.ondevice import loader
from edgepack.statistics import warmup_runs

QUICK = {"threads": 1, "min_runs": 20, "min_seconds": 0.05, "max_seconds": 5}
BITS = "sys/devices/platform/soc/soc:firmware/get_throttled"
ZONE = "sys/class/thermal/thermal_zone0/temp"


def tell_at(root: Path, path: str, text: str) -> None:
    """Writes what a kernel would tell in one of its files."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text + "\n")


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A board that tells nothing yet, and is all that the loader sees."""
    monkeypatch.setattr(loader, "system_roots", lambda: [str(tmp_path)])
    monkeypatch.setattr(loader, "ask_vcgencmd", lambda *words: "")
    monkeypatch.setattr(loader, "SAMPLE_INTERVAL_S", 0.0)
    monkeypatch.setattr(loader, "SAMPLE_COST", 0)
    return tmp_path


@pytest.mark.parametrize(
    ("before", "during", "after", "throttled", "by"),
    [
        ("0", "0", "0", False, []),
        ("0", "4", "40000", True, ["throttled"]),
        ("0", "0x50005", "0x50000", True, ["under-voltage", "throttled"]),
        ("50000", "50000", "50000", False, []),
        ("50000", "50000", "d0000", True, ["soft temperature limit"]),
        ("8", "0", "0", True, ["soft temperature limit"]),
    ],
)
def test_throttling_in_mid_run_is_seen_and_named(
    board: Path, before: str, during: str, after: str, throttled: bool, by: list[str]
) -> None:
    """Bits that are set at any look, or new since boot at the end, count; what was before the measurement does not."""
    tell_at(board, BITS, before)
    conditions = loader.Conditions()
    tell_at(board, BITS, during)
    conditions.watch(7)
    tell_at(board, BITS, after)
    found = conditions.finish(9)
    assert (found["throttled"], found["throttled_by"]) == (throttled, by)
    assert (found["throttled_before"], found["throttled_after"]) == (int(before, 16), int(after, 16))
    assert found["under_voltage"] is ("under-voltage" in by)
    assert [(look["run"], look["throttled_bits"]) for look in conditions.series] == [
        (0, int(before, 16)),
        (7, int(during, 16)),
        (9, int(after, 16)),
    ]


def test_the_firmware_is_asked_where_no_file_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the kernel's file vcgencmd answers for a Raspberry Pi, the true clock too; one that fails does not."""
    program = tmp_path / "vcgencmd"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(loader, "system_roots", lambda: [str(tmp_path / "nothing")])
    for said, bits, true_khz in (
        (
            'case $1 in get_throttled) echo throttled=0x50005;; *) echo "frequency(48)=1500398464";; esac',
            0x50005,
            1500398,
        ),
        ('echo "VCHI initialization failed"; exit 255', None, None),
        ("kill -9 $$", None, None),
    ):
        program.write_text(f"#!/bin/sh\n{said}\n")
        program.chmod(0o755)
        loader.find_vcgencmd.cache_clear()
        assert loader.throttled_bits() == bits
        assert loader.frequencies()["true_khz"] == true_khz
    loader.find_vcgencmd.cache_clear()


@pytest.mark.parametrize(
    ("folder", "told", "becomes", "by"),
    [
        (
            "sys/class/thermal/cooling_device0",
            {"type": "cpufreq-cpu0", "cur_state": "0"},
            "2",
            "held down against heat",
        ),
        ("sys/class/thermal/cooling_device0", {"type": "pwm-fan", "cur_state": "0"}, "3", None),
        ("sys/devices/system/cpu/cpu0/thermal_throttle", {"core_throttle_count": "12"}, "13", "throttled"),
        ("sys/class/hwmon/hwmon1", {"name": "rpi_volt", "in0_lcrit_alarm": "0"}, "1", "under-voltage"),
    ],
)
def test_boards_tell_of_throttling_in_their_own_ways(
    board: Path, folder: str, told: dict[str, str], becomes: str, by: str | None
) -> None:
    """The kernel's CPU cooling, an x86 CPU's counter and a weak supply count as throttling; a turning fan does not."""
    for name, text in told.items():
        tell_at(board, f"{folder}/{name}", text)
    conditions = loader.Conditions()
    tell_at(board, f"{folder}/{list(told)[-1]}", becomes)
    found = conditions.finish(1)
    assert found["throttled"] is (True if by else None)
    assert found["throttled_by"] == ([by] if by else [])


def test_a_device_that_tells_nothing_is_not_called_sound(board: Path) -> None:
    """Without a source every condition is null, not false and not zero; texts that are no numbers are none."""
    tell_at(board, BITS, "rubbish")
    tell_at(board, ZONE, "hot")
    conditions = loader.Conditions()
    found = conditions.finish(0)
    for key in ("throttled", "under_voltage", "temperature_c", "temperature_max_c", "governor", "throttled_before"):
        assert found[key] is None
    assert set(conditions.series[0]) == {"at_s", "run"}
    assert found["frequencies_after"] == {"wished_khz": None, "true_khz": None, "min_khz": None, "max_khz": None}


def test_clocks_and_heat_are_told_over_time(board: Path) -> None:
    """The true clock goes before the wished one; the hottest zone counts, before, at its peak and after."""
    core = f"sys/devices/system/cpu/cpu{min(os.sched_getaffinity(0))}/cpufreq"
    tell_at(board, f"{core}/scaling_cur_freq", "1800000")
    tell_at(board, f"{core}/scaling_max_freq", "1800000")
    tell_at(board, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "ondemand")
    tell_at(board, ZONE, "41000")
    conditions = loader.Conditions()
    tell_at(board, "sys/class/thermal/thermal_zone1/temp", "63500")
    tell_at(board, f"{core}/cpuinfo_cur_freq", "600000")
    conditions.watch(5)
    (board / "sys/class/thermal/thermal_zone1/temp").unlink()
    found = conditions.finish(8)
    assert [look["clock_khz"] for look in conditions.series] == [1_800_000, 600_000, 600_000]
    assert [look["temperature_c"] for look in conditions.series] == [41.0, 63.5, 41.0]
    assert (found["temperature_before_c"], found["temperature_max_c"], found["temperature_c"]) == (41.0, 63.5, 41.0)
    assert found["frequencies_before"]["true_khz"] is None
    assert found["frequencies_after"]["true_khz"] == 600_000
    assert (found["governor"], found["frequencies_after"]["wished_khz"]) == ("ondemand", 1_800_000)


def test_another_source_can_make_a_device_look_worse_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EDGEPACK_EXTRA_SYSTEM is added to what the kernel tells: bits are joined, the hottest zone counts."""
    kernel, extra = tmp_path / "kernel", tmp_path / "extra"
    monkeypatch.setenv("EDGEPACK_EXTRA_SYSTEM", str(extra))
    monkeypatch.setattr(loader, "is_emulated", lambda: False)
    assert loader.system_roots() == ["/", str(extra)]
    monkeypatch.setattr(loader, "is_emulated", lambda: True)
    assert loader.system_roots() == [str(extra)], "under qemu-user / is the host's"
    monkeypatch.setattr(loader, "system_roots", lambda: [str(kernel), str(extra)])
    for root, bits, degrees, capacity in ((kernel, "4", "80000", "1024"), (extra, "1", "20000", "1")):
        tell_at(root, BITS, bits)
        tell_at(root, ZONE, degrees)
        tell_at(root, f"sys/devices/system/cpu/cpu{min(os.sched_getaffinity(0))}/cpu_capacity", capacity)
    assert (loader.throttled_bits(), loader.temperature_c()) == (5, 80.0)


def test_a_clock_that_is_set_is_told(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock moving against the one that counts on is recorded in seconds; what a time server slews is not."""
    ahead = 0.0
    wall = time.time
    monkeypatch.setattr(loader.time, "time", lambda: wall() + ahead)
    conditions = loader.Conditions()
    ahead = 0.02
    conditions.watch(1)
    ahead = 3600.0
    conditions.watch(2)
    found = conditions.finish(3)
    assert found["clock_jump_s"] == pytest.approx(3600, abs=0.1)
    assert found["slept_s"] == 0


def test_a_long_measurement_keeps_a_bounded_record(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many looks every second one goes, the first stays, and a throttling that was seen once is not forgotten."""
    monkeypatch.setattr(loader, "SERIES_LIMIT", 16)
    conditions = loader.Conditions()
    for run in range(1, 100):
        tell_at(board, BITS, "4" if run == 6 else "0")
        conditions.watch(run)
    assert len(conditions.series) < 16
    assert conditions.series[0]["run"] == 0
    assert conditions.finish(100)["throttled_by"] == ["throttled"]


def test_looks_are_far_apart_where_they_are_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks lies half a second, or a hundred times what one takes."""
    monkeypatch.setattr(loader, "SAMPLE_INTERVAL_S", 60.0)
    conditions = loader.Conditions()
    for run in range(1000):
        conditions.watch(run)
    assert len(conditions.series) == 1
    monkeypatch.setattr(loader, "SAMPLE_INTERVAL_S", 0.0)
    monkeypatch.setattr(loader, "throttled_bits", lambda: time.sleep(0.02))
    conditions = loader.Conditions()
    for run in range(1000):
        conditions.watch(run)
    assert len(conditions.series) == 1


@pytest.mark.parametrize(
    ("speeds", "threads", "pinned"),
    [
        ({0: 446, 1: 446, 2: 1024, 3: 1000}, 2, [2, 3]),
        ({0: 446, 1: 446, 2: 1024, 3: 1000}, 4, None),
        ({0: 1024, 1: 1024}, 1, None),
        ({0: 0, 1: 1024}, 1, None),
    ],
)
def test_a_model_runs_on_the_fastest_cores_where_that_makes_sense(
    board: Path, monkeypatch: pytest.MonkeyPatch, speeds: dict[int, int], threads: int, pinned: list[int] | None
) -> None:
    """Cores of two kinds: as many threads as there are fast ones stay on those; alike, unknown or too few: none."""
    set_to: list[list[int]] = []
    monkeypatch.setattr(loader.os, "sched_getaffinity", lambda pid: set(speeds))
    monkeypatch.setattr(loader.os, "sched_setaffinity", lambda pid, cores: set_to.append(cores))
    for core, speed in speeds.items():
        if speed:
            tell_at(board, f"sys/devices/system/cpu/cpu{core}/cpu_capacity", str(speed))
    assert loader.pin_to_fastest(threads) == pinned
    assert set_to == ([pinned] if pinned else [])


def test_the_whole_record_comes_from_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-up, looks, loading without file caches and what else ran come with the times; the extra source is seen."""
    tell_at(tmp_path / "extra", BITS, "2")
    monkeypatch.setenv("EDGEPACK_EXTRA_SYSTEM", str(tmp_path / "extra"))
    release = model_release()
    with AgentClient(tmp_path / "root") as agent:
        agent.hello_and_push(release)
        before = listing(tmp_path / "root")
        found = agent.request("measure", app=None, release=None, options=QUICK)
    conditions = found["conditions"]
    assert (conditions["throttled"], conditions["throttled_by"]) == (True, ["clock capped"])
    assert 1 < len(found["warmup_ns"]) <= found["warmup_runs"]
    assert found["first_ms"] == found["warmup_ns"][0] / 1e6
    assert found["series"][-1]["run"] == found["runs"]
    assert found["operators"]["total"] > found["operators"]["xnnpack"] >= 0
    assert (found["inputs"], conditions["cpus"], conditions["emulated"]) == ("random", None, False)
    assert conditions["kernel"].startswith("Linux ")
    assert conditions["looks_s"] < 1
    assert listing(tmp_path / "root") == before, "the device is left as it was"


@pytest.mark.parametrize(
    ("degrees", "held_down", "cool"),
    [
        ([54.9], False, True),
        ([54.9], True, False),
        ([None], False, True),
        ([70.0], False, False),
        ([70.0] * 15, False, True),
        ([70.0] * 15, True, False),
        ([80.0 - look for look in range(20)], False, False),
        ([80.0 - look for look in range(26)], False, True),
    ],
)
def test_a_device_is_cool_when_it_gets_no_cooler(degrees: list[float | None], held_down: bool, cool: bool) -> None:
    """Nothing throttles, and it is below 55 °C, has stopped getting cooler, or does not tell its temperature."""
    assert loader.is_cool(degrees, held_down) is cool


def test_waiting_until_it_is_cool_has_an_end(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A throttled device is waited for, with a sign of life, until its bits are clear or the time is over."""
    monkeypatch.setattr(loader, "COOL_LOOK_S", 0.01)
    tell_at(board, BITS, "4")
    assert loader.wait_until_cool(0.05, loader.Progress(None)) >= 0.05
    looks: list[int] = []

    def cools_down() -> bool:
        looks.append(len(looks))
        return len(looks) < 4

    monkeypatch.setattr(loader, "is_held_down", cools_down)
    read_end, write_end = os.pipe()
    assert loader.wait_until_cool(60, loader.Progress(write_end)) < 60
    os.close(write_end)
    with os.fdopen(read_end) as told:
        assert json.loads(told.readline()) == {"step": "cooling", "done": 0, "total": 60, "unit": "s"}
    assert len(looks) == 4


def listing(root: Path) -> set[str]:
    """Every file under a device's edgepack folder."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_a_cold_load_is_one_from_the_disk(tmp_path: Path) -> None:
    """A model that the kernel forgot is loaded by a process of its own; one that it cannot forget has no cold load."""
    model = tmp_path / "model.tflite"
    model.write_bytes(os.urandom(300_000))
    model.read_bytes()
    assert loader.cached_bytes(str(model)) >= 300_000
    loader.drop_cache(str(model))
    forgotten = loader.cached_bytes(str(model)) == 0  # unless the temporary folder lies in memory
    release = model_release()
    with AgentClient(tmp_path / "root") as agent:
        agent.hello_and_push(release)
        cold_ms = agent.request("measure", app=None, release=None, options=QUICK)["cold_load_ms"]
    assert (cold_ms or 0) > 0 if forgotten else cold_ms is None


def test_a_file_that_stays_in_memory_has_no_cold_load() -> None:
    """Dropping the cache of what lies in /dev/shm changes nothing, and the loader sees that."""
    path = Path("/dev/shm") / f"edgepack-test-{os.getpid()}"
    try:
        path.write_bytes(bytes(100_000))
        loader.drop_cache(str(path))
        assert loader.cached_bytes(str(path)) >= 100_000
    finally:
        path.unlink(missing_ok=True)
    assert loader.cached_bytes(str(path)) is None


class Dawdling:
    """A model of which everything but the invoke takes long."""

    def set_raw(self, tensors: list[object]) -> None:
        """Takes its input in five milliseconds."""
        time.sleep(0.005)

    def bare_invoke(self) -> Callable[[], None]:
        """Runs in no time."""
        return lambda: None


def test_nothing_of_edgepack_is_inside_a_time(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting the inputs, looking at the device and telling how far it is are left out of every time."""
    monkeypatch.setattr(loader, "throttled_bits", lambda: time.sleep(0.005))
    conditions, progress = loader.Conditions(), loader.Progress(None)
    runs = loader.timed_runs(Dawdling(), [[]])
    options = {"min_runs": 20, "min_seconds": 0, "max_seconds": 60}
    found, every, stopped_by = loader.measure_latency(runs, options, progress, conditions)
    assert (len(found), every, stopped_by) == (20, 1, "runs")
    assert sorted(found)[10] < 1_000_000


def test_of_many_runs_every_second_goes_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than can be kept are thinned over all of the time alike; asking for many keeps that many."""
    monkeypatch.setattr(loader, "KEPT_RUNS", 16)
    conditions, progress = loader.Conditions(), loader.Progress(None)
    options = {"min_runs": 5, "min_seconds": 0.2, "max_seconds": 60}
    found, every, _ = loader.measure_latency(iter(range(100_000_000)), options, progress, conditions)
    assert 8 <= len(found) <= 16
    assert every > 1
    assert found == [run * every for run in range(len(found))]
    options = {"min_runs": 500, "min_seconds": 0, "max_seconds": 60}
    assert loader.measure_latency(itertools.count(), options, progress, conditions)[:2] == (list(range(500)), 1)


@given(
    st.lists(st.integers(0, 10**7), max_size=120),
    st.integers(0, 300),
    st.floats(0.5, 3.0),
    st.floats(0.0, 0.2),
    st.integers(0, 2**32 - 1),
)
def test_device_and_host_find_the_same_end_of_the_warm_up(
    start: list[int], more: int, slower: float, noise: float, seed: int
) -> None:
    """The rule stands in the loader once more, because nothing of edgepack is on the device: both give one answer."""
    random = np.random.default_rng(seed)
    steady = (1e6 * np.exp(noise * random.standard_normal(more))).astype(int).tolist()
    trace = start + [int(slower * 1e6)] * (more // 8) + steady
    assert loader.settled_at(trace) == warmup_runs([float(each) for each in trace])


def test_a_warm_up_ends_where_its_times_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that get faster are waited for, those that never settle for no longer than allowed; the first is kept."""
    monkeypatch.setattr(loader, "WARMUP_LEAST_S", 0.0)
    conditions, progress = loader.Conditions(), loader.Progress(None)
    falling = (int(9e6 * 0.98 ** min(run, 100)) for run in itertools.count())
    taken, made = loader.warm_up(falling, 60.0, progress, conditions)
    assert (taken[0], len(taken)) == (9_000_000, made)
    assert 90 <= loader.settled_at(taken) <= made / 2
    climbing = (1_000 + run for run in itertools.count())
    monkeypatch.setattr(loader, "settled_at", lambda times: None)
    monkeypatch.setattr(loader, "WARMUP_LIMIT", 16)
    taken, made = loader.warm_up(climbing, 0.05, progress, conditions)
    assert taken[0] == 1_000
    assert len(taken) <= 16 < made
    assert loader.warm_up(climbing, 0.0, progress, conditions)[1] >= 1, "the first run is always made"
