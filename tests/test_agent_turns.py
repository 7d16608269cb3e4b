"""Two releases in turns on a device: which process runs when, and what is said where one of them cannot."""

from __future__ import annotations

import contextlib
import functools
import json
from pathlib import Path
from typing import Any

import pytest
from agent_client import AgentClient, AgentFailure, FakeRelease, load_agent
from hypothesis import given
from hypothesis import strategies as st
from ondevice_release import model_release
from test_agent_measure import FAKE_LOADER, QUICK, wait_until

# A loader that takes turns as a real one does; a release's own body says what it does otherwise.
TURNS_LOADER = (
    FAKE_LOADER
    + """
def say(report):
    os.write(options["progress_fd"], json.dumps(report).encode() + b"\\n")
say({"ready": 1e5})
made = 0
for line in iter(sys.stdin.readline, "0\\n"):
    if not line:
        sys.exit(9)
    made += int(line)
    turn(made)
    say({"turn": made})
finish(latency_ns=[1] * made, options=options)
"""
)


def taking_turns(version: str, turn: str = "pass") -> FakeRelease:
    """A release with a stand-in for a loader; ``turn`` is what it does in each of its turns, before it is over."""
    code = TURNS_LOADER.replace("made = 0\n", f"def turn(made): {turn}\nmade = 0\n")
    return FakeRelease(version=version, contents={"model.tflite": b"m", "loader.py": code.encode()})


def compare(root: Path, candidate: FakeRelease, current: FakeRelease, **more: Any) -> dict[str, Any]:
    """Pushes both releases, activates one, and measures the other against it."""
    with AgentClient(root) as agent:
        agent.hello_and_push(current)
        agent.activate(current)
        agent.push(candidate)
        arguments = {"release": candidate.release, "against": "current", "options": QUICK, **more}
        return agent.request("measure", app=None, **arguments)


def test_two_releases_run_in_turns(tmp_path: Path) -> None:
    """A B B A: both make the same runs, each in its own loader's process, and the candidate's result is a whole one."""
    current, candidate = model_release("tiny_float"), model_release()
    current.extra["target"] = {"measure": {"threads": 2}}
    result = compare(tmp_path / "root", candidate, current)
    names = [name for name, _ in result["blocks"]]
    assert names[:8] == ["candidate", "current", "current", "candidate"] * 2
    assert len(names) % 4 == 0
    for name, runs in (("candidate", result["latency_ns"]), ("current", result["against"]["latency_ns"])):
        assert sum(count for found, count in result["blocks"] if found == name) == len(runs) >= QUICK["min_runs"]
        assert all(nanoseconds > 0 for nanoseconds in runs)
    assert (result["release"], result["against"]["release"]) == (candidate.release, current.release)
    assert (result["threads"], result["against"]["threads"]) == (1, 2), "each as its own profile says"
    assert result["stopped_by"] == "runs"
    assert result["peak_rss_bytes"] > 1e6
    assert not list((tmp_path / "root" / "incoming").iterdir())


def test_only_one_of_them_runs_at_a_time(tmp_path: Path) -> None:
    """While one release is in its turn, the other waits: what both note of their turns does not overlap."""
    log = tmp_path / "log"
    turn = f"[open({str(log)!r}, 'a').write(f'{{os.getpid()}} {{word}}\\n') for word in ('in', 'out')]"
    compare(tmp_path / "root", taking_turns("2", turn), taking_turns("1", turn))
    lines = [line.split() for line in log.read_text().splitlines()]
    assert len({pid for pid, _ in lines}) == 2
    for (pid, begins), (same, ends) in zip(lines[::2], lines[1::2], strict=True):
        assert (begins, ends) == ("in", "out")
        assert pid == same


def test_time_that_runs_out_ends_both(tmp_path: Path) -> None:
    """max_seconds is for both together; what they made until then is told."""
    slow = "time.sleep(0.05)"
    options = {**QUICK, "min_runs": 10**9, "max_seconds": 0.3}
    result = compare(tmp_path / "root", taking_turns("2", slow), taking_turns("1", slow), options=options)
    assert result["stopped_by"] == "seconds"
    assert len(result["blocks"]) % 2 == 0
    assert len(result["latency_ns"]) == len(result["against"]["latency_ns"]) > 0


@pytest.mark.parametrize("older", ["current", "candidate"])
@pytest.mark.parametrize(
    "body", ["finish()", "os.write(options['progress_fd'], b'{\"step\": \"latency\"}\\n'); time.sleep(60); finish()"]
)
def test_a_loader_that_knows_no_turns_is_named(older: str, body: str, tmp_path: Path) -> None:
    """An older release would measure while the other does: it is told by its id, and nothing is measured."""
    old = FakeRelease(version="0", contents={"model.tflite": b"m", "loader.py": (FAKE_LOADER + body).encode()})
    current, candidate = (old, taking_turns("2")) if older == "current" else (taking_turns("1"), old)
    with pytest.raises(AgentFailure) as failed:
        compare(tmp_path / "root", candidate, current)
    assert failed.value.code == "no-turns"
    assert f"release {old.release} cannot measure in turns" in str(failed.value)
    assert "--against" in failed.value.error["hint"]
    assert not loaders_of(tmp_path / "root")


