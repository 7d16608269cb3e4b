"""What is in a bundle and what differs between two, as a person wants to read it; text from values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgepack.cli.render import platform_line, signer
from edgepack.cli.tables import table
from edgepack.words import printable, size

if TYPE_CHECKING:
    from edgepack import documents

_COLUMN = 40  # three columns then fit the width of a terminal, or nearly so
_MOST_LINES = 12  # of one sort of change; --json has them all


def inspected(document: documents.BundleDocument) -> str:
    """What is in a bundle: whose, of what, for whom; then its files."""
    budget = ", ".join(f"{key} {value}" for key, value in document.budget.items() if value is not None)
    head = [
        ["app", f"{document.name} {document.version}"],
        ["release", document.release],
        ["target", document.target],
        ["model", f"{document.model.get('scheme')}, {size(document.model.get('bytes'))}"],
        *_contents(document.contents),
        *_provenance(document.provenance or {}),
        ["budget", budget or "none"],
        ["signature", "none" if document.signature is None else f"{signer(document.signature)} (not checked: verify)"],
        *([] if document.counter is None else [["counter", str(document.counter)]]),
        ["sha256", document.sha256],
        *(["platform", platform_line(platform)] for platform in document.platforms),
    ]
    files = [[entry.path, size(entry.bytes), entry.sha256[:16]] for entry in document.files]
    return table(head) + "\n\n" + table(files, ["file", "size", "sha256"])


def _contents(contents: documents.BundleContents | None) -> list[list[str]]:
    if contents is None:
        return []
    operators = ", ".join(f"{count} {kind}" for kind, count in contents.operators.items())
    weights = ", ".join(f"{size(count)} {dtype}" for dtype, count in contents.weight_bytes.items())
    return [
        *(["input", _port(port)] for port in contents.inputs),
        *(["output", _port(port)] for port in contents.outputs),
        *([["operators", f"{sum(contents.operators.values())}: {operators}"]] if operators else []),
        *([["constants", f"{contents.parameters:,} numbers: {weights}"]] if weights else []),
        ["check set", _check_set(contents.check_set)],
        ["size", ", ".join(f"{part} {size(count)}" for part, count in contents.part_bytes.items())],
        *(["warning", note] for note in contents.notes),
    ]


def _port(port: documents.TensorInfo) -> str:
    shape = ", ".join("?" if length == -1 else str(length) for length in port.shape)
    quantized = f", scale {port.scale[0]:.6g}" if port.scale else ""
    zero_point = f", zero point {port.zero_point[0]}" if port.zero_point else ""
    return f"{port.name}: {port.dtype} [{shape}]{quantized}{zero_point}"


def _check_set(check_set: documents.CheckSetInfo | None) -> str:
    if check_set is None:
        return "none: accuracy and parity cannot be measured on the device"
    words = ["labelled" if check_set.labelled else "without labels"]
    words += ["with the float model's outputs"] if check_set.reference else []
    return f"{check_set.samples} samples, {', '.join(words)}"


def _provenance(provenance: Mapping[str, Any]) -> list[list[str]]:
    """Where the model comes from, as far as ``quantize`` wrote it down; nothing else is believed to be of a type."""
    source, options, libraries = (_table(provenance.get(key)) for key in ("source", "options", "libraries"))
    samples = _table(options.get("samples"))
    counts = {name: _table(samples.get(name)).get("rows") for name in ("calibration", "evaluation")}
    shown = ", ".join(f"{count} samples for {name}" for name, count in counts.items() if count)
    made = ", ".join(f"{name} {libraries[name]}" for name in ("tensorflow", "litert-quantizer") if name in libraries)
    rows = []
    if isinstance(source.get("bytes"), int):
        digest = str(source.get("sha256"))[:12]
        rows.append(["made from", f"{source.get('kind')}, {size(source['bytes'])}, sha256 {digest}…"])
    if made or shown:
        rows.append(["made with", ", ".join(filter(None, (made, shown)))])
    return rows


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def bundle_diff(changes: Mapping[str, Any]) -> str:
    """What changed from one bundle to another: first inside of the model, then fields and files."""
    rows = [
        [str(change["what"]), *(_short(_leaf(change[side], change.get("unit"))) for side in ("before", "after"))]
        for change in changes["changes"]
    ]
    if not rows:
        return "The two bundles hold the same."
    return "\n\n".join([*_model_diff(changes.get("model")), table(rows, ["what", "before", "after"])])


def _leaf(value: Any, unit: str | None) -> str:
    """A value of the JSON document, for people; "absent" is what one side lacks."""
    if value is None:
        return "absent"
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{shown} {unit}" if unit else shown


def _model_diff(model: Mapping[str, Any] | None) -> list[str]:
    """The model's changes: a sentence that counts them, and a table of the first of each sort."""
    if model is None:
        return []
    if "unreadable" in model:
        return [printable(f"The models differ and cannot be compared: {model['unreadable']}")]
    operators, tensors = model["operators"], model["tensors"]
    sorts = [*_ports(model), *_coming_and_going("operator", operators, "{kind}"), _cells(operators["changed"])]
    sorts += [_cells(lines) for lines in _by_sort(tensors["changed"]).values()]
    sorts += _coming_and_going("tensor", tensors, "{type} {shape}")
    rows = [[_short(name.split(";")[0]), *map(_short, row)] for sort in sorts for name, *row in _some(sort)]
    header = ["in the model", "what", "before", "after"]
    return [_sentence(operators, tensors), *([table(rows, header)] if rows else [])]


