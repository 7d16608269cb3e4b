"""The [compile] step: programs that succeed and fail in every way, and the real Vela."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled_tflite import EDGETPU, ROOT, compiled_model, stand_in_for_edgetpu, write_program
from hypothesis import given
from hypothesis import strategies as st

from edgepack.building import quantize
from edgepack.bundle.build import build_bundle
from edgepack.errors import InputError, MisfitError
from edgepack.events import Event, ignore_events
from edgepack.quantize.compiling import Delivered, compile_model, expand_command, match_ports
from edgepack.target import Delegate, Target, load_target
from edgepack.tflite import Tensor, read_model

TINY = Path(__file__).parent / "data" / "tiny_int8.tflite"
FLOAT = Path(__file__).parent / "data" / "tiny_float.tflite"
EARLIER = FLOAT.read_bytes()
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="{}"))


def target_with(*command: str | Path, required: bool = True) -> Target:
    """The coral-usb profile with another compiler."""
    return dataclasses.replace(
        load_target("coral-usb"),
        compile_command=tuple(map(str, command)) or None,
        delegate=Delegate("libedgetpu.so.1", required, ()),
    )


def compiled_by(program: Path, folder: Path, **more: Any) -> Delivered:
    """What comes of the tiny model with this compiler."""
    chosen = target_with(program, "{model}", "{outdir}", required=more.pop("required", True))
    return compile_model(
        TINY, read_model(TINY), chosen, folder=folder, report=more.pop("report", ignore_events), **more
    )


def is_running(pid: int) -> bool:
    """Whether a process still does anything; a zombie does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@given(st.lists(WORDS), WORDS, WORDS)
def test_only_the_two_placeholders_are_replaced(words: list[str], model: str, outdir: str) -> None:
    """A profile's argv reaches the compiler word for word, with the two paths put in wherever they stand."""
    model, outdir = f"/tmp/{model}", f"/tmp/{outdir}"
    command = [*words, "{model}", "--out={outdir}/x", "{other}", "{}"]
    made = expand_command(command, model=Path(model), outdir=Path(outdir))
    assert made == (*words, str(Path(model)), f"--out={Path(outdir)}/x", "{other}", "{}")


def test_a_path_that_looks_like_a_placeholder_stays_a_path() -> None:
    """A folder named {outdir} is not expanded a second time."""
    assert expand_command(["{model}"], model=Path("/a/{outdir}/m"), outdir=Path("/b")) == ("/a/{outdir}/m",)


def tensor(name: str, **changes: Any) -> Tensor:
    """An int8 tensor of the border."""
    fixed = Tensor(0, 0, name, (1, 4), (1, 4), "int8", (0.5,), (3,), 0, constant=False, bytes=0)
    return dataclasses.replace(fixed, **changes)


@given(
    st.lists(WORDS, unique=True, min_size=1).flatmap(lambda names: st.tuples(st.just(names), st.permutations(names)))
)
def test_inputs_are_found_again_by_their_tensors_names(names: tuple[list[str], list[str]]) -> None:
    """A compiler that shuffles the inputs and drops the signature still gets each check sample to its input."""
    before = [(f"signature {name}", tensor(name)) for name in names[0]]
    after = [(name, tensor(name)) for name in names[1]]
    assert match_ports("c", "input", before, after) == {f"signature {name}": name for name in names[0]}


def test_inputs_with_new_tensor_names_are_taken_in_order() -> None:
    """A compiler that renames every tensor keeps their order."""
    before = [("a", tensor("a:0", shape=(1, 2))), ("b", tensor("b:0"))]
    after = [("t0", tensor("t0", shape=(1, 2))), ("t1", tensor("t1"))]
    assert match_ports("c", "input", before, after) == {"a": "t0", "b": "t1"}


