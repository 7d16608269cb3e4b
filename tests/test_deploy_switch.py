"""Activating and rolling back on a device: one step, refused without a PASS, undone where a hook fails."""

from __future__ import annotations

import json
import re
import secrets
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deploying import Device, sshd_device, tiny_bundle
from real_sshd import RealSshd

import edgepack
from edgepack.cli.render_device import history
from edgepack.deploy.hooks import Hooks
from edgepack.documents import ActivateDocument
from edgepack.errors import EdgepackError, GateFailed, InputError, IntegrityError
from edgepack.events import Event


@pytest.fixture
def device(here: Device) -> Device:
    """This machine as a device that holds nothing yet."""
    return here


def pushed(device: Device, folder: Path, version: str, name: str = "tiny", wrong: int = 0) -> str:
    """The release of a bundle that was pushed to the device."""
    return edgepack.push(tiny_bundle(folder, name=name, version=version, wrong=wrong)[0], **device.where).release


def loaded(device: Device) -> str | None:
    """The release that a program on the device would load now."""
    current = device.root / "apps" / "tiny" / "current"
    return current.resolve().name if current.is_symlink() else None


def hook(script: Path, text: str) -> tuple[str, ...]:
    """An argument vector that runs a shell script."""
    script.write_text(text)
    return ("/bin/sh", str(script))


def test_without_a_pass_nothing_is_activated(device: Device, tmp_path: Path) -> None:
    """Activating asks for a PASS from this device; --unchecked overrides it, and the history says so."""
    release = pushed(device, tmp_path, "1.0.0")
    for dry_run in (True, False):
        with pytest.raises(GateFailed) as caught:
            edgepack.activate(dry_run=dry_run, **device.where)
        assert caught.value.code == "not-checked"
        assert "edgepack check" in caught.value.hint
    assert loaded(device) is None
    done = edgepack.activate(unchecked=True, **device.where)
    assert (done.current, done.previous, done.changed, done.unchecked) == (release, None, True, True)
    assert loaded(device) == release
    entry = edgepack.history(**device.where).history[-1]
    assert (entry["unchecked"], entry["to"], entry["outcome"]) == (True, release, "done")
    assert entry["by"]


def test_activating_what_is_active_changes_nothing(device: Device, tmp_path: Path) -> None:
    """The second activation is a no-op that says so; it adds nothing to the history."""
    pushed(device, tmp_path, "1.0.0")
    edgepack.activate(unchecked=True, **device.where)
    again = edgepack.activate(unchecked=True, **device.where)
    assert not again.changed
    assert len(edgepack.history(**device.where).history) == 1


def test_rollback_goes_back_and_forth(device: Device, tmp_path: Path) -> None:
    """Rolling back activates the release before; a named one works too, and the history tells it all."""
    first, second = (pushed(device, tmp_path, version) for version in ("1.0.0", "2.0.0"))
    for release in (first, second):
        edgepack.activate(release=release, unchecked=True, **device.where)
    told = edgepack.rollback(dry_run=True, **device.where)
    assert (told.current, told.changed, loaded(device)) == (first, True, second)
    back = edgepack.rollback(**device.where)
    assert (back.current, back.previous, loaded(device)) == (first, second, first)
    forth = edgepack.rollback(release=second, **device.where)
    assert (forth.current, loaded(device)) == (second, second)
    verbs = [entry["verb"] for entry in edgepack.history(**device.where).history]
    assert verbs == ["activate", "activate", "rollback", "rollback"]


@pytest.mark.sshd
def test_history_tells_a_release_s_whole_life(sshd: RealSshd, tmp_path: Path) -> None:
    """Pushes, checks with their verdict and gcs are in it with who and from where, between the activations."""
    device = sshd_device(sshd, tmp_path / "device")
    first, second = (pushed(device, tmp_path, version) for version in ("1.0.0", "2.0.0"))
    verdict = edgepack.check(**device.where).verdict
    edgepack.check(dry_run=True, **device.where)
    for release in (first, second):
        edgepack.activate(release=release, unchecked=True, **device.where)
    pushed(device, tmp_path, "3.0.0")
    edgepack.activate(unchecked=True, **device.where)
    edgepack.gc(keep=0, dry_run=True, **device.where)
    assert edgepack.gc(keep=0, **device.where).removed == (first,)
    edgepack.gc(keep=0, **device.where)  # nothing is left to tell of
    told = edgepack.history(**device.where)
    assert [event["verb"] for event in told.events] == ["push", "push", "check", "push", "gc"]
    assert [event.get("release") for event in told.events][:3] == [first, second, second]
    assert (told.events[2]["verdict"], told.events[4]["removed"]) == (verdict, [first])
    assert {entry["origin"] for entry in (*told.events, *told.history)} == {"127.0.0.1"}
    assert len({entry["by"] for entry in (*told.events, *told.history)}) == 1
    lines = history(told).splitlines()[-8:]
    verbs = ["push", "push", "check", "activate", "activate", "push", "activate", "gc"]
    assert [line.split()[1] for line in lines] == verbs
    assert all("from 127.0.0.1" in line for line in lines)


