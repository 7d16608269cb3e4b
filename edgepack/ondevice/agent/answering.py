"""The verb answer: samples in, the model's outputs out; a check set that is larger than a device comes so in pieces."""

from __future__ import annotations

import os
from typing import Any, Dict, Iterable, Iterator, Tuple

from .admission import require_numbers, require_runnable
from .arguments import take, take_seconds
from .children import MEASURE_FOLDERS
from .disk import digest_file, read_chunks, read_json, remove_tree, require_space, size_of
from .errors import bad_request
from .loaderrun import MeasureRun, new_output
from .measuring import MEASURE_SLACK_S, choose_release
from .session import Session
from .wire import Payload, Request

SAMPLES_LIMIT = 64 * 1024 * 1024


def answer(session: Session, request: Request) -> Tuple[Dict[str, Any], int, Iterable[bytes]]:
    """Runs a release's loader over the samples in the payload (.npz, as a check set's inputs); the outputs come back.

    Nothing of either stays on the device.
    """
    root = session.home()
    release, folder = choose_release(session, request)
    options: Dict[str, Any] = take(request.args, "options", dict)
    if not 0 < request.payload.remaining <= SAMPLES_LIMIT:
        raise bad_request(f"A piece of samples has 1 to {SAMPLES_LIMIT} bytes, not {request.payload.remaining}.")
    if session.pin is not None:
        require_runnable(session, session.known_app(request), release)
        require_numbers(options)
    output = new_output(root)
    try:
        receive(request.payload, os.path.join(output, "samples.npz"))
        run = MeasureRun(folder, output, dict(options, samples=1), take_seconds(options, "limit_s", MEASURE_SLACK_S))
        run.wait(lambda progress: session.wire.send({"id": request.id, "progress": progress, "n": 0}))
        measurement = read_json(os.path.join(output, "measurement.json"))
        outputs = os.path.join(output, "outputs.npz")
        size = size_of(outputs)
        if not measurement or not size:
            raise run.failure()
        measurement.update(release=release, sha256=digest_file(outputs))
    except BaseException:
        forget(output)
        raise
    return measurement, size, and_forget(read_chunks(outputs, size), output)


def receive(payload: Payload, path: str) -> None:
    """Writes a payload into a new file."""
    require_space(os.path.dirname(path), payload.remaining)
    with open(path, "wb") as file:
        for chunk in iter(payload.read, b""):
            file.write(chunk)


def and_forget(chunks: Iterable[bytes], output: str) -> Iterator[bytes]:
    """Hands the chunks on, and removes the folder that they came from."""
    try:
        yield from chunks
    finally:
        forget(output)


def forget(output: str) -> None:
    """Removes the folder of a run whose result is not needed any more."""
    remove_tree(output)
    MEASURE_FOLDERS.remove(output)