@pytest.mark.parametrize(
    "after",
    [
        [],
        [("x", tensor("x:0", dtype="uint8"))],
        [("x", tensor("x:0", shape=(1, 5)))],
        [("x", tensor("x:0", scales=(0.25,)))],
        [("x", tensor("x:0", zero_points=(4,)))],
    ],
)
def test_a_changed_border_is_refused(after: list[tuple[str, Tensor]]) -> None:
    """A compiled model that takes something else than the check set holds never leaves quantize."""
    with pytest.raises(MisfitError) as caught:
        match_ports("vela", "input", [("x", tensor("x:0"))], after)
    assert caught.value.code == "compiler-failed"
    assert "'x'" in caught.value.message


def test_without_a_compile_step_the_model_is_delivered_as_it_is(tmp_path: Path) -> None:
    """A profile that names no compiler changes nothing about the model."""
    made = compile_model(TINY, read_model(TINY), target_with(), folder=tmp_path, report=ignore_events)
    assert made == Delivered(TINY, read_model(TINY))


def test_a_compiler_that_is_not_here_is_a_note(tmp_path: Path) -> None:
    """Without the program the int8 model is delivered, and a finding says what is missing and what to do."""
    made = compiled_by(Path("no-such-compiler"), tmp_path)
    assert (made.path, made.uncompiled, made.facts) == (TINY, None, None)
    (finding,) = made.findings
    assert (finding.code, finding.severity, finding.subject) == ("not-compiled", "note", "no-such-compiler")
    assert "no-such-compiler" in finding.message
    assert "edgepack bundle" in finding.cure


def test_a_missing_vela_comes_with_the_command_that_installs_it(tmp_path: Path) -> None:
    """For the compilers that the shipped profiles name, the note says where they come from."""
    without = dataclasses.replace(load_target("ethos-u65"), compile_command=("/nowhere/vela", "{model}", "{outdir}"))
    made = compile_model(TINY, read_model(TINY), without, folder=tmp_path, report=ignore_events)
    assert "pip install ethos-u-vela" in made.findings[0].cure


def test_a_compiled_model_replaces_the_other_and_says_by_whom(tmp_path: Path) -> None:
    """The document tells the compiler's version and what the accelerator got; facts hold no path."""
    events: list[Event] = []
    made = compiled_by(stand_in_for_edgetpu(tmp_path / "bin" / "edgetpu_compiler"), tmp_path, report=events.append)
    assert [operator.custom_name for operator in made.model.operators] == [EDGETPU]
    assert read_model(made.path) == made.model
    assert made.uncompiled == TINY
    assert made.findings[0].message == (
        "edgetpu_compiler (Edge TPU Compiler version 16.0.384591198) compiled the model: "
        "1 part for the accelerator, no operators for the CPU."
    )
    assert made.facts is not None
    assert made.facts["version"] == "Edge TPU Compiler version 16.0.384591198"
    assert str(tmp_path) not in json.dumps(made.facts)
    assert (made.inputs, made.outputs) == (
        {"image": "serving_default_image:0"},
        {"output_0": "StatefulPartitionedCall_1:0"},
    )
    assert "compiling with" in events[0].message


