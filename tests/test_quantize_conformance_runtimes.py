from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from bundle_models import through_the_index
from compiled_tflite import compiled_model
from test_quantize_conformance import target
from tiny_tflite import tiny_model

from edgepack.bundle.download import pip_download
from edgepack.quantize.conformance import check_fit
from edgepack.quantize.operators import RUNTIMES, TF_SELECT, RuntimeTable, derived_version, runtime_table
from edgepack.quantize.operators.traps import TRAPS
from edgepack.quantize.runtimefit import runtime_tables, table_findings
from edgepack.target import Platform, Scheme, load_target
from edgepack.tflite import Operator, Tensor, TfliteModel, read_model

HERE = Path(__file__).parent
OLD = {"tflite-runtime 2.13": "tflite-runtime==2.13.0", "ai-edge-litert 2.1": "ai-edge-litert==2.1.0"}
EVERY = pytest.mark.parametrize(
    "runtime",
    [pytest.param(one, id=one.title, marks=[pytest.mark.network] if one.title in OLD else []) for one in RUNTIMES],
)


@dataclasses.dataclass(frozen=True)
class Real:
    """A Python that has a runtime."""

    python: str
    module: str
    folder: Path | None

    def ask(self, *argv: str) -> str:
        """What a script prints there."""
        environment = {**os.environ, **({"PYTHONPATH": str(self.folder)} if self.folder else {})}
        run = subprocess.run([self.python, *argv], env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-2000:]
        return run.stdout


@pytest.fixture(scope="session")
def old_runtimes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Real]:
    """The runtimes of other days from the package index, on a Python that has wheels of them."""
    found = next(filter(None, map(_old_python, ("3.10", "3.9"))), None)
    if found is None:
        pytest.skip("this machine has no Python 3.8 to 3.10")
    version, python = found
    reals = {}
    for title, requirement in OLD.items():
        folder = tmp_path_factory.mktemp("old-runtime")
        with through_the_index():
            pip_download([requirement, "numpy==1.26.4"], python=version, arch=os.uname().machine, folder=folder)
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
        reals[title] = Real(python, title.split()[0].replace("-", "_"), folder)
    return reals


def _old_python(version: str) -> tuple[str, str] | None:
    managed = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    for python in filter(None, (shutil.which(f"python{version}"), *map(str, managed))):
        if subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:
            return version, python
    return None


@pytest.fixture
def real(runtime: RuntimeTable, request: pytest.FixtureRequest) -> Real:
    """The runtime itself."""
    if runtime.title in OLD:
        return request.getfixturevalue("old_runtimes")[runtime.title]  # type: ignore[no-any-return]
    module = runtime.package.replace("-", "_")
    if importlib.util.find_spec(module) is None:
        pytest.skip("tflite-runtime ends at Python 3.11")
    return Real(sys.executable, module, None)


_MAKE = """
import json, sys
import flatbuffers
from ai_edge_litert import schema_py_generated as schema
versions = json.load(open(sys.argv[2]))
model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(open(sys.argv[1], "rb").read(), 0))
code = schema.OperatorCodeT()
model.operatorCodes.append(code)  # no operator uses it: only the runtime's version gate looks at it
for name, code.builtinCode in vars(schema.BuiltinOperator).items():
    if not isinstance(code.builtinCode, int) or name == "CUSTOM":
        continue
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    known = versions.get(name, 0)
    for code.version in (known, known + 1) if known else (1,):
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        open(f"{sys.argv[3]}/{name}-{code.version}.tflite", "wb").write(builder.Output())
"""
_ASK = """
import importlib, json, pathlib, sys
runtime = importlib.import_module(sys.argv[2] + ".interpreter")
taken = []
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.tflite")):
    try:
        runtime.Interpreter(str(path))
        taken.append(path.stem)
    except ValueError as refusal:
        assert "find op" in str(refusal) or "builtin_code out of range" in str(refusal), str(refusal)
print(json.dumps(taken))
"""


