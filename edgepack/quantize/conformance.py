"""Holds a .tflite against what its target promises: a pure function of the model's file and the profile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgepack.documents import Conformance, Finding
from edgepack.errors import MisfitError
from edgepack.quantize.operators import KNOWN_CUSTOM, TFLITE_RUNTIME_2_14, needed_version
from edgepack.target import INTEGER_SCHEMES, Scheme, Target
from edgepack.tflite import Operator, Tensor, TfliteModel

_FLOATS = ("float16", "float32", "float64", "bfloat16")
_MARK = {Scheme.DYNAMIC: "int8", Scheme.INT8: "int8", Scheme.FLOAT16: "float16", Scheme.INT16X8: "int16"}
_SHOWN = 5
_TFLITE_RUNTIME = "tflite-runtime"


def check_conformance(model: TfliteModel, target: Target, notes: Sequence[Finding] = ()) -> Conformance:
    """Every promise of the target's [quantization] and runtime that the model breaks; ``notes`` come first.

    The codes: "float-tensor", "float-io", "io-type", "unchanged", "per-channel-weights", "operator-version",
    "custom-operator" (errors); "open-shape", "float-operator" (notes).
    """
    findings = (
        *notes,
        *_unchanged(model, target),
        *_border(model, target),
        *_float_tensors(model, target),
        *_granularity(model, target),
        *_versions(model, target),
        *_open_shapes(model),
    )
    return Conformance(passed=all(found.severity != "error" for found in findings), findings=findings)


def refuse_misfit(conformance: Conformance, target: Target) -> None:
    """Raise MisfitError "conformance" that tells every error of a model that does not conform."""
    errors = [found for found in conformance.findings if found.severity == "error"]
    if errors:
        raise MisfitError(
            "conformance",
            f"The model is not what {target.name} takes: " + " ".join(found.message for found in errors),
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
            numeric = tensor.dtype in (*_FLOATS, "int8", "uint8", "int16")
            if not numeric or tensor.dtype == wanted:
                continue  # token numbers and masks stay what they are in any scheme
            code = "float-io" if tensor.dtype in _FLOATS else "io-type"
            yield _error(
                code, name, f"The {side} {name!r} is {tensor.dtype}, and the profile asks for {wanted}.",
                "Some part of the model cannot be quantized; take it out of the model.",
            )  # fmt: skip


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
    operators = [operator for operator in model.operators if _floats_of(model, operator, target)]
    if not operators:
        return
    tensors = {tensor.name: None for operator in operators for tensor in _floats_of(model, operator, target)}
    kinds = sorted({operator.custom_name or operator.name for operator in operators})
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


def _floats_of(model: TfliteModel, operator: Operator, target: Target) -> list[Tensor]:
    """The float tensors that an operator computes with; a border that the profile itself wants in float is none."""
    crossing = operator.name in ("QUANTIZE", "DEQUANTIZE") and target.quantization.io == "float32"
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


def _versions(model: TfliteModel, target: Target) -> Iterator[Finding]:
    customs = {operator.custom_name for operator in model.operators if operator.custom_name} - KNOWN_CUSTOM
    for name in sorted(customs):
        yield _error(
            "custom-operator", name, f"The operator {name!r} is in no TFLite runtime.",
            "Replace the layer that it comes from.",
        )  # fmt: skip
    if not runs_on_tflite_runtime(target):
        return
    for name, version in sorted(_too_new(model)):
        have = TFLITE_RUNTIME_2_14.get(name)
        yield _error(
            "operator-version", name,
            f"{name} is needed in version {version}, and tflite-runtime 2.14 has "
            + (f"up to {have}." if have else "none."),
            "Name ai-edge-litert as the runtime in the profile, or choose another scheme.",
        )  # fmt: skip


def _too_new(model: TfliteModel) -> set[tuple[str, int]]:
    needed = {
        (operator.name, needed_version(model, operator)) for operator in model.operators if operator.custom_name is None
    }
    return {(name, version) for name, version in needed if version > TFLITE_RUNTIME_2_14.get(name, 0)}


def needs_dense_per_tensor(model: TfliteModel, target: Target) -> bool:
    """Whether the one thing that tflite-runtime 2.14 lacks is per-channel weights in float FULLY_CONNECTED (12)."""
    return runs_on_tflite_runtime(target) and ("FULLY_CONNECTED", 12) in _too_new(model)


def runs_on_tflite_runtime(target: Target) -> bool:
    """Whether any platform of the target gets tflite-runtime, whose last version is 2.14."""
    packages = {target.runtime.package_for(platform.python) for platform in target.platforms}
    return _TFLITE_RUNTIME in (packages or {target.runtime.package})


def _open_shapes(model: TfliteModel) -> Iterator[Finding]:
    for name, tensor in model.named_inputs:
        if -1 in tensor.shape_signature:
            yield Finding(
                "open-shape", "note", name,
                f"The input {name!r} has an open size: {list(tensor.shape_signature)}.",
                "A pinned one is faster, and accelerators ask for it: --batch 1, and no open sizes in the model.",
            )  # fmt: skip


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name[:80]) for name in names[:_SHOWN]) + more
