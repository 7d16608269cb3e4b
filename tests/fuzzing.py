"""What the readers of bundles and frames are tried with: Hypothesis makes the input, a guard watches what comes of it.

Each :class:`Room` is one reader: a strategy of hostile input, and a function that reads one and returns a word for what
came of it (an error's code, or "taken"). Whatever is no error of edgepack's own flies. ``tests/test_fuzz_readers.py``
runs a short seed of each, ``benchmarks/fuzz.py`` the long one.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import io
import json
import os
import queue
import random
import re
import sys
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from agent_client import TINY as TINY_MODELS
from agent_client import FakeRelease, LoadedAgent, digest, load_agent
from bundle_tiny import FILES, manifest_value, write_tiny
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import edgepack
from edgepack.bundle import layout
from edgepack.bundle.archive import open_bundle
from edgepack.bundle.manifest import parse, serialize
from edgepack.bundle.sshsig import read_signature
from edgepack.check.compare import compare, read_outputs
from edgepack.cli.render_bundle import bundle_diff, inspected
from edgepack.device.wire import FrameReader
from edgepack.documents import canonical_json
from edgepack.errors import EdgepackError
from edgepack.metric import TOP1
from edgepack.ondevice import loader
from edgepack.words import printable_lines

STARTS = frozenset({"subprocess.Popen", "os.exec", "os.system", "os.posix_spawn", "os.fork", "os.forkpty",
                    "ctypes.dlopen", "pickle.find_class"})  # fmt: skip
WRITES = {"open": 0, "os.mkdir": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1, "os.remove": 0, "os.rmdir": 0,
          "os.chmod": 0, "os.truncate": 0}  # fmt: skip


class Guard:
    """Sees every file that this process writes and every program that it starts (PEP 578), while it is on."""

    def __init__(self) -> None:
        self.folder = ""
        self.faults: list[str] = []
        sys.addaudithook(self._see)

    @contextmanager
    def on(self, folder: Path) -> Iterator[None]:
        """Nothing may be started meanwhile, nor written outside of this folder."""
        self.folder, self.faults = os.path.realpath(folder), []
        try:
            yield
        finally:
            self.folder = ""
        assert self.faults == []

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder:
            return
        if event in STARTS:
            self.faults.append(f"{event} {arguments[:1]}")
        elif event in WRITES:
            path = arguments[WRITES[event]]
            reading = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            # A number is a file that was opened before; rmtree goes down by open folders, where it has looked already.
            if reading or isinstance(path, int) or (event in ("os.remove", "os.rmdir") and arguments[1] != -1):
                return
            real = os.path.realpath(os.fsdecode(path))
            if real != self.folder and not real.startswith(self.folder + os.sep):
                self.faults.append(f"{event} {path!r}")


GUARD = Guard()


@dataclass(frozen=True)
class Room:
    """One reader: ``try_case(case, folder)`` reads one case, may write into the folder, and returns a word."""

    name: str
    cases: st.SearchStrategy[Any]
    try_case: Callable[[Any, Path], str]


def try_room(room: Room, folder: Path, cases: int, number: int | None = None) -> Counter[str]:
    """What came of so many cases, by seed ``number`` (None: another each time); raises what none may bring forth."""
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(room.cases)
    def run(case: Any) -> None:
        with GUARD.on(folder):
            outcomes[room.try_case(case, folder)] += 1

    (run if number is None else seed(number)(run))()
    return outcomes


def outcome(read: Callable[[], object]) -> str:
    """The code of edgepack's own error, or "taken"."""
    try:
        read()
    except EdgepackError as error:
        found = error
    else:
        return "taken"
    assert found.code != "internal"
    assert found.hint, found.code
    return found.code


# ------------------------------------------------------------------------------------------- what input is made of

