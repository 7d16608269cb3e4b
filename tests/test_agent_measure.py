from __future__ import annotations

import io
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from agent_client import AgentClient, AgentFailure, FakeRelease, digest
from ondevice_release import TINY, model_release

from edgepack.quantize.checkset import as_stored
from edgepack.tflite import read_model

QUICK = {"threads": 1, "min_runs": 64, "min_seconds": 0.05, "max_seconds": 5, "check": True}

FAKE_LOADER = """
import json, os, signal, sys, time
output, options = sys.argv[2], json.loads(sys.argv[4])
def finish(**more):
    with open(os.path.join(output, "measurement.json"), "w") as file:
        json.dump({"schema": 1, "latency_ns": [1], **more}, file)
"""


def fake(body: str) -> FakeRelease:
    """A release whose loader misbehaves as the test wants it to."""
    return FakeRelease(contents={"model.tflite": b"m", "loader.py": (FAKE_LOADER + body).encode()})


def measure(tmp_path: Path, release: FakeRelease, **options: object) -> tuple[dict[str, object], AgentClient]:
    """Pushes a release and measures it."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello_and_push(release)
        return agent.request("measure", app=None, release=None, options={**QUICK, **options}), agent


def test_a_check_set_is_measured_and_its_outputs_come_back(tmp_path: Path) -> None:
    """Latency, memory and all outputs of the check set come from the release's own loader, the references beside."""
    rng = np.random.default_rng(3)
    check = {
        "input/image": rng.uniform(0, 1, (20, 8, 8, 1)).astype(np.float32),
        "labels": rng.integers(0, 4, 20),
        "float/output_0": rng.uniform(0, 1, (20, 4)).astype(np.float32),
    }
    with AgentClient(tmp_path / "root") as agent:
        agent.hello_and_push(model_release(check=check))
        result = agent.request("measure", app=None, release=None, options=QUICK)
        header, payload = agent.request_with_payload("collect", token=result["outputs"])
        random = agent.request("measure", app=None, release=None, options={**QUICK, "random_inputs": True})
    assert (result["inputs"], random["inputs"], random["check"]) == ("check set", "random", {"samples": 20})
    assert result["runs"] == len(result["latency_ns"]) >= 64
    assert all(nanoseconds > 0 for nanoseconds in result["latency_ns"])
    assert result["stopped_by"] == "runs"
    assert result["warmup_runs"] > 1
    assert 10e6 < result["peak_rss_bytes"] < 1e9
    assert result["check"] == {"samples": 20}
    assert result["threads"] == 1
    assert len(payload) == header["bytes"] == result["outputs_bytes"]
    with np.load(io.BytesIO(payload), allow_pickle=False) as outputs:
        assert set(outputs.files) == {"device/output_0", "labels", "float/output_0"}
        assert outputs["device/output_0"].shape == (20, 4)
        assert outputs["device/output_0"].dtype == np.float32
        assert np.array_equal(outputs["labels"], check["labels"])
    assert {step["step"] for step in agent.progress} >= {"load"}
    assert not list((tmp_path / "root" / "incoming").glob("*"))


def test_a_check_set_of_integers_answers_as_one_of_numbers(tmp_path: Path) -> None:
    """Inputs stored as the model's integers give the same outputs on the device, to the bit, as the numbers do."""
    numbers = {"input/image": np.random.default_rng(3).uniform(0, 1, (7, 8, 8, 1)).astype(np.float32)}
    stored = as_stored(numbers, read_model(TINY / "tiny_int8.tflite"))
    assert "raw/image" in stored
    answered = []
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        for check in (numbers, stored):
            agent.push(model_release(check=check))
            result = agent.request("measure", app=None, release=None, options=QUICK)
            _, payload = agent.request_with_payload("collect", token=result["outputs"])
            with np.load(io.BytesIO(payload)) as outputs:
                assert outputs.files == ["device/output_0"]
                answered.append(outputs["device/output_0"])
        agent.push(model_release(check={"raw/image": stored["raw/image"]}))
        with pytest.raises(AgentFailure, match=r"bad-check-set.*integers of the input 'image'"):
            agent.request("measure", app=None, release=None, options=QUICK)
    assert np.array_equal(*answered)


