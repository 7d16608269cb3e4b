"""Sending of a model only the chunks that a device lacks; it takes the others from the releases that it holds.

One round trip more than a whole model takes: the recipe goes there, the device answers a bit for each chunk, and the
chunks that lack follow with the commit. The whole file's SHA-256 decides on the device; where it says no, or where the
bundle's recipe is none, the model is sent whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgepack.bundle.manifest import MODEL_NAME
from edgepack.bundle.recipe import MAX_RECIPE_BYTES, RECIPE_NAME, Recipe, chunk_digest, read_recipe
from edgepack.deploy.chunking import batches, deflate, lacking_chunks
from edgepack.digest import read_exactly
from edgepack.errors import IntegrityError
from edgepack.events import Event, Reporter, ignore_events

if TYPE_CHECKING:
    from edgepack.bundle import Bundle
    from edgepack.deploy.staging import Piece
    from edgepack.device import Session

# A smaller model is sent in less time than the round trip takes (at 50 ms and 20 Mbit/s).
LEAST_BYTES = 128 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Delta:
    """What a device lacks of a model: ``chunks`` of its recipe.

    ``recipe_bytes`` of the recipe went along with the question, as ``asked_bytes`` on the wire; 0 where it was there.
    """

    model: Piece
    recipe: Recipe
    recipe_sha256: str
    recipe_bytes: int
    chunks: tuple[int, ...]
    asked_bytes: int

    @property
    def bytes(self) -> int:
        """The bytes of the chunks that lack."""
        return sum(self.recipe.lengths[chunk] for chunk in self.chunks)

    def brings(self, piece: Piece) -> bool:
        """Whether that file need not be put any more."""
        return piece.sha256 in (self.model.sha256, self.recipe_sha256)


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Some chunks as they are sent: their bytes, deflated or not, and how many they are raw."""

    payload: bytes
    deflated: bool
    bytes: int


def ask_delta(
    session: Session,
    content: Bundle,
    lacking: Sequence[Piece],
    told: Mapping[str, Any],
    *,
    dry_run: bool,
    report: Reporter = ignore_events,
) -> Delta | None:
    """What the device lacks of the model; None where it is to be sent whole. ``told`` is the answer to ``missing``."""
    model = next((piece for piece in lacking if piece.path == MODEL_NAME), None)
    recipe_file = content.entries.get(RECIPE_NAME)
    there = told.get("delta")  # an agent that was pinned by an older edgepack knows of no delta
    if model is None or recipe_file is None or not isinstance(there, Mapping) or not there.get("models"):
        return None
    if model.offset or model.bytes < LEAST_BYTES or recipe_file.bytes > MAX_RECIPE_BYTES:
        return None
    with content.open_entry(RECIPE_NAME) as stream:
        text = stream.read()
    recipe = read_recipe(text, model.bytes)
    if recipe is None:
        return None
    is_new = any(piece.sha256 == recipe_file.sha256 for piece in lacking)
    payload, deflated = deflate(text) if is_new else (b"", False)
    report(Event("push", f"{session.description} looks for the model's chunks in what it holds"))
    try:
        answer = session.request(
            "delta",
            [payload],
            len(payload),
            sha256=model.sha256,
            bytes=model.bytes,
            recipe={"sha256": recipe_file.sha256, "bytes": recipe_file.bytes},
            zlib=deflated,
            dry_run=dry_run,
        )
    except IntegrityError:
        return None
    chunks = lacking_chunks(answer.payload, len(recipe.lengths))
    if chunks is None:
        return None
    return Delta(model, recipe, recipe_file.sha256, recipe_file.bytes if is_new else 0, chunks, len(payload))


def staged_bytes(told: Mapping[str, Any]) -> int:
    """What unfinished models take of the device's disk already. ``told`` is the answer to ``missing``."""
    there = told.get("delta")
    found = there.get("staged_bytes") if isinstance(there, Mapping) else None
    return max(found, 0) if isinstance(found, int) else 0


def read_batches(content: Bundle, delta: Delta) -> Iterator[Batch]:
    """The chunks that lack, a MiB at a time. Raises IntegrityError where the recipe is not the model's."""
    offsets, total = delta.recipe.offsets, delta.bytes
    with content.open_entry(MODEL_NAME) as stream:
        for batch in batches(delta.recipe.lengths, delta.chunks):
            parts = []
            for chunk in batch:
                stream.seek(offsets[chunk])
                parts.append(read_exactly(stream, delta.recipe.lengths[chunk]))
                if chunk_digest(parts[-1]) != delta.recipe.digests[chunk]:
                    raise IntegrityError(
                        "digest-mismatch",
                        f"{RECIPE_NAME} in {content.path} is not that of its model.",
                        hint="Make the bundle anew with `edgepack bundle`.",
                    )
            raw = b"".join(parts)
            payload, deflated = deflate(raw, of_bytes=total)
            yield Batch(payload, deflated, len(raw))


def send_batch(session: Session, delta: Delta, batch: Batch) -> int:
    """Send some chunks without waiting; returns the request's id."""
    return session.send(
        "chunks",
        [batch.payload],
        len(batch.payload),
        sha256=delta.model.sha256,
        bytes=batch.bytes,
        zlib=batch.deflated,
    )