NAMES = st.sampled_from(
    ["manifest.json", "manifest.json.sig", "model.tflite", "MODEL.TFLITE", "loader.py", "../evil", "/etc/evil",
     "a/../b", "a//b", ".", "..", "", "C:\\evil", "a\\b", "a\nb", 'a"b', "a\x00b", "a\x1b[2Jb",
     "\u00e9", "\ud800", "a" * 300,
     "con", "wheels/a-1-py3-none-any.whl", "a/b/c/d/e/f/g/h/i/j", "device.json", "current", "lock"]
) | st.text(max_size=8)  # fmt: skip
NUMBERS = st.sampled_from([0, 1, -1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64, 10**300]) | st.integers(-5, 70_000)
FLOATS = st.floats() | st.just(1e999)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | FLOATS | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def nested(depth: int, kind: str) -> str:
    """JSON of that many levels."""
    return "[" * depth + "]" * depth if kind == "[" else '{"a":' * depth + "1" + "}" * depth


@st.composite
def mangled(draw: st.DrawFn, whole: bytes) -> bytes:
    """Some bytes of a sound file replaced, removed or added."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, len(content)))
        piece = draw(
            st.binary(max_size=8)
            | st.sampled_from(
                [layout.LOCAL_MAGIC, layout.CENTRAL_MAGIC, layout.END_MAGIC, b"\xff" * 4, bytes(4), b"\n"]
            )
        )
        content[position : position + draw(st.integers(0, 8))] = piece
    return bytes(content)


# ------------------------------------------------------------------------------------------------------------ archives


def make_zip(members: list[tuple[bytes, bytes, dict[str, int]]], ending: Mapping[str, int], between: bytes) -> bytes:
    """A ZIP of stored members with whatever the headers are made to say (APPNOTE 4.3): the fields that are given."""
    body, directory = bytearray(), bytearray()
    for name, data, lies in members:
        crc, size = lies.get("crc", 0), lies.get("size", len(data))
        offset = lies.get("offset", len(body))
        fields = (
            crc & 0xFFFFFFFF,
            size & 0xFFFFFFFF,
            size & 0xFFFFFFFF,
            lies.get("name", len(name)) & 0xFFFF,
            lies.get("extra", 0),
        )
        local = (layout.LOCAL_MAGIC, 20, lies.get("flags", 0), lies.get("method", 0), 0, 33, *fields)
        body += layout._LOCAL.pack(*local) + name + data
        mode = lies.get("mode", 0o100644) << 16
        central = (layout.CENTRAL_MAGIC, (3 << 8) | 20, 20, lies.get("flags", 0), lies.get("method", 0), 0, 33)
        directory += layout._CENTRAL.pack(*central, *fields, 0, 0, 0, mode, offset & 0xFFFFFFFF) + name
    body += between
    count, size = ending.get("count", len(members)), ending.get("size", len(directory))
    offset = ending.get("offset", len(body))
    end = layout.end_record(count & 0xFFFF, size & 0xFFFFFFFF, offset & 0xFFFFFFFF)
    return bytes(body + directory + end)


def _lies(*fields: str) -> st.SearchStrategy[dict[str, int]]:
    return st.dictionaries(st.sampled_from(fields), st.integers(0, 2**32 - 1) | st.integers(0, 60), max_size=2)


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")[:65535]


SOUND = canonical_json(manifest_value(FILES))
MEMBERS = st.tuples(
    NAMES.map(_encoded) | st.binary(max_size=6),
    st.binary(max_size=40),
    st.fixed_dictionaries(
        {},
        optional={
            "crc": st.integers(0, 2**32 - 1),
            "size": st.integers(0, 60) | st.just(2**32 - 1),
            "offset": st.integers(0, 60) | st.just(2**31),
            "flags": st.sampled_from([1, 8, 0x800, 0xFFFF]),
            "method": st.sampled_from([8, 12, 14, 99]),
            "extra": st.integers(0, 7),
            "mode": st.sampled_from([0o120777, 0o20666, 0o40755]),
        },
    ),
)
ZIPS = st.builds(
    make_zip,
    st.lists(MEMBERS, max_size=4).map(lambda members: [(b"manifest.json", SOUND, {}), *members]),
    _lies("count", "size", "offset"),
    st.just(b"") | st.binary(max_size=60) | st.just(b"PK\x06\x07" + b"\xff" * 16),
)


def _tiny_bundle() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_tiny(Path(folder) / "tiny.edgepack").read_bytes()


TINY = _tiny_bundle()


def _bundle_of(changes: dict[str, Any], files: dict[str, bytes], cut: bytes) -> bytes:
    """A bundle by the real writer, of a manifest that lies."""
    everything = {**FILES, **files}
    value = manifest_value(everything, **changes)
    try:
        manifest = canonical_json(value)
        with tempfile.TemporaryDirectory() as folder:
            return write_tiny(Path(folder) / "b.edgepack", everything, manifest=manifest).read_bytes() + cut
    except (UnicodeError, ValueError):
        return TINY + cut


ARCHIVES = (
    mangled(TINY)
    | ZIPS
    | st.builds(
        _bundle_of,
        st.dictionaries(st.sampled_from(sorted(manifest_value(FILES))), VALUES, max_size=2).map(
            lambda changes: {key: value for key, value in changes.items() if key != "files"}
        ),
        st.dictionaries(NAMES.filter(str.isascii), st.binary(max_size=9), max_size=2),
        st.just(b"") | st.binary(max_size=4),
    )
    | st.binary(max_size=200)
)


def npz_of(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """A .npz of whatever members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            with contextlib.suppress(ValueError, UnicodeError):
                archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def npy(shape: str, descr: str, data: bytes, version: bytes = b"\x01\x00") -> bytes:
    """An array whose header says anything (numpy.lib.format, version 1.0)."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()[:60_000] + b"\n"
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + data


SHAPES = st.sampled_from(
    ["(3,)", "(3, 1)", "()", "(10**15,)", "(1000000000000000,)", "(-1,)", "(2**99,)", "(True,)", "[1]", "('a',)",
     "(99999999999, 99999999999)"]
) | st.text(max_size=9)  # fmt: skip
DTYPES = st.sampled_from(
    ["'<f4'", "'|i1'", "'|O'", "'<U9'", "'|V0'", "'<f999999'", "[('a','<f4')]", "[('a',)]", "'M8'", "1"]
) | st.text(max_size=9)  # fmt: skip
NPYS = st.builds(npy, SHAPES, DTYPES, st.just(bytes(12)) | st.binary(max_size=20),
                 st.sampled_from([b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x09\x00"]))  # fmt: skip
ARRAY_NAMES = st.sampled_from(["input/x.npy", "input/x", "labels.npy", "float/y.npy", "input/.npy"]) | NAMES
SOUND_CHECK_SET = npz_of(
    [("input/x.npy", npy("(3,)", "'<f4'", bytes(12))), ("labels.npy", npy("(3,)", "'|i1'", b"abc"))], zipfile.ZIP_STORED
)
CHECK_SETS = (
    mangled(SOUND_CHECK_SET)
    | st.builds(
        npz_of,
        st.lists(st.tuples(ARRAY_NAMES, NPYS), max_size=3, unique_by=lambda member: member[0]),
        st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]),
    )
    | ZIPS
)


MODEL = (TINY_MODELS / "tiny_int8.tflite").read_bytes()


@st.composite
def _explained(draw: st.DrawFn) -> bytes:
    """A sound bundle whose model, check set and manifest say anything."""
    files = {
        "model.tflite": draw(st.just(MODEL) | mangled(MODEL)),
        "loader.py": b"",
        "check.npz": draw(st.just(SOUND_CHECK_SET) | CHECK_SETS),
    }
    changes = draw(
        st.dictionaries(st.sampled_from(["contents", "provenance", "target"]), VALUES, max_size=1)
        | st.fixed_dictionaries({"contents": st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("inputs", "outputs", "operators", "weight_bytes", "parameters"), VALUES))})
    )  # fmt: skip
    return _bundle_of(changes, files, b"")


def try_inspect(content: bytes, folder: Path) -> str:
    """Show what is in a bundle, and what changed between it and a sound one."""
    path, other = folder / "case.edgepack", folder / "other.edgepack"
    path.write_bytes(content)
    write_tiny(other, {"model.tflite": MODEL, "check.npz": SOUND_CHECK_SET})

    def read() -> None:
        assert printable_lines(shown := inspected(edgepack.inspect(path))) == shown
        assert printable_lines(shown := bundle_diff(edgepack.diff_bundles(path, other))) == shown
        bundle_diff(edgepack.diff_bundles(other, path))

    return outcome(read)


def try_check_set(content: bytes, folder: Path) -> str:
    """Read a check set as the device does; what it takes is below its bound."""
    path = folder / "check.npz"
    path.write_bytes(content)
    try:
        arrays = loader.read_check_set(str(path), np)
    except loader.LoaderError as error:
        return error.code if error.hint else ""
    assert sum(array.nbytes for array in arrays.values()) <= loader.CHECK_SET_LIMIT
    return "taken"


def try_archive(content: bytes, folder: Path) -> str:
    """Open, verify and read every file of a bundle."""
    path = folder / "case.edgepack"
    path.write_bytes(content)

    def read() -> None:
        bundle = open_bundle(path)
        bundle.verify()
        for name in bundle.entries:
            with bundle.open_entry(name) as stream:
                assert len(stream.read()) == bundle.entries[name].bytes

    return outcome(read)


# ---------------------------------------------------------------------------------------------- manifests, signatures


@st.composite
def _manifests(draw: st.DrawFn) -> bytes:
    value = manifest_value(FILES)
    for _ in range(draw(st.integers(1, 3))):
        place: Any = value
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys))
            if not isinstance(place[key], (dict, list)) or not place[key] or draw(st.booleans()):
                break
            place = place[key]
        place[key] = draw(VALUES)
    try:
        return canonical_json(value)
    except ValueError:  # NaN, or half a surrogate pair
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


DEEP = st.builds(
    lambda depth, kind, key: SOUND.replace(f'"{key}":'.encode(), f'"{key}":{nested(depth, kind)},"z":'.encode(), 1),
    st.integers(1, 1200) | st.integers(900, 1000),
    st.sampled_from("[{"),
    st.sampled_from(sorted(manifest_value(FILES))),
)
MANIFESTS = _manifests() | mangled(SOUND) | DEEP | VALUES.map(lambda value: json.dumps(value).encode())


def try_manifest(content: bytes, _folder: Path) -> str:
    """Parse a manifest; what is taken is written again byte for byte."""

    def read() -> None:
        assert serialize(parse(content)) == content

    return outcome(read)


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def armored(blob: bytes) -> bytes:
    """A blob as ssh-keygen writes it (PROTOCOL.sshsig)."""
    return b"-----BEGIN SSH SIGNATURE-----\n" + base64.encodebytes(blob) + b"-----END SSH SIGNATURE-----\n"


def make_signature(
    key_type: bytes = b"ssh-ed25519", key: bytes = bytes(32), namespace: bytes = b"edgepack", *, rest: bytes = b""
) -> bytes:
    """A well-formed signature of nothing."""
    public = _string(key_type) + _string(key)
    parts = b"".join(_string(part) for part in (public, namespace, b"", b"sha512", _string(key_type) + _string(rest)))
    return armored(b"SSHSIG" + (1).to_bytes(4, "big") + parts)


SIGNATURES = (
    mangled(make_signature())
    | st.builds(make_signature, st.binary(max_size=40) | NAMES.map(_encoded), st.binary(max_size=70), st.binary())
    | mangled(base64.b64decode(b"".join(make_signature().split(b"\n")[1:-2]))).map(armored)
    | st.binary(max_size=99)
)


def try_signature(content: bytes, _folder: Path) -> str:
    """Read a signature's armour and structure."""
    return outcome(lambda: read_signature(content))


