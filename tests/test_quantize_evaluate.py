"""A .tflite over many rows on several processes: the same numbers, and only where it pays."""

from __future__ import annotations

import dataclasses
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.building import quantize
from edgepack.events import Event, ignore_events
from edgepack.quantize import evaluate
from edgepack.quantize.evaluate import PacedModel, Part, pays, processes_here, run_part, run_rest, split
from edgepack.quantize.process import WorkerProcess
from edgepack.quantize.samples import open_samples
from edgepack.scoring import topk_hits

DATA = Path(__file__).parent / "data"
ROWS = 203


@dataclasses.dataclass
class Set:
    """A model, samples for it, and what one process makes of all rows."""

    whole: Part
    outputs: list[str]
    scratch: Path
    expected: list[np.ndarray[Any, Any]]


@pytest.fixture(scope="module", params=["tiny_int8", "tiny_dense"])
def one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Set:
    """An int8 classifier and a float dense layer over 203 rows that begin at row 7 of their file."""
    folder = tmp_path_factory.mktemp(request.param)
    name, shape = {"tiny_int8": ("image", (8, 8, 1)), "tiny_dense": ("x", (8,))}[request.param]
    rows = np.random.default_rng(3).uniform(0, 1, (ROWS + 10, *shape)).astype(np.float32)
    np.savez(folder / "samples.npz", x=rows)
    port = {"name": name, "shape": [None, *shape], "dtype": "float32"}
    samples = open_samples(f"{folder}/samples.npz#7:{7 + ROWS}").to_json()
    whole = Part(str(DATA / f"{request.param}.tflite"), [port], samples, 0, ROWS, str(folder / "whole"))
    outputs = run_part(whole)
    expected = [np.load(f"{whole.folder}/{number}.npy") for number in range(len(outputs))]
    return Set(whole, outputs, folder, expected)


def begun(one: Set, folder: Path, rows: int) -> Part:
    """The same set with its first rows done, as the worker leaves it."""
    folder.mkdir()
    for number, values in enumerate(one.expected):
        with (folder / f"{number}.npy").open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": values.shape}
            np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
            file.write(values[:rows].tobytes())
    return dataclasses.replace(one.whole, folder=str(folder))


EXECUTORS: list[Any] = [
    pytest.param(lambda: nullcontext(None), id="own"),
    pytest.param(lambda: ThreadPoolExecutor(2), id="threads"),
    pytest.param(lambda: ProcessPoolExecutor(2, get_context("spawn")), id="processes"),
]


@pytest.mark.parametrize("open_executor", EXECUTORS)
def test_parts_give_bit_for_bit_what_one_process_gives(one: Set, tmp_path: Path, open_executor: Any) -> None:
    """Split over any executor, an evaluation has the numbers of a single process, in the rows' order."""
    whole = begun(one, tmp_path / "outputs", 31)
    with open_executor() as executor:
        run_rest(whole, 31, one.outputs, tmp_path, executor, ignore_events)
    for number, expected in enumerate(one.expected):
        assert np.array_equal(np.load(f"{whole.folder}/{number}.npy"), expected)


def test_progress_counts_the_rows_of_all_parts(one: Set, tmp_path: Path) -> None:
    """Events go on from what was done to the end, and never count backwards."""
    events: list[Event] = []
    run_rest(begun(one, tmp_path / "outputs", 31), 31, one.outputs, tmp_path, None, events.append)
    counts = [event.done or 0 for event in events]
    assert counts == sorted(counts)
    assert (counts[-1], {event.total for event in events}) == (ROWS, {ROWS})


def test_a_worker_that_stops_early_says_where_and_is_usable_still(one: Set, tmp_path: Path) -> None:
    """With a rest that is worth it, the worker leaves it and goes on answering; the rest makes it whole."""
    asked: dict[str, Any] = {"model": one.whole.model, "inputs": one.whole.inputs, "samples": one.whole.samples}
    with WorkerProcess(tmp_path, ignore_events) as worker:
        folders = [tmp_path / "first", tmp_path / "again"]
        for folder in folders:
            folder.mkdir()
        answer = worker.ask("host", **asked, rows=20, outputs=str(folders[0]), first=4)
        assert (answer["outputs"], answer["rows"]) == (one.outputs, 20)
        assert np.array_equal(np.load(folders[0] / "0.npy"), one.expected[0][4:24])
        assert worker.ask("host", **asked, rows=None, outputs=str(folders[1]), processes=8)["rows"] == ROWS


