"""Where each target's model goes, by what stands after ``-o``: OUT.tflite, OUT-{target}.tflite, or a folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from edgepack.errors import InputError
from edgepack.target import Target

_WORD = re.compile(r"\{\w*\}")
_TARGET = "{target}"


def filled_name(output: Path, target: Target) -> Path:
    """``output`` with the target's name for ``{target}``. Raises InputError "bad-output" for any other ``{word}``."""
    others = [word for word in _WORD.findall(str(output)) if word != _TARGET]
    if others:
        raise InputError(
            "bad-output",
            f"{output} has {others[0]} in it: only {_TARGET} can stand there.",
            hint=f"-o '{str(output).replace(others[0], _TARGET)}'",
        )
    return Path(str(output).replace(_TARGET, target.name))


def output_paths(output: Path, targets: Sequence[Target]) -> list[Path]:
    """A place for each of several targets: by ``{target}`` in the name, else in the folder ``output``.

    Raises InputError: "repeated-target", "bad-output".
    """
    _refuse_repeated(targets)
    named = [filled_name(output, target) for target in targets]
    if _TARGET in str(output):
        return named
    if output.suffix != ".tflite":
        return [output / f"{target.name}.tflite" for target in targets]
    if len(targets) == 1:
        return named
    raise InputError(
        "bad-output",
        f"{len(targets)} targets need {len(targets)} files, and {output} is one.",
        hint=f"Put {_TARGET} into the name (-o 'OUT-{_TARGET}.tflite'), or name a folder.",
    )


def _refuse_repeated(targets: Sequence[Target]) -> None:
    for place, target in enumerate(targets):
        for other in targets[:place]:
            if other == target:
                raise InputError(
                    "repeated-target", f"{target.name} is given twice.", hint="Name each target once: leave one out."
                )
            if other.name == target.name:
                raise InputError(
                    "repeated-target",
                    f"Two different targets are called {target.name}.",
                    hint="Give one of the profiles another name: a file's is its own name without .toml.",
                )