def test_a_version_line_keeps_no_path(tmp_path: Path) -> None:
    """What --version prints goes into provenance, but not where the program lies; one that fails it has no version."""
    copy = f'cp {TINY} "$2/out.tflite"'
    told = write_program(
        tmp_path / "a" / "npuc", f'if [ "$1" = --version ]; then echo; echo "$0 npuc 3.1"; exit; fi; {copy}'
    )
    silent = write_program(tmp_path / "b" / "npuc", f'if [ "$1" = --version ]; then echo "what?"; exit 2; fi; {copy}')
    made = [compiled_by(program, program.parent, required=False).facts for program in (told, silent)]
    assert [facts and facts["version"] for facts in made] == ["npuc 3.1", None]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo reading; echo 'Model not quantized' >&2; exit 1", "exit code 1. It said: reading; Model not quantized"),
        ("kill -9 $$", "SIGKILL"),
        ("echo done", "wrote no .tflite. It said: done"),
        (f"cp {TINY} $2/a.tflite; cp {TINY} $2/b.tflite", "wrote 2 .tflite files: a.tflite, b.tflite"),
        ("echo rubbish > $2/a.tflite", "no .tflite (not-a-tflite)"),
        (f"head -c 1000 {TINY} > $2/a.tflite", "no .tflite (broken-model)"),
        (f"cp {FLOAT} $2/a.tflite", "changed the model's inputs"),
    ],
)
def test_a_compiler_that_fails_is_a_misfit_in_its_own_words(tmp_path: Path, body: str, said: str) -> None:
    """Whatever goes wrong in the compiler ends as exit code 5, with what it said last and what to do."""
    program = write_program(tmp_path / "npuc", body)
    with pytest.raises(MisfitError) as caught:
        compiled_by(program, tmp_path, required=False)
    assert caught.value.code == "compiler-failed"
    assert said in caught.value.message
    assert caught.value.hint


def test_a_compiler_for_another_machine_is_told_as_such(tmp_path: Path) -> None:
    """An edgetpu_compiler of the wrong architecture is no traceback but a misfit."""
    program = tmp_path / "edgetpu_compiler"
    program.write_bytes(b"\x7fELF" + bytes(60))
    program.chmod(0o755)
    with pytest.raises(MisfitError) as caught:
        compiled_by(program, tmp_path)
    assert caught.value.code == "compiler-failed"
    assert "cannot be run here" in caught.value.message


def test_a_compiler_that_takes_nothing_is_refused_where_the_delegate_is_required(tmp_path: Path) -> None:
    """«Compiled successfully, 0 operators mapped» is the most expensive success there is, and stops here."""
    border = read_model(TINY)
    (tmp_path / "cpu.tflite").write_bytes(compiled_model(border.inputs, border.outputs, custom=None))
    program = write_program(tmp_path / "npuc", f'cp {tmp_path}/cpu.tflite "$2/out.tflite"')
    with pytest.raises(MisfitError) as caught:
        compiled_by(program, tmp_path)
    assert caught.value.code == "nothing-compiled"
    made = compiled_by(program, tmp_path / "again", required=False)
    assert "no parts for the accelerator, 1 operator for the CPU (SOFTMAX)" in made.findings[0].message


def test_a_compiler_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    """After the time is up nothing of the compiler runs on."""
    program = write_program(
        tmp_path / "npuc",
        f'[ "$1" = --version ] && exit\necho thinking; sleep 300 &\necho $$ $! > {tmp_path}/pids; wait',
    )
    with pytest.raises(MisfitError) as caught:
        compiled_by(program, tmp_path, timeout_s=2)
    assert caught.value.code == "compiler-failed"
    assert "2 seconds" in caught.value.message
    assert "thinking" in caught.value.message
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert wait_until(lambda: not any(map(is_running, pids)))


