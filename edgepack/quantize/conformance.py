"""Holds a .tflite against what its target promises: a pure function of the model's file and the profile."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from edgepack.documents import Conformance, Finding
from edgepack.errors import MisfitError
from edgepack.quantize.delegation import accelerator_of, delegated_share, delegation_findings, is_accelerated
from edgepack.quantize.runtimefit import fit_runtimes, needs_dense_per_tensor, runtime_findings
from edgepack.target import INTEGER_SCHEMES, Scheme, Target
from edgepack.target.solver import RuntimeOption
from edgepack.tflite import Operator, Tensor, TfliteModel
from edgepack.words import listed

_FLOATS = ("float16", "float32", "float64", "bfloat16")
_BORDERS = ("int8", "uint8", "int16")
_MARK = {Scheme.DYNAMIC: "int8", Scheme.INT8: "int8", Scheme.FLOAT16: "float16", Scheme.INT16X8: "int16"}
_SHOWN = 5
_SMALL = ("int2", "int4", "int8", "uint4", "uint8")
_NO_WEIGHTS = ("int32", "int64", "bool", "string")

__all__ = [
    "border_type",
    "check_conformance",
    "check_fit",
    "delegate_customs",
    "fit_runtimes",
    "int8_weight_share",
    "needs_dense_per_tensor",
    "refuse_misfit",
]


def check_conformance(model: TfliteModel, target: Target, notes: Sequence[Finding] = ()) -> Conformance:
    """Every promise of the target's [quantization] and runtime that the model breaks; ``notes`` come first.

    The codes, beside those of :func:`check_fit`: "float-io", "io-type", "unchanged" (errors).
    """
    accelerator = accelerator_of(target)
    before = (*notes, *_unchanged(model, target), *_border(model, target))
    return _concluded(model, target, before, accelerator.compiled if accelerator else frozenset())


def check_fit(
    model: TfliteModel, target: Target, options: Sequence[Sequence[RuntimeOption]] | None = None
) -> Conformance:
    """What any .tflite has to be to run on the target, whatever scheme it was quantized with.

    The codes: "float-tensor", "per-channel-weights", "operator-version", "wrong-numbers", "custom-operator",
    "tf-select", "nothing-delegated" (errors); "float-operator", "not-accelerated", "float-io", "io-type" (notes: the
    border that the profile asks for is how edgepack quantizes, not what a runtime refuses); "open-shape" (an error
    where an accelerator needs fixed sizes, else a note). On a target with a compiler or a delegate, and without an
    operator list, nobody can tell a custom operator that is theirs from one that is nobody's: there they pass.
    ``options`` are the runtimes of each platform where those are not what the lock has for the target's.
    """
    border = tuple(dataclasses.replace(found, severity="note") for found in _border(model, target))
    return _concluded(model, target, border, delegate_customs(model, target), options)


def delegate_customs(model: TfliteModel, target: Target) -> frozenset[str]:
    """The names of custom operators that a model may have because the target's delegate computes them."""
    accelerator = accelerator_of(target)
    if accelerator is not None:
        return accelerator.compiled
    if target.compile_command is not None or target.delegate.library is not None:
        return frozenset(operator.custom_name for operator in model.operators if operator.custom_name is not None)
    return frozenset()


def _concluded(
    model: TfliteModel,
    target: Target,
    before: tuple[Finding, ...],
    compiled: frozenset[str],
    options: Sequence[Sequence[RuntimeOption]] | None = None,
) -> Conformance:
    findings = (
        *before,
        *_overflown(model),
        *_float_tensors(model, target),
        *_granularity(model, target),
        *runtime_findings(model, target, compiled, options),
        *_open_shapes(model, target),
        *delegation_findings(model, target),
    )
    return Conformance(
        passed=all(found.severity != "error" for found in findings),
        findings=findings,
        delegated_share=delegated_share(model, target),
        int8_weight_share=int8_weight_share(model),
    )


def _overflown(model: TfliteModel) -> Iterator[Finding]:
    """A note only: a mask of -1e9 that becomes minus infinity is as good as before."""
    names = [tensor.name for tensor in model.tensors if tensor.overflown]
    if names:
        yield Finding(
            "float16-overflow", "note", names[0],
            f"{_listed(names)} {'holds' if len(names) == 1 else 'hold'} numbers beyond 65504, which are infinity in "
            "float16.",
            "Scale such weights down, or take a profile of another scheme; a mask does no harm.",
        )  # fmt: skip


def int8_weight_share(model: TfliteModel) -> float | None:
    """The share of the weights' bytes that is stored in 8 bits or fewer per number; None without weights.

    Weights are all constants but whole numbers of 32 and 64 bits: those are biases of integer layers, shapes, axes.
    """
    weights = [tensor for tensor in model.tensors if tensor.constant and tensor.dtype not in _NO_WEIGHTS]
    total = sum(tensor.bytes for tensor in weights)
    if not total:
        return None
    return round(sum(tensor.bytes for tensor in weights if tensor.dtype in _SMALL) / total, 4)


def refused_by(target: Target) -> str:
    """How the message of :func:`refuse_misfit` begins; what is wrong comes after it."""
    return f"The model is not what {target.name} takes: "


def refuse_misfit(conformance: Conformance, target: Target) -> None:
    """Raise MisfitError "conformance" that tells every error of a model that does not conform."""
    errors = [found for found in conformance.findings if found.severity == "error"]
    if errors:
        raise MisfitError(
            "conformance",
            refused_by(target) + " ".join(found.message for found in errors),
            hint=" ".join(dict.fromkeys(found.cure for found in errors if found.cure)),
            findings=[
                {"code": found.code, "subject": found.subject, "message": found.message, "cure": found.cure}
                for found in errors
            ],
        )


