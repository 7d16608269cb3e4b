"""Bundles, wheels and replies that were made to do harm, each kind by itself."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import stat
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agent_client import AGENT, FIND_MODULES, AgentClient, AgentFailure, FakeRelease, device_pythons, digest, new_op
from bundle_models import write_model
from bundle_tiny import FILES, manifest_value, write_tiny
from fuzzing import GUARD, SOUND, TINY, TOY_WHEEL, make_wheel, make_zip, nested, npy, npz_of, record_row

import edgepack
from edgepack.bundle import checkset, layout
from edgepack.bundle.archive import open_bundle
from edgepack.device import ConnectOptions, open_session
from edgepack.device.facts import DeviceFacts
from edgepack.device.local import LocalTransport
from edgepack.device.wire import FrameReader
from edgepack.documents import canonical_json
from edgepack.errors import DeviceFailure, EdgepackError, InputError, IntegrityError

MIB = 1 << 20
MODEL, LOADER = ("model.tflite", FILES["model.tflite"]), ("loader.py", FILES["loader.py"])


def peak_of(call: Callable[[], object]) -> int:
    """The most bytes that Python held while it ran."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------------------------------------------- bundles


def zip_of(*members: tuple[str | bytes, bytes] | tuple[str | bytes, bytes, dict[str, int]], between: bytes = b"",
           **ending: int) -> bytes:  # fmt: skip
    """A sound manifest and those members, written field by field."""
    rows = [((name.encode() if isinstance(name, str) else name), data, dict(*lies)) for name, data, *lies in members]
    return make_zip([(b"manifest.json", SOUND, {"crc": zlib.crc32(SOUND)}), *rows], ending, between)


def deflated_bomb() -> bytes:
    """A bundle whose model is 64 MiB of zeros in 64 KiB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", SOUND)
        archive.writestr("model.tflite", bytes(64 * MIB))
    return buffer.getvalue()


def zip64_of(count: int, size: int) -> bytes:
    """A bundle with a zip64 end before its end (APPNOTE 4.3.14, 4.3.15), which says another size of its directory."""
    content = zip_of(MODEL)
    body, end = content[:-22], content[-22:]
    record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, len(body), 1)
    fields = list(struct.unpack("<4sHHHHIIH", end))
    fields[5] += len(record) + len(locator)
    return body + record + locator + struct.pack("<4sHHHHIIH", *fields)


def with_descriptor() -> bytes:
    """A bundle whose sizes stand behind the data (APPNOTE 4.3.9), zeros in the local header."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:
        archive.writestr("manifest.json", SOUND)
        archive.writestr(*MODEL)
    return pipe.getvalue()


def patched(offset: int, form: str, value: int, where: bytes = layout.CENTRAL_MAGIC, last: bool = True) -> bytes:
    """A sound bundle with one field of a header changed."""
    content = bytearray(TINY)
    struct.pack_into(form, content, (content.rfind(where) if last else content.find(where)) + offset, value)
    return bytes(content)


def with_mode(mode: int) -> bytes:
    """A bundle whose loader is something else than a regular file."""
    return zip_of((LOADER[0], b"/etc/passwd", {"mode": mode}), MODEL)


