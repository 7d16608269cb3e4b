"""What a push has to send: pure values."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from edgepack.bundle import RuntimeChoice
from edgepack.deploy.staging import Staging
from edgepack.documents import FileEntry
from edgepack.target import Platform

PLATFORM = Platform("3.11", "aarch64", "glibc-2.36")
# Few digests, so that files with the same content occur; the size belongs to the content.
SIZES = {f"{number:064x}": number * 100 for number in range(6)}
entries = st.sampled_from(sorted(SIZES)).map(lambda digest: (digest, SIZES[digest]))


@st.composite
def stagings(draw: st.DrawFn) -> Staging:
    """A release of some files and wheels."""
    files = [
        FileEntry(f"file-{i}", size, digest) for i, (digest, size) in enumerate(draw(st.lists(entries, max_size=6)))
    ]
    wheels = [
        FileEntry(f"wheels/dist{i}-1.{i}-py3-none-any.whl", size, digest)
        for i, (digest, size) in enumerate(draw(st.lists(entries, max_size=3)))
    ]
    paths = tuple(wheel.path for wheel in wheels)
    choice = RuntimeChoice(PLATFORM, "0" * 16 if wheels else None, "tflite-runtime", "2.14.0", paths, ("numpy",))
    return Staging("app", "1-0", tuple(files), tuple(wheels), choice, PLATFORM.to_json())


holdings = st.dictionaries(st.sampled_from(sorted(SIZES)), st.integers(0, 600))


@given(stagings(), holdings, st.booleans())
def test_what_is_sent_and_what_is_there_make_each_file_whole_once(
    staging: Staging, have: dict[str, int], runtime_present: bool
) -> None:
    """Each content is sent at most once, from where the device's part of it ends; nothing is missing afterwards."""
    pieces = staging.lacking(have, runtime_present=runtime_present)
    assert len({piece.sha256 for piece in pieces}) == len(pieces)
    sent = {piece.sha256: piece for piece in pieces}
    wanted = staging.files + (() if runtime_present else staging.wheels)
    for file in wanted:
        piece = sent.get(file.sha256)
        there = min(have.get(file.sha256, 0), file.bytes)
        if piece is None:
            assert there == file.bytes > 0
        else:
            assert piece.offset == there
            assert piece.bytes == file.bytes
    assert sent.keys() <= {file.sha256 for file in wanted}


@given(stagings())
def test_a_device_that_holds_everything_gets_nothing(staging: Staging) -> None:
    """But for an empty file, which costs nothing: "0 of 0 bytes are there" does not tell whether it is."""
    assert all(piece.bytes == 0 for piece in staging.lacking(SIZES, runtime_present=False))


@given(stagings())
def test_the_device_is_told_what_to_unpack_where(staging: Staging) -> None:
    """device.json names the folders that commit makes of the wheels, in the same order."""
    commit = staging.commit_arguments()
    dists = [wheel["dist"] for wheel in commit["runtime"]["wheels"]] if commit["runtime"] else []
    assert commit["device"]["runtime"]["dists"] == dists == [f"dist{i}" for i in range(len(staging.wheels))]
    assert commit["device"]["runtime"]["installed"] == ["numpy"]
    assert staging.bytes == sum(SIZES[digest] for digest in {file.sha256 for file in staging.files + staging.wheels})


@given(stagings())
def test_a_pinned_device_is_asked_with_what_commit_will_say_of_the_runtime(staging: Staging) -> None:
    """It sees the manifest and the wheels, so that it can tell its unpacked runtime; others are shown no manifest."""
    shown = dataclasses.replace(staging, shown="{}").missing_arguments()
    assert (shown["runtime"], shown["manifest"]) == (staging.commit_arguments()["runtime"], "{}")
    plain = staging.missing_arguments()
    assert "manifest" not in plain
    assert plain["runtime"] == ({"id": "0" * 16} if staging.wheels else None)


def test_for_people_the_fit_names_what_comes_along() -> None:
    """The sentence names distributions and versions, not file names."""
    wheel = FileEntry("wheels/numpy-1.26.4-cp311-cp311-manylinux2014_aarch64.whl", 1, "a" * 64)
    choice = RuntimeChoice(PLATFORM, "0" * 16, "tflite-runtime", "2.14.0", (wheel.path,), ("tflite-runtime",))
    staging = Staging("app", "1-0", (), (wheel,), choice, PLATFORM.to_json())
    assert staging.fit == "brings numpy 1.26.4; uses the device's own tflite-runtime"