def test_without_a_check_set_latency_is_measured_all_the_same(tmp_path: Path) -> None:
    """A model without samples runs on random inputs; there is nothing to collect."""
    result, _ = measure(tmp_path, model_release("tiny_float"))
    assert result["check"] is None
    assert result["outputs"] is None
    assert result["runs"] >= 64


def test_a_model_of_any_size_is_measured_at_the_size_of_its_check_set(tmp_path: Path) -> None:
    """Open sizes are those of the check set; without one, the model that needs them is refused by name."""
    check = {"input/image": np.random.default_rng(3).uniform(0, 1, (5, 12, 10, 1)).astype(np.float32)}
    with AgentClient(tmp_path / "root") as agent:
        agent.hello_and_push(model_release("tiny_open", check=check))
        result = agent.request("measure", app=None, release=None, options=QUICK)
        _, payload = agent.request_with_payload("collect", token=result["outputs"])
        with np.load(io.BytesIO(payload)) as outputs:
            assert outputs["device/output_0"].shape == (5, 10, 8, 2)
        assert result["peak_rss_bytes"] > 10e6
        agent.push(model_release("tiny_open"))
        with pytest.raises(AgentFailure, match=r"bad-check-set.*\[1, -1, -1, 1\]"):
            agent.request("measure", app=None, release=None, options=QUICK)


def test_time_runs_out_before_enough_runs(tmp_path: Path) -> None:
    """A measurement that cannot make its runs in the time given says so instead of going on."""
    result, _ = measure(tmp_path, model_release(), min_runs=100_000_000, max_seconds=0.3)
    assert result["stopped_by"] in ("seconds", "runs")
    assert result["runs"] < 100_000_000


def test_rubbish_on_standard_output_is_harmless(tmp_path: Path) -> None:
    """A runtime that prints, however much and whatever, does not disturb the protocol."""
    body = "print('{\"id\": 1}' * 100_000, flush=True); os.write(2, bytes(range(256)) * 1000); finish(odd=True)"
    assert measure(tmp_path, fake(body))[0]["odd"] is True


def test_progress_is_passed_on(tmp_path: Path) -> None:
    """What the loader reports on its pipe reaches the host; what is no report does not."""
    body = 'fd = options[\'progress_fd\']; os.write(fd, b\'{"step": "x", "done": 1}\\nno json\\n[]\\n\'); finish()'
    _, agent = measure(tmp_path, fake(body))
    assert agent.progress == [{"step": "x", "done": 1}]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "out-of-memory"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed"),
        ("print('the reason'); sys.exit(3)", "measure-failed"),
        ("raise ValueError('the reason')", "measure-failed"),
        (
            "json.dump({'code': 'delegate-missing', 'message': 'no TPU'}, open(output + '/error.json', 'w'))",
            "delegate-missing",
        ),
    ],
)
def test_every_way_to_die_has_its_name(body: str, code: str, tmp_path: Path) -> None:
    """Out of memory, a crash of the runtime and a refusal are told apart, with what was printed last."""
    with pytest.raises(AgentFailure) as failed:
        measure(tmp_path, fake(body))
    assert failed.value.code == code
    if "the reason" in body:
        assert "the reason" in failed.value.error["details"]["output"]


def test_a_measurement_that_hangs_is_ended(tmp_path: Path) -> None:
    """A loader that never finishes is killed with everything that it started, and the session goes on."""
    pid_file = tmp_path / "pid"
    body = f"""
import subprocess
child = subprocess.Popen(["sleep", "1000"])
open({str(pid_file)!r}, "w").write(str(child.pid))
time.sleep(1000)
"""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello_and_push(fake(body))
        with pytest.raises(AgentFailure, match="timeout"):
            agent.request("measure", app=None, release=None, options={**QUICK, "limit_s": 1.0})
        assert agent.request("ping") == {}
    stat = Path(f"/proc/{pid_file.read_text()}/stat")
    assert not stat.exists() or ") Z " in stat.read_text()


