"""Samples out of a user's function, ``module:function``: called anew for each pass, and held to what it gave before."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.errors import InputError
from edgepack.events import ignore_events
from edgepack.quantize.arrays import Port
from edgepack.quantize.binding import fit_samples, read_batches
from edgepack.quantize.checking import check_content, read_labels
from edgepack.quantize.overlap import refuse_overlap
from edgepack.quantize.samples import open_samples, samples_from_json

PORT = (Port("v", (None, 2), "float32"),)
_numbers = itertools.count()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a module of the user's into the current folder and returns its name."""
    monkeypatch.chdir(tmp_path)

    def write(source: str) -> str:
        name = f"user_samples_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(f"import itertools, random\nimport numpy as np\n{source}")
        return name

    return write


def refusal_of(text: str, inputs: tuple[Port, ...] = PORT) -> InputError:
    """What is said about a function that something is wrong with."""

    def use() -> None:
        checked = check_content(open_samples(text), need_labels=False, report=ignore_events)
        fit_samples(checked.samples, inputs)
        list(read_batches(checked.samples, inputs, 2))

    with pytest.raises(InputError) as refusal:
        use()
    return refusal.value


@pytest.mark.parametrize(
    "body",
    [
        "yield np.array([n, n], np.float32), n % 3",
        "yield {'v': [float(n), float(n)], 'y': n % 3}",
        "yield {'x': np.array([[n, n]], 'f4'), 'y': np.int64(n % 3)}",
        "yield {'v': np.array([n, n], 'f8')}, n % 3",
        "yield [np.array([[n, n]], 'f4')], n % 3",
    ],
)
def test_samples_come_as_people_yield_them(module: Any, body: str) -> None:
    """Arrays, pairs and dicts, with or without a batch dimension of 1; a range takes some of them."""
    name = module(f"def samples():\n    for n in range(7):\n        {body}\n")
    samples = open_samples(f"{name}:samples")
    assert samples.rows == 7
    got = np.concatenate([batch["v"] for batch in read_batches(samples, PORT, 3)])
    assert got.tolist() == [[n, n] for n in range(7)]
    part = open_samples(f"{name}:samples#2:5")
    assert read_labels(part).tolist() == [2, 0, 1]  # type: ignore[union-attr]
    assert next(read_batches(part, PORT, 9))["v"].tolist() == [[2, 2], [3, 3], [4, 4]]


def test_an_endless_function_serves_a_range(module: Any) -> None:
    """Only as many samples are made as were asked for."""
    name = module("def samples():\n    return (np.full(2, n, 'f4') for n in itertools.count())\n")
    assert len(check_content(open_samples(f"{name}:samples#:5"), need_labels=False, report=ignore_events).rows) == 5
    assert refusal_of(f"{name}:samples#:0").code == "empty-samples"


def test_other_samples_on_the_next_call_are_refused(module: Any) -> None:
    """A function that shuffles would pair outputs with the labels of other samples."""
    name = module("def samples():\n    return [np.full(2, random.random(), 'f4') for _ in range(5)]\n")
    error = refusal_of(f"{name}:samples")
    assert error.code == "unsteady-samples"
    assert "shuffling" in error.hint


def test_a_used_up_generator_is_told(module: Any) -> None:
    """One generator for all calls is empty on the second."""
    name = module("once = (np.full(2, n, 'f4') for n in range(5))\ndef samples():\n    return once\n")
    error = refusal_of(f"{name}:samples")
    assert error.code in ("unsteady-samples", "empty-samples")


YIELDS = "def samples():\n    yield "


