"""Pushing a model of which the device holds a part already: only the chunks that it lacks travel."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_models import add_model
from bundle_tiny import content_of, rewritten
from cutting_proxy import CuttingProxy, Fault
from deploying import Device, tiny_target
from hypothesis import given
from hypothesis import strategies as st
from real_sshd import RealSshd
from test_device_resume import again, behind

import edgepack
from edgepack.bundle import open_bundle
from edgepack.bundle.build import build_bundle
from edgepack.bundle.recipe import PIECE_BYTES
from edgepack.deploy.chunking import BATCH_BYTES, batches, deflate, lacking_chunks
from edgepack.device import ConnectOptions, Session
from edgepack.documents import canonical_json
from edgepack.events import Event
from edgepack.tflite import buffer_regions

VALUES = 48 * PIECE_BYTES // 4


def weights(seed: int = 0) -> bytearray:
    """The weights of a model, as incompressible as trained ones seldom are."""
    return bytearray(np.random.default_rng(seed).bytes(4 * VALUES))


def bundle_of(folder: Path, constant: bytes | bytearray, version: str, *, name: str = "app") -> Path:
    """A bundle of a model with these weights."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"{version}.tflite"
    content = bytearray(add_model(len(constant) // 4))
    model.write_bytes(content)
    start, length = max(buffer_regions(model), key=lambda region: region[1])
    content[start : start + length] = constant
    model.write_bytes(content)
    path = folder / f"{name}-{version}.edgepack"
    build_bundle(model, target=tiny_target(), name=name, version=version, output=path, with_runtime=False)
    return path


def model_on(device: Device, release: str, name: str = "app") -> bytes:
    """The model of a release, as it lies on the device."""
    return (device.release(name, release) / "model.tflite").read_bytes()


def test_of_a_changed_model_only_the_changed_chunks_travel(device: Device, tmp_path: Path) -> None:
    """A few changed weights cost their chunks and the recipe; the release is whole, and a dry run told it before."""
    first = weights()
    edgepack.push(bundle_of(tmp_path, first, "1.0.0"), **device.where)
    first[100_000:100_004] = b"new!"
    path = bundle_of(tmp_path, first, "1.1.0")
    told = edgepack.push(path, dry_run=True, **device.where)
    events: list[Event] = []
    pushed = edgepack.push(path, report=events.append, **device.where)
    assert pushed.bytes == told.bytes
    others = len(open_bundle(path).manifest_bytes)
    assert PIECE_BYTES <= pushed.bytes.sent - others <= PIECE_BYTES + 1500
    assert pushed.bytes.total - 40_000 < pushed.bytes.reused < pushed.bytes.total
    assert model_on(device, pushed.release) == content_of(open_bundle(path), "model.tflite")
    assert pushed.round_trips == 4
    assert any("of the model's 78" in event.message for event in events)
    counted = [event for event in events if event.done is not None]
    assert counted[-1].done == counted[-1].total
    assert not list((device.root / "incoming").iterdir())


def test_chunks_come_from_every_release_of_every_app(here: Device, tmp_path: Path) -> None:
    """Half of the weights lie in one app's release and half in another's: no weight travels."""
    one, other = weights(1), weights(2)
    half = 25 * PIECE_BYTES
    edgepack.push(bundle_of(tmp_path, one, "1.0.0"), **here.where)
    edgepack.push(bundle_of(tmp_path, other, "1.0.0", name="other"), **here.where)
    path = bundle_of(tmp_path, one[:half] + other[half:], "2.0.0", name="third")
    pushed = edgepack.push(path, **here.where)
    assert pushed.bytes.sent < 6_000
    assert model_on(here, pushed.release, "third") == content_of(open_bundle(path), "model.tflite")


def test_a_model_that_rotted_is_mended_by_its_damaged_chunk(here: Device, tmp_path: Path) -> None:
    """One flipped bit on the card costs one chunk, not the model; with a recipe that rotted too, the model."""
    path = bundle_of(tmp_path, weights(), "1.0.0")
    release = edgepack.push(path, **here.where).release
    folder = here.release("app", release)
    sound = model_on(here, release)
    for damaged, most in (
        (("model.tflite",), PIECE_BYTES + 200),
        (("model.tflite", "recipe.json"), len(sound) + 9_000),
    ):
        for name in damaged:
            content = bytearray((folder / name).read_bytes())
            content[len(content) // 2] ^= 1
            (folder / name).chmod(0o644)
            (folder / name).write_bytes(content)
        mended = edgepack.push(path, **here.where)
        assert 0 < mended.bytes.sent <= most
        assert model_on(here, release) == sound


def test_an_interrupted_delta_goes_on_where_it_stopped(here: Device, tmp_path: Path) -> None:
    """Ctrl-C amid the chunks: what arrived is not sent again, and the release is whole in the end."""
    edgepack.push(bundle_of(tmp_path, weights(1) * 6, "1.0.0"), **here.where)
    path = bundle_of(tmp_path, weights(1) + weights(2) * 2 + weights(3) + weights(4), "2.0.0")

    def interrupt(event: Event) -> None:
        if event.done is not None and event.done >= BATCH_BYTES:
            raise KeyboardInterrupt

    whole = edgepack.push(path, dry_run=True, **here.where).bytes.sent
    assert whole < 4 * VALUES * 3 + 9_000  # the weights that come twice travel once
    with pytest.raises(KeyboardInterrupt):
        edgepack.push(path, report=interrupt, **here.where)
    pushed = edgepack.push(path, **here.where)
    assert pushed.bytes.sent <= whole - BATCH_BYTES + 2 * PIECE_BYTES
    assert model_on(here, pushed.release) == content_of(open_bundle(path), "model.tflite")


@pytest.mark.sshd
def test_a_delta_over_a_line_that_is_cut_goes_on_in_the_same_command(
    sshd: RealSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut at one byte after the other of the question, the chunks and the answers: the release is whole in the end."""
    monkeypatch.setattr("edgepack.device.retrying._LONGEST_PAUSE_S", 0.1)
    first = bundle_of(tmp_path, weights(1) * 3, "1.0.0")
    path = bundle_of(tmp_path, weights(1) + weights(2) + weights(3), "2.0.0")
    cuts = [Fault(after) for after in (45_000, 400_001, 900_002)]
    events: list[Event] = []
    with CuttingProxy(sshd.port, faults=cuts) as proxy:
        device = behind(proxy, sshd, tmp_path, retries=20)
        here = Device(f"local:{device.root}", ConnectOptions(python=sys.executable), device.root)
        edgepack.push(first, **here.where)
        whole = edgepack.push(path, dry_run=True, **here.where).bytes.sent
        pushed = edgepack.push(path, report=events.append, **device.where)
    assert len(again(events)) == len(cuts)
    assert model_on(here, pushed.release) == content_of(open_bundle(path), "model.tflite")
    assert pushed.bytes.sent < 4 * whole
    assert not list((here.root / "incoming").iterdir())


@pytest.mark.parametrize("lie", ["lengths", "digests", "none", "other"])
def test_with_a_recipe_that_lies_the_model_is_sent_whole(lie: str, here: Device, tmp_path: Path) -> None:
    """A recipe that is not the model's costs bytes and nothing else: the release is whole in the end."""
    edgepack.push(bundle_of(tmp_path, weights(1), "1.0.0"), **here.where)
    honest = open_bundle(bundle_of(tmp_path, weights(1)[:-40_000] + weights(2)[-40_000:], "2.0.0"))
    files = {path: content_of(honest, path) for path in honest.entries}
    recipe = json.loads(files["recipe.json"])
    if lie == "lengths":
        recipe["lengths"][0] += 1
    elif lie == "digests":
        recipe["digests"] = recipe["digests"][:-16] + "0" * 16
    elif lie == "none":
        recipe = {"schema": 1, "file": "model.tflite", "chunks": []}
    else:  # the recipe of the release that is there: the device rebuilds that one
        recipe = json.loads((next(here.root.glob("apps/app/releases/1.0.0-*")) / "recipe.json").read_text())
    path = rewritten(
        tmp_path / "lying.edgepack", honest.manifest_bytes, files | {"recipe.json": canonical_json(recipe)}
    )
    pushed = edgepack.push(path, **here.where)
    assert pushed.bytes.sent > 4 * VALUES
    assert model_on(here, pushed.release) == files["model.tflite"]
    assert edgepack.status(**here.where).candidate == pushed.release


def test_an_agent_that_knows_no_delta_gets_the_model_whole(
    here: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that was pinned by an older edgepack answers nothing about deltas: none is asked for."""
    edgepack.push(bundle_of(tmp_path, weights(1), "1.0.0"), **here.where)
    real = Session.request

    def older(self: Session, verb: str, *more: Any, **args: Any) -> Any:
        assert verb != "delta"
        reply = real(self, verb, *more, **args)
        reply.result.pop("delta", None)
        return reply

    monkeypatch.setattr(Session, "request", older)
    pushed = edgepack.push(bundle_of(tmp_path, weights(1)[:-4] + b"tail", "2.0.0"), **here.where)
    assert pushed.bytes.sent > 4 * VALUES


# What is sent, as values.


@given(st.lists(st.integers(1, BATCH_BYTES), max_size=60), st.sets(st.integers(0, 59)))
def test_batches_hold_each_chunk_once_and_at_most_a_mib(lengths: list[int], wanted: set[int]) -> None:
    """In order, none left out, none twice; a message that the device has to hold stays small."""
    chunks = sorted(number for number in wanted if number < len(lengths))
    grouped = list(batches(lengths, chunks))
    assert [number for batch in grouped for number in batch] == chunks
    assert all(sum(lengths[number] for number in batch) <= BATCH_BYTES for batch in grouped)


@given(st.binary(max_size=40), st.integers(0, 330))
def test_an_answer_names_chunks_that_there_are(bits: bytes, count: int) -> None:
    """Whatever a device answers, it is chunks of the recipe in rising order, or no answer."""
    found = lacking_chunks(bits, count)
    if found is not None:
        assert list(found) == sorted(set(found))
        assert all(0 <= number < count for number in found)
        assert sum(byte.bit_count() for byte in bits) == len(found)


def test_deflating_must_pay() -> None:
    """Tables shrink and are deflated, random bytes go raw; of a great deal only what shrinks a lot is deflated."""
    assert deflate(bytes(1000))[1]
    noise = os.urandom(100_000)
    assert deflate(noise) == (noise, False)
    trained = bytes(byte & 0x3F for byte in noise)
    assert deflate(trained)[1]
    assert deflate(trained, of_bytes=1 << 30) == (trained, False)
    assert deflate(bytes(100_000), of_bytes=1 << 30)[1]
