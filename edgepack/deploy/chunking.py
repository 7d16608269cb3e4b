"""Which bytes of a model go over the wire, as values: pure functions of its recipe and of what the device lacks."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

BATCH_BYTES = 1 << 20
_MOST_DEFLATED = 0.95
# Up to here deflating everything takes about a second; above, it would be what a fast network waits for.
_ALL_DEFLATED_BYTES = 32 << 20
_SAMPLE_BYTES = 64 * 1024
_SAMPLE_MOST = 0.6


def lacking_chunks(bits: bytes, count: int) -> tuple[int, ...] | None:
    """The numbers of the chunks whose bit is set, the lowest of a byte first; None where that is no such answer."""
    if len(bits) != (count + 7) // 8:
        return None
    found = tuple(8 * at + bit for at, byte in enumerate(bits) if byte for bit in range(8) if byte >> bit & 1)
    return found if not found or found[-1] < count else None


def batches(lengths: Sequence[int], chunks: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The chunks in groups of at most 1 MiB together, in their order; a chunk alone may have as much."""
    batch: list[int] = []
    size = 0
    for chunk in chunks:
        if batch and size + lengths[chunk] > BATCH_BYTES:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(chunk)
        size += lengths[chunk]
    if batch:
        yield tuple(batch)


def deflate(content: bytes, *, of_bytes: int = 0) -> tuple[bytes, bool]:
    """``content`` as it is sent, and whether it is deflated: where that pays, by its own bytes.

    ``of_bytes`` is how much there is to send altogether. Of more than 32 MiB only what shrinks a lot is deflated, such
    as zeros and tables, as a sample tells; trained weights shrink by a tenth or two.
    """
    if of_bytes > _ALL_DEFLATED_BYTES:
        sample = content[:_SAMPLE_BYTES]
        if len(zlib.compress(sample, 1)) > _SAMPLE_MOST * len(sample):
            return content, False
    deflated = zlib.compress(content, 6)
    return (deflated, True) if len(deflated) <= _MOST_DEFLATED * len(content) else (content, False)
