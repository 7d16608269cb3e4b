from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from agent_client import AgentClient
from ondevice_release import installed_runtime, lay_out, model_release, run_program

RUN = """
import edgepack_device, numpy as np
model = edgepack_device.load("tiny", isolated={isolated})
x = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1)
"""


def test_the_active_release_is_loaded(tmp_path: Path) -> None:
    """A program names the app and gets the release that was activated, through the door that the push installed."""
    release = model_release()
    with AgentClient(tmp_path) as agent:
        agent.hello_and_push(release)
        assert "not active" not in run_program(tmp_path, "result = ''")
        said = run_program(tmp_path, "import edgepack_device; edgepack_device.load('tiny')", fails=True)
        assert "No release of tiny is active" in said
        agent.activate(release)
    body = RUN.format(isolated=False) + "result = [model.info()['release'], float(model.predict(x).sum())]"
    found, total = run_program(tmp_path, body)
    assert found == release.release
    assert total == pytest.approx(1, abs=0.05)
    folder = tmp_path / "apps" / "tiny" / "releases" / release.release
    assert not list(folder.rglob("__pycache__"))


@pytest.mark.parametrize("app", ["nope", "", "..", "../tiny", "/etc"])
def test_an_app_that_is_not_there_is_named(app: str, tmp_path: Path) -> None:
    """An unknown app is an error that lists the known ones; a path is no app."""
    lay_out(tmp_path, model_release())
    said = run_program(tmp_path, f"import edgepack_device; edgepack_device.load({app!r})", fails=True)
    assert "LoadError" in said
    assert said.count("there: tiny). Name one of those, or push a bundle of this one.") == 1


def test_a_loaded_model_outlives_the_next_activation(tmp_path: Path) -> None:
    """`current` is read once: an activation in between changes only what is loaded afterwards."""
    lay_out(tmp_path, model_release())
    other = model_release("tiny_float")
    body = (
        RUN.format(isolated=False)
        + f"""
import os
link = {str(tmp_path / "apps" / "tiny" / "current")!r}
os.symlink("releases/{other.release}", link + ".new"); os.replace(link + ".new", link)
later = edgepack_device.load("tiny")
result = [len(model.inputs), len(later.inputs), float(model.predict(x).sum())]
"""
    )
    lay_out(tmp_path, other)
    lay_out_again = tmp_path / "apps" / "tiny" / "current"
    lay_out_again.unlink()
    lay_out_again.symlink_to(f"releases/{model_release().release}")
    assert run_program(tmp_path, body)[:2] == [1, 2]


def test_several_apps_live_in_one_process(tmp_path: Path) -> None:
    """One program may use several models at once."""
    lay_out(tmp_path, model_release())
    lay_out(tmp_path, model_release("tiny_float", app="other"))
    body = (
        RUN.format(isolated=False)
        + """
other = edgepack_device.load("other")
y = other.predict(left=[[1, 1, 1]], right=[[2, 2, 2]])
result = [list(model.predict(x).shape), y["total"].tolist()]
"""
    )
    assert run_program(tmp_path, body) == [[1, 4], [[4, 4, 4]]]


def test_an_isolated_model_gives_the_same_numbers(tmp_path: Path) -> None:
    """A worker process answers exactly as the model in the program's own process does."""
    lay_out(tmp_path, model_release())
    lay_out(tmp_path, model_release("tiny_float", app="other"))
    body = """
raw = model.predict_raw(np.zeros((1, 8, 8, 1), np.int8))
result = [model.predict(x).tolist(), raw.tolist(), str(raw.dtype)]
other = edgepack_device.load("other", isolated=%s)
result.append({k: v.tolist() for k, v in other.predict(left=[[1, 2, 3]], right=[[1, 1, 1]]).items()})
"""
    results = [run_program(tmp_path, RUN.format(isolated=way) + body % way) for way in (True, False)]
    assert results[0] == results[1]


def test_an_isolated_model_refuses_as_the_other_does(tmp_path: Path) -> None:
    """Wrong inputs raise the same error through the worker, which goes on afterwards; close ends it."""
    lay_out(tmp_path, model_release())
    body = """
said = []
for bad in (np.zeros((3, 3)), "a cat", {"nope": x}, np.array([{}], dtype=object)):
    try:
        model.predict(bad)
    except ValueError as error:
        said.append(error.code)
shape = list(model.predict(x).shape)
model.close()
try:
    model.predict(x)
except Exception as error:
    said.append(error.code)
result = [said, shape]
"""
    assert run_program(tmp_path, RUN.format(isolated=True) + body) == [["bad-input"] * 4 + ["closed"], [1, 4]]


