from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgepack.device.conversation as conversation_module
from edgepack.device import ConnectOptions, Session, open_session
from edgepack.device.bootstrap import BOOTSTRAP, start_command, start_error
from edgepack.device.facts import DeviceFacts
from edgepack.device.faults import ERROR_KINDS, error_from_reply
from edgepack.device.local import LocalTransport
from edgepack.device.wire import MAX_VALUES, FrameReader, request_frame
from edgepack.errors import (
    DeviceFailure,
    EdgepackError,
    InputError,
    InternalError,
    LockedError,
    MisfitError,
    UnreachableError,
)

STAND_IN = zlib.compress(Path(__file__).with_name("stand_in_agent.py").read_bytes())
ONDEVICE = Path(conversation_module.__file__).parent.parent / "ondevice"
OPTIONS = ConnectOptions(python=sys.executable)


@pytest.fixture
def session() -> Iterator[Session]:
    """A session with the stand-in agent on this machine."""
    with open_session(LocalTransport(), OPTIONS, agent=STAND_IN) as opened:
        yield opened


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether a process ends within this time."""
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


def test_opening_costs_one_round_trip(session: Session) -> None:
    """The agent and the first question travel together: on a slow line, a session is open after one round trip."""
    assert session.round_trips == 1
    assert session.hello["root"] == "~/.edgepack"
    assert session.facts.python == "3.11.2"


def test_a_verb_returns_what_the_device_says(session: Session) -> None:
    """Arguments reach the device as they are, and its reply comes back as it is."""
    reply = session.request("anything", app="kws", files=[{"path": "ü"}])
    assert reply.result["arguments"]["files"] == [{"path": "ü"}]
    assert session.round_trips == 2


def test_payloads_are_binary_safe_both_ways(session: Session) -> None:
    """A model's bytes arrive as they were, newlines, zeros and all."""
    data = bytes(range(256)) * 4096
    assert session.request("echo", [data[:5], bytearray(data[5:99]), memoryview(data)[99:]], len(data)).payload == data


def test_requests_can_be_sent_ahead(session: Session) -> None:
    """Several files travel for the price of one round trip."""
    before = session.round_trips
    ids = [session.send("put", [b"x" * size], size) for size in (10, 70_000, 0)]
    assert [session.receive(id_).result["received"] for id_ in reversed(ids)] == [0, 70_000, 10]
    assert session.round_trips == before + 1


def test_progress_reaches_who_asked(session: Session) -> None:
    """A long measurement can be watched while it runs."""
    seen: list[object] = []
    session.request("progress", on_progress=lambda progress: seen.append(progress["done"]))
    assert seen == [0, 1, 2]


def test_a_full_disk_stops_the_payload_at_once(session: Session) -> None:
    """When the device has no room, the rest of 400 MB is not sent first."""
    given = 0

    def chunks() -> Iterator[bytes]:
        nonlocal given
        for _ in range(4000):
            given += 1
            yield bytes(100_000)

    with pytest.raises(DeviceFailure) as caught:
        session.request("refuse-early", chunks(), 400_000_000)
    assert caught.value.code == "disk-full"
    assert given < 4000
    with pytest.raises(DeviceFailure):
        session.request("anything")