@EVERY
def test_the_table_of_versions_is_that_of_the_runtime(runtime: RuntimeTable, real: Real, tmp_path: Path) -> None:
    """Of every operator there is, the runtime takes the version of the table and refuses the next, or any at all."""
    (tmp_path / "base").write_bytes(tiny_model())
    (tmp_path / "table").write_text(json.dumps(dict(runtime.operators)))
    models = tmp_path / "models"
    models.mkdir()
    make = [sys.executable, "-c", _MAKE, str(tmp_path / "base"), str(tmp_path / "table"), str(models)]
    subprocess.run(make, check=True)
    taken = json.loads(real.ask("-c", _ASK, str(models), real.module))
    assert sorted(taken) == sorted(f"{name}-{version}" for name, version in runtime.operators.items())


_ALLOCATE = """
import importlib, sys
importlib.import_module(sys.argv[2] + ".interpreter").Interpreter(sys.argv[1]).allocate_tensors()
"""


@EVERY
@pytest.mark.parametrize(
    "name",
    [*sorted(set().union(*(table.customs for table in RUNTIMES))), f"{TF_SELECT}Erf", "MyOp", "edgetpu-custom-op"],
)
def test_the_table_of_custom_operators_is_that_of_the_runtime(
    runtime: RuntimeTable, real: Real, name: str, tmp_path: Path
) -> None:
    """A custom operator that the table has is known to the runtime; others, TF Select among them, are not."""
    ports = [Tensor(i, 0, f"t{i}", (1, 4), (1, 4), "float32", (), (), 0, False, 0) for i in range(2)]
    (tmp_path / "model.tflite").write_bytes(compiled_model(ports[:1], ports[1:], custom=name))
    run = subprocess.run(
        [real.python, "-c", _ALLOCATE, str(tmp_path / "model.tflite"), real.module],
        env={**os.environ, **({"PYTHONPATH": str(real.folder)} if real.folder else {})},
        capture_output=True,
        text=True,
        check=False,
    )
    unknown = "unresolved custom op" in run.stderr or "Flex delegate" in run.stderr
    assert unknown == (name not in runtime.customs), run.stderr[-500:]


Answers = dict[str, list[float] | None]


@functools.cache
def _answers(real: Real, models: Path) -> Answers:
    found = json.loads(real.ask(str(HERE / "run_operator_models.py"), str(models), real.module))
    return {name: row and [float(value) for value in row] for name, row in found.items()}


def _apart(left: list[float] | None, right: list[float]) -> float:
    """The largest difference, measured by the largest number; infinite for no answer."""
    if left is None or any(math.isnan(value) for value in left):
        return math.inf
    return max(abs(a - b) for a, b in zip(left, right, strict=True)) / max(map(abs, right))


@pytest.mark.timeout(900)
@EVERY
def test_what_passes_runs_rightly_and_what_is_refused_does_not(
    runtime: RuntimeTable, real: Real, operator_models: Path
) -> None:
    """No model may pass and then fail or answer wrongly on the runtime, and none is refused that it computes."""
    right = _answers(Real(sys.executable, "ai_edge_litert", None), operator_models)
    answers = _answers(real, operator_models)
    assert len(answers) > 80
    wrong = []
    for name, answer in answers.items():
        reference = right[name]
        if reference is None:
            continue  # TensorFlow makes a few 16x8 models that no runtime runs; quantize runs each before it writes it
        refused = [found.code for found in table_findings(read_model(operator_models / name), (runtime,))]
        if bool(refused) == (_apart(answer, reference) < 0.05):
            wrong.append((name, refused))
    assert wrong == []


@pytest.mark.timeout(900)
def test_the_derived_version_is_what_tensorflow_writes(operator_models: Path) -> None:
    """For float, dynamic-range and int8 models each operator's derived version is the one in TensorFlow's file.

    16x8 is left out: TensorFlow's calibrator puts the versions of int8 on those.
    """
    seen = set()
    for path in sorted(operator_models.glob("*.tflite")):
        if path.name.startswith("quantizer-") or "int16x8" in path.name:
            continue
        model = read_model(path)
        derived: dict[tuple[str, int], int] = {}
        for operator in model.operators:
            key = (operator.name, operator.version)  # one entry of the file's table of operators, which they share
            derived[key] = max(derived.get(key, 0), derived_version(model, operator))
        assert {key: key[1] for key in derived} == derived, path.name
        seen |= {operator.name for operator in model.operators}
    assert len(seen) > 45


