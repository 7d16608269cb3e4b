"""The bundle file: one way to write it, everything else refused."""

from __future__ import annotations

import bz2
import contextlib
import io
import stat
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_tiny import FILES, content_of, entry, manifest_value, write_tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepack.bundle import layout
from edgepack.bundle.archive import open_bundle, write_archive
from edgepack.documents import FileEntry, canonical_json
from edgepack.errors import EdgepackError, InputError, IntegrityError


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A sound bundle of three files."""
    return write_tiny(tmp_path / "tiny.edgepack")


def read(path: Path) -> None:
    """Everything that verify does."""
    open_bundle(path).verify()


def test_what_was_written_is_read_again(tiny: Path) -> None:
    """Each file comes out of a bundle as it went in."""
    bundle = open_bundle(tiny)
    bundle.verify()
    assert {path: content_of(bundle, path) for path in bundle.entries} == FILES
    with bundle.open_entry("loader.py") as stream:
        assert (stream.read(3), stream.read()) == (b"pri", b"nt()\n")
    assert bundle.release.startswith("1.0.0-")
    assert bundle.size == tiny.stat().st_size


def test_ordinary_zip_tools_can_look_inside(tiny: Path) -> None:
    """A bundle is a ZIP: whoever has no edgepack can list and extract it."""
    with zipfile.ZipFile(tiny) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["manifest.json", *sorted(FILES)]
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        packed = {info.filename for info in archive.infolist() if info.compress_type == zipfile.ZIP_BZIP2}
        assert packed == {"loader.py"}
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED, zipfile.ZIP_BZIP2}


def test_every_changed_byte_is_noticed(tiny: Path) -> None:
    """Whichever byte of a bundle is changed, verify ends in exit code 6."""
    content = tiny.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 0x41
        tiny.write_bytes(changed)
        with pytest.raises(IntegrityError):
            read(tiny)


def test_every_cut_is_noticed(tiny: Path) -> None:
    """A bundle cut short anywhere is a damaged bundle (exit 6); its first three bytes alone are no bundle (exit 2)."""
    content = tiny.read_bytes()
    for length in range(len(content)):
        tiny.write_bytes(content[:length])
        with pytest.raises(IntegrityError if length >= 4 else InputError):
            open_bundle(tiny)


def test_appended_and_prepended_bytes_are_refused(tiny: Path) -> None:
    """Nothing can be hidden behind or before a bundle."""
    content = tiny.read_bytes()
    for changed in (content + b"x", b"x" + content, content + content, b"#!/bin/sh\n" + content):
        tiny.write_bytes(changed)
        with pytest.raises(IntegrityError):
            open_bundle(tiny)


@pytest.mark.parametrize(
    "name",
    [
        "../evil", "a/../../evil", "/etc/passwd", "a\\b", "C:evil", "a//b", "./a", "a/", ".hidden", "a\nb", "a\x7fb",
        "a" * 201, "MODEL.tflite", "model.tflite/x", "a b",
    ],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    """No path in a bundle can leave its folder, collide with another, or confuse a terminal."""
    files = {**FILES, name: b"x"}
    manifest = canonical_json(manifest_value(FILES, files=[entry(path, files[path]) for path in sorted(files)]))
    path = write_tiny(tmp_path / "evil.edgepack", files, manifest=manifest)
    with pytest.raises(IntegrityError):
        open_bundle(path)


def test_a_file_that_the_manifest_does_not_list_is_refused(tmp_path: Path) -> None:
    """Nothing travels with a bundle that its manifest, and so its release id, does not cover."""
    manifest = canonical_json(manifest_value(FILES))
    for files in ({**FILES, "extra": b"x"}, {"model.tflite": FILES["model.tflite"]}):
        with pytest.raises(IntegrityError):
            open_bundle(write_tiny(tmp_path / "b.edgepack", files, manifest=manifest))


def rezip(content: bytes, change: Callable[[zipfile.ZipFile, list[tuple[zipfile.ZipInfo, bytes]]], None]) -> bytes:
    """The bundle written again by Python's own zipfile, after ``change`` had its way."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        change(archive, members)
    return out.getvalue()


