"""Runs a .tflite on this machine, float in and float out; the only importer of ai_edge_litert."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.errors import InputError, MisfitError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def require_runtime() -> None:
    """Raises InputError "no-host-runtime" where this machine cannot run a .tflite."""
    try:
        import ai_edge_litert.interpreter  # noqa: F401 (only whether it is there)
    except ImportError as fault:
        raise InputError(
            "no-host-runtime",
            "Running a .tflite on this machine needs ai-edge-litert, which is not installed here.",
            hint="Install it, in edgepack's checkout: pip install '.[quantize]'",
        ) from fault


class HostModel:
    """A .tflite in LiteRT's interpreter. Names are those of the source model where the file has a signature.

    Integer inputs and outputs are quantized and dequantized exactly as the loader on the device does it. With
    ``keep_all`` the runtime's own kernels compute every tensor, also those that XNNPACK would fuse away, several times
    slower; :meth:`tensors` reads them after a run. ``shapes``, by input name, are those that the inputs get before
    anything is prepared: a model with open sizes need not run at the 1 that its file has for them.

    Raises MisfitError "runtime-refused", with ``operator`` and ``node`` in its details where one of them is at fault.
    """

    def __init__(
        self,
        path: Path,
        threads: int = 1,
        *,
        keep_all: bool = False,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        require_runtime()
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self._path = path
        try:
            kept = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if keep_all else OpResolverType.AUTO
            self._interpreter = Interpreter(
                model_path=str(path),
                num_threads=threads,
                experimental_op_resolver_type=kept,
                experimental_preserve_all_tensors=keep_all,
            )
            names = _signature_names(self._interpreter)
            if shapes is not None:
                for one in self._interpreter.get_input_details():
                    self._interpreter.resize_tensor_input(one["index"], shapes[names.get(one["index"], one["name"])])
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as fault:
            raise _refused(path, fault) from fault
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._details = {detail["index"]: detail for detail in (*inputs, *outputs)}
        self._all = {one["index"]: one for one in self._interpreter.get_tensor_details()} if keep_all else {}
        self._shapes = {detail["index"]: tuple(map(int, detail["shape"])) for detail in inputs}
        self._inputs = {names.get(one["index"], one["name"]): one["index"] for one in inputs}
        self._outputs = {names.get(one["index"], one["name"]): one["index"] for one in outputs}

    @property
    def batch(self) -> int:
        """How many rows one run takes."""
        shapes = [self._details[index]["shape"] for index in self._inputs.values()]
        return int(shapes[0][0]) if len(shapes[0]) else 1

    def run(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """One run: arrays by input name with exactly :attr:`batch` rows; float32 arrays by output name.

        Raises MisfitError "runtime-refused" where the runtime fails, KeyError for an input that is missing.
        """
        self._invoke(batch)
        return {
            name: dequantize(self._interpreter.get_tensor(index), self._details[index])
            for name, index in self._outputs.items()
        }

    def tensors(self, batch: Mapping[str, Array], indices: Iterable[int]) -> dict[int, Array]:
        """One run as :meth:`run`, and then the tensors of the first subgraph with these indices, as float32.

        Without those that hold nothing after it: a loop's outputs that nobody reads. Needs ``keep_all``: else many are
        empty, or hold what another layer wrote over them.
        """
        self._invoke(batch)
        held = ((index, self.held(index)) for index in indices)
        return {index: dequantize(values, self._all[index]) for index, values in held if values is not None}

    def run_stored(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One run of inputs as they lie in memory on a device; float32 arrays by output name.

        Raises MisfitError "runtime-refused", also where an input is of another type or shape than the model's.
        """
        try:
            self._resize({index: inputs[name].shape for name, index in self._inputs.items()})
            for name, index in self._inputs.items():
                self._interpreter.set_tensor(index, inputs[name])
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as fault:
            raise _refused(self._path, fault) from fault
        return {
            name: dequantize(self._interpreter.get_tensor(index), self._details[index])
            for name, index in self._outputs.items()
        }

    def held(self, index: int) -> Array | None:
        """As :meth:`stored`; None for what holds nothing after a run: a loop's output that nobody reads."""
        try:
            values: Array = self._interpreter.get_tensor(index)
        except ValueError:  # "Tensor data is null"
            return None
        return values

    def stored(self, index: int) -> Array:
        """A tensor of the first subgraph after a run, as it lies in memory. Needs ``keep_all``."""
        values: Array = self._interpreter.get_tensor(index)
        return values

    @property
    def prepared_shapes(self) -> dict[int, tuple[int, ...]]:
        """The shape of each tensor of the first subgraph before anything ran. Needs ``keep_all``.

        Where only a run decides it, it is still the one that stands in the file.
        """
        return {index: tuple(map(int, detail["shape"])) for index, detail in self._all.items()}

    def _invoke(self, batch: Mapping[str, Array]) -> None:
        try:
            self._resize({index: batch[name].shape for name, index in self._inputs.items()})
            for name, index in self._inputs.items():
                self._interpreter.set_tensor(index, quantize(batch[name], self._details[index]))
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as fault:
            raise _refused(self._path, fault) from fault

    def _resize(self, shapes: Mapping[int, tuple[int, ...]]) -> None:
        """Give open sizes those of the samples; a size that the model has fixed is refused."""
        if self._shapes == shapes:
            return
        for index, shape in shapes.items():
            if shape != self._shapes[index]:
                self._interpreter.resize_tensor_input(index, shape, strict=True)
        self._interpreter.allocate_tensors()
        self._shapes = dict(shapes)


def _signature_names(interpreter: Any) -> dict[int, str]:
    """The source model's names by tensor index, of the first signature; empty where the file has none."""
    for key in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(key)
        named = {**runner.get_input_details(), **runner.get_output_details()}
        return {detail["index"]: name for name, detail in named.items()}
    return {}


def quantize(values: Array, detail: Mapping[str, Any]) -> Array:
    """Real numbers as the tensor takes them: ``clip(rint(x / scale) + zero_point)``, computed in float32."""
    import numpy as np

    dtype, (scale, zero_point) = np.dtype(detail["dtype"]), detail["quantization"]
    if dtype.kind not in "iu" or scale == 0:
        return np.ascontiguousarray(values, dtype=dtype)
    limits = np.iinfo(dtype)
    steps = np.rint(np.asarray(values, np.float32) / np.float32(scale)) + np.float32(zero_point)
    stored: Array = np.clip(steps, limits.min, limits.max).astype(dtype)
    return stored


def dequantize(values: Array, detail: Mapping[str, Any]) -> Array:
    """The tensor's numbers as float32: ``(q - zero_point) * scale``."""
    import numpy as np

    scale, zero_point = detail["quantization"]
    if values.dtype.kind not in "iu" or scale == 0:
        return values.astype(np.float32)
    real: Array = (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
    return real


def _refused(path: Path, fault: Exception) -> MisfitError:
    # The kernel's words and the runtime's come without anything between them.
    text = re.sub(r"(?<=[^\s.])\.?(?=Node number [0-9])", ". ", str(fault))
    lines = [line for line in text.splitlines() if line.strip()] or [type(fault).__name__]
    node = re.search(r"Node number ([0-9]+) \((\w+)\)", text)
    return MisfitError(
        "runtime-refused",
        f"LiteRT on this machine refuses {path.name}: {lines[0].strip()[:300]}",
        hint="Convert the model again; an operator or a shape in it is not for this runtime.",
        **({"node": int(node[1]), "operator": node[2]} if node else {}),
    )