@pytest.mark.parametrize(
    ("source", "code", "told"),
    [
        (f"{YIELDS}np.zeros(2)\n    raise OSError('disk gone')\n", "samples-failed", "line 5: OSError: disk gone"),
        ("def samples(folder):\n    yield 1\n", "samples-failed", "when it was called: TypeError"),
        ("def samples():\n    return 7\n", "samples-failed", "'int' object is not iterable"),
        ("def samples():\n    return []\n", "empty-samples", "gives no samples"),
        ("samples = 7\n", "unknown-samples", "is not a function"),
        ("def other(): pass\n", "unknown-samples", "has no attribute 'samples'"),
        ("import not_there\n", "unknown-samples", "No module named 'not_there'"),
        (f"{YIELDS}np.zeros(2)\n    yield np.zeros(3)\n", "bad-samples", "1: 'x' has the shape [3], and [2]"),
        (f"{YIELDS}[1, 2]\n    yield [1.5, 2.5]\n", "bad-samples", "sample 1: 'x' is float64, and int64"),
        (f"{YIELDS}'text'\n", "bad-samples", "sample 0, 'x': it is str"),
        (f"{YIELDS}np.zeros(2), 1, 2\n", "bad-samples", "a tuple of 3 is no sample"),
        (YIELDS + "{'y': 1}\n", "bad-samples", "there is no input"),
        (YIELDS + "{'v': np.zeros(2)}\n    yield {'w': np.zeros(2)}\n", "bad-samples", "there is no 'v'"),
        (f"{YIELDS}np.zeros(3)\n", "bad-samples", "takes [N, 2]"),
        (f"{YIELDS}np.array([1.0, np.nan])\n", "not-finite", "row 0"),
    ],
)
def test_each_fault_is_told_with_the_functions_own_words(module: Any, source: str, code: str, told: str) -> None:
    """Exit 2 with the sample's number, before anything is converted."""
    error = refusal_of(f"{module(source)}:samples")
    assert (error.code, told in error.message) == (code, True), error.message


def test_rows_of_one_function_do_not_overlap(module: Any) -> None:
    """As with files: a row taken for both is refused, ranges apart are fine."""
    name = module("def samples():\n    return (np.full(2, n, 'f4') for n in range(9))\n")

    def checked(rows: str) -> Any:
        return check_content(open_samples(f"{name}:samples#{rows}"), need_labels=False, report=ignore_events)

    assert refuse_overlap(checked("0:4"), checked("4:9")) == []
    with pytest.raises(InputError, match="1 row"):
        refuse_overlap(checked("0:5"), checked("4:9"))


def test_another_process_calls_it_again(module: Any) -> None:
    """As text, with what it gave before: another answer there is refused too."""
    name = module("def samples():\n    return (np.full(2, n, 'f4') for n in range(9))\n")
    samples = check_content(open_samples(f"{name}:samples"), need_labels=False, report=ignore_events).samples
    again = samples_from_json(samples.to_json())
    assert again == samples
    other = samples_from_json(samples.to_json().replace(samples.content, "0" * 32))
    with pytest.raises(InputError, match="other samples"):
        list(read_batches(other, PORT, 4))


def test_what_it_prints_does_not_reach_stdout(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output belongs to --json."""
    name = module("print('importing')\ndef samples():\n    print('making')\n    yield np.zeros(2)\n")
    open_samples(f"{name}:samples")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "making" in captured.err


def test_it_finds_its_neighbours_when_it_needs_them(module: Any) -> None:
    """A module beside it may be imported when the function runs, too."""
    helper = module("VALUE = 3.0\n")
    name = module(f"def samples():\n    import {helper}\n    yield np.full(2, {helper}.VALUE)\n")
    (batch,) = read_batches(open_samples(f"{name}:samples"), PORT, 2)
    assert batch["v"].tolist() == [[3, 3]]


def test_ten_thousand_samples_do_not_live_in_memory(module: Any) -> None:
    """280 MB of samples pass through check and reading with little more than one batch takes."""
    name = module("def samples():\n    return (np.full((48, 48, 3), n, 'f4') for n in range(10_000))\n")
    script = (
        "import resource, sys\n"
        "from edgepack.events import ignore_events\n"
        "from edgepack.quantize.arrays import Port\n"
        "from edgepack.quantize.binding import read_batches\n"
        "from edgepack.quantize.checking import check_content\n"
        "from edgepack.quantize.samples import open_samples\n"
        "port = (Port('x', (None, 48, 48, 3), 'float32'),)\n"
        "check_content(open_samples(sys.argv[1] + '#0:700'), need_labels=False, report=ignore_events)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "checked = check_content(open_samples(sys.argv[1]), need_labels=False, report=ignore_events)\n"
        "rows = sum(len(batch['x']) for batch in read_batches(checked.samples, port, 32))\n"
        "print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    command = [sys.executable, "-c", script, f"{name}:samples"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    rows, grown_mb = map(int, done.stdout.split())
    assert rows == 10_000
    assert grown_mb < 60


def test_a_failed_function_is_told_with_the_line_that_shows_more(module: Any) -> None:
    """The command in the hint can be pasted: it names the module and the function."""
    name = module("def samples():\n    yield 1 / 0\n")
    assert f"python -c 'import {name}; list({name}.samples())'" in refusal_of(f"{name}:samples").hint