def test_ctrl_c_ends_the_parts_at_once(one: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt while parts run kills their processes instead of waiting for them."""
    started = threading.Event()

    def forever(part: Part, report: object, hold: Any) -> list[str]:
        with WorkerProcess(tmp_path, ignore_events) as process:
            hold.add(process)
            started.set()
            assert process._process.stdout is not None
            assert process._process.stdout.readline() == ""  # until somebody ends it
        return []

    def wait(self: object) -> None:
        started.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "run_part", forever)
    monkeypatch.setattr("concurrent.futures.Future.result", wait)
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_rest(begun(one, tmp_path / "outputs", 31), 31, one.outputs, tmp_path, None, ignore_events)
    assert time.monotonic() - before < 20


@given(st.integers(0, 500), st.integers(1, 500), st.integers(1, 16))
def test_parts_cover_each_row_once(done: int, left: int, processes: int) -> None:
    """The parts follow each other from what is done to the end, no two of them longer by more than a row."""
    whole = Part("m", [], "s", 0, done + left, "f")
    parts = split(whole, done, processes, Path("/scratch"))
    assert [row for part in parts for row in range(part.first, part.first + part.rows)] == [*range(done, done + left)]
    assert max(part.rows for part in parts) - min(part.rows for part in parts) <= 1
    assert len({part.folder for part in parts}) == len(parts) <= processes


@given(st.integers(0, 10**6), st.floats(1e-5, 1), st.floats(1, 4), st.integers(1, 8))
def test_splitting_pays_only_where_it_saves_more_than_the_start(
    runs: int, single_s: float, speedup: float, processes: int
) -> None:
    """Never for what ends within the time that processes need to start, nor where threads are as fast."""
    threaded_s = single_s / speedup
    if runs * threaded_s <= 2 or processes <= speedup:
        assert not pays(runs, threaded_s, single_s, processes)
    if pays(runs, threaded_s, single_s, processes):
        assert pays(2 * runs, threaded_s, single_s, processes)


@pytest.mark.parametrize(("speedup", "splits"), [(1.0, True), (4.0, False)])
def test_both_paces_are_measured_before_rows_are_split(speedup: float, splits: bool) -> None:
    """Four processes are worth it where threads do not help a model, and not where they make it four times faster."""
    clock = [0.0]

    class Model:
        batch = 1

        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def run(self, batch: Any) -> dict[str, Any]:
            clock[0] += self.seconds
            return {}

    models = iter([Model(0.1 / speedup), Model(0.1)])
    paced: Any = PacedModel(lambda threads: next(models), 4, lambda: clock[0])  # type: ignore[arg-type, return-value]
    asked = []
    for left in range(10_000, 9_900, -1):
        paced.run({})
        asked.append(paced.is_slow(left))
        if asked[-1]:
            break
    assert asked[-1] is splits
    assert not any(asked[:9])


def test_a_single_core_is_never_split() -> None:
    """There is one process at least, and with one nothing is split."""
    assert processes_here() >= 1
    assert not pays(10**6, 1.0, 1.0, 1)


class Counting(ThreadPoolExecutor):
    """Threads that count what they are given."""

    given = 0

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Any:
        """Count it, and do it."""
        self.given += 1
        return super().submit(function, *arguments, **options)


@pytest.mark.slow
@pytest.mark.skipif(processes_here() < 2, reason="a long proof that needs two cores")
def test_quantize_splits_a_long_evaluation_over_the_executor_that_it_is_given(
    small_models: Path, tmp_path: Path
) -> None:
    """400,000 rows go to the executor's threads in parts, and the accuracy is that of the check set's own outputs."""
    with np.load(small_models / "images.npz") as images:
        rows = np.resize(np.arange(20, 120), 400_000)
        np.savez(tmp_path / "many.npz", x=images["x"][rows], y=images["y"][rows])
    with Counting(2) as executor:
        document = quantize(
            small_models / "keras3.keras",
            target="generic-cpu",
            output=tmp_path / "out.tflite",
            calibration=f"{small_models}/images.npz#0:20",
            evaluation=str(tmp_path / "many.npz"),
            cache=False,
            executor=executor,
        )
    assert executor.given >= 2
    with np.load(tmp_path / "out.check.npz") as check:
        few = topk_hits(check["quantized/scores"][:100], check["labels"][:100]).mean()
    assert document.accuracy is not None
    assert document.accuracy.quantized == pytest.approx(few)
