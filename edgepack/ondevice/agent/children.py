"""The agent's child processes, and its own end, which none of them outlives."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from typing import Any, List, Set

from .disk import remove_tree

OUTPUT_TAIL = 4096


class Tail:
    """Reads a child's output in a thread, so that the child never blocks, and keeps its end."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._kept = b""
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for chunk in iter(lambda: os.read(self._stream.fileno(), 65536), b""):
                self._kept = (self._kept + chunk)[-OUTPUT_TAIL:]

    def join(self, seconds: float) -> None:
        """Waits for the end of the output, at most so long."""
        self._thread.join(max(seconds, 0.0))

    def text(self) -> str:
        """The last 4 KiB, once the child is gone; what a daemon that it left behind writes is not waited for."""
        self.join(1.0)
        if not self._thread.is_alive():
            self._stream.close()
        return self._kept.decode("utf-8", "replace")


class Children:
    """The agent's child processes, each in a session (and so a process group) of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: Set[int] = set()
        self._ending = False
        self._starting = False
        self._end_wanted = False

    def start(self, argv: List[str], **options: Any) -> subprocess.Popen[bytes]:
        """Starts a program; its standard output and error are one pipe."""
        try:
            with self._lock:
                self._wait_if_ending()
                self._starting = True
                child = subprocess.Popen(
                    argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, **options
                )
                self._live.add(child.pid)
                return child
        finally:
            self._starting = False
            if self._end_wanted:
                end_agent(0)

    def end_after_start(self) -> bool:
        """For a signal's handler: whether a child is just being started, whose starter ends the agent then.

        The handler runs in the middle of :meth:`start`, and would leave behind the child that is not noted yet.
        """
        self._end_wanted = True
        return self._starting

    def done(self, child: subprocess.Popen[bytes]) -> None:
        """Takes note that a child has ended. While the agent ends this never returns: the kill was the agent's own."""
        with self._lock:
            self._wait_if_ending()
            self._live.discard(child.pid)

    def kill(self, child: subprocess.Popen[bytes]) -> None:
        """Ends a child and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        self.done(child)

    def kill_all(self) -> None:
        """Ends every child, for good: none is started afterwards."""
        self._ending = True
        # One that is just being started is waited for; not for ever, since a signal may have come to whoever notes it.
        started = self._lock.acquire(timeout=1.0)
        for pid in list(self._live):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        if started:
            self._lock.release()

    def _wait_if_ending(self) -> None:
        while self._ending:
            time.sleep(1.0)


CHILDREN = Children()


MEASURE_FOLDERS: List[str] = []


def end_agent(code: int) -> None:
    """Ends the children and this process, now; what was going on is settled by the next locked session."""
    CHILDREN.kill_all()
    for path in MEASURE_FOLDERS:
        for _ in range(20):
            with contextlib.suppress(OSError):
                remove_tree(path)
            if not os.path.lexists(path):
                break
            time.sleep(0.05)  # a child that was just killed may have written once more
    os._exit(code)


def end_on_signal(*_: Any) -> None:
    """The handler of the signals that end the agent."""
    if not CHILDREN.end_after_start():
        end_agent(0)