def test_history_does_not_grow_without_end(here: Device, tmp_path: Path) -> None:
    """The device keeps the last 200 pushes, checks and gcs of an app; older ones go."""
    pushed(here, tmp_path, "1.0.0")
    path = here.root / "apps" / "tiny" / "state.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "events": [{**value["events"][0], "op": number} for number in range(500)]}))
    release = pushed(here, tmp_path, "2.0.0")
    events = edgepack.history(**here.where).events
    assert (len(events), events[0]["op"], events[-1]["release"]) == (200, 301, release)


def test_what_was_rolled_back_from_is_the_candidate_no_more(device: Device, tmp_path: Path) -> None:
    """A plain activate after a rollback does not bring the bad release back; its name still does."""
    pushed(device, tmp_path, "1.0.0")
    edgepack.activate(unchecked=True, **device.where)
    second = pushed(device, tmp_path, "2.0.0")
    record(device, second, "pass")
    edgepack.activate(**device.where)
    assert edgepack.rollback(**device.where).withdrawn == second
    assert edgepack.status(**device.where).candidate is None
    with pytest.raises(InputError) as caught:
        edgepack.activate(**device.where)
    assert (caught.value.code, "--release" in caught.value.hint) == ("no-candidate", True)
    assert edgepack.activate(release=second, **device.where).current == second


def test_a_rollback_leaves_another_candidate_alone(device: Device, tmp_path: Path) -> None:
    """A release that was pushed and not yet activated stays the candidate."""
    for version in ("1.0.0", "2.0.0"):
        pushed(device, tmp_path, version)
        edgepack.activate(unchecked=True, **device.where)
    third = pushed(device, tmp_path, "3.0.0")
    assert edgepack.rollback(**device.where).withdrawn is None
    assert edgepack.status(**device.where).candidate == third


def test_a_candidate_whose_hooks_failed_is_activated_by_its_name_only(device: Device, tmp_path: Path) -> None:
    """A second plain activate is refused with the command that does it; that one says what it takes back."""
    first = pushed(device, tmp_path, "1.0.0")
    edgepack.activate(unchecked=True, **device.where)
    second = pushed(device, tmp_path, "2.0.0")
    with pytest.raises(GateFailed):
        edgepack.activate(unchecked=True, hooks=Hooks(("false",)), **device.where)
    with pytest.raises(GateFailed) as caught:
        edgepack.activate(unchecked=True, **device.where)
    assert caught.value.code == "marked-bad"
    assert f"edgepack activate {device.address} --release {second}" in caught.value.hint
    assert loaded(device) == first
    assert edgepack.activate(release=second, unchecked=True, **device.where).was_bad
    assert not edgepack.status(**device.where).releases[1]["bad"]


def test_notes_that_cannot_be_read_are_kept_aside_and_told(device: Device, tmp_path: Path) -> None:
    """A torn state.json costs verdicts and history, never in silence; what is active stays active."""
    release = pushed(device, tmp_path, "1.0.0")
    edgepack.activate(unchecked=True, **device.where)
    state = device.root / "apps" / "tiny" / "state.json"
    state.write_text("{")
    seen = edgepack.status(**device.where)
    assert (seen.state_broken, seen.current, state.read_text()) == (True, release, "{")
    assert edgepack.history(**device.where).state_broken
    said: list[Event] = []
    edgepack.activate(release=release, unchecked=True, report=said.append, **device.where)
    assert said[0].message.startswith("warning: the notes on tiny on ")
    (kept,) = state.parent.glob("state.json.broken-*")
    assert (kept.read_text(), str(kept) in said[0].message) == ("{", True)
    told = edgepack.history(**device.where)
    assert not told.state_broken
    assert [(entry["verb"], entry["outcome"], entry["to"]) for entry in told.history] == [
        ("rebuilt", "rebuilt", release)
    ]
    assert edgepack.status(**device.where).current == loaded(device) == release


def test_there_is_no_way_back_from_the_first_release(device: Device, tmp_path: Path) -> None:
    """Rolling back without an earlier release is an InputError, and the release stays active."""
    release = pushed(device, tmp_path, "1.0.0")
    edgepack.activate(unchecked=True, **device.where)
    for dry_run in (True, False):
        with pytest.raises(InputError) as caught:
            edgepack.rollback(dry_run=dry_run, **device.where)
        assert caught.value.code == "no-previous"
    assert loaded(device) == release


