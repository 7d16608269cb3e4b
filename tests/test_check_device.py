"""Checking a release on a device: measured there, judged here, recorded there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from deploying import SAMPLES, Device, this_machine, tiny_bundle, tiny_model, tiny_target
from hypothesis import given
from hypothesis import strategies as st
from real_sshd import RealSshd

import edgepack
from edgepack.bundle import Manifest, ModelEntry, open_bundle
from edgepack.bundle.build import build_bundle
from edgepack.check.measure import Measuring, conclude, plan_check
from edgepack.device import DeviceFacts
from edgepack.documents import to_json, to_json_value
from edgepack.errors import GateFailed, InputError, IntegrityError
from edgepack.events import Event
from edgepack.statistics import MIN_RUNS, latency_intervals
from edgepack.target import load_target


@pytest.fixture
def device(here: Device) -> Device:
    """This machine as a device that holds nothing yet."""
    return here


def test_a_dry_check_measures_and_leaves_no_verdict(device: Device, tmp_path: Path) -> None:
    """--dry-run tells the verdict that a check would give; on the device nothing is another than before."""
    path, bundle = tiny_bundle(tmp_path, budget={"p50_ms": 50.0})
    edgepack.push(path, **device.where)
    before = edgepack.status(**device.where)
    found = edgepack.check(dry_run=True, **device.where)
    assert (found.verdict, found.release) == ("pass", bundle.release)
    assert edgepack.status(**device.where) == before
    with pytest.raises(GateFailed, match="not checked here"):
        edgepack.activate(**device.where)


@pytest.mark.sshd
def test_a_good_release_passes_over_a_real_sshd(sshd: RealSshd, tmp_path: Path) -> None:
    """Latency, memory, accuracy and parity come from the device; the PASS is recorded there and opens activate."""
    root = tmp_path / "device"
    device = Device(sshd.address, replace(sshd.options, root=str(root)), root)
    path, bundle = tiny_bundle(tmp_path, budget={"p95_ms": 50.0, "max_accuracy_drop": 0.02, "peak_rss_bytes": 10**9})
    edgepack.push(path, **device.where)
    events: list[Event] = []
    found = edgepack.check(report=events.append, **device.where)
    assert found.evidence is not None
    assert (found.verdict, len(found.reasons)) == ("pass", 4)
    assert found.reasons[-1].startswith(f"Warning: {SAMPLES} samples do not settle the drop")
    assert (found.app, found.release) == ("tiny", bundle.release)
    latency = found.latency_ms
    assert latency.n >= MIN_RUNS[95]
    assert latency.p50 is not None
    assert latency.p95 is not None
    assert 0 < latency.p50 <= latency.p95 < 50
    assert found.intervals == latency_intervals([ns / 1e6 for ns in found.evidence.latency_ns])
    assert found.outliers is not None
    assert found.load_ms is not None
    assert found.peak_rss_bytes is not None
    assert found.peak_rss_bytes > 1_000_000
    assert found.accuracy is not None
    assert (found.accuracy.quantized, found.accuracy.drop, found.accuracy.samples) == (1.0, 0.0, SAMPLES)
    assert found.parity is not None
    assert found.parity.top1_agreement == 1.0
    assert found.parity.max_abs_error <= 2 / 256
    assert found.device["python"] == found.runtime["python"], "the one that ran the model"
    assert found.device["python"].startswith(f"3.{sys.version_info.minor}.")
    assert found.runtime["package"] in ("tflite-runtime", "ai-edge-litert")
    assert {"throttled", "temperature_c", "governor"} <= found.conditions.keys()
    assert json.loads(to_json(to_json_value(found)))["verdict"] == "pass"
    assert events[-1].message.startswith("pass: ")
    assert edgepack.status(**device.where).releases[0]["verdict"] == "pass"
    assert edgepack.activate(**device.where).unchecked is False


def test_a_release_that_lost_accuracy_fails_and_stays_inactive(device: Device, tmp_path: Path) -> None:
    """Four of forty samples wrong on the device: a drop of 10 points, a FAIL with the numbers, no activation."""
    path, _ = tiny_bundle(tmp_path, budget={"max_accuracy_drop": 0.02}, wrong=4)
    edgepack.push(path, **device.where)
    found = edgepack.check(**device.where)
    assert found.verdict == "fail"
    assert found.accuracy is not None
    assert (found.accuracy.reference, found.accuracy.quantized) == (1.0, 0.9)
    assert "0.1000" in found.reasons[0]
    assert edgepack.status(**device.where).releases[0]["verdict"] == "fail"
    with pytest.raises(GateFailed):
        edgepack.activate(**device.where)


def test_without_a_check_set_an_accuracy_gate_is_inconclusive(device: Device, tmp_path: Path) -> None:
    """Accuracy and parity are null, and a limit on them is never passed in silence."""
    path, _ = tiny_bundle(tmp_path, budget={"max_accuracy_drop": 0.02, "p50_ms": 50.0}, check_set=False)
    edgepack.push(path, **device.where)
    found = edgepack.check(**device.where)
    assert (found.verdict, found.accuracy, found.parity) == ("inconclusive", None, None)
    assert found.latency_ms.p50 is not None


def test_flags_override_the_releases_own_limits(device: Device, tmp_path: Path) -> None:
    """A stricter limit fails what passed, a lifted one passes it again; each verdict replaces the one before."""
    path, _ = tiny_bundle(tmp_path, budget={"model_bytes": 100_000})
    edgepack.push(path, **device.where)
    verdicts = [edgepack.check(budget=budget, **device.where).verdict for budget in ({}, {"model_bytes": 10})]
    assert verdicts == ["pass", "fail"]
    assert edgepack.status(**device.where).releases[0]["verdict"] == "fail"
    lifted = edgepack.check(budget={"model_bytes": None}, **device.where)
    assert lifted.verdict == "pass"
    assert lifted.budget["model_bytes"] is None
    with pytest.raises(InputError) as caught:
        edgepack.check(budget={"modelbytes": 10}, **device.where)
    assert caught.value.code == "bad-budget"


def test_too_short_a_time_for_the_gated_percentile_is_inconclusive(device: Device, tmp_path: Path) -> None:
    """A p99 needs 662 runs: where the time is over before, the percentile is null and the gate is open."""
    path, _ = tiny_bundle(tmp_path, budget={"p99_ms": 50.0}, check_set=False)
    edgepack.push(path, **device.where)
    found = edgepack.check(max_seconds=0.000001, **device.where)
    assert found.verdict == "inconclusive"
    assert found.latency_ms.p99 is None


def test_runs_that_were_asked_for_are_made_or_the_verdict_is_open(device: Device, tmp_path: Path) -> None:
    """--min-runs that --max-seconds cuts short is inconclusive, and the reason tells both numbers."""
    path, _ = tiny_bundle(tmp_path, budget={"p50_ms": 50.0}, check_set=False)
    edgepack.push(path, **device.where)
    found = edgepack.check(min_runs=999_999_999, max_seconds=0.3, **device.where)
    assert found.verdict == "inconclusive"
    assert f"Only {found.latency_ms.n:,} of the 999,999,999 runs that were asked for" in found.reasons[0]


def test_a_check_may_be_niced(device: Device, tmp_path: Path) -> None:
    """With --nice what else the device does goes first, and the document says so; more than 19 there is not."""
    edgepack.push(tiny_bundle(tmp_path, check_set=False)[0], **device.where)
    asked = [edgepack.check(nice=nice, **device.where).conditions["nice"] for nice in (0, 7)]
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert asked == [own, min(own + 7, 19)]
    with pytest.raises(InputError, match="--nice 20"):
        edgepack.check("nobody@device.invalid", nice=20)


def test_longer_than_it_may_last_is_a_contradiction() -> None:
    """--min-seconds above --max-seconds is refused without connecting."""
    with pytest.raises(InputError, match="--min-seconds 5 is more than --max-seconds 2") as caught:
        edgepack.check("nobody@device.invalid", min_seconds=5.0, max_seconds=2.0)
    assert caught.value.code == "usage"


def test_asking_for_more_seconds_than_the_profile_allows_gets_them(tmp_path: Path) -> None:
    """A flag wins over the profile: --min-seconds above its max_seconds is measured for so long."""
    manifest = open_bundle(tiny_bundle(tmp_path)[0]).manifest
    longer = plan_check("tiny", "1-0", manifest, Measuring(min_seconds=30.0)).measure
    assert (longer["min_seconds"], longer["max_seconds"]) == (30.0, 30.0)
    shorter = plan_check("tiny", "1-0", manifest, Measuring(max_seconds=1.0)).measure
    assert (shorter["min_seconds"], shorter["max_seconds"]) == (0.0, 1.0)


def test_labels_of_a_check_set_that_no_class_has_are_refused(device: Device, tmp_path: Path) -> None:
    """A check set of foreign making, labelled 1..4 for four classes, gives no accuracy and no PASS."""
    model = tiny_model(tmp_path / "foreign")
    check_set = model.with_suffix(".check.npz")
    with np.load(check_set) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["labels"] = arrays["labels"] + 1
    np.savez(check_set, **arrays)
    path = tmp_path / "foreign.edgepack"
    build_bundle(model, target=tiny_target(), name="tiny", version="1", output=path, with_runtime=False)
    edgepack.push(path, **device.where)
    with pytest.raises(InputError, match=r"whole numbers 0\.\.3; yours are 1\.\.4 \(subtract 1\?\)") as caught:
        edgepack.check(**device.where)
    assert caught.value.code == "bad-labels"
    assert edgepack.status(**device.where).releases[0]["verdict"] is None


def test_a_named_release_is_checked_instead_of_the_candidate(device: Device, tmp_path: Path) -> None:
    """--release picks an older one; its verdict is recorded for it and for no other."""
    first = edgepack.push(tiny_bundle(tmp_path, budget={"p50_ms": 50.0})[0], **device.where).release
    edgepack.push(tiny_bundle(tmp_path, version="2.0.0")[0], **device.where)
    assert edgepack.check(release=first, **device.where).release == first
    verdicts = {found["version"]: found["verdict"] for found in edgepack.status(**device.where).releases}
    assert verdicts == {"1.0.0": "pass", "2.0.0": None}


def test_a_manifest_that_was_changed_on_the_device_is_refused(device: Device, tmp_path: Path) -> None:
    """Limits are read from the release itself: a manifest that somebody edited there is an IntegrityError."""
    path, bundle = tiny_bundle(tmp_path, budget={"model_bytes": 10})
    edgepack.push(path, **device.where)
    manifest = device.release("tiny", bundle.release) / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_bytes(manifest.read_bytes().replace(b'"model_bytes":10,', b'"model_bytes":99,'))
    with pytest.raises(IntegrityError) as caught:
        edgepack.check(**device.where)
    assert caught.value.code == "release-damaged"


def test_an_interrupted_check_leaves_nothing_running_and_no_verdict(device: Device, tmp_path: Path) -> None:
    """Ctrl-C while the device measures: its processes end, nothing is recorded, and the next check works."""
    path, bundle = tiny_bundle(tmp_path, budget={"p50_ms": 50.0})
    edgepack.push(path, **device.where)

    def interrupt(event: Event) -> None:
        if event.unit == "runs" and event.done:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        edgepack.check(min_seconds=10.0, report=interrupt, **device.where)
    assert edgepack.status(**device.where).releases[0]["verdict"] is None
    loader = str(device.release("tiny", bundle.release) / "loader.py")
    deadline = time.monotonic() + 10
    while loader in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout:
        assert time.monotonic() < deadline, "the loader still runs"
        time.sleep(0.1)
    assert edgepack.check(**device.where).verdict == "pass"
    assert not list((device.root / "incoming").iterdir())


def test_bad_words_are_refused_before_the_device_is_asked() -> None:
    """A metric that does not exist is told without connecting."""
    with pytest.raises(InputError) as caught:
        edgepack.check("nobody@device.invalid", metric="nothing")
    assert caught.value.code == "unknown-metric"


FACTS = DeviceFacts(python="3.11.2", arch="aarch64", libc="glibc-2.36")


@given(
    policy=st.integers(1, 2000),
    flag=st.none() | st.integers(1, 2000),
    limits=st.sets(st.sampled_from(sorted(MIN_RUNS))),
)
def test_a_check_always_plans_the_runs_that_its_highest_percentile_needs(
    policy: int, flag: int | None, limits: set[int]
) -> None:
    """Neither the profile nor --min-runs can plan fewer runs than the gated percentile takes."""
    target = tiny_target(**{f"p{p}_ms": 5.0 for p in limits})
    measured = replace(target, measure=replace(target.measure, min_runs=policy))
    manifest = Manifest("tiny", "1", measured.to_json(), ModelEntry("model.tflite", "int8", 10, "0" * 64), (), ())
    plan = plan_check("tiny", "1-0", manifest, Measuring(min_runs=flag))
    assert plan.measure["min_runs"] >= max([MIN_RUNS[p] for p in limits], default=1)
    assert plan.measure["min_runs"] >= (policy if flag is None else flag)


def test_an_emulated_device_is_never_believed_about_time(tmp_path: Path) -> None:
    """A latency from an emulator is inconclusive, and the document says that it was emulated."""
    manifest = open_bundle(tiny_bundle(tmp_path, budget={"p50_ms": 50.0})[0]).manifest
    plan = plan_check("tiny", "1-0", manifest, Measuring())
    measurement = {"latency_ns": [1_000_000] * 20, "conditions": {"emulated": False}}
    document = conclude(plan, measurement, None, replace(FACTS, emulated=True), 1.0)
    assert (document.verdict, document.conditions["emulated"]) == ("inconclusive", True)
    assert conclude(plan, measurement, None, FACTS, 1.0).verdict == "pass"


def test_a_delegate_is_loaded_with_the_options_of_its_profile(
    device: Device, toy_delegate: Path, tmp_path: Path
) -> None:
    """What [delegate.options] says reaches the library on the device; the check tells how many operators it took."""
    profile = this_machine(tmp_path)
    with profile.open("a") as text:
        text.write(f'[delegate]\nlibrary = "{toy_delegate}"\nrequired = true\n[delegate.options]\ntake = "3"\n')
    path, _ = tiny_bundle(tmp_path, target=load_target(profile), check_set=False)
    edgepack.push(path, **device.where)
    found = edgepack.check(**device.where)
    assert f"{toy_delegate} took 3 operators." in found.reasons
    whole = {"library": str(toy_delegate), "operators": 3, "share": 0.75, "file": str(toy_delegate)}
    assert found.runtime["delegate"] == whole


def test_a_required_delegate_that_took_nothing_fails(tmp_path: Path) -> None:
    """All of it on the CPU is a FAIL where the profile requires the accelerator."""
    target = tiny_target()
    required = replace(target, delegate=replace(target.delegate, library="libedgetpu.so.1", required=True))
    plan = plan_check("tiny", "1-0", open_bundle(tiny_bundle(tmp_path, target=required)[0]).manifest, Measuring())
    for operators, verdict in ((0, "fail"), (3, "pass"), (None, "inconclusive")):
        measurement = {"latency_ns": [1] * 20, "delegate": {"library": "libedgetpu.so.1", "operators": operators}}
        assert conclude(plan, measurement, None, FACTS, 1.0).verdict == verdict
