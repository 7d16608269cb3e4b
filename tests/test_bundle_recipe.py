"""recipe.json: the model's chunks."""

from __future__ import annotations

import hashlib
import io
import json
from itertools import pairwise
from pathlib import Path

from bundle_models import write_model
from hypothesis import given
from hypothesis import strategies as st

from edgepack.bundle import recipe as recipes
from edgepack.bundle.recipe import (
    BUFFER_BYTES,
    MAX_CHUNK_BYTES,
    PIECE_BYTES,
    TABLE_MOST_BYTES,
    chunk_borders,
    cut_by_content,
    make_recipe,
    read_recipe,
)
from edgepack.documents import canonical_json
from edgepack.tflite import buffer_regions


@st.composite
def layouts(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, int]]]:
    """A file's bytes and disjoint buffers inside it."""
    regions, position = [], 0
    for _ in range(draw(st.integers(0, 8))):
        position += draw(st.integers(0, 5_000))
        length = draw(st.integers(1, 60_000))
        regions.append((position, length))
        position += length
    size = position + draw(st.integers(0, 20_000))
    return hashlib.shake_256(draw(st.binary(max_size=4))).digest(size), regions


@given(layouts())
def test_chunks_cover_the_model_and_none_is_large(layout: tuple[bytes, list[tuple[int, int]]]) -> None:
    """Chunks follow each other without a gap, and none has 32 KiB or more."""
    content, regions = layout
    borders = list(chunk_borders(io.BytesIO(content), len(content), regions))
    assert (borders[0], borders[-1]) == (0, len(content))
    assert all(0 < end - start < 2 * PIECE_BYTES for start, end in pairwise(borders)) or not content


@given(layouts())
def test_a_buffer_begins_and_ends_at_a_border(layout: tuple[bytes, list[tuple[int, int]]]) -> None:
    """A buffer that changes touches its own chunks only, and a large one's have at least 16 KiB."""
    content, regions = layout
    borders = list(chunk_borders(io.BytesIO(content), len(content), regions))
    for start, length in regions:
        if length >= BUFFER_BYTES:
            inside = [border for border in borders if start <= border <= start + length]
            assert (inside[0], inside[-1]) == (start, start + length)
            assert all(end - begin >= min(length, PIECE_BYTES) for begin, end in pairwise(inside))


@given(st.binary(min_size=1, max_size=40), st.integers(0, 60_000), st.integers(0, 3))
def test_what_is_put_in_between_moves_the_cuts_along(inserted: bytes, at: int, seed: int) -> None:
    """A longer name in the middle of the tables changes the few chunks around it and no chunk further behind."""
    content = hashlib.shake_256(bytes([seed])).digest(60_000)
    before, after = (_chunks(data) for data in (content, content[:at] + inserted + content[at:]))
    assert len(after - before) <= 2 + 4 * TABLE_MOST_BYTES // recipes.TABLE_LEAST_BYTES
    assert all(len(chunk) <= TABLE_MOST_BYTES for chunk in after)


def _chunks(content: bytes) -> set[bytes]:
    return {content[start:end] for start, end in pairwise([0, *cut_by_content(content)])}


def test_the_cuts_do_not_depend_on_how_much_is_read_at_once() -> None:
    """A model of any size is cut the same whether it fits into a window or not, and zeros are cut at the most."""
    content = hashlib.shake_256(b"tables").digest(100_000) + bytes(10_000)
    at_once = list(chunk_borders(io.BytesIO(content), len(content), []))
    assert at_once[1:] == cut_by_content(content)
    window = recipes._WINDOW
    try:
        recipes._WINDOW = 8192
        assert list(chunk_borders(io.BytesIO(content), len(content), [])) == at_once
    finally:
        recipes._WINDOW = window
    assert max(end - start for start, end in pairwise(at_once)) == TABLE_MOST_BYTES


def test_a_recipe_of_the_largest_model_stays_small() -> None:
    """The chunks of 4 GiB are larger, not more: a recipe has at most a few ten thousand of them, none above 1 MiB."""

    class Zeros(io.RawIOBase):
        def seek(self, offset: int, whence: int = 0) -> int:
            return offset

        def read(self, size: int = -1) -> bytes:
            return bytes(size)

    for size, regions in ((1 << 28, []), (4 << 30, [(1000, (4 << 30) - 1_000_000)])):
        borders = list(chunk_borders(Zeros(), size, regions))  # type: ignore[arg-type]
        assert len(borders) < recipes.MAX_CHUNKS / 2
        assert max(end - start for start, end in pairwise(borders)) <= MAX_CHUNK_BYTES


def test_a_recipe_describes_the_real_file(tmp_path: Path) -> None:
    """Every chunk's digest is that of the model's bytes at its place, and the large constant has its own chunks."""
    model = write_model(tmp_path, values=100_000)
    content = model.read_bytes()
    regions = buffer_regions(model)
    recipe = make_recipe(model, regions)
    for offset, length, digest in zip(recipe.offsets, recipe.lengths, recipe.digests, strict=True):
        assert hashlib.sha256(content[offset : offset + length]).digest()[:8] == digest
    assert sum(recipe.lengths) == len(content)
    large = max(regions, key=lambda region: region[1])
    assert large[1] == 400_000
    assert large[0] in recipe.offsets
    assert read_recipe(canonical_json(recipe.to_json()), len(content)) == recipe


GOOD = {"schema": 2, "file": "model.tflite", "lengths": [3, 4], "digests": "00" * 16}


@given(
    st.one_of(
        st.binary(max_size=50),
        st.recursive(st.none() | st.integers() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=4)).map(
            lambda value: json.dumps(value).encode()
        ),
        st.sampled_from([*GOOD]).flatmap(
            lambda key: st.sampled_from([None, 1, "x", [], [3, "4"], [3, True], [-1, 8], [3, 4, 0], "00" * 15]).map(
                lambda value: json.dumps(GOOD | {key: value}).encode()
            )
        ),
        st.just(b"[" * 100_000),
        st.just(json.dumps(GOOD | {"lengths": [1 << 60, 7 - (1 << 60)]}).encode()),
    )
)
def test_a_recipe_that_is_none_is_not_used(content: bytes) -> None:
    """Whatever lies in a bundle as recipe.json, it is a sound recipe for the model's size, or none."""
    assert read_recipe(content, 7) is None
    assert read_recipe(json.dumps(GOOD).encode(), 7) is not None
    assert read_recipe(json.dumps(GOOD).encode(), 8) is None