def test_ctrl_c_ends_the_compiler(tmp_path: Path) -> None:
    """An interrupted edgepack leaves no compiler behind."""
    program = write_program(
        tmp_path / "npuc",
        f'[ "$1" = --version ] && exit\nsleep 300 &\ncd {tmp_path}; echo $$ $! > made; mv made pids; wait',
    )
    script = (
        "from pathlib import Path\nfrom test_quantize_compiling import compiled_by\n"
        f"compiled_by(Path({str(program)!r}), Path({str(tmp_path)!r}))"
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    with subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": paths}
    ) as process:
        assert wait_until((tmp_path / "pids").exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == -signal.SIGINT
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert wait_until(lambda: not any(map(is_running, pids)))


@pytest.mark.parametrize("command", ['["npuc", "{model}"]', '["npuc", "-o", "{outdir}"]', '["npuc"]'])
def test_a_compile_step_without_its_placeholders_is_refused(tmp_path: Path, command: str) -> None:
    """A profile whose compiler could not get the model, or not give one back, is no profile."""
    path = tmp_path / "mine.toml"
    path.write_text(f'extends = "coral-usb"\n[compile]\ncommand = {command}\n')
    with pytest.raises(InputError) as caught:
        load_target(path)
    assert caught.value.code == "bad-target"
    assert "compile.command: must contain {" in caught.value.message


def test_vela_compiles_what_the_ethos_profile_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped argv is right for the real Vela: one part, the same border, the same bytes in any folder.

    Vela lies beside Python here, as in an environment that nobody activated.
    """
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    profile, source = load_target("ethos-u65"), read_model(TINY)
    made = [
        compile_model(TINY, source, profile, folder=folder, report=ignore_events)
        for folder in (tmp_path / "a", tmp_path / "much" / "deeper")
    ]
    assert made[0].path.read_bytes() == made[1].path.read_bytes()
    assert [operator.custom_name for operator in made[0].model.operators] == ["ethos-u"]
    assert [name for name, _ in made[0].model.named_inputs] == ["image"]
    assert made[0].findings[0].message.startswith("vela 5.")
    assert made[0].facts is not None
    assert made[0].facts["program"] == "vela"


def test_vela_finds_nothing_in_a_float_model(tmp_path: Path) -> None:
    """Vela succeeds on a float model, with every operator left to the CPU; edgepack does not."""
    with pytest.raises(MisfitError) as caught:
        compile_model(FLOAT, read_model(FLOAT), load_target("ethos-u65"), folder=tmp_path, report=ignore_events)
    assert caught.value.code == "nothing-compiled"


def arrays_of(path: Path) -> dict[str, Any]:
    """A check set."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def run_quantize(models: Path, output: Path, profile: Target) -> Any:
    """The small classifier for ``profile``."""
    samples = models / "images.npz"
    return quantize(
        models / "keras3.keras",
        target=profile,
        output=output,
        calibration=f"{samples}#0:20",
        evaluation=f"{samples}#20:120",
    )


def test_quantize_delivers_the_compiled_model_and_keeps_the_other(small_models: Path, tmp_path: Path) -> None:
    """OUT.tflite is Vela's, OUT.uncompiled.tflite runs here and gave the accuracy; the bundle takes both facts along.

    A later run without a compiler removes the uncompiled model of the earlier one, and is otherwise the same model.
    """
    output = tmp_path / "out.tflite"
    document = run_quantize(small_models, output, load_target("ethos-u65"))
    uncompiled = tmp_path / "out.uncompiled.tflite"
    assert document.uncompiled == str(uncompiled)
    assert document.model.bytes == output.stat().st_size
    assert document.accuracy.samples == 100
    assert [found.code for found in document.conformance.findings] == ["few-samples", "compiled", "few-samples"]
    assert [operator.custom_name for operator in read_model(output).operators] == ["ethos-u"]
    provenance = json.loads((tmp_path / "out.provenance.json").read_bytes())
    assert provenance["compiled"]["evaluated"] == "uncompiled"
    assert provenance["compiled"]["uncompiled"]["bytes"] == uncompiled.stat().st_size
    assert provenance["model"]["sha256"] == document.model.sha256
    bundle = build_bundle(
        output, target=load_target("ethos-u65"), name="app", version="1", output=tmp_path / "app.edgepack",
        with_runtime=False,
    )  # fmt: skip
    assert bundle.model["scheme"] == "int8"
    assert "check.npz" in {file.path for file in bundle.files}
    kept = uncompiled.read_bytes()
    again = run_quantize(small_models, output, target_with("no-such-compiler", "{model}", "{outdir}"))
    assert output.read_bytes() == kept
    assert again.uncompiled is None
    assert [found.code for found in again.conformance.findings] == ["few-samples", "not-compiled", "few-samples"]
    assert not uncompiled.exists()


def test_the_check_set_speaks_the_compiled_models_names(small_models: Path, tmp_path: Path) -> None:
    """Where the compiler drops the signature, the device still finds each sample and output by the model's names."""
    program = stand_in_for_edgetpu(tmp_path / "bin" / "edgetpu_compiler")
    output = tmp_path / "out.tflite"
    run_quantize(small_models, output, target_with(program, "{model}", "{outdir}"))
    model = read_model(output)
    (given, _), (answered, _) = model.named_inputs[0], model.named_outputs[0]
    check = arrays_of(tmp_path / "out.check.npz")
    assert set(check) == {
        f"raw/{given}", f"quantization/{given}", f"float/{answered}", f"quantized/{answered}", "labels",
    }  # fmt: skip
    assert given == "serving_default_image:0"
    names = json.loads((tmp_path / "out.provenance.json").read_bytes())["names"]
    assert names == {"inputs": [given], "outputs": [answered]}


def test_a_failing_compiler_leaves_nothing_behind(small_models: Path, tmp_path: Path) -> None:
    """Where the compiler fails, the files of an earlier run stay what they were."""
    output = tmp_path / "out" / "out.tflite"
    output.parent.mkdir()
    output.write_bytes(EARLIER)
    program = write_program(tmp_path / "bin" / "npuc", "exit 3")
    with pytest.raises(MisfitError) as caught:
        run_quantize(small_models, output, target_with(program, "{model}", "{outdir}"))
    assert caught.value.code == "compiler-failed"
    assert [path.name for path in output.parent.iterdir()] == ["out.tflite"]
    assert output.read_bytes() == EARLIER


def test_the_source_is_never_replaced_by_the_uncompiled_model(tmp_path: Path) -> None:
    """A float model that is called OUT.uncompiled.tflite itself is refused instead of lost."""
    source = tmp_path / "out.uncompiled.tflite"
    source.write_bytes(FLOAT.read_bytes())
    with pytest.raises(InputError) as caught:
        quantize(source, target="x86-64", output=tmp_path / "out.tflite")
    assert caught.value.code == "bad-output"
    assert source.read_bytes() == FLOAT.read_bytes()


def test_a_model_compiled_elsewhere_can_be_bundled(tmp_path: Path) -> None:
    """`bundle` takes an Edge TPU model as it comes from the compiler, and sees that it is int8."""
    border = read_model(TINY)
    model = tmp_path / "out_edgetpu.tflite"
    model.write_bytes(compiled_model(border.inputs, border.outputs))
    made = build_bundle(
        model, target=load_target("coral-usb"), name="app", version="1", output=tmp_path / "app.edgepack",
        with_runtime=False,
    )  # fmt: skip
    assert made.model["scheme"] == "int8"
    assert made.model["bytes"] == model.stat().st_size


def test_a_check_set_of_other_names_is_refused_before_the_device_sees_it(tmp_path: Path) -> None:
    """Whoever compiles by hand and copies the check set learns at once that the compiler renamed the inputs."""
    border = read_model(TINY)
    renamed, kept = tmp_path / "out_edgetpu.tflite", tmp_path / "out_other.tflite"
    renamed.write_bytes(compiled_model(border.inputs, border.outputs))
    kept.write_bytes(TINY.read_bytes())
    for model in (renamed, kept):
        np.savez(model.with_suffix(".check.npz"), **{"input/image": np.zeros((1, 8, 8, 1), np.float32)})
    wanted: dict[str, Any] = {"target": load_target("coral-usb"), "name": "app", "version": "1", "with_runtime": False}
    with pytest.raises(InputError) as caught:
        build_bundle(renamed, output=tmp_path / "app.edgepack", **wanted)
    assert caught.value.code == "bad-check-set"
    assert "'serving_default_image:0'" in caught.value.message
    assert not (tmp_path / "app.edgepack").exists()
    made = build_bundle(kept, output=tmp_path / "app.edgepack", **wanted)
    assert "check.npz" in {file.path for file in made.files}