def test_a_worker_that_dies_is_reported(tmp_path: Path) -> None:
    """When the worker was killed, the program gets an error instead of waiting for ever."""
    lay_out(tmp_path, model_release())
    body = """
model._worker.kill()
model._worker.wait()
try:
    model.predict(x)
except Exception as error:
    result = error.code
"""
    assert run_program(tmp_path, RUN.format(isolated=True) + body) == "worker-died"


def test_an_interrupted_call_never_answers_the_next_one(tmp_path: Path) -> None:
    """Wherever a signal breaks a call off, the next one raises "worker-died" or answers its own question, at once."""
    lay_out(tmp_path, model_release())
    body = """
import signal
class Stop(Exception): pass
def stop(*_):
    raise Stop
signal.signal(signal.SIGALRM, stop)
one, two = x, np.ascontiguousarray(x[:, ::-1])
expected, batch = model.predict(two), np.repeat(one, 3000, axis=0)
assert not np.array_equal(model.predict(one), expected)
outcomes, broken = {}, 0
for delay in (1e-6, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2):
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        model.predict(batch)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Stop:
        broken += 1
    try:
        outcome = "right" if np.array_equal(model.predict(two), expected) else "WRONG"
    except edgepack_device.LoadError:
        raise
    except Exception as error:
        outcome = error.code
        assert "edgepack_device.load" in error.hint and model._worker.poll() is not None
        model.close()
        model = edgepack_device.load("tiny", isolated=True)
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
result = [sorted(outcomes), broken]
"""
    outcomes, broken = run_program(tmp_path, RUN.format(isolated=True) + body)
    assert "worker-died" in outcomes
    assert set(outcomes) <= {"worker-died", "right"}
    assert broken > 3


def test_an_isolated_model_describes_itself_as_the_other_does(tmp_path: Path) -> None:
    """Programs read names, shapes, dtypes and scales off the same kind of value, isolated or not."""
    lay_out(tmp_path, model_release())
    body = """
tensors = [*model.inputs, *model.outputs]
result = [type(model.inputs).__name__] + [
    [t.name, t.shape, str(t.dtype), str(type(t.scale)), float(t.scale), t.zero_point, t.to_json()] for t in tensors
]
"""
    results = [run_program(tmp_path, RUN.format(isolated=way) + body) for way in (True, False)]
    assert results[0] == results[1]
    assert results[0][1][2] == "int8"


def test_a_foreign_numpy_is_not_shadowed(tmp_path: Path) -> None:
    """A program with a numpy that the runtime cannot use is told so, with the way out, and the way out works."""
    release = model_release()
    if installed_runtime() != "tflite-runtime":
        pytest.skip("ai-edge-litert takes every numpy")
    lay_out(tmp_path, release)
    body = "import numpy; numpy.__version__ = '2.3.1'\n"
    said = run_program(tmp_path, body + RUN.format(isolated=False), fails=True)
    assert "imported numpy 2.3.1" in said
    assert "isolated=True" in said
    works = (
        body + RUN.format(isolated=True) + "result = [list(model.predict(x).shape), model.info()['runtime']['numpy']]"
    )
    shape, numpy_there = run_program(tmp_path, works)
    assert shape == [1, 4]
    assert numpy_there == np.__version__


def test_a_numpy_that_the_program_never_imported_is_the_pythons(tmp_path: Path) -> None:
    """Where the Python's own numpy does not fit, the program is not accused of having imported it."""
    lay_out(tmp_path, model_release())
    if installed_runtime() != "tflite-runtime":
        pytest.skip("ai-edge-litert takes every numpy")
    (tmp_path / "site" / "numpy").mkdir(parents=True)
    (tmp_path / "site" / "numpy" / "__init__.py").write_text("__version__ = '2.3.1'")
    body = f"sys.path.insert(0, {str(tmp_path / 'site')!r})\nimport edgepack_device\nedgepack_device.load('tiny')"
    said = run_program(tmp_path, body, fails=True)
    assert "This Python has numpy 2.3.1" in said


