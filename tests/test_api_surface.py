"""The Python functions: the same verbs as the commands, light to import, never shadowed by a subpackage."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

import edgepack

VERBS = {
    "activate", "bundle", "check", "connect", "deploy", "gc", "history", "inspect", "probe", "push", "quantize",
    "report", "rollback", "status", "trust", "tune", "verify",
}  # fmt: skip
# Commands that are no verb about a model or a device, and how Python does the same.
ONLY_COMMANDS = {"targets", "init", "demo", "doctor", "emulate"}

# What every command takes for its terminal; in Python that is the returned value and `report`.
TERMINAL = {"as_json": None, "verbose": None, "quiet": None, "events": "report"}
# How to reach the device; in Python that is one value, ConnectOptions.
REACHING = {
    "ssh_config", "identity", "known_hosts", "accept_new_host_key", "transport", "connect_timeout", "retries", "root",
    "python", "wait",
}  # fmt: skip
# Where an option is not called as its parameter is (None: there is none), and why.
RENAMED: dict[tuple[str, str], str | None] = {
    ("bundle", "without_runtime"): "with_runtime",  # a flag says what is not usual
    ("bundle", "platform"): "platforms",  # given once for each
    ("bundle", "extra_index"): "extra_indexes",
    ("check", "output"): None,  # writes the document that Python has in its hands
    ("check", "report_file"): None,  # and that `report` takes
    ("check", "junit"): None,
    ("check", "markdown"): None,
    ("deploy", "app"): "name",  # either flag names the app of what is built
    ("deploy", "input_shape"): "input_shapes",
    ("deploy", "without_runtime"): "with_runtime",
    ("deploy", "platform"): "platforms",
    ("deploy", "extra_index"): "extra_indexes",
    ("inspect", "diff"): None,  # diff_bundles
    ("inspect", "files"): "path",
    ("push", "file"): "bundle",
    ("quantize", "input_shape"): "input_shapes",  # the flag is given once for each input
    ("tune", "input_shape"): "input_shapes",
    ("verify", "file"): "path",
}
# What only Python takes, and why: values that a command line reads from edgepack.toml, or that no text can name.
ONLY_IN_PYTHON = {
    "activate": {"hooks"},
    "check": {"preprocessing"},
    "deploy": {"project"},
    "quantize": {"budget", "executor", "preprocessing"},
    "rollback": {"hooks"},
    "trust": {"hooks"},
    "tune": {"budget", "executor", "preprocessing"},
}


def fresh(code: str) -> str:
    """What a new Python prints for that code."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]).stdout


def modules(code: str) -> set[str]:
    """The modules that a new Python has loaded after that code."""
    return set(json.loads(fresh(f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))")))


def test_the_functions_are_pinned() -> None:
    """Adding or removing a public name is a decision, not an accident."""
    assert set(edgepack.__all__) == VERBS | {"__version__", "diff_bundles"}
    assert set(edgepack.__all__) <= set(dir(edgepack))


def test_every_command_has_a_function() -> None:
    """The command line has no power that the library lacks."""
    from edgepack.cli.main import commands

    assert set(commands) - ONLY_COMMANDS <= VERBS
    assert set(commands) >= ONLY_COMMANDS


def options_of(command: str) -> set[str]:
    """The names of a command's options and arguments."""
    import typer

    from edgepack.cli.main import commands

    found = typer.main.get_command(commands[command])
    return {str(parameter.name) for parameter in found.params}


@pytest.mark.parametrize("command", sorted(VERBS - {"connect"}))
def test_every_option_has_its_parameter(command: str) -> None:
    """Whatever a flag can do, a keyword of the function of that name can, and no keyword lacks its flag."""
    named = set()
    for option in options_of(command):
        if option in REACHING:
            named.add("options")
        else:
            named.add(RENAMED.get((command, option), TERMINAL.get(option, option)))
    parameters = set(inspect.signature(getattr(edgepack, command)).parameters)
    assert named - {None} == parameters - ONLY_IN_PYTHON.get(command, set())


def test_every_way_to_reach_a_device_is_a_field_of_the_options() -> None:
    """--ssh-config and its siblings are the fields of ConnectOptions; the one with a unit has it in its name.

    Beside them stand who is told, and whether --root was typed or stood in the environment.
    """
    from edgepack.device import ConnectOptions

    fields = {field.name.removesuffix("_s") for field in dataclasses.fields(ConnectOptions)}
    assert fields - {"report", "root_gives_way"} == REACHING
    assert options_of("probe") >= REACHING - {"wait"}
    assert options_of("push") >= REACHING


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_function_is_documented_and_typed(name: str) -> None:
    """help() shows what a verb does, and each parameter has its type."""
    function = getattr(edgepack, name)
    assert inspect.isfunction(function)
    assert function.__name__ == name
    assert inspect.getdoc(function)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in signature.parameters.values())


def test_importing_edgepack_is_light() -> None:
    """`import edgepack`, and looking at what it offers, load nothing but a little of the standard library."""
    # What a measurement of coverage brings into every process is not edgepack's.
    anyway = modules("")
    loaded = modules("import edgepack; dir(edgepack)") - anyway
    heavy = {"numpy", "paramiko", "tensorflow", "typer", "ai_edge_litert", "tflite", "dataclasses", "packaging"}
    assert not loaded & heavy
    assert {name for name in loaded if name.startswith("edgepack.")} == set()


def test_reaching_a_device_needs_no_tensorflow_and_local_needs_no_paramiko(tmp_path: Path) -> None:
    """push, check, status and their siblings import neither TensorFlow nor, without SSH, paramiko."""
    loaded = modules(
        "import edgepack\nfor name in ('push', 'check', 'activate', 'rollback', 'history', 'deploy'): "
        f"getattr(edgepack, name)\nedgepack.probe('local:{tmp_path}/none')"
    )
    assert not loaded & {"tensorflow", "paramiko", "typer", "ai_edge_litert", "numpy"}


def test_a_verb_stays_a_verb_when_its_subpackage_is_imported() -> None:
    """`edgepack.bundle` is the function, also after `edgepack.bundle.archive` was imported; both are reachable."""
    code = (
        "import edgepack\nimport edgepack.bundle.archive, edgepack.check.verdict, edgepack.deploy.push\n"
        "import edgepack.quantize\nfrom edgepack.bundle import open_bundle\nfrom edgepack import bundle, check\n"
        "names = ('bundle', 'check', 'deploy', 'quantize')\n"
        "print([type(getattr(edgepack, name)).__name__ for name in names], callable(open_bundle), bundle.__module__)"
    )
    assert fresh(code).strip() == f"{['function'] * 4} True edgepack.bundling"


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    """A typo is told by Python as for any module."""
    with pytest.raises(AttributeError, match="pusch"):
        _ = edgepack.pusch  # type: ignore[attr-defined]
    assert isinstance(edgepack, types.ModuleType)


def test_the_version_is_that_of_the_package() -> None:
    """`edgepack --version` and the installed distribution agree."""
    try:
        installed = importlib.metadata.version("edgepack")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("edgepack runs from its folder, not installed")
    assert edgepack.__version__ == installed