def test_the_derived_version_is_never_above_the_file_of_mlperf_tiny(data: Path) -> None:
    """No version is made up for the models that everybody has."""
    for path in data.rglob("*.tflite"):
        model = read_model(path)
        assert all(derived_version(model, operator) <= operator.version for operator in model.operators), path


def test_the_silent_garbage_of_a_quantizer_is_refused(operator_models: Path) -> None:
    """litert-quantizer's per-channel dense layer says version 1, loads on tflite-runtime 2.14 and is wrong: refused."""
    model = read_model(operator_models / "quantizer-dense-dynamic_wi8_afp32.tflite")
    assert {operator.version for operator in model.operators} == {1}
    dynamic = {"scheme": Scheme.DYNAMIC, "io": "float32"}
    found = check_fit(model, target(delegate="libmine.so", **dynamic))
    assert [(one.code, one.subject) for one in found.findings] == [("operator-version", "FULLY_CONNECTED")]
    assert "version 12" in found.findings[0].message
    assert check_fit(model, target("ai-edge-litert", **dynamic)).passed
    if importlib.util.find_spec("tflite_runtime") is None:
        pytest.skip("tflite-runtime ends at Python 3.11")
    name = "quantizer-dense-dynamic_wi8_afp32.tflite"
    right = _answers(Real(sys.executable, "ai_edge_litert", None), operator_models)[name]
    answer = _answers(Real(sys.executable, "tflite_runtime", None), operator_models)[name]
    assert right is not None
    assert answer is not None, "it loads and runs"
    assert _apart(answer, right) > 0.5, "and is wrong"


def test_every_runtime_of_the_platforms_is_asked() -> None:
    """A Raspberry Pi 4 with bookworm gets tflite-runtime 2.14, one with trixie ai-edge-litert 2.3: both count."""
    assert [table.title for table in runtime_tables(load_target("raspberry-pi-4"))] == [
        "ai-edge-litert 2.3",
        "tflite-runtime 2.14",
    ]
    trixie = dataclasses.replace(load_target("raspberry-pi-4"), platforms=(Platform("3.13", "aarch64", "glibc-2.41"),))
    assert [table.title for table in runtime_tables(trixie)] == ["ai-edge-litert 2.3"]


def test_a_runtime_between_two_tables_is_taken_for_the_older() -> None:
    """A version that nobody has asked yet is held to what an older one has, never to more."""
    assert runtime_table("tflite-runtime", "2.13.1").version == "2.13"
    assert runtime_table("tflite-runtime", "2.14.0").version == "2.14"
    assert runtime_table("ai-edge-litert", "2.9").version == "2.3"
    assert runtime_table("ai-edge-litert", "2.1.0").version == "2.1"
    assert runtime_table("tflite-runtime", None).version == "2.13"


def test_each_trap_names_runtimes_that_there_are() -> None:
    """A title that no table carries would let the trap go unseen."""
    titles = {table.title for table in RUNTIMES}
    assert all(trap.titles and set(trap.titles) <= titles for trap in TRAPS)


def test_tf_select_operators_are_refused_by_name() -> None:
    """Operators of TensorFlow itself are named in one finding; that of detection models is known everywhere."""
    named = [
        Operator(index, 0, "CUSTOM", 1, name, (), ())
        for index, name in enumerate(("FlexErf", "FlexRoll", "TFLite_Detection_PostProcess", "aeq.hadamard_rotation"))
    ]
    model = TfliteModel(Path("m"), 100, tuple(named), (), (), (), (), (0,))
    found = {one.code: one for one in check_fit(model, target()).findings}
    assert set(found) == {"tf-select", "custom-operator"}
    assert found["tf-select"].subject == "FlexErf, FlexRoll"
    assert found["custom-operator"].subject == "aeq.hadamard_rotation"
    assert {one.code for one in check_fit(model, target("ai-edge-litert")).findings} == {"tf-select"}
