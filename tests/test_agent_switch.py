from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import sys
from pathlib import Path

import pytest
from agent_client import AgentClient, AgentFailure, FakeRelease, digest, find_pythons, new_op

OLD, NEW = FakeRelease(), FakeRelease(version="2.0.0", contents={"model.tflite": b"the new model"})


@pytest.fixture
def agent(tmp_path: Path) -> AgentClient:
    """A locked session on a device that holds two releases; the old one is active."""
    with AgentClient(tmp_path / "root") as client:
        client.hello_and_push(OLD)
        client.push(NEW)
        client.activate(OLD)
        yield client


def current(agent: AgentClient) -> str | None:
    """The active release."""
    found: str | None = agent.request("status", app=None)["current"]
    return found


def record(agent: AgentClient, release: FakeRelease, verdict: str) -> None:
    """Keeps a verdict on the device."""
    agent.request(
        "record", op=new_op(), app="kws", release=release.release, verdict={"verdict": verdict, "reasons": ["r"]}
    )


@pytest.mark.parametrize("python", find_pythons())
def test_a_release_lives_its_life_on_every_python(python: str, tmp_path: Path) -> None:
    """From 3.8 on the agent measures, records, activates with hooks, goes back, and removes what is old."""
    loader = (
        b"import os, sys\n"
        b"for name, text in (('measurement.json', '{\"runs\": 7}'), ('outputs.npz', 'outputs')):\n"
        b"    open(os.path.join(sys.argv[2], name), 'w').write(text)\n"
    )
    new = FakeRelease(version="2.0.0", contents={"model.tflite": b"m", "loader.py": loader})
    hooks = {"after_activate": ["sh", "-c", "echo $EDGEPACK_RELEASE"], "health": ["true"]}
    with AgentClient(tmp_path / "root", python=python) as agent:
        agent.hello_and_push(OLD)
        agent.activate(OLD)
        agent.push(new)
        measured = agent.request("measure", app=None, release=None, options={})
        assert measured["runs"] == 7
        assert agent.request_with_payload("collect", token=measured["outputs"])[1] == b"outputs"
        record(agent, new, "pass")
        assert agent.request_with_payload("manifest", app=None, release=None)[1] == new.manifest
        activated = agent.activate(new, unchecked=False, hooks=hooks)
        assert (activated["current"], activated["previous"]) == (new.release, OLD.release)
        assert [hook["output"].strip() for hook in activated["hooks"]] == [new.release, ""]
        back = agent.request("rollback", op=new_op(), app=None, release=None, by="test", hooks=None)
        assert back["current"] == OLD.release
        assert [entry["verb"] for entry in agent.request("status", app=None)["history"]][-1] == "rollback"
        assert agent.request("gc", op=new_op(), app=None, keep=0)["removed"] == [new.release]


@pytest.mark.parametrize("verdict", [None, "fail", "inconclusive"])
def test_only_a_release_that_passed_here_is_activated(verdict: str | None, agent: AgentClient) -> None:
    """Without a PASS on this device there is no activation, unless the operator says so, which is written down."""
    if verdict:
        record(agent, NEW, verdict)
    with pytest.raises(AgentFailure, match="not-checked"):
        agent.activate(NEW, unchecked=False)
    assert current(agent) == OLD.release
    assert agent.activate(NEW)["unchecked"] is True
    assert agent.request("status", app=None)["history"][-1]["unchecked"] is True


def test_a_pass_opens_the_gate(agent: AgentClient) -> None:
    """After a PASS was recorded the candidate is activated without naming it."""
    record(agent, NEW, "pass")
    result = agent.request("activate", op=new_op(), app=None, release=None, unchecked=False, by="me", hooks=None)
    assert (result["current"], result["previous"], result["changed"]) == (NEW.release, OLD.release, True)
    status = agent.request("status", app=None)
    assert [entry["to"] for entry in status["history"]] == [OLD.release, NEW.release]
    assert {line["release"]: line["verdict"] for line in status["releases"]} == {OLD.release: None, NEW.release: "pass"}


