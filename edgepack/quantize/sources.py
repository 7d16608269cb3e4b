"""What a trained model's file is, found out without TensorFlow: its kind, the Keras that wrote it, its digest."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.digest import sha256_file
from edgepack.errors import InputError
from edgepack.files import require_regular

_KINDS_HINT = "edgepack takes a SavedModel folder, a .keras, an .h5 of Keras 2 or 3, or a float .tflite."
_EXPORT_HINT = "Export it as a SavedModel with its code at hand: model.export('folder')."
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_ZIP_MAGIC = b"PK\x03\x04"
_TFLITE_MARK = b"TFL3"
# Keras 2 leaves the identifiers of its objects in the SavedModel (keras/src/saving/legacy/saved_model/constants.py).
_KERAS_2_MARK = b"_tf_keras_"
_MOST_CONFIG_BYTES = 256 << 20
_BLOCK = 1 << 20

SAVED_MODEL = "saved-model"
KERAS_2_SAVED_MODEL = "keras-2-saved-model"
TFLITE = "tflite"


@dataclass(frozen=True, slots=True)
class Source:
    """A trained model on disk.

    ``kind``: "saved-model", "keras-2-saved-model", "keras-3", "keras-2" (both .keras), "keras-3-h5", "keras-2-h5" or
    "tflite". ``sha256`` is that of the file, or of a folder's sorted lines ``<sha256>  <path>``.
    """

    path: Path
    kind: str
    bytes: int
    sha256: str


def identify_source(path: str | Path) -> Source:
    """What lies at ``path``, by its content, not by its name.

    Raises InputError: "not-a-file", "no-such-model", "unknown-model", "broken-model", "weights-only", "lambda-layer".
    """
    path = Path(path)
    require_regular(path)
    try:
        if path.is_dir():
            return _saved_model(path)
        with path.open("rb") as file:
            head = file.read(8)
        kind = _kind_of_file(path, head)
        return Source(path, kind, path.stat().st_size, sha256_file(path))
    except OSError as fault:
        hint = "Check the path." if isinstance(fault, FileNotFoundError) else "Check the path and its permissions."
        raise InputError(
            "no-such-model", f"The model {path} cannot be read: {fault.strerror or fault}.", hint=hint
        ) from fault


def _kind_of_file(path: Path, head: bytes) -> str:
    if head == _HDF5_MAGIC:
        return _hdf5_kind(path)
    if head.startswith(_ZIP_MAGIC):
        return _keras_kind(path)
    if head[4:] == _TFLITE_MARK:
        return TFLITE
    if path.suffix == ".pb" and (path.parent / "saved_model.pb").is_file():
        raise InputError(
            "unknown-model",
            f"{path} is a part of a SavedModel, which is a folder.",
            hint=f"Give its folder: {path.parent}",
        )
    raise InputError("unknown-model", f"{path} is no model that edgepack knows.", hint=_KINDS_HINT)


def _saved_model(path: Path) -> Source:
    graph = path / "saved_model.pb"
    if not graph.is_file():
        raise InputError("unknown-model", f"The folder {path} holds no saved_model.pb.", hint=_KINDS_HINT)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = [f"{sha256_file(file)}  {file.relative_to(path).as_posix()}\n" for file in files]
    total = sum(file.stat().st_size for file in files)
    kind = (
        KERAS_2_SAVED_MODEL if _contains(graph, _KERAS_2_MARK) or (path / "keras_metadata.pb").exists() else SAVED_MODEL
    )
    return Source(path, kind, total, hashlib.sha256("".join(lines).encode()).hexdigest())


def _hdf5_kind(path: Path) -> str:
    h5py = _import_h5py()
    try:
        with h5py.File(path, "r") as file:
            version, config = file.attrs.get("keras_version", "2"), file.attrs.get("model_config")
    except (OSError, RuntimeError, ValueError, KeyError) as fault:
        raise _broken(path, _hdf5_damage(str(fault))) from fault
    if config is None:
        raise InputError(
            "weights-only",
            f"{path} holds weights without a model.",
            hint="Save the whole model: model.save('model.keras').",
        )
    _refuse_lambda(path, _json(path, config))
    return "keras-3-h5" if _text(version).startswith("3") else "keras-2-h5"


def _hdf5_damage(words: str) -> str:
    """What the HDF5 library says of a damaged file, in a clause."""
    cut = re.search(r"truncated file: eof = (\d+),.* stored_eof = (\d+)", words)
    return f"of its {int(cut[2]):,} bytes only {int(cut[1]):,} are there" if cut else "as an HDF5 file it is garbled"


def _keras_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if not {"config.json", "metadata.json"} <= names:
                raise InputError("unknown-model", f"{path} is a ZIP archive, but no .keras model.", hint=_KINDS_HINT)
            if max(archive.getinfo(name).file_size for name in ("config.json", "metadata.json")) > _MOST_CONFIG_BYTES:
                raise _broken(path, "its configuration is too large")
            config, metadata = (_json(path, archive.read(name)) for name in ("config.json", "metadata.json"))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as fault:
        raise _broken(path, "as a ZIP archive it is cut short or garbled") from fault
    _refuse_lambda(path, config)
    version = metadata.get("keras_version", "3") if isinstance(metadata, dict) else "3"
    return "keras-2" if _text(version).startswith("2") else "keras-3"


def _refuse_lambda(path: Path, config: Any) -> None:
    """A Lambda layer is Python bytecode inside the file: loading it would run whatever somebody put there."""
    if any(isinstance(one, dict) and one.get("class_name") == "Lambda" for one in _nodes(config)):
        raise InputError(
            "lambda-layer",
            f"{path} holds a Lambda layer: code that edgepack does not run out of a file.",
            hint=_EXPORT_HINT,
        )


def _nodes(value: Any) -> Iterator[Any]:
    stack = [value]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, dict):
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)


def _json(path: Path, text: Any) -> Any:
    try:
        return json.loads(_text(text))
    except (ValueError, RecursionError) as fault:
        raise _broken(path, "its configuration is no JSON") from fault


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _broken(path: Path, why: str) -> InputError:
    return InputError(
        "broken-model", f"The model {path} is damaged: {why}.", hint="Save it again from the training program."
    )


def _import_h5py() -> Any:
    try:
        import h5py
    except ImportError as fault:
        raise no_tensorflow() from fault
    return h5py


def no_tensorflow(what: str = "TensorFlow") -> InputError:
    """What to say where the light installation is asked to quantize."""
    return InputError(
        "no-tensorflow",
        f"Quantizing needs {what}, which is not installed here.",
        hint="Install it, in edgepack's checkout: pip install '.[quantize]'",
    )


def _contains(path: Path, mark: bytes) -> bool:
    """Whether the file holds ``mark``; read in blocks that overlap by its length."""
    tail = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            if mark in tail + block:
                return True
            tail = block[-len(mark) :]
    return False
