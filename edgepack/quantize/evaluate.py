"""A .tflite over many rows on several processes of this machine, where that is faster than one.

The worker process begins, with as many threads as help, and stops where what is left would take long enough
(:class:`PacedModel`). Then the rest is split over processes with one thread each, the worker's own verb ``host`` on
rows of their own, and their outputs are put behind those that are there. Row by row the numbers are the same: the
runtime computes each output in the same order whatever the threads.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgepack.errors import InternalError
from edgepack.events import Event, Reporter, ignore_events
from edgepack.quantize.process import WorkerProcess

if TYPE_CHECKING:
    import numpy as np

    from edgepack.hostruntime import HostModel

    Array = np.ndarray[Any, Any]

MOST_PROCESSES = 8
"""Each takes some 50 MB beside the model."""

# Threads of one model: more of them wait for each other.
_MOST_THREADS = 4
# How long a pace is measured; what starting processes costs (Python, numpy and LiteRT), with room for a busy machine.
_PACE_S = 0.5
_START_S = 2.0


def processes_here() -> int:
    """How many processes evaluation is split over: one for each core that this process may use."""
    return min(len(os.sched_getaffinity(0)), MOST_PROCESSES)


def pays(runs_left: int, threaded_s: float, single_s: float, processes: int) -> bool:
    """Whether so many runs end sooner on ``processes`` processes that have to start first; pure.

    A run takes ``threaded_s`` seconds as it goes on now, ``single_s`` with one thread.
    """
    return runs_left * threaded_s > runs_left * single_s / processes + _START_S


class PacedModel:
    """A model on this machine that times itself, first with threads, then with one."""

    def __init__(
        self, load: Callable[[int], HostModel], processes: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._load = load
        self._processes = processes
        self._clock = clock
        self._threaded = load(min(_MOST_THREADS, os.cpu_count() or 1))
        self._single: HostModel | None = None
        self._paces = {True: _Pace(), False: _Pace()}

    @property
    def batch(self) -> int:
        """How many rows one run takes."""
        return self._threaded.batch

    def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """As :meth:`edgepack.hostruntime.HostModel.run`."""
        threaded = self._single is None or self._paces[False].seconds >= _PACE_S
        model = self._threaded if threaded or self._single is None else self._single
        started = self._clock()
        outputs = model.run(batch)
        self._paces[threaded].add(self._clock() - started)
        return outputs

    def is_slow(self, rows_left: int) -> bool:
        """Whether the rows that are left should be split; asked after each run."""
        runs_left, threaded = -(-rows_left // self.batch), self._paces[True]
        if self._processes < 2 or threaded.seconds < _PACE_S:
            return False
        if self._single is None:
            # Were one thread as fast as several, would it pay? Only then is its pace worth a measurement.
            if pays(runs_left, threaded.mean, threaded.mean, self._processes):
                self._single = self._load(1)
            return False
        single = self._paces[False]
        return single.seconds >= _PACE_S and pays(runs_left, threaded.mean, single.mean, self._processes)


@dataclass(slots=True)
class _Pace:
    seconds: float = 0.0
    runs: int = 0

    def add(self, seconds: float) -> None:
        self.seconds += seconds
        self.runs += 1

    @property
    def mean(self) -> float:
        return self.seconds / self.runs


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a set of samples, from ``first`` on, for a model in a process of its own; plain values.

    ``inputs`` and ``samples`` (JSON) are as the worker takes them; outputs go into ``folder``.
    """

    model: str
    inputs: Sequence[Mapping[str, Any]]
    samples: str
    first: int
    rows: int
    folder: str


@dataclass(slots=True)
class _Hold:
    """The processes that run now, so that they can be ended, and how many rows each part has done."""

    processes: list[WorkerProcess] = field(default_factory=list)
    done: dict[int, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: bool = False

    def add(self, process: WorkerProcess) -> None:
        """Know of one more."""
        with self.lock:
            self.processes.append(process)
            if self.ended:
                process.kill()

    def end(self) -> None:
        """End what still runs."""
        with self.lock:
            self.ended = True
            for process in self.processes:
                process.kill()


def run_part(part: Part, report: Reporter = ignore_events, hold: _Hold | None = None) -> list[str]:
    """Run a part in a new process; the names of the outputs, of which ``folder`` has a .npy each.

    It needs nothing of the caller's process, so that any executor may call it that sees the same files.
    """
    Path(part.folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edgepack-part-") as scratch, WorkerProcess(Path(scratch), report) as one:
        if hold is not None:
            hold.add(one)
        answer = one.ask(
            "host",
            model=part.model,
            inputs=list(part.inputs),
            samples=part.samples,
            rows=part.rows,
            outputs=part.folder,
            first=part.first,
            threads=1,
        )
        return list(answer["outputs"])


def run_rest(
    whole: Part, done: int, outputs: Sequence[str], scratch: Path, executor: Executor | None, report: Reporter
) -> None:
    """Run all but the first ``done`` rows of ``whole`` and put their outputs behind those in its folder.

    ``executor`` (threads, processes, a cluster that sees these files) runs the parts; without one this machine's cores
    do. ``outputs`` are the names of the outputs that are there.
    """
    parts = split(whole, done, processes_here(), scratch)
    with ExitStack() as closing:
        if executor is None:
            hold = _Hold()
            pool = closing.enter_context(ThreadPoolExecutor(len(parts)))
            # Runs before the pool waits for its threads: without their processes they end at once.
            closing.callback(hold.end)
            tell = [_teller(number, hold, done, whole.rows, report) for number in range(len(parts))]
            futures = [pool.submit(run_part, part, told, hold) for part, told in zip(parts, tell, strict=True)]
        else:
            futures = [executor.submit(run_part, part) for part in parts]
        try:
            found = [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
    if any(names != list(outputs) for names in found):
        raise InternalError("bad-part", f"Parts of one model gave other outputs: {found}, not {list(outputs)}.")
    for number in range(len(outputs)):
        with (Path(whole.folder) / f"{number}.npy").open("ab") as joined:
            for part in parts:
                with (Path(part.folder) / f"{number}.npy").open("rb") as piece:
                    _skip_header(piece)
                    shutil.copyfileobj(piece, joined, 1 << 20)


def split(whole: Part, done: int, processes: int, scratch: Path) -> list[Part]:
    """The rows after the first ``done`` in ``processes`` parts, as even as can be, each with a folder of its own."""
    left = whole.rows - done
    count = min(processes, left)
    borders = [done + left * place // count for place in range(count + 1)]
    return [
        Part(
            whole.model,
            whole.inputs,
            whole.samples,
            whole.first + start,
            stop - start,
            str(scratch / f"part-{start}"),
        )
        for start, stop in itertools.pairwise(borders)
    ]


def _teller(number: int, hold: _Hold, done: int, total: int, report: Reporter) -> Reporter:
    def tell(event: Event) -> None:
        with hold.lock:
            hold.done[number] = event.done or 0
            report(Event(event.step, event.message, done + sum(hold.done.values()), total, event.unit))

    return tell


def _skip_header(stream: IO[bytes]) -> None:
    import numpy as np

    np.lib.format.read_magic(stream)  # type: ignore[no-untyped-call]
    np.lib.format.read_array_header_1_0(stream)  # type: ignore[no-untyped-call]