def test_a_pass_counts_only_for_the_runtime_that_it_was_measured_with(agent: AgentClient) -> None:
    """After a push that chose another runtime the release has to be checked again; after an equal one it has not."""
    record(agent, NEW, "pass")
    arguments = NEW.commit_arguments()
    agent.request("commit", **arguments)
    assert agent.request("status", app=None)["releases"][1]["verdict"] == "pass"
    arguments["device"]["runtime"]["version"] = "9.9"
    agent.request("commit", **{**arguments, "op": new_op()})
    assert agent.request("status", app=None)["releases"][1]["verdict"] is None
    with pytest.raises(AgentFailure, match="not-checked"):
        agent.activate(NEW, unchecked=False)


def test_a_power_cut_never_leaves_a_pass_for_another_runtime(tmp_path: Path) -> None:
    """Killed at any instant while another runtime is chosen, the device never takes the old PASS for the new one."""
    for kill_at in itertools.count(1):
        root = tmp_path / f"root-{kill_at}"
        with AgentClient(root) as agent:
            agent.hello_and_push(NEW)
            record(agent, NEW, "pass")
        arguments = NEW.commit_arguments()
        arguments["device"]["runtime"]["version"] = "9.9"
        survived = False
        with AgentClient(root, kill_at=kill_at) as dying, contextlib.suppress(EOFError, BrokenPipeError):
            dying.hello()
            survived = bool(dying.request("commit", **arguments))
        device = json.loads((root / "apps" / "kws" / "releases" / NEW.release / "device.json").read_text())
        with AgentClient(root) as agent:
            agent.hello()
            if device["runtime"]["version"] == "9.9":
                with pytest.raises(AgentFailure, match="not-checked"):
                    agent.activate(NEW, unchecked=False)
            else:
                assert agent.activate(NEW, unchecked=False)["current"] == NEW.release
        if survived:
            break
    assert kill_at > 8


