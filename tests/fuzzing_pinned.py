"""Conversations with a pinned agent, and what none of them may bring it to: a room of ``fuzzing.py``.

The attacker holds the deploying key, every bundle that was ever signed, and those of another signer. Signatures are
made and judged by the real ssh-keygen once, all with all; in the conversations the pinned agent gets these answers, and
for what is none of them a no. What ssh-keygen does with forged ones is shown in ``tests/test_deploy_trust.py``.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent_client import FakeRelease, digest
from fuzzing import AGENT_MODULES, DEEP_FRAMES, ODD, WORDS, Room, any_frames, hello_frame, last_code, put_frame, serve
from hypothesis import strategies as st

HOOK = ["/usr/bin/true", "the owner's"]
EVIL = ["/bin/sh", "-c", "id"]
MARK = "0123abcd"
RELEASES = {
    "old": FakeRelease(contents={"loader.py": b"old"}, extra={"counter": 1}),
    "floor": FakeRelease(contents={"loader.py": b"floor"}, extra={"counter": 2}),
    "new": FakeRelease(contents={"loader.py": b"new"}, extra={"counter": 3}),
    "uncounted": FakeRelease(contents={"loader.py": b"uncounted"}),
    "other app": FakeRelease(app="other", contents={"loader.py": b"other"}, extra={"counter": 1}),
    "mallory's": FakeRelease(contents={"loader.py": b"evil"}, extra={"counter": 9}),
}
FLOOR = {"kws": {"counter": 2, "release": RELEASES["floor"].release}}
ADMISSIBLE = ("floor", "new", "other app")
"""What alice signed for its app, not below the floor: all that may ever be installed."""
SIGNERS = ("alice", "mallory", "alice for git")


@functools.cache
def signatures() -> dict[tuple[str, str], str]:
    """The signature of each release (by its name above) by each who signed it; made by ssh-keygen."""
    made = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for key in ("alice", "mallory"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        for release, content in RELEASES.items():
            for signer in ("mallory",) if release == "mallory's" else SIGNERS:
                key, _, namespace = signer.partition(" for ")
                words = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace or "edgepack", "-f", str(folder / key)]
                done = subprocess.run(words, input=content.manifest, capture_output=True, check=True)
                made[release, signer] = done.stdout.decode()
        _judge(folder, made)
    return made


def _judge(folder: Path, made: dict[tuple[str, str], str]) -> None:
    """Let a real pin judge each signature over each manifest: alice's own over what they are of, and no other."""
    (folder / "allowed_signers").write_text(f"alice {(folder / 'alice.pub').read_text()}")
    pin = AGENT_MODULES.Pin.__new__(AGENT_MODULES.Pin)
    pin.folder, pin.ssh_keygen = str(folder), "ssh-keygen"
    for release, content in RELEASES.items():
        for (of, signer), text in made.items():
            try:
                pin.require_signer(content.manifest, text.encode(), "x")
                taken = True
            except AGENT_MODULES.AgentError:
                taken = False
            assert taken == ((of, signer) == (release, "alice"))


def pin_to(root: Path) -> Any:
    """A pin as ``trust`` lays it down, for this root; it judges as ssh-keygen did."""
    alices = {
        (RELEASES[of].manifest, text.encode()) for (of, signer), text in signatures().items() if signer == "alice"
    }

    def keygen(arguments: list[str], manifest: bytes, signature: bytes) -> tuple[int, str, str]:
        good = (manifest, signature) in alices
        return (0, "alice\n", "") if good else (255, "", "no")

    pin = AGENT_MODULES.Pin.__new__(AGENT_MODULES.Pin)
    vars(pin).update(folder="/nowhere", root=str(root), mark=MARK, ssh_keygen="ssh-keygen", hooks=[HOOK], floor=FLOOR)
    vars(pin).update(agent="0" * 64, keygen=keygen)
    return pin


# -------------------------------------------------------------------------------------------------- what is said to it


