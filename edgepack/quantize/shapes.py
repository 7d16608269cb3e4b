"""The shapes that a person pins a model's inputs to: ``name=1,?,40``, or ``1,?,40`` where there is one input only."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack.errors import InputError
from edgepack.quantize.arrays import Port

_FORM = re.compile(r"(?:(?P<name>[^=]+)=)?(?P<sizes>(?:[0-9]+|\?)(?:,(?:[0-9]+|\?))*)")
_GRAMMAR = "Write --input-shape NAME=1,98,40 with the batch first; ? leaves a size as the model has it."


@dataclass(frozen=True, slots=True)
class InputShape:
    """Sizes of one input, the batch first; None leaves one as the model has it. No name: the model's only input."""

    name: str | None
    sizes: tuple[int | None, ...]


def parse_input_shapes(texts: Sequence[str]) -> tuple[InputShape, ...]:
    """The shapes that ``texts`` say. Raises InputError "bad-input-shape"."""
    shapes = tuple(_parse(text) for text in texts)
    names = [shape.name for shape in shapes]
    for name in names:
        if names.count(name) > 1:
            raise InputError("bad-input-shape", f"Two shapes are given for {name or 'the input'}.", hint=_GRAMMAR)
    return shapes


def _parse(text: str) -> InputShape:
    matched = _FORM.fullmatch(text.replace(" ", ""))
    if not matched:
        raise InputError("bad-input-shape", f"{text!r} is no shape of an input.", hint=_GRAMMAR)
    sizes = tuple(None if size == "?" else int(size) for size in matched["sizes"].split(","))
    if 0 in sizes:
        raise InputError("bad-input-shape", f"{text!r} has a size of 0, which holds nothing.", hint=_GRAMMAR)
    return InputShape(matched["name"], sizes)


def pinned_batch(shapes: Sequence[InputShape], batch: int | None) -> int | None:
    """The batch that the shapes state, else ``batch``.

    Raises InputError "bad-input-shape" where they state two of them, or another than a ``batch`` that somebody asked
    for: 1 is what goes without saying.
    """
    stated = {shape.sizes[0] for shape in shapes if shape.sizes[0] is not None}
    if len(stated) > 1:
        told = " and ".join(map(str, sorted(stated)))
        raise InputError("bad-input-shape", f"The shapes state different batches: {told}.", hint=_GRAMMAR)
    if not stated:
        return batch
    (size,) = stated
    if batch not in (1, size):
        said = "leaves the batch open" if batch is None else f"asks for a batch of {batch}"
        raise InputError(
            "bad-input-shape",
            f"--input-shape states a batch of {size}, and --batch {0 if batch is None else batch} {said}.",
            hint="Leave --batch out, or write ? for the batch in the shape.",
        )
    return size


def pin_ports(ports: Sequence[Port], shapes: Sequence[InputShape]) -> tuple[Port, ...]:
    """The inputs with the stated sizes in them, their batch as it was.

    Raises InputError "bad-input-shape": an input that the model has not, another number of sizes, a size that the
    model has fixed otherwise.
    """
    wanted = {_named(shape, ports): shape for shape in shapes}
    return tuple(_pin(port, wanted[port.name]) if port.name in wanted else port for port in ports)


def pin_file(source: Path, ports: Sequence[Port], input_shapes: Sequence[str], batch: int | None) -> tuple[Port, ...]:
    """The inputs of a .tflite with the stated sizes and the batch in them, whole; as they were where sizes stay open.

    Raises InputError "bad-input-shape" as :func:`pin_ports` does, and where sizes stay open beside those that
    are asked for: what else is in the file is known for whole shapes only.
    """
    pinned = pin_ports(ports, parse_input_shapes(input_shapes))
    if batch is not None:
        pinned = tuple(dataclasses.replace(port, shape=(batch, *port.shape[1:])[: len(port.shape)]) for port in pinned)
    opened = next((port for port in pinned if None in port.shape), None)
    if opened is None:
        return pinned
    if not input_shapes and batch in (None, 1):  # 1 is what goes without saying
        return tuple(ports)
    raise InputError(
        "bad-input-shape",
        f"{source} would keep open sizes at its input {opened.name!r} ({shape_text(opened.shape)}): "
        "a .tflite is pinned whole.",
        hint="Give a number for each open size of each input, and the batch: --input-shape NAME=1,98,40.",
    )


def shape_text(sizes: Sequence[int | None]) -> str:
    """Sizes as ``--input-shape`` has them: 1,?,40."""
    return ",".join("?" if size is None else str(size) for size in sizes)


def _named(shape: InputShape, ports: Sequence[Port]) -> str:
    names = [port.name for port in ports]
    if shape.name is None and len(names) == 1:
        return names[0]
    if shape.name in names:
        return str(shape.name)
    near = difflib.get_close_matches(shape.name or "", names, 1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    told = f"no input {shape.name!r}" if shape.name else f"{len(names)} inputs, and the shape names none of them"
    raise InputError("bad-input-shape", f"The model has {told}: it has {', '.join(names)}.{meant}", hint=_GRAMMAR)


def _pin(port: Port, shape: InputShape) -> Port:
    own = port.shape
    fits = len(own) == len(shape.sizes) and all(
        size is None or have is None or size == have for have, size in zip(own[1:], shape.sizes[1:], strict=True)
    )
    if not fits:
        raise InputError(
            "bad-input-shape",
            f"The input {port.name!r} of the model is {shape_text(own)} (? is open), and cannot be "
            f"{shape_text(shape.sizes)}: {_misfit(port, shape)}.",
            hint=_GRAMMAR,
            expected=list(own),
        )
    sizes = (have if size is None else size for have, size in zip(own[1:], shape.sizes[1:], strict=True))
    return dataclasses.replace(port, shape=(own[0], *sizes))


def _misfit(port: Port, shape: InputShape) -> str:
    own, wanted = port.shape, shape.sizes
    if len(own) != len(wanted):
        return f"it has {len(own)} sizes, not {len(wanted)}"
    fixed = [
        f"size {place} is fixed at {have}, not {size}"
        for place, (have, size) in enumerate(zip(own, wanted, strict=True), 1)
        if place > 1 and None not in (have, size) and have != size
    ]
    return ", ".join(fixed)
