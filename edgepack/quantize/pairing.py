"""Which tensor of a quantized model is which of the float model's: a pure function of the two files' contents."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgepack.tflite import TfliteModel

INPUT = "INPUT"
"""The operator of a model's inputs, whose own quantization is the first noise."""

_CASTS = ("QUANTIZE", "DEQUANTIZE")
# What converters put behind a name: the type of a cast tensor, and numbers that keep equal names apart.
_BEHIND = re.compile(r"(_int8|_int16)?[0-9]*$")


@dataclass(frozen=True, slots=True)
class Pair:
    """One value in both models: its name in the float one, what computes it, its tensor index in either.

    ``inputs`` are the places, in the order of pairs, of what it is computed from.
    """

    tensor: str
    operator: str
    reference: int
    quantized: int
    inputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Value:
    """What a layer computes: the layer's operator, tensors with their names (casts of it included), what it reads."""

    operator: str
    index: int
    shape: tuple[int, ...]
    dtype: str
    names: tuple[str, ...]
    inputs: tuple[int, ...]


def pair_tensors(reference: TfliteModel, quantized: TfliteModel) -> tuple[tuple[Pair, ...], int]:
    """The layers' outputs that both models have, in the order of execution, and how many have no equal.

    A converter keeps names, up to the numbers behind them: a pair has the same operator, the same shape and the same
    name, or else is alone with that name without the number. What a cast (QUANTIZE, DEQUANTIZE) puts between two layers
    is the same value under another name. Numbers that are whole in the float model too are not compared.
    """
    ours, theirs = _values(quantized), _values(reference)
    matched = _match(ours, theirs)
    place: dict[int, int] = {}
    pairs: list[Pair] = []
    left_out = 0
    for index, value in ours.items():
        match = matched.get(index)
        if match is None or match.dtype != "float32":
            left_out += match is None
            continue
        place[index] = len(pairs)
        read = tuple(place[one] for one in value.inputs if one in place)
        pairs.append(Pair(match.names[0], value.operator, match.index, index, read))
    return tuple(pairs), left_out


def _values(model: TfliteModel) -> dict[int, _Value]:
    """By tensor index, in the order of execution: the model's inputs and what its layers compute."""
    operators = [operator for operator in model.operators if operator.subgraph == 0]
    cast_of: dict[int, int] = {}
    for operator in operators:
        if operator.name in _CASTS:
            source = operator.inputs[0]
            cast_of[operator.outputs[0]] = cast_of.get(source, source)
    names: dict[int, list[str]] = {}
    for index, source in cast_of.items():
        names.setdefault(source, []).append(model.tensor(0, index).name)

    def value(kind: str, index: int, inputs: tuple[int, ...]) -> _Value:
        tensor = model.tensor(0, index)
        read = tuple(dict.fromkeys(cast_of.get(one, one) for one in inputs))
        return _Value(kind, index, tensor.shape, tensor.dtype, (tensor.name, *names.get(index, ())), read)

    found = {tensor.index: value(INPUT, tensor.index, ()) for tensor in model.inputs}
    for operator in operators:
        if operator.name not in _CASTS:
            kind = operator.custom_name or operator.name
            found |= {index: value(kind, index, operator.inputs) for index in operator.outputs if index >= 0}
    return found


def _match(ours: Mapping[int, _Value], theirs: Mapping[int, _Value]) -> dict[int, _Value]:
    """By the exact name first, then by the name without what is behind it where that is unmistakable."""
    exact = {(one.operator, one.shape, name): one for one in theirs.values() for name in one.names}
    matched = {
        index: exact[key]
        for index, value in ours.items()
        for name in reversed(value.names)
        if (key := (value.operator, value.shape, name)) in exact
    }
    taken = {match.index for match in matched.values()}
    left = [value for index, value in ours.items() if index not in matched]
    free = [value for index, value in theirs.items() if index not in taken]
    ours_alone, theirs_alone = _alone(left), _alone(free)
    return matched | {ours_alone[key].index: theirs_alone[key] for key in ours_alone.keys() & theirs_alone.keys()}


def _alone(values: Sequence[_Value]) -> dict[tuple[object, ...], _Value]:
    """Those whose operator, shape and name without what is behind it no other has."""
    keys = [(value.operator, value.shape, _BEHIND.sub("", value.names[0])) for value in values]
    counts = Counter(keys)
    return {key: value for key, value in zip(keys, values, strict=True) if counts[key] == 1}
