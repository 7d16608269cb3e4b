"""Conditions on one operator, its tensors and its options, from which the rules of required versions are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgepack.tflite import Operator, Tensor, TfliteModel


@dataclass(frozen=True, slots=True)
class Call:
    """One operator with its tensors; None for one that is left out."""

    operator: Operator
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor | None, ...]

    def dtype(self, place: int) -> str:
        """The type of an input, "" where there is none."""
        tensor = self.inputs[place] if place < len(self.inputs) else None
        return tensor.dtype if tensor else ""

    def gives(self, place: int = 0) -> str:
        """The type of an output, "" where there is none."""
        tensor = self.outputs[place] if place < len(self.outputs) else None
        return tensor.dtype if tensor else ""

    def tensor(self, place: int) -> Tensor | None:
        """An input, None where there is none."""
        return self.inputs[place] if place < len(self.inputs) else None

    def rank(self, place: int = 0) -> int:
        """How many dimensions an input has, 0 where there is none."""
        tensor = self.tensor(place)
        return len(tensor.shape) if tensor else 0

    def option(self, name: str) -> int | float | bool:
        """An option of the operator, 0 where the file says nothing."""
        return self.operator.options.get(name, 0)


def call_of(model: TfliteModel, operator: Operator) -> Call:
    """The operator with its tensors."""

    def tensors(indices: tuple[int, ...]) -> tuple[Tensor | None, ...]:
        return tuple(model.tensor(operator.subgraph, index) if index >= 0 else None for index in indices)

    return Call(operator, tensors(operator.inputs), tensors(operator.outputs))


Condition = Callable[[Call], bool]


def takes(place: int, *types: str) -> Condition:
    """The input has one of these types."""
    return lambda call: call.dtype(place) in types


def any_is(*types: str) -> Condition:
    """The first input or the first output has one of these types."""
    return lambda call: call.dtype(0) in types or call.gives() in types


def runs(data: str, weights: str, *, at: int = 1) -> Condition:
    """``data`` comes in and goes out, and meets ``weights`` (the input ``at``)."""
    return lambda call: call.dtype(0) == data and call.dtype(at) == weights and call.gives() == data


def through(data: str) -> Condition:
    """``data`` comes in and goes out."""
    return lambda call: call.dtype(0) == data and call.gives() == data


def chosen(*names: str) -> Condition:
    """One of these options is not 0."""
    return lambda call: any(call.option(name) for name in names)


def option_equals(name: str, value: int) -> Condition:
    """The option has that value."""
    return lambda call: call.option(name) == value


def rank_over(rank: int) -> Condition:
    """The first input has more dimensions."""
    return lambda call: call.rank() > rank


def all_of(*conditions: Condition) -> Condition:
    """All of them hold."""
    return lambda call: all(holds(call) for holds in conditions)


def per_channel(place: int, dimension: int) -> Condition:
    """The input has one scale per element of its dimension."""

    def holds(call: Call) -> bool:
        tensor = call.tensor(place)
        if tensor is None or not tensor.scales or not tensor.shape:
            return False
        return len(tensor.scales) == tensor.shape[dimension]

    return holds


def many_scales(place: int) -> Condition:
    """The input has more than one scale."""
    return lambda call: (tensor := call.tensor(place)) is not None and len(tensor.scales) > 1


def gives_many_scales(call: Call) -> bool:
    """The first output has more than one scale."""
    tensor = call.outputs[0] if call.outputs else None
    return tensor is not None and len(tensor.scales) > 1


def is_sparse(place: int) -> Condition:
    """The input leaves out zeros."""
    return lambda call: (tensor := call.tensor(place)) is not None and tensor.sparse


def unquantized(call: Call) -> bool:
    """The first input is plain numbers."""
    tensor = call.tensor(0)
    return tensor is not None and not tensor.scales


def grouped(call: Call) -> bool:
    """A filter sees fewer channels than the data has."""
    data, weights = call.tensor(0), call.tensor(1)
    if data is None or weights is None or not data.shape or not weights.shape:
        return False
    return data.shape[-1] != weights.shape[-1]


def wide_broadcast(call: Call) -> bool:
    """Two shapes that differ, one of more than four dimensions."""
    shapes = [tensor.shape for tensor in call.inputs if tensor is not None]
    return len(shapes) >= 2 and shapes[0] != shapes[1] and max(map(len, shapes)) > 4


def grows(call: Call) -> bool:
    """The product of the factors' scales is at least the result's: the kernel has to shift to the left."""
    tensors = (call.tensor(0), call.tensor(1), call.outputs[0] if call.outputs else None)
    scales = [tensor.scales[0] for tensor in tensors if tensor is not None and tensor.scales]
    return len(scales) == 3 and all(scales) and scales[0] * scales[1] / scales[2] >= 1.0


def dilated(call: Call) -> bool:
    """A convolution that leaves out points between those that it takes."""
    options = call.operator.options
    return options.get("dilation_w_factor", 1) != 1 or options.get("dilation_h_factor", 1) != 1
