"""The values of a target: plain, frozen, slotted; they pickle, print and go into a bundle's manifest."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from edgepack.strict_toml import Number, Table, Text, find_faults, refuse_faults
from edgepack.target.platform import Platform, version_tuple

_LIMIT_MS = Number(0.001, 3_600_000)
_LIMIT_RATIO = Number(0.001, 1000)
BUDGET = Table(
    {
        "p50_ms": _LIMIT_MS,
        "p90_ms": _LIMIT_MS,
        "p95_ms": _LIMIT_MS,
        "p99_ms": _LIMIT_MS,
        "max_accuracy_drop": Number(0, 1),
        "min_accuracy": Number(0, 1),
        "model_bytes": Number(1, integer=True),
        "load_ms": _LIMIT_MS,
        "peak_rss_bytes": Number(1, integer=True),
        "gate": Text(("point", "confident")),
        "max_parity_steps": Number(0, 65_535),
        "min_top1_agreement": Number(0, 1),
        "max_p50_ratio": _LIMIT_RATIO,
        "max_p95_ratio": _LIMIT_RATIO,
        "first_ms": _LIMIT_MS,
        "cold_load_ms": _LIMIT_MS,
        "min_delegated_share": Number(0, 1),
    }
)
"""The schema of a ``[budget]`` table, in a profile and in edgepack.toml."""


class Scheme(StrEnum):
    """How a model's numbers are stored and computed."""

    FLOAT32 = "float32"
    DYNAMIC = "dynamic"
    INT8 = "int8"
    FLOAT16 = "float16"
    INT16X8 = "int16x8"


INTEGER_SCHEMES = (Scheme.INT8, Scheme.INT16X8)
"""The schemes whose activations are integers: their ranges are measured on calibration samples."""

OPERATOR_SCHEMES = {
    "any": tuple(Scheme),
    "edgetpu": (Scheme.INT8,),
    "ethos-u65": (Scheme.INT8, Scheme.INT16X8),
    "gpu-delegate": (Scheme.FLOAT32, Scheme.DYNAMIC, Scheme.FLOAT16, Scheme.INT8),
    "vx": (Scheme.FLOAT32, Scheme.DYNAMIC, Scheme.FLOAT16, Scheme.INT8),
}
"""In which schemes the operators of an accelerator's list are taken.

The types are those of edgepack.quantize.operators, whose modules name their sources; a test holds them against it.
"""

OPERATOR_LISTS = tuple(OPERATOR_SCHEMES)
"""What ``quantization.operators`` may name: every operator, or an accelerator's list (edgepack.quantize.operators)."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """The preferred runtime, "tflite-runtime" or "ai-edge-litert"; the version per platform is in runtimes.lock."""

    package: str

    def package_for(self, python: str) -> str:
        """The package on a Python: tflite-runtime's last release ends at 3.11, above it ai-edge-litert takes over."""
        return "ai-edge-litert" if version_tuple(python) > (3, 11) else self.package


@dataclass(frozen=True, slots=True)
class Delegate:
    """The accelerator's library, None for plain CPU; a ``required`` one that takes nothing is a FAIL."""

    library: str | None = None
    required: bool = False
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a model for the target is quantized, and what the result is held against.

    ``io``: "int8", "uint8" or "float32" tensors at the border; ``granularity`` of the weights: "per-channel" or
    "per-tensor"; ``float_fallback``: single operators may stay in float; ``operators``: "any" or the name of an
    accelerator's operator list.
    """

    scheme: Scheme
    io: str
    granularity: str
    float_fallback: bool
    operators: str


@dataclass(frozen=True, slots=True)
class Budget:
    """What a release must keep to on the device; None gates nothing.

    Latencies and load in milliseconds, sizes in bytes, accuracies as fractions (0.02 = 2 points), ratios to the active
    release (1.05 = 5 % slower). ``gate`` "point" holds the measured drop against the budget, "confident" its one-sided
    95 % bound; of a ratio the estimate, and its interval; of a latency the percentile, and its interval's upper end.
    ``max_parity_steps`` are quantization steps of the output between device and host, ``min_top1_agreement`` is the
    share of samples in which both name the same class.
    """

    p50_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_accuracy_drop: float | None = None
    min_accuracy: float | None = None
    model_bytes: int | None = None
    load_ms: float | None = None
    peak_rss_bytes: int | None = None
    gate: str = "point"
    max_p50_ratio: float | None = None
    max_p95_ratio: float | None = None
    max_parity_steps: float | None = None
    min_top1_agreement: float | None = None
    first_ms: float | None = None
    cold_load_ms: float | None = None
    min_delegated_share: float | None = None

    @property
    def gated_percentile(self) -> int | None:
        """The highest latency percentile that has a limit; it decides how many runs a check needs."""
        limits = {
            50: (self.p50_ms, self.max_p50_ratio),
            90: (self.p90_ms,),
            95: (self.p95_ms, self.max_p95_ratio),
            99: (self.p99_ms,),
        }
        return max((p for p, found in limits.items() if any(one is not None for one in found)), default=None)

    @property
    def wants_current(self) -> bool:
        """Whether a limit is one to the active release, which has to run beside the one that is checked."""
        return self.max_p50_ratio is not None or self.max_p95_ratio is not None

    def override(self, values: Mapping[str, Any]) -> Budget:
        """A budget with ``values`` (of edgepack.toml or of flags) on top of these; None lifts a limit.

        Raises :class:`InputError` "bad-budget" that tells every unknown key and every value out of range.
        """
        given = {key: value for key, value in values.items() if value is not None}
        lifted = {key: None for key, value in values.items() if value is None and key in BUDGET.keys and key != "gate"}
        unknown = {key: 0 for key in values if key not in BUDGET.keys}
        faults = find_faults(given | unknown, BUDGET, "budget")
        refuse_faults(
            faults, code="bad-budget", subject="The budget", hint="docs/targets.md lists the keys of [budget]."
        )
        return dataclasses.replace(self, **(typed_budget(given) | lifted))

    def to_json(self) -> dict[str, Any]:
        """The plain values; a limit that is not set is null."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class MeasurePolicy:
    """How a check measures: threads of the interpreter, and how long to go on."""

    threads: int = 1
    min_runs: int = 50
    min_seconds: float = 2.0
    max_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """One profile, complete: everything that ``extends`` and the defaults gave is in it."""

    name: str
    description: str
    tested: str
    deployable: bool
    platforms: tuple[Platform, ...]
    runtime: Runtime
    delegate: Delegate
    compile_command: tuple[str, ...] | None
    quantization: Quantization
    budget: Budget
    measure: MeasurePolicy

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values with the keys of a profile; no path, so that it is the same on every machine."""
        return {
            "name": self.name,
            "description": self.description,
            "tested": self.tested,
            "deployable": self.deployable,
            "platforms": [platform.to_json() for platform in self.platforms],
            "runtime": {"package": self.runtime.package},
            "delegate": {
                "library": self.delegate.library,
                "required": self.delegate.required,
                "options": dict(self.delegate.options),
            },
            "compile": {"command": list(self.compile_command) if self.compile_command else None},
            "quantization": dataclasses.asdict(self.quantization) | {"scheme": str(self.quantization.scheme)},
            "budget": self.budget.to_json(),
            "measure": dataclasses.asdict(self.measure),
        }


def typed_budget(values: Mapping[str, Any]) -> dict[str, Any]:
    """Limits in milliseconds and fractions as floats: ``50`` and ``50.0`` in a profile are the same budget."""
    kept = ("model_bytes", "peak_rss_bytes", "gate")
    return {key: value if key in kept else float(value) for key, value in values.items()}