# ---------------------------------------------------------------------------------------- the agent, in this process


class Ended(BaseException):
    """The agent would have ended its process."""


def tamed_agent() -> LoadedAgent:
    """The agent's modules, which never end this process, start no program and wait for no disk."""
    agent = load_agent()

    def end(_code: int) -> None:
        raise Ended

    def start(argv: list[str], **_options: Any) -> None:
        for argument in argv:
            os.fsencode(argument)  # what Popen does first
        raise FileNotFoundError(2, "No such file or directory", argv[0])

    agent.end_agent = end
    agent.CHILDREN.start = start
    agent.time = _Unwaiting(time)
    agent.os = _Unwaiting(os)
    agent.look = lambda root: {"facts": {}, "root": root}
    agent.read_facts = lambda _root: ({}, [])
    return agent


class _Unwaiting:
    """``os`` or ``time`` for the agent alone: nothing in it waits."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return (lambda *_: None) if name in ("fsync", "sync", "sleep") else getattr(self._module, name)


class _AtOnce(queue.Queue):  # type: ignore[type-arg]
    """Answers what the reader thread queues in this thread."""

    def __init__(self, answer: Callable[[Any], None]) -> None:
        super().__init__()
        self._answer = answer

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        self._answer(item)


AGENT_MODULES = tamed_agent()


def serve(data: bytes, pin: Any = None) -> list[dict[str, Any]]:
    """What the agent answers to those bytes: the headers of its frames. A pinned one expects the bootstrap first."""
    stream = io.BufferedReader(io.BytesIO(data))  # type: ignore[arg-type]
    wire = AGENT_MODULES.Wire.__new__(AGENT_MODULES.Wire)
    out = bytearray()
    wire.__dict__.update(_input=stream, _sending=AGENT_MODULES.threading.Lock())
    wire.silence_s, wire.beat_s, wire.write = 60.0, None, out.extend
    wire._reading_since = wire._writing_since = None
    session = AGENT_MODULES.Session(wire, pin)
    try:
        if pin is not None:
            _pass_bootstrap(stream)
        AGENT_MODULES.read_requests(wire, _AtOnce(functools.partial(AGENT_MODULES.answer, session)))
    except Ended:
        pass
    finally:
        if session.lock_fd is not None:
            os.close(session.lock_fd)
    return list(_headers(bytes(out)))


def _pass_bootstrap(stream: io.BufferedReader) -> None:
    """As a pinned agent begins; ends where nobody speaks as edgepack does."""
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(stream)
    try:
        assert re.fullmatch("[0-9a-f]*", AGENT_MODULES.pass_bootstrap())
    except SystemExit:
        raise Ended from None
    finally:
        AGENT_MODULES.signal.alarm(0)
        sys.stdin.detach()
        sys.stdin = before


def _headers(out: bytes) -> Iterator[dict[str, Any]]:
    while out:
        line, _, out = out.partition(b"\n")
        header = json.loads(line, parse_constant=lambda name: 1 / 0)
        out = out[header["n"] :]
        yield header


RECIPE = json.dumps({"schema": 2, "file": "model.tflite", "lengths": [2, 3], "digests": "00" * 16}).encode()
RELEASE = FakeRelease(contents={"model.tflite": b"model", "recipe.json": RECIPE})
DIGESTS = st.sampled_from([digest(b"model"), digest(RELEASE.manifest), "0" * 64, "../" + "0" * 61])
WORDS = NAMES | st.sampled_from(["kws", RELEASE.release, "1-" + "0" * 12, "op1", "pass"])
ODD: st.SearchStrategy[Any] = VALUES | WORDS | DIGESTS
ENTRIES = st.lists(
    st.fixed_dictionaries({}, optional={"path": ODD, "sha256": DIGESTS | ODD, "bytes": NUMBERS | ODD}) | ODD, max_size=3
)
HOOKS = st.fixed_dictionaries(
    {}, optional={"after_activate": st.lists(WORDS, max_size=2) | ODD, "health": st.lists(WORDS, max_size=2) | ODD,
                  "hook_timeout_s": ODD, "health_retries": st.integers(0, 3) | WORDS}
) | VALUES  # fmt: skip
ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "protocol": st.just(1) | ODD,
    "root": st.just("<root>") | st.sampled_from(["", "\0", "<root>/\ud800", "<root>/a\nb"])
    | st.integers() | st.none() | st.lists(st.none()), "app": WORDS | ODD, "lock": st.booleans() | ODD, "who": ODD,
    "silence_s": ODD, "look": st.booleans(), "files": ENTRIES, "runtime": st.none() | ODD | st.fixed_dictionaries(
        {"id": WORDS}, optional={"wheels": st.lists(st.fixed_dictionaries({}, optional={
            "filename": WORDS, "sha256": DIGESTS, "bytes": NUMBERS | st.just(5), "dist": WORDS}), max_size=2) | ODD}),
    "sha256": DIGESTS | ODD, "bytes": st.just(5) | ODD, "offset": st.just(0) | ODD, "release": WORDS | ODD,
    "device": ODD | st.dictionaries(st.sampled_from(["runtime", "schema"]), ODD), "op": WORDS | ODD, "hooks": HOOKS,
    "by": ODD, "unchecked": st.booleans(), "dry_run": st.booleans(), "forget": st.booleans(), "keep": NUMBERS | ODD,
    "verdict": ODD | st.fixed_dictionaries({"verdict": WORDS}, optional={"x": ODD}), "zlib": st.booleans() | ODD,
    "recipe": st.just({"sha256": digest(RECIPE), "bytes": len(RECIPE)}) | ODD, "options": ODD | st.dictionaries(
        st.sampled_from(["limit_s", "max_seconds", "runs"]), ODD), "token": WORDS | ODD,
}  # fmt: skip
OF_VERB = {
    "hello": "protocol root app lock who silence_s look", "probe": "", "ping": "", "missing": "app files runtime",
    "put": "sha256 bytes offset", "delta": "sha256 bytes recipe zlib dry_run", "chunks": "sha256 bytes zlib",
    "commit": "op app release files runtime device",
    "activate": "op app release unchecked by hooks dry_run", "rollback": "op app release by hooks dry_run",
    "status": "app", "manifest": "app release", "measure": "app release options", "collect": "token",
    "model": "app release", "answer": "app release options",
    "record": "op app release verdict", "gc": "op app keep forget dry_run",
}  # fmt: skip


@st.composite
def any_frames(draw: st.DrawFn) -> bytes:
    """A frame of any verb, with arguments that are mostly of the wrong kind."""
    verb = draw(st.sampled_from(sorted(OF_VERB)) | NAMES)
    args = {name: draw(ARGUMENTS[name]) for name in OF_VERB.get(verb, "").split() if draw(st.integers(0, 7))}
    if draw(st.booleans()) and verb in ("commit", *PAYLOADS):
        args.update(_sound(verb))
    payload = draw(st.just(b"") | PAYLOADS[verb] | st.binary(max_size=20)) if verb in PAYLOADS else b""
    header = {"id": draw(st.integers(0, 3)), "verb": verb, "n": len(payload), **args}
    if draw(st.integers(0, 9)) == 0:
        header[draw(st.sampled_from(["id", "verb", "n", "body"]))] = draw(ODD)
    elif draw(st.integers(0, 9)) == 0:
        payload = json.dumps(args).encode()
        header = {"id": 1, "verb": verb, "n": len(payload), "body": True}
    return json.dumps(header).encode() + b"\n" + payload


PAYLOADS = {
    "put": st.just(b"model"),
    "delta": st.just(RECIPE) | mangled(RECIPE) | st.just(zlib.compress(RECIPE)),
    "chunks": st.just(b"model") | st.just(zlib.compress(b"model")) | st.just(zlib.compress(bytes(1 << 20))),
}


def _sound(verb: str) -> dict[str, Any]:
    if verb == "commit":
        return RELEASE.commit_arguments()
    recipe = {"recipe": {"sha256": digest(RECIPE), "bytes": len(RECIPE)}} if verb == "delta" else {}
    return {"sha256": digest(b"model"), "bytes": 5, "offset": 0, **recipe}


def put_frame(data: bytes) -> bytes:
    """The request that stages a file, whole."""
    header = {"id": 1, "verb": "put", "n": len(data), "sha256": digest(data), "bytes": len(data), "offset": 0}
    return json.dumps(header).encode() + b"\n" + data


def hello_frame(*, lock: bool = True) -> bytes:
    """The first request; the root is put in before it is sent."""
    return (
        json.dumps({"id": 0, "verb": "hello", "n": 0, "protocol": 1, "root": "<root>", "lock": lock}).encode() + b"\n"
    )


PUSHED = b"".join(put_frame(data) for data in RELEASE.files.values()) + (
    json.dumps({"id": 2, "verb": "commit", "n": 0, **RELEASE.commit_arguments()}).encode() + b"\n"
)
STARTS_OF_SESSIONS = st.sampled_from(
    [b"", hello_frame(), hello_frame(lock=False), hello_frame() + PUSHED, hello_frame() + PUSHED]
)
DEEP_FRAMES = st.builds(
    lambda depth, kind, key: b'{"id":1,"verb":"record","n":0,"app":"kws","op":"1","%s":%s}\n'
    % (key.encode(), nested(depth, kind).encode()),
    st.integers(1, 1200), st.sampled_from("[{"), st.sampled_from(["verdict", "by", "app", "silence_s", "x"]),
)  # fmt: skip
CONVERSATIONS = st.builds(
    lambda start, frames, cut: (start + b"".join(frames))[: None if cut is None else -cut - 1],
    STARTS_OF_SESSIONS,
    st.lists(any_frames() | any_frames() | DEEP_FRAMES | st.binary(max_size=30), min_size=1, max_size=4),
    st.none() | st.integers(0, 40),
)


def try_agent(data: bytes, folder: Path) -> str:
    """A whole session with an agent, on a root of its own."""
    root = folder / "root"
    AGENT_MODULES.os.environ["HOME"] = str(folder)
    replies = serve(data.replace(b"<root>", str(root).encode()))
    AGENT_MODULES.remove_tree(str(root))
    return last_code(replies)


def last_code(replies: list[dict[str, Any]]) -> str:
    """What the last reply says; every error has to be one of the agent's own, with a hint."""
    codes = []
    for reply in replies:
        error = reply.get("error") or {"code": "taken", "hint": "-"}
        assert error["code"] != "internal", error
        assert error["hint"], error
        codes.append(error["code"])
    return codes[-1] if codes else "ended"


