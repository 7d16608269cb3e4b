"""What :mod:`edgepack.quantize.worker` is asked for: the loaded model and each verb on it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgepack.documents import Finding
from edgepack.errors import InternalError, MisfitError
from edgepack.events import Event
from edgepack.quantize.arrays import Port
from edgepack.quantize.binding import padded
from edgepack.quantize.conversion import Conversion, calibration_picks, conversion_from_json
from edgepack.quantize.evaluate import PacedModel
from edgepack.quantize.feeding import batches_of, by_row, picked_batches, picked_rows
from edgepack.quantize.floatmodel import FloatModel, open_float_model
from edgepack.quantize.lookups import run_rows
from edgepack.quantize.making import Maker
from edgepack.quantize.samples import Samples, samples_from_json
from edgepack.quantize.shapes import parse_input_shapes, pin_ports
from edgepack.quantize.sources import TFLITE

if TYPE_CHECKING:
    import numpy as np

    from edgepack.quantize.trained import TrainedModel

    Array = np.ndarray[Any, Any]
    Run = Callable[[Mapping[str, Array]], dict[str, Array]]

# Rows that TensorFlow computes at once: enough to outweigh a call's cost, little enough for any memory.
_REFERENCE_BATCH = 32


class Worker:
    """The loaded model and the verbs on it; ``tell`` receives events."""

    def __init__(self, scratch: Path, tell: Callable[[Event], None]) -> None:
        self._scratch = scratch
        self._tell = tell
        self._source: TrainedModel | FloatModel | None = None
        self._maker: Maker | None = None

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do one request. Raises EdgepackError."""
        verbs: dict[str, Callable[..., dict[str, Any]]] = {
            "load": self._load,
            "convert": self._convert,
            "reference": self._reference,
            "host": self._host,
            "layers": self._layers,
            "ranges": self._ranges,
        }
        arguments = {key: value for key, value in request.items() if key != "verb"}
        return verbs[request["verb"]](**arguments)

    def _load(
        self,
        path: str,
        kind: str,
        signature: str | None = None,
        input_shapes: Sequence[str] = (),
        batch: int | None = None,
    ) -> dict[str, Any]:
        source: TrainedModel | FloatModel
        notes: tuple[Finding, ...] = ()
        if kind == TFLITE:
            source = open_float_model(Path(path), self._scratch, input_shapes, batch)
        else:
            from edgepack.quantize.trained import load_trained

            trained = load_trained(Path(path), kind, signature)
            source = dataclasses.replace(trained, inputs=pin_ports(trained.inputs, parse_input_shapes(input_shapes)))
            notes = trained.notes
        self._source, self._maker = source, Maker(source, self._scratch)
        return {
            "inputs": [dataclasses.asdict(port) for port in source.inputs],
            "outputs": [dataclasses.asdict(port) for port in source.outputs],
            "notes": [dataclasses.asdict(note) for note in notes],
        }

    def _convert(
        self,
        conversion: Mapping[str, Any],
        batch: int | None,
        calibration: str | None,
        output: str,
        float_output: str | None = None,
    ) -> dict[str, Any]:
        source, maker = self._loaded()
        wanted = conversion_from_json(conversion)
        samples = None if calibration is None else samples_from_json(calibration)
        feed = None if samples is None else lambda: self._calibrate(samples, source.inputs, batch or 1, wanted)
        float_model = maker.convert(wanted, batch, feed, Path(output))
        if float_output is None or float_model is None:
            return {"float": False}
        Path(float_output).write_bytes(float_model.read_bytes())
        return {"float": True}

    def _calibrate(
        self, samples: Samples, inputs: tuple[Port, ...], batch: int, wanted: Conversion
    ) -> Iterator[dict[str, Array]]:
        picks = calibration_picks(wanted, samples.rows)
        total = len(picks)
        for number, rows in enumerate(picked_rows(samples, inputs, batch, picks)):
            yield padded(rows, batch)
            self._tell(Event("quantize", "calibrating", min((number + 1) * batch, total), total, "samples"))

    def _reference(
        self, samples: str | None, rows: int | None, outputs: str | None, batch: int | None = None
    ) -> dict[str, Any]:
        trained, _ = self._loaded()
        if isinstance(trained, FloatModel):
            inputs = [dataclasses.asdict(port) for port in trained.inputs]
            return self._host(str(trained.judge), inputs, samples, rows, outputs)
        from edgepack.quantize.trained import make_run

        own = trained.inputs[0].shape[0]
        per_row = all(port.shape and port.shape[0] == own for port in trained.outputs)
        size = own or batch or (_REFERENCE_BATCH if per_row else 1)
        # Building a graph pays from a few calls on.
        run = make_run(trained, graph=rows is None or rows > size)
        chosen = None if samples is None else samples_from_json(samples)
        folder = None if outputs is None else Path(outputs)
        return self._run("the float model", run, size, chosen, rows, trained.inputs, folder)

    def _host(
        self,
        model: str,
        inputs: list[dict[str, Any]],
        samples: str | None,
        rows: int | None,
        outputs: str | None,
        first: int = 0,
        threads: int | None = None,
        processes: int = 1,
    ) -> dict[str, Any]:
        from edgepack.hostruntime import HostModel

        chosen = None if samples is None else samples_from_json(samples)
        if chosen is not None:
            chosen = chosen.after(first)
        host = PacedModel(lambda count: HostModel(Path(model), threads or count), processes)
        stop = host.is_slow if chosen is not None else None
        folder = None if outputs is None else Path(outputs)
        return self._run(Path(model).name, host.run, host.batch, chosen, rows, _ports(inputs), folder, stop)

    def _layers(
        self, reference: str, quantized: str, inputs: list[dict[str, Any]], samples: str | None, rows: int
    ) -> dict[str, Any]:
        from edgepack.quantize.layers import layers_to_json, measure_layers

        chosen, ports = None if samples is None else samples_from_json(samples), _ports(inputs)

        def batches(size: int) -> Iterator[dict[str, Array]]:
            present = rows if chosen is None else min(rows, chosen.rows)
            return self._told("comparing layers", batches_of(chosen, ports, size, rows), size, present)

        return layers_to_json(measure_layers(Path(reference), Path(quantized), batches))

    def _ranges(
        self, model: str, inputs: list[dict[str, Any]], samples: str, outputs: str, runs: Sequence[int]
    ) -> dict[str, Any]:
        from edgepack.quantize.rangeaudit import observe_ranges, save_ranges

        chosen, ports, what = samples_from_json(samples), _ports(inputs), "auditing ranges"

        def batches(size: int) -> Iterator[dict[str, Array]]:
            rows = min(chosen.rows, len(runs) * size) if runs else chosen.rows
            return self._told(what, picked_batches(chosen, ports, size, runs), size, rows)

        try:
            ranges = observe_ranges(Path(model), batches, tuple(runs))
        except MisfitError as refusal:
            return {"refused": refusal.message}
        return save_ranges(ranges, Path(outputs))

    def _told(self, what: str, batches: Iterator[dict[str, Array]], size: int, rows: int) -> Iterator[dict[str, Array]]:
        """The batches of so many rows in all, each filled up, with an event for each that was used."""
        for number, batch in enumerate(batches, 1):
            yield padded(batch, size)
            self._tell(Event("quantize", what, min(number * size, rows), rows, "samples"))

    def _run(
        self,
        what: str,
        run: Run,
        size: int,
        samples: Samples | None,
        rows: int | None,
        inputs: tuple[Port, ...],
        folder: Path | None,
        stop: Callable[[int], bool] | None = None,
    ) -> dict[str, Any]:
        """Run every row, ``size`` at a time, and leave each output as ``folder/<number>.npy`` [rows, ...] float32.

        Where ``stop``, asked how many are left, says so, that is all that is done: ``rows`` says how many.
        Without a folder rows are only tried.
        """
        import numpy as np

        total = rows or size if samples is None else min(samples.rows, rows or samples.rows)
        files: dict[str, IO[bytes]] = {}
        done = 0
        with contextlib.ExitStack() as closing:
            for batch in batches_of(samples, inputs, size, total):
                count = len(next(iter(batch.values())))
                for name, values in run_rows(run, batch, size, samples, done).items():
                    if folder is None:
                        continue
                    found = by_row(values, size)[:count].astype("<f4")
                    if name not in files:
                        files[name] = closing.enter_context((folder / f"{len(files)}.npy").open("wb"))
                        header = {"descr": "<f4", "fortran_order": False, "shape": (total, *found.shape[1:])}
                        np.lib.format.write_array_header_1_0(files[name], header)  # type: ignore[no-untyped-call]
                    files[name].write(found.tobytes())
                done += count
                self._tell(Event("quantize", f"running {what}", done, total, "samples"))
                if stop is not None and done < total and stop(total - done):
                    break
        return {"outputs": list(files), "rows": done}

    def _loaded(self) -> tuple[TrainedModel | FloatModel, Maker]:
        if self._source is None or self._maker is None:
            raise InternalError("no-model", "The worker was asked to work before a model was loaded.")
        return self._source, self._maker


def _ports(inputs: list[dict[str, Any]]) -> tuple[Port, ...]:
    return tuple(Port(one["name"], tuple(one["shape"]), one["dtype"]) for one in inputs)
