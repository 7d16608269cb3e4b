from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from ondevice_release import PACKAGES, installed_runtime, lay_out, model_release, run_program


@pytest.fixture
def float32(tmp_path: Path) -> Path:
    """An edgepack folder with the float model of two inputs and two outputs active."""
    lay_out(tmp_path, model_release("tiny_float"))
    return tmp_path


@pytest.mark.parametrize("isolated", [False, True])
def test_threads_may_share_a_model(isolated: bool, float32: Path) -> None:
    """Many threads on one model, each with other batch sizes, get the same results as one after the other."""
    body = f"""
import edgepack_device, numpy as np
from concurrent.futures import ThreadPoolExecutor
model = edgepack_device.load("tiny", isolated={isolated})
draw = np.random.default_rng(0)
asked = [dict(left=draw.normal(size=(n, 3)), right=draw.normal(size=(n, 3))) for n in draw.integers(1, 9, 400)]
expected = [model.predict(x) for x in asked]
with ThreadPoolExecutor(8) as pool:
    found = list(pool.map(model.predict, asked))
result = all(np.array_equal(a[name], b[name]) for a, b in zip(found, expected) for name in ("total", "product"))
"""
    assert run_program(float32, body) is True


@pytest.mark.parametrize("isolated", [False, True])
def test_a_model_may_be_closed_while_threads_use_it(isolated: bool, float32: Path) -> None:
    """Each thread's next call, or the one that is under way, says that the model is closed; none hangs."""
    body = f"""
import edgepack_device, numpy as np, threading
model, said, started = edgepack_device.load("tiny", isolated={isolated}), [], threading.Barrier(5)
def ask():
    started.wait()
    try:
        while True:
            model.predict(left=np.ones((1, 3)), right=np.ones((1, 3)))
    except Exception as error:
        said.append(error.code)
threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
for thread in threads: thread.start()
started.wait()
threads[0].join(0.1)
model.close()
for thread in threads: thread.join(20)
result = said
"""
    assert run_program(float32, body) == ["closed"] * 4


def test_threads_may_load_at_once(tmp_path: Path) -> None:
    """Threads that load models at the same moment all get theirs, with the runtime that the release brought."""
    package = installed_runtime()
    for model, app in (("tiny_int8", "one"), ("tiny_float", "two")):
        release = model_release(model, app=app)
        release.runtime = {**(release.runtime or {}), "id": "0123456789abcdef", "dists": ["numpy", "runtime"]}
        lay_out(tmp_path, release)
    folder = tmp_path / "runtimes" / "0123456789abcdef"
    for dist, module in (("numpy", "numpy"), ("runtime", PACKAGES[package])):
        (folder / dist).mkdir(parents=True)
        there = Path(str(importlib.util.find_spec(module).origin)).parent
        for part in there.parent.glob(f"{module}*"):
            (folder / dist / part.name).symlink_to(part)
    body = """
sys.path[:] = [path for path in sys.path if "site-packages" not in path]
import edgepack_device, threading
sys.setswitchinterval(1e-5)
before, start, names, failed = list(sys.path), threading.Barrier(6), [], []
def load(app):
    start.wait()
    try:
        names.append(edgepack_device.load(app).info()["app"])
    except Exception as error:
        failed.append(str(error))
threads = [threading.Thread(target=load, args=(app,)) for app in ("one", "two") * 3]
for thread in threads: thread.start()
for thread in threads: thread.join()
result = [failed, sorted(names), sys.path == before]
"""
    assert run_program(tmp_path, body) == [[], ["one"] * 3 + ["two"] * 3, True]
