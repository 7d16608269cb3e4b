"""Checking a release against another one that runs in turns with it, on a device."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deploying import Device, sshd_device, tiny_bundle
from hypothesis import given
from hypothesis import strategies as st
from test_agent_measure import wait_until
from test_agent_turns import loaders_of

import edgepack
from edgepack.bundle import build
from edgepack.check.against import InTurns, pairs_to_settle, ratios, read_in_turns
from edgepack.checkdocuments import Ratio
from edgepack.cli.complete import against_names
from edgepack.cli.main import run
from edgepack.device.embedded import EmbeddedDevice
from edgepack.errors import DeviceFailure, InputError, MisfitError
from edgepack.events import Event

ONDEVICE = Path(build.__file__).parent.parent / "ondevice"
BARE_INVOKE = "        invoke: Callable[[], None] = self._interpreter.invoke\n"
Sleeping = Callable[[str, int], tuple[Path, str]]


@pytest.fixture
def sleeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sleeping:
    """Makes a bundle whose loader sleeps for so many microseconds in each run: its path, and the release's id."""

    def make(version: str, sleep_us: int) -> tuple[Path, str]:
        source = (ONDEVICE / "loader.py").read_text()
        assert BARE_INVOKE in source
        slower = (
            f"        bare = self._interpreter.invoke\n        invoke = lambda: (time.sleep({sleep_us}e-6), bare())\n"
        )
        folder = tmp_path / f"edgepack-{version}"
        (folder / "ondevice").mkdir(parents=True)
        for name in build.DEVICE_FILES:
            (folder / "ondevice" / name).write_bytes((ONDEVICE / name).read_bytes())
        (folder / "ondevice" / "loader.py").write_text(source.replace(BARE_INVOKE, slower))
        with monkeypatch.context() as patch:
            patch.setattr(build, "__file__", str(folder / "bundle" / "build.py"))
            path, document = tiny_bundle(tmp_path, version=version, check_set=False)
        return path, document.release

    return make


@pytest.fixture(params=[pytest.param("sshd", marks=pytest.mark.sshd), "embedded"])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Device]:
    """An empty device: a real OpenSSH sshd, and the loopback device of the demo."""
    if request.param == "sshd":
        yield sshd_device(request.getfixturevalue("sshd"), tmp_path / "device")
        return
    with EmbeddedDevice(tmp_path / "embedded") as running:
        options = dataclasses.replace(running.options, python=sys.executable)
        yield Device(running.address, options, running.home / ".edgepack")


def test_a_release_that_is_30_percent_slower_fails_against_the_current_one(device: Device, sleeping: Sleeping) -> None:
    """An injected sleep makes each run 30 % longer: FAIL, with the ratio in the reason; the same model again passes."""
    path, current = sleeping("1", 1000)
    edgepack.push(path, **device.where)
    edgepack.activate(unchecked=True, **device.where)
    found = {}
    for version, sleep_us in (("2", 1300), ("3", 1000)):
        edgepack.push(sleeping(version, sleep_us)[0], **device.where)
        limits = {"max_p50_ratio": 1.1, "gate": "confident"}
        found[version] = edgepack.check(against="current", budget=limits, max_seconds=1.2, **device.where)
    for document in found.values():
        ratio, evidence = document.ratio, document.evidence
        assert ratio is not None
        assert (ratio.statistic, ratio.release) == ("p50", current)
        assert ratio.pairs >= 16
        assert evidence is not None
        assert sum(runs for _, runs in evidence.blocks) == document.latency_ms.n + len(evidence.current_ns)
    slower, same = found["2"], found["3"]
    assert slower.ratio is not None
    assert 1.2 < slower.ratio.low <= slower.ratio.estimate <= slower.ratio.high < 1.4
    assert (slower.verdict, same.verdict) == ("fail", "pass")
    assert f"times that of {current} (99% interval" in slower.reasons[0]
    verdicts = {known["version"]: known["verdict"] for known in edgepack.status(**device.where).releases}
    assert verdicts == {"1": None, "2": "fail", "3": "pass"}
    assert not loaders_of(device.root)


