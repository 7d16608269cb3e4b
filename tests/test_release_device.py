"""One release on one device in one session: push, check, activate; and the deploy verb for a bundle or a .tflite."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploying import PLATFORM, TINY, Device, this_machine, tiny_bundle, tiny_model

import edgepack
from edgepack.bundle import Bundle
from edgepack.check.measure import Measuring
from edgepack.deploy.hooks import Hooks
from edgepack.deploy.push import verified_bundle
from edgepack.device import ConnectOptions
from edgepack.device.conversation import Conversation
from edgepack.errors import GateFailed, InputError, MisfitError, UnreachableError
from edgepack.events import Event
from edgepack.project import Project
from edgepack.release import ReleasePolicy, deploy_release


@pytest.fixture
def device(here: Device) -> Device:
    """This machine as a device that holds nothing yet."""
    return here


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def test_a_good_bundle_is_pushed_checked_and_activated_in_one_login(device: Device, tmp_path: Path) -> None:
    """One session does all three steps, and says each of them."""
    path, bundle = tiny_bundle(tmp_path, budget={"p50_ms": 50.0, "max_accuracy_drop": 0.02})
    said: list[Event] = []
    with device.session(lock=True) as session:
        outcome = deploy_release(session, verified_bundle(path), report=said.append)
        assert session.round_trips <= 8
    assert outcome.check is not None
    assert outcome.activate is not None
    assert (outcome.check.verdict, outcome.activate.current) == ("pass", bundle.release)
    assert [step for step in ("push", "check", "activate") if any(event.step == step for event in said)] == [
        "push", "check", "activate",
    ]  # fmt: skip


def test_deploying_again_does_nothing_over(device: Device, tmp_path: Path) -> None:
    """A release that is active with a PASS is neither sent, nor checked, nor switched to again."""
    path, _ = tiny_bundle(tmp_path, budget={"p50_ms": 50.0})
    edgepack.deploy(source=path, **device.where)
    again = edgepack.deploy(source=path, **device.where)
    assert (again.push.bytes.sent, again.push.already_present, again.check) == (0, True, None)
    assert again.activate is not None
    assert not again.activate.changed
    assert len(edgepack.history(**device.where).history) == 1


@pytest.mark.parametrize(
    ("budget", "verdict"), [({"model_bytes": 10}, "fail"), ({"min_accuracy": 0.5}, "inconclusive")]
)
def test_a_check_that_does_not_pass_ends_the_deployment(
    device: Device, tmp_path: Path, budget: dict[str, float], verdict: str
) -> None:
    """The old release stays active, the new one stays the candidate, the document holds the verdict."""
    good, first = tiny_bundle(tmp_path, budget={"p50_ms": 50.0})
    edgepack.deploy(source=good, **device.where)
    path, second = tiny_bundle(tmp_path, version="2.0.0", budget=budget, check_set=False)
    done = edgepack.deploy(source=path, **device.where)
    assert done.check is not None
    assert (done.check.verdict, done.activate) == (verdict, None)
    status = edgepack.status(**device.where)
    assert (status.current, status.candidate) == (first.release, second.release)


def test_unchecked_activates_a_failure_and_says_so(device: Device, tmp_path: Path) -> None:
    """--unchecked wins over the verdict, not over the record: the history names it."""
    path, bundle = tiny_bundle(tmp_path, budget={"model_bytes": 10})
    done = edgepack.deploy(source=path, unchecked=True, **device.where)
    assert done.activate is not None
    assert (done.activate.current, done.activate.unchecked) == (bundle.release, True)
    assert edgepack.history(**device.where).history[-1]["unchecked"] is True


def test_the_projects_budget_and_hooks_hold(device: Device, tmp_path: Path, folder: Path) -> None:
    """Limits of edgepack.toml override the bundle's; its hook runs, and one that fails swaps back."""
    path, _ = tiny_bundle(tmp_path, budget={"p50_ms": 50.0})
    strict = edgepack.deploy(source=path, project=Project(folder, budget={"model_bytes": 10}), **device.where)
    assert strict.check is not None
    assert (strict.check.verdict, strict.activate) == ("fail", None)
    with pytest.raises(GateFailed):
        edgepack.deploy(source=path, project=Project(folder, hooks=Hooks(("false",))), **device.where)
    assert edgepack.status(**device.where).current is None
    done = edgepack.deploy(source=path, project=Project(folder, hooks=Hooks(("true",))), **device.where)
    assert done.activate is not None
    assert done.activate.hooks[0]["code"] == 0


