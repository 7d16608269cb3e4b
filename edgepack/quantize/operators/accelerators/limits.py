"""An accelerator's list of operators, and the limits from which one is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgepack.quantize.operators.conditions import Call, Condition
from edgepack.tflite import Tensor

Limit = tuple[str, Condition]
"""What is asked for, in words that complete "takes it only with ...", and whether an operator has it."""

Limits = tuple[Limit, ...]
SAME = 0  # schema.fbs, enum Padding


@dataclass(frozen=True, slots=True)
class OperatorList:
    """Which operators an accelerator takes, as far as a .tflite shows it.

    ``operators`` maps each to its own limits; ``common`` ones hold for all. ``partitions``: it takes "any" number of
    parts of a model, only the "largest", or only the "first". ``open_batch``: the first size may be open, all others
    are fixed. ``unpacks_float16``: it takes float16 weights as they are, so that the DEQUANTIZE that a CPU needs before
    them is none of its operators. ``compiled`` are the custom operators that stand for what its compiler or delegate
    took.
    """

    name: str
    title: str
    operators: Mapping[str, Limits] = field(hash=False)
    common: Limits
    partitions: str = "any"
    open_batch: bool = True
    unpacks_float16: bool = False
    compiled: frozenset[str] = frozenset()

    def can_be_open(self, tensor: Tensor) -> bool:
        """Whether the open sizes of the tensor, if it has any, are none that have to be fixed."""
        return -1 not in (tensor.shape_signature[1:] if self.open_batch else tensor.shape_signature)

    def refusal(self, call: Call) -> str | None:
        """Why the accelerator leaves the operator to the CPU; None where it takes it."""
        own = self.operators.get(call.operator.name)
        if call.operator.custom_name is not None or own is None:
            return "not on its list"
        if not all(map(self.can_be_open, data(call))):
            return "only with fixed sizes"
        return next((f"only with {asked}" for asked, holds in (*self.common, *own) if not holds(call)), None)


def data(call: Call) -> list[Tensor]:
    """The tensors that flow: inputs and outputs that are no constants."""
    return [tensor for tensor in (*call.inputs, *call.outputs) if tensor is not None and not tensor.constant]


def flows_in(*types: str) -> Condition:
    """Everything that flows has one of these types."""
    return lambda call: all(tensor.dtype in types for tensor in data(call))


def no_float_constants(call: Call) -> bool:
    """No constant is a float."""
    return not any(tensor is not None and tensor.constant and "float" in tensor.dtype for tensor in call.inputs)


def constant(*places: int) -> Condition:
    """These inputs, where they are there, are constants."""
    return lambda call: all((tensor := call.tensor(place)) is None or tensor.constant for place in places)


def one_scale(call: Call) -> bool:
    """No tensor has a scale per channel."""
    return all(len(tensor.scales) <= 1 for tensor in (*call.inputs, *call.outputs) if tensor is not None)


def no_activation(call: Call) -> bool:
    """No activation is fused into it."""
    return not call.option("fused_activation_function")


def option_is(name: str, *values: int | float) -> Condition:
    """The option has one of these values; one that the file leaves out has its default."""
    return lambda call: call.operator.options.get(name, values[0]) in values


def stride_up_to(most: int) -> Condition:
    """The strides are no longer."""
    return lambda call: max(call.option("stride_w"), call.option("stride_h")) <= most


def weights_in(*types: str) -> Condition:
    """The weights have one of these types."""
    return lambda call: call.dtype(1) in types


def rank_within(least: int, most: int) -> Condition:
    """The first input has that many dimensions."""
    return lambda call: least <= call.rank() <= most


def numbers_in(tensor: Tensor | None) -> int:
    """How many numbers a tensor holds."""
    return math.prod(abs(size) for size in tensor.shape) if tensor is not None else 0
