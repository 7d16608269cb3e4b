"""What a run of ``quantize`` has made for it: conversions and outputs, each once for the same content.

The worker process does the work; what it makes is kept in a :class:`~edgepack.quantize.store.Store` under everything
that it depends on, so that several targets share it, and a second run makes nothing at all. The process starts with the
first thing that is not there.
"""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgepack.digest import sha256_file
from edgepack.documents import Finding
from edgepack.errors import EdgepackError
from edgepack.events import Event, Reporter
from edgepack.quantize.arrays import Port
from edgepack.quantize.checking import CheckedSamples
from edgepack.quantize.conversion import Conversion, conversion_to_json
from edgepack.quantize.evaluate import Part, processes_here, run_rest
from edgepack.quantize.kept import Kept
from edgepack.quantize.layers import Layers, layers_from_json
from edgepack.quantize.process import WorkerProcess
from edgepack.quantize.rangeaudit import Ranges, load_ranges
from edgepack.quantize.request import SourceOptions
from edgepack.quantize.sources import Source
from edgepack.quantize.store import Store
from edgepack.quantize.watched import Watched
from edgepack.target import INTEGER_SCHEMES, Scheme

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_MODEL, _FLOAT_MODEL, _ANSWER = "model.tflite", "float.tflite", "answer.json"


