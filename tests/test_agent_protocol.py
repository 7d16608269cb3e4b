from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from agent_client import (
    AGENT,
    FIND_MODULES,
    ONDEVICE,
    AgentClient,
    AgentFailure,
    FakeRelease,
    digest,
    find_pythons,
    new_op,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def run_agent(data: bytes, seconds: float = 20) -> list[bytes]:
    """Feeds bytes to an agent, closes its input and returns what it wrote, line by line."""
    agent = subprocess.run(
        [sys.executable, "-I", "-u", str(AGENT)], input=data, capture_output=True, timeout=seconds, check=False
    )
    return agent.stdout.splitlines(keepends=True)


@pytest.mark.parametrize("python", find_pythons())
def test_the_agent_speaks_on_every_python_from_3_8_on(python: str, tmp_path: Path) -> None:
    """A device with any Python from 3.8 on can be probed, and the facts name that Python."""
    version = subprocess.check_output([python, "-c", "import platform; print(platform.python_version())"], text=True)
    with AgentClient(tmp_path / "root", python=python) as agent:
        facts = agent.hello(lock=False)["facts"]
        assert facts["python"] == version.strip()
        assert facts["arch"] in ("x86_64", "aarch64", "armv7l")
        assert facts["memory_bytes"] > 0
        assert agent.request("probe")["facts"]["executable"] == facts["executable"]


def test_looking_creates_nothing_on_the_device(tmp_path: Path) -> None:
    """A session without the lock leaves not even an empty folder behind."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello(lock=False)
        with pytest.raises(AgentFailure, match="no-app"):
            agent.request("status", app=None)
        have = agent.request("missing", app="kws", files=[{"sha256": "0" * 64, "bytes": 3}], runtime=None)
        nothing = {"models": 0, "staged_bytes": 0}
        assert have == {"have": {"0" * 64: 0}, "runtime_present": False, "delta": nothing}
    assert not (tmp_path / "root").exists()


def test_changing_needs_the_lock(tmp_path: Path) -> None:
    """Nothing can be changed by a session that did not take the lock."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello(lock=False)
        with pytest.raises(AgentFailure, match="needs the lock"):
            agent.put(b"some bytes")
    assert not (tmp_path / "root").exists()


def test_hello_comes_first(tmp_path: Path) -> None:
    """A session that did not say which root it works on is refused, and goes on afterwards."""
    with AgentClient(tmp_path / "root") as agent:
        with pytest.raises(AgentFailure, match="first request must be hello"):
            agent.request("status", app=None)
        assert agent.request("ping") == {}
        assert agent.hello()["protocol"] == 1


def test_another_protocol_is_refused(tmp_path: Path) -> None:
    """A host that speaks a later protocol is told so in one sentence."""
    with AgentClient(tmp_path) as agent, pytest.raises(AgentFailure, match="protocol 1, not 2"):
        agent.request("hello", protocol=2, root=str(tmp_path), app=None, lock=False, who="")


def test_requests_may_be_sent_without_waiting(tmp_path: Path) -> None:
    """A host may send many requests at once; they are answered in order."""
    with AgentClient(tmp_path / "root") as agent:
        ids = [agent.send("hello", protocol=1, root=str(agent.root), app=None, lock=True, who="")]
        data = b"x" * 100_000
        ids.append(agent.send("put", data, sha256=digest(data), bytes=len(data), offset=0))
        ids.append(agent.send("missing", app="a", files=[{"sha256": digest(data), "bytes": len(data)}], runtime=None))
        headers = [agent.receive()[0] for _ in ids]
        assert [header["id"] for header in headers] == ids
        assert headers[2]["result"]["have"][digest(data)] == len(data)


def test_the_payload_of_a_refused_request_is_thrown_away(tmp_path: Path) -> None:
    """After an error the next request is understood: the payload that nobody wanted does not look like frames."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        trap = b'{"id": 99, "verb": "ping", "n": 0}\n' * 1000
        with pytest.raises(AgentFailure, match="cannot be the name"):
            agent.request("put", trap, sha256="../../etc", bytes=len(trap), offset=0)
        with pytest.raises(AgentFailure, match="no verb"):
            agent.request("reboot", trap)
        assert agent.request("ping") == {}


def test_a_request_larger_than_a_line_travels_as_the_body(tmp_path: Path) -> None:
    """Requests and results of any length work: what exceeds 64 KiB goes as the payload."""
    files = [{"sha256": digest(str(i).encode()), "bytes": 1} for i in range(2000)]
    with AgentClient(tmp_path / "root") as agent:
        agent.hello(lock=False)
        body = json.dumps({"app": "a", "files": files, "runtime": None}).encode()
        assert len(body) > 64 * 1024
        assert len(agent.request("missing", body, body=True)["have"]) == 2000


def test_a_body_that_is_no_object_is_refused(tmp_path: Path) -> None:
    """A body must be a JSON object; anything else is a bad request, and the session goes on."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello(lock=False)
        for body in (b"[1]", b"{", b"\xff"):
            with pytest.raises(AgentFailure, match="body of a request is not"):
                agent.request("missing", body, body=True)
        assert agent.request("ping") == {}


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\r\n",
        b"[]\n",
        b'{"id": true, "verb": "ping", "n": 0}\n',
        b'{"id": 1, "verb": "ping", "n": -1}\n',
        b'{"id": 1, "verb": "ping"}\n',
        b"[" * 60_000 + b"\n",
        b"x" * 70_000 + b"\n",
    ],
)
def test_a_line_that_is_no_frame_ends_the_session(line: bytes) -> None:
    """Out of step there is no safe way on: one last error, then the agent ends."""
    *_, last = run_agent(line + b'{"id": 7, "verb": "ping", "n": 0}\n')
    header = json.loads(last)
    assert header["id"] is None
    assert header["error"]["code"] == "bad-request"


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_bring_forth_a_traceback(data: bytes) -> None:
    """Whatever arrives, the agent answers in frames or ends; it never prints a traceback on the wire."""
    first, banner, *replies = run_agent(data)
    assert (first, banner) == (b"\n", b"EDGEPACK1 -\n")
    for reply in replies:
        assert json.loads(reply)["error"]["code"] == "bad-request"


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["hello", "probe", "missing", "put", "status", "measure", "collect", "commit", "gc", "record"]),
    st.dictionaries(
        st.sampled_from(["protocol", "root", "app", "lock", "files", "sha256", "bytes", "offset", "release", "op"]),
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2),
    ),
)
def test_arguments_of_any_type_are_refused_in_words(verb: str, args: dict[str, object]) -> None:
    """An argument of a wrong type is a bad request, never an internal fault, and the session goes on."""
    if verb == "hello":
        args["lock"] = False
    good = json.dumps({"id": 1, "verb": "hello", "n": 0, "protocol": 1, "root": "/nonexistent/x", "lock": False})
    odd = json.dumps({**args, "id": 2, "verb": verb, "n": 0})
    ping = json.dumps({"id": 3, "verb": "probe", "n": 0})
    with AgentClient(Path("/nonexistent/x")) as agent:
        agent.send_raw(f"{good}\n{odd}\n{ping}\n".encode())
        replies = [agent.receive()[0] for _ in range(3)]
    assert replies[1]["ok"] or replies[1]["error"]["code"] != "internal"
    assert replies[2]["ok"]


