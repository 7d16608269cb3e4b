"""Real, tiny .tflite models and bundles for tests, made without TensorFlow."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import flatbuffers
import pytest
import tflite

from edgepack.bundle.build import build_bundle
from edgepack.documents import BundleDocument
from edgepack.errors import InputError
from edgepack.target import Platform, load_target

BOOKWORM = Platform("3.11", "aarch64", "glibc-2.36")


def add_model(values: int = 4, *, fill: float = 1.5) -> bytes:
    """The bytes of a float model ``y = x + c`` over vectors of ``values`` floats; the constant c sets the size."""
    b = flatbuffers.Builder(1024)
    constant = b.CreateByteVector(struct.pack(f"<{values}f", *([fill] * values)))
    buffers = []
    for data in (None, constant):
        tflite.BufferStart(b)
        if data is not None:
            tflite.BufferAddData(b, data)
        buffers.append(tflite.BufferEnd(b))
    tensors = [_tensor(b, name, values, buffer) for name, buffer in (("x", 0), ("c", 1), ("y", 0))]
    inputs, both, outputs = _ints(b, [0]), _ints(b, [0, 1]), _ints(b, [2])
    tflite.AddOptionsStart(b)
    options = tflite.AddOptionsEnd(b)
    tflite.OperatorStart(b)
    tflite.OperatorAddOpcodeIndex(b, 0)
    tflite.OperatorAddInputs(b, both)
    tflite.OperatorAddOutputs(b, outputs)
    tflite.OperatorAddBuiltinOptionsType(b, tflite.BuiltinOptions.AddOptions)
    tflite.OperatorAddBuiltinOptions(b, options)
    operators = _offsets(b, [tflite.OperatorEnd(b)])
    tensor_vector = _offsets(b, tensors)
    tflite.SubGraphStart(b)
    tflite.SubGraphAddTensors(b, tensor_vector)
    tflite.SubGraphAddInputs(b, inputs)
    tflite.SubGraphAddOutputs(b, outputs)
    tflite.SubGraphAddOperators(b, operators)
    subgraphs = _offsets(b, [tflite.SubGraphEnd(b)])
    tflite.OperatorCodeStart(b)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(b, tflite.BuiltinOperator.ADD)
    tflite.OperatorCodeAddBuiltinCode(b, tflite.BuiltinOperator.ADD)
    tflite.OperatorCodeAddVersion(b, 1)
    codes = _offsets(b, [tflite.OperatorCodeEnd(b)])
    buffer_vector = _offsets(b, buffers)
    tflite.ModelStart(b)
    tflite.ModelAddVersion(b, 3)
    tflite.ModelAddOperatorCodes(b, codes)
    tflite.ModelAddSubgraphs(b, subgraphs)
    tflite.ModelAddBuffers(b, buffer_vector)
    b.Finish(tflite.ModelEnd(b), b"TFL3")
    return bytes(b.Output())


def _tensor(b: flatbuffers.Builder, name: str, values: int, buffer: int) -> int:
    label, shape = b.CreateString(name), _ints(b, [values])
    tflite.TensorStart(b)
    tflite.TensorAddName(b, label)
    tflite.TensorAddShape(b, shape)
    tflite.TensorAddType(b, tflite.TensorType.FLOAT32)
    tflite.TensorAddBuffer(b, buffer)
    return tflite.TensorEnd(b)


def _ints(b: flatbuffers.Builder, values: list[int]) -> int:
    b.StartVector(4, len(values), 4)
    for value in reversed(values):
        b.PrependInt32(value)
    return b.EndVector()


def _offsets(b: flatbuffers.Builder, offsets: list[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return b.EndVector()


def write_model(folder: Path, *, values: int = 4, check_set: bool = False) -> Path:
    """A model file, with the check set and provenance that ``quantize`` would leave beside it where asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "m.tflite"
    model.write_bytes(add_model(values))
    if check_set:
        model.with_suffix(".check.npz").write_bytes(b"PK\x05\x06" + bytes(18))
        model.with_suffix(".provenance.json").write_text('{"schema": 1, "options": {"scheme": "float32"}}')
    return model


def make_bundle(folder: Path, *, version: str = "1.0.0", values: int = 4, check_set: bool = False) -> BundleDocument:
    """A bundle without wheels for a Raspberry Pi 4, at ``folder/app.edgepack``."""
    return build_bundle(
        write_model(folder, values=values, check_set=check_set),
        target=load_target("raspberry-pi-4"),
        name="app",
        version=version,
        output=folder / "app.edgepack",
        with_runtime=False,
    )


def write_wheel(folder: Path, filename: str, files: dict[str, bytes] | None = None, *, damage: str = "") -> Path:
    """A whole wheel of that file name; ``damage`` names a file whose content is not what RECORD says."""
    name, version = filename.split("-")[:2]
    info = f"{name}-{version}.dist-info"
    contents = {
        **(files or {f"{name}/__init__.py": filename.encode() * 20}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nTag: {'-'.join(filename[:-4].split('-')[2:])}\n".encode(),
    }
    rows = [f"{info}/RECORD,,"]
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / filename, "w") as wheel:
        for path, data in contents.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            rows.append(f"{path},sha256={digest},{len(data)}")
            wheel.writestr(path, data + b"!" if path == damage else data)
        wheel.writestr(f"{info}/RECORD", "\n".join(rows) + "\n")
    return folder / filename


@contextmanager
def through_the_index() -> Iterator[None]:
    """What needs the package index is skipped on a laptop without a network, and fails in CI."""
    try:
        yield
    except InputError as error:
        if error.code == "wheels-unavailable" and not os.environ.get("CI"):
            pytest.skip(f"the package index is not reachable: {error.message}")
        raise