LINK = {"extra": 16, "name": len("loader.py")}
HOSTILE_BUNDLES = {
    "symbolic link": with_mode(stat.S_IFLNK | 0o777),
    "character device": with_mode(stat.S_IFCHR | 0o666),
    "block device": with_mode(stat.S_IFBLK | 0o666),
    "pipe": with_mode(stat.S_IFIFO | 0o666),
    "socket": with_mode(stat.S_IFSOCK | 0o666),
    "set-uid file": with_mode(stat.S_IFREG | 0o4755),
    "folder": zip_of(("a/", b""), MODEL),
    # Info-ZIP keeps a hard link's target in the extra field 0x000d (APPNOTE 4.5.7); no header of ours has any.
    "hard link": zip_of(MODEL, (b"loader.py" + struct.pack("<HH12s", 13, 12, b"model.tflite"), b"", LINK)),
    "extra field": zip_of(("model.tflite", MODEL[1], {"extra": 4})),
    "step upward": zip_of(("../evil", b"x"), MODEL),
    "step upward inside": zip_of(("a/../../evil", b"x"), MODEL),
    "absolute": zip_of(("/etc/evil", b"x"), MODEL),
    "drive": zip_of(("C:/evil", b"x"), MODEL),
    "backslash": zip_of(("..\\evil", b"x"), MODEL),
    "network path": zip_of(("//server/evil", b"x"), MODEL),
    "newline": zip_of(("a\nb", b"x"), MODEL),
    "double quote": zip_of(('a"b', b"x"), MODEL),
    "single quote": zip_of(("a'b", b"x"), MODEL),
    "shell": zip_of(("$(reboot)", b"x"), MODEL),
    "NUL": zip_of((b"model.tflite\x00.txt", b"x"), MODEL),
    "terminal escape": zip_of((b"\x1b[2Jx", b"x"), MODEL),
    "not UTF-8": zip_of((b"\xff\xfe", b"x"), MODEL),
    "UTF-8": zip_of(("\u00e9", b"x"), MODEL),
    "empty name": zip_of(("", b"x"), MODEL),
    "dot": zip_of((".", b"x"), MODEL),
    "long name": zip_of(("a" * 60_000, b"x"), MODEL),
    "same name twice": zip_of(MODEL, MODEL),
    "same name but for case": zip_of(("MODEL.tflite", MODEL[1]), MODEL),
    "file and folder of one name": zip_of(MODEL, ("model.tflite/x", b"x")),
    "second manifest": zip_of(("manifest.json", b"{}"), MODEL),
    "ratio": deflated_bomb(),
    "many entries": make_zip([(b"manifest.json", SOUND, {})] + [(b"%d" % i, b"", {}) for i in range(20_000)], {}, b""),
    "entries beyond what the end says": zip_of(*[(f"{i}", b"") for i in range(300)], MODEL, count=2),
    "size in the directory": patched(24, "<I", 99),
    "stored size in the directory": patched(20, "<I", 99),
    "size in the local header": patched(22, "<I", 99, layout.LOCAL_MAGIC),
    "name in the local header": patched(30, "<H", 0x2E2E, layout.LOCAL_MAGIC),
    "4 GiB": patched(24, "<I", 0xFFFFFFFF),
    "offset in the directory": patched(42, "<I", 0),
    "data descriptor": with_descriptor(),
    "descriptor's flag": patched(8, "<H", 8),
    "encrypted": patched(8, "<H", 1),
    "method": patched(10, "<H", 8),
    "zip64 of many entries": zip64_of(2**40, 2**50),
    "zip64 beyond every file": zip64_of(2**64 - 1, 2**64 - 1),
    "overlapping": zip_of(MODEL, ("z", MODEL[1], {"offset": 0})),
    "bytes between": zip_of(MODEL, between=b"#!/bin/sh\n"),
    "bytes before": b"MZ" + TINY,
    "bytes after": TINY + b"x",
    "comment": TINY[:-2] + b"\x03\x00abc",
    "another disk": patched(4, "<H", 1, layout.END_MAGIC),
    "directory beyond the file": patched(16, "<I", 0xFFFFFF00, layout.END_MAGIC),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE_BUNDLES)
def test_a_hostile_bundle_is_refused(kind: str, tmp_path: Path) -> None:
    """Exit 6, one line that a terminal survives, at most 16 MiB of memory, and nothing written or started."""
    path = tmp_path / "b.edgepack"
    path.write_bytes(HOSTILE_BUNDLES[kind])
    (tmp_path / "guarded").mkdir()

    def refuse() -> None:
        with pytest.raises(IntegrityError) as caught:
            open_bundle(path).verify()
        assert caught.value.code in ("bad-bundle", "bad-manifest")
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 700

    with GUARD.on(tmp_path / "guarded"):
        peak = peak_of(refuse)
    assert peak < 16 * MIB