def record(device: Device, release: str, verdict: str) -> None:
    """Let the device keep a verdict, as a check does."""
    with device.session(lock=True) as session:
        session.request("record", op=secrets.token_hex(8), app="tiny", release=release, verdict={"verdict": verdict})


def interrupted(device: Device, first: str, second: str) -> None:
    """Leave the device as a kill in the middle of the switch to ``second`` does."""
    state = device.root / "apps" / "tiny" / "state.json"
    value = json.loads(state.read_bytes())
    entry = {"op": "0123", "verb": "activate", "from": first, "to": second, "at": "", "by": "", "unchecked": True}
    value["history"].append({**entry, "outcome": "interrupted"})
    state.write_text(json.dumps(value))


def cut_last(device: Device) -> None:
    """Leave the device as a kill after the last switch and before its hooks does."""
    state = device.root / "apps" / "tiny" / "state.json"
    value = json.loads(state.read_bytes())
    value["history"][-1]["outcome"] = "interrupted"
    state.write_text(json.dumps(value))


@pytest.mark.parametrize("verb", [edgepack.activate, edgepack.rollback])
@pytest.mark.parametrize(
    "state",
    ["pushed", "failed", "inconclusive", "passed", "active", "interrupted", "rolled back", "rollback cut", "bad"],
)
@pytest.mark.parametrize("named", ["nothing", "the first", "the second", "one that is not there"])
def test_a_dry_run_tells_what_the_run_does(
    device: Device, tmp_path: Path, verb: Callable[..., ActivateDocument], state: str, named: str
) -> None:
    """Whatever activate and rollback do or refuse, --dry-run says the same before, and changes nothing."""
    first = pushed(device, tmp_path, "1.0.0")
    edgepack.activate(unchecked=True, **device.where)
    second = pushed(device, tmp_path, "2.0.0", wrong=1)
    if state in ("failed", "inconclusive", "passed"):
        record(device, second, {"failed": "fail", "passed": "pass"}.get(state, state))
    elif state == "active":
        edgepack.activate(unchecked=True, **device.where)
    elif state == "interrupted":
        interrupted(device, first, second)
    elif state.startswith("roll"):
        edgepack.activate(unchecked=True, **device.where)
        edgepack.rollback(**device.where)
        if state == "rollback cut":
            cut_last(device)
    elif state == "bad":
        with pytest.raises(GateFailed):
            edgepack.activate(unchecked=True, hooks=Hooks(("false",)), **device.where)
    missing = "9.9.9-0123456789ab"
    release = {"nothing": None, "the first": first, "the second": second}.get(named, missing)
    before = edgepack.status(**device.where), edgepack.history(**device.where), loaded(device)
    told = outcome(verb, dry_run=True, release=release, **device.where)
    assert before == (edgepack.status(**device.where), edgepack.history(**device.where), loaded(device))
    assert told == outcome(verb, release=release, **device.where)


def outcome(verb: Callable[..., ActivateDocument], **given: Any) -> tuple[Any, ...]:
    """What came of it: the document, or the error's exit code, code and message."""
    try:
        return (verb(**given),)
    except EdgepackError as error:
        return error.exit_code, error.code, error.message


def test_a_release_that_is_not_there_is_named_with_those_that_are(device: Device, tmp_path: Path) -> None:
    """A typo in --release is an InputError that lists what the device holds."""
    release = pushed(device, tmp_path, "1.0.0")
    for dry_run in (True, False):
        for verb in (edgepack.activate, edgepack.rollback):
            with pytest.raises(InputError, match=release) as caught:
                verb(release="9.9.9-0123456789ab", dry_run=dry_run, **device.where)
            assert caught.value.code == "no-release"


def test_a_damaged_release_is_never_activated(device: Device, tmp_path: Path) -> None:
    """A model that changed on the device after the push is found before the switch, and by a dry run."""
    release = pushed(device, tmp_path, "1.0.0")
    model = device.release("tiny", release) / "model.tflite"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    for dry_run in (True, False):
        with pytest.raises(IntegrityError):
            edgepack.activate(unchecked=True, dry_run=dry_run, **device.where)
        assert loaded(device) is None


def test_hooks_run_on_the_device_after_the_switch(device: Device, tmp_path: Path) -> None:
    """after_activate sees the new release as current and its name in the environment; its output comes back."""
    release = pushed(device, tmp_path, "1.0.0")
    after = hook(
        tmp_path / "after.sh", 'readlink "$EDGEPACK_ROOT/apps/$EDGEPACK_APP/current"; echo "$EDGEPACK_RELEASE"'
    )
    done = edgepack.activate(unchecked=True, hooks=Hooks(after, ("true",)), **device.where)
    assert [entry["hook"] for entry in done.hooks] == ["after_activate", "health"]
    assert [entry["code"] for entry in done.hooks] == [0, 0]
    target, name = done.hooks[0]["output"].split()
    assert target.endswith(release)
    assert name == release


