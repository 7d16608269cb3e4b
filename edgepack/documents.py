"""The schema of every JSON document that edgepack prints; the one place where a field gets its name.

Those of bundles stand in :mod:`edgepack.bundledocuments`: ``inspect`` does not wait for all the others to be made.
Those of checks stand in :mod:`edgepack.checkdocuments`.

Each document is a frozen dataclass whose field names are the JSON keys; :func:`to_json_value` adds ``"schema": 1``. The
Python functions return these values, the commands print them. Numbers carry their unit in the name; a number that was
not measured, or not measured often enough to be claimed, is None.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from edgepack.bundledocuments import BundleContents as BundleContents
from edgepack.bundledocuments import BundleDocument as BundleDocument
from edgepack.bundledocuments import CheckSetInfo as CheckSetInfo
from edgepack.bundledocuments import FileEntry as FileEntry
from edgepack.bundledocuments import SignatureInfo as SignatureInfo
from edgepack.bundledocuments import TensorInfo as TensorInfo
from edgepack.bundledocuments import VerifyDocument as VerifyDocument
from edgepack.checkdocuments import Accuracy as Accuracy
from edgepack.checkdocuments import CheckDocument as CheckDocument
from edgepack.checkdocuments import ClassEvidence as ClassEvidence
from edgepack.checkdocuments import Evidence as Evidence
from edgepack.checkdocuments import Gate as Gate
from edgepack.checkdocuments import Interval as Interval
from edgepack.checkdocuments import LatencyIntervals as LatencyIntervals
from edgepack.checkdocuments import LatencyMs as LatencyMs
from edgepack.checkdocuments import LayerParity as LayerParity
from edgepack.checkdocuments import Outliers as Outliers
from edgepack.checkdocuments import Parity as Parity
from edgepack.checkdocuments import Ratio as Ratio
from edgepack.jsonvalues import SCHEMA as SCHEMA
from edgepack.jsonvalues import canonical_json as canonical_json
from edgepack.jsonvalues import nests_deeper as nests_deeper
from edgepack.jsonvalues import to_json as to_json
from edgepack.jsonvalues import to_json_value as to_json_value


@dataclasses.dataclass(frozen=True, slots=True)
class ModelInfo:
    """A .tflite on disk."""

    path: str
    bytes: int
    sha256: str
    scheme: str


@dataclasses.dataclass(frozen=True, slots=True)
class SourceInfo:
    """What was quantized: its path, kind ("saved-model", "keras", "keras-2-h5", ...), size and content digest."""

    path: str
    kind: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the conformance check has to say about a model on a target.

    ``severity`` is "error" (the model is refused) or "note"; ``subject`` names the tensor or operator.
    """

    code: str
    severity: str
    subject: str
    message: str
    cure: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Conformance:
    """The outcome of holding a .tflite against a target's promises.

    ``delegated_share`` is the share of its operators that the accelerator takes (None where the target has none, or its
    compiler has been at the model), ``int8_weight_share`` that of the weights' bytes that are in 8 bits or fewer (None
    without weights).
    """

    passed: bool
    findings: tuple[Finding, ...] = ()
    delegated_share: float | None = None
    int8_weight_share: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Histogram:
    """How the values of one tensor lie over some samples, in the float model and in the quantized one.

    Equally wide bins from ``low`` to ``high``; ``reference`` and ``quantized`` hold the counts.
    """

    low: float
    high: float
    reference: tuple[int, ...]
    quantized: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class LayerError:
    """How far one layer's output in the quantized model is from the float model's, over some samples.

    ``tensor`` is its name in the float model, ``operator`` what computes it ("INPUT" for an input of the model),
    ``sqnr_db`` the signal-to-quantization-noise ratio in decibels (200 where there is no noise at all, more than any
    float32 can show), ``input_sqnr_db`` the lowest of the tensors that the layer reads (None where none is known),
    ``elements`` how many numbers were compared, ``low`` and ``high`` the range of the float model's numbers.
    ``histogram`` is there for the worst layers.
    """

    tensor: str
    operator: str
    sqnr_db: float
    input_sqnr_db: float | None
    elements: int
    low: float
    high: float
    histogram: Histogram | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class QuantizeDocument:
    """What ``quantize`` made. ``accuracy`` is None without an evaluation set.

    ``uncompiled`` is the path of the model before an accelerator's compiler took it, and None where none did;
    ``accuracy`` is then that of the uncompiled model, because only that one runs on the host. ``cached`` says that
    everything was made before from the same content. ``layers`` are the errors of its layers in the order of execution,
    where they were asked for or accuracy dropped by more than the budget; ``layers_left_out`` counts those that have no
    equal in the float model, and ``first_bad_layer`` is the tensor of the first one that is bad. ``report`` is the path
    of the page that shows all this, None where none was asked for. ``within_budget`` says whether the model keeps
    to the budget's ``max_accuracy_drop``, ``min_accuracy`` and ``model_bytes``, None where that is not known;
    ``max_drop`` is the limit of the drop, None where there is none.
    """

    model: ModelInfo
    source: SourceInfo
    target: str
    conformance: Conformance
    accuracy: Accuracy | None
    check_set: str | None
    provenance: str
    seconds: float
    uncompiled: str | None = None
    cached: bool = False
    layers: tuple[LayerError, ...] = ()
    layers_left_out: int = 0
    first_bad_layer: str | None = None
    report: str | None = None
    within_budget: bool | None = None
    max_drop: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class QuantizeSetDocument:
    """What ``quantize`` made for several targets of one model, in the order in which they were named."""

    models: tuple[QuantizeDocument, ...]
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class TunedCandidate:
    """A model that ``tune`` tried: what it costs, and whether the target takes it.

    ``drop`` is that of this machine, or of the device where that is larger. ``reason`` is why a candidate that is not
    ``legal`` is none; its figures are None where it could not even be made. ``on_front``: no other legal candidate is
    as good in drop, bytes and latency and better in one. ``latency_ms`` is the device's, None where it was not measured
    there, or where that says nothing: ``inconclusive`` is why. ``float_layers`` stayed in float and
    ``int16_layers`` have 16-bit activations; both are named by their output tensors.
    """

    name: str
    scheme: str
    engine: str
    bytes: int | None
    drop: float | None
    interval: Interval | None
    latency_ms: LatencyMs | None
    legal: bool
    reason: str | None
    on_front: bool
    chosen: bool
    float_layers: tuple[str, ...] = ()
    inconclusive: str | None = None
    int16_layers: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class TuneDocument:
    """What ``tune`` found: every candidate in the order of trying, the ``chosen`` one by its name, and why that one.

    ``layers`` are the errors of the layers of the first candidate that lost too much accuracy. The rest is that of the
    chosen model, as in :class:`QuantizeDocument`.
    """

    source: SourceInfo
    target: str
    max_drop: float
    candidates: tuple[TunedCandidate, ...]
    chosen: str
    reason: str
    model: ModelInfo
    accuracy: Accuracy | None
    check_set: str | None
    provenance: str
    seconds: float
    conformance: Conformance
    uncompiled: str | None
    layers: tuple[LayerError, ...]
    metric: str
    device: str | None = None
    report: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class BrokenBudget:
    """What ``tune`` found where no candidate keeps the budget: the ``details`` of its "no-candidate-keeps-budget".

    ``message`` and ``hint`` are those of the error. ``nearest`` loses least of what the target and the device take,
    and is the smallest where all are too large (None where they take nothing), ``spoiled`` are the errors of its
    layers. The rest is as in :class:`TuneDocument`.
    """

    message: str
    hint: str
    source: SourceInfo
    target: str
    max_drop: float
    metric: str
    candidates: tuple[TunedCandidate, ...]
    nearest: TunedCandidate | None
    spoiled: tuple[LayerError, ...] = ()
    report: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ReportDocument:
    """What ``report`` wrote: a page and its size, summaries for CI; None is what was not asked for."""

    path: str | None
    bytes: int | None
    junit: str | None = None
    markdown: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ProbeDocument:
    """What a device is; ``fits`` names the profiles that fit, best first, ``missing`` what stands in the way of others.

    ``warnings`` are troubles of the device itself, each with ``what`` and ``mend``; ``notes`` say which facts could not
    be read, and why. What could not be read is None in ``facts``.
    """

    device: str
    facts: Mapping[str, Any]
    fits: tuple[str, ...]
    missing: tuple[Mapping[str, str], ...]
    warnings: tuple[Mapping[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class ByteCount:
    """Bytes of the files that a release needs on the device.

    ``sent``: what went over the wire for them, deflated chunks as they were sent. ``reused``: those that the device
    had, in whole files, in parts of them and in chunks of other releases.
    """

    total: int
    sent: int
    reused: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class PushDocument:
    """What a push did; ``already_present`` means that the whole release was there before.

    ``signature`` is as in :class:`VerifyDocument`: checked before the device was called.
    """

    app: str
    release: str
    device: str
    bytes: ByteCount
    round_trips: int
    seconds: float
    already_present: bool
    signature: SignatureInfo | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ActivateDocument:
    """What ``activate`` or ``rollback`` did: ``previous`` was active before, ``current`` is now.

    ``was_bad`` tells that the hooks of ``current`` had failed on this device before. ``withdrawn`` is the release that
    a rollback left and that is therefore the candidate no more.
    """

    app: str
    current: str
    previous: str | None
    changed: bool
    unchecked: bool
    hooks: tuple[Mapping[str, Any], ...] = ()
    was_bad: bool = False
    withdrawn: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class StatusDocument:
    """A release's life on a device, for one app.

    ``counter`` is the highest that the device has seen in a release of it, None where none had one.
    ``state_broken``: the device's notes on it (candidate, verdicts, history) cannot be read and are missing here.
    """

    app: str
    current: str | None
    previous: str | None
    candidate: str | None
    releases: tuple[Mapping[str, Any], ...]
    counter: int | None
    state_broken: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class TrustDocument:
    """What ``trust`` pinned: where agent, signers and terms lie (``folder``) and where releases go (``root``).

    ``authorized_keys`` is the line that lets a key of ``account`` run that agent and nothing else. ``signers`` are the
    principals, ``hooks`` the only argument vectors that an activation may run; ``again``: it was pinned before.
    ``counters``: app to the counter below which it does not fall, whatever becomes of ``root``. ``doors``: other ways
    into the account, in words, as far as the owner's login could see.
    """

    device: str
    account: str
    folder: str
    root: str
    signers: tuple[str, ...]
    hooks: tuple[tuple[str, ...], ...]
    authorized_keys: str
    again: bool
    counters: Mapping[str, int] = dataclasses.field(default_factory=dict)
    doors: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class HistoryDocument:
    """What was activated and rolled back, oldest first; ``state_broken`` as in :class:`StatusDocument`.

    ``events`` are the pushes, checks (with their verdict) and gcs, oldest first. Each entry of both says when (``at``,
    by the device's clock), who (``by``) and from which address (``origin``, empty on the device itself).
    """

    app: str
    history: tuple[Mapping[str, Any], ...]
    state_broken: bool = False
    events: tuple[Mapping[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class GcDocument:
    """What ``gc`` removed: release ids, and the bytes that this freed (unused runtimes included).

    ``in_use``: releases that would have gone, had a program on the device not loaded them.
    """

    app: str
    removed: tuple[str, ...]
    bytes: int
    in_use: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class DeployDocument:
    """Everything in one go, step by step; a step that was not needed is None."""

    device: str
    quantize: QuantizeDocument | None
    bundle: BundleDocument | None
    push: PushDocument
    check: CheckDocument | None
    activate: ActivateDocument | None


@dataclasses.dataclass(frozen=True, slots=True)
class EmulateStartDocument:
    """How to reach an emulated device: ``device`` with ``--ssh-config`` ``ssh_config``.

    ``made`` tells that its system was made now, ``already_running`` that nothing was done. ``commands`` are those of a
    dry run, whose ``port`` is None where it is not known yet.
    """

    name: str
    device: str
    ssh_config: str
    port: int | None
    made: bool
    already_running: bool
    seconds: float
    commands: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class EmulatedDevice:
    """An emulated device, and the bytes that it takes up.

    ``state`` is "running", "stopped", "being made", "half-made" (that was interrupted) or "absent". ``like`` names the
    target profiles whose system it is; ``ssh_config`` and ``port`` are None unless it runs.
    """

    name: str
    state: str
    suite: str
    python: str
    arch: str
    libc: str
    like: tuple[str, ...]
    bytes: int
    ssh_config: str | None
    port: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class EmulateListDocument:
    """Every emulated device that there can be."""

    devices: tuple[EmulatedDevice, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class EmulateChangeDocument:
    """What ``emulate stop`` or ``emulate remove`` did: whether there was anything to do, the bytes that it freed."""

    name: str
    changed: bool
    bytes: int