def files_named(count: int, width: int) -> dict[str, bytes]:
    """So many files with the model, each path of that many characters."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    names = ("".join(letters) for letters in itertools.product(digits, repeat=width))
    return {MODEL[0]: MODEL[1], **dict.fromkeys(itertools.islice(names, count - 1), b"")}


def test_ten_thousand_files_are_too_many(tmp_path: Path) -> None:
    """A bundle of 9,999 files and a manifest is read, one more is exit 6: short paths leave room for as many."""
    path = tmp_path / "b.edgepack"
    assert len(open_bundle(write_tiny(path, files_named(9_999, 3))).entries) == 9_999
    with pytest.raises(IntegrityError, match="its directory is too large"):
        open_bundle(write_tiny(path, files_named(10_000, 3)))


def test_a_manifest_of_one_mib_is_the_limit_of_files_with_longer_paths(tmp_path: Path) -> None:
    """A manifest of 1 MiB is read, one byte more is exit 6, however few its files are."""
    files, path = files_named(6_000, 60), tmp_path / "b.edgepack"
    spare = (1 << 20) - len(canonical_json(manifest_value(files, provenance={"x": ""})))
    for more in (0, 1):
        manifest = canonical_json(manifest_value(files, provenance={"x": "x" * (spare + more)}))
        assert len(manifest) == (1 << 20) + more
        write_tiny(path, files, manifest=manifest)
        with pytest.raises(IntegrityError, match="larger than 1 MiB") if more else contextlib.nullcontext():
            assert len(open_bundle(path).entries) == 6_000


def bundle_with_check_set(path: Path, check_set: bytes) -> Path:
    """A bundle whose digests are right and whose check set is that."""
    return write_tiny(path, {**FILES, "check.npz": check_set})


def test_a_check_set_of_endless_names_takes_no_memory(tmp_path: Path) -> None:
    """A check set whose directory has 200,000 lines, said in a zip64 end: `inspect` notes it, `verify` refuses it."""
    line = layout.central_header(layout.Member("a", 0, 0, 0, 0))
    directory = line * 200_000
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 200_000, 200_000, len(directory), 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(directory), 1)
    for end in (record + locator + layout.end_record(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
                layout.end_record(0xFFFF, len(directory), 0)):  # fmt: skip
        path = bundle_with_check_set(tmp_path / "b.edgepack", directory + end)
        assert peak_of(lambda path=path: edgepack.inspect(path)) < 4 * MIB
        assert any("its directory is larger" in note for note in edgepack.inspect(path).contents.notes)
        with pytest.raises(IntegrityError, match="its directory is larger") as caught:
            edgepack.verify(path)
        assert caught.value.code == "bad-check-set"


BAD_CHECK_SETS = {
    "a lying size": (npz_of([("input/x.npy", npy("(200000000,)", "'<f4'", b""))]), "has another size"),
    "two of 600 KiB": (npz_of([(f"input/{n}.npy", npy("(600, 1024)", "'|i1'", bytes(600 << 10))) for n in "xy"],
                              zipfile.ZIP_DEFLATED), "its arrays hold 1,228,800 bytes, and a device takes 1 MiB"),
    "objects": (npz_of([("input/x.npy", npy("(1,)", "'|O'", b"x"))]), "is no array of numbers"),
    "bzip2": (npz_of([("input/x.npy", npy("(1,)", "'|i1'", b"x"))], zipfile.ZIP_BZIP2), "compressed in a way"),
    "no .npz": (b"PK nothing", "it is no .npz"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_CHECK_SETS)
def test_a_check_set_that_no_device_could_take_is_refused_on_the_host(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`bundle` says so (exit 2), `verify` and `push` of a bundle that holds one as well (exit 6); nothing is sent."""
    monkeypatch.setattr(checkset, "MAX_BYTES", MIB)
    check_set, said = BAD_CHECK_SETS[kind]
    model = write_model(tmp_path)
    model.with_suffix(".check.npz").write_bytes(check_set)
    with pytest.raises(InputError, match=said) as told:
        edgepack.bundle(model, target="generic-cpu", name="a", version="1", output=tmp_path / "a.edgepack",
                        with_runtime=False)  # fmt: skip
    assert (told.value.code, (tmp_path / "a.edgepack").exists()) == ("bad-check-set", False)
    path = bundle_with_check_set(tmp_path / "b.edgepack", check_set)
    for refuse in (lambda: edgepack.verify(path), lambda: edgepack.push(path, f"local:{tmp_path}/root")):
        with pytest.raises(IntegrityError, match=said) as caught:
            assert peak_of(refuse) < 16 * MIB
        assert caught.value.code == "bad-check-set"
    assert not (tmp_path / "root").exists()


def test_a_sparse_file_of_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    """A file of 4 GiB of nothing, with the end of a bundle, is refused in the memory of a small one."""
    path = tmp_path / "b.edgepack"
    with path.open("wb") as stream:
        stream.truncate(1 << 32)
        stream.seek(0, os.SEEK_END)
        stream.write(zip64_of(10, 1 << 32)[-98:])

    def refuse() -> None:
        with pytest.raises(EdgepackError) as caught:
            open_bundle(path)
        assert caught.value.exit_code in (2, 6)

    assert peak_of(refuse) < 32 * MIB