@pytest.mark.parametrize("kind", ["after_activate", "health"])
def test_a_hook_that_fails_swaps_back(device: Device, tmp_path: Path, kind: str) -> None:
    """The old release is active again, the new one is marked bad, the error carries what the hook printed."""
    first = pushed(device, tmp_path, "1.0.0")
    edgepack.activate(unchecked=True, **device.where)
    second = pushed(device, tmp_path, "2.0.0")
    failing = hook(tmp_path / "failing.sh", "echo the service did not start; exit 3")
    hooks = Hooks(failing) if kind == "after_activate" else Hooks(None, failing, health_retries=1)
    with pytest.raises(GateFailed) as caught:
        edgepack.activate(unchecked=True, hooks=hooks, **device.where)
    assert caught.value.code in ("hook-failed", "health-failed")
    assert "the service did not start" in str(caught.value.details["output"])
    assert loaded(device) == first
    status = edgepack.status(**device.where)
    assert status.current == first
    assert {found["release"]: found["bad"] for found in status.releases} == {first: False, second: True}


def test_the_device_decides_nothing_about_hooks() -> None:
    """How long a hook may take and how often it is tried is said here: every value that the agent reads is sent."""
    agent = (Path(edgepack.__file__).parent / "ondevice" / "agent" / "hooks.py").read_text()
    read = re.search(r"class Hooks:.*?\n    def run", agent, re.DOTALL)
    assert read is not None
    assert set(Hooks().to_json()) == set(re.findall(r'"(\w*(?:_activate|health|_s|_retries))"', read[0]))
    host = Hooks()
    for fallback in (
        f'"hook_timeout_s", {host.hook_timeout_s}', f'"health_timeout_s", {host.health_timeout_s}',
        f"else {host.health_retries})",
    ):  # fmt: skip
        assert fallback in read[0]


def test_a_hook_that_hangs_is_ended_and_swaps_back(device: Device, tmp_path: Path) -> None:
    """A hook has its time, no more."""
    first = pushed(device, tmp_path, "1.0.0")
    edgepack.activate(unchecked=True, **device.where)
    pushed(device, tmp_path, "2.0.0")
    with pytest.raises(GateFailed, match=r"0\.5 s"):
        edgepack.activate(unchecked=True, hooks=Hooks(("sleep", "60"), hook_timeout_s=0.5), **device.where)
    assert loaded(device) == first


def test_an_interrupted_activation_leaves_a_whole_release_and_can_be_repeated(device: Device, tmp_path: Path) -> None:
    """Ctrl-C while a hook runs: one of the two releases is active, and the same command completes the switch."""
    first = pushed(device, tmp_path, "1.0.0")
    edgepack.activate(unchecked=True, **device.where)
    second = pushed(device, tmp_path, "2.0.0")
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            edgepack.activate(unchecked=True, hooks=Hooks(("sleep", "60")), **device.where)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert loaded(device) in (first, second)
    done = edgepack.activate(unchecked=True, hooks=Hooks(("true",)), **device.where)
    assert (done.current, loaded(device)) == (second, second)
    assert done.hooks[0]["code"] == 0


def test_an_app_must_be_named_only_where_there_are_several(device: Device, tmp_path: Path) -> None:
    """One app is found by itself; of two, the error lists both; of none, it says what to do."""
    for read in (edgepack.status, edgepack.history, edgepack.activate, edgepack.rollback):
        with pytest.raises(InputError) as caught:
            read(**device.where)
        assert caught.value.code == "no-app"
        assert "edgepack push" in caught.value.hint
    pushed(device, tmp_path, "1.0.0", name="one")
    assert edgepack.status(**device.where).app == "one"
    pushed(device, tmp_path, "1.0.0", name="two")
    with pytest.raises(InputError, match="one, two") as caught:
        edgepack.status(**device.where)
    assert caught.value.code == "several-apps"
    assert edgepack.status(app="two", **device.where).app == "two"
    with pytest.raises(InputError) as caught:
        edgepack.status(app="three", **device.where)
    assert caught.value.code == "no-app"


def test_looking_changes_nothing(device: Device) -> None:
    """status, history and probe of an empty device leave not even a folder on it."""
    for read in (edgepack.status, edgepack.history):
        with pytest.raises(InputError):
            read(**device.where)
    edgepack.probe(**device.where)
    assert not device.root.exists()
