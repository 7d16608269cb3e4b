"""From a trained model to a .tflite that the target can run: check, convert, inspect, measure, write."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.documents import Accuracy, Conformance, Finding, ModelInfo, QuantizeDocument, SourceInfo
from edgepack.errors import InputError
from edgepack.events import Event, Reporter
from edgepack.metric import compare_accuracy
from edgepack.quantize import artifacts
from edgepack.quantize.agreement import Outputs, refuse_difference
from edgepack.quantize.checking import Port, bind_inputs, read_labels
from edgepack.quantize.checkset import check_set_arrays, fitting_rows
from edgepack.quantize.compiling import Delivered, compile_model
from edgepack.quantize.conformance import check_conformance, needs_dense_per_tensor, refuse_misfit
from edgepack.quantize.job import INTEGER_SCHEMES, Job
from edgepack.quantize.process import WorkerProcess
from edgepack.quantize.samples import Samples
from edgepack.quantize.sources import TFLITE
from edgepack.target import Scheme
from edgepack.tflite import TfliteModel, read_model

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# Rows on which the converted float model has to agree with the source.
_COMPARED_ROWS = 8


def run_job(job: Job, report: Reporter, started: float) -> QuantizeDocument:
    """Convert, inspect, measure and write; ``started`` is when the verb began, by time.perf_counter.

    Raises what :func:`edgepack.quantize.quantize` says.
    """
    try:
        with tempfile.TemporaryDirectory(dir=job.output.parent, prefix=".edgepack-quantize-") as folder:
            return _Run(job, Path(folder), report, started).finish()
    except OSError as fault:
        raise InputError(
            "cannot-write",
            f"Writing beside {job.output} failed: {fault.strerror or fault}.",
            hint="Name a folder that is yours and has room: -o FOLDER/OUT.tflite",
        ) from fault


class _Run:
    """The steps after the checks, inside a staging folder that disappears with whatever is left in it."""

    def __init__(self, job: Job, folder: Path, report: Reporter, started: float) -> None:
        self._job = job
        self._folder = folder
        self._report = report
        self._started = started
        self._inputs: tuple[Port, ...] = ()
        self._folders = 0

    def finish(self) -> QuantizeDocument:
        job = self._job
        staged = self._folder / job.output.name
        with WorkerProcess(self._folder, self._report) as worker:
            import tflite  # noqa: F401 (a fifth of a second, spent while the worker starts instead of after it)

            if job.source.kind == TFLITE:
                model = self._take(staged)
                conformance = self._inspect(model, job.notes)
            else:
                self._load(worker)
                model, conformance = self._convert(worker, staged)
            # Before minutes are spent on measuring what the compiler may refuse.
            delivered = compile_model(staged, model, job.target, folder=self._folder, report=self._report)
            evaluated = self._outputs(worker, job.evaluation, staged)
            checked = evaluated
            if job.check_set is not None:
                checked = self._outputs(worker, job.check_set, staged)
        accuracy = self._accuracy(evaluated)
        conformance = dataclasses.replace(conformance, findings=(*conformance.findings, *delivered.findings))
        return self._write(delivered, conformance, accuracy, checked)

    def _take(self, staged: Path) -> TfliteModel:
        """A float .tflite goes through as it is."""
        shutil.copyfile(self._job.source.path, staged)
        model = read_model(self._job.source.path)
        small = [one.name for one in model.tensors if one.constant and (one.scales or one.dtype == "float16")]
        if small or any(tensor.dtype not in ("float32", "int32", "int64", "bool") for _, tensor in model.named_inputs):
            raise InputError(
                "already-quantized",
                f"{self._job.source.path} is quantized already ({', '.join(map(repr, small[:3])) or 'its inputs'}).",
                hint="Bundle it as it is: edgepack bundle MODEL.tflite ...",
            )
        self._inputs = tuple(
            Port(name, tuple(None if n == -1 else n for n in tensor.shape_signature), tensor.dtype)
            for name, tensor in model.named_inputs
        )
        self._bind()
        self._check_metric([tensor.shape for _, tensor in model.named_outputs])
        return model

    def _load(self, worker: WorkerProcess) -> None:
        self._report(Event("quantize", f"loading {self._job.source.path.name} ({self._job.source.kind})"))
        loaded = worker.ask("load", path=str(self._job.source.path), kind=self._job.source.kind)
        self._inputs = tuple(Port(one["name"], tuple(one["shape"]), one["dtype"]) for one in loaded["inputs"])
        self._bind()
        self._check_metric([tuple(one["shape"]) for one in loaded["outputs"]])

    def _check_metric(self, outputs: Sequence[tuple[int | None, ...]]) -> None:
        if self._job.evaluation is not None:
            self._job.metric.refuse_misfit(outputs)

    def _bind(self) -> None:
        for samples in (self._job.calibration, self._job.evaluation, self._job.check_set):
            if samples is not None:
                bind_inputs(samples, self._inputs)

    def _convert(self, worker: WorkerProcess, staged: Path) -> tuple[TfliteModel, Conformance]:
        """Convert to the scheme, around what the runtime lacks; the float model on the way answers as the source."""
        job, float_model = self._job, self._folder / "float32.tflite"
        quantization = dataclasses.asdict(job.target.quantization)
        wanted = {key: quantization[key] for key in ("scheme", "io", "granularity", "float_fallback")}
        self._report(Event("quantize", f"converting to {job.target.quantization.scheme}"))
        if not self._ask_convert(worker, staged, float_model, **wanted):
            self._ask_convert(worker, float_model, None, scheme=Scheme.FLOAT32)
        self._compare(worker, float_model)
        model, notes = read_model(staged), job.notes
        if needs_dense_per_tensor(model, job.target):
            self._ask_convert(worker, staged, None, **wanted, dense_per_tensor=True)
            model, notes = read_model(staged), (*notes, _CONVERTED_AROUND)
        conformance = self._inspect(model, notes)
        if job.evaluation is None and job.check_set is None:
            self._host(worker, staged, job.calibration, 1)  # it has to run at all
        return model, conformance

    def _ask_convert(self, worker: WorkerProcess, output: Path, float_output: Path | None, **conversion: Any) -> bool:
        """Whether the float model was written too: the calibrated one, or in float32 a copy of the output."""
        job = self._job
        calibrated = conversion["scheme"] in INTEGER_SCHEMES and job.calibration is not None
        calibration = job.calibration.text if calibrated and job.calibration else None
        answer = worker.ask(
            "convert",
            conversion=conversion,
            batch=job.batch,
            calibration=calibration,
            output=str(output),
            float_output=None if float_output is None else str(float_output),
        )
        if conversion["scheme"] == Scheme.FLOAT32 and float_output is not None:
            float_output.write_bytes(output.read_bytes())
            return True
        return bool(answer["float"])

    def _inspect(self, model: TfliteModel, notes: tuple[Finding, ...]) -> Conformance:
        conformance = check_conformance(model, self._job.target, notes)
        refuse_misfit(conformance, self._job.target)
        return conformance

    def _compare(self, worker: WorkerProcess, float_model: Path) -> None:
        samples = self._job.evaluation or self._job.check_set or self._job.calibration
        reference = self._reference(worker, samples, _COMPARED_ROWS)
        refuse_difference(reference, self._host(worker, float_model, samples, _COMPARED_ROWS))

    def _outputs(self, worker: WorkerProcess, samples: Samples | None, staged: Path) -> Outputs | None:
        if samples is None:
            return None
        quantized = self._host(worker, staged, samples, None)
        is_source = self._job.source.kind == TFLITE
        reference = quantized if is_source else self._reference(worker, samples, None)
        return Outputs(reference, quantized)

    def _reference(self, worker: WorkerProcess, samples: Samples | None, rows: int | None) -> dict[str, Array]:
        text = None if samples is None else samples.text
        folder = self._new_folder()
        return _arrays(folder, worker.ask("reference", samples=text, rows=rows, outputs=str(folder)))

    def _host(self, worker: WorkerProcess, model: Path, samples: Samples | None, rows: int | None) -> dict[str, Array]:
        text = None if samples is None else samples.text
        folder = self._new_folder()
        ports = [dataclasses.asdict(port) for port in self._inputs]
        answer = worker.ask("host", model=str(model), inputs=ports, samples=text, rows=rows, outputs=str(folder))
        return _arrays(folder, answer)

    def _new_folder(self) -> Path:
        self._folders += 1
        folder = self._folder / f"outputs-{self._folders}"
        folder.mkdir()
        return folder

    def _accuracy(self, outputs: Outputs | None) -> Accuracy | None:
        samples = self._job.evaluation
        if samples is None or outputs is None:
            return None
        labels = read_labels(samples)
        if labels is None:
            return None
        return compare_accuracy(
            self._job.metric, outputs.reference, outputs.quantized, labels, self._job.target.budget.max_accuracy_drop
        )

    def _write(
        self,
        delivered: Delivered,
        conformance: Conformance,
        accuracy: Accuracy | None,
        outputs: Outputs | None,
    ) -> QuantizeDocument:
        job = self._job
        data = delivered.path.read_bytes()
        info = ModelInfo(
            str(job.output), len(data), hashlib.sha256(data).hexdigest(), str(job.target.quantization.scheme)
        )
        check, provenance = artifacts.check_set_path(job.output), artifacts.provenance_path(job.output)
        uncompiled = artifacts.uncompiled_path(job.output)
        made_check = self._write_check_set(outputs, delivered)
        made_provenance = self._folder / provenance.name
        artifacts.write_provenance(made_provenance, self._facts(delivered, info, accuracy))
        artifacts.place(
            {
                check: made_check,
                provenance: made_provenance,
                uncompiled: delivered.uncompiled,
                job.output: delivered.path,
            }
        )
        return QuantizeDocument(
            model=info,
            source=SourceInfo(str(job.source.path), job.source.kind, job.source.bytes, job.source.sha256),
            target=job.target.name,
            conformance=conformance,
            accuracy=accuracy,
            check_set=str(check) if made_check else None,
            provenance=str(provenance),
            uncompiled=str(uncompiled) if delivered.uncompiled else None,
            seconds=round(time.perf_counter() - self._started, 3),
        )

    def _write_check_set(self, outputs: Outputs | None, delivered: Delivered) -> Path | None:
        """Under the names that the delivered model gives inputs and outputs."""
        job = self._job
        samples = job.check_set or job.evaluation
        if samples is None or outputs is None:
            return None
        path = self._folder / "check.npz"
        rows = samples.rows if job.check_set else fitting_rows(samples)
        names = (delivered.inputs, delivered.outputs)
        artifacts.write_npz(path, check_set_arrays(samples, rows, self._inputs, outputs, *names))
        return path

    def _facts(self, delivered: Delivered, info: ModelInfo, accuracy: Accuracy | None) -> dict[str, Any]:
        job, quantization = self._job, self._job.target.quantization
        sets = {"calibration": job.calibration, "evaluation": job.evaluation, "check_set": job.check_set}
        return {
            "source": {"kind": job.source.kind, "bytes": job.source.bytes, "sha256": job.source.sha256},
            "model": {"bytes": info.bytes, "sha256": info.sha256, "scheme": info.scheme},
            "compiled": delivered.facts,
            "names": {
                "inputs": [name for name, _ in delivered.model.named_inputs],
                "outputs": [name for name, _ in delivered.model.named_outputs],
            },
            "options": {
                "target": job.target.name,
                **dataclasses.asdict(quantization),
                "metric": job.metric.name,
                "batch": job.batch,
                "samples": {
                    name: None if one is None else {"first": one.start, "rows": one.rows} for name, one in sets.items()
                },
            },
            "accuracy": None if accuracy is None else dataclasses.asdict(accuracy),
        }


_CONVERTED_AROUND = Finding(
    "converted-around",
    "note",
    "FULLY_CONNECTED",
    "Dense layers have one scale for all their weights: tflite-runtime 2.14 lacks FULLY_CONNECTED version 12, "
    "which a scale per channel needs.",
    "It may cost some accuracy; ai-edge-litert as the profile's runtime does not need it.",
)


def _arrays(folder: Path, answer: dict[str, Any]) -> dict[str, Array]:
    import numpy as np

    return {
        name: np.load(folder / f"{place}.npy", mmap_mode="r", allow_pickle=False)
        for place, name in enumerate(answer["outputs"])
    }