@pytest.mark.parametrize(
    "content",
    [
        SOUND.replace(b'"provenance":null', b'"provenance":' + nested(40, "{").encode()),
        SOUND.replace(b'"schema":1', b'"schema":' + nested(990, "[").encode()),
        SOUND.replace(b'"bytes":', b'"bytes":1' + b"0" * 5000, 1),
        SOUND.replace(b'"bytes":', b'"bytes":1e', 1),
        SOUND.replace(b'"counter":null', b'"counter":NaN'),
        SOUND.replace(b'"counter":null', b'"counter":-Infinity'),
        SOUND.replace(b'"counter":null', b'"counter":1e999'),
        SOUND.replace(b'"counter":null', b'"counter":null,"counter":1'),
        SOUND.replace(b'"name":"app"', b'"name":"\\u0061pp"'),
        b"\xef\xbb\xbf" + SOUND,
        SOUND.decode().encode("utf-16"),
        SOUND + b"\x00",
        b"null",
        canonical_json(manifest_value(FILES, schema=True)),
    ],
    ids=["40 levels", "990 levels", "5,000 digits", "exponent", "NaN", "infinity", "overflow", "key twice", "escape",
         "byte order mark", "UTF-16", "NUL", "null", "schema true"],
)  # fmt: skip
def test_a_hostile_manifest_is_refused(content: bytes, tmp_path: Path) -> None:
    """JSON that two readers could understand differently, or that no other part of edgepack could write, is exit 6."""
    with pytest.raises(IntegrityError) as caught:
        open_bundle(write_tiny(tmp_path / "b.edgepack", manifest=content))
    assert caught.value.code == "bad-manifest"
    assert len(caught.value.message) < 300


# ---------------------------------------------------------------------------------------- wheels inside of a bundle


def record_of(*rows: str) -> str:
    """A RECORD that fits the toy's one file, and says those lines as well."""
    return "".join([record_row("toy/a.py", b"a"), *rows, "toy-1.dist-info/RECORD,,\n"])


def wheel_of(*files: tuple[str, bytes], **options: Any) -> bytes:
    """A wheel of one sound file and those."""
    return make_wheel([("toy/a.py", b"a"), *files], **options)


def with_member(info: zipfile.ZipInfo, data: bytes) -> bytes:
    """A wheel with a member that its RECORD lists, of any kind."""
    buffer = io.BytesIO(wheel_of(record=record_of(record_row(info.filename, data))))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(info, data)
    return buffer.getvalue()


def with_kind(mode: int) -> bytes:
    """A wheel with a member that is no regular file."""
    info = zipfile.ZipInfo("toy/odd")
    info.external_attr = mode << 16
    return with_member(info, b"/etc/passwd")


def twice(name: str, again: str) -> bytes:
    """A wheel in which two members come to one path."""
    return wheel_of((name, b"x"), (again, b"x"))


