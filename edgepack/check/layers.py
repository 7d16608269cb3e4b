"""The first layer in which device and host differ: both run the same samples with every tensor kept.

The device's loader runs the runtime's plain kernels for that, and so does the host: what XNNPACK or a delegate does
otherwise shows in the outputs alone. A tensor's values are compared as they lie in memory, layer after layer in the
order of execution; what comes after the first layer that differs inherits the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.check.parity import Difference, difference, is_tolerated
from edgepack.documents import LayerParity
from edgepack.errors import MisfitError
from edgepack.hostruntime import HostModel
from edgepack.tflite import TfliteModel, read_model

Array = np.ndarray[Any, Any]

INPUT = "INPUT"
"""The operator of a model's inputs, which both sides have from the device."""

_NO_NOISE_DB = 200.0
# Their output is their input in another shape.
_COPIES = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")


@dataclass(frozen=True, slots=True)
class LayerLook:
    """Every layer's parity in the order of execution, and how far the host's own outputs lie from the check set's.

    ``host`` is None where the check set holds no outputs of the host's; ``left_out`` counts tensors that were not
    compared, because the device sent none, or because they hold nothing or another layer's output after a run.
    """

    layers: tuple[LayerParity, ...]
    host: Difference | None
    left_out: int

    @property
    def diverging(self) -> LayerParity | None:
        """The first layer beyond tolerance."""
        return next((one for one in self.layers if not one.tolerated), None)


def look_at_layers(
    model: Path, tensors: Mapping[str, Array], stored: Mapping[str, Array], scales: Mapping[str, float]
) -> LayerLook:
    """Run ``model`` here on the inputs that the device had, and hold each tensor against the device's.

    ``tensors`` are the device's, ``tensor/<index>`` [samples, *shape]; ``stored`` the check set's outputs of the host's
    for the same samples, by name, ``scales`` one quantization step of each.

    Raises InputError "no-host-runtime", MisfitError "runtime-refused" (this machine cannot run the model),
    "other-model" (the device's tensors are not those of this model).
    """
    described = read_model(model)
    kept = HostModel(model, keep_all=True)
    device = {int(name.removeprefix("tensor/")): array for name, array in tensors.items()}
    inputs = {name: _of_input(device, described, name, tensor.index) for name, tensor in described.named_inputs}
    ours: dict[int, list[Array]] = {}
    left_out = 0
    for row in range(len(next(iter(inputs.values())))):
        kept.run_stored({name: array[row] for name, array in inputs.items()})
        for index in device:
            values = kept.held(index)
            if values is not None:
                ours.setdefault(index, []).append(np.array(values))
    host = {index: np.stack(parts) for index, parts in ours.items() if len(parts) == len(device[index])}
    gone = _overwritten(described, device) | _overwritten(described, host)
    layers = []
    for name, operator, index in _layers(described):
        if index in host and index not in gone:
            layers.append(_compare(described, index, name, operator, device[index], host[index]))
        else:
            left_out += 1
    return LayerLook(tuple(layers), _host_difference(model, inputs, stored, scales), left_out)


def _overwritten(model: TfliteModel, tensors: Mapping[int, Array]) -> set[int]:
    """The tensors that an operator wrote its output over: some runtimes' kernels work in place, although all is kept.

    Such a tensor is bit for bit the output of an operator that reads it, which is not one that only copies.
    """
    found = set()
    for operator in model.operators:
        if operator.subgraph or operator.name in _COPIES:
            continue
        for index in set(operator.inputs) & tensors.keys():
            for output in set(operator.outputs) & tensors.keys():
                one, other = tensors[index], tensors[output]
                if one.nbytes == other.nbytes and one.tobytes() == other.tobytes():
                    found.add(index)
    return found


def _of_input(device: Mapping[int, Array], model: TfliteModel, name: str, index: int) -> Array:
    found = device.get(index)
    if found is None:
        raise _other_model(model, f"the device has no tensor {index}, which is its input {name!r}")
    return found


def _layers(model: TfliteModel) -> list[tuple[str, str, int]]:
    """Name, operator and tensor of each layer's output, the inputs first, in the order of execution."""
    found = [(name, INPUT, tensor.index) for name, tensor in model.named_inputs]
    for operator in model.operators:
        if operator.subgraph == 0:
            kind = operator.custom_name or operator.name
            found += [(model.tensor(0, index).name, kind, index) for index in operator.outputs if index >= 0]
    return found


def _compare(model: TfliteModel, index: int, name: str, operator: str, device: Array, host: Array) -> LayerParity:
    if device.shape != host.shape or device.dtype != host.dtype:
        raise _other_model(model, f"{name!r} is {device.dtype}{list(device.shape[1:])} there")
    tensor = model.tensor(0, index)
    steps = 1.0 if device.dtype.kind in "iu" and len(tensor.scales) == 1 else None
    apart = difference(device, host, steps)
    zero = float(tensor.zero_points[0]) if steps and tensor.zero_points else 0.0
    tolerated = is_tolerated(apart.steps, apart.share)
    return LayerParity(name, operator, _sqnr_db(device, host, zero), apart.steps, tolerated)


def _sqnr_db(device: Array, host: Array, zero: float) -> float | None:
    """``10 log10(sum(x^2) / sum((x - q)^2))`` of the host's numbers x and the device's q, within 200 dB."""
    finite = np.isfinite(device) & np.isfinite(host)
    wanted = host[finite].astype(np.float64) - zero
    signal = float(np.square(wanted).sum())
    noise = float(np.square(device[finite].astype(np.float64) - zero - wanted).sum())
    if noise == 0:
        return _NO_NOISE_DB
    if signal == 0:
        return None
    return round(float(np.clip(10 * np.log10(signal / noise), -_NO_NOISE_DB, _NO_NOISE_DB)), 2)


def _host_difference(
    model: Path, inputs: Mapping[str, Array], stored: Mapping[str, Array], scales: Mapping[str, float]
) -> Difference | None:
    """What this host says today, as ``quantize`` ran it, against what the check set says that a host said."""
    if not stored:
        return None
    plain = HostModel(model)
    found = []
    for row in range(len(next(iter(inputs.values())))):
        outputs = plain.run_stored({name: array[row] for name, array in inputs.items()})
        shared = [name for name in outputs if name in stored and outputs[name][0].shape == stored[name][row].shape]
        found += [difference(outputs[name][0], stored[name][row], scales.get(name)) for name in shared]
    return max(found, key=lambda one: (not one.is_tolerated, one.share), default=None)


def _other_model(model: TfliteModel, what: str) -> MisfitError:
    return MisfitError(
        "other-model",
        f"{model.path.name} is not built as the release's model: {what}.",
        hint="Name the .tflite that the release's model should be, of the same layers.",
    )
