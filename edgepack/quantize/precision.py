"""Keras models trained in 16-bit floats, rebuilt in float32 as TFLite runtimes compute. Runs in the worker process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgepack.documents import Finding
from edgepack.errors import InputError

_NARROW = ("float16", "bfloat16")
_POLICIES = (*_NARROW, *(f"mixed_{name}" for name in _NARROW))
# What Keras 3 and tf_keras call a policy's class in a config.
_POLICY_CLASSES = ("DTypePolicy", "FloatDTypePolicy", "Policy")


def in_float32(path: Path, model: Any) -> tuple[Any, tuple[Finding, ...]]:
    """The model with every layer's policy float32 and the same weights, and a note; as it is where none is narrower.

    Raises InputError "mixed-precision" where its layers cannot be built again.
    """
    if not any(getattr(layer, "compute_dtype", None) in _NARROW for layer in _layers(model)):
        return model, ()
    try:
        found: dict[str, None] = {}
        rebuilt = type(model).from_config(_widened(model.get_config(), found))
        # Under a mixed policy they are float32 already.
        rebuilt.set_weights([_wide(weight) for weight in model.get_weights()])
    except Exception as fault:  # layers of the user's own raise anything
        raise InputError(
            "mixed-precision",
            f"{path} computes in 16-bit floats, which TFLite runtimes do not, and cannot be built again in float32: "
            f"{' '.join(str(fault).split())[:160]}.",
            hint="Build it under keras.config.set_dtype_policy('float32'), load its weights, and save that.",
        ) from fault
    policy = next(iter(found))
    return rebuilt, (
        Finding(
            "rebuilt-in-float32",
            "note",
            policy,
            f"The model was saved under the policy {policy}, and TFLite runtimes do not compute in 16-bit floats: it "
            "was built again in float32 with its own weights, and accuracy is against that.",
            "",
        ),
    )


def _layers(model: Any) -> Iterator[Any]:
    """All, those of models within it included."""
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _layers(layer)


def _widened(config: Any, found: dict[str, None]) -> Any:
    """A copy of a config in which every policy and type of 16-bit floats is float32; ``found`` gets their names."""
    if isinstance(config, (list, tuple)):
        return type(config)(_widened(one, found) for one in config)
    if not isinstance(config, dict):
        return config
    is_policy = config.get("class_name") in _POLICY_CLASSES
    name = config["config"].get("name") if is_policy else config.get("dtype")
    if not isinstance(name, str) or name not in _POLICIES:
        return {key: _widened(value, found) for key, value in config.items()}
    found[name] = None
    if is_policy:
        return {**config, "config": {**config["config"], "name": "float32"}}
    return {**{key: _widened(value, found) for key, value in config.items()}, "dtype": "float32"}


def _wide(weight: Any) -> Any:
    return weight.astype("float32") if weight.dtype.name in _NARROW else weight