def record_bomb(claimed: int) -> bytes:
    """A wheel whose RECORD inflates to 160 MiB and claims another size."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("toy/a.py", b"a")
        with archive.open("toy-1.dist-info/RECORD", "w", force_zip64=True) as file:
            for _ in range(40):
                file.write(bytes(4 * MIB))
    content = bytearray(buffer.getvalue())
    struct.pack_into("<I", content, content.rfind(layout.CENTRAL_MAGIC) + 24, claimed)
    return bytes(content)


def changed(offset: int, form: str, value: int, where: bytes = layout.CENTRAL_MAGIC) -> bytes:
    """The sound wheel with one field of its first header of that kind changed."""
    content = bytearray(TOY_WHEEL)
    struct.pack_into(form, content, content.find(where) + offset, value)
    return bytes(content)


def broken_stream_in(wheel: bytes) -> bytes:
    """A wheel whose first deflated stream is none."""
    data = wheel.find(b"toy/__init__.py") + len("toy/__init__.py")
    return wheel[:data] + b"\xff" * 8 + wheel[data + 8 :]


def name_replaced(old: bytes, new: bytes) -> bytes:
    """The sound wheel with a name of the same length in the place of another."""
    return TOY_WHEEL.replace(old, new)


HOSTILE_WHEELS: dict[str, Callable[[], bytes]] = {
    "symbolic link": lambda: with_kind(stat.S_IFLNK | 0o777),
    "device": lambda: with_kind(stat.S_IFCHR | 0o666),
    "pipe": lambda: with_kind(stat.S_IFIFO | 0o666),
    "step upward": lambda: wheel_of(("../evil", b"x")),
    "step upward out of data": lambda: wheel_of(("toy-1.data/purelib/../../evil", b"x")),
    "absolute": lambda: wheel_of(("/tmp/evil", b"x")),
    "absolute in data": lambda: wheel_of(("toy-1.data/purelib//tmp/evil", b"x")),
    "backslash": lambda: wheel_of(("..\\evil", b"x")),
    "newline": lambda: wheel_of(("toy/a\nb", b"x")),
    "long name": lambda: wheel_of(("a" * 300, b"x")),
    "long path": lambda: wheel_of(("a/" * 3000 + "b", b"x")),
    "same name twice": lambda: twice("toy/b", "toy/b"),
    "same path by data": lambda: twice("toy/b", "toy-1.data/purelib/toy/b"),
    "file and folder of one name": lambda: twice("toy/b", "toy/b/c"),
    "NUL": lambda: name_replaced(b"toy/data.bin", b"toy/dat\0.bin"),
    "not UTF-8": lambda: changed(8, "<H", 0x800).replace(b"toy/__init__.py", b"\xff\xfey/__init__.py"),
    "half a surrogate pair": lambda: changed(8, "<H", 0x800).replace(b"toy/__init__.py", b"\xed\xa0\x80/__init__.py"),
    "empty name": lambda: zip_of(("", b"x")),
    "RECORD bomb": lambda: record_bomb(100),
    "RECORD of gigabytes": lambda: record_bomb(0xFFFFFFF0),
    "RECORD with a NUL": lambda: wheel_of(record=record_of("a\0b,sha256=x,1\n")),
    "RECORD of one field": lambda: wheel_of(record='"' + "x" * 200_000),
    "RECORD of a device": lambda: wheel_of(record=record_of("/dev/zero,sha256=x,1\n")),
    "two RECORDs": lambda: wheel_of(("b-1.dist-info/RECORD", b"")),
    "bzip2 bomb": lambda: wheel_of(("toy/b", bytes(4 * MIB)), method=zipfile.ZIP_BZIP2),
    "LZMA": lambda: wheel_of(("toy/b", bytes(MIB)), method=zipfile.ZIP_LZMA),
    "broken stream": lambda: broken_stream_in(TOY_WHEEL),
    "encrypted": lambda: changed(8, "<H", 1),
    "size": lambda: changed(24, "<I", 5),
    "size of gigabytes": lambda: changed(24, "<I", 0xFFFFFFF0),
    "offset": lambda: changed(42, "<I", 0x7FFFFFFF),
    "overlapping": lambda: changed(42, "<I", 60),
    "version": lambda: changed(6, "<H", 99),
    "zip64 of gigabytes": lambda: TOY_WHEEL[:-22] + struct.pack("<4sIQI", b"PK\x06\x07", 0, 0, 1) + TOY_WHEEL[-22:],
    "many entries": lambda: make_zip([(b"%d" % i, b"", {}) for i in range(12_000)], {}, b""),
    "large directory": lambda: make_zip([(b"%060d" % i, b"", {}) for i in range(50_000)], {"count": 5}, b""),
    "bytes after": lambda: TOY_WHEEL + b"x" * 30,
    "no zip": lambda: b"PK",
    "empty": lambda: b"",
}

UNPACK = f"""{FIND_MODULES}
import json, os
from edgepack_agent import wheels
found = {{}}
for name in sorted(os.listdir(sys.argv[2])):
    try:
        wheels.unpack_wheel(os.path.join(sys.argv[2], name), name, os.path.join(sys.argv[3], "in", name))
        found[name] = ["taken", "", 0]
    except wheels.AgentError as error:
        found[name] = [error.code, error.message, 0]
    except BaseException as error:
        found[name] = ["%s" % type(error).__name__, str(error), 0]
    found[name][2] = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[Any]]]:
    """What the oldest Python that is here, and the newest, made of each hostile wheel, and of the sound one."""
    folder = tmp_path_factory.mktemp("wheels")
    (folder / "archives").mkdir()
    for name, make in {**HOSTILE_WHEELS, "sound": lambda: TOY_WHEEL}.items():
        (folder / "archives" / name).write_bytes(make())
    pythons = list(device_pythons().items())
    results = {}
    for version, python in {pythons[0], pythons[-1]}:
        place = folder / version
        (place / "in").mkdir(parents=True)
        argv = [python, "-I", "-c", UNPACK, str(AGENT), str(folder / "archives"), str(place)]
        done = subprocess.run(argv, capture_output=True, check=True, timeout=100)
        results[version] = json.loads(done.stdout)
        assert [entry.name for entry in place.iterdir()] == ["in"]
        assert not Path("/tmp/evil").exists()
    return results


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", HOSTILE_WHEELS)
def test_a_hostile_wheel_is_refused_on_the_device(kind: str, unpacked: dict[str, dict[str, list[Any]]]) -> None:
    """A wheel that lies ends in digest-mismatch (exit 6) on the oldest and newest Python, in words for a terminal."""
    for found in unpacked.values():
        assert found["sound"][:2] == ["taken", ""]
        code, message, _ = found[kind]
        assert code == "digest-mismatch", message
        assert message.isprintable()
        assert len(message) < 600


