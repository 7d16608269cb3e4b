"""The profile's [compile] step: hand the finished .tflite to the accelerator's own compiler, and take back one.

The compiler is a program of the user's (``edgetpu_compiler``, ``vela``, a vendor's), started without a shell, in a
folder that goes away. Where it is not installed, the model is delivered uncompiled, with a finding that says so: the
compiler may run on another machine only (Coral's runs on x86-64).

What it wrote is believed as far as its file shows: one readable .tflite, with the same inputs and outputs, and with
something in it for the accelerator where the profile requires the delegate.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from edgepack.documents import Finding
from edgepack.errors import InputError, MisfitError
from edgepack.events import Event, Reporter
from edgepack.quantize.process import log_tail
from edgepack.target import Target
from edgepack.tflite import Tensor, TfliteModel, read_model

# Vela takes seconds on the models of its own benchmarks; edgetpu_compiler ends itself after three minutes.
TIMEOUT_S = 3600.0
_VERSION_TIMEOUT_S = 60.0
_SHOWN_LINES, _SHOWN_CHARACTERS = 6, 600
_MOST_VERSION_CHARACTERS = 100
_INSTALL = {
    "vela": "pip install ethos-u-vela",
    "edgetpu_compiler": "https://coral.ai/docs/edgetpu/compiler/",
}
_log = logging.getLogger(__name__)

Ports = Sequence[tuple[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Delivered:
    """What becomes OUT.tflite: the compiled model, or where nothing was compiled the model as it is.

    ``uncompiled`` is the model that was compiled, and ``facts`` what the provenance says about that (both None where
    nothing was). ``inputs`` and ``outputs`` lead from the names in the uncompiled model to those in this one: not every
    compiler keeps signatures.
    """

    path: Path
    model: TfliteModel
    findings: tuple[Finding, ...] = ()
    uncompiled: Path | None = None
    facts: Mapping[str, Any] | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


def expand_command(command: Sequence[str], *, model: Path, outdir: Path) -> tuple[str, ...]:
    """The argv of the compiler: ``{model}`` and ``{outdir}`` replaced wherever they stand, everything else as it is."""
    values = {"{model}": str(model), "{outdir}": str(outdir)}
    return tuple(re.sub(r"\{(?:model|outdir)\}", lambda found: values[found[0]], word) for word in command)


def compile_model(
    path: Path, model: TfliteModel, target: Target, *, folder: Path, report: Reporter, timeout_s: float = TIMEOUT_S
) -> Delivered:
    """Compile the .tflite at ``path``, which ``model`` describes, inside ``folder``; as it is where nothing compiles.

    Its finding is "compiled", or "not-compiled" where the target's compiler is not on the PATH. Raises MisfitError:
    "compiler-failed" where it fails, hangs for ``timeout_s`` seconds or writes anything but one model with the same
    inputs and outputs; "nothing-compiled" where a required delegate would find nothing to do.
    """
    command = target.compile_command
    if command is None:
        return Delivered(path, model)
    name = Path(command[0]).name
    program = find_compiler(command[0])
    if program is None:
        return Delivered(path, model, (_not_compiled(name, target),))
    place = folder / "compile"
    outdir = place / "out"
    outdir.mkdir(parents=True)
    # A fixed name: a compiler that writes it into its output still gives the same bytes for the same model.
    copy = Path(shutil.copyfile(path, place / "model.tflite"))
    version = _version(program, place)
    title = _titled(name, version)
    report(Event("quantize", f"compiling with {title}"))
    log = place / "compiler.log"
    _run(name, expand_command((program, *command[1:]), model=copy, outdir=outdir), log, timeout_s)
    made, compiled = _written(name, outdir, log)
    return Delivered(
        path=made,
        model=compiled,
        findings=(_judge(title, model, compiled, target),),
        uncompiled=path,
        facts=_facts(name, version, path),
        inputs=match_ports(name, "input", model.named_inputs, compiled.named_inputs),
        outputs=match_ports(name, "output", model.named_outputs, compiled.named_outputs),
    )


def find_compiler(program: str) -> str | None:
    """On the PATH, or beside this Python: a compiler that pip installed into edgepack's own environment."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", os.defpath), beside]))


def _facts(name: str, version: str | None, uncompiled: Path) -> dict[str, Any]:
    """For the provenance; what was evaluated on the host is the uncompiled model."""
    data = uncompiled.read_bytes()
    made_from = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return {"program": name, "version": version, "uncompiled": made_from, "evaluated": "uncompiled"}


def match_ports(program: str, side: str, before: Ports, after: Ports) -> dict[str, str]:
    """Names before compiling to names after it: by the tensors' names where those were kept, else by their order.

    Raises MisfitError "compiler-failed" where one went missing or changed its shape, type or quantization: the check
    set and the programs that use the model rely on them.
    """
    by_tensor = {tensor.name: (name, tensor) for name, tensor in after}
    kept = len(by_tensor) == len(after) and set(by_tensor) == {tensor.name for _, tensor in before}
    names = {}
    for place, (name, tensor) in enumerate(before):
        other = by_tensor[tensor.name] if kept else after[place] if len(after) == len(before) else None
        if other is None or _described(tensor) != _described(other[1]):
            became = "is gone" if other is None else f"was {_described(tensor)} and is {_described(other[1])}"
            raise MisfitError(
                "compiler-failed",
                f"{program} changed the model's {side}s: {name!r} {became}.",
                hint="Look into the options of compile.command in the profile: the model's border has to stay.",
            )
        names[name] = other[0]
    return names