def test_a_release_marked_bad_is_deployed_again_only_where_hooks_judge_it(device: Device, tmp_path: Path) -> None:
    """Without hooks nobody would notice that it is still bad: it is refused, and nothing is switched."""
    path, bundle = tiny_bundle(tmp_path, budget={"p50_ms": 50.0})
    said: list[Event] = []
    with device.session(lock=True) as session, pytest.raises(GateFailed):
        deploy_release(session, verified_bundle(path), policy=ReleasePolicy(hooks=Hooks(("false",))))
    for dry_run in (True, False):
        with pytest.raises(GateFailed, match="no hooks that would notice it again") as caught:
            edgepack.deploy(source=path, dry_run=dry_run, **device.where)
        assert caught.value.code == "marked-bad"
        assert f"edgepack activate {device.address} --release {bundle.release}" in caught.value.hint
    assert edgepack.status(**device.where).current is None
    with device.session(lock=True) as session:
        outcome = deploy_release(
            session, verified_bundle(path), policy=ReleasePolicy(hooks=Hooks(("true",))), report=said.append
        )
    assert outcome.activate is not None
    assert (outcome.activate.current, outcome.activate.was_bad) == (bundle.release, True)
    assert "marked bad" in said[0].message


@pytest.mark.network
def test_a_dry_run_asks_and_changes_nothing(device: Device, tmp_path: Path, folder: Path) -> None:
    """Nothing on the device, nothing in the current folder; the document tells what would be sent."""
    model = tiny_model(tmp_path / "model")
    told = edgepack.deploy(
        source=model, target=this_machine(tmp_path), name="tiny", version="1", dry_run=True, **device.where
    )
    assert told.bundle is not None
    assert (told.quantize, told.check, told.activate) == (None, None, None)
    assert told.push.bytes.sent > 0
    assert not device.root.exists()
    assert list(folder.iterdir()) == []


@pytest.mark.network
def test_a_tflite_that_is_quantized_already_is_bundled_as_it_is(device: Device, tmp_path: Path, folder: Path) -> None:
    """Deploying skips quantizing, keeps what it built in build/, and names it in the document."""
    model = tiny_model(tmp_path / "model")
    given = {"target": this_machine(tmp_path), "name": "tiny", "version": "1"}
    done = edgepack.deploy(source=model, **given, **device.where)
    assert done.quantize is None
    assert done.bundle is not None
    assert done.activate is not None
    assert Path(done.bundle.path) == Path("build/tiny-1.edgepack")
    assert edgepack.inspect(done.bundle.path).release == done.activate.current
    assert json.loads(json.dumps(edgepack.documents.to_json_value(done)))["device"] == device.address


@pytest.mark.usefixtures("folder")
def test_deploy_packs_the_runtime_that_its_options_say(device: Device, tmp_path: Path) -> None:
    """--platform and --without-runtime are those of bundle; what cannot be is told before the device is called."""
    model = tiny_model(tmp_path / "model")
    given: dict[str, Any] = {"target": this_machine(tmp_path), "name": "tiny", "version": "1", **device.where}
    for wrong, code in (
        ({"platforms": ["2.7"]}, "bad-platform"),
        ({"wheels": tmp_path / "none"}, "no-wheels"),
        ({"extra_indexes": ["here"]}, "bad-index"),
        ({"extra_indexes": ["http://127.0.0.1/simple"], "with_runtime": False}, "usage"),
    ):
        with pytest.raises(InputError) as caught:
            edgepack.deploy(source=model, **given, **wrong)
        assert caught.value.code == code
    with pytest.raises(MisfitError, match="armv7l"):
        edgepack.deploy(source=model, **given, platforms=["3.11,armv7l,glibc-2.36"])
    done = edgepack.deploy(source=model, **given, platforms=[PLATFORM.spec], with_runtime=False)
    assert done.bundle is not None
    assert [need["python"] for need in done.bundle.platforms] == [PLATFORM.python]
    assert not [file for file in done.bundle.files if file.path.startswith("wheels/")]
    assert done.activate is not None


def test_what_is_missing_is_told_all_at_once(device: Device, folder: Path) -> None:
    """A model alone is not enough: target, name and version are asked for in one error."""
    with pytest.raises(InputError) as caught:
        edgepack.deploy(source=TINY, **device.where)
    for flag in ("--target", "--name", "--version", "edgepack.toml"):
        assert flag in str(caught.value)
    with pytest.raises(InputError, match="nothing to deploy"):
        edgepack.deploy(**device.where)
    with pytest.raises(InputError, match="no-such-model"):
        edgepack.deploy(source="no-such-model", **device.where)
    assert list(folder.iterdir()) == []


