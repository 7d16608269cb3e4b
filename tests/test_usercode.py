"""A user's own functions are loaded as they are now, and whatever they do is an error with words."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack.errors import InputError
from edgepack.metric import load_metric
from edgepack.quantize.functions import open_function
from edgepack.usercode import load_function


def write(folder: Path, name: str, code: str) -> None:
    """A module in a folder."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(code)


def test_an_edited_module_is_loaded_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook the function of the file as it is now is used, not the one of the first run."""
    monkeypatch.chdir(tmp_path)
    values = []
    for value in (1, 22, 333):
        write(tmp_path, "edited_module", f"def answer():\n    return {value}\n")
        values.append(load_function("edited_module:answer")())
    assert values == [1, 22, 333]


def test_modules_of_one_name_in_two_projects_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder's is meant, whatever was loaded before."""
    values = []
    for name in ("one", "two", "one"):
        write(tmp_path / name, "twin_module", f"def answer():\n    return {name!r}\n")
        monkeypatch.chdir(tmp_path / name)
        values.append(load_function("twin_module:answer")())
    assert values == ["one", "two", "one"]


@pytest.mark.parametrize(
    "code",
    ["import sys\nsys.exit(0)\n", "import sys\ndef answer(*_):\n    sys.exit(0)\n    yield\n"],
    ids=["on import", "when called"],
)
def test_code_that_ends_the_program_ends_no_run_of_edgepack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """sys.exit in samples is an error that says what to do, never a silent success."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "ending_module", code)
    with pytest.raises(InputError, match=r"sys\.exit\(0\)"):
        open_function("ending_module:answer", None)


def test_a_metric_in_a_broken_module_is_mended_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint is the line to mend, or what to install; the grammar of --metric is no answer to either."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "broken_metric", "\ndef f(:\n")
    write(tmp_path, "needing_metric", "import not_there.at_all\n")
    for name, cure in (
        ("broken_metric", "Mend broken_metric.py, line 2."),
        ("needing_metric", "pip install not_there"),
    ):
        with pytest.raises(InputError) as refusal:
            load_metric(f"{name}:f")
        assert refusal.value.hint.endswith(cure)


def test_a_metric_that_ends_the_program_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is called."""
    import numpy as np

    monkeypatch.chdir(tmp_path)
    write(tmp_path, "ending_metric", "import sys\ndef metric(outputs, labels):\n    sys.exit(0)\n")
    metric = load_metric("ending_metric:metric")
    with pytest.raises(InputError, match=r"sys\.exit\(0\)"):
        metric.measure({"out": np.zeros((2, 2))}, np.zeros(2))