@dataclass(frozen=True, slots=True)
class Ports:
    """What goes into the source model and what comes out; ``notes`` are on how it was loaded."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    notes: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class ConvertedFile:
    """A .tflite, and the float .tflite that it was calibrated as (None where TensorFlow did not show one)."""

    model: Path
    float_model: Path | None


class Workshop:
    """A context manager; ``watched`` are the files of source and samples, ``scratch`` is a folder of the caller's.

    ``store`` None keeps results for this run only. Long evaluations are split over ``executor``, and without one over
    this machine's cores.
    """

    def __init__(
        self,
        source: Source,
        options: SourceOptions,
        watched: Watched,
        scratch: Path,
        store: Store | None,
        report: Reporter,
        executor: Executor | None = None,
    ) -> None:
        self._source = source
        self._options = options
        self._scratch = scratch
        self._report = report
        self._executor = executor
        self._worker: WorkerProcess | None = None
        self._loaded = False
        facts = {"kind": source.kind, "sha256": source.sha256, "options": dataclasses.asdict(options)}
        self._kept = Kept(facts, watched, scratch, store)

    def __enter__(self) -> Workshop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None:
            self._worker.__exit__(kind, error, trace)

    @property
    def idle(self) -> bool:
        """Whether nothing had to be made so far: everything was there."""
        return self._kept.made == 0

    def ports(self) -> Ports:
        """The source model's inputs, with the sizes that were pinned, and its outputs.

        Raises InputError where it cannot be loaded.
        """

        def make(folder: Path) -> None:
            answer = self._load()
            (folder / _ANSWER).write_text(json.dumps(answer))

        answer = json.loads((self._kept.get("ports", {}, make) / _ANSWER).read_bytes())
        inputs, outputs = ([Port(one["name"], tuple(one["shape"]), one["dtype"]) for one in answer[side]]
                           for side in ("inputs", "outputs"))  # fmt: skip
        return Ports(tuple(inputs), tuple(outputs), tuple(Finding(**one) for one in answer["notes"]))

    def convert(self, conversion: Conversion, calibration: CheckedSamples | None) -> ConvertedFile:
        """The source as a .tflite. Raises MisfitError where it cannot be converted so."""
        calibrated = calibration if conversion.scheme in INTEGER_SCHEMES else None

        def make(folder: Path) -> None:
            self._ensure_loaded()
            self._ask(
                "convert",
                conversion=conversion_to_json(conversion),
                batch=self._options.batch,
                calibration=_text(calibrated),
                output=str(folder / _MODEL),
                float_output=str(folder / _FLOAT_MODEL) if conversion.scheme in INTEGER_SCHEMES else None,
            )

        facts = {"conversion": conversion_to_json(conversion), "calibration": _content(calibrated)}
        folder = self._kept.get("convert", facts, make)
        float_model = folder / (_MODEL if conversion.scheme == Scheme.FLOAT32 else _FLOAT_MODEL)
        return ConvertedFile(folder / _MODEL, float_model if float_model.exists() else None)

    def reference(
        self, samples: CheckedSamples | None, rows: int | None = None, batch: int | None = None
    ) -> dict[str, Array]:
        """The source's outputs, float32 [rows, ...] by name; of invented rows where there are no samples.

        ``batch`` rows go in at once; None lets the worker choose what is fast.
        """

        def make(folder: Path) -> None:
            self._ensure_loaded()
            answer = self._ask("reference", samples=_text(samples), rows=rows, outputs=str(folder), batch=batch)
            (folder / _ANSWER).write_text(json.dumps(answer))

        facts = {"samples": _content(samples), "rows": rows, "batch": batch}
        return _arrays(self._kept.get("reference", facts, make))

    def try_rows(self, samples: CheckedSamples) -> None:
        """Run the source over the samples, for what it refuses. Raises InputError "index-out-of-range"."""

        def make(folder: Path) -> None:
            self._ensure_loaded()
            answer = self._ask("reference", samples=_text(samples), rows=None, outputs=None)
            (folder / _ANSWER).write_text(json.dumps(answer))

        self._kept.get("try", {"samples": samples.digest}, make)

    def host(
        self, model: Path, inputs: tuple[Port, ...], samples: CheckedSamples | None, rows: int | None = None
    ) -> dict[str, Array]:
        """A .tflite's outputs on this machine, as :meth:`reference`."""
        ports = [dataclasses.asdict(port) for port in inputs]

        def make(folder: Path) -> None:
            several = processes_here() if rows is None else 1
            answer = self._ask(
                "host",
                model=str(model),
                inputs=ports,
                samples=_text(samples),
                rows=rows,
                outputs=str(folder),
                processes=several,
            )
            (folder / _ANSWER).write_text(json.dumps(answer))
            if samples is not None and rows is None and answer["rows"] < samples.samples.rows:
                whole = Part(str(model), ports, samples.samples.to_json(), 0, samples.samples.rows, str(folder))
                run_rest(whole, answer["rows"], answer["outputs"], self._scratch, self._executor, self._report)

        facts = {"model": sha256_file(model), "inputs": ports, "samples": _content(samples), "rows": rows}
        return _arrays(self._kept.get("host", facts, make))

    def layers(
        self, reference: Path, quantized: Path, inputs: tuple[Port, ...], samples: CheckedSamples | None, rows: int
    ) -> Layers:
        """The error of each layer of ``quantized`` against the float .tflite ``reference``, over the first rows."""
        ports = [dataclasses.asdict(port) for port in inputs]

        def make(folder: Path) -> None:
            answer = self._ask(
                "layers",
                reference=str(reference),
                quantized=str(quantized),
                inputs=ports,
                samples=_text(samples),
                rows=rows,
            )
            (folder / _ANSWER).write_text(json.dumps(answer))

        models = {"reference": sha256_file(reference), "model": sha256_file(quantized)}
        facts = {**models, "inputs": ports, "samples": _content(samples), "rows": rows}
        return layers_from_json(json.loads((self._kept.get("layers", facts, make) / _ANSWER).read_bytes()))

    def ranges(
        self, model: Path, inputs: tuple[Port, ...], samples: CheckedSamples, runs: tuple[int, ...] = ()
    ) -> Ranges:
        """The range of each activation of a float .tflite in each run over the samples, or in ``runs`` of them.

        Raises MisfitError where this machine cannot run it.
        """
        ports = [dataclasses.asdict(port) for port in inputs]

        def make(folder: Path) -> None:
            answer = self._ask(
                "ranges", model=str(model), inputs=ports, samples=_text(samples), outputs=str(folder), runs=runs
            )
            (folder / _ANSWER).write_text(json.dumps(answer))

        facts = {"model": sha256_file(model), "inputs": ports, "samples": samples.digest, "runs": runs}
        folder = self._kept.get("ranges", facts, make)
        return load_ranges(json.loads((folder / _ANSWER).read_bytes()), folder)

    def _load(self) -> dict[str, Any]:
        self._report(Event("quantize", f"loading {self._source.path.name} ({self._source.kind})"))
        options = self._options
        answer = self._ask(
            "load",
            path=str(self._source.path),
            kind=self._source.kind,
            signature=options.signature,
            input_shapes=options.input_shapes,
            batch=options.batch,
        )
        self._loaded = True
        return answer

    def _ensure_loaded(self) -> None:
        if not self._loaded:
            self._load()

    def _ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        if self._worker is None:
            self._worker = WorkerProcess(self._scratch, self._report)
            import tflite  # noqa: F401 (a fifth of a second, spent while the worker starts instead of after it)
        try:
            return self._worker.ask(verb, **arguments)
        except EdgepackError as error:
            if not self._worker.running:  # what comes next gets a new one
                self._worker.__exit__(type(error), error, None)
                self._worker, self._loaded = None, False
            raise


def _content(samples: CheckedSamples | None) -> str | None:
    return None if samples is None else samples.digest


def _text(samples: CheckedSamples | None) -> str | None:
    return None if samples is None else samples.samples.to_json()


def _arrays(folder: Path) -> dict[str, Array]:
    import numpy as np

    outputs = json.loads((folder / _ANSWER).read_bytes())["outputs"]
    return {
        name: np.load(folder / f"{place}.npy", mmap_mode="r", allow_pickle=False) for place, name in enumerate(outputs)
    }