def test_a_measurement_does_not_outlive_a_killed_agent(tmp_path: Path) -> None:
    """Even when the agent dies of SIGKILL, the loader that it started ends."""
    rng = np.random.default_rng(0)
    release = model_release(check={"input/image": rng.uniform(0, 1, (4, 8, 8, 1)).astype(np.float32)})
    agent = AgentClient(tmp_path / "root")
    agent.hello_and_push(release)
    agent.send("measure", app=None, release=None, options={**QUICK, "min_seconds": 60, "max_seconds": 60})
    loader = str(tmp_path / "root").encode()

    def running() -> list[str]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if loader in command and b"loader.py" in command:
                    found.append(entry.name)
        return found

    wait_until(running)
    agent.kill()
    wait_until(lambda: not running())
    agent.close()


def wait_until(condition: object, seconds: float = 15) -> None:
    """Waits for something to become true."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_model_larger_than_the_memory_is_not_even_tried(tmp_path: Path) -> None:
    """A model that cannot fit is refused with the numbers, instead of bringing the device down."""
    with AgentClient(tmp_path / "root") as agent:
        release = fake("finish()")
        agent.hello_and_push(release)
        model = tmp_path / "root" / "apps" / "kws" / "releases" / release.release / "model.tflite"
        model.chmod(0o600)
        os.truncate(model, 1 << 42)
        with pytest.raises(AgentFailure, match="memory-short") as failed:
            agent.request("measure", app=None, release=None, options=QUICK)
        assert failed.value.error["details"]["needed_bytes"] > 1 << 42


def test_pings_are_answered_while_it_measures(tmp_path: Path) -> None:
    """The host's pings keep a long measurement alive."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello_and_push(fake("time.sleep(1); finish()"))
        long = agent.send("measure", app=None, release=None, options=QUICK)
        ping = agent.send("ping")
        assert [agent.receive()[0]["id"] for _ in range(2)] == [ping, long]


def test_the_python_of_the_release_is_gone(tmp_path: Path) -> None:
    """After a system upgrade that removed the interpreter, the error says to push again."""
    release = fake("finish()")
    with AgentClient(tmp_path / "root") as agent:
        agent.hello_and_push(release)
        device = tmp_path / "root" / "apps" / "kws" / "releases" / release.release / "device.json"
        device.chmod(0o600)
        device.write_text(json.dumps({**json.loads(device.read_text()), "interpreter": "/usr/bin/python3.2"}))
        with pytest.raises(AgentFailure, match="no-runtime"):
            agent.request("measure", app=None, release=None, options=QUICK)


@pytest.mark.parametrize("token", ["../../../etc", "measure-0000000000000000", "", 7])
def test_only_this_sessions_outputs_can_be_collected(token: object, tmp_path: Path) -> None:
    """A token that this session did not hand out is refused."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello_and_push(fake("finish()"))
        with pytest.raises(AgentFailure, match="bad-request"):
            agent.request("collect", token=token)


def test_a_raised_signal_is_named(tmp_path: Path) -> None:
    """A crash of the runtime tells its signal."""
    with pytest.raises(AgentFailure) as failed:
        measure(tmp_path, fake("os.abort()"))
    assert failed.value.error["details"]["signal"] == signal.SIGABRT.name


def test_many_runs_fit_into_one_reply(tmp_path: Path) -> None:
    """Raw samples that exceed a header line arrive whole."""
    assert measure(tmp_path, fake("finish(more=list(range(100_000)))"))[0]["more"] == list(range(100_000))


def test_the_manifest_can_be_read_back(tmp_path: Path) -> None:
    """The host gets the very bytes of a release's manifest, whose digest is in the release's id."""
    release = fake("finish()")
    with AgentClient(tmp_path / "root") as agent:
        agent.hello_and_push(release)
        result, payload = agent.request_with_payload("manifest", app=None, release=None)
    assert result["release"][-12:] == digest(payload)[:12]
