"""The caller's end of the worker process: start it, ask it, pass its events on, end it."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import edgepack
from edgepack import errors
from edgepack.errors import EdgepackError, InputError, MisfitError
from edgepack.events import Event, Reporter
from edgepack.quantize.disk import is_full_disk, no_room
from edgepack.quantize.logs import with_log
from edgepack.words import printable

_LOG_TAIL_BYTES = 64 << 10
# Whatever the user has set: Keras 3 computes in TensorFlow, and on the CPU, where the same input gives the same bytes.
_ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "1"}
_log = logging.getLogger(__name__)


class WorkerProcess:
    """A running worker; a context manager that ends it, whatever it is doing.

    ``scratch`` is a folder of the caller's that it may fill. What TensorFlow prints goes into its file worker.log, and
    on to the logger at the end, for ``-v``; where the converter fails a copy is kept, whose path the error tells.
    """

    def __init__(self, scratch: Path, report: Reporter) -> None:
        self._log_path = scratch / "worker.log"
        self._report = report
        self._log_file = self._log_path.open("wb")
        root = str(Path(edgepack.__file__).resolve().parent.parent)
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            # -P: a file called tensorflow.py in the user's folder is not TensorFlow.
            [sys.executable, "-P", "-m", "edgepack.quantize.worker", str(scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log_file,
            text=True,
            encoding="utf-8",
            env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)},
            # Ctrl-C reaches the caller alone, which ends the worker.
            start_new_session=True,
        )

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._process.stdin is not None:
            self._process.stdin.close()  # its work is done; it ends by itself
        else:
            self._process.kill()
        self._process.wait()
        self._log_file.close()
        for line in log_tail(self._log_path):
            _log.info("%s", line)

    def kill(self) -> None:
        """End it at once; who waits for its answer is told "converter-crashed"."""
        self._process.kill()

    @property
    def running(self) -> bool:
        """Whether it can be asked again."""
        return self._process.poll() is None

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """The answer to one request. Raises what the worker raised; MisfitError "converter-crashed" where it died."""
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise MisfitError("converter-crashed", "The worker process has no pipes.")
        try:
            process.stdin.write(json.dumps({"verb": verb, **arguments}) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._crashed() from None
        for line in process.stdout:
            reply = json.loads(line)
            if "event" in reply:
                self._report(Event(**reply["event"]))
            elif "error" in reply:
                raise with_log(_rebuilt(reply["error"]), self._log_path)
            else:
                result: dict[str, Any] = reply["result"]
                return result
        raise self._crashed()

    def _crashed(self) -> EdgepackError:
        code = self._process.wait()
        self._log_file.flush()
        tail = [line for line in log_tail(self._log_path) if line.strip()]
        if code == -signal.SIGKILL:
            return InputError(
                "out-of-memory",
                "The system ended the conversion, most likely because memory ran out.",
                hint="Close other programs, pin a smaller batch, or convert on a larger machine.",
            )
        if is_full_disk(OSError("\n".join(tail))):
            return no_room(f"The conversion ran into the disk: {tail[-1].strip()[:200]}")
        if code < 0:
            what = f"crashed with {signal.Signals(-code).name}"
        else:
            what = f"ended early: {tail[-1].strip()[:300] if tail else f'exit code {code}'}"
        error = MisfitError(
            "converter-crashed",
            f"The converter {what}.",
            hint="Something in the model is too much for it: try another scheme.",
        )
        return with_log(error, self._log_path)


def log_tail(path: Path) -> list[str]:
    """The last lines that a program wrote, what does not print replaced by blanks."""
    with path.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
        text = log.read().decode("utf-8", "replace")
    return [printable(line) for line in text.splitlines()]


def _rebuilt(error: Mapping[str, Any]) -> EdgepackError:
    kind: type[EdgepackError] = getattr(errors, error["kind"])
    return kind(error["code"], error["message"], hint=error["hint"], **error["details"])
