"""Looks for the layer in which device and host part: fetches the device's tensors, and its model if none is named."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.check.collecting import collect
from edgepack.check.compare import Comparison
from edgepack.errors import DeviceFailure, InputError, IntegrityError, MisfitError
from edgepack.words import size

if TYPE_CHECKING:
    import numpy as np

    from edgepack.bundle import ModelEntry
    from edgepack.check.layers import LayerLook
    from edgepack.device import Session

    Array = np.ndarray[Any, Any]

FEWEST_ROWS = (0, 1, 2)
"""Of a check set in which no sample is worse than another."""
MOST_MODEL_BYTES = 256 << 20
"""A larger model is not fetched from a device: whoever made it has it."""

SAME_BUT_OTHER = (
    "device and host agree on this model, layer by layer: it is not the model that the check set was made with"
)
SAME_KERNELS = (
    "with the runtime's plain kernels device and host agree, layer by layer: what differs is XNNPACK or the delegate "
    "on the device"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """Which release's layers are looked at; ``layers_of`` is a .tflite of the user's to hold the device against."""

    app: str
    release: str
    model: ModelEntry
    threads: int
    layers_of: Path | None


def find_diverging(
    session: Session,
    asked: Asked,
    found: Comparison,
    arrays: Mapping[str, Array],
    scales: Mapping[str, float],
    tell: Callable[[Mapping[str, Any]], None],
) -> Comparison:
    """``found`` with its layers, and in its parity the first one that differs, or what else was found.

    What hinders it (no runtime on this machine, too little memory on the device) is told there too. ``arrays`` are
    those that the comparison was made of.
    """
    from edgepack.check.layers import look_at_layers

    rows = found.worst or tuple(row for row in FEWEST_ROWS if row < found.samples)
    try:
        _require_host_runtime()
        measured, tensors = _tensors(session, asked, rows, tell)
        stored = {
            name.removeprefix("quantized/"): array[list(measured)]
            for name, array in arrays.items()
            if name.startswith("quantized/")
        }
        with tempfile.TemporaryDirectory(prefix="edgepack-layers-") as folder:
            model = asked.layers_of or _fetched(session, asked, Path(folder))
            look = look_at_layers(model, tensors, stored, scales)
    except (InputError, MisfitError, DeviceFailure) as error:
        return _told(found, f"the layers could not be compared: {error.message.rstrip('.')}")
    return _concluded(found, look)


def _concluded(found: Comparison, look: LayerLook) -> Comparison:
    found = dataclasses.replace(found, layers=look.layers)
    if (layer := look.diverging) is not None:
        if found.parity is None:
            return found
        return dataclasses.replace(found, parity=dataclasses.replace(found.parity, diverging=layer.name))
    if found.parity is None or found.parity.tolerated or look.host is None:
        return found
    return _told(found, SAME_KERNELS if look.host.is_tolerated else SAME_BUT_OTHER)


def _told(found: Comparison, cause: str) -> Comparison:
    if found.parity is None:
        return found
    return dataclasses.replace(found, parity=dataclasses.replace(found.parity, cause=cause))


def _require_host_runtime() -> None:
    """Before the device is asked: raises InputError "no-host-runtime"."""
    from edgepack.hostruntime import require_runtime

    require_runtime()


def _tensors(
    session: Session, asked: Asked, rows: Sequence[int], tell: Callable[[Mapping[str, Any]], None]
) -> tuple[tuple[int, ...], dict[str, Array]]:
    """Which samples the device ran with every tensor kept, and the tensors."""
    options = {"layers": len(rows), "threads": asked.threads, **{f"row{place}": row for place, row in enumerate(rows)}}
    measured = session.request(
        "measure", on_progress=tell, app=asked.app, release=asked.release, options=options
    ).result
    token, ran = measured.get("outputs"), measured.get("rows")
    if not token or not isinstance(ran, list) or not ran or not all(row in rows for row in ran):
        raise MisfitError(
            "old-loader",
            "The release's loader cannot keep a model's tensors: it is older than this edgepack.",
            hint="Bundle the model again and push it.",
        )
    return tuple(ran), collect(session, str(token))


def _fetched(session: Session, asked: Asked, folder: Path) -> Path:
    """The device's own model, as the manifest has it."""
    if asked.model.bytes > MOST_MODEL_BYTES:
        raise InputError(
            "model-too-large",
            f"The model has {size(asked.model.bytes)}, which is too much to fetch.",
            hint="Name your copy of it: --layers-of MODEL.tflite.",
        )
    reply = session.request("model", app=asked.app, release=asked.release)
    if hashlib.sha256(reply.payload).hexdigest() != asked.model.sha256:
        raise IntegrityError(
            "release-damaged",
            f"The model of {asked.app} {asked.release} on {session.description} is not the manifest's.",
            hint="Push the bundle again: `edgepack push FILE.edgepack DEVICE`.",
        )
    path = folder / asked.model.file
    path.write_bytes(reply.payload)
    return path
