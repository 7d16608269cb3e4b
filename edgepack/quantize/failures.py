"""A library's own failure in the worker process, as one sentence: whose it is, at what, and its last words."""

from __future__ import annotations

import traceback

from edgepack.errors import MisfitError

_TENSORFLOW, _LITERT, _QUANTIZER = "TensorFlow", "LiteRT", "litert-quantizer"
# By the package in which it happened.
_LIBRARIES = {
    "tensorflow": _TENSORFLOW,
    "keras": _TENSORFLOW,
    "tf_keras": _TENSORFLOW,
    "ai_edge_litert": _LITERT,
    "litert_quantizer": _QUANTIZER,
}
# Whose work a verb is where the failure came from none of them.
_DOERS = {"host": _LITERT, "layers": _LITERT, "ranges": _LITERT}
_CODES = {_TENSORFLOW: "tensorflow-failed", _LITERT: "litert-failed", _QUANTIZER: "quantizer-failed"}
_HINTS = {
    _TENSORFLOW: "Something in the model is too much for it: try another scheme, or export the model again.",
    _LITERT: "Something in the model is too much for this machine's runtime: try another scheme.",
    _QUANTIZER: "Something in the model is too much for it: try another scheme, or the SavedModel, .keras or .h5 with "
    "TensorFlow's converter.",
}
_WORK = {
    "load": "load the model",
    "convert": "convert the model",
    "reference": "run the float model",
    "host": "run the converted model",
    "layers": "compare the layers of the two models",
    "ranges": "observe the ranges of the float model",
}
FAILURES = tuple(_CODES.values())
"""The codes of these errors."""


def library_failure(verb: str, fault: Exception) -> MisfitError:
    """The error for a request of the worker that ended in an exception which nothing else has translated."""
    library = _library(verb, fault)
    words = next((line.strip() for line in reversed(str(fault).splitlines()) if line.strip()), "")
    return MisfitError(
        _CODES[library],
        f"{library} failed to {_WORK[verb]}: {type(fault).__name__}: {words[:160]}",
        hint=_HINTS[library],
    )


def _library(verb: str, fault: Exception) -> str:
    """The innermost one on the way to the failure: its words they are."""
    for frame, _ in reversed(list(traceback.walk_tb(fault.__traceback__))):
        library = _LIBRARIES.get(str(frame.f_globals.get("__name__", "")).partition(".")[0])
        if library is not None:
            return library
    return _DOERS.get(verb, _TENSORFLOW)
