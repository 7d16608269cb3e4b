"""What is worth a note about a .tflite that somebody hands over for a target: pure functions of its file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgepack.documents import Finding
from edgepack.quantize.compiling import how_to_install
from edgepack.quantize.delegation import accelerator_of, is_compiled
from edgepack.target import Scheme, Target
from edgepack.tflite import TfliteModel


def given_notes(model: TfliteModel, target: Target, scheme: Scheme) -> Iterator[Finding]:
    """The codes: "not-compiled" (the target's accelerator wants a compiled model), "other-scheme".

    ``scheme`` is what was seen in the model's tensors.
    """
    accelerator = accelerator_of(target)
    customs = any(operator.custom_name is not None for operator in model.operators)
    compiled = is_compiled(model, accelerator) if accelerator is not None else customs
    if target.compile_command is not None and not compiled:
        name = Path(target.compile_command[0]).name
        how = how_to_install(name)
        yield Finding(
            "not-compiled", "note", name,
            f"The model is not compiled for {target.name}: its accelerator would find nothing to do.",
            f"Quantize again where {name} is{f' ({how})' if how else ''}, or compile this one elsewhere and bundle "
            "what came of it; docs/targets.md says how.",
        )  # fmt: skip
    if scheme is not target.quantization.scheme and not compiled:
        yield Finding(
            "other-scheme", "note", str(scheme),
            f"The model is {scheme}, the profile asks for {target.quantization.scheme}.",
            f"`edgepack quantize --target {target.name}` makes one.",
        )  # fmt: skip