def _text(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _commit(release: str, signer: str | None, changes: dict[str, Any]) -> bytes:
    """A commit; the signature stands as a token until ``try_pinned`` puts the text in."""
    signature = None if signer is None else f"<{release}|{signer}>"
    arguments = {**RELEASES[release].commit_arguments(), "op": "op", "signature": signature} | changes
    return _text({"id": 2, "verb": "commit", "n": 0, **arguments})


def _push(release: str, signer: str | None, changes: dict[str, Any]) -> bytes:
    return b"".join(put_frame(data) for data in RELEASES[release].files.values()) + _commit(release, signer, changes)


NAMES_OF_RELEASES = st.sampled_from(sorted(RELEASES))
IDS = st.sampled_from([release.release for release in RELEASES.values()])
APPS = st.sampled_from(["kws", "other"])
OPS = st.text("abcdef", min_size=1, max_size=4)
CHANGES = st.fixed_dictionaries({}, optional={
    "app": APPS | WORDS, "release": IDS | ODD, "device": ODD, "runtime": st.none() | ODD, "signature": ODD | st.builds(
        lambda release, signer: f"<{release}|{signer}>", NAMES_OF_RELEASES, st.sampled_from(SIGNERS)),
})  # fmt: skip
PUSHES = st.builds(
    lambda release, signer, op, changed, changes: _push(release, signer, {"op": op, **(changes if changed else {})}),
    NAMES_OF_RELEASES,
    st.sampled_from([None, "mallory", "alice for git", *["alice"] * 5]),
    OPS,
    st.sampled_from([True, False, False]),
    CHANGES,
)
HOOKS = st.fixed_dictionaries(
    {},
    optional={
        "after_activate": st.sampled_from([HOOK, EVIL, HOOK[:1], [*HOOK, "x"]]),
        "health": st.sampled_from([HOOK, EVIL]),
        "health_retries": st.integers(0, 2),
    },
)
SWITCHES = st.fixed_dictionaries(
    {"id": st.just(3), "n": st.just(0), "verb": st.sampled_from(["activate", "rollback"]), "app": APPS,
     "op": OPS, "by": st.just("x"), "hooks": st.none() | HOOKS,
     "release": st.none() | IDS, "unchecked": st.booleans()},
).map(_text)  # fmt: skip
MEASUREMENTS = st.fixed_dictionaries(
    {"id": st.just(4), "n": st.just(0), "verb": st.just("measure"), "app": APPS, "release": st.none() | IDS},
    optional={"options": st.dictionaries(st.sampled_from(["delegate", "max_seconds", "threads"]), ODD)},
).map(lambda frame: _text({"options": {}, **frame}))
TRUSTS = st.fixed_dictionaries(
    {"id": st.just(5), "n": st.just(0), "verb": st.just("trust"), "account": st.none() | st.just("root"),
     "install_root": st.sampled_from(["<root>/lib", "/tmp/evil"]), "root": st.just("/"), "signers": st.just("x"),
     "hooks": st.just([EVIL]), "sha256": st.just(digest(b""))},
).map(_text)  # fmt: skip
BEGINNINGS = st.builds(
    lambda sound, junk: b"0 00\n" if sound else junk,
    st.sampled_from([True] * 9 + [False]),
    st.sampled_from([b"3 ab\nxyz", b"0\n"]) | st.binary(max_size=12),
)
FRAMES = [
    *[PUSHES] * 5,
    *[SWITCHES] * 5,
    *[MEASUREMENTS] * 3,
    TRUSTS,
    any_frames(),
    DEEP_FRAMES | st.binary(max_size=20),
]
ACTIVATE = {"id": 6, "n": 0, "verb": "activate", "app": "kws", "op": "z", "by": "x", "hooks": None, "unchecked": True}
STARTS = [
    b"",
    _push("floor", "alice", {}),
    _push("floor", "alice", {}) + _text(ACTIVATE) + _push("new", "alice", {"op": "y"}),
    _push("other app", "alice", {}) + _text({**ACTIVATE, "app": "other"}),
]
CONVERSATIONS = st.tuples(
    st.booleans(),
    BEGINNINGS,
    st.sampled_from([*[hello_frame()] * 8, hello_frame(lock=False), b""]),
    st.builds(
        lambda start, frames: start + b"".join(frames),
        st.sampled_from(STARTS),
        st.lists(st.integers(0, len(FRAMES) - 1).flatmap(FRAMES.__getitem__), min_size=1, max_size=6),
    ),
    st.sampled_from([*[None] * 60, *range(40)]),
)
BEFORE = hello_frame() + b"".join(_push(name, None, {"op": name[:3]}) for name in ("mallory's", "old"))
"""What somebody installed and activated before the device was pinned."""


# ------------------------------------------------------------------------------------------------- what came of it


class _Started:
    """Every program that the agent would have started; none is there."""

    def __init__(self) -> None:
        self.argvs: list[list[str]] = []
        self._refuse = AGENT_MODULES.CHILDREN.start

    def __enter__(self) -> _Started:
        def start(argv: list[str], **options: Any) -> None:
            self.argvs.append(argv)
            self._refuse(argv, **options)

        AGENT_MODULES.CHILDREN.start = start
        return self

    def __exit__(self, *_: object) -> None:
        AGENT_MODULES.CHILDREN.start = self._refuse


def try_pinned(case: tuple[bool, bytes, bytes, bytes, int | None], folder: Path) -> str:
    """A whole session with a pinned agent, on a root with a past or on none; the word is how far it came."""
    past, beginning, hello, frames, cut = case
    root = folder / "root"
    AGENT_MODULES.os.environ["HOME"] = str(folder)
    frames = (hello + frames)[: None if cut is None else -cut - 1]
    for (release, signer), text in signatures().items():
        frames = frames.replace(f"<{release}|{signer}>".encode(), json.dumps(text)[1:-1].encode())
    try:
        if past:
            serve(BEFORE.replace(b"<root>", str(root).encode()))
        was = set(_installed(root))
        with _Started() as started:
            word = last_code(serve(beginning + frames.replace(b"<root>", str(root).encode()), pin_to(root)))
        _require_held(root, was, started.argvs)
        active = any(root.glob("apps/*/current"))
        installed = set(_installed(root)) - was
    finally:
        AGENT_MODULES.remove_tree(str(root))
    return "ran" if started.argvs else "active" if active else "installed" if installed else word


def _installed(root: Path) -> Iterator[tuple[str, str]]:
    for place in root.glob("apps/*/releases/*"):
        yield place.parent.parent.name, place.name


def _require_held(root: Path, was: set[tuple[str, str]], started: list[list[str]]) -> None:
    """Nothing new but what is admissible is installed or active, nothing is run but its loader and the owner's hook."""
    admissible = {(RELEASES[name].app, RELEASES[name].release) for name in ADMISSIBLE}
    assert set(_installed(root)) - was <= admissible
    for app, release in admissible & set(_installed(root)):
        place = root / "apps" / app / "releases" / release
        for name, content in next(one for one in RELEASES.values() if one.release == release).files.items():
            assert (place / name).read_bytes() == content
    for current in root.glob("apps/*/current"):
        assert (current.parent.name, current.resolve().name) in admissible
    loaders = [str(root / "apps" / app / "releases" / release / "loader.py") for app, release in admissible]
    for argv in started:
        assert argv == HOOK or (argv[:2] == [sys.executable, "-I"] and argv[2] in loaders and argv[3] == "measure")
        assert argv == HOOK or _are_numbers(json.loads(argv[-1]))
    counters = root / "counters.json"
    if counters.exists() and not was:
        counted = json.loads(counters.read_text())
        signed = {(RELEASES[name].app, RELEASES[name].release): 2 if name == "floor" else 3 for name in ADMISSIBLE}
        signed["other", RELEASES["other app"].release] = 1
        assert all(signed[app, entry["release"]] == entry["counter"] for app, entry in counted.items())


def _are_numbers(options: dict[str, Any]) -> bool:
    return all(value is None or isinstance(value, (bool, int, float)) for value in options.values())


PINNED = Room("pinned", CONVERSATIONS, try_pinned)
