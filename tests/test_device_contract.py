"""One contract, held against every transport: local, edgepack's SSH client, the ssh program, the embedded server."""

from __future__ import annotations

import dataclasses
import pickle
import shlex
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from test_device_session import gone

from edgepack.device import ConnectOptions, DeviceAddress, open_session, open_transport
from edgepack.device.transport import Channel, Transport
from edgepack.errors import DeviceFailure, EdgepackError

STAND_IN = zlib.compress(Path(__file__).with_name("stand_in_agent.py").read_bytes())
PYTHON = shlex.quote(sys.executable)


@pytest.fixture(params=["local", "ssh", "openssh", "embedded"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, ConnectOptions]]:
    """An address and options for each transport."""
    if request.param == "local":
        yield "local:", ConnectOptions()
    elif request.param == "embedded":
        from edgepack.device.embedded import EmbeddedDevice

        with EmbeddedDevice(tmp_path / "embedded") as device:
            yield device.address, device.options
    else:
        sshd = request.getfixturevalue("sshd")
        yield sshd.address, dataclasses.replace(sshd.options, transport=request.param)


@pytest.fixture
def transport(way: tuple[str, ConnectOptions]) -> Iterator[Transport]:
    """Each transport, logged in."""
    address, options = way
    with ExitStack() as stack:
        opened = open_transport(DeviceAddress.parse(address), options)
        stack.callback(opened.close)
        yield opened


def python(code: str) -> str:
    """A command that runs Python code on the device."""
    return f"exec {PYTHON} -c {shlex.quote(code)}"


def read_all(channel: Channel) -> bytes:
    """The whole output of a channel."""
    parts = []
    while part := channel.read(1 << 20):
        parts.append(part)
    return b"".join(parts)