def test_hostile_wheels_take_no_memory(unpacked: dict[str, dict[str, list[Any]]]) -> None:
    """The bombs among them leave the device's Python below 128 MiB, its own 20 MiB included."""
    for found in unpacked.values():
        assert max(peak_kib for _, _, peak_kib in found.values()) < 128 * 1024


# ------------------------------------------------------------------------------------------------------ the agent


def good_frames(root: Path) -> bytes:
    """A whole session: hello, a file, a commit, and what is there."""
    release = FakeRelease(contents={"model.tflite": b"model"})
    frames = [{"verb": "hello", "protocol": 1, "root": str(root), "lock": True}]
    sent = b"".join(json.dumps({"id": i, "n": 0, **frame}).encode() + b"\n" for i, frame in enumerate(frames))
    for data in release.files.values():
        header = {"id": 1, "verb": "put", "n": len(data), "sha256": digest(data), "bytes": len(data), "offset": 0}
        sent += json.dumps(header).encode() + b"\n" + data
    return sent + json.dumps({"id": 2, "verb": "commit", "n": 0, **release.commit_arguments()}).encode() + b"\n"


def serve_really(data: bytes) -> tuple[int, list[dict[str, Any]]]:
    """What a real agent in a process of its own answers, and how it ends."""
    agent = subprocess.run(
        [sys.executable, "-I", "-u", str(AGENT)], input=data, capture_output=True, timeout=60, check=False
    )
    assert b"Traceback" not in agent.stdout
    assert b"Traceback" not in agent.stderr
    return agent.returncode, [json.loads(line) for line in agent.stdout.splitlines()[2:]]


@pytest.mark.parametrize("cut", [1, 60, 150, 300, 500, 700, 900])
def test_an_agent_whose_host_is_gone_leaves_no_half_release(cut: int, tmp_path: Path) -> None:
    """Wherever the input ends, the agent ends with 0 or 2, in frames, and a release is there whole or not at all."""
    frames = good_frames(tmp_path / "root")
    status, replies = serve_really(frames[:-cut])
    assert status in (0, 2)
    assert [reply["id"] for reply in replies if reply["ok"]] == list(range(3))[: len(replies)] or status == 2
    releases = list((tmp_path / "root" / "apps").glob("*/releases/*"))
    assert releases == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"id":1,"verb":"ping","n":0,"x":"' + b"x" * 70_000 + b'"}\n', "longer than 64 KiB"),
        (b'{"id":1,"verb":"ping","n":0,"x":' + nested(100, "[").encode() + b"}\n", "nests deeper"),
        (b'{"id":1,"verb":"ping","n":0,"x":' + nested(9000, "[").encode() + b"}\n", "nests deeper"),
        (b'{"id":1,"verb":"ping","n":NaN}\n', "not JSON"),
        (b'{"id":1,"verb":"ping","n":0,"x":1e999}\n', "not JSON"),
        (b'{"id":1,"verb":"ping","n":-1}\n', "negative"),
        (b'{"id":1,"verb":"ping","n":1e3}\n', "type int"),
        (b'{"id":true,"verb":"ping","n":0}\n', "type int"),
        (b'{"id":"1","verb":"ping","n":0}\n', "type int"),
        (b'{"id":1,"verb":["ping"],"n":0}\n', "type str"),
        (b"\x00\x01\x02\n", "not JSON"),
        (b"\n", "not JSON"),
        (b"[]\n", "not a JSON object"),
        (b'{"id":1,"verb":"ping","n":0', "cut short"),
    ],
)  # fmt: skip
def test_every_line_that_is_no_frame_ends_the_session(line: bytes, told: str) -> None:
    """Out of step there is no safe way on: one reply that says why, then the agent ends; exit 2 on the host."""
    after = b'{"id":7,"verb":"ping","n":0}\n' if line.endswith(b"\n") else b""
    status, replies = serve_really(line + after)
    assert status == 2
    assert [(reply["id"], reply["error"]["code"]) for reply in replies] == [(None, "bad-request")]
    assert told in replies[0]["error"]["message"]