@pytest.mark.parametrize("dies", ["current", "candidate"])
def test_a_process_that_dies_in_the_middle_ends_both(dies: str, tmp_path: Path) -> None:
    """Which of the two died, and of what, is told; the one that lived does not go on."""
    turn = "made > 10 and os.kill(os.getpid(), signal.SIGKILL)"
    releases = {
        name: taking_turns(version, turn if name == dies else "pass")
        for name, version in (("candidate", "2"), ("current", "1"))
    }
    with pytest.raises(AgentFailure) as failed:
        compare(tmp_path / "root", **releases)
    assert failed.value.code == "out-of-memory"
    assert ("The release to compare with, 1-" in str(failed.value)) == (dies == "current")
    assert not loaders_of(tmp_path / "root")
    assert not list((tmp_path / "root" / "incoming").iterdir())


def test_the_comparison_wants_two_releases(tmp_path: Path) -> None:
    """None that is active, the same one twice, one that is not there: each is refused by name, before anything runs."""
    release = taking_turns("1")
    with AgentClient(tmp_path / "root") as agent:
        agent.hello_and_push(release)
        for against, code in (
            ("current", "no-current"),
            (release.release, "same-release"),
            ("1-0123456789ab", "no-release"),
            ("../../x", "no-release"),
            (7, "bad-request"),
        ):
            with pytest.raises(AgentFailure, match=code):
                agent.request("measure", app=None, release=None, against=against, options=QUICK)
        agent.activate(release)
        with pytest.raises(AgentFailure, match="is the active release itself"):
            agent.request("measure", app=None, release=None, against="current", options=QUICK)


def test_a_runtime_that_is_gone_is_told_as_the_other_releases(tmp_path: Path) -> None:
    """Where the active release's Python or runtime was removed, the error says that it is that one's."""
    current, candidate = model_release("tiny_float"), model_release()
    with AgentClient(tmp_path / "root") as agent:
        agent.hello_and_push(current)
        agent.activate(current)
        agent.push(candidate)
        path = tmp_path / "root" / "apps" / "tiny" / "releases" / current.release / "device.json"
        path.chmod(0o600)
        whole = json.loads(path.read_text())
        gone = {**whole["runtime"], "id": "0123456789abcdef", "dists": ["numpy"]}
        for broken in ({**whole, "interpreter": "/usr/bin/python3.2"}, {**whole, "runtime": gone}):
            path.write_text(json.dumps(broken))
            with pytest.raises(AgentFailure, match=f"no-runtime.*compare with, {current.release}, could not"):
                agent.request("measure", app=None, release=None, against="current", options=QUICK)
    assert not loaders_of(tmp_path / "root")


def test_neither_outlives_a_killed_agent(tmp_path: Path) -> None:
    """When the agent dies of SIGKILL, both loaders that it started end."""
    agent = AgentClient(tmp_path / "root")
    current, candidate = model_release("tiny_float"), model_release()
    agent.hello_and_push(current)
    agent.activate(current)
    agent.push(candidate)
    options = {**QUICK, "min_seconds": 8, "max_seconds": 8}
    agent.send("measure", app=None, release=None, against="current", options=options)
    wait_until(lambda: len(loaders_of(tmp_path / "root")) == 2)
    agent.kill()
    wait_until(lambda: not loaders_of(tmp_path / "root"))
    agent.close()


def loaders_of(root: Path) -> list[str]:
    """The loaders of this root that run now, by process id."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if str(root).encode() in command and b"loader.py" in command:
                found.append(entry.name)
    return found


loaded_agent = functools.cache(load_agent)


@given(
    min_runs=st.integers(1, 10**9),
    max_s=st.floats(0.001, 3600),
    usual_ns=st.tuples(st.floats(1, 1e11), st.floats(1, 1e11)),
)
def test_a_block_is_what_the_time_allows(min_runs: int, max_s: float, usual_ns: tuple[float, float]) -> None:
    """All pairs of blocks together fit into the time, unless one run each is too long for it already."""
    agent = loaded_agent()
    count = agent.plan_block(min_runs, max_s, usual_ns)
    assert 1 <= count <= agent.MOST_RUNS
    assert count == 1 or count * agent.PAIRS * sum(usual_ns) <= max_s * 1e9 * (1 + 1e-9)
