"""Which layers to keep in float next: those that lose most by themselves, and what feeds them; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from edgepack.documents import LayerError
from edgepack.tflite import TfliteModel

# Above this a layer's output is as good as 8 bits make it; what it reads cannot be better by more.
_GOOD_DB = 40.0
_INPUT = "INPUT"


def next_layers(
    layers: Sequence[LayerError], feeds: Mapping[str, tuple[str, ...]], taken: Collection[str], count: int
) -> tuple[str, ...]:
    """The next ``count`` layers, by their output tensors in the float model, the worst first; () when none is left.

    A layer's own loss is by how many decibels its output is worse than its worst input. Where a layer that stays in
    float already is still bad, its inputs are what spoils it, however good their own ratio looks (one outlier is all
    of their signal): the layers that ``feeds`` names for it are next. After those comes whatever is left, worst first.
    """
    known = [layer for layer in layers if layer.operator != _INPUT]
    ordered: dict[str, None] = {}
    for layer in sorted(known, key=_own_loss_db, reverse=True):
        if _own_loss_db(layer) <= 0:
            break
        ordered |= dict.fromkeys(_open_sources(layer.tensor, feeds, taken))
    ordered |= dict.fromkeys(layer.tensor for layer in sorted(known, key=lambda one: one.sqnr_db))
    ordered |= dict.fromkeys(feeds)
    return tuple(name for name in ordered if name not in taken)[:count]


def _own_loss_db(layer: LayerError) -> float:
    before = _GOOD_DB if layer.input_sqnr_db is None else min(layer.input_sqnr_db, _GOOD_DB)
    return before - layer.sqnr_db


def _open_sources(tensor: str, feeds: Mapping[str, tuple[str, ...]], taken: Collection[str]) -> list[str]:
    """The layer itself where it is not taken, else the nearest ones above it that are not."""
    found: list[str] = []
    seen: set[str] = set()
    waiting = [tensor]
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        if name not in taken:
            found.append(name)
        else:
            waiting.extend(feeds.get(name, ()))
    return found


def layer_feeds(model: TfliteModel) -> dict[str, tuple[str, ...]]:
    """For each layer of a float .tflite, by its output tensor and in the order of execution, the layers it reads."""
    feeds: dict[str, tuple[str, ...]] = {}
    for operator in model.operators:
        if operator.subgraph != 0:
            continue
        read = [model.tensor(0, index).name for index in operator.inputs if index >= 0]
        sources = tuple(name for name in read if name in feeds)
        feeds |= {model.tensor(0, index).name: sources for index in operator.outputs if index >= 0}
    return feeds
