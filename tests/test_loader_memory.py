from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from agent_client import AgentClient, AgentFailure
from fuzzing import npy, npz_of
from ondevice_release import lay_out, model_release, run_program

from edgepack.bundle import checkset
from edgepack.ondevice import loader

LOAD = "import edgepack_device, numpy as np\nmodel = edgepack_device.load('tiny')\n"
QUICK = {"threads": 1, "min_runs": 20, "min_seconds": 0, "max_seconds": 5, "check": False}


def test_a_picture_for_which_there_is_no_memory_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    """A size whose tensors get no memory is a ValueError, after which the model answers as before."""
    lay_out(tmp_path, model_release("tiny_open"))
    body = """
import resource
picture = np.random.default_rng(0).uniform(0, 1, (1, 6, 9, 1)).astype(np.float32)
expected = model.predict(picture)
huge = np.broadcast_to(np.int8(0), (1, 20000, 20000, 1))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
try:
    model.predict_raw(huge)
except ValueError as error:
    said = str(error)
result = [said, bool(np.array_equal(model.predict(picture), expected))]
"""
    said, same = run_program(tmp_path, LOAD + body)
    assert "cannot resize the model to [1, 20000, 20000, 1]" in said
    assert same


def test_a_model_keeps_its_interpreter_and_its_memory(tmp_path: Path) -> None:
    """Thousands of calls, of changing batch sizes, run on the interpreter that was loaded and take no more memory."""
    lay_out(tmp_path, model_release("tiny_float"))
    body = """
def resident_kib():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
def ask(times):
    for i in range(times):
        n = 1 + i % 50
        model.predict(left=np.ones((n, 3)), right=np.ones((n, 3)))
interpreter = model._interpreter
ask(500)
before = resident_kib()
ask(4000)
result = [resident_kib() - before, model._interpreter is interpreter]
"""
    grown_kib, same = run_program(tmp_path, LOAD + body)
    assert same
    assert grown_kib < 2048


def test_a_model_whose_tensors_exceed_the_memory_is_not_tried(tmp_path: Path) -> None:
    """A small file may need terabytes when it runs: `check` refuses it with the numbers, `load` by the same name."""
    release = model_release("tiny_vast")
    with AgentClient(tmp_path / "root") as agent:
        agent.hello_and_push(release)
        with pytest.raises(AgentFailure, match=r"memory-short: .* needs 8,796,093,022,208 at least"):
            agent.request("measure", app=None, release=None, options=QUICK)
        agent.activate(release)
    said = run_program(tmp_path / "root", "import edgepack_device; edgepack_device.load('tiny')", fails=True)
    assert "the model needs 8,796,093,022,208 at least" in said


@pytest.mark.parametrize(
    ("shape", "dtype", "data", "said"),
    [
        ("(400000000,)", "'<f4'", b"", "its arrays hold 1,600,000,000 bytes, 536,870,912 are the most"),
        ("(-400000000,)", "'<f4'", b"", "a negative size"),
        ("(100000000,)", "'<f4'", b"", "check.npz cannot be read"),
        ("(1,)", "'|O'", b"x", "check.npz cannot be read"),
    ],
)
def test_a_check_set_that_lies_is_refused_on_the_device(
    tmp_path: Path, shape: str, dtype: str, data: bytes, said: str
) -> None:
    """What a check set claims is added up from its headers; a measurement with a hostile one is a named error."""
    check_set = npz_of([("input/image.npy", npy(shape, dtype, data))], zipfile.ZIP_DEFLATED)
    (tmp_path / "check.npz").write_bytes(check_set)
    with pytest.raises(loader.LoaderError, match=said) as caught:
        loader.read_check_set(str(tmp_path / "check.npz"), np)
    assert caught.value.code == "bad-check-set"


def test_a_check_set_for_which_there_is_no_memory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 KB that unpack to 32 MiB need twice that to be measured with; a device with less says so, unread."""
    path = tmp_path / "check.npz"
    path.write_bytes(npz_of([("input/x.npy", npy("(8388608,)", "'<f4'", bytes(32 << 20)))], zipfile.ZIP_DEFLATED))
    monkeypatch.setattr(loader, "memory_available", lambda: (64 << 20) - 1)
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(loader.LoaderError, match="the check set needs 67,108,864 at least") as caught:
        loader.read_check_set(str(path), np)
    assert caught.value.code == "memory-short"
    monkeypatch.undo()
    assert loader.read_check_set(str(path), np)["input/x"].shape == (8388608,)


def test_timed_runs_take_no_more_memory_for_their_inputs_than_that(tmp_path: Path) -> None:
    """However large the samples of a check set are, those that wait for their run are bounded; one there always is."""
    images = np.random.default_rng(0).uniform(0, 1, (40, 8, 8, 1)).astype(np.float32)
    lay_out(tmp_path, model_release(check={"input/image": images}))
    body = """
known = type(model).__init__.__globals__  # the loader's
check = known["CheckSet"](model, model.release.check_path)
result = []
for known["INPUT_BYTES"] in (1 << 20, 10 * 64, 1):
    result.append(len(check.tensors()))
"""
    assert run_program(tmp_path, LOAD + body) == [40, 10, 1]


def test_a_measurement_with_a_huge_check_set_ends_in_a_named_error(tmp_path: Path) -> None:
    """The agent passes on what the loader found before it read an array; host and device have the same bound."""
    assert loader.CHECK_SET_LIMIT == checkset.MAX_BYTES == 512 << 20
    assert loader.CHECK_SET_DIRECTORY_LIMIT == checkset.MAX_DIRECTORY_BYTES
    bomb = npz_of([("input/image.npy", npy("(600, 1048576)", "'|i1'", b""))])
    release = model_release("tiny_int8", check_set=bomb)
    with AgentClient(tmp_path / "root") as agent:
        agent.hello_and_push(release)
        with pytest.raises(AgentFailure, match=r"bad-check-set: .*629,145,600 bytes"):
            agent.request("measure", app=None, release=None, options={**QUICK, "check": True})


@pytest.mark.parametrize(
    ("needed", "available", "short"), [(101, 100, True), (100, 100, False), (None, 100, False), (100, None, False)]
)
def test_what_is_not_known_of_the_memory_refuses_nothing(
    needed: int | None, available: int | None, short: bool
) -> None:
    """Only where both numbers are known, and the model needs more than there is, is it refused."""
    with pytest.raises(loader.LoaderError, match="memory") if short else contextlib.nullcontext():
        loader.require_memory(needed, available)


def test_the_memory_that_a_model_needs_is_its_weights_and_its_largest_operator() -> None:
    """Float16 weights count twice (they are unpacked), and of the activations those that are there together."""

    class Runtime:
        def _get_ops_details(self) -> list[dict[str, list[int]]]:
            return [{"inputs": [0, 3], "outputs": [1]}, {"inputs": [1, 4, -1], "outputs": [2]}]

        def get_tensor_details(self) -> list[dict[str, object]]:
            shapes = ([1, 10], [1, 20], [1, 2], [10, 20], [20, 2])
            kinds = (np.float32, np.float32, np.float32, np.float16, np.int8)
            return [{"index": i, "shape": s, "dtype": k} for i, (s, k) in enumerate(zip(shapes, kinds, strict=True))]

        def get_input_details(self) -> list[dict[str, object]]:
            return self.get_tensor_details()[:1]

    assert loader.needed_bytes(Runtime()) == (200 * 2 * 2 + 40) + (10 + 20) * 4
    assert loader.needed_bytes(object()) is None
    assert loader.count_delegated(object()) is None
