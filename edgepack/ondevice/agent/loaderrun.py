"""One run of a release's own loader, in a child."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import time
from typing import Any, Callable, Dict

from .arguments import parse_json
from .children import CHILDREN, Tail
from .disk import free_bytes, read_json, read_text
from .errors import MEMORY_HINT, AgentError
from .limits import DISK_MARGIN


class MeasureRun:
    """One run of a release's loader in a child: its progress comes through a pipe, its result is a file."""

    def __init__(self, folder: str, output: str, options: Dict[str, Any], limit_s: float) -> None:
        interpreter = read_json(os.path.join(folder, "device.json")).get("interpreter")
        if not isinstance(interpreter, str) or not os.access(interpreter, os.X_OK):
            raise AgentError(
                "no-runtime",
                f"The Python that this release was set up for is gone: {interpreter}.",
                "Push its bundle again.",
            )
        self.output = output
        self.limit_s = limit_s
        self.timed_out = False
        self._oom_kills = count_oom_kills()
        self._progress, write_end = os.pipe()
        options = dict(options, progress_fd=write_end, watch_stdin=True)
        loader = os.path.join(folder, "loader.py")
        argv = [interpreter, "-I", loader, "measure", output, "--options", json.dumps(options)]
        try:
            # The child ends when its standard input does, so it does not outlive an agent that was killed.
            self.child = CHILDREN.start(argv, stdin=subprocess.PIPE, pass_fds=(write_end,), cwd=output)
        finally:
            os.close(write_end)
        self.tail = Tail(self.child.stdout)

    def wait(self, report: Callable[[Dict[str, Any]], None]) -> None:
        """Waits for the child's end and passes its progress on; one that shows no life for ``limit_s`` is ended."""
        deadline = time.monotonic() + self.limit_s
        pending = b""
        ended = False
        while not ended and not self.timed_out:
            ended = self.child.poll() is not None
            self.timed_out = not ended and time.monotonic() > deadline
            # Looked at once more after the end: a pipe holds no more than one reading takes.
            if select.select([self._progress], [], [], 0 if ended else 0.1)[0]:
                data = os.read(self._progress, 65536)
                if not data and not ended:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self.child.wait(0.1)
                *lines, pending = (pending + data)[-65536:].split(b"\n")
                for line in lines:
                    deadline = time.monotonic() + self.limit_s
                    report_line(line, report)
        os.close(self._progress)
        if self.timed_out:
            CHILDREN.kill(self.child)
        else:
            CHILDREN.done(self.child)

    def failure(self) -> AgentError:
        """Why the child wrote no measurement."""
        stated = read_json(os.path.join(self.output, "error.json"))
        if stated:
            return AgentError.from_json(stated)
        code, tail = self.child.returncode, self.tail.text()
        details: Dict[str, Any] = {"exit": code, "output": tail}
        if self.timed_out:
            return AgentError(
                "timeout",
                f"The measurement showed no life for {self.limit_s:g} s; it was ended.",
                "See whether the device is busy or the accelerator hangs (unplug it, plug it in), then check again.",
                **details,
            )
        if code == -signal.SIGKILL:
            sure = (
                "ran out of memory" if count_oom_kills() > self._oom_kills else "was killed, most likely for its memory"
            )
            return AgentError("out-of-memory", f"The measurement {sure}.", MEMORY_HINT, **details)
        if code < 0:
            name = signal_name(-code)
            hint = "The runtime or the delegate crashed; the error's details hold its output."
            return AgentError("killed", f"The measurement died of {name}.", hint, signal=name, **details)
        if free_bytes(self.output) < DISK_MARGIN:
            return AgentError(
                "disk-full",
                "The device's disk is full: the measurement could not be written.",
                "Free some space on the device, then check again.",
                **details,
            )
        last = tail.strip().splitlines()[-1:] or ["it said nothing"]
        hint = (
            "The loader's whole output is in the error's details. Push the bundle again; if that is no cure, report it."
        )
        return AgentError("measure-failed", f"The loader ended with {code}: {last[0][:300]}", hint, **details)


def report_line(line: bytes, report: Callable[[Dict[str, Any]], None]) -> None:
    """Passes on one line of progress, if it is one."""
    try:
        progress = parse_json(line)
    except (ValueError, RecursionError):
        return
    if isinstance(progress, dict) and len(line) < 4096:
        report(progress)


def signal_name(number: int) -> str:
    """A signal as people write it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def count_oom_kills() -> int:
    """How many processes the kernel has killed for memory since it started."""
    found = re.search(r"^oom_kill (\d+)$", read_text("/proc/vmstat"), re.MULTILINE)
    return int(found.group(1)) if found else 0