def eventually(condition: object, seconds: float = 10.0) -> bool:
    """Whether something becomes true within this time."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class TestEveryTransport:
    """What edgepack asks of whatever carries its bytes."""

    def test_a_command_runs_through_a_shell(self, transport: Transport) -> None:
        """A command sees a shell, and its output and exit status come back."""
        channel = transport.open("echo a b | tr ab xy; echo oops >&2; exit 7")
        assert read_all(channel) == b"x y\n"
        assert channel.wait(10) == 7
        assert channel.stderr_tail() == b"oops\n"
        assert channel.failure() is None

    def test_an_unknown_program_is_127(self, transport: Transport) -> None:
        """A missing program is told by the shell's exit status."""
        channel = transport.open("exec /no/such/program")
        assert read_all(channel) == b""
        assert channel.wait(10) == 127
        assert b"/no/such/program" in channel.stderr_tail()

    def test_many_megabytes_travel_both_ways_at_once(self, transport: Transport) -> None:
        """24 MiB of every byte there is come back as they went, without a deadlock."""
        block = bytes(range(256)) * 4096
        channel = transport.open("cat")
        parts: list[bytes] = []
        reader = threading.Thread(target=lambda: parts.append(read_all(channel)))
        reader.start()
        for _ in range(24):
            channel.write(block)
        channel.finish_input()
        reader.join(60)
        assert parts == [block * 24]
        assert channel.wait(10) == 0

    def test_the_end_of_the_input_is_seen(self, transport: Transport) -> None:
        """A command that reads to the end of its input ends when we say so."""
        channel = transport.open("wc -c")
        channel.write(bytearray(b"12345"))
        channel.write(memoryview(b"xx678xx")[2:5])
        channel.finish_input()
        assert read_all(channel).split() == [b"8"]

    def test_error_output_is_drained_and_its_tail_kept(self, transport: Transport) -> None:
        """A command that complains for megabytes is never blocked by it; the last 64 KiB are kept."""
        channel = transport.open(
            python("import sys; sys.stderr.write('x' * 6_000_000 + 'last words'); sys.stderr.flush(); print('done')")
        )
        assert read_all(channel).strip() == b"done"
        assert channel.wait(10) == 0
        tail = channel.stderr_tail()
        assert len(tail) == 65536
        assert tail.endswith(b"last words")

    def test_a_burst_waits_for_a_slow_reader(self, transport: Transport) -> None:
        """8 MiB printed before anybody reads arrive whole."""
        channel = transport.open(python("import sys; sys.stdout.buffer.write(b'0123456789abcdef' * (1 << 19))"))
        time.sleep(0.3)
        assert read_all(channel) == b"0123456789abcdef" * (1 << 19)

    def test_waiting_ends(self, transport: Transport) -> None:
        """Whoever waits for a command that does not end gets an answer in time."""
        channel = transport.open("cat")
        before = time.monotonic()
        assert channel.wait(0.2) is None
        assert time.monotonic() - before < 5

    def test_closing_ends_the_command(self, transport: Transport, tmp_path: Path) -> None:
        """When we close, the command on the device sees the end of its input and ends."""
        started, ended = tmp_path / "started", tmp_path / "ended"
        channel = transport.open(f"touch {started}; cat >/dev/null; touch {ended}")
        assert eventually(started.exists)
        channel.close()
        channel.close()
        assert eventually(ended.exists)

    def test_closing_wakes_who_reads(self, transport: Transport) -> None:
        """A thread that reads gets the end of the output when another one closes."""
        channel = transport.open("cat")
        parts: list[bytes] = []
        reader = threading.Thread(target=lambda: parts.append(read_all(channel)))
        reader.start()
        time.sleep(0.05)
        channel.close()
        reader.join(10)
        assert parts == [b""]

    def test_writing_to_nobody_is_told(self, transport: Transport) -> None:
        """When the command has ended, writing says so instead of waiting for ever."""
        channel = transport.open("exit 3")
        assert read_all(channel) == b""
        with pytest.raises(DeviceFailure) as caught:
            channel.write(bytes(100_000_000))
        assert caught.value.code == "connection-lost"
        assert channel.wait(10) == 3

    def test_a_killed_command_has_no_status(self, transport: Transport) -> None:
        """A command that the device kills is told apart from one that ends."""
        channel = transport.open("kill -9 $$")
        assert read_all(channel) == b""
        assert channel.wait(10) in (-1, 128 + 9, 247, 255)

    def test_closing_the_transport_ends_everything(self, transport: Transport, tmp_path: Path) -> None:
        """No command is left behind when the transport is closed, and none can be started after."""
        ended = [tmp_path / f"ended-{number}" for number in range(2)]
        for marker in ended:
            transport.open(f"echo on; cat >/dev/null; touch {marker}").read(3)
        transport.close()
        transport.close()
        assert eventually(lambda: all(marker.exists() for marker in ended))

    def test_a_session_works(self, way: tuple[str, ConnectOptions]) -> None:
        """The same conversation with the agent works over every transport."""
        address, options = way
        options = dataclasses.replace(options, python=sys.executable)
        data = bytes(range(256)) * 20_000
        transport = open_transport(DeviceAddress.parse(address), options)
        with open_session(transport, options, agent=STAND_IN) as session:
            assert session.round_trips == 1
            assert session.request("echo", [data], len(data)).payload == data
            session.request("babble", bytes=1_000_000)
            with pytest.raises(DeviceFailure, match="no room"):
                session.request("refuse-early", (bytes(100_000) for _ in range(1000)), 100_000_000)

    @pytest.mark.parametrize(
        ("path", "exit_code", "said"),
        [
            ("/no/such/python3", 5, "/no/such/python3 cannot be started on"),
            ("/etc/passwd", 5, "/etc/passwd cannot be started on"),
            ("/bin/true", 4, "/bin/true on"),
        ],
    )
    def test_a_python_that_is_none_is_told_by_its_path(
        self, way: tuple[str, ConnectOptions], path: str, exit_code: int, said: str
    ) -> None:
        """--python with something else: exit 5 where it cannot be started, 4 where it starts no agent; and a way on."""
        address, options = way
        options = dataclasses.replace(options, python=path)
        with pytest.raises(EdgepackError) as caught:
            open_session(open_transport(DeviceAddress.parse(address), options), options, agent=STAND_IN)
        assert caught.value.exit_code == exit_code
        assert said in caught.value.message
        assert "--python PATH" in caught.value.hint
        assert exit_code == 5 or f"{path} --version" in caught.value.hint

    def test_an_agent_that_dies_is_told(self, way: tuple[str, ConnectOptions]) -> None:
        """When the agent dies in the middle, its last words are in the error."""
        address, options = way
        options = dataclasses.replace(options, python=sys.executable)
        transport = open_transport(DeviceAddress.parse(address), options)
        lost = pytest.raises(DeviceFailure, match="Out of luck")
        with open_session(transport, options, agent=STAND_IN) as session, lost:
            session.request("die")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
    def test_a_stopped_host_leaves_nothing_running(
        self, way: tuple[str, ConnectOptions], number: signal.Signals
    ) -> None:
        """After Ctrl-C, or when this machine dies, the agent ends by itself and with it what it was doing."""
        address, options = way
        options = dataclasses.replace(options, python=sys.executable)
        script = (
            "import pickle, sys\n"
            "from edgepack.device import DeviceAddress, open_session, open_transport\n"
            "address, options, agent = pickle.load(sys.stdin.buffer)\n"
            "transport = open_transport(DeviceAddress.parse(address), options)\n"
            "with open_session(transport, options, agent=agent) as session:\n"
            "    print(session.hello['pid'], session.request('child').result['pid'], flush=True)\n"
            "    session.request('sleep', seconds=1)\n"
        )
        host = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert host.stdin
        assert host.stdout
        host.stdin.write(pickle.dumps((address, options, STAND_IN)))
        host.stdin.close()
        agent, child = map(int, host.stdout.readline().split())
        host.send_signal(number)
        assert gone(agent, 10)
        assert gone(child, 10)
        assert host.wait(10) == -number
        host.stdout.close()
