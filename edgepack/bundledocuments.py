"""The documents about bundles, by themselves: :mod:`edgepack.documents` has them too, and says what a document is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a bundle: its path inside, size and digest."""

    path: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True)
class SignatureInfo:
    """The signature of a bundle's manifest.

    ``principal`` is the name that the file of allowed signers gives the key, None where it was not held against one.
    ``fingerprint`` is the key's as ``ssh-keygen -l`` shows it, ``namespace`` what the signature was made for.
    """

    principal: str | None
    fingerprint: str
    key_type: str
    namespace: str


@dataclasses.dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output of a model, under the source model's name; -1 in ``shape`` for a size that is open.

    ``scale`` and ``zero_point`` hold one number each where the tensor is quantized, none where it is not.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class CheckSetInfo:
    """The samples that a device is checked with; ``reference``: the float model's outputs are there too."""

    samples: int
    labelled: bool
    reference: bool


@dataclasses.dataclass(frozen=True, slots=True)
class BundleContents:
    """What ``inspect`` reads out of a bundle's files.

    ``operators`` counts them by kind, ``weight_bytes`` says how many bytes of constants are of which type,
    ``parameters`` how many numbers they are, ``part_bytes`` what takes the room. ``notes`` say what cannot be read.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    operators: Mapping[str, int]
    weight_bytes: Mapping[str, int]
    parameters: int
    check_set: CheckSetInfo | None
    part_bytes: Mapping[str, int]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class BundleDocument:
    """What a bundle holds; ``signature`` is None on an unsigned one, and not checked here.

    ``counter`` is the number that its maker counts releases with, None where there is none. ``contents`` and
    ``provenance`` (what ``quantize`` wrote down) are there on what ``inspect`` tells.
    """

    path: str
    name: str
    version: str
    release: str
    sha256: str
    bytes: int
    target: str
    platforms: tuple[Mapping[str, Any], ...]
    files: tuple[FileEntry, ...]
    signature: SignatureInfo | None
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    budget: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    counter: int | None = None
    contents: BundleContents | None = None
    provenance: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class VerifyDocument:
    """What ``verify`` found: every digest was recomputed (a mismatch is an error, not a document).

    ``signature`` was checked: it is of this very content, and by one of the allowed signers where they were named.
    """

    path: str
    release: str
    files: int
    bytes: int
    signature: SignatureInfo | None
    counter: int | None = None
