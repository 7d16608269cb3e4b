"""Arrays of an .npz or a folder of .npy under edgepack's names, as ``[samples]`` of edgepack.toml maps them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from edgepack.errors import InputError
from edgepack.quantize.arrayfiles import ArrayFiles
from edgepack.quantize.arrays import LABELS, SINGLE_INPUT
from edgepack.quantize.preprocessing import Preprocessing
from edgepack.quantize.sources import KERAS_2_SAVED_MODEL, SAVED_MODEL, Source

if TYPE_CHECKING:
    from edgepack.quantize.samples import Samples


def with_names(store: ArrayFiles, preprocessing: Preprocessing) -> ArrayFiles:
    """The arrays as ``inputs`` and ``label`` of [samples] name them; what is not there keeps the name that it has.

    ``inputs`` maps an input of the model to the one array that feeds it (a list of several is columns of a CSV file).
    What would have the same name as one of these is left out.
    """
    there = {array.name for array in store.arrays}
    wanted = {names[0]: port for port, names in preprocessing.inputs if len(names) == 1 and names[0] in there}
    if preprocessing.label in there:
        wanted[preprocessing.label] = LABELS
    taken = set(wanted.values())
    return dataclasses.replace(
        store,
        stored=tuple(
            (dataclasses.replace(array, name=wanted.get(array.name, array.name)), files)
            for array, files in store.stored
            if array.name in wanted or array.name not in taken
        ),
    )


def refuse_foreign_names(source: Source, samples: Samples) -> None:
    """Raise InputError "bad-samples" where no array's name stands anywhere in a SavedModel, whose inputs' names do.

    So it is told before TensorFlow loads the model; of other kinds of models only loading tells the names.
    """
    if source.kind not in (SAVED_MODEL, KERAS_2_SAVED_MODEL) or not isinstance(samples.store, ArrayFiles):
        return
    names = [array.name for array in samples.inputs]
    if SINGLE_INPUT in names:
        return
    graph = (source.path / "saved_model.pb").read_bytes()
    if any(name.encode() in graph for name in names):
        return
    raise InputError(
        "bad-samples",
        f"{samples.place} has no array x, and no input of {source.path} is called {' or '.join(map(repr, names))}.",
        hint=naming_hint(names[0] if names else "ARRAY"),
        got=[array.name for array in samples.arrays],
    )


def naming_hint(array: str) -> str:
    """How arrays under other names are taken as they are."""
    return (
        f'Name them in edgepack.toml: [samples] label = "LABELS", [samples.inputs] x = ["{array}"]; '
        "or save them as numpy.savez(FILE, x=..., y=...)."
    )