def test_an_endless_payload_takes_no_memory_on_the_device(tmp_path: Path) -> None:
    """A payload that nobody asked for, of more bytes than there are, is thrown away as it comes."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello(lock=False)
        agent.send_raw(b'{"id":5,"verb":"status","n":%d}\n' % 10**300)
        for _ in range(64):
            agent.send_raw(bytes(MIB))
        assert agent.receive()[0]["error"]["code"] == "no-app"
        status = Path(f"/proc/{agent.process.pid}/status").read_text()
        assert int(status.split("VmHWM:")[1].split()[0]) < 64 * 1024
        agent.kill()


def test_a_body_that_would_fill_the_memory_is_refused_unparsed(tmp_path: Path) -> None:
    """16 MiB of brackets would be 500 MiB of lists: a bad request, and the session goes on."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello(lock=False)
        body = b'{"files":[' + b"[]," * (5 * MIB) + b"[]]}"
        with pytest.raises(AgentFailure, match="more than 200000 values"):
            agent.request("missing", body, body=True)
        assert agent.request("ping") == {}


def test_an_id_that_comes_twice_is_answered_twice(tmp_path: Path) -> None:
    """The agent keeps no ids: requests are answered in their order, whatever they are called."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello(lock=False)
        agent.send_raw(b'{"id":9,"verb":"status","n":0}\n' * 3 + b'{"id":-4,"verb":"nonsense","n":0}\n')
        assert [agent.receive()[0]["id"] for _ in range(4)] == [9, 9, 9, -4]


def test_hooks_that_no_program_can_be_given_change_nothing(tmp_path: Path) -> None:
    """A hook with half a surrogate pair is refused before the switch, not found out in the middle of it."""
    with AgentClient(tmp_path / "root") as agent:
        release = FakeRelease()
        agent.hello_and_push(release)
        with pytest.raises(AgentFailure, match="bad-request"):
            agent.activate(release, hooks={"after_activate": ["\ud800"]})
        with pytest.raises(AgentFailure, match="bad-request"):
            agent.activate(release, by=["x"])
        assert agent.request("status", app=None)["current"] is None


def test_a_manifest_of_brackets_is_a_wrong_one(tmp_path: Path) -> None:
    """A release whose manifest nests without end is refused by its digest's name, and the session goes on."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        manifest = b"[" * 100_000
        agent.put(manifest)
        files = [{"path": "manifest.json", "bytes": len(manifest), "sha256": digest(manifest)}]
        release = f"1.0-{digest(manifest)[:12]}"
        with pytest.raises(AgentFailure, match="digest-mismatch"):
            agent.request("commit", op=new_op(), app="kws", release=release, files=files, runtime=None, device={})
        assert agent.request("ping") == {}


# -------------------------------------------------------------------------------------------- a hostile agent's replies

