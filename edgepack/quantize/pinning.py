"""A float .tflite with the sizes of its inputs pinned, as the runtime proves them. Runs in the worker process.

The runtime itself says what each tensor becomes. Every tensor that an operator gives gets a shape that none can have;
what stands in its place after AllocateTensors, before anything ran, is a function of the inputs' shapes alone. Where
the mark is left values decide (WHERE): such tensors stay open, as do those in loops and branches, which the runtime
sizes as it calls them. In the end the pinned model has to answer as the original does, resized in the interpreter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.errors import InputError, MisfitError
from edgepack.hostruntime import HostModel
from edgepack.quantize.agreement import different_output
from edgepack.quantize.arrays import Port
from edgepack.quantize.feeding import batches_of, by_row
from edgepack.quantize.folding import asked_for, computed_sizes, fold, reshape_alike
from edgepack.quantize.legacy import read_objects, write_objects
from edgepack.tflite import TfliteModel, read_model

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    Shape = tuple[int, ...]

_MARK = (1,) * 9  # no kernel of TFLite gives nine dimensions
_WITHOUT_SHAPE = ("resource", "variant")
_CALLS = ("WHILE", "IF", "CALL", "CALL_ONCE", "STABLEHLO_WHILE", "STABLEHLO_CASE", "STABLEHLO_COMPOSITE")


def pin(source: Path, path: Path, inputs: Sequence[Port], scratch: Path) -> Path:
    """The model at ``path`` with ``inputs``, none of whose sizes is open, as a file in the folder ``scratch``.

    ``source`` is what people call it. Raises InputError "bad-input-shape" where the graph cannot take the sizes,
    "batch-fixed" where it cannot take the batch, MisfitError "not-pinned" where the result cannot be proven.
    """
    model = read_model(path)
    refusals = _Refusals(source, model, inputs)
    shapes = {port.name: tuple(size or 1 for size in port.shape) for port in inputs}
    rows = math.lcm(*(shape[0] for shape in shapes.values() if shape), refusals.own_batch)
    (given,) = batches_of(None, tuple(inputs), rows, rows)
    try:
        resized = HostModel(path, keep_all=True, shapes=shapes)
        expected = _answers(resized, given, rows)
    except MisfitError as refusal:
        raise refusals.cannot_take(refusal) from refusal
    sizes = {index: resized.stored(index) for index in computed_sizes(model, ())}
    pinned = scratch / "pinned.tflite"
    try:
        loose = _write_settled(path, model, shapes, sizes, pinned)
        answered = _answers(HostModel(pinned, keep_all=True), given, rows)
    except MisfitError as refusal:
        raise refusals.not_proven(refusal) from refusal
    if refusals.rebatched:
        expected = refusals.rows_alone(path, given, shapes, loose)
    differs = different_output(expected, answered)
    if differs is not None:
        raise refusals.differs(differs)
    return pinned


def _answers(model: HostModel, given: Mapping[str, Array], rows: int) -> dict[str, Array]:
    """The outputs over all rows, as many at once as the model takes. Raises MisfitError "output-without-batch"."""
    import numpy as np

    size = model.batch
    if size == rows:
        return model.run(given)
    pieces = [{name: array[first : first + size] for name, array in given.items()} for first in range(0, rows, size)]
    parts = [model.run(piece) for piece in pieces]
    return {name: np.concatenate([by_row(part[name], size) for part in parts]) for name in parts[0]}


def _write_settled(
    path: Path, model: TfliteModel, inputs: Mapping[str, Shape], sizes: Mapping[int, Array], pinned: Path
) -> list[int]:
    """Write the model with every shape that the inputs' decide; the tensors whose shapes a run decides come back.

    ``sizes`` are the numbers that hang on shapes alone, as long as the tensors that they are about are settled.
    """
    unsettled: set[int] = set()
    while True:
        objects = read_objects(path.read_bytes())
        folded = computed_sizes(model, unsettled)
        fold(objects, folded, sizes)
        for name, tensor in model.named_inputs:
            _set_shape(objects, tensor.index, inputs[name])
        prepared = _prepared_shapes(objects, model, pinned)
        loose = [index for index, shape in prepared.items() if shape == _MARK]
        mistaken = asked_for(model, folded).intersection(loose)
        if not mistaken:
            break
        unsettled |= mistaken
    settled = {index: shape for index, shape in prepared.items() if shape != _MARK}
    for index, shape in settled.items():
        _set_shape(objects, index, shape)
    reshape_alike(objects, settled)
    pinned.write_bytes(write_objects(objects))
    return loose


def _prepared_shapes(objects: Any, model: TfliteModel, scratch: Path) -> dict[int, Shape]:
    """The shape of each tensor that an operator gives, once the runtime has prepared them all; else the mark."""
    main = objects.subgraphs[0]
    given = sorted({index for operator in main.operators for index in operator.outputs if index >= 0})
    given = [index for index in given if model.tensor(0, index).dtype not in _WITHOUT_SHAPE]
    before = {index: main.tensors[index].shape for index in given}
    for index in given:
        main.tensors[index].shape = list(_MARK)
    scratch.write_bytes(write_objects(objects))
    found = HostModel(scratch, keep_all=True).prepared_shapes
    for index, shape in before.items():
        main.tensors[index].shape = shape
    return {index: found[index] for index in given}


def _set_shape(objects: Any, index: int, shape: Shape) -> None:
    tensor = objects.subgraphs[0].tensors[index]
    tensor.shape, tensor.shapeSignature = list(shape), None


class _Refusals:
    """Why a model cannot have the sizes of ``inputs``, by the operator at fault.

    ``rebatched`` is whether the batch is another than the one that the file has fixed.
    """

    def __init__(self, source: Path, model: TfliteModel, inputs: Sequence[Port]) -> None:
        self._source = source
        self._model = model
        self._told = " ".join(f"{port.name}={','.join(map(str, port.shape))}" for port in inputs)
        batches = [
            (tensor.shape_signature[0], port.shape[0])
            for (_, tensor), port in zip(model.named_inputs, inputs, strict=True)
            if tensor.shape_signature
        ]
        self._batch = max((wanted or 1 for _, wanted in batches), default=1)
        self.rebatched = any(own not in (-1, wanted) for own, wanted in batches)
        self.own_batch = max(own for own, _ in batches) if self.rebatched else 1

    def rows_alone(
        self, path: Path, given: Mapping[str, Array], shapes: Mapping[str, Shape], loose: Sequence[int]
    ) -> dict[str, Array]:
        """The original's answers in its own batch: those that a file with a fixed one promises.

        Raises InputError "batch-fixed" where another batch cannot be proven, or does not give a row for each sample.
        """
        calling = [one.name for one in self._model.operators if one.name in _CALLS]
        if calling:
            raise self._batch_fixed(f"what {calling[0]} calls has it too")
        if loose:
            raise self._batch_fixed(f"the size of {self._giver(loose[0])} is decided by a run")
        own = {name: (self.own_batch, *shape[1:]) for name, shape in shapes.items()}
        rows = len(next(iter(given.values())))
        return _answers(HostModel(path, keep_all=True, shapes=own), given, rows)

    def cannot_take(self, refusal: MisfitError) -> InputError:
        """The runtime refuses the original in these sizes."""
        operator = self._operator(refusal)
        if self.rebatched:
            return self._batch_fixed(f"{operator} cannot take another")
        return InputError(
            "bad-input-shape",
            f"{self._source} cannot have the inputs {self._told}: {operator} refuses what it would get.",
            hint="State sizes that the model can take: those of your samples, as large as in the training.",
            operator=operator,
            runtime=refusal.message,
        )

    def not_proven(self, refusal: MisfitError) -> MisfitError:
        """The runtime takes the original in these sizes, and not what was made of it."""
        operator = self._operator(refusal)
        return MisfitError(
            "not-pinned",
            f"{self._source} runs with the inputs {self._told}, but they cannot be written into it: {operator} needs "
            "its sizes open.",
            hint="Pin them in the SavedModel, .keras or .h5 that it was converted from: --input-shape.",
            operator=operator,
            runtime=refusal.message,
        )

    def differs(self, output: str) -> InputError | MisfitError:
        """The pinned model answers otherwise than the original at ``output``."""
        if self.rebatched:
            return self._batch_fixed(f"{output!r} would have other numbers")
        return MisfitError(
            "not-pinned",
            f"{self._source} with the inputs {self._told} written into it answers otherwise at {output!r} than resized "
            "as it runs.",
            hint="Pin them in the SavedModel, .keras or .h5 that it was converted from: --input-shape.",
        )

    def _batch_fixed(self, why: str) -> InputError:
        own = self.own_batch
        return InputError(
            "batch-fixed",
            f"{self._source} has a batch of {own}, and cannot have {self._batch}: {why}.",
            hint=f"Ask for it (--batch {own}), or convert the model that it came from again.",
        )

    def _operator(self, refusal: MisfitError) -> str:
        """The one that the runtime names, with the tensor that it gives."""
        node, kind = refusal.details.get("node"), refusal.details.get("operator")
        own = [one for one in self._model.operators if one.subgraph == 0 and one.kind == kind]
        exact = [one for one in own if one.index == node]
        if exact and exact[0].outputs:
            return self._giver(exact[0].outputs[0])
        return str(kind or "one of its operators")

    def _giver(self, index: int) -> str:
        kind = next(one.kind for one in self._model.operators if one.subgraph == 0 and index in one.outputs)
        return f"{kind} {self._model.tensor(0, index).name.split(';')[0]!r}"  # a fused one has several names