def _as_is(archive: zipfile.ZipFile, members: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
    for info, data in members:
        archive.writestr(info.filename, data)


def _compressed(archive: zipfile.ZipFile, members: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
    for info, data in members:
        archive.writestr(info.filename, data, compress_type=zipfile.ZIP_DEFLATED)


def _duplicate(archive: zipfile.ZipFile, members: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
    for info, data in [*members, members[-1]]:
        archive.writestr(info, data)


def _symlink(archive: zipfile.ZipFile, members: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
    for info, data in members:
        if info.filename == "loader.py":
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, data)


def _commented(archive: zipfile.ZipFile, members: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
    _as_is(archive, members)
    archive.comment = b"hello"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("change", [_as_is, _compressed, _duplicate, _symlink, _commented])
def test_a_bundle_that_was_packed_again_is_refused(
    tiny: Path, change: Callable[[zipfile.ZipFile, list[tuple[zipfile.ZipInfo, bytes]]], None]
) -> None:
    """Times, compression, symlinks, duplicates and comments have no place in a bundle."""
    tiny.write_bytes(rezip(tiny.read_bytes(), change))
    with pytest.raises(IntegrityError):
        open_bundle(tiny)


def _escaping(archive: zipfile.ZipFile, members: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
    _as_is(archive, members)
    archive.writestr("../evil", b"")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("change", "told"), [(_escaping, r"'\.\./evil' is not allowed"), (_duplicate, "twice")])
def test_the_error_names_the_entry(
    tiny: Path, change: Callable[[zipfile.ZipFile, list[tuple[zipfile.ZipInfo, bytes]]], None], told: str
) -> None:
    """A path out of the bundle, or one that is there twice, is told as what it is."""
    tiny.write_bytes(rezip(tiny.read_bytes(), change))
    with pytest.raises(IntegrityError, match=told):
        open_bundle(tiny)


def test_an_empty_file_is_told_as_empty(tmp_path: Path) -> None:
    """The commonest broken download."""
    (tmp_path / "a.edgepack").touch()
    with pytest.raises(InputError, match="is empty"):
        open_bundle(tmp_path / "a.edgepack")


@pytest.mark.parametrize("field_offset", [18, 22], ids=["stored size", "real size"])
def test_a_lying_size_is_refused(tiny: Path, field_offset: int) -> None:
    """A header that claims gigabytes is held against the file before anything is read or allocated."""
    content = bytearray(tiny.read_bytes())
    struct.pack_into("<I", content, field_offset, 0xFFFFFFF0)
    central = content.rfind(layout.CENTRAL_MAGIC)
    struct.pack_into("<I", content, central + field_offset + 2, 0xFFFFFFF0)
    tiny.write_bytes(content)
    with pytest.raises(IntegrityError):
        open_bundle(tiny)


def packed_otherwise(path: Path, content: bytes, packed: bytes) -> Path:
    """A bundle whose loader.py is vouched for as ``content``, and lies in it as ``packed``."""

    class Packer:
        def compress(self, piece: bytes) -> bytes:
            return b""

        def flush(self) -> bytes:
            return packed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[write_archive.__module__], "packer", Packer)
        return write_tiny(path, {**FILES, "loader.py": content})


@pytest.mark.parametrize(
    ("content", "packed"),
    [
        (b"print()\n", bz2.compress(b"print()\n", 1)),
        (b"print()\n", bz2.compress(b"print()\n") + b"more"),
        (b"print()\n", bz2.compress(b"print") + bz2.compress(b"()\n")),
        (b"print()\n", bz2.compress(b"print()\n" + bytes(1 << 26))),
        (b"print()\n", bz2.compress(b"print()\n")[:-1]),
        (b"print()\n", b"print()\n"),
        (b"", b""),
    ],
    ids=["another level", "more behind it", "two streams", "a bomb", "cut", "unpacked", "empty"],
)
def test_a_source_that_is_packed_otherwise_is_refused(tmp_path: Path, content: bytes, packed: bytes) -> None:
    """There is one packed form of a file: nothing hides in another, and none unfolds into more than it says."""
    bundle = open_bundle(packed_otherwise(tmp_path / "b.edgepack", content, packed))
    with pytest.raises(IntegrityError, match=r"loader\.py in .* is not packed as edgepack packs it"):
        bundle.verify()
    with pytest.raises(IntegrityError):
        bundle.open_entry("loader.py")


@pytest.mark.parametrize(("size", "packed"), [((1 << 20) + 1, 10), (10, (1 << 20) + 1)])
def test_a_packed_file_above_its_bound_is_refused_unread(tmp_path: Path, size: int, packed: int) -> None:
    """What is unpacked in memory has at most 1 MiB, packed and unpacked."""
    path = packed_otherwise(tmp_path / "b.edgepack", bytes(size), bytes(packed))
    with pytest.raises(IntegrityError, match=r"loader\.py is larger than 1 MiB"):
        open_bundle(path)


def test_a_huge_manifest_is_refused_unread(tmp_path: Path) -> None:
    """A manifest of more than 1 MiB is not parsed."""
    manifest = canonical_json(manifest_value(FILES, provenance={"text": "x" * (1 << 20)}))
    with pytest.raises(IntegrityError, match="larger than 1 MiB"):
        open_bundle(write_tiny(tmp_path / "b.edgepack", manifest=manifest))


def test_what_is_no_bundle_is_bad_input(tmp_path: Path) -> None:
    """A missing file, a folder, an .npz or a text is exit 2 with the command that makes a bundle."""
    samples = tmp_path / "samples.npz"
    with zipfile.ZipFile(samples, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").touch()
    (tmp_path / "emptyzip").write_bytes(b"PK\x05\x06" + bytes(18))
    for name in ("samples.npz", "text", "empty", "emptyzip", "missing", "."):
        with pytest.raises(InputError) as caught:
            open_bundle(tmp_path / name)
        assert caught.value.code == "not-a-bundle"
        assert caught.value.hint


def test_a_file_that_changes_while_it_is_bundled_is_noticed(tmp_path: Path) -> None:
    """A model that is rewritten during `bundle` never ends up under an older digest."""
    source = tmp_path / "model"
    source.write_bytes(b"new")
    with pytest.raises(InputError, match="changed"), (tmp_path / "out").open("wb") as stream:
        write_archive(stream, b"{}", [(FileEntry(**entry("model.tflite", b"old")), source)])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_content_makes_the_reader_crash(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever a file holds, opening it ends in one of edgepack's own errors or in a bundle."""
    content = bytearray(write_tiny(tmp_path / "f.edgepack").read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(content)))
        piece = data.draw(
            st.binary(max_size=8) | st.sampled_from([b"PK\x01\x02", b"PK\x05\x06", b"\xff" * 4, bytes(4)])
        )
        removed = data.draw(st.integers(0, 8))
        content[position : position + removed] = piece
    path = tmp_path / "f.edgepack"
    path.write_bytes(content)
    with contextlib.suppress(EdgepackError):
        read(path)