# --------------------------------------------------------------------------------------------- wheels inside a bundle


def record_row(path: str, data: bytes) -> str:
    """A line of a wheel's RECORD."""
    sha256 = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return f"{path},sha256={sha256},{len(data)}\n"


def make_wheel(files: list[tuple[str, bytes]], record: str | None = None, **options: Any) -> bytes:
    """A wheel of those members, with the RECORD that fits them or the one that is given."""
    buffer = io.BytesIO()
    name = "toy-1.dist-info/RECORD"
    rows = "".join(record_row(path, data) for path, data in files) + f"{name},,\n" if record is None else record
    with zipfile.ZipFile(buffer, "w", options.pop("method", zipfile.ZIP_DEFLATED)) as archive:
        for path, data in [*files, (name, rows.encode("utf-8", "surrogatepass"))]:
            archive.writestr(path, data)
    return buffer.getvalue()


def _awkward_wheel(files: list[tuple[str, bytes]], record: str | None, method: int) -> bytes:
    try:
        return make_wheel(files, record, method=method)
    except (ValueError, IndexError):
        return b""


TOY_WHEEL = make_wheel([("toy/__init__.py", b"answer = 42\n" * 9), ("toy/data.bin", bytes(99))])
WHEELS = (
    mangled(TOY_WHEEL)
    | st.builds(
        _awkward_wheel,
        st.lists(st.tuples(NAMES, st.binary(max_size=60)), max_size=3),
        st.none() | st.text(max_size=40) | st.just('"' * 9 + "x" * 200_000) | st.just("a\0b,sha256=x,1\n"),
        st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]),
    )
    | ZIPS
)


