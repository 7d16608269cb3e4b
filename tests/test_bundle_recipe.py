"""recipe.json: the model's chunks."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

from bundle_models import write_model
from hypothesis import given
from hypothesis import strategies as st

from edgepack.bundle.recipe import CHUNK_BYTES, chunk_borders, make_recipe
from edgepack.tflite import buffer_regions


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """A file's size and disjoint buffers inside it."""
    regions, position = [], 0
    for _ in range(draw(st.integers(0, 12))):
        position += draw(st.integers(0, 100_000))
        length = draw(st.integers(1, 400_000))
        regions.append((position, length))
        position += length
    return position + draw(st.integers(0, 100_000)), regions


@given(layouts())
def test_chunks_cover_the_model_and_none_is_large(layout: tuple[int, list[tuple[int, int]]]) -> None:
    """Chunks follow each other without a gap, and none has 128 KiB or more."""
    size, regions = layout
    borders = chunk_borders(size, regions)
    assert borders[0] == 0
    assert borders[-1] == size
    assert all(0 < end - start < 2 * CHUNK_BYTES for start, end in pairwise(borders))


@given(layouts())
def test_a_large_buffer_begins_and_ends_at_a_border(layout: tuple[int, list[tuple[int, int]]]) -> None:
    """A large buffer that changes touches its own chunks only, and those have at least 64 KiB."""
    size, regions = layout
    borders = chunk_borders(size, regions)
    for start, length in regions:
        if length >= CHUNK_BYTES:
            inside = [border for border in borders if start <= border <= start + length]
            assert inside[0] == start
            assert inside[-1] == start + length
            assert all(end - begin >= CHUNK_BYTES for begin, end in pairwise(inside))


def test_a_recipe_describes_the_real_file(tmp_path: Path) -> None:
    """Every chunk's digest is that of the model's bytes at its place, and the large constant has its own chunks."""
    model = write_model(tmp_path, values=100_000)
    content = model.read_bytes()
    regions = buffer_regions(model)
    recipe = make_recipe(model, regions)
    assert recipe["file"] == "model.tflite"
    for chunk in recipe["chunks"]:
        piece = content[chunk["offset"] : chunk["offset"] + chunk["bytes"]]
        assert hashlib.sha256(piece).hexdigest() == chunk["sha256"]
    assert sum(chunk["bytes"] for chunk in recipe["chunks"]) == len(content)
    large = max(regions, key=lambda region: region[1])
    assert large[1] == 400_000
    assert large[0] in {chunk["offset"] for chunk in recipe["chunks"]}