@pytest.fixture(scope="module")
def numpy_2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real numpy 2 for this Python, as pip gets it; skips offline, but never in CI."""
    folder = tmp_path_factory.mktemp("numpy-2")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), "numpy>=2,<2.5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"pip cannot get a numpy 2: {done.stderr.strip()[-300:]}")
    return folder


@pytest.mark.network
def test_a_program_on_a_real_numpy_2_runs_an_isolated_model(tmp_path: Path, numpy_2: Path) -> None:
    """A program with numpy 2 uses a release whose runtime may need numpy 1 through the worker, and gets its scores."""
    lay_out(tmp_path, model_release())
    body = f"import sys; sys.path.insert(0, {str(numpy_2)!r}); import numpy\n"
    body += RUN.format(isolated=True) + "result = [np.__version__, model.predict(x).tolist()]"
    if installed_runtime() == "tflite-runtime":
        refused = run_program(tmp_path, body.replace("isolated=True", "isolated=False"), fails=True)
        assert "This program has imported numpy 2." in refused
        assert "load(app, isolated=True)" in refused
    version, scores = run_program(tmp_path, body)
    assert version.startswith("2.")
    assert scores == run_program(tmp_path, RUN.format(isolated=False) + "result = model.predict(x).tolist()")


def test_a_python_without_the_packages_is_shown_the_way_out(tmp_path: Path) -> None:
    """A program on a Python that lacks what the release uses learns which Python has it."""
    lay_out(tmp_path, model_release(), interpreter=sys.executable)
    body = "import sys; sys.modules['numpy'] = None\nsys.executable = '/usr/bin/python3.99'\nimport edgepack_device\n"
    said = run_program(tmp_path, body + "edgepack_device.load('tiny')", fails=True)
    assert f"was set up for {sys.executable}" in said
    said = run_program(tmp_path, body + "edgepack_device.load('tiny', isolated=True)", fails=True)
    assert "needs numpy to talk to the model" in said


def test_another_python_is_told_apart(tmp_path: Path) -> None:
    """A release whose unpacked runtime is for another Python says which one, and offers the worker."""
    release = model_release()
    release.runtime = {**(release.runtime or {}), "id": "0123456789abcdef"}
    lay_out(tmp_path, release, platform={"python": "3.7"})
    said = run_program(tmp_path, RUN.format(isolated=False), fails=True)
    assert "is for Python 3.7" in said
    assert "isolated=True" in said


def test_two_runtimes_never_share_a_process(tmp_path: Path) -> None:
    """Where the program has loaded another TFLite runtime, the model is refused instead of crashing both."""
    lay_out(tmp_path, model_release())
    other = "ai_edge_litert" if installed_runtime() == "tflite-runtime" else "tflite_runtime"
    body = f"import sys, types; sys.modules[{other!r}] = types.ModuleType({other!r})\n"
    said = run_program(tmp_path, body + RUN.format(isolated=False), fails=True)
    assert f"has loaded {other}" in said
    assert "isolated=True" in said


def test_the_releases_own_runtime_is_used_and_sys_path_left_alone(tmp_path: Path) -> None:
    """The unpacked wheels of a release win over what is installed, without changing where the program imports from."""
    package = installed_runtime()
    release = model_release()
    release.runtime = {**(release.runtime or {}), "id": "0123456789abcdef", "dists": ["own"]}
    lay_out(tmp_path, release)
    module = {"tflite-runtime": "tflite_runtime", "ai-edge-litert": "ai_edge_litert"}[package]
    own = tmp_path / "runtimes" / "0123456789abcdef" / "own"
    (own / module).mkdir(parents=True)
    (own / module / "__init__.py").write_text("raise ImportError('this is the own one')")
    body = """
import edgepack_device, sys
before = list(sys.path)
try:
    edgepack_device.load("tiny")
except edgepack_device.LoadError as error:
    result = [error.code, str(error), sys.path == before]
"""
    code, said, same = run_program(tmp_path, body)
    assert (code, same) == ("no-runtime", True)
    assert "this is the own one" in said


def test_the_root_can_be_named(tmp_path: Path) -> None:
    """A program may copy the door and say where edgepack's folder is."""
    lay_out(tmp_path / "there", model_release())
    (tmp_path / "lib").mkdir()
    shutil.copy(tmp_path / "there" / "lib" / "edgepack_device.py", tmp_path / "lib")
    body = (
        f"import edgepack_device; result = edgepack_device.load('tiny', root={str(tmp_path / 'there')!r}).info()['app']"
    )
    assert run_program(tmp_path, body) == "tiny"
