"""Shows what happens while a command runs: a live line on a terminal, plain lines elsewhere, JSON lines in a file."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TextIO

from edgepack.events import Event
from edgepack.words import printable, size

# A person can follow about ten changes a second; more only costs the terminal.
_REDRAW_SECONDS = 0.1
# What is over sooner needs no progress.
_FIRST_DRAW_SECONDS = 1.0


class Progress:
    """A reporter for one command.

    ``messages`` are shown unless ``quiet``; counted progress only where ``stream`` is a terminal, and only once a step
    has taken longer than a second. ``events`` receives every event as a JSON line with seconds since the start; the
    file is written over by the first one and not before.
    """

    def __init__(self, stream: TextIO, *, quiet: bool, events: Path | None = None) -> None:
        self._stream = stream
        self._quiet = quiet
        self._live = stream.isatty() and not quiet
        self._events = events
        self._events_file: TextIO | None = None
        self._started = time.monotonic()
        self._step_started = self._started
        self._step: tuple[str, str] | None = None
        self._drawn_at = 0.0
        self._line = ""

    def __call__(self, event: Event) -> None:
        """Show one event."""
        now = time.monotonic()
        self._record(event, now)
        if (event.step, event.message) != self._step:
            self._step = (event.step, event.message)
            self._step_started = now
        if event.done is None:
            self._message(event)
        elif self._live and now - self._step_started >= _FIRST_DRAW_SECONDS:
            self._draw(event, now)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()
        if self._events_file is not None:
            with contextlib.suppress(OSError):
                self._events_file.close()

    def _record(self, event: Event, now: float) -> None:
        """Write a line of the events file. Where that fails, the work goes on: it may be half done on a device."""
        if self._events is None:
            return
        import json

        record = {"seconds": round(now - self._started, 3), **dataclasses.asdict(event)}
        try:
            if self._events_file is None:
                self._events_file = self._events.open("w", encoding="utf-8", errors="backslashreplace")
            self._events_file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._events_file.flush()
        except OSError as error:
            self._stream.write(f"edgepack: no more events in {self._events}: {error.strerror}.\n")
            self._events = None

    def _message(self, event: Event) -> None:
        if self._quiet:
            return
        self._clear()
        if event.concludes and self._live:
            return
        self._stream.write(f"{event.step}: {printable(event.message)}\n")
        self._stream.flush()

    def _draw(self, event: Event, now: float) -> None:
        finished = event.total is not None and event.done == event.total
        if now - self._drawn_at < _REDRAW_SECONDS and not finished:
            return
        self._drawn_at = now
        line = f"{event.step}: {printable(event.message)} {counted(event, now - self._step_started)}"
        self._stream.write("\r" + line.ljust(len(self._line)))
        self._stream.flush()
        self._line = line

    def _clear(self) -> None:
        if self._line:
            self._stream.write("\r" + " " * len(self._line) + "\r")
            self._line = ""


def counted(event: Event, seconds: float) -> str:
    """``12/100 samples (8 a second)`` for a counted event that has run for ``seconds``."""
    done = event.done or 0
    rate = done / seconds if seconds > 0 else 0.0
    if event.unit == "bytes":
        total = f" of {size(event.total)}" if event.total is not None else ""
        return f"{size(done)}{total} ({size(round(rate))}/s)"
    total = f"/{event.total}" if event.total is not None else ""
    if event.unit == "seconds":
        return f"{done}{total} seconds"
    return f"{done}{total} {event.unit} ({rate:.3g} a second)"


def stderr_progress(*, quiet: bool, events: Path | None = None) -> Progress:
    """The reporter of a command: standard error, and the ``--events`` file where there is one."""
    return Progress(sys.stderr, quiet=quiet, events=events)