def _described(tensor: Tensor) -> str:
    scales = "".join(f" {scale:g}*(q{zero:+d})" for scale, zero in zip(tensor.scales, tensor.zero_points, strict=False))
    return f"{tensor.dtype}{list(tensor.shape)}{scales}"


def _judge(title: str, before: TfliteModel, after: TfliteModel, target: Target) -> Finding:
    """What became of the operators: those of the accelerator are custom ones that were not there before."""
    old = {operator.custom_name for operator in before.operators}
    taken = [op for op in after.operators if op.custom_name is not None and op.custom_name not in old]
    left = [op.custom_name or op.name for op in after.operators if op not in taken]
    if not taken and target.delegate.required:
        raise MisfitError(
            "nothing-compiled",
            f"{title} found nothing in the model for the accelerator: all of its {len(left)} operators would run on "
            f"the CPU, and {target.name} requires the delegate.",
            hint="See what the accelerator takes (fixed shapes, its own list of operators), or choose a CPU target.",
        )
    kinds = f" ({', '.join(sorted(set(left)))})" if left else ""
    return Finding(
        "compiled",
        "note",
        title,
        f"{title} compiled the model: {_counted(len(taken), 'part')} for the accelerator, "
        f"{_counted(len(left), 'operator')} for the CPU{kinds}.",
        "What the CPU keeps is slow there; layers that the accelerator takes are faster." if left else "",
    )


def _counted(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def how_to_install(name: str) -> str | None:
    """The command or page that brings a compiler of the built-in targets; None for another program."""
    return _INSTALL.get(name)


def _not_compiled(name: str, target: Target) -> Finding:
    how = how_to_install(name)
    install = f"Install {name} ({how})" if how else f"Put {name} on the PATH"
    return Finding(
        "not-compiled",
        "note",
        name,
        f"The model is not compiled for {target.name}: there is no {name} on this machine.",
        f"{install} and quantize again, or compile the model elsewhere and give the compiled .tflite to "
        "`edgepack bundle`; docs/targets.md says how.",
    )


def _written(name: str, outdir: Path, log: Path) -> tuple[Path, TfliteModel]:
    found = sorted(path for path in outdir.rglob("*.tflite") if path.is_file())
    if len(found) != 1:
        wrote = f"{len(found)} .tflite files: {', '.join(path.name for path in found)}" if found else "no .tflite"
        raise MisfitError(
            "compiler-failed",
            f"{name} wrote {wrote}.{_last_words(log)}",
            hint="compile.command in the profile has to write one compiled .tflite into {outdir}.",
            log=log_tail(log),
        )
    try:
        return found[0], read_model(found[0])
    except InputError as error:
        raise MisfitError(
            "compiler-failed",
            f"{name} wrote something that is no .tflite ({error.code}).{_last_words(log)}",
            hint="compile.command in the profile has to write one compiled .tflite into {outdir}.",
            log=log_tail(log),
        ) from error


def _titled(name: str, version: str | None) -> str:
    if version is None:
        return name
    return f"{name} {version}" if re.fullmatch(r"v?\d\S*", version) else f"{name} ({version})"


def _version(program: str, folder: Path) -> str | None:
    """The first line that ``--version`` prints, less what looks like a path; None where it does not tell."""
    log = folder / "version.log"
    try:
        _run(program, (program, "--version"), log, _VERSION_TIMEOUT_S)
    except MisfitError:
        return None
    lines = [line.strip() for line in log_tail(log) if line.strip()]
    words = [word for word in lines[0].split() if "/" not in word] if lines else []
    return " ".join(words)[:_MOST_VERSION_CHARACTERS] or None


def _run(name: str, argv: Sequence[str], log: Path, timeout_s: float) -> None:
    """Run to the end, output into ``log``. Raises MisfitError "compiler-failed"; never leaves the program running."""
    with log.open("wb") as output:
        starting = _start(argv, output)
        try:
            code = starting.result().wait(timeout_s)
        except OSError as error:
            raise MisfitError(
                "compiler-failed",
                f"{name} cannot be run here: {error.strerror}.",
                hint="Install the one for this machine, or compile elsewhere; docs/targets.md says how.",
            ) from error
        except subprocess.TimeoutExpired:
            raise MisfitError(
                "compiler-failed",
                f"{name} was ended after {timeout_s:g} seconds without a result.{_last_words(log)}",
                hint="Run it by hand on OUT.tflite of a profile without [compile], and see where it hangs.",
                log=log_tail(log),
            ) from None
        finally:
            _end(starting)
    for line in log_tail(log):
        _log.info("%s: %s", name, line)
    if code != 0:
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise MisfitError(
            "compiler-failed",
            f"{name} ended with {how}.{_last_words(log)}",
            hint="Mend the model or compile.command in the profile; `-v` shows all that the compiler said.",
            log=log_tail(log),
        )


def _start(argv: Sequence[str], output: IO[bytes]) -> Future[subprocess.Popen[bytes]]:
    """Start the program in a thread: a Ctrl-C, which the main thread gets, cannot come between its fork and its return.

    It has a session of its own, so that Ctrl-C reaches the caller alone, which ends it with all that it started.
    """
    starter = ThreadPoolExecutor(max_workers=1)
    starting = starter.submit(
        subprocess.Popen,
        argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    starter.shutdown(wait=False)
    return starting


def _end(starting: Future[subprocess.Popen[bytes]]) -> None:
    if starting.exception() is None and (process := starting.result()).poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log_tail(log) if line.strip()]
    said = "; ".join(lines[-_SHOWN_LINES:])[-_SHOWN_CHARACTERS:]
    return f" It said: {said}" if said else ""
