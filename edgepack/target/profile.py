"""What a profile may hold, and how one is merged over another: pure functions of parsed TOML."""

from __future__ import annotations

from typing import Any

from edgepack.strict_toml import Flag, Number, Table, TableList, TableOf, Text, TextList, find_faults
from edgepack.target.platform import Platform
from edgepack.target.values import (
    BUDGET,
    INTEGER_SCHEMES,
    OPERATOR_LISTS,
    OPERATOR_SCHEMES,
    Budget,
    Delegate,
    MeasurePolicy,
    Quantization,
    Runtime,
    Scheme,
    Target,
    typed_budget,
)

PLATFORM = Table(
    {
        "python": Text(pattern=r"3\.([89]|[1-9][0-9])", form='a Python such as "3.11" (3.8 or newer)'),
        "arch": Text(("aarch64", "armv7l", "x86_64")),
        "libc": Text(pattern=r"glibc-2\.[0-9]{1,3}|musl", form='a C library such as "glibc-2.36"'),
    },
    required=("python", "arch", "libc"),
)

PROFILE = Table(
    {
        "extends": Text(pattern=r".+", form="the name of a profile or a path"),
        "description": Text(pattern=r"[^\r\n]{1,200}", form="one line of at most 200 characters"),
        "tested": Text(("hardware", "emulated", "no")),
        "deployable": Flag(),
        "platforms": TableList(PLATFORM),
        "runtime": Table({"package": Text(("tflite-runtime", "ai-edge-litert"))}),
        "delegate": Table(
            {
                "library": Text(pattern=r"\S+", form="a library's file name"),
                "required": Flag(),
                "options": TableOf(Text()),
            }
        ),
        "compile": Table({"command": TextList()}),
        "quantization": Table(
            {
                "scheme": Text(tuple(Scheme)),
                "io": Text(("int8", "uint8", "float32")),
                "granularity": Text(("per-channel", "per-tensor")),
                "float_fallback": Flag(),
                "operators": Text(OPERATOR_LISTS),
            }
        ),
        "budget": BUDGET,
        "measure": Table(
            {
                "threads": Number(1, 1024, integer=True),
                "min_runs": Number(1, 1_000_000, integer=True),
                "min_seconds": Number(0, 86_400),
                "max_seconds": Number(0.1, 86_400),
            }
        ),
    }
)


def sound_part(profile: dict[str, Any]) -> dict[str, Any]:
    """What can be built upon while faults are collected: the keys and inner keys that follow the schema."""
    sound: dict[str, Any] = {}
    for key, value in profile.items():
        schema = PROFILE.keys.get(key)
        if schema is None:
            continue
        if isinstance(schema, Table) and isinstance(value, dict):
            known = {inner: schema.keys[inner] for inner in value if inner in schema.keys}
            sound[key] = {inner: value[inner] for inner in known if not find_faults(value[inner], known[inner])}
        elif not find_faults(value, schema):
            sound[key] = value
    return sound


def merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Tables key by key, the rest replaced; who sets the scheme sets ``io`` too, or takes the scheme's default."""
    merged = dict(base)
    for key, value in own.items():
        merged[key] = {**base.get(key, {}), **value} if isinstance(value, dict) else value
    own_quantization = own.get("quantization", {})
    if "scheme" in own_quantization and "io" not in own_quantization:
        merged["quantization"].pop("io", None)
    return merged


def incomplete(merged: dict[str, Any]) -> list[str]:
    """What neither the profile nor anything that it extends says, and has no default."""
    faults = []
    if "package" not in merged.get("runtime", {}):
        faults.append("runtime.package: missing (or extend a profile that has it)")
    if "scheme" not in merged.get("quantization", {}):
        faults.append("quantization.scheme: missing (or extend a profile that has it)")
    if merged.get("deployable", True) and not merged.get("platforms"):
        faults.append("platforms: missing (a deployable target needs at least one [[platforms]])")
    return faults


def build(name: str, merged: dict[str, Any]) -> Target:
    """The target of a complete, merged profile, with the defaults filled in."""
    delegate = merged.get("delegate", {})
    library = delegate.get("library", "none")
    quantization = merged["quantization"]
    scheme = Scheme(quantization["scheme"])
    measure = merged.get("measure", {})
    seconds = {key: float(value) for key, value in measure.items() if key.endswith("_seconds")}
    return Target(
        name=name,
        description=merged.get("description", ""),
        tested=merged.get("tested", "no"),
        deployable=merged.get("deployable", True),
        platforms=tuple(Platform(**platform) for platform in merged.get("platforms", ())),
        runtime=Runtime(merged["runtime"]["package"]),
        delegate=Delegate(
            library=None if library == "none" else library,
            required=delegate.get("required", False),
            options=tuple(sorted(delegate.get("options", {}).items())),
        ),
        compile_command=tuple(merged.get("compile", {}).get("command", ())) or None,
        quantization=Quantization(
            scheme=scheme,
            io=quantization.get("io", "int8" if scheme is Scheme.INT8 else "float32"),
            granularity=quantization.get("granularity", "per-channel"),
            float_fallback=quantization.get("float_fallback", True),
            operators=quantization.get("operators", "any"),
        ),
        budget=Budget(**typed_budget(merged.get("budget", {}))),
        measure=MeasurePolicy(**(measure | seconds)),
    )


def contradictions(target: Target) -> list[str]:
    """What no single key shows: values that do not go together."""
    faults = []
    quantization = target.quantization
    if quantization.scheme is not Scheme.INT8 and quantization.io != "float32":
        faults.append(
            f'quantization.io: must be "float32" with scheme "{quantization.scheme}", not "{quantization.io}"'
        )
    if not quantization.float_fallback and quantization.scheme not in INTEGER_SCHEMES:
        faults.append(
            f'quantization.float_fallback: false asks for integers throughout, and scheme "{quantization.scheme}" '
            "computes in floats"
        )
    taken = OPERATOR_SCHEMES[quantization.operators]
    if target.delegate.required and quantization.scheme not in taken:
        faults.append(
            f'quantization.scheme: operators "{quantization.operators}" are taken in {" or ".join(taken)}, none of '
            f'them in "{quantization.scheme}", and delegate.required is true'
        )
    if target.delegate.required and target.delegate.library is None:
        faults.append("delegate.required: true needs delegate.library")
    if target.compile_command is not None:
        absent = [part for part in ("{model}", "{outdir}") if part not in " ".join(target.compile_command)]
        faults.extend(f"compile.command: must contain {part}" for part in absent)
    if target.measure.min_seconds > target.measure.max_seconds:
        faults.append("measure.min_seconds: must not be more than measure.max_seconds")
    if len(set(target.platforms)) < len(target.platforms):
        faults.append("platforms: the same platform stands there twice")
    return faults
