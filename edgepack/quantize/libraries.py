"""The libraries that decide what quantizing gives, and their versions, read without importing them."""

from __future__ import annotations

import contextlib
import functools
from importlib import metadata

# Whose versions decide the bytes of a conversion, the pixels of a picture and the numbers of an output.
_LIBRARIES = (
    "tensorflow", "tensorflow-cpu", "tensorflow-intel", "tf_keras", "keras", "h5py", "ml-dtypes", "ai-edge-litert",
    "litert-quantizer", "tflite", "flatbuffers", "numpy", "pillow",
)  # fmt: skip


@functools.cache
def library_versions() -> dict[str, str]:
    """The version of each that is installed, by the name of its distribution."""
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