def test_a_budget_with_a_ratio_compares_unasked(here: Device, tmp_path: Path) -> None:
    """A bundle whose budget limits the ratio deploys first without it, which is said, and then only within it."""
    said: list[str] = []
    limits = {"max_p95_ratio": 900.0}
    first, second = (tiny_bundle(tmp_path, version=v, check_set=False, budget=limits)[0] for v in ("1", "2"))
    alone = edgepack.deploy(source=first, report=lambda event: said.append(event.message), **here.where)
    assert alone.check is not None
    assert (alone.check.verdict, alone.check.ratio, alone.check.budget["max_p95_ratio"]) == ("pass", None, None)
    assert "there is no other active release: the budget's ratio to it is left out" in said
    edgepack.push(second, **here.where)
    found = edgepack.check(**here.where)
    assert found.ratio is not None
    assert (found.verdict, found.ratio.statistic, found.ratio.release) == ("pass", "p95", alone.push.release)
    assert edgepack.check(budget={"max_p95_ratio": 0.001}, **here.where).verdict == "fail"


def test_without_an_active_release_there_is_nothing_to_compare_with(here: Device, tmp_path: Path) -> None:
    """The first release, and the active one against itself, are told as that (exit 2); the device is as before."""
    path, bundle = tiny_bundle(tmp_path, check_set=False)
    edgepack.push(path, **here.where)
    before = edgepack.status(**here.where)
    for against, code in (("current", "no-current"), (bundle.release, "same-release"), ("9.9.9", "no-release")):
        with pytest.raises(InputError) as caught:
            edgepack.check(against=against, **here.where)
        assert (caught.value.code, bool(caught.value.hint)) == (code, True)
    assert edgepack.status(**here.where) == before


