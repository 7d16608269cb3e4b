"""The agent's delta: a model put together from what the device holds and from chunks that arrive."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
from agent_client import AgentClient, AgentFailure, FakeRelease, digest, find_pythons, load_agent
from hypothesis import given
from hypothesis import strategies as st

from edgepack.deploy.chunking import batches, deflate, lacking_chunks

AGENT = load_agent()
Chunk = tuple[bytes, int]


def cut(content: bytes, lengths: list[int]) -> list[Chunk]:
    """A recipe of these bytes: their chunks' names."""
    borders = [0, *(border for border in accumulate(lengths) if border < len(content)), len(content)]
    return [AGENT.name_chunk(content[start:end]) for start, end in pairwise(borders) if end > start]


def recipe_of(content: bytes, length: int = 1000) -> bytes:
    """A recipe.json of these bytes, in chunks of one length."""
    names = cut(content, [length] * (len(content) // length + 1))
    digests = b"".join(name for name, _ in names).hex()
    told = {"schema": 2, "file": "model.tflite", "lengths": [size for _, size in names], "digests": digests}
    return json.dumps(told).encode()


def send(names: list[Chunk], content: bytes, bits: bytes) -> bytes:
    """The chunks that a device lacks, as a host finds them in its copy."""
    offsets = list(accumulate((length for _, length in names), initial=0))
    lacking = lacking_chunks(bits, len(names))
    assert lacking is not None
    groups = list(batches([length for _, length in names], lacking))
    assert [chunk for group in groups for chunk in group] == list(lacking)
    return b"".join(content[offsets[chunk] : offsets[chunk + 1]] for chunk in lacking)


# Few letters, so that chunks are the same here and there, and twice in one file.
CONTENTS = st.lists(st.binary(max_size=3) | st.sampled_from([b"weights", b"biases", b"\0\0"]), max_size=40).map(
    b"".join
)
LENGTHS = st.lists(st.integers(1, 9), max_size=80)


@given(old=CONTENTS, new=CONTENTS, told=CONTENTS, lengths=st.tuples(LENGTHS, LENGTHS), data=st.data())
def test_any_two_files_with_any_recipes_make_the_new_one(
    old: bytes, new: bytes, told: bytes, lengths: tuple[list[int], list[int]], data: st.DataObject
) -> None:
    """Whatever a device holds and says that it holds, it ends with the new file, and asks for no chunk twice."""
    names = cut(new, lengths[0])
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name, "old"), Path(name, "new")
        source.write_bytes(old)
        arrived = 0
        for attempt in range(3):
            weave = AGENT.Weave(digest(new), len(new), names)
            with target.open("r+b" if target.exists() else "w+b") as weave.file, source.open("rb") as held:
                if attempt:
                    weave.keep(weave.file)
                os.ftruncate(weave.file.fileno(), len(new))
                # The recipe is that of another file: what lies there is something else than it says.
                weave.gather(held, cut(data.draw(st.sampled_from([old, told])), lengths[1]))
                stream = send(names, new, weave.expect())
                assert attempt == 0 or len(stream) <= len(new) - arrived
                passed = len(stream) if attempt == 2 else data.draw(st.integers(0, len(stream)))
                pieces = [stream[at : min(at + 5, passed)] for at in range(0, passed, 5)]
                before = sum(len(places) * key[1] for key, places in weave.wanted.items())
                try:
                    weave.receive(pieces)
                except AGENT.AgentError:
                    assert passed < len(stream)  # the connection was cut in the middle of a chunk
                arrived = before - sum(len(places) * key[1] for key, places in weave.wanted.items())
        assert not weave.wanted
        assert target.read_bytes() == new


@given(st.binary(max_size=2000), st.integers(1, 400))
def test_what_is_deflated_comes_back(content: bytes, piece: int) -> None:
    """A deflated payload is inflated to what it was, in whatever pieces it arrives, and only where that pays."""
    payload, deflated = deflate(content)
    assert len(payload) <= len(content)
    assert b"".join(read(payload, len(content), deflated=deflated, piece=piece)) == content
    assert b"".join(read(zlib.compress(content), len(content), deflated=True, piece=piece)) == content


class Arriving:
    """A payload that is there already, handed out in pieces."""

    def __init__(self, content: bytes, piece: int) -> None:
        self.content, self.piece = content, piece

    @property
    def remaining(self) -> int:
        """How many bytes are still to come."""
        return len(self.content)

    def read(self) -> bytes:
        """The next of them."""
        head, self.content = self.content[: self.piece], self.content[self.piece :]
        return head


def read(payload: bytes, size: int, *, deflated: bool, piece: int = 100) -> list[bytes]:
    """What the agent makes of a payload."""
    return list(AGENT.read_raw(Arriving(payload, piece), size, deflated=deflated))


@pytest.mark.parametrize(
    ("payload", "size"),
    [
        (zlib.compress(bytes(100_000_000)), 10),
        (zlib.compress(bytes(10)), 11),
        (zlib.compress(bytes(10))[:-1], 10),
        (zlib.compress(bytes(10)) + b"x", 10),
        (zlib.compress(b"") * 1000, 0),
        (b"no zlib at all", 10),
        (b"", 10),
    ],
)
def test_a_payload_that_lies_about_what_it_holds_is_refused(payload: bytes, size: int) -> None:
    """A bomb is stopped at the first MiB beyond what it announced; cut, prolonged and false ones are bad requests."""
    seen: list[int] = []
    with pytest.raises(AGENT.AgentError) as caught:
        seen.extend(len(data) for data in AGENT.read_raw(Arriving(payload, 1000), size, deflated=True))
    assert caught.value.code == "bad-request"
    assert sum(seen) <= size


MODEL = hashlib.shake_256(b"model").digest(40_000)
NEXT = MODEL[:9_500] + b"retrained" + MODEL[9_509:] + b"and a class more"


def release_of(model: bytes, version: str = "1.0.0") -> FakeRelease:
    """A release with a model and its recipe."""
    return FakeRelease(version=version, contents={"model.tflite": model, "recipe.json": recipe_of(model)})


def ask(agent: AgentClient, model: bytes, recipe: bytes | None = None, **more: Any) -> tuple[int, ...]:
    """The chunks that the device lacks of a model."""
    content = recipe_of(model) if recipe is None else recipe
    told = {"sha256": digest(content), "bytes": len(content)}
    arguments = {"sha256": digest(model), "bytes": len(model), "recipe": told, "zlib": True} | more
    answer, bits = agent.request_with_payload("delta", zlib.compress(content), **arguments)
    found = lacking_chunks(bits, answer["chunks"])
    assert found is not None
    return found


def chunk(model: bytes, *numbers: int) -> bytes:
    """Some chunks of a model."""
    return b"".join(model[1000 * number : 1000 * number + 1000] for number in numbers)


@pytest.mark.parametrize("python", find_pythons())
def test_a_model_is_made_of_a_release_and_what_lacks(python: str, tmp_path: Path) -> None:
    """Only the chunks that changed are asked for; the next release is whole, and nothing is left behind."""
    release = release_of(NEXT, "2.0.0")
    with AgentClient(tmp_path / "root", python=python) as agent:
        agent.hello()
        agent.push(release_of(MODEL))
        assert agent.request("missing", app="kws", files=[], runtime=None)["delta"] == {"models": 1, "staged_bytes": 0}
        assert ask(agent, NEXT, dry_run=True) == (9, 40)
        assert not list((tmp_path / "root" / "incoming").iterdir())
        assert ask(agent, NEXT) == (9, 40)
        brought = chunk(NEXT, 9, 40)
        assert agent.request("chunks", brought, sha256=digest(NEXT), bytes=len(brought)) == {"left": 0}
        agent.put(release.manifest)
        agent.request("commit", **release.commit_arguments())
        assert ask(agent, MODEL + NEXT) == ()
    folder = tmp_path / "root" / "apps" / "kws" / "releases" / release.release
    assert (folder / "model.tflite").read_bytes() == NEXT


@pytest.mark.parametrize("damage", ["model", "recipe", "short", "other", "fifo", "link"])
def test_a_damaged_or_lying_release_only_helps_less(damage: str, tmp_path: Path) -> None:
    """A flipped bit, a recipe of something else, a cut file: what is not what it should be is asked for."""
    release = release_of(MODEL)
    folder = tmp_path / "root" / "apps" / "kws" / "releases" / release.release
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        agent.push(release)
        folder.chmod(0o700)
        model, recipe = folder / "model.tflite", folder / "recipe.json"
        for path in (model, recipe):
            path.chmod(0o600)
        expected: tuple[int, ...] = tuple(range(41))
        if damage == "model":
            model.write_bytes(MODEL[:3_333] + b"!" + MODEL[3_334:])
            expected = (3, 9, 40)
        elif damage == "short":
            model.write_bytes(MODEL[:39_001])
            expected = (9, 39, 40)
        elif damage == "recipe":
            recipe.write_bytes(recipe.read_bytes()[:-10])
        elif damage == "other":
            recipe.write_bytes(recipe_of(MODEL[500:]))
        elif damage == "fifo":
            recipe.unlink()
            os.mkfifo(recipe)
        else:
            model.rename(tmp_path / "elsewhere")
            model.symlink_to(tmp_path / "elsewhere")
        assert ask(agent, NEXT) == expected
        brought = chunk(NEXT, *expected)
        assert agent.request("chunks", brought, sha256=digest(NEXT), bytes=len(brought)) == {"left": 0}


@pytest.mark.parametrize("power_cut", [False, True])
def test_what_arrived_of_a_delta_survives_a_cut(power_cut: bool, tmp_path: Path) -> None:
    """The agent is killed in the middle of a payload: the next session asks for what had not arrived, or had rotted."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        assert len(ask(agent, MODEL)) == 40
        header = {"id": 7, "verb": "chunks", "n": 40_000, "sha256": digest(MODEL), "bytes": 40_000}
        agent.send_raw(json.dumps(header).encode() + b"\n" + MODEL[:5_500])
        woven = tmp_path / "root" / "incoming" / f"{digest(MODEL)}.woven"
        while woven.read_bytes()[4_000:5_000] != MODEL[4_000:5_000]:
            assert agent.process.poll() is None
        agent.kill()
    if power_cut:
        with woven.open("r+b") as file:
            file.seek(2_500)
            file.write(b"blocks that were never written")
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        found = agent.request("missing", app="kws", files=[{"sha256": digest(MODEL), "bytes": 40_000}], runtime=None)
        assert found["delta"]["models"] == 1
        assert found["delta"]["staged_bytes"] > 0
        lacking = ask(agent, MODEL)
        assert lacking == ((2, *range(5, 40)) if power_cut else tuple(range(5, 40)))
        deflated = zlib.compress(chunk(MODEL, *lacking))
        sent = {"sha256": digest(MODEL), "bytes": 1000 * len(lacking), "zlib": True}
        assert agent.request("chunks", deflated, **sent) == {"left": 0}
        assert agent.request("missing", app="kws", files=[{"sha256": digest(MODEL), "bytes": 40_000}], runtime=None)[
            "have"
        ] == {digest(MODEL): 40_000}


def test_killed_at_any_of_its_disk_operations_a_delta_goes_on(tmp_path: Path) -> None:
    """SIGKILL at one disk operation after the other: the old release stays whole, the last try ends with the new."""
    first, second = release_of(MODEL), release_of(NEXT, "2.0.0")

    def bring(agent: AgentClient) -> None:
        agent.hello()
        lacking = ask(agent, NEXT)
        brought = chunk(NEXT, *lacking)
        if lacking:
            agent.request("chunks", brought, sha256=digest(NEXT), bytes=len(brought))
        agent.put(second.manifest)
        agent.request("commit", **second.commit_arguments())

    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        agent.push(first)
        agent.activate(first)
    for kill_at in (4, 11, 18, 25, 32):
        client = AgentClient(tmp_path / "root", kill_at=kill_at)
        try:
            bring(client)
        except (EOFError, BrokenPipeError):
            client.kill()
        else:
            client.close()
        current = (tmp_path / "root" / "apps" / "kws" / "current").resolve()
        assert current.name == first.release
        assert (current / "model.tflite").read_bytes() == MODEL
    with AgentClient(tmp_path / "root") as agent:
        bring(agent)
    installed = tmp_path / "root" / "apps" / "kws" / "releases" / second.release / "model.tflite"
    assert installed.read_bytes() == NEXT
    assert not list((tmp_path / "root" / "incoming").iterdir())


def test_chunks_that_make_another_file_are_thrown_away(tmp_path: Path) -> None:
    """A recipe that lies about the model is found by the whole file's SHA-256; the model can then be put whole."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        lie = MODEL[:1000] + bytes(1000) + MODEL[2000:]
        assert len(ask(agent, MODEL, recipe_of(lie))) == 40
        with pytest.raises(AgentFailure, match="digest-mismatch"):
            agent.request("chunks", lie, sha256=digest(MODEL), bytes=len(lie))
        assert agent.put(MODEL) == {"bytes": len(MODEL)}
        told = {"sha256": "0" * 64, "bytes": 1}
        with pytest.raises(AgentFailure, match="digest-mismatch"):
            agent.request("delta", b"x", sha256=digest(NEXT), bytes=len(NEXT), recipe=told)


GOOD = json.loads(recipe_of(MODEL))


@pytest.mark.parametrize(
    "odd",
    [
        {"schema": 3},
        {"file": "../model.tflite"},
        {"lengths": [1000] * 39},
        {"lengths": [1000] * 39 + [1001]},
        {"lengths": [1000] * 39 + [-1]},
        {"lengths": [1000] * 39 + ["1000"]},
        {"lengths": [1 << 40] * 40},
        {"lengths": {}},
        {"digests": GOOD["digests"][:-1] + "x"},
        {"digests": GOOD["digests"] + "00"},
        {"lengths": [1] * 199_999},
    ],
)
def test_a_recipe_that_is_none_is_refused(odd: dict[str, Any], tmp_path: Path) -> None:
    """Lengths that do not fit the file, digests that are none, other kinds: bad requests, and the session goes on."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        with pytest.raises(AgentFailure, match="bad-request"):
            ask(agent, MODEL, json.dumps(GOOD | odd).encode())
        assert len(ask(agent, MODEL)) == 40


def test_chunks_out_of_turn_are_refused(tmp_path: Path) -> None:
    """Chunks without their delta, other ones, half ones and too many of them are refused; none is kept."""
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        bring = {"sha256": digest(MODEL), "bytes": 1000}
        with pytest.raises(AgentFailure, match="bad-request"):
            agent.request("chunks", bytes(1000), **bring)
        for payload, code in ((bytes(1000), "digest-mismatch"), (MODEL[:999], "bad-request"), (MODEL + b"1", "bad-")):
            ask(agent, MODEL)
            with pytest.raises(AgentFailure, match=code):
                agent.request("chunks", payload, sha256=digest(MODEL), bytes=len(payload))
        with pytest.raises(AgentFailure, match="bad-request"):
            agent.request("chunks", bytes(1000), sha256=digest(NEXT), bytes=1000)
        with pytest.raises(AgentFailure, match="bad-request"):
            ask(agent, MODEL, b"x" * (5 << 20))


def test_a_model_that_does_not_fit_is_told_before_a_chunk_moves(tmp_path: Path) -> None:
    """The whole model needs room on the device, however little of it is sent."""
    names = json.dumps(GOOD | {"lengths": [1 << 20] * 100_000, "digests": "00" * 800_000}).encode()
    with AgentClient(tmp_path / "root") as agent:
        agent.hello()
        with pytest.raises(AgentFailure, match="disk-full"):
            ask(agent, MODEL, names, bytes=100_000 << 20)