def test_a_stray_print_cannot_break_a_frame(tmp_path: Path) -> None:
    """What a hook prints lands in its output, not between the frames."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        agent.push(FakeRelease())
        result = agent.request(
            "activate",
            op=new_op(),
            app="kws",
            release=None,
            unchecked=True,
            by="",
            hooks={"after_activate": ["sh", "-c", "echo to stdout; echo to stderr >&2"]},
        )
        assert result["hooks"][0]["output"] == "to stdout\nto stderr\n"


def test_pings_are_answered_while_a_verb_runs(tmp_path: Path) -> None:
    """A host can tell a busy device from a dead one: a ping overtakes a hook that takes long."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        agent.push(FakeRelease())
        slow = agent.send(
            "activate", op=new_op(), app="kws", release=None, unchecked=True, by="", hooks={"health": ["sleep", "1.5"]}
        )
        ping = agent.send("ping")
        assert agent.receive()[0]["id"] == ping
        assert agent.receive()[0]["id"] == slow


def test_a_silent_host_is_given_up(tmp_path: Path) -> None:
    """A half-open connection holds the lock no longer than the agreed silence."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello(silence_s=0.5)
        assert agent.process.wait(10) == 3
        with AgentClient(tmp_path / "root") as next_agent:
            next_agent.hello()


def test_a_host_that_takes_no_replies_is_given_up(tmp_path: Path) -> None:
    """A host that is stuck, with the line full of replies that it does not take, holds the lock no longer either."""
    pings = (json.dumps({"id": 1, "verb": "ping", "n": 0}).encode() + b"\n") * 1_000_000
    with AgentClient(tmp_path / "root") as agent:
        agent.hello(silence_s=2)
        with pytest.raises(BrokenPipeError):
            agent.send_raw(pings)
        assert agent.process.wait(10) == 3


def test_a_verb_that_takes_long_is_no_silence(tmp_path: Path) -> None:
    """While the device works and nobody waits for the host, a payload that has to wait in line ends nothing."""
    data = b"x" * 100_000
    with AgentClient(tmp_path / "root") as agent:
        agent.hello(silence_s=2)
        agent.push(FakeRelease())
        slow = {"op": new_op(), "app": "kws", "release": None, "unchecked": True, "by": ""}
        agent.send("activate", **slow, hooks={"health": ["sleep", "3"]})
        agent.send("put", data, sha256=digest(data), bytes=len(data), offset=0)
        assert [agent.receive()[0]["ok"] for _ in range(2)] == [True, True]


def is_running(pid: int) -> bool:
    """True while a process lives (a zombie does not)."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_soon_gone(pid: int) -> bool:
    """Whether it ends within seconds."""
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