def test_a_pass_outlives_another_name_of_the_same_python(tmp_path: Path) -> None:
    """Both python and python3 of one environment are one interpreter; the same Python in another one is not."""
    for name in ("env/bin/python", "env/bin/python3", "other/bin/python"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(sys.executable)
    verdicts = []
    for name in ("env/bin/python", "env/bin/python3", "other/bin/python"):
        with AgentClient(tmp_path / "root", python=str(tmp_path / name)) as agent:
            agent.hello_and_push(NEW)
            if not verdicts:
                record(agent, NEW, "pass")
            verdicts.append(agent.request("status", app=None)["releases"][0]["verdict"])
    assert verdicts == ["pass", "pass", None]


def test_the_refusal_names_what_opens_the_gate(agent: AgentClient) -> None:
    """Whichever verb is refused for want of a PASS, the hint is a command that exists and names the release."""
    for verb in ("activate", "rollback"):
        with pytest.raises(AgentFailure, match="not-checked") as refused:
            agent.request(verb, op=new_op(), app=None, release=NEW.release, unchecked=False, by="", hooks=None)
        hint = refused.value.error["hint"]
        assert f"edgepack check DEVICE --release {NEW.release}" in hint
        assert f"edgepack activate DEVICE --release {NEW.release} --unchecked" in hint


def test_activating_what_is_active_changes_nothing(agent: AgentClient) -> None:
    """A second activation of the same release runs no hook and adds nothing to the history."""
    result = agent.activate(OLD, hooks={"after_activate": ["false"]})
    assert (result["changed"], result["hooks"]) == (False, [])
    assert len(agent.request("status", app=None)["history"]) == 1


def test_an_operation_is_done_once(agent: AgentClient) -> None:
    """A repeated request with the same operation id returns the first answer, whatever happened in between."""
    op = new_op()
    first = agent.activate(NEW, op=op)
    agent.activate(OLD)
    assert agent.activate(NEW, op=op) == first
    assert current(agent) == OLD.release


def roll_back(agent: AgentClient) -> dict[str, object]:
    """Rolls back without naming a release."""
    result: dict[str, object] = agent.request("rollback", op=new_op(), app=None, release=None, by="me", hooks=None)
    return result


def test_rollback_never_goes_forward_to_what_was_fled_from(agent: AgentClient) -> None:
    """Each rollback without a name goes one step further back; where nothing is left, the release stays active."""
    third = FakeRelease(version="3", contents={"model.tflite": b"the third"})
    agent.push(third)
    agent.activate(NEW)
    agent.activate(third)
    back = roll_back(agent)
    assert (back["current"], back["previous"]) == (NEW.release, third.release)
    assert roll_back(agent)["current"] == OLD.release
    with pytest.raises(AgentFailure, match="no-previous"):
        roll_back(agent)
    assert current(agent) == OLD.release
    assert [entry["verb"] for entry in agent.request("status", app=None)["history"]][-2:] == ["rollback", "rollback"]


def test_what_was_fled_from_counts_again_once_it_is_activated_again(agent: AgentClient) -> None:
    """A release that is activated by name after a rollback is one to go back to, as any other."""
    agent.activate(NEW)
    roll_back(agent)
    agent.activate(NEW)
    assert agent.request("status", app=None)["previous"] == OLD.release
    agent.activate(OLD)
    assert roll_back(agent)["current"] == NEW.release


def test_rollback_passes_over_a_release_that_is_gone(agent: AgentClient) -> None:
    """Where the release before was removed, the one before that is gone back to."""
    third = FakeRelease(version="3", contents={"model.tflite": b"the third"})
    agent.push(third)
    agent.activate(NEW)
    agent.activate(third)
    folder = agent.root / "apps" / "kws" / "releases" / NEW.release
    folder.chmod(0o700)
    shutil.rmtree(folder)
    assert roll_back(agent)["current"] == OLD.release


def test_an_interrupted_rollback_is_completed(agent: AgentClient) -> None:
    """Asked again after a cut between the switch and its hook, rollback runs the hook and goes no step further."""
    agent.activate(NEW)
    killing = {"after_activate": ["sh", "-c", "kill -9 $PPID"]}
    with pytest.raises(EOFError):
        agent.request("rollback", op=new_op(), app=None, release=None, by="me", hooks=killing)
    with AgentClient(agent.root) as client:
        client.hello()
        result = roll_back(client)
        assert (result["current"], result["changed"], result["previous"]) == (OLD.release, True, NEW.release)
        assert [e["outcome"] for e in client.request("status", app=None)["history"]] == ["done"] * 3


def test_an_inconclusive_check_takes_no_pass_from_what_is_active(agent: AgentClient) -> None:
    """Not to know is no failure: the active release keeps its PASS, and the later word stands beside it."""
    for release in (NEW, OLD):
        record(agent, release, "pass")
        record(agent, release, "inconclusive")
    found = {line["release"]: line for line in agent.request("status", app=None)["releases"]}
    assert (found[OLD.release]["verdict"], found[OLD.release]["rechecked"]) == ("pass", "inconclusive")
    assert (found[NEW.release]["verdict"], found[NEW.release]["rechecked"]) == ("inconclusive", None)
    record(agent, OLD, "pass")
    assert agent.request("status", app=None)["releases"][0]["rechecked"] is None
    record(agent, OLD, "fail")
    assert agent.request("status", app=None)["releases"][0]["verdict"] == "fail"


def test_rollback_goes_nowhere_unproved(agent: AgentClient) -> None:
    """Rollback needs an earlier release, and never goes to one that was neither active nor checked here."""
    with pytest.raises(AgentFailure, match="no-previous"):
        agent.request("rollback", op=new_op(), app=None, release=None, by="", hooks=None)
    with pytest.raises(AgentFailure, match="not-checked"):
        agent.request("rollback", op=new_op(), app=None, release=NEW.release, by="", hooks=None)
    with pytest.raises(AgentFailure, match="no-release"):
        agent.request("rollback", op=new_op(), app=None, release="9.9-000000000000", by="", hooks=None)


@pytest.mark.parametrize(
    ("hooks", "code"),
    [
        ({"after_activate": ["sh", "-c", "echo the reason; exit 3"]}, "hook-failed"),
        ({"after_activate": ["/no/such/program"]}, "hook-failed"),
        ({"after_activate": ["sleep", "60"], "hook_timeout_s": 0.3}, "hook-failed"),
        ({"health": ["sh", "-c", "echo the reason; exit 1"], "health_retries": 1}, "health-failed"),
    ],
)
def test_a_failing_hook_brings_the_old_release_back(hooks: dict[str, object], code: str, agent: AgentClient) -> None:
    """When the service does not come up, the old release is active again and the new one is marked bad."""
    with pytest.raises(AgentFailure) as failed:
        agent.activate(NEW, hooks=hooks)
    assert failed.value.code == code
    assert "exit" in failed.value.error["details"]
    status = agent.request("status", app=None)
    assert status["current"] == OLD.release
    assert {line["release"]: line["bad"] for line in status["releases"]} == {OLD.release: False, NEW.release: True}
    assert status["history"][-1]["outcome"] == code


def test_the_hook_runs_again_for_the_release_that_is_back(agent: AgentClient, tmp_path: Path) -> None:
    """After a failed activation the service is restarted with the old model, so it does not go on with the new one."""
    log = tmp_path / "log"
    hook = ["sh", "-c", f"echo $EDGEPACK_RELEASE >>'{log}'; test $EDGEPACK_RELEASE = {OLD.release}"]
    with pytest.raises(AgentFailure, match="hook-failed"):
        agent.activate(NEW, hooks={"after_activate": hook})
    assert log.read_text().split() == [NEW.release, OLD.release]


def test_an_old_release_whose_hook_fails_too_is_told(agent: AgentClient) -> None:
    """Where the restart of the release that is back fails as well, the error and its repetition say so."""
    op = new_op()
    for _ in range(2):
        with pytest.raises(AgentFailure, match=f"failed for {OLD.release} too") as failed:
            agent.activate(NEW, op=op, hooks={"after_activate": ["sh", "-c", "echo no; exit 4"]})
        assert failed.value.error["details"]["restart"]["code"] == 4
    assert current(agent) == OLD.release
    kept = agent.request("status", app=None)["history"][-1]["failure"]
    assert (kept["output"], kept["restart"]["code"]) == ("no\n", 4)


def test_a_first_release_that_fails_leaves_nothing_active(tmp_path: Path) -> None:
    """Where there was no release before, a failed activation ends with none."""
    with AgentClient(tmp_path / "root") as client:
        client.hello_and_push(NEW)
        with pytest.raises(AgentFailure, match="hook-failed") as failed:
            client.activate(NEW, hooks={"after_activate": ["false"]})
        assert "Nothing is active" in failed.value.error["message"]
        assert current(client) is None


def test_the_same_failed_operation_fails_the_same_way(agent: AgentClient) -> None:
    """Asking again with the id of an activation that failed gets its failure, and does not try once more."""
    op = new_op()
    for hooks in ({"after_activate": ["false"]}, {"after_activate": ["true"]}):
        with pytest.raises(AgentFailure, match="hook-failed"):
            agent.activate(NEW, op=op, hooks=hooks)
    assert current(agent) == OLD.release


def test_a_bad_release_may_be_tried_again_by_name(agent: AgentClient) -> None:
    """Once the cause is mended, an explicit activation works and takes the mark away."""
    with pytest.raises(AgentFailure):
        agent.activate(NEW, hooks={"after_activate": ["false"]})
    agent.activate(NEW)
    assert not any(line["bad"] for line in agent.request("status", app=None)["releases"])


def test_a_health_check_gets_its_tries(agent: AgentClient, tmp_path: Path) -> None:
    """A service that needs a moment is not a failure as long as tries are left."""
    hook = ["sh", "-c", f"test -e '{tmp_path}/seen' || {{ touch '{tmp_path}/seen'; exit 1; }}"]
    assert agent.activate(NEW, hooks={"health": hook, "health_retries": 2})["hooks"][-1]["code"] == 0


def test_a_hook_that_leaves_a_daemon_behind_is_not_waited_for(agent: AgentClient) -> None:
    """A hook may start something that goes on running and keeps its output open."""
    hook = ["sh", "-c", "sleep 30 & echo started"]
    assert agent.activate(NEW, hooks={"after_activate": hook})["hooks"][0]["output"] == "started\n"


@pytest.mark.parametrize("hooks", [["true"], {"after_activate": "true"}, {"after_activate": []}, {"health": [1]}])
def test_a_hook_is_a_list_of_arguments(hooks: object, agent: AgentClient) -> None:
    """Shell strings and other shapes are refused before anything is switched."""
    with pytest.raises(AgentFailure, match="bad-request"):
        agent.activate(NEW, hooks=hooks)
    assert current(agent) == OLD.release


def test_hooks_get_their_arguments_as_they_are(agent: AgentClient) -> None:
    """No shell touches a hook's arguments."""
    hooks = {"after_activate": ["printf", "%s|", "a b", "$HOME", "; false", "ü"]}
    assert agent.activate(NEW, hooks=hooks)["hooks"][0]["output"] == "a b|$HOME|; false|ü|"


def test_several_apps_live_side_by_side(agent: AgentClient) -> None:
    """With two apps on a device each verb needs to be told which, and they do not touch each other."""
    other = FakeRelease(app="wakeword")
    agent.push(other)
    with pytest.raises(AgentFailure, match="several-apps") as several:
        agent.request("status", app=None)
    assert several.value.error["details"]["apps"] == ["kws", "wakeword"]
    agent.activate(other)
    assert agent.request("status", app="kws")["current"] == OLD.release
    with AgentClient(agent.root) as looking:
        assert set(looking.hello(lock=False)["apps"]) == {"kws", "wakeword"}


def test_gc_keeps_what_is_needed(agent: AgentClient) -> None:
    """Old releases go, oldest first; the active one, the one before and the candidate always stay."""
    agent.activate(NEW)
    third, fourth = (FakeRelease(version=v, contents={"model.tflite": v.encode() * 9}) for v in ("3", "4"))
    agent.push(third)
    agent.push(fourth)
    assert agent.request("gc", op=new_op(), app=None, keep=9)["removed"] == []
    assert agent.request("gc", op=new_op(), app=None, keep=0)["removed"] == [third.release]
    status = agent.request("status", app=None)
    assert {line["release"] for line in status["releases"]} == {OLD.release, NEW.release, fourth.release}
    assert status["previous"] == OLD.release


def test_an_app_that_was_only_tried_out_is_forgotten(agent: AgentClient) -> None:
    """Nothing stays of it; an app that is active is never forgotten, and the others do not notice."""
    tried = FakeRelease(app="kws-tune")
    agent.push(tried)
    forgotten = agent.request("gc", op=new_op(), app="kws-tune", keep=0, forget=True)
    assert forgotten["removed"] == [tried.release]
    assert not (agent.root / "apps" / "kws-tune").exists()
    with pytest.raises(AgentFailure, match="is active"):
        agent.request("gc", op=new_op(), app="kws", keep=0, forget=True)
    assert agent.request("status", app="kws")["current"] == OLD.release


def find_problems(root: Path, allowed: set[str | None]) -> list[str]:
    """What is wrong with the state of a device, however its last session ended."""
    link = root / "apps" / "kws" / "current"
    if not link.is_symlink():
        return [] if None in allowed else ["current is gone"]
    name = link.readlink().name
    problems = [] if name in allowed else [f"current is {name}"]
    manifest = link / "manifest.json"
    if digest(manifest.read_bytes())[:12] != name[-12:]:
        problems.append("the manifest is not that of the release")
    files = json.loads(manifest.read_bytes())["files"]
    return problems + [e["path"] for e in files if digest((link / e["path"]).read_bytes()) != e["sha256"]]


def update(agent: AgentClient, op: str, hook: str) -> bool:
    """Pushes and activates the new release; False where the agent died on the way."""
    try:
        agent.hello_and_push(NEW)
        if hook == "true":
            agent.activate(NEW, op=op, hooks={"after_activate": [hook]})
        else:
            with pytest.raises(AgentFailure, match="hook-failed"):
                agent.activate(NEW, op=op, hooks={"after_activate": [hook]})
    except (EOFError, BrokenPipeError):
        return False
    return True


@pytest.mark.parametrize("hook", ["true", "false"])
def test_a_power_cut_at_any_instant_leaves_a_whole_release_active(
    hook: str, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Killed at any of its disk operations, an update leaves the old or the new release, and the next one works."""
    outcomes = set()
    for kill_at in itertools.count(1, 1 if pytestconfig.getoption("--slow") else 4):
        root = tmp_path / f"root-{kill_at}"
        with AgentClient(root) as agent:
            agent.hello_and_push(OLD)
            agent.activate(OLD)
        op = new_op()
        with AgentClient(root, kill_at=kill_at) as dying:
            survived = update(dying, op, hook)
        assert find_problems(root, {OLD.release, NEW.release}) == [], kill_at
        with AgentClient(root) as agent:
            agent.hello()
            status = agent.request("status", app=None)
            assert find_problems(root, {status["current"]}) == []
            outcomes.add(status["history"][-1]["outcome"])
            agent.push(NEW)
            assert agent.activate(NEW, op=op if hook == "true" else new_op())["current"] == NEW.release
            done = [e for e in agent.request("status", app=None)["history"] if e["to"] == NEW.release]
            assert [e["outcome"] for e in done if e["outcome"] != "hook-failed"] == ["done"]
            assert sorted(path.name for path in (root / "incoming").iterdir()) == []
            assert not list((root / "apps" / "kws").glob("*.new-*"))
        if survived:
            break
    assert kill_at > 30
    assert {"done", "hook-failed" if hook == "false" else "done"} <= outcomes <= {"done", "interrupted", "hook-failed"}


def test_an_interrupted_activation_is_completed_not_repeated(tmp_path: Path) -> None:
    """After a cut between the switch and its hook, asking again runs the hook, and the history has one activation."""
    root = tmp_path / "root"
    hooks = {"after_activate": ["sh", "-c", f"echo ran >>'{tmp_path}/log'; kill -9 $PPID"]}
    with AgentClient(root) as agent:
        agent.hello_and_push(OLD)
        agent.activate(OLD)
        agent.push(NEW)
    op = new_op()
    with AgentClient(root) as agent:
        agent.hello()
        with pytest.raises(EOFError):
            agent.activate(NEW, op=op, hooks=hooks)
    with AgentClient(root) as agent:
        agent.hello()
        assert agent.request("status", app=None)["history"][-1]["outcome"] == "interrupted"
        result = agent.activate(NEW, op=op, hooks={"after_activate": ["sh", "-c", f"echo ran >>'{tmp_path}/log'"]})
        assert (result["changed"], result["previous"]) == (True, OLD.release)
        history = agent.request("status", app=None)["history"]
        assert [(e["from"], e["to"], e["outcome"]) for e in history] == [
            (None, OLD.release, "done"),
            (OLD.release, NEW.release, "done"),
        ]
    assert (tmp_path / "log").read_text() == "ran\nran\n"


def test_half_written_files_are_swept(agent: AgentClient) -> None:
    """What a power cut left half written is gone after the next session that changes something began."""
    app = agent.root / "apps" / "kws"
    agent.close()
    (app / "releases" / OLD.release).chmod(0o700)
    leftovers = [app / "state.json.new-01234567", app / "releases" / OLD.release / "device.json.new-89abcdef"]
    for path in leftovers:
        path.write_text("half")
    (app / "current.new-00000000").symlink_to("releases/nothing")
    with AgentClient(agent.root) as client:
        client.hello()
    assert not any(path.exists() or path.is_symlink() for path in [*leftovers, app / "current.new-00000000"])


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"history": 7, "bad": null, "operations": []}'])
def test_a_ruined_state_file_does_not_brick_the_device(content: str, agent: AgentClient) -> None:
    """The state only remembers; the link alone says what is active, so the device goes on without it."""
    (agent.root / "apps" / "kws" / "state.json").write_text(content)
    assert current(agent) == OLD.release
    assert agent.activate(NEW)["previous"] == OLD.release


def test_unknown_fields_of_the_state_are_carried_through(agent: AgentClient) -> None:
    """What a later edgepack noted on a device survives an earlier one."""
    path = agent.root / "apps" / "kws" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pins": ["a"]}))
    agent.activate(NEW)
    assert json.loads(path.read_text())["pins"] == ["a"]