def try_wheel(content: bytes, folder: Path) -> str:
    """Unpack a wheel as the device does."""
    archive, target = folder / "case.whl", folder / "unpacked"
    archive.write_bytes(content)
    word = "taken"
    try:
        AGENT_MODULES.unpack_wheel(str(archive), "case.whl", str(target))
    except AGENT_MODULES.AgentError as error:
        word = error.code if error.hint else "no hint"
    finally:
        AGENT_MODULES.remove_tree(str(target))
    assert word in ("taken", "digest-mismatch", "disk-full")
    return word


# ------------------------------------------------------------------------------------------------ replies, on the host

HEADERS = st.fixed_dictionaries(
    {"id": st.integers(0, 3) | ODD},
    optional={"n": st.integers(0, 30) | ODD, "ok": st.booleans() | ODD, "body": st.booleans() | ODD, "result": ODD,
              "error": ODD, "progress": ODD},
)  # fmt: skip
REPLIES = st.lists(
    st.builds(lambda header, payload: json.dumps(header).encode() + b"\n" + payload, HEADERS, st.binary(max_size=30))
    | st.binary(max_size=40)
    | st.integers(1, 60_000).map(lambda depth: b'{"id":1,"result":' + nested(depth, "[").encode() + b"}\n")
    | st.just(b"x" * 70_000),
    min_size=1,
    max_size=4,
).map(b"".join)