@pytest.mark.parametrize("how", ["close", "SIGTERM", "SIGHUP", "SIGINT"])
def test_the_end_of_the_session_ends_its_children(how: str, tmp_path: Path) -> None:
    """When the connection goes, the agent and everything that it started go within seconds."""
    pid_file = tmp_path / "pid"
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        agent.push(FakeRelease())
        hook = ["sh", "-c", f"sleep 1000 & echo $! > '{pid_file}.new'; mv '{pid_file}.new' '{pid_file}'; wait"]
        agent.send(
            "activate", op=new_op(), app="kws", release=None, unchecked=True, by="", hooks={"after_activate": hook}
        )
        deadline = time.monotonic() + 10
        while not pid_file.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        pid = int(pid_file.read_text())
        assert is_running(pid)
        if how != "close":
            os.kill(agent.process.pid, getattr(signal, how))
            agent.process.wait(10)
    assert is_soon_gone(pid)


def test_a_child_that_is_just_being_started_is_ended_too() -> None:
    """A signal between a program's start and the agent's note of it leaves nothing running."""
    code = (
        FIND_MODULES + "import os, signal, subprocess\n"
        "from edgepack_agent import children\n"
        "class Interrupted(subprocess.Popen):\n"
        "    def __init__(self, *given, **options):\n"
        "        super().__init__(*given, **options)\n"
        "        print(self.pid, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "signal.signal(signal.SIGTERM, children.end_on_signal)\n"
        "children.subprocess.Popen = Interrupted\n"
        "children.CHILDREN.start(['sleep', '1000'])\n"
        "sys.exit('still there')\n"
    )
    command = [sys.executable, "-c", code, str(AGENT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert is_soon_gone(int(done.stdout))


def test_two_sessions_cannot_change_a_device_at_once(tmp_path: Path) -> None:
    """The second session learns who holds the lock and since when; looking is still possible."""
    (tmp_path / "root").mkdir()
    with AgentClient(tmp_path / "root") as first, AgentClient(tmp_path / "root") as second:
        first.hello()
        with pytest.raises(AgentFailure) as refused:
            second.hello()
        assert refused.value.code == "locked"
        holder = refused.value.error["details"]["holder"]
        assert (holder["who"], holder["pid"]) == ("a test", first.process.pid)
        assert second.hello(lock=False)["apps"] == {}


def test_two_first_pushes_cannot_change_a_device_at_once(tmp_path: Path) -> None:
    """Where there is no root yet, the first change makes and locks it; the other session is told then."""
    with AgentClient(tmp_path / "root") as first, AgentClient(tmp_path / "root") as second:
        first.hello()
        second.hello()
        assert not (tmp_path / "root").exists()
        first.put(b"first")
        with pytest.raises(AgentFailure) as refused:
            second.put(b"second")
        assert refused.value.code == "locked"


def test_a_killed_session_leaves_no_stale_lock(tmp_path: Path) -> None:
    """The lock is the kernel's: it falls with its holder, whatever ended it."""
    first = AgentClient(tmp_path / "root")
    first.hello()
    first.kill()
    with AgentClient(tmp_path / "root") as second:
        second.hello()
    first.close()


def test_a_connection_cut_in_a_payload_loses_only_what_was_not_sent(tmp_path: Path) -> None:
    """A push that breaks off in the middle of a file is resumed from the bytes that arrived."""
    data = os.urandom(300_000)
    first = AgentClient(tmp_path / "root")
    first.hello()
    header = {"id": 9, "verb": "put", "n": len(data), "sha256": digest(data), "bytes": len(data), "offset": 0}
    first.send_raw(json.dumps(header).encode() + b"\n" + data[:200_000])
    part = tmp_path / "root" / "incoming" / f"{digest(data)}.part"
    deadline = time.monotonic() + 10
    while not (part.exists() and part.stat().st_size >= 200_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.close()
    with AgentClient(tmp_path / "root") as second:
        second.hello()
        wanted = [{"sha256": digest(data), "bytes": len(data)}]
        have = second.request("missing", app="kws", files=wanted, runtime=None)["have"][digest(data)]
        assert have == 200_000
        assert second.put(data, offset=have) == {"bytes": len(data)}


def calls_of(name: str, source: str) -> list[ast.Call]:
    """Where a source calls something by this name."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [node for node in nodes if isinstance(node.func, ast.Name) and node.func.id == name]


@pytest.mark.parametrize(
    ("files", "error"),
    [("agent/*.py", "AgentError"), ("loader.py", "LoaderError"), ("edgepack_device.py", "LoadError")],
)
def test_every_error_says_what_to_do_next(files: str, error: str) -> None:
    """Whatever goes wrong on a device, the error brings a hint along: no place in the source makes one without."""
    calls = [(path.name, call) for path in ONDEVICE.glob(files) for call in calls_of(error, path.read_text())]
    assert len(calls) > 3
    without = [(name, call.lineno) for name, call in calls if len(call.args) < 3 or is_empty(call.args[2])]
    assert without == []


def is_empty(node: ast.expr) -> bool:
    """True for a literal that says nothing."""
    return isinstance(node, ast.Constant) and not node.value


def test_the_same_hint_wherever_a_release_is_not_there(tmp_path: Path) -> None:
    """Each verb that is given an unknown release says which ones there are and how to push one."""
    release = FakeRelease()
    with AgentClient(tmp_path / "root") as agent:
        agent.hello_and_push(release)
        extra = {"measure": {"options": {}}, "record": {"verdict": {"verdict": "pass"}}}
        for verb in ("activate", "rollback", "measure", "manifest", "record"):
            args = {"op": new_op(), "app": None, "release": "9.9-000000000000", **extra.get(verb, {})}
            with pytest.raises(AgentFailure, match="no-release") as refused:
                agent.request(verb, **args)
            assert release.release in refused.value.error["message"]
            assert "edgepack push FILE.edgepack DEVICE" in refused.value.error["hint"]
