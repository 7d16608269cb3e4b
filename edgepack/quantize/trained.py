"""A trained model in TensorFlow's hands: loaded, called, and pinned to one batch size. Runs in the worker process."""

from __future__ import annotations

import difflib
import re
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.documents import Finding
from edgepack.errors import InputError
from edgepack.quantize.arrays import Port
from edgepack.quantize.precision import in_float32
from edgepack.quantize.sources import KERAS_2_SAVED_MODEL, SAVED_MODEL

_SIGNATURES = ("serving_default", "serve")


@dataclass(frozen=True)
class TrainedModel:
    """A loaded model: ``call`` maps tensors by input name to tensors by output name, as at inference.

    ``keep`` holds the TensorFlow object alive and its variables reachable; ``notes`` are on how it was loaded.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    call: Callable[[Mapping[str, Any]], dict[str, Any]]
    keep: Any
    notes: tuple[Finding, ...] = ()


def load_trained(path: Path, kind: str, signature: str | None = None) -> TrainedModel:
    """The model of :func:`~edgepack.quantize.sources.identify_source`'s kind, a SavedModel's by that signature.

    Keras 2 files go through tf_keras, called by its own name: TF_USE_LEGACY_KERAS would change what ``tf.keras`` means,
    and is not needed. Raises InputError "unreadable-model", "no-signature", "unsupported-input", "unsupported-output",
    "mixed-precision".
    """
    try:
        if kind in (SAVED_MODEL, KERAS_2_SAVED_MODEL):
            trained = _load_saved_model(path, kind, signature)
        else:
            trained = _load_keras(path, kind)
    except (InputError, ImportError):
        raise
    except Exception as fault:  # TensorFlow and Keras raise anything
        raise _unreadable(path, kind, fault) from fault
    for port in trained.inputs:
        if not _NUMBERS.fullmatch(port.dtype) or not port.shape:
            raise InputError(
                "unsupported-input",
                f"{path}: the input {port.name!r} is {port.dtype} of shape {list(port.shape)}.",
                hint="edgepack takes inputs of numbers with the batch as their first dimension.",
            )
    for port in trained.outputs:
        if not _NUMBERS.fullmatch(port.dtype):
            raise InputError(
                "unsupported-output",
                f"{path}: the output {port.name!r} is {port.dtype}, and edgepack compares numbers.",
                hint="Let the model give the number, and look its word up in the program that uses it.",
            )
    return trained


_NUMBERS = re.compile(r"(float|int|uint)[0-9]+|bool")


# What TensorFlow 2.21, Keras 3 and tf_keras say of damaged files, and what it means.
_DAMAGE = (
    ("TensorSliceReader|variables[^ ]*; No such file", "its folder variables/ is missing or incomplete"),
    ("Read less bytes|an sstable|[Cc]hecksum|DataLoss", "what its folder variables/ holds is cut short or garbled"),
    ("Cannot parse file|Wire format", "its saved_model.pb is cut short or garbled"),
    ("Expected a model.weights", "its weights are missing"),
    ("truncated file|synchronously", "its weights are cut short or garbled"),
)


def _unreadable(path: Path, kind: str, fault: Exception) -> InputError:
    """Why a model cannot be loaded, in a clause; all of the library's words are in the worker's log."""
    words = " ".join(str(fault).split()) or type(fault).__name__
    damage = next((meaning for pattern, meaning in _DAMAGE if re.search(pattern, words)), None)
    clause = re.split(r"\. |; |, but ", words)[0].rstrip(".")
    return InputError(
        "unreadable-model",
        f"{path} ({kind}) cannot be loaded: {damage or textwrap.shorten(clause, 160, placeholder=' …')}.",
        hint="It is damaged: save or copy it again from the training program."
        if damage
        else "If it needs your own classes, export it as a SavedModel with them at hand: model.export('folder').",
    )


def _load_saved_model(path: Path, kind: str, wanted: str | None) -> TrainedModel:
    import tensorflow as tf

    if kind == KERAS_2_SAVED_MODEL:
        import tf_keras  # noqa: F401 (its import registers the objects that Keras 2 left in the file)
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures[_choose_signature(path, list(loaded.signatures), wanted)]
    inputs = signature.structured_input_signature[1]
    return TrainedModel(
        inputs=tuple(_port(name, spec) for name, spec in inputs.items()),
        outputs=tuple(_port(name, spec) for name, spec in signature.structured_outputs.items()),
        call=lambda tensors: dict(signature(**tensors)),
        keep=(loaded, signature),
    )


def _choose_signature(path: Path, available: list[str], wanted: str | None) -> str:
    """The one that was asked for; else a usual one, or the only one. Raises InputError "no-signature"."""
    usual = [name for name in _SIGNATURES if name in available]
    if wanted in available:
        return str(wanted)
    if wanted is None and (usual or len(available) == 1):
        return (usual or available)[0]
    near = difflib.get_close_matches(wanted or "", available, 1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(
        "no-signature",
        f"{path} has no signature {wanted or _SIGNATURES[0]!r}: it has {', '.join(available) or 'none'}.{meant}",
        hint="Name one of them: --signature NAME"
        if available
        else "Save it with one: tf.saved_model.save(model, folder, signatures={'serving_default': function}).",
        available=available,
    )


def _load_keras(path: Path, kind: str) -> TrainedModel:
    if kind.startswith("keras-2"):
        import tf_keras as keras
    else:
        import keras
    with _suffixed(path, ".h5" if kind.endswith("-h5") else ".keras") as named:
        model = keras.models.load_model(str(named), compile=False)
    if not getattr(model, "inputs", None):
        raise InputError(
            "unreadable-model",
            f"{path} does not say what its inputs are (a subclassed model that was never called).",
            hint="Export it as a SavedModel: model.export('folder').",
        )
    model, notes = in_float32(path, model)
    names = _distinct([tensor.name.split(":")[0] for tensor in model.inputs])
    inputs = tuple(_port(name, tensor) for name, tensor in zip(names, model.inputs, strict=True))
    names_of = {id(tensor): name for tensor, name in zip(model.inputs, names, strict=True)}
    output_names = _distinct(_output_names(model))
    outputs = tuple(_port(name, tensor) for name, tensor in zip(output_names, model.outputs, strict=True))

    def call(tensors: Mapping[str, Any]) -> dict[str, Any]:
        import tensorflow as tf

        # Several inputs go in as the model was built with them, a list or a dict; a Sequential has no ``input``.
        structure = model.inputs[0] if len(inputs) == 1 else model.input
        given = tf.nest.map_structure(lambda tensor: tensors[names_of[id(tensor)]], structure)
        result = tf.nest.flatten(model(given, training=False))
        return {port.name: tensor for port, tensor in zip(outputs, result, strict=True)}

    return TrainedModel(inputs, outputs, call, model, notes)


@contextmanager
def _suffixed(path: Path, suffix: str) -> Iterator[Path]:
    """The file under a name that ends as Keras expects it: Keras goes by names, edgepack by content."""
    if path.suffix == suffix:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model{suffix}"
        link.symlink_to(path.resolve())
        yield link


def _output_names(model: Any) -> list[str]:
    """The names of the layers that the outputs come from; Keras 3 does not say them on a Sequential."""
    names = list(getattr(model, "output_names", None) or [])
    if len(names) == len(model.outputs):
        return names
    return [model.layers[-1].name] if len(model.outputs) == 1 else ["output"] * len(model.outputs)


def _distinct(names: list[str]) -> list[str]:
    """Names that serve as keyword arguments of a signature, each once."""
    plain = [re.sub(r"\W", "_", name) for name in names]
    return [name if plain.count(name) == 1 else f"{name}_{place}" for place, name in enumerate(plain)]


def _port(name: str, spec: Any) -> Port:
    import tensorflow as tf

    if isinstance(spec, (tf.RaggedTensorSpec, tf.SparseTensorSpec)) or spec.shape is None:
        raise InputError(
            "unsupported-input", f"{name!r} is ragged or sparse.", hint="edgepack takes dense tensors; pad them."
        )
    shape = tf.TensorShape(spec.shape)
    if shape.rank is None:
        raise InputError(
            "unsupported-input", f"{name!r} has no known rank.", hint="Give the input a shape and save again."
        )
    return Port(name, tuple(shape.as_list()), tf.as_dtype(spec.dtype).name)


def make_run(trained: TrainedModel, *, graph: bool) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The model as a function of arrays by input name to arrays by output name; ``graph`` traces it once first."""
    import tensorflow as tf

    call = tf.function(trained.call) if graph else trained.call

    def run(given: Mapping[str, Any]) -> dict[str, Any]:
        found = call({name: tf.constant(array) for name, array in given.items()})
        return {name: tensor.numpy() for name, tensor in found.items()}

    return run