HOSTILE_AGENT = """
import json, os, sys
replies = os.fdopen(os.dup(1), "wb", 0)
replies.write(b"\\nEDGEPACK1 " + EDGEPACK_NONCE.encode() + b"\\n")
hello = json.loads(sys.stdin.buffer.readline())
def reply(**fields):
    replies.write(json.dumps({"id": 1, "ok": True, "n": 0, "result": {}, **fields}).encode() + b"\\n")
"""
HOSTILE_REPLIES = {
    "huge header": 'reply(x="x" * 70000)',
    "endless header": 'while True: replies.write(b"x" * 65536)',
    "deep header": 'replies.write(b\'{"id":1,"ok":true,"result":\' + b"[" * 9000 + b"]" * 9000 + b"}\\n")',
    "payload of an exabyte": "reply(n=10**18)",
    "negative payload": "reply(n=-1)",
    "body of a gigabyte": "reply(n=2**30, body=True)",
    "body of brackets": 'reply(n=9000000, body=True); replies.write(b"[" * 9000000)',
    "body that is none": 'reply(n=2, body=True); replies.write(b"[]")',
    "progress with a payload": "reply(n=5, progress={})",
    "NaN": "reply(result={'x': float('nan')})",
    "text as an id": 'reply(id="1")',
    "no id": "replies.write(b'{\"ok\":true}\\n')",
    "garbage": 'replies.write(bytes(range(256)) + b"\\n")',
    "flood of replies": 'while True: reply(id=2, x="x" * 60000)',
}


def converse(script: str) -> None:
    """Open a session with that agent, send two requests and receive the later one's reply."""
    with open_session(LocalTransport(), ConnectOptions(), agent=zlib.compress(script.encode())) as session:
        session.send("status")
        session.receive(session.send("status"))


@pytest.mark.parametrize("kind", HOSTILE_REPLIES)
def test_a_hostile_reply_is_told_as_what_it_is(kind: str) -> None:
    """Exit 7, not-the-agent, a message that a terminal survives, and 64 MiB of memory at most."""
    script = HOSTILE_AGENT + HOSTILE_REPLIES[kind] + "\nimport time\ntime.sleep(60)\n"
    if "flood" in kind:  # of replies to a request that nobody is waiting for yet
        script = script.replace("while True", "reply()\nsys.stdin.buffer.readline()\nwhile True")

    def refuse() -> None:
        with pytest.raises(DeviceFailure) as caught:
            converse(script)
        assert caught.value.code == "not-the-agent"
        assert caught.value.message.isprintable()

    assert peak_of(refuse) < 64 * MIB


def test_replies_to_nobody_are_dropped() -> None:
    """Frames with ids that nobody asked for are thrown away, and a flood on stderr keeps nobody waiting."""
    script = HOSTILE_AGENT + (
        'sys.stderr.write("x" * 3000000)\nfor i in range(2000): reply(id=1000 + i, x="x" * 1000)\nreply()\n'
        "sys.stdin.buffer.readline()\nreply(id=2, result={'here': True})\nsys.stdin.buffer.read()\n"
    )
    with open_session(LocalTransport(), ConnectOptions(), agent=zlib.compress(script.encode())) as session:
        assert session.request("status").result == {"here": True}
        assert len(session.stderr_tail()) <= 64 * 1024


def test_a_device_s_words_cannot_move_the_cursor() -> None:
    """An error's text comes from the device: what a terminal would obey is taken out, and its length is bounded."""
    script = HOSTILE_AGENT + (
        'said = {"code": "disk-full", "message": "\\x1b[2J\\r\\nroot@host# " + "x" * 9000, "hint": "\\x07"}\n'
        "reply(ok=False, error=said)\n"
        "sys.stdin.buffer.read()\n"
    )
    with pytest.raises(DeviceFailure) as caught:
        open_session(LocalTransport(), ConnectOptions(), agent=zlib.compress(script.encode()))
    assert caught.value.message.isprintable()
    assert caught.value.hint.isprintable()
    assert len(caught.value.message) <= 4000


@pytest.mark.parametrize(
    "facts", [None, 3, [], "x", {"cpus": "many", "installed": [1], "pythons": 3, "disk_free_bytes": []}]
)
def test_facts_of_the_wrong_kind_are_not_said(facts: Any) -> None:
    """What a device tells about itself is taken where it is of its kind, and counts as unknown where it is not."""
    found = DeviceFacts.from_json(facts)
    assert (found.cpus, found.disk_free_bytes, found.pythons, dict(found.installed)) == (None, None, (), {})


def test_a_banner_without_end_takes_no_memory() -> None:
    """What a login prints before the agent speaks is read up to 64 KiB and no further."""
    reader = FrameReader(lambda size: b"x" * size)

    def refuse() -> None:
        with pytest.raises(DeviceFailure, match="64 KiB"):
            reader.skip_past(b"\nEDGEPACK1 nonce\n")

    assert peak_of(refuse) < 2 * MIB