@pytest.mark.parametrize("size", [2, 4])
def test_a_payload_of_the_wrong_size_is_our_own_fault(session: Session, size: int) -> None:
    """A payload that is not as long as announced never leaves the device waiting for the rest."""
    with pytest.raises(InternalError):
        session.request("put", [b"abc"[: size % 4], b"d" * (size // 4 * 4)], 3)
    assert gone(session.hello["pid"])


@pytest.mark.parametrize("code", [*ERROR_KINDS, "something-new"])
def test_a_refusal_has_its_exit_code(session: Session, code: str) -> None:
    """What the device refuses has the exit code of the table and the device's words, and the session goes on."""
    error = {"code": code, "message": "said there", "hint": "do that", "details": {"bytes": 7, "code": "shadow"}}
    with pytest.raises(ERROR_KINDS.get(code, DeviceFailure)) as caught:
        session.request("fail", error=error)
    assert (caught.value.code, caught.value.message, caught.value.hint) == (code, "said there", "do that")
    assert caught.value.details["bytes"] == 7
    assert session.request("anything").result["verb"] == "anything"


@pytest.mark.parametrize("malformed", [None, 3, {}, {"code": None}, {"code": "x", "details": [1]}])
def test_a_malformed_refusal_is_still_an_error_of_ours(malformed: object) -> None:
    """A device that answers nonsense makes exit code 7, not a traceback."""
    assert isinstance(error_from_reply(malformed, "device"), DeviceFailure)


def test_who_holds_the_lock_is_told() -> None:
    """When somebody else deploys, the error says who."""
    with pytest.raises(LockedError) as caught:
        open_session(LocalTransport(), OPTIONS, app="locked-app", agent=STAND_IN)
    assert caught.value.details["holder"] == {"who": "ada@host"}


@pytest.mark.parametrize(
    ("verb", "code", "words"),
    [
        ("die", "agent-ended", "Out of luck"),
        ("kill", "agent-ended", "killed"),
        ("garbage", "not-the-agent", "no frame"),
        ("reject", "bad-request", "not understood"),
    ],
)
def test_an_agent_that_ends_in_the_middle_is_told_apart(session: Session, verb: str, code: str, words: str) -> None:
    """When the device kills the agent, the error says so with its last words, and exit code 7."""
    with pytest.raises(EdgepackError) as caught:
        session.request(verb)
    assert caught.value.code == code
    assert words in caught.value.message
    with pytest.raises(EdgepackError, match=re.escape(caught.value.message)):
        session.request("anything")


def test_error_output_never_blocks_the_device(session: Session) -> None:
    """A device that prints megabytes of warnings goes on working, and the last of them is kept."""
    session.request("babble", bytes=5_000_000)
    session.request("anything")
    assert len(session.stderr_tail()) == 65536
    assert session.stderr_tail().endswith(b"the end\n")


def test_a_silent_verb_times_out(session: Session) -> None:
    """A verb that is given a time ends after it, and what it started is stopped."""
    with pytest.raises(DeviceFailure) as caught:
        session.request("sleep", timeout_s=0.1, seconds=60)
    assert caught.value.code == "timeout"
    assert gone(session.hello["pid"])


def test_a_busy_host_is_still_heard(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the host computes or a person reads, the device keeps its lock and its agent."""
    monkeypatch.setattr(conversation_module, "SILENCE_S", 0.08)
    with open_session(LocalTransport(), OPTIONS, agent=STAND_IN) as pinging:
        deadline, asked, pings = time.monotonic() + 30, 0, 0
        while pings < 3 and time.monotonic() < deadline:
            time.sleep(0.3)
            pings, asked = pinging.request("pings").result["pings"], asked + 1
        assert pings >= 3
        assert pinging.round_trips == 1 + asked


def test_closing_ends_everything_on_the_device(session: Session) -> None:
    """After a session nothing of it runs on the device: no agent, no child of it."""
    child = session.request("child").result["pid"]
    session.close()
    session.close()
    assert gone(session.hello["pid"])
    assert gone(child)
    with pytest.raises(InternalError, match="closed"):
        session.request("anything")


def test_interrupting_ends_everything_on_the_device() -> None:
    """After Ctrl-C in the middle of a payload nothing runs on the device."""

    def interrupted() -> Iterator[bytes]:
        yield bytes(10)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), open_session(LocalTransport(), OPTIONS, agent=STAND_IN) as session:
        session.request("put", interrupted(), 1000)
    assert gone(session.hello["pid"])


def test_no_thread_outlives_its_session() -> None:
    """A program that deploys to a thousand devices does not collect threads."""
    before = threading.active_count()
    for _ in range(3):
        open_session(LocalTransport(), OPTIONS, agent=STAND_IN).close()
    assert threading.active_count() == before


def test_a_noisy_login_does_not_disturb(tmp_path: Path) -> None:
    """Banners and an echo in .bashrc come before the agent's first word and are skipped."""
    noisy = tmp_path / "python3"
    noisy.write_text(
        f'#!/bin/sh\nprintf "Welcome!\\nEDGEPACK1 fake\\n"\nhead -c 50000 /dev/zero\nexec {sys.executable} "$@"\n'
    )
    noisy.chmod(0o755)
    with open_session(LocalTransport(), ConnectOptions(python=str(noisy)), agent=STAND_IN) as session:
        assert session.request("anything").result["verb"] == "anything"


def test_endless_noise_is_given_up(tmp_path: Path) -> None:
    """A shell that never stops talking is told about instead of being read for ever."""
    noisy = tmp_path / "python3"
    noisy.write_text("#!/bin/sh\nexec cat /dev/zero\n")
    noisy.chmod(0o755)
    with pytest.raises(DeviceFailure) as caught:
        open_session(LocalTransport(), ConnectOptions(python=str(noisy)), agent=STAND_IN)
    assert caught.value.code == "not-the-agent"


@pytest.mark.parametrize(
    ("script", "kind", "code", "words"),
    [
        (None, MisfitError, "no-python", "not found"),
        ("#!/bin/sh\necho EDGEPACK-PYTHON-TOO-OLD 3.7 >&2; exit 97\n", MisfitError, "python-too-old", "3.7"),
        ("#!/bin/sh\necho 'This account is not available.'; exit 1\n", UnreachableError, "no-agent", "not available"),
    ],
)
def test_a_device_without_a_fitting_python_is_told_apart(
    tmp_path: Path, script: str | None, kind: type[EdgepackError], code: str, words: str
) -> None:
    """No Python, an old one, or a login without a shell: each has its own code and says what to do."""
    python = tmp_path / "python3"
    if script:
        python.write_text(script)
        python.chmod(0o755)
    with pytest.raises(kind) as caught:
        open_session(LocalTransport(), ConnectOptions(python=str(python)), agent=STAND_IN)
    assert caught.value.code == code
    assert words in caught.value.message
    assert caught.value.hint


def test_the_bootstrap_survives_every_shell() -> None:
    """The one command that edgepack gives to the device's shell means the same in sh, bash, zsh, fish and csh."""
    assert not set(BOOTSTRAP) & set("'\\!\n")
    assert shlex.split(start_command("/opt/my python")) == ["exec", "/opt/my python", "-I", "-u", "-c", BOOTSTRAP]
    assert start_command("~/bin/python3").startswith("exec ~/bin/python3 ")


@pytest.mark.parametrize("status", [None, -1, 0, 1, 97, 98, 99, 126, 127, 255])
@pytest.mark.parametrize("stderr", [b"", b"\xff\x00 words\n", b"EDGEPACK-PYTHON-TOO-OLD"])
def test_every_failed_start_has_a_next_step(status: int | None, stderr: bytes) -> None:
    """However the start fails, the error says what to do next."""
    error = start_error("pi@board", "python3", status, stderr, b"said")
    assert "pi@board" in error.message
    assert error.hint


def test_a_request_that_fits_no_frame_is_refused() -> None:
    """A bundle with too many files ends with exit code 2, not with a device that gives up."""
    with pytest.raises(InputError):
        request_frame(1, "missing", 0, {"files": ["x" * 1000] * 20_000})
    with pytest.raises(InputError):
        request_frame(1, "put", 10, {"name": "x" * 70_000})


def test_ten_thousand_files_fit_into_a_request(session: Session) -> None:
    """A bundle with as many files as the format allows can be asked about, both ways."""
    files = [{"sha256": f"{number:064x}", "bytes": number} for number in range(10_000)]
    assert session.request("missing", files=files).result["arguments"]["files"] == files


def test_every_code_of_the_device_side_is_in_the_table() -> None:
    """No refusal of the agent or the loader ends with a wrong exit code because nobody thought of it."""
    codes = set()
    for path in [*ONDEVICE.glob("agent/*.py"), ONDEVICE / "loader.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "AgentError",
                "LoaderError",
                "hook_error",
            ):
                codes |= {argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    assert len(codes) > 20
    assert codes <= ERROR_KINDS.keys()


@pytest.mark.parametrize(
    "sent",
    [b"\n", b"[]\n", b'{"n":1}\n', b'{"id":"1"}\n', b'{"id":1,"n":-1}\n', b'{"id":1,"n":true}\n', b"x" * 70_000,
     b'{"id":1,"n":99999999999}\n', b"\xff\n"],
)  # fmt: skip
def test_what_is_no_frame_is_told(sent: bytes) -> None:
    """A far side that is not our agent makes exit code 7 with a hint at its shell, and takes no memory."""
    stream = iter([sent])
    with pytest.raises(DeviceFailure) as caught:
        FrameReader(lambda _: next(stream, b"")).frame()
    assert caught.value.code == "not-the-agent"


def test_facts_outlive_their_agent() -> None:
    """A newer agent's facts are carried through, an older one's are filled up."""
    facts = DeviceFacts.from_json(
        {"python": "3.13.5", "arch": "aarch64", "libc": "glibc-2.41", "npu": "hailo-8", "pythons": None}
    )
    assert facts.platform.python == "3.13"
    assert facts.extra == {"npu": "hailo-8"}
    assert DeviceFacts.from_json({}).platform.arch == ""


def test_memory_stays_flat_while_sending(session: Session) -> None:
    """A payload of any size is sent from chunks; none of them is kept."""
    import tracemalloc

    tracemalloc.start()
    session.request("put", (bytes(1 << 20) for _ in range(64)), 64 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_nothing_heavy_is_imported() -> None:
    """Reaching for the device package costs no paramiko and no numpy."""
    code = "import sys, edgepack.device; sys.exit(any(m in sys.modules for m in ('paramiko', 'numpy')))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_latencies_of_the_longest_check_arrive() -> None:
    """A very fast model makes as many runs as the loader allows: its reply is no flood."""
    loader = (Path(conversation_module.__file__).parents[1] / "ondevice" / "loader.py").read_text()
    most_runs = int(loader.split("\nMAX_RUNS = ", 1)[1].split("\n", 1)[0])
    assert most_runs * 2 <= MAX_VALUES