def test_a_flag_that_could_change_nothing_is_refused(device: Device, tmp_path: Path, folder: Path) -> None:
    """--version for a bundle, --eval for a quantized model: an error that names the flag, not a silence."""
    path, _ = tiny_bundle(tmp_path)
    with pytest.raises(InputError, match=r"bundle already.*--version, --eval"):
        edgepack.deploy(source=path, version="2", evaluation="x.npz", **device.where)
    with pytest.raises(InputError, match=r"quantized already.*--eval"):
        edgepack.deploy(source=TINY, target="x86-64", name="a", version="2", evaluation="x.npz", **device.where)
    with pytest.raises(InputError, match=r"bundle already.*--batch, --signature, --input-shape"):
        edgepack.deploy(source=path, batch=None, signature="a", input_shapes=("1,8",), **device.where)
    with pytest.raises(InputError, match=r"--platform, --without-runtime, --wheels, --extra-index"):
        edgepack.deploy(
            source=path, platforms=["3.11"], with_runtime=False, wheels=tmp_path, extra_indexes=["x"], **device.where
        )
    assert not device.root.exists()


def test_a_deployment_is_measured_as_it_is_asked_for(device: Device, tmp_path: Path) -> None:
    """--budget, --min-runs and --max-seconds reach the check, also of a release that is active and has passed."""
    path, _ = tiny_bundle(tmp_path, budget={"p50_ms": 50.0})
    strict = edgepack.deploy(source=path, budget={"model_bytes": 10}, **device.where)
    assert strict.check is not None
    assert (strict.check.verdict, strict.activate) == ("fail", None)
    assert edgepack.deploy(source=path, **device.where).activate is not None
    again = edgepack.deploy(source=path, min_runs=999_999_999, max_seconds=0.3, **device.where)
    assert again.check is not None
    assert again.check.verdict == "inconclusive"
    assert "of the 999,999,999 runs that were asked for" in again.check.reasons[0]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"min_seconds": 5.0, "max_seconds": 2.0}, "usage"),
        ({"budget": {"modelbytes": 10}}, "bad-budget"),
        ({"metric": "top7"}, "unknown-metric"),
    ],
)
def test_what_no_check_can_do_is_refused_before_anything_is_pushed(
    device: Device, tmp_path: Path, asked: dict[str, Any], code: str
) -> None:
    """A contradiction, a limit or a metric that nobody knows stops `deploy` before the device is called."""
    path, _ = tiny_bundle(tmp_path)
    with pytest.raises(InputError) as caught:
        edgepack.deploy(source=path, **asked, **device.where)
    assert caught.value.code == code
    assert not device.root.exists()


def test_the_flags_go_before_the_projects_budget(device: Device, tmp_path: Path, folder: Path) -> None:
    """A --budget limit replaces edgepack.toml's of the same name; the others stay."""
    path, _ = tiny_bundle(tmp_path, budget={"p50_ms": 50.0})
    project = Project(folder, budget={"model_bytes": 10, "load_ms": 5000.0})
    done = edgepack.deploy(source=path, project=project, budget={"model_bytes": 10**9}, **device.where)
    assert done.check is not None
    assert (done.check.budget["model_bytes"], done.check.budget["load_ms"]) == (10**9, 5000.0)
    assert done.activate is not None


def test_a_model_is_taken_as_deploy_is_told(device: Device, tmp_path: Path, folder: Path) -> None:
    """--input-shape (as --batch and --signature) reaches the quantization of what is deployed."""
    np.savez(folder / "samples.npz", x=np.random.default_rng(0).random((8, 8, 8, 1), np.float32))
    asked = {"target": this_machine(tmp_path), "name": "tiny", "version": "1", "calibration": folder / "samples.npz"}
    with pytest.raises(InputError) as caught:
        edgepack.deploy(source=TINY.with_name("tiny_float.tflite"), input_shapes=("1,9,9,1",), **asked, **device.where)
    assert caught.value.code == "bad-input-shape"