def _error(code: str, subject: str, message: str, cure: str) -> Finding:
    return Finding(code, "error", subject, message, cure)


def _border(model: TfliteModel, target: Target) -> Iterator[Finding]:
    wanted = border_type(target.quantization.scheme, target.quantization.io)
    for side, ports in (("input", model.named_inputs), ("output", model.named_outputs)):
        for name, tensor in ports:
            if tensor.dtype == wanted:
                continue
            if tensor.dtype not in _FLOATS and (tensor.dtype not in _BORDERS or not tensor.scales):
                continue  # token numbers, masks and bytes of pictures stay what they are in any scheme
            code = "float-io" if tensor.dtype in _FLOATS else "io-type"
            yield _error(
                code, name, f"The {side} {name!r} is {tensor.dtype}, and the profile asks for {wanted}.",
                _border_cure(tensor.dtype, target),
            )  # fmt: skip


def _border_cure(dtype: str, target: Target) -> str:
    if target.quantization.scheme == Scheme.INT8 and dtype in ("int8", "uint8"):
        return f'Write io = "{dtype}" into [quantization] of the profile, or quantize the model again for this one.'
    return "Some part of the model cannot be quantized; take it out of the model."


def border_type(scheme: Scheme, io: str) -> str:
    """The type at the model's border: the profile's for int8; int16 instead of int8 for 16x8; else float32."""
    if scheme == Scheme.INT8:
        return io
    if scheme == Scheme.INT16X8 and io != "float32":
        return "int16"
    return "float32"


def _float_tensors(model: TfliteModel, target: Target) -> Iterator[Finding]:
    if target.quantization.scheme not in INTEGER_SCHEMES:
        return
    operators = [operator for operator in model.operators if _floats_of(model, operator)]
    if not operators:
        return
    tensors = {tensor.name: None for operator in operators for tensor in _floats_of(model, operator)}
    kinds = sorted({operator.kind for operator in operators})
    named = _listed(list(tensors))
    if target.quantization.float_fallback:
        yield Finding(
            "float-operator", "note", ", ".join(kinds),
            f"{len(operators)} operators stay in float ({', '.join(kinds)}): {named}.",
            "They run, but slower than integers.",
        )  # fmt: skip
    else:
        yield _error(
            "float-tensor", named,
            f"{len(tensors)} tensors stayed in float ({', '.join(kinds)}): {named}.",
            "Replace those layers by ones with int8 kernels, or choose a target that may fall back to float.",
        )  # fmt: skip


def _floats_of(model: TfliteModel, operator: Operator) -> list[Tensor]:
    """The float tensors that an operator computes with; those that it takes over the model's border are none."""
    crossing = operator.name in ("QUANTIZE", "DEQUANTIZE")
    border = (
        {tensor.index for tensor in (*model.inputs, *model.outputs)} if crossing and operator.subgraph == 0 else set()
    )
    indices = [index for index in (*operator.inputs, *operator.outputs) if index >= 0 and index not in border]
    return [tensor for index in indices if (tensor := model.tensor(operator.subgraph, index)).dtype in _FLOATS]


def _unchanged(model: TfliteModel, target: Target) -> Iterator[Finding]:
    """A converter can leave a model as it was without a word."""
    scheme = target.quantization.scheme
    mark = _MARK.get(scheme)
    if mark is None:
        return
    where = [tensor for tensor in model.tensors if tensor.constant or scheme in INTEGER_SCHEMES]
    if not any(tensor.dtype == mark for tensor in where):
        yield _error(
            "unchanged", str(scheme), f"Quantizing to {scheme} changed nothing: no tensor is {mark}.",
            "Use a target with scheme = 'float32', or a model whose layers can be quantized.",
        )  # fmt: skip


def _granularity(model: TfliteModel, target: Target) -> Iterator[Finding]:
    if target.quantization.granularity != "per-tensor":
        return
    tensors = [tensor.name for tensor in model.tensors if tensor.constant and len(tensor.scales) > 1]
    if tensors:
        yield _error(
            "per-channel-weights", _listed(tensors),
            f"{len(tensors)} weights have a scale per channel, not per tensor: {_listed(tensors)}.",
            "Quantize again for this target.",
        )  # fmt: skip


def _open_shapes(model: TfliteModel, target: Target) -> Iterator[Finding]:
    accelerator = accelerator_of(target)
    for name, tensor in model.named_inputs:
        if -1 in tensor.shape_signature:
            fixed = accelerator is not None and is_accelerated(target) and not accelerator.can_be_open(tensor)
            why = f", and {accelerator.title} takes fixed sizes only" if fixed and accelerator else ""
            yield Finding(
                "open-shape", "error" if fixed else "note", name,
                f"The input {name!r} has an open size: {list(tensor.shape_signature)}{why}.",
                ("Pin it" if fixed else "A pinned one is faster, and accelerators ask for it")
                + f" where the model is converted: {_pinning(name, tensor.shape_signature)}.",
            )  # fmt: skip


def _pinning(name: str, signature: Sequence[int]) -> str:
    """The option of `edgepack quantize` that leaves no size of an input open."""
    if -1 not in signature[1:]:
        return "--batch 1"
    sizes = (1, *signature[1:])
    return f"--input-shape {name}={','.join('?' if size == -1 else str(size) for size in sizes)}, a number for each ?"


def _listed(names: list[str]) -> str:
    return listed([repr(name[:80]) for name in names], _SHOWN)
