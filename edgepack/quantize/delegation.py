"""How much of a model an accelerator takes, as far as its list of operators and the file show: pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from edgepack.documents import Finding
from edgepack.quantize.operators.accelerators import ACCELERATORS, OperatorList
from edgepack.quantize.operators.conditions import call_of
from edgepack.target import Target
from edgepack.tflite import Operator, TfliteModel
from edgepack.words import listed

_SHOWN = 6


def accelerator_of(target: Target) -> OperatorList | None:
    """The operator list that the target's profile names; None for "any"."""
    return ACCELERATORS.get(target.quantization.operators)


def is_accelerated(target: Target) -> bool:
    """Whether a model for the target meets an accelerator: by a delegate, or by the device's own program."""
    return accelerator_of(target) is not None and (target.delegate.library is not None or not target.deployable)


def is_compiled(model: TfliteModel, accelerator: OperatorList) -> bool:
    """Whether the accelerator's compiler has been at the model: what it took hides in custom operators."""
    return any(operator.custom_name in accelerator.compiled for operator in model.operators)


def delegated_share(model: TfliteModel, target: Target) -> float | None:
    """The share of the model's operators, by number, that the target's accelerator would take.

    Operators of every subgraph count, and only those of the first can be delegated: what a loop or a condition calls
    stays on the CPU. Where the accelerator takes one part of a model only, the operators of the others count as left.
    None for a target without a list, and for a model that was compiled already.
    """
    accelerator = accelerator_of(target)
    if accelerator is None or not model.operators or is_compiled(model, accelerator):
        return None
    model = _unpacked(model, accelerator)
    return round(len(_delegated(model, accelerator)) / len(model.operators), 4)


def delegation_findings(model: TfliteModel, target: Target) -> Iterator[Finding]:
    """What the target's accelerator leaves to the CPU.

    The codes: "nothing-delegated" (an error: a required delegate would find nothing to do), "not-accelerated" (a note).
    """
    accelerator, share = accelerator_of(target), delegated_share(model, target)
    if accelerator is None or share is None or share == 1.0:
        return
    model = _unpacked(model, accelerator)
    total, taken = len(model.operators), len(_delegated(model, accelerator))
    reasons = _reasons(model, accelerator)
    why = _told(reasons)
    if not taken and target.delegate.required:
        if not all(map(accelerator.can_be_open, model.inputs)) and _delegated(_pinned(model), accelerator):
            return  # "open-shape" tells the input, which is the cause, and the cure
        yield Finding(
            "nothing-delegated", "error", accelerator.title,
            f"{accelerator.title[0].upper()}{accelerator.title[1:]} takes none of the model's {total} operators "
            f"({why}), and {target.name} requires it.",
            "Change what stands at the model's beginning, or choose a CPU target.",
        )  # fmt: skip
        return
    rest = total - taken - sum(reasons.values())
    cut_off = f", and {rest} that these cut off" if rest else ""
    yield Finding(
        "not-accelerated", "note", ", ".join(sorted({kind for kind, _ in reasons})),
        f"{total - taken} of {total} operators stay on the CPU, not on {accelerator.title}: {why}{cut_off}.",
        "Layers that it takes are faster.",
    )  # fmt: skip


def _pinned(model: TfliteModel) -> TfliteModel:
    """The model with no open size: each is what the file has for it meanwhile, 1 most often."""
    tensors = tuple(dataclasses.replace(tensor, shape_signature=tensor.shape) for tensor in model.tensors)
    inputs = tuple(dataclasses.replace(tensor, shape_signature=tensor.shape) for tensor in model.inputs)
    return dataclasses.replace(model, tensors=tensors, inputs=inputs)


def _unpacked(model: TfliteModel, accelerator: OperatorList) -> TfliteModel:
    """The model without the operators that unpack float16 constants, where the accelerator needs none of them."""
    if not accelerator.unpacks_float16:
        return model
    gone = [one for one in model.operators if one.name == "DEQUANTIZE" and _is_float16_constant(model, one)]
    places = {model.subgraph_starts[one.subgraph] + one.outputs[0] for one in gone}
    tensors = (
        dataclasses.replace(tensor, constant=True) if place in places else tensor
        for place, tensor in enumerate(model.tensors)
    )
    left = tuple(one for one in model.operators if one not in gone)
    return dataclasses.replace(model, operators=left, tensors=tuple(tensors))


def _is_float16_constant(model: TfliteModel, operator: Operator) -> bool:
    tensor = model.tensor(operator.subgraph, operator.inputs[0])
    return tensor.constant and tensor.dtype == "float16"


def _refused(model: TfliteModel, accelerator: OperatorList) -> list[tuple[Operator, str]]:
    """The operators that it does not take by themselves, with the reason."""
    found = []
    for operator in model.operators:
        why = "inside a loop or condition" if operator.subgraph else accelerator.refusal(call_of(model, operator))
        if why is not None:
            found.append((operator, why))
    return found


def _reasons(model: TfliteModel, accelerator: OperatorList) -> dict[tuple[str, str], int]:
    """How many operators of a kind are left for a reason, in the order of execution."""
    counted: dict[tuple[str, str], int] = {}
    for operator, why in _refused(model, accelerator):
        counted[operator.kind, why] = counted.get((operator.kind, why), 0) + 1
    return counted


def _told(reasons: dict[tuple[str, str], int]) -> str:
    told = [f"{kind} ({why})" if count == 1 else f"{count} x {kind} ({why})" for (kind, why), count in reasons.items()]
    return listed(told, _SHOWN, "kinds more")


def _delegated(model: TfliteModel, accelerator: OperatorList) -> frozenset[int]:
    """The indices of the first subgraph's operators that go to the accelerator."""
    refused = {operator.index for operator, _ in _refused(model, accelerator) if not operator.subgraph}
    main = [operator for operator in model.operators if not operator.subgraph]
    taken = frozenset(operator.index for operator in main) - refused
    if accelerator.partitions == "any":
        return taken
    parts = _parts(main, taken)
    if accelerator.partitions == "largest":
        return max((part for part in parts if part <= taken), key=len, default=frozenset())
    entrance = frozenset(operator.index for operator in main if _is_entrance(model, operator))
    first = next((part for part in parts if not part <= entrance), frozenset())
    return first if first <= taken else frozenset()


def _is_entrance(model: TfliteModel, operator: Operator) -> bool:
    """Quantizing the model's own float inputs; Edge TPU models with a float border keep that on the CPU."""
    inputs = {tensor.index for tensor in model.inputs}
    return operator.name == "QUANTIZE" and set(operator.inputs) <= inputs


def _parts(operators: list[Operator], taken: frozenset[int]) -> Iterator[frozenset[int]]:
    """The parts into which a runtime cuts a graph, in the order in which they run: each wholly taken, or wholly not.

    Each part grows as long as there are operators of its side whose inputs are ready, as in TensorFlow's
    tensorflow/lite/graph_info.cc.
    """
    maker = {tensor: operator.index for operator in operators for tensor in operator.outputs}
    done: set[int] = set()
    waiting = operators
    while waiting:
        part: set[int] = set()
        later = []
        side: bool | None = None
        for operator in waiting:
            needs = {maker[tensor] for tensor in operator.inputs if tensor in maker}
            ready = needs <= done | part
            if ready and side is None:
                side = operator.index in taken
            if ready and side == (operator.index in taken):
                part.add(operator.index)
            else:
                later.append(operator)
        if not part:
            return  # a graph that runs in a circle runs nowhere
        yield frozenset(part)
        done |= part
        waiting = later
