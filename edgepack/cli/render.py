"""What is made on this machine, and what is known of it, as a person wants to read it; text from values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgepack.cli.tables import table
from edgepack.words import printable, size, small_weights

if TYPE_CHECKING:
    from edgepack import documents
    from edgepack.demo import DemoDocument
    from edgepack.target import Target

# By the codes of edgepack.quantize.gate, whose notes get a line of their own.
_BUDGET_WORDS = {"over-budget": "FAIL", "budget-unsettled": "INCONCLUSIVE"}


def quantized(document: documents.QuantizeDocument | documents.QuantizeSetDocument, *, dry_run: bool = False) -> str:
    """What quantize made, or would make, for one target or for several."""
    from edgepack.documents import QuantizeSetDocument

    if isinstance(document, QuantizeSetDocument):
        return "\n\n".join(quantized(one, dry_run=dry_run) for one in document.models)
    ratio = document.source.bytes / document.model.bytes if document.model.bytes else 0.0
    rows = [
        *_nothing_written(dry_run),
        ["model", f"{document.model.path}  ({size(document.model.bytes)}, {document.model.scheme})"],
        [
            "source",
            f"{document.source.path}  ({size(document.source.bytes)}, {document.source.kind}, {ratio:.1f}x the model)",
        ],
        ["target", document.target],
    ]
    if document.uncompiled:
        rows.append(["uncompiled", document.uncompiled])
    rows += _shares(document.conformance, document.model.scheme)
    if document.accuracy is not None:
        rows.append(["accuracy", accuracy(document.accuracy)])
    else:
        rows.append(["accuracy", "not measured: no --eval samples"])
    rows += _budget(document)
    if document.check_set:
        rows.append(["check set", document.check_set])
    if document.report:
        rows.append(["report", document.report])
    if document.cached:
        rows.append(["cached", "all of it was made before from the same content; --no-cache makes it again"])
    rows += [
        [found.severity, f"{found.message} {found.cure}".strip()]
        for found in document.conformance.findings
        if found.code not in _BUDGET_WORDS
    ]
    rows += _worst_layers(document.layers)
    return table(rows)


def quantize_exit_code(document: documents.QuantizeDocument | documents.QuantizeSetDocument) -> int:
    """1 where any model is beyond its budget, else 3 where that is not settled, else 0."""
    from edgepack.documents import QuantizeSetDocument

    models = document.models if isinstance(document, QuantizeSetDocument) else (document,)
    if any(one.within_budget is False for one in models):
        return 1
    return 3 if any(found.code in _BUDGET_WORDS for one in models for found in one.conformance.findings) else 0


def _budget(document: documents.QuantizeDocument) -> list[list[str]]:
    """What the gate says, where the budget has a limit that is known here."""
    if document.within_budget:
        return [["budget", "PASS: its limits of accuracy and size are kept"]]
    return [
        ["budget", f"{_BUDGET_WORDS[found.code]}: {found.message} {found.cure}"]
        for found in document.conformance.findings
        if found.code in _BUDGET_WORDS
    ]


def _worst_layers(layers: Sequence[documents.LayerError], count: int = 5) -> list[list[str]]:
    """The noisiest first: what computes them, their names, signal to noise there and in what they read."""
    worst = sorted(layers, key=lambda layer: layer.sqnr_db)[:count]
    return [
        [
            "layer" if place else "worst layer",
            f"{layer.sqnr_db:.1f} dB  {layer.operator} {layer.tensor.split(';', 1)[0]}"
            + ("" if layer.input_sqnr_db is None else f"  (reads {layer.input_sqnr_db:.1f} dB)"),
        ]
        for place, layer in enumerate(worst)
    ]


def _shares(conformance: documents.Conformance, scheme: str) -> list[list[str]]:
    """What is in 8 bits, and what goes to the accelerator."""
    rows = []
    weights = small_weights(conformance.int8_weight_share, scheme)
    if weights is not None:
        rows.append(["weights", weights])
    if conformance.delegated_share is not None:
        rows.append(["accelerator", f"takes {conformance.delegated_share:.1%} of the operators"])
    return rows


def _nothing_written(dry_run: bool) -> list[list[str]]:
    return [["dry run", "nothing was written; this is what would be"]] if dry_run else []


def accuracy(value: documents.Accuracy) -> str:
    """``top1 0.9000 → 0.9025, drop -0.0025 [-0.0100, +0.0050] over 400 samples``."""
    if value.reference is None or value.drop is None:
        own = value.quantized_interval
        sure = f" [{own.low:.4f}, {own.high:.4f}]" if own else ""
        return f"{value.metric} {value.quantized:.4f}{sure} over {value.samples} samples (no reference)"
    interval = f" [{value.interval.low:+.4f}, {value.interval.high:+.4f}]" if value.interval else ""
    moves = "grows by" if value.smaller_is_better else "drop"
    return (
        f"{value.metric} {value.reference:.4f} → {value.quantized:.4f}, "
        f"{moves} {value.drop:+.4f}{interval} over {value.samples} samples"
    )


def platform_line(platform: Mapping[str, Any]) -> str:
    """A platform and what runs a model there."""
    runtime = platform.get("runtime") or {}
    carried = f"{runtime.get('package')} {runtime.get('version')}"
    if not runtime.get("wheels"):
        enough = runtime.get("enough") or {runtime.get("package"): runtime.get("version")}
        carried = f"the device's own {' or '.join(f'{name} {version}' for name, version in enough.items())}, or newer"
    return f"Python {platform.get('python')}, {platform.get('arch')}, {platform.get('libc')}: {carried}"


def bundled(document: documents.BundleDocument, *, dry_run: bool = False) -> str:
    """What bundle made, or would make."""
    rows = [
        *_nothing_written(dry_run),
        ["bundle", f"{document.path}  ({size(document.bytes)})"],
        ["release", document.release],
        ["target", document.target],
        *([] if document.counter is None else [["counter", str(document.counter)]]),
        *([] if document.signature is None else [["signed by", signer(document.signature)]]),
        *(["platform", platform_line(platform)] for platform in document.platforms),
    ]
    return table(rows)


def signer(signature: documents.SignatureInfo) -> str:
    """Who signed: by the name that the allowed signers give the key, or by the key alone."""
    return f"{signature.principal} ({signature.fingerprint})" if signature.principal else signature.fingerprint


def verified(document: documents.VerifyDocument) -> str:
    """What verify found."""
    signed = "unsigned"
    if document.signature is not None:
        known = "" if document.signature.principal else ", held against no allowed signers"
        signed = f"signed by {signer(document.signature)}{known}"
    what = f"{document.files} files, {size(document.bytes)}, release {document.release}"
    return printable(f"{document.path}: whole. {what}, {signed}.")


def targets(found: Mapping[Target, str]) -> str:
    """The profiles and where each comes from, a line each."""
    rows = [
        [
            target.name,
            str(target.quantization.scheme),
            target.tested,
            "yes" if target.deployable else "no",
            origin,
            target.description,
        ]
        for target, origin in found.items()
    ]
    return table(rows, ["target", "scheme", "tested", "deployable", "from", "description"])


def target(found: Target, origin: str) -> str:
    """One profile, every value."""
    return table([["from", origin], *([key, _plain(value)] for key, value in _flat(found.to_json()))])


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "; ".join(_plain(item) for item in value) or "—"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return "—" if value is None else str(value)


def demo(document: DemoDocument) -> str:
    """The demo's story, a step a line."""
    steps = [[step.name, step.result, f"{step.seconds:.1f} s"] for step in document.steps]
    verdict = printable(f"{document.check.verdict.upper()}: {' '.join(document.check.reasons)}")
    return f"{table(steps, ['step', 'result', 'time'])}\n\n{verdict}"