def try_replies(data: bytes, _folder: Path) -> str:
    """Cut a hostile agent's output into frames, in pieces of any size, and take the replies out of them."""
    chance = random.Random(len(data))  # noqa: S311 (pieces, no secrets)
    stream = io.BytesIO(data)
    reader = FrameReader(lambda size: stream.read(chance.randint(1, size)))

    def read() -> None:
        while (frame := reader.frame()) is not None:
            assert frame.id is None or isinstance(frame.id, int)
            json.dumps(frame.reply().result, indent=1)

    return outcome(read)


# ---------------------------------------------------------------------------------- a device's outputs, on the host


def _outputs(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _lying_array(shape: str, descr: str, data: bytes) -> bytes:
    """An .npz whose one array's header says anything."""
    return npz_of([("device/a.npy", npy(shape, descr, data))], zipfile.ZIP_DEFLATED)


OUTPUTS = (
    mangled(_outputs({"device/a": np.zeros((3, 2)), "float/a": np.ones((3, 2)), "labels": np.arange(3)}))
    | st.builds(
        _lying_array,
        SHAPES,
        DTYPES,
        st.binary(max_size=20),
    )
    | ZIPS
)


def try_outputs(content: bytes, _folder: Path) -> str:
    """Read the outputs that a device sent, and hold them against the host's."""
    return outcome(lambda: compare(read_outputs(content), TOP1))


ROOMS = (
    Room("archive", ARCHIVES, try_archive),
    Room("inspect", _explained(), try_inspect),
    Room("check set", CHECK_SETS, try_check_set),
    Room("manifest", MANIFESTS, try_manifest),
    Room("signature", SIGNATURES, try_signature),
    Room("agent", CONVERSATIONS, try_agent),
    Room("wheel", WHEELS, try_wheel),
    Room("replies", REPLIES, try_replies),
    Room("outputs", OUTPUTS, try_outputs),
)
