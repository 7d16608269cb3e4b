"""How files become a model's inputs: the ``[samples]`` table of edgepack.toml as a value. Pure.

A pixel of 0 becomes the first number of ``range`` and one of 255 the second, linearly between; then ``mean`` is taken
away and the rest divided by ``std``, one number for each colour (or one for all), in the order of ``colors``. So pixels
divided by 255 are ``range = [0.0, 1.0]``, the usual MobileNet is ``[-1.0, 1.0]``, a model that scales for itself is
``[0.0, 255.0]``, and PyTorch's ImageNet models are ``[0.0, 1.0]`` with their mean and std.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgepack.strict_toml import NumberList, Table, TableOf, Text, TextList, find_faults, refuse_faults

COLORS = {"rgb": 3, "bgr": 3, "gray": 1}
"""The orders of colours, each with its number of channels."""

_POSITIVE = 1e-9
SAMPLES = Table(
    {
        "range": NumberList(2, 2),
        "mean": NumberList(1, 3),
        "std": NumberList(1, 3, minimum=_POSITIVE),
        "size": NumberList(2, 2, minimum=1, maximum=16384, integer=True),
        "resize": Text(("stretch", "crop", "pad")),
        "interpolation": Text(("nearest", "bilinear", "bicubic", "lanczos", "box")),
        "colors": Text(tuple(COLORS)),
        "classes": TextList(minimum=1),
        "label": Text(pattern=r"[^\r\n]+", form="the name of a column"),
        "inputs": TableOf(TextList(minimum=1)),
    }
)
"""The schema of ``[samples]``; every key is optional."""

_HINT = "`edgepack init` in an empty folder shows every key of [samples]."


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """``[samples]``, empty or None where it says nothing.

    ``range``, ``mean`` and ``std`` also say what .npz, .npy, CSV and functions should hold: they are held against it,
    and not changed. ``size`` is height and width. ``inputs`` names the CSV columns of each input, or the one array
    of an .npz or a folder of .npy; ``label`` the label's.
    """

    range: tuple[float, float] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: tuple[int, int] | None = None
    resize: str = "stretch"
    interpolation: str = "bilinear"
    colors: str | None = None
    classes: tuple[str, ...] = ()
    label: str | None = None
    inputs: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def limits(self) -> tuple[float, float] | None:
        """The smallest and the largest value that a sample can have; None where no range was stated."""
        if self.range is None:
            return None
        channels = max(1, len(self.mean), len(self.std))
        ends = [
            (end - mean) / std
            for mean, std in zip(_repeated(self.mean, channels, 0.0), _repeated(self.std, channels, 1.0), strict=True)
            for end in self.range
        ]
        return min(ends), max(ends)

    def to_json(self) -> dict[str, Any]:
        """What :func:`preprocessing_from` makes the same value of: what was stated."""
        plain = {field.name: field.default for field in dataclasses.fields(self)}
        value = {key: inner for key, inner in dataclasses.asdict(self).items() if inner != plain[key]}
        return {**value, "inputs": dict(self.inputs)} if self.inputs else value


UNSTATED = Preprocessing()
"""No ``[samples]`` table, or an empty one."""


def preprocessing_from(table: Mapping[str, Any], subject: str = "samples") -> Preprocessing:
    """The value of a ``[samples]`` table. Raises InputError "bad-project" that tells every fault at once."""
    plain = _with_lists(table)
    faults = find_faults(plain, SAMPLES, "samples") or samples_faults(plain)
    refuse_faults(faults, code="bad-project", subject=subject, hint=_HINT)
    values: dict[str, Any] = {key: tuple(inner) if isinstance(inner, list) else inner for key, inner in plain.items()}
    if "range" in values:
        values["range"] = tuple(float(end) for end in values["range"])
    values["inputs"] = tuple((name, tuple(columns)) for name, columns in plain.get("inputs", {}).items())
    return Preprocessing(**values)


def samples_faults(table: Mapping[str, Any]) -> list[str]:
    """What is wrong with a table whose keys and types are right."""
    faults = []
    low, high = table.get("range", (0.0, 1.0))
    if low >= high:
        faults.append(f"samples.range: must rise, not go from {low:g} to {high:g}")
    for key in ("mean", "std"):
        if key not in table:
            continue
        if "range" not in table:
            faults.append(f"samples.{key}: needs samples.range, which pixels are brought into first")
        channels = COLORS.get(table.get("colors", ""))
        if len(table[key]) == 2 or (channels and len(table[key]) not in (1, channels)):
            faults.append(f"samples.{key}: must have one number for each of the {channels or '1 or 3'} colours")
    names = table.get("classes", ())
    faults += [f"samples.classes: {name!r} stands there twice" for name in sorted(set(names)) if names.count(name) > 1]
    return faults


def _with_lists(value: Any) -> Any:
    """Python's tuples as TOML's arrays, so that both are held against one schema."""
    if isinstance(value, Mapping):
        return {key: _with_lists(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _repeated(numbers: tuple[float, ...], count: int, default: float) -> tuple[float, ...]:
    return numbers * count if len(numbers) == 1 else numbers or (default,) * count
