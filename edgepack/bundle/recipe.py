"""recipe.json: the model as a row of chunks by digest, so that a later push sends only those that a device lacks.

What retraining changes are the model's constant buffers, so these begin and end at borders, the larger ones cut into
pieces. What lies between buffers, the graph's tables with their scales and names, is an eighth of a quantized model,
and one name that is longer moves all of it: there the content says where to cut, as in LBFS (Muthitacharoen et al.,
SOSP 2001), so that borders move along with it. The device only compares digests; how a recipe was cut need not be known
there. benchmarks/delta.py tells what the sizes below were measured with.

A chunk is named by the first 64 bits of its SHA-256. Two different ones among 65,536 of each side share a name once in
4 thousand million models; the SHA-256 of the whole rebuilt file finds that too, and the model is then sent whole.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO

from edgepack.bundle.manifest import MODEL_NAME
from edgepack.digest import read_exactly

RECIPE_NAME = "recipe.json"
SCHEMA = 2
DIGEST_BYTES = 8
# Of a recalibrated MobileNetV2 these resend 2.0 % with digests, where pieces of 4 KiB and fixed cuts resend 5.6 %.
BUFFER_BYTES = 256
PIECE_BYTES = 16 * 1024
TABLE_LEAST_BYTES = 128
TABLE_MOST_BYTES = 1024
_MARK_BITS = 7
# Of pieces, and of chunks between buffers: the sizes double until that does, so a recipe stays below 2 MB.
_MOST_OF_A_KIND = 32 * 1024
MAX_CHUNKS = 4 * _MOST_OF_A_KIND
MAX_CHUNK_BYTES = 1 << 20
MAX_RECIPE_BYTES = 4 << 20
_WINDOW = 4 << 20
_PARITY = bytes(b"01"[byte.bit_count() & 1] for byte in range(256))
_MARK = b"100110101110010111010011"


@dataclass(frozen=True, slots=True)
class Recipe:
    """The chunks of one file, in its order: their lengths in bytes, and the first 64 bits of their SHA-256."""

    lengths: tuple[int, ...]
    digests: tuple[bytes, ...]

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each chunk begins."""
        return tuple(accumulate(self.lengths, initial=0))[: len(self.lengths)]

    def to_json(self) -> dict[str, Any]:
        """The content of recipe.json."""
        return {
            "schema": SCHEMA,
            "file": MODEL_NAME,
            "lengths": list(self.lengths),
            "digests": b"".join(self.digests).hex(),
        }


def chunk_digest(chunk: bytes) -> bytes:
    """The name of a chunk."""
    return hashlib.sha256(chunk).digest()[:DIGEST_BYTES]


def make_recipe(model: Path, regions: Sequence[tuple[int, int]]) -> Recipe:
    """The recipe of a model with constant buffers at ``regions`` (offset, length; sorted, disjoint)."""
    with model.open("rb") as stream:
        borders = tuple(chunk_borders(stream, model.stat().st_size, regions))
        stream.seek(0)
        lengths = tuple(end - start for start, end in pairwise(borders))
        return Recipe(lengths, tuple(chunk_digest(read_exactly(stream, length)) for length in lengths))


def read_recipe(content: bytes, size: int) -> Recipe | None:
    """What a recipe.json says about a file of ``size`` bytes; None where it is of another kind, or no sound one."""
    if len(content) > MAX_RECIPE_BYTES:
        return None
    try:
        value = json.loads(content)
        lengths, digests = tuple(value["lengths"]), bytes.fromhex(value["digests"])
        sound = all(type(length) is int and 0 < length <= MAX_CHUNK_BYTES for length in lengths)
        if value["schema"] != SCHEMA or value["file"] != MODEL_NAME or not sound or sum(lengths) != size:
            return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if len(lengths) > MAX_CHUNKS or len(digests) != DIGEST_BYTES * len(lengths):
        return None
    return Recipe(lengths, tuple(digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)))


def chunk_borders(stream: BinaryIO, size: int, regions: Sequence[tuple[int, int]]) -> Iterator[int]:
    """Where chunks begin and end in a file of ``size`` bytes with constant buffers at ``regions``.

    The first border is 0, the last ``size``; no chunk is larger than 1 MiB. A buffer of at least 256 bytes begins and
    ends at borders; smaller ones are cut with what lies around them.
    """
    buffers = [(start, start + length) for start, length in regions if length >= BUFFER_BYTES]
    inside = sum(end - start for start, end in buffers)
    piece = PIECE_BYTES * _scale(inside, PIECE_BYTES)
    scale = _scale(size - inside, TABLE_LEAST_BYTES)
    yield 0
    position = 0
    for start, end in [*buffers, (size, size)]:
        yield from _table_borders(stream, position, start, scale)
        yield from range(start + piece, end - piece + 1, piece)
        if end > start:
            yield end
        position = end


def _scale(total: int, least: int) -> int:
    """The power of two that makes at most 32,768 chunks of so many bytes."""
    scale = 1
    while total > _MOST_OF_A_KIND * least * scale:
        scale *= 2
    return scale


def _table_borders(stream: BinaryIO, start: int, end: int, scale: int) -> Iterator[int]:
    """Where the bytes between ``start`` and ``end`` are cut; read a window at a time, so that memory stays flat."""
    while start < end:
        stream.seek(start)
        window = read_exactly(stream, min(_WINDOW, end - start))
        if len(window) < min(_WINDOW, end - start):
            return  # cut short meanwhile, which whoever writes the bundle finds
        cuts = cut_by_content(window, scale, whole=start + len(window) == end)
        yield from (start + cut for cut in cuts)
        start += cuts[-1]


def cut_by_content(data: bytes, scale: int = 1, *, whole: bool = True) -> list[int]:
    """Cuts where the content says so, 128 to 1,024 bytes apart (times ``scale``); the last may be nearer.

    Where ``data`` is not the ``whole``, it ends where what follows could still move a cut: within 1,024 bytes of its
    end.
    """
    least, most = TABLE_LEAST_BYTES * scale, TABLE_MOST_BYTES * scale
    cuts, begin = [], 0
    for mark in [*_marks(data, _MARK_BITS + scale.bit_length() - 1), len(data)]:
        while mark - begin > most:
            begin += most
            cuts.append(begin)
        if mark - begin >= least and (whole or mark < len(data)):
            begin = mark
            cuts.append(begin)
    if whole and begin < len(data):
        cuts.append(len(data))
    return cuts


def _marks(data: bytes, bits: int) -> list[int]:
    """The ends of every row of bytes whose parities spell that many bits: about one place of 2**bits, none in zeros.

    Two calls of C a window: a rolling hash in Python would take a second for each megabyte.
    """
    return [found.end() for found in re.finditer(_MARK[:bits], data.translate(_PARITY))]
