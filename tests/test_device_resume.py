"""A line that breaks costs a moment: every step goes on where it was, over edgepack's own client and over ssh."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cutting_proxy import CuttingProxy, Fault, random_cuts
from deploying import Device, tiny_bundle
from real_sshd import RealSshd
from test_deploy_push import heavy_bundle

import edgepack
from edgepack.deploy.hooks import Hooks
from edgepack.device import ConnectOptions
from edgepack.device.retrying import Tries
from edgepack.errors import DeviceFailure, GateFailed, LockedError, UnreachableError
from edgepack.events import Event

BALLAST_BYTES = 3 << 20


@pytest.fixture(params=["ssh", "openssh"])
def client(request: pytest.FixtureRequest) -> str:
    """Both SSH clients."""
    return str(request.param)


def behind(proxy: CuttingProxy, sshd: RealSshd, folder: Path, client: str = "ssh", **options: object) -> Device:
    """An empty device whose line runs through the proxy."""
    root, known = folder / "device", folder / "known_hosts"
    known.write_text(f"* {sshd.host_key}\n")
    changes = {"known_hosts": known, "root": str(root), "transport": client, **options}
    reached = dataclasses.replace(sshd.options, **changes)  # type: ignore[arg-type]
    return Device(f"{sshd.user}@127.0.0.1:{proxy.port}", reached, root)


def again(events: list[Event]) -> list[str]:
    """What was told of trying again."""
    return [event.message for event in events if "Trying again" in event.message]


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a few MiB."""
    return heavy_bundle(tmp_path_factory.mktemp("heavy"), BALLAST_BYTES)


@pytest.mark.sshd
def test_a_push_whose_line_is_cut_goes_on_in_the_same_command(
    sshd: RealSshd, client: str, heavy: Path, tmp_path: Path
) -> None:
    """Cut in the login, in the middle of the model and near its end: one push, told about, nothing sent twice."""
    faults = [Fault(1500), Fault(1 << 20), Fault(1 << 20, kind="reset"), Fault(9000, towards="host")]
    events: list[Event] = []
    # On a line that is faster than the device, what sshd has in hand is lost with it.
    with CuttingProxy(sshd.port, faults=faults, bytes_per_s=2 << 20) as proxy:
        device = behind(proxy, sshd, tmp_path, client)
        pushed = edgepack.push(heavy, report=events.append, **device.where)
        status = edgepack.status(**device.where)
    assert status.candidate == pushed.release
    assert 3 <= len(again(events)) <= 4
    todo = [event.total or 0 for event in events if event.unit == "bytes"]
    assert todo[-1] <= todo[0] - 500_000
    assert any("from an interrupted push" in event.message for event in events)
    assert pushed.bytes.sent >= pushed.bytes.total
    assert not pushed.already_present
    assert [path.name for path in (device.root / "incoming").iterdir()] == []