def _ports(model: Mapping[str, Any]) -> list[list[list[str]]]:
    return [
        [[line["name"], place.removesuffix("s"), line["before"], line["after"]] for line in model[place]]
        for place in ("inputs", "outputs")
    ]


def _cells(lines: Sequence[Mapping[str, str]]) -> list[list[str]]:
    return [[line["name"], line["what"], line["before"], line["after"]] for line in lines]


def _coming_and_going(what: str, found: Mapping[str, Any], form: str) -> list[list[list[str]]]:
    """A line for each that was added, and for each that was removed."""
    return [
        [[one["name"], what, "absent", form.format(**one)] for one in found["added"]],
        [[one["name"], what, form.format(**one), "absent"] for one in found["removed"]],
    ]


def _sentence(operators: Mapping[str, Any], tensors: Mapping[str, Any]) -> str:
    counts = Counter(line["what"] for line in tensors["changed"])
    told = [f"{_counted(counts['values'], 'tensor')} with other values"] if counts["values"] else []
    told += [f"{_counted(count, 'tensor')} with another {what}" for what, count in counts.items() if what != "values"]
    for what, found in (("operator", operators), ("tensor", tensors)):
        told += [f"{_counted(len(found[sort]), what)} {sort}" for sort in ("added", "removed") if found[sort]]
    changed = {line["name"] for line in operators["changed"]}
    told += [f"{_counted(len(changed), 'operator')} changed"] if changed else []
    shown = ", ".join(told) or "in no tensor and no operator"
    return printable(f"The model changed: {shown}; {_counted(tensors['unchanged'], 'tensor')} as before.")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _by_sort(lines: Sequence[Mapping[str, str]]) -> dict[str, list[Mapping[str, str]]]:
    sorts: dict[str, list[Mapping[str, str]]] = {}
    for line in lines:
        sorts.setdefault(line["what"], []).append(line)
    return sorts


def _some(rows: list[list[str]]) -> list[list[str]]:
    """The first of them, and how many more there are."""
    left = len(rows) - _MOST_LINES
    return rows if left <= 1 else [*rows[:_MOST_LINES], [f"… and {left} more (--json)", rows[-1][1], "", ""]]


def _short(value: object) -> str:
    """A value in a column; --json has all of it."""
    text = str(value)
    return text if len(text) <= _COLUMN else text[: _COLUMN - 1] + "…"
