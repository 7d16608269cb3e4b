"""A channel over a process of this machine: what the local and the openssh transport have in common."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import IO, cast

from edgepack.device.lost import connection_lost
from edgepack.device.transport import STALL_TIMEOUT_S, TailReader
from edgepack.errors import DeviceFailure, EdgepackError

# Sixteen times Linux's default, and what a user may have without asking (pipe(7), pipe-max-size).
_PIPE_BYTES = 1 << 20
# How long a process may take to end by itself once its input is closed, and once it was told to.
_GRACE_S = 1.0
# How soon a blocked read notices that the channel was closed while some grandchild still holds the pipe.
_CLOSED_CHECK_MS = 250


class ProcessChannel:
    """A subprocess in its own session (so Ctrl-C in the terminal is ours to handle), with three pipes."""

    def __init__(self, argv: Sequence[str], description: str, *, stall_timeout_s: float = STALL_TIMEOUT_S) -> None:
        self._description = description
        self._stall_timeout_s = stall_timeout_s
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        # Popen types its pipes as optional; these three were asked for.
        self._stdin = cast("IO[bytes]", self._process.stdin)
        self._stdout = cast("IO[bytes]", self._process.stdout)
        stderr = cast("IO[bytes]", self._process.stderr)
        os.set_blocking(self._stdin.fileno(), False)
        with contextlib.suppress(OSError):
            # Refused where a user has many large pipes already; then the small one does.
            fcntl.fcntl(self._stdin.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._closed = threading.Event()
        self._input_lock = threading.Lock()
        self._reading = threading.Lock()
        self._waiting = threading.Lock()
        self._closing = threading.Lock()
        self._status: int | None = None
        self._stderr_stream = stderr
        self._stderr = TailReader(lambda size: self._read_from(stderr.fileno(), size))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See :meth:`edgepack.device.transport.Channel.write`."""
        left = memoryview(data).cast("B")
        with self._input_lock:
            while left:
                if self._closed.is_set() or self._stdin.closed:
                    raise self._lost()
                try:
                    left = left[os.write(self._stdin.fileno(), left) :]
                except BlockingIOError:
                    self._wait_writable()
                except OSError as error:
                    raise self._lost() from error

    def finish_input(self) -> None:
        """See :meth:`edgepack.device.transport.Channel.finish_input`."""
        with self._input_lock:
            self._stdin.close()

    def read(self, max_bytes: int) -> bytes:
        """See :meth:`edgepack.device.transport.Channel.read`."""
        with self._reading:
            return self._read_from(self._stdout.fileno(), max_bytes) if not self._stdout.closed else b""

    def stderr_tail(self) -> bytes:
        """See :meth:`edgepack.device.transport.Channel.stderr_tail`."""
        return self._stderr.tail()

    def wait(self, timeout_s: float) -> int | None:
        """See :meth:`edgepack.device.transport.Channel.wait`."""
        if not self._ended(timeout_s):
            return None
        self._stderr.join(timeout_s)
        return self._status

    def failure(self) -> EdgepackError | None:
        """Nothing: a process that ended has simply ended."""
        return None

    def close(self) -> None:
        """See :meth:`edgepack.device.transport.Channel.close`."""
        with self._closing:
            if self._closed.is_set():
                return
            self._closed.set()
        self.finish_input()
        if not self._ended(_GRACE_S):
            self._signal(signal.SIGTERM)
            self._ended(_GRACE_S)
        # What outlived the process too.
        self._signal(signal.SIGKILL)
        self._ended(_GRACE_S)
        with self._waiting:
            self._process.wait()
            self._status = -1 if self._status is None else self._status
        self._stderr.join()
        self._stderr_stream.close()
        with self._reading:
            self._stdout.close()

    def _ended(self, timeout_s: float) -> bool:
        """Whether the process ends within this time; it stays a zombie until :meth:`close`, and its number its own."""
        deadline, pause = time.monotonic() + timeout_s, 0.001
        while self._status is None:
            with self._waiting:
                if self._status is not None:
                    return True
                ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is not None:
                    self._status = ended.si_status if ended.si_code == os.CLD_EXITED else -1
                    return True
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        return True

    def _signal(self, number: signal.Signals) -> None:
        """Tell everything in the process's group."""
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            return

    def _read_from(self, descriptor: int, max_bytes: int) -> bytes:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while not poll.poll(_CLOSED_CHECK_MS):
            if self._closed.is_set():
                return b""
        return os.read(descriptor, max_bytes)

    def _wait_writable(self) -> None:
        deadline = time.monotonic() + self._stall_timeout_s
        poll = select.poll()
        poll.register(self._stdin.fileno(), select.POLLOUT)
        while not poll.poll(_CLOSED_CHECK_MS):
            if self._closed.is_set():
                raise self._lost()
            if time.monotonic() > deadline:
                raise DeviceFailure(
                    "stalled",
                    f"{self._description} took no byte for {self._stall_timeout_s:.0f} s.",
                    hint="Look at the device: its disk or its network hangs. Then run the command again; it resumes.",
                )

    def _lost(self) -> DeviceFailure:
        return connection_lost(self._description)
