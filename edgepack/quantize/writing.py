"""From what was made to the files that stay: the model, its check set and its provenance, and the document of them."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.documents import Accuracy, Conformance, ModelInfo, QuantizeDocument, SourceInfo
from edgepack.quantize import artifacts
from edgepack.quantize.agreement import Outputs
from edgepack.quantize.arrays import Port
from edgepack.quantize.binding import fit_samples
from edgepack.quantize.checkset import as_stored, check_set_arrays, fitting_rows
from edgepack.quantize.compiling import Delivered
from edgepack.quantize.conversion import conversion_to_json
from edgepack.quantize.job import Job
from edgepack.quantize.layers import Layers
from edgepack.quantize.request import Goal


@dataclass(frozen=True, slots=True)
class Made:
    """A goal that was reached, in its staging folder; ``checked`` are both models' outputs over the check set."""

    delivered: Delivered
    conformance: Conformance
    accuracy: Accuracy | None
    inputs: tuple[Port, ...]
    checked: Outputs | None
    layers: Layers | None
    within_budget: bool | None = None
    max_drop: float | None = None


def stage(
    job: Job, goal: Goal, made: Made, folder: Path, *, cached: bool, seconds: float
) -> tuple[QuantizeDocument, artifacts.Staged]:
    """Finish the files of a goal in ``folder``, for :func:`artifacts.place`, and describe them. Raises OSError."""
    data = made.delivered.path.read_bytes()
    scheme = str(goal.target.quantization.scheme)
    info = ModelInfo(str(goal.output), len(data), hashlib.sha256(data).hexdigest(), scheme)
    check, provenance = artifacts.check_set_path(goal.output), artifacts.provenance_path(goal.output)
    uncompiled = artifacts.uncompiled_path(goal.output)
    made_check = _write_check_set(job, made, folder)
    made_provenance = folder / provenance.name
    artifacts.write_provenance(made_provenance, _facts(job, goal, made, info))
    files = {
        check: made_check,
        provenance: made_provenance,
        uncompiled: made.delivered.uncompiled,
        goal.output: made.delivered.path,
    }
    document = QuantizeDocument(
        model=info,
        source=source_info(job),
        target=goal.target.name,
        conformance=made.conformance,
        accuracy=made.accuracy,
        check_set=str(check) if made_check else None,
        provenance=str(provenance),
        uncompiled=str(uncompiled) if made.delivered.uncompiled else None,
        seconds=seconds,
        cached=cached,
        layers=made.layers.layers if made.layers else (),
        layers_left_out=made.layers.left_out if made.layers else 0,
        first_bad_layer=made.layers.first_bad if made.layers else None,
        within_budget=made.within_budget,
        max_drop=made.max_drop,
    )
    return document, artifacts.Staged(folder, files)


def source_info(job: Job) -> SourceInfo:
    """What was quantized, as documents tell it."""
    return SourceInfo(str(job.source.path), job.source.kind, job.source.bytes, job.source.sha256)


def _write_check_set(job: Job, made: Made, folder: Path) -> Path | None:
    """Under the names that the delivered model gives inputs and outputs."""
    chosen = job.check_set or job.evaluation
    if chosen is None or made.checked is None:
        return None
    samples = fit_samples(chosen.samples, made.inputs)
    rows = samples.rows if job.check_set else fitting_rows(samples)
    names = (made.delivered.inputs, made.delivered.outputs)
    path = folder / "check.npz"
    arrays = check_set_arrays(samples, rows, made.inputs, made.checked, *names)
    artifacts.write_npz(path, as_stored(arrays, made.delivered.model))
    return path


def _facts(job: Job, goal: Goal, made: Made, info: ModelInfo) -> dict[str, Any]:
    sets = {"calibration": job.calibration, "evaluation": job.evaluation, "check_set": job.check_set}
    return {
        "source": {"kind": job.source.kind, "bytes": job.source.bytes, "sha256": job.source.sha256},
        "model": {"bytes": info.bytes, "sha256": info.sha256, "scheme": info.scheme},
        "compiled": made.delivered.facts,
        "names": {
            "inputs": [name for name, _ in made.delivered.model.named_inputs],
            "outputs": [name for name, _ in made.delivered.model.named_outputs],
        },
        "options": {
            "target": goal.target.name,
            **dataclasses.asdict(goal.target.quantization),
            **({} if goal.conversion is None else {"conversion": conversion_to_json(goal.conversion)}),
            "metric": job.metric.name,
            "resamples": job.metric.resamples,
            **dataclasses.asdict(job.options),
            "preprocessing": job.preprocessing.to_json(),
            "samples": {
                name: None if one is None else {"first": one.samples.start, "rows": one.samples.rows}
                for name, one in sets.items()
            },
        },
        "accuracy": None if made.accuracy is None else dataclasses.asdict(made.accuracy),
    }
