"""The process in which TensorFlow and LiteRT run: ``python -P -m edgepack.quantize.worker SCRATCH``.

Requests come as JSON lines on standard input, answers go as JSON lines to what was standard output: any number of
``{"event": {...}}``, then ``{"result": {...}}`` or ``{"error": {...}}``. Everything that native code prints lands on
standard error. The verbs: ``load`` {path, kind, signature, input_shapes,
batch}; ``convert`` {conversion, batch, calibration,
output, float_output}, which also leaves the float model that was calibrated where it can, and says so in ``float``;
``reference`` {samples, rows, outputs, batch} and ``host`` {model, inputs, samples, rows, outputs, first, threads,
processes}: the source's and a .tflite's outputs over samples, one .npy per output in the folder ``outputs`` (``host``
may stop early for :mod:`edgepack.quantize.evaluate` to go on, and says after how many ``rows``; without ``outputs``
rows are only tried); ``layers`` {reference, quantized, inputs, samples, rows} and ``ranges`` {model, inputs, samples,
outputs, runs}: what :mod:`edgepack.quantize.layers` and :mod:`edgepack.quantize.rangeaudit` measure. Arrays travel as
files, never pickled. SCRATCH is a folder that the caller removes.

Why a process of its own: the caller's keeps its own TensorFlow, Keras and runtimes, its memory and its terminal; Ctrl-C
works at once; and a crash inside the converter is an error message.
"""

from __future__ import annotations

import atexit
import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from edgepack.errors import EdgepackError, InputError
from edgepack.quantize.answering import Worker
from edgepack.quantize.disk import is_full_disk, no_room
from edgepack.quantize.failures import library_failure
from edgepack.quantize.sources import no_tensorflow

_DISK_FULL = "The conversion ran into the disk: there is no room left on it"


def main() -> int:
    """Serve requests until standard input ends."""
    # Replies keep the real standard output to themselves; a stray print goes where native code's messages go.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker(Path(sys.argv[1]), lambda event: _send(replies, "event", dataclasses.asdict(event)))
    for line in sys.stdin:
        _serve(worker, json.loads(line), replies)
    return 0


def _serve(worker: Worker, request: Mapping[str, Any], replies: IO[str]) -> None:
    error: EdgepackError
    try:
        _send(replies, "result", worker.answer(request))
        return
    except EdgepackError as refusal:
        if refusal.__cause__ is not None:
            traceback.print_exception(refusal.__cause__)  # the log has all of what the message tells in a sentence
        error = no_room(_DISK_FULL) if is_full_disk(refusal.__cause__) else refusal
    except OSError as fault:
        error = no_room(f"The conversion ran into the disk: {fault.strerror or fault}")
    except MemoryError:
        error = InputError(
            "out-of-memory",
            "This machine's memory is too small for the model and these samples.",
            hint="Pin a smaller batch, or close other programs.",
        )
    except ImportError as fault:
        missing = (fault.name or "").partition(".")[0]
        if missing not in ("tensorflow", "tf_keras", "keras", "h5py", "litert_quantizer", "ai_edge_litert"):
            raise
        error = no_tensorflow("litert-quantizer") if "litert" in missing else no_tensorflow()
    except Exception as fault:  # noqa: BLE001 (TensorFlow raises anything; its words are worth more than its traceback)
        traceback.print_exc()
        error = no_room(_DISK_FULL) if is_full_disk(fault) else library_failure(request["verb"], fault)
    told = {"code": error.code, "message": error.message, "hint": error.hint, "details": error.details}
    _send(replies, "error", {"kind": type(error).__name__, **told})


def _send(replies: IO[str], key: str, value: Mapping[str, Any]) -> None:
    replies.write(json.dumps({key: value}, default=str) + "\n")
    replies.flush()


if __name__ == "__main__":
    code = main()
    # Taking TensorFlow apart takes a second, while everything is written and closed: the caller need not wait for it.
    atexit._run_exitfuncs()
    os._exit(code)