@pytest.mark.sshd
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_cuts_at_random_bytes_end_in_one_whole_release(
    sshd: RealSshd, heavy: Path, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often and wherever the line is cut, the release is whole in the end and nothing is left over."""
    monkeypatch.setattr("edgepack.device.retrying._LONGEST_PAUSE_S", 0.1)
    cuts = itertools.islice(random_cuts(seed, 1 << 20), 5)
    with CuttingProxy(sshd.port, faults=cuts) as proxy:
        device = behind(proxy, sshd, tmp_path, retries=20)
        pushed = edgepack.push(heavy, **device.where)
        assert edgepack.push(heavy, **device.where).already_present
    assert [path.name for path in (device.root / "incoming").iterdir()] == []
    assert edgepack.status(f"local:{device.root}").candidate == pushed.release


@pytest.mark.sshd
def test_the_answer_of_an_activation_that_is_lost_is_given_again(sshd: RealSshd, client: str, tmp_path: Path) -> None:
    """The line breaks between the switch and its answer: the retry answers as before, and no hook runs twice."""
    ran, state = tmp_path / "ran", tmp_path / "device" / "apps" / "tiny" / "state.json"
    program = f"import time; open({str(ran)!r}, 'a').write('x'); time.sleep(1)"
    hooks = Hooks(after_activate=(sys.executable, "-c", program))
    with CuttingProxy(sshd.port) as proxy:
        device = behind(proxy, sshd, tmp_path, client)
        pushed = edgepack.push(tiny_bundle(tmp_path)[0], **device.where)

        def lose_the_answer() -> None:
            until(ran.exists)
            proxy.stall()
            until(lambda: '"done"' in state.read_text())
            proxy.cut()
            proxy.flow()

        thief = threading.Thread(target=lose_the_answer)
        thief.start()
        events: list[Event] = []
        activated = edgepack.activate(unchecked=True, hooks=hooks, report=events.append, **device.where)
        thief.join()
    assert (activated.current, activated.changed, activated.previous) == (pushed.release, True, None)
    assert len(again(events)) == 1
    assert ran.read_text() == "x"
    history = json.loads(state.read_text())["history"]
    assert [entry["outcome"] for entry in history] == ["done"]


def test_what_an_interrupted_push_left_may_be_damaged(heavy: Path, tmp_path: Path) -> None:
    """Half a file that a power cut spoiled costs a second sending, in the same command, and no error."""
    root, events = tmp_path / "device", list[Event]()
    device = Device(f"local:{root}", ConnectOptions(python=sys.executable), root)

    def interrupt(event: Event) -> None:
        if event.done is not None and event.done > 1 << 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edgepack.push(heavy, report=interrupt, **device.where)
    (part,) = (path for path in (root / "incoming").glob("*.part") if path.stat().st_size > 100_000)
    part.write_bytes(bytes(part.stat().st_size))
    pushed = edgepack.push(heavy, report=events.append, **device.where)
    assert edgepack.status(**device.where).candidate == pushed.release
    assert [event for event in events if "is damaged: sending it again" in event.message]


@pytest.mark.sshd
def test_a_check_that_is_cut_off_measures_anew(sshd: RealSshd, tmp_path: Path) -> None:
    """The line breaks while the device measures: the same command measures again, and its verdict is kept there."""
    incoming, events = tmp_path / "device" / "incoming", list[Event]()
    with CuttingProxy(sshd.port) as proxy:
        device = behind(proxy, sshd, tmp_path)
        edgepack.push(tiny_bundle(tmp_path)[0], **device.where)

        def cut() -> None:
            until(lambda: any(path.name.startswith("measure-") for path in incoming.iterdir()))
            proxy.cut()

        cutter = threading.Thread(target=cut)
        cutter.start()
        checked = edgepack.check(min_seconds=1.0, report=events.append, **device.where)
        cutter.join()
        assert edgepack.activate(**device.where).current == checked.release
    assert checked.verdict == "pass"
    assert len(again(events)) == 1
    assert list(incoming.iterdir()) == []


@pytest.mark.sshd
def test_what_is_refused_is_not_tried_again(sshd: RealSshd, tmp_path: Path) -> None:
    """A refusal of the device, and an address where nobody is, are told at once."""
    events: list[Event] = []
    with CuttingProxy(sshd.port) as proxy:
        device = behind(proxy, sshd, tmp_path)
        edgepack.push(tiny_bundle(tmp_path)[0], **device.where)
        before = proxy.connections
        with pytest.raises(GateFailed):
            edgepack.activate(report=events.append, **device.where)
        assert proxy.connections == before + 1
    with pytest.raises(UnreachableError, match="refuses connections"):
        edgepack.status(**device.where)
    assert again(events) == []


@pytest.mark.sshd
def test_retries_are_bounded(sshd: RealSshd, heavy: Path, tmp_path: Path) -> None:
    """A line that breaks each time is given up after --retries more tries, with exit 7 and what to do; 0 tries once."""
    for retries in (0, 2):
        with CuttingProxy(sshd.port, faults=[Fault(100_000)] * 9) as proxy:
            device = behind(proxy, sshd, tmp_path, retries=retries)
            with pytest.raises(DeviceFailure) as caught:
                edgepack.push(heavy, **device.where)
        assert proxy.connections == 1 + retries
        assert caught.value.code == "connection-lost"
        assert "resumes" in caught.value.hint
        assert caught.value.details.get("tries", 1) == 1 + retries


@pytest.mark.sshd
def test_a_session_of_a_program_survives_a_cut(sshd: RealSshd, tmp_path: Path) -> None:
    """`edgepack.connect` gives a session that a broken line does not end: the next verb logs in again and locks."""
    with CuttingProxy(sshd.port) as proxy:
        device = behind(proxy, sshd, tmp_path)
        with device.session(lock=True) as session:
            pushed = edgepack.push(tiny_bundle(tmp_path)[0], session)
            proxy.cut()
            trips = session.round_trips
            assert edgepack.status(session, app="tiny").candidate == pushed.release
            assert session.round_trips > trips
            assert edgepack.activate(session, app="tiny", unchecked=True).current == pushed.release
    assert proxy.connections == 2


@pytest.mark.sshd
def test_a_line_that_stalls_is_given_up_by_both_sides(
    sshd: RealSshd, client: str, heavy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unplugged cable breaks nothing: host and device notice the silence; the push goes on over the next line."""
    monkeypatch.setattr("edgepack.device.conversation.SILENCE_S", 2.0)
    events: list[Event] = []
    with CuttingProxy(sshd.port, faults=[Fault(1 << 20, kind="stall")]) as proxy:
        device = behind(proxy, sshd, tmp_path, client)
        started = time.monotonic()
        pushed = edgepack.push(heavy, report=events.append, **device.where)
        assert time.monotonic() - started < 40
    assert edgepack.status(f"local:{device.root}").candidate == pushed.release
    assert [message for message in again(events) if "Nothing came from" in message and "for 2 s" in message]


@pytest.mark.sshd
def test_a_device_that_works_for_long_is_not_taken_for_a_dead_line(
    sshd: RealSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook that takes longer than the silence that is allowed ends nothing: the device says that it is there."""
    monkeypatch.setattr("edgepack.device.conversation.SILENCE_S", 1.0)
    events: list[Event] = []
    with CuttingProxy(sshd.port) as proxy:
        device = behind(proxy, sshd, tmp_path)
        edgepack.push(tiny_bundle(tmp_path)[0], **device.where)
        hooks = Hooks(after_activate=("sleep", "3"))
        assert edgepack.activate(unchecked=True, hooks=hooks, report=events.append, **device.where).changed
    assert again(events) == []


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Device, Callable[[], None]]]:
    """A device that somebody works on, and how they end."""
    root = tmp_path / "device"
    device = Device(f"local:{root}", ConnectOptions(python=sys.executable), root)
    edgepack.push(tiny_bundle(tmp_path)[0], **device.where)
    session = device.session(lock=True)
    yield device, session.close
    session.close()


def test_waiting_for_the_lock_tells_who_has_it(held: tuple[Device, Callable[[], None]]) -> None:
    """With wait_s a command waits for its turn and says for whom; without, it is a LockedError at once."""
    device, end = held
    events: list[Event] = []
    with pytest.raises(LockedError) as caught:
        edgepack.activate(unchecked=True, **device.where)
    assert "--wait" in caught.value.hint
    threading.Timer(1.0, end).start()
    patient = dataclasses.replace(device.options, wait_s=60.0)
    activated = edgepack.activate(device.address, options=patient, unchecked=True, report=events.append)
    assert activated.changed
    said = [event.message for event in events if event.message.startswith("waiting: ")]
    assert len(said) == 1
    assert "holds the lock" in said[0]
    assert any(event.unit == "seconds" for event in events)


def test_waiting_ends(held: tuple[Device, Callable[[], None]]) -> None:
    """Who waits long enough is told as who did not wait: exit 8, and for how long it was."""
    device, _ = held
    with pytest.raises(LockedError) as caught:
        edgepack.gc(device.address, options=dataclasses.replace(device.options, wait_s=1.5))
    assert caught.value.exit_code == 8
    assert float(str(caught.value.details["waited_s"])) >= 1.5


def test_wait_on_the_command_line(held: tuple[Device, Callable[[], None]]) -> None:
    """`--wait 1` waits for a second, `--wait` alone for ten minutes, also right before the device's address."""
    device, end = held
    command = [sys.executable, "-m", "edgepack", "gc", "--python", sys.executable]
    refused = subprocess.run([*command, device.address, "--wait", "1"], capture_output=True, text=True, check=False)
    assert refused.returncode == 8
    assert "waiting: " in refused.stderr
    assert "holds the lock" in refused.stderr
    threading.Timer(1.0, end).start()
    waited = subprocess.run([*command, "--wait", device.address], capture_output=True, text=True, check=False)
    assert waited.returncode == 0, waited.stderr


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ([], []),
        (["--wait"], ["--wait", "600"]),
        (["--wait", "5", "pi@board"], ["--wait", "5", "pi@board"]),
        (["--wait=5"], ["--wait=5"]),
        (["--wait", "--json"], ["--wait", "600", "--json"]),
        (["--", "--wait", "x"], ["--", "--wait", "x"]),
    ],
)
def test_wait_takes_a_number_or_none(given: list[str], read: list[str]) -> None:
    """What follows --wait is its number only where it is one."""
    from edgepack.cli.lazy import with_wait

    assert with_wait(given) == read


def test_the_first_push_to_a_device_waits_too(tmp_path: Path) -> None:
    """Where there was no folder to lock when two pushes began, the later one waits all the same."""
    root = tmp_path / "device"
    device = Device(f"local:{root}", ConnectOptions(python=sys.executable, wait_s=60.0), root)
    path, bundle = tiny_bundle(tmp_path)
    with device.session(lock=True) as late, device.session(lock=True) as early:
        edgepack.push(path, early)
        threading.Timer(0.5, early.close).start()
        assert edgepack.push(path, late).release == bundle.release


def test_pauses_grow_and_are_bounded() -> None:
    """A broken line is asked for again soon, then less and less often, never all controllers at once."""
    tries = Tries(8)
    pauses = list(iter(tries.next_pause_s, None))
    assert len(pauses) == 8
    assert all(0.1 <= pause <= 15.0 for pause in pauses)
    assert pauses[0] < 0.3 < pauses[4]
    assert len({round(Tries(1).next_pause_s() or 0, 6) for _ in range(20)}) > 10


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something that has to come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