def test_a_script_reads_the_ratio(here: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check --against current --json` tells estimate, low and high; nothing to compare with is exit 2, as JSON too."""
    first, second = (tiny_bundle(tmp_path, version=version, check_set=False)[0] for version in ("1", "2"))
    edgepack.push(first, **here.where)
    line = ["check", here.address, "--python", sys.executable, "--max-seconds", "1", "--against", "current", "--json"]
    assert run(line) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "no-current"
    edgepack.activate(unchecked=True, **here.where)
    edgepack.push(second, **here.where)
    capsys.readouterr()
    assert run([*line, "--budget", "max_p50_ratio=900"]) == 0
    ratio = json.loads(capsys.readouterr().out)["ratio"]
    assert 0 < ratio["low"] <= ratio["estimate"] <= ratio["high"]
    assert run([*line, "--budget", "max_p50_ratio=0.001"]) == 1
    assert against_names("cur") == ["current"]


def test_deploying_compares_from_the_second_release_on(here: Device, tmp_path: Path) -> None:
    """`deploy --against current` leaves the comparison out where nothing else is active, and says so."""
    said: list[str] = []

    def tell(event: Event) -> None:
        said.append(event.message)

    first, second = (tiny_bundle(tmp_path, version=version, check_set=False)[0] for version in ("1", "2"))
    alone = edgepack.deploy(source=first, against="current", report=tell, **here.where)
    assert alone.check is not None
    assert (alone.check.verdict, alone.check.ratio) == ("pass", None)
    assert "no release is active yet: it is checked without --against current" in said
    both = edgepack.deploy(source=second, against="current", report=tell, **here.where)
    assert both.check is not None
    assert both.check.ratio is not None
    assert both.check.ratio.release == alone.push.release
    assert both.activate is not None
    again = edgepack.deploy(source=second, against="current", report=tell, **here.where)
    assert again.check is not None
    assert again.check.ratio is None
    assert any("is the active release itself" in message for message in said)


def test_a_current_release_that_cannot_run_is_told(here: Device, tmp_path: Path) -> None:
    """Where the active release's runtime was removed, the check ends with its name and how to go on: no verdict."""
    first, second = (tiny_bundle(tmp_path, version=version, check_set=False)[0] for version in ("1", "2"))
    current = edgepack.deploy(source=first, **here.where).push.release
    candidate = edgepack.push(second, **here.where).release
    path = here.release("tiny", current) / "device.json"
    path.chmod(0o600)
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "runtime": {**whole["runtime"], "id": "0" * 16, "dists": ["numpy"]}}))
    with pytest.raises(MisfitError, match=f"compare with, {current}, could not be measured") as caught:
        edgepack.check(against="current", **here.where)
    assert caught.value.hint.endswith("Or check without --against.")
    verdicts = {found["release"]: found["verdict"] for found in edgepack.status(**here.where).releases}
    assert verdicts[candidate] is None


def test_an_interrupted_comparison_leaves_nothing_running(here: Device, tmp_path: Path) -> None:
    """Ctrl-C while the two take turns: both processes end, nothing is recorded, nothing stays in incoming/."""
    first, second = (tiny_bundle(tmp_path, version=version, check_set=False)[0] for version in ("1", "2"))
    edgepack.deploy(source=first, **here.where)
    edgepack.push(second, **here.where)

    def interrupt(event: Event) -> None:
        if event.message == "latency in turns":
            assert len(loaders_of(here.root)) == 2
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        edgepack.check(against="current", min_seconds=5.0, report=interrupt, **here.where)
    wait_until(lambda: not loaders_of(here.root))
    wait_until(lambda: not list((here.root / "incoming").iterdir()))
    assert edgepack.status(**here.where).candidate is not None


def test_an_agent_that_measures_one_release_only_is_told() -> None:
    """A pinned device's older agent knows no comparison: that is an error, never a check without one."""
    with pytest.raises(MisfitError, match="older than this edgepack") as caught:
        read_in_turns({"latency_ns": [1, 2]}, "pi")
    assert caught.value.code == "no-turns"


@pytest.mark.parametrize(
    ("blocks", "current"),
    [
        ([["candidate", 2], ["current", 1]], [1, 2]),
        ([["candidate", 1], ["candidate", 1]], []),
        ([["candidate", 2]], []),
        ([["nobody", 2], ["current", 1]], [1]),
        ([["candidate"]], [1]),
        (None, [1]),
    ],
)
def test_blocks_that_are_not_the_runs_are_refused(blocks: object, current: list[int]) -> None:
    """What does not fit together gives no ratio."""
    measurement = {"latency_ns": [1, 2], "against": {"release": "1-0", "latency_ns": current}, "blocks": blocks}
    with pytest.raises(DeviceFailure, match="does not fit together"):
        read_in_turns(measurement, "pi")


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=12))
def test_a_pair_is_the_runs_of_two_neighbouring_blocks(counts: list[tuple[int, int]]) -> None:
    """Every run is in one pair, in its order, the candidate's first, whichever of the two ran first."""
    blocks: list[tuple[str, int]] = []
    for number, (ours, theirs) in enumerate(counts):
        both = [("candidate", ours), ("current", theirs)]
        blocks += both if number % 2 == 0 else both[::-1]
    ours_ns, theirs_ns = (tuple(range(sum(count[side] for count in counts))) for side in (0, 1))
    pairs = InTurns("1-0", ours_ns, theirs_ns, tuple(blocks)).pairs()
    assert [(len(ours), len(theirs)) for ours, theirs in pairs] == counts
    assert tuple(run for ours, _ in pairs for run in ours) == ours_ns
    assert tuple(run for _, theirs in pairs for run in theirs) == theirs_ns


def test_the_gated_statistic_comes_first() -> None:
    """The ratio that a budget asks for is the one that the document shows; too few runs tell of no percentile."""
    blocks = tuple((name, 10) for _ in range(12) for name in ("candidate", "current", "current", "candidate"))
    runs = InTurns("1-0", (110,) * 240, (100,) * 240, blocks)
    assert [found.statistic for found in ratios(runs, ["p95"])] == ["p95", "p50", "mean"]
    assert {(found.estimate, found.release, found.pairs) for found in ratios(runs)} == {(1.1, "1-0", 24)}
    few = InTurns("1-0", (110,) * 48, (100,) * 48, tuple((name, 2) for name, _ in blocks))
    assert [found.statistic for found in ratios(few)] == ["p50", "mean"]


def test_the_pairs_that_would_settle_a_ratio_grow_with_its_nearness_to_the_limit() -> None:
    """Half as far from the limit takes four times the pairs; at the limit no number of them settles it."""
    ratio = Ratio(1.04, 1.04 / 1.02, 1.04 * 1.02, 0.99, "p50", 24, "1-0")
    assert pairs_to_settle(ratio, 1.04 * 1.02) == pytest.approx(24, abs=1)
    assert pairs_to_settle(ratio, 1.04 * math.sqrt(1.02)) == pytest.approx(96, abs=1)
    assert pairs_to_settle(ratio, 1.04) is None