def test_an_array_is_no_model(device: Device) -> None:
    """Who hands in the numbers themselves as `source` is told to name a file."""
    with pytest.raises(InputError, match="source takes a path, and got a value of the type ndarray") as caught:
        edgepack.deploy(source=np.zeros(3), **device.where)
    assert caught.value.code == "not-a-path"


def test_a_bundle_of_another_app_is_not_deployed(device: Device, tmp_path: Path, folder: Path) -> None:
    """The name that is given has to be the bundle's; its own name changes nothing."""
    path, bundle = tiny_bundle(tmp_path, budget={"p50_ms": 50.0})
    with pytest.raises(InputError, match="of the app tiny, not of other"):
        edgepack.deploy(source=path, name="other", **device.where)
    assert not device.root.exists()
    done = edgepack.deploy(source=path, name="tiny", **device.where)
    assert done.push.release == bundle.release


def test_hooks_and_budget_of_another_app_are_never_used(device: Device, tmp_path: Path, folder: Path) -> None:
    """In a folder whose edgepack.toml is kws's, kws's service is not restarted for tiny: nothing is done at all."""
    path, _ = tiny_bundle(tmp_path, budget={"p50_ms": 50.0})
    for settings in ({"hooks": Hooks(("true",))}, {"budget": {"p95_ms": 50.0}}):
        with pytest.raises(InputError, match="is for the app kws, not for tiny") as refused:
            edgepack.deploy(source=path, project=Project(folder, name="kws", **settings), **device.where)
        assert refused.value.code == "other-app"
    assert not device.root.exists()
    done = edgepack.deploy(source=path, project=Project(folder, name="kws"), **device.where)
    assert done.activate is not None


def test_a_deployment_logs_in_once_and_reads_its_bundle_once(
    device: Device, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process on the device and one pass over the bundle serve a whole deployment."""
    sessions, passes = [], []
    start, verify = Conversation.start, Bundle.verify
    monkeypatch.setattr(Conversation, "start", lambda self, *given: (sessions.append(self), start(self, *given))[1])
    monkeypatch.setattr(Bundle, "verify", lambda self, *given: (passes.append(self), verify(self, *given))[1])
    path, _ = tiny_bundle(tmp_path, budget={"p50_ms": 50.0})
    edgepack.deploy(source=path, **device.where)
    assert (len(sessions), len(passes)) == (1, 1)


@pytest.mark.network
def test_deploying_a_model_logs_in_once(
    device: Device, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session that asked whether the target fits is the one that deploys; its lock keeps others out meanwhile."""
    sessions = []
    start = Conversation.start
    monkeypatch.setattr(Conversation, "start", lambda self, *given: (sessions.append(self), start(self, *given))[1])
    model = tiny_model(tmp_path / "model")
    done = edgepack.deploy(source=model, target=this_machine(tmp_path), name="tiny", version="1", **device.where)
    assert done.activate is not None
    assert len(sessions) == 1


def test_a_device_that_does_not_fit_is_refused_before_anything_is_built(device: Device, folder: Path) -> None:
    """Nobody waits for a conversion to learn that the target is another machine's."""
    for target in ("raspberry-pi-4", "android-gpu"):
        with pytest.raises(MisfitError, match=target):
            edgepack.deploy(source=TINY, target=target, name="tiny", version="1", **device.where)
    with pytest.raises(UnreachableError):
        edgepack.deploy(
            "nobody@127.0.0.1:1",
            TINY,
            target="x86-64",
            name="tiny",
            version="1",
            options=ConnectOptions(ssh_config=Path(os.devnull), known_hosts=folder / "none"),
        )
    assert list(folder.iterdir()) == []


def test_a_policy_is_a_plain_value() -> None:
    """What a rollout hands to its workers compares and prints."""
    policy = ReleasePolicy(Measuring({"p95_ms": 1.0}), hooks=Hooks(("true",)))
    assert replace(policy) == policy
    assert "p95_ms" in repr(policy)


def test_a_release_whose_runtime_changed_is_checked_again(device: Device, tmp_path: Path) -> None:
    """What passed with another runtime than the device has now does not count: deploy checks it before all is well."""
    path, bundle = tiny_bundle(tmp_path, budget={"p50_ms": 50.0})
    edgepack.deploy(source=path, **device.where)
    facts = device.release("tiny", bundle.release) / "device.json"
    facts.chmod(0o644)
    facts.write_text(facts.read_text().replace('"version"', '"older"'))
    again = edgepack.deploy(source=path, **device.where)
    assert again.push.already_present
    assert again.check is not None
    assert again.check.verdict == "pass"
