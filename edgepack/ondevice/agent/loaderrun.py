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
from typing import Any, Callable, Dict, List, Optional

from .arguments import parse_json
from .children import CHILDREN, MEASURE_FOLDERS, Tail
from .disk import confined, free_bytes, make_folder, read_json, read_text
from .errors import MEMORY_HINT, AgentError
from .limits import DISK_MARGIN


def new_output(root: str) -> str:
    """A folder for what one run of a loader writes; it goes with the session."""
    output = confined(root, "incoming", f"measure-{os.urandom(8).hex()}")
    make_folder(os.path.dirname(output))
    MEASURE_FOLDERS.append(output)  # first: the agent may be ended while it makes the folder
    make_folder(output)
    return output


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
        self.ended = False
        self._pending = b""
        self._deadline = time.monotonic() + limit_s

    def wait(self, report: Callable[[Dict[str, Any]], None]) -> None:
        """Waits for the child's end and passes its progress on; one that shows no life for ``limit_s`` is ended."""
        self.expect_life()
        while not self.ended and not self.timed_out:
            for progress in self.listen():
                report(progress)
        self.close()

    def expect_life(self) -> None:
        """From now on the child has ``limit_s`` to show some."""
        self._deadline = time.monotonic() + self.limit_s

    def listen(self) -> List[Dict[str, Any]]:
        """What the child reported, waited for for a moment; sets ``ended`` or ``timed_out`` where nothing will come."""
        self.ended = self.child.poll() is not None
        self.timed_out = not self.ended and time.monotonic() > self._deadline
        # Looked at once more after the end: a pipe holds no more than one reading takes.
        if not select.select([self._progress], [], [], 0 if self.ended else 0.1)[0]:
            return []
        data = os.read(self._progress, 65536)
        if not data and not self.ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(0.1)
        *lines, self._pending = (self._pending + data)[-65536:].split(b"\n")
        if lines:
            self.expect_life()
        return [progress for progress in map(parse_line, lines) if progress is not None]

    def say(self, line: str) -> None:
        """A line on the child's standard input; that the child is gone is for :meth:`listen` to find."""
        stream: Any = self.child.stdin
        with contextlib.suppress(OSError):
            stream.write(f"{line}\n".encode("ascii"))
            stream.flush()

    def close(self) -> None:
        """Ends the child where it still runs, and lets go of it; once more does nothing."""
        if self._progress < 0:
            return
        os.close(self._progress)
        self._progress = -1
        if self.child.poll() is None:
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


def parse_line(line: bytes) -> Optional[Dict[str, Any]]:
    """One line of progress; None where it is none."""
    try:
        progress = parse_json(line)
    except (ValueError, RecursionError):
        return None
    return progress if isinstance(progress, dict) and len(line) < 4096 else None


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