def pinned_shape(port: Port, batch: int | None) -> tuple[int | None, ...]:
    """The input's shape with its batch pinned; None leaves it as it is.

    Raises InputError "batch-fixed" where the model was saved with another batch.
    """
    own = port.shape[0]
    if batch is None or own == batch:
        return port.shape
    if own is not None:
        raise InputError(
            "batch-fixed",
            f"The model's input {port.name!r} was saved with a batch of {own}, not {batch}.",
            hint=f"Ask for it (--batch {own}), or save the model with an open batch.",
        )
    return (batch, *port.shape[1:])


def save_pinned(trained: TrainedModel, batch: int | None, folder: Path) -> None:
    """Write the model as a SavedModel with one signature, its batch pinned, that TFLiteConverter reads.

    Only the variables are saved beside the graph. Through a Keras object the converter saves every layer's functions
    as well, which takes most of its time, and the outputs lose their names. A model that holds other resources (tables)
    keeps its object for them.
    """
    import tensorflow as tf

    specs = {port.name: tf.TensorSpec(pinned_shape(port, batch), port.dtype, name=port.name) for port in trained.inputs}
    concrete = tf.function(lambda **tensors: trained.call(tensors)).get_concrete_function(**specs)
    module = tf.Module()
    module.variables_ = list(concrete.graph.variables)
    handles = {id(variable.handle) for variable in module.variables_}
    held = [tensor for tensor in concrete.captured_inputs if tensor.dtype == tf.resource]
    module.keep = trained.keep if any(id(tensor) not in handles for tensor in held) or not handles else None
    tf.saved_model.save(module, str(folder), signatures={_SIGNATURES[0]: concrete})
