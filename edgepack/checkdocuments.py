"""The schema of what ``check`` says: verdict, gates, numbers, and the evidence that they are computed from again.

As in :mod:`edgepack.documents`, field names are the JSON keys and None is what was not measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval, ``low <= high``, at ``confidence`` (0.95 = 95 %)."""

    low: float
    high: float
    confidence: float = 0.95


@dataclasses.dataclass(frozen=True, slots=True)
class Accuracy:
    """A metric of the float reference and of the quantized model over the same labelled samples.

    ``drop`` says how much worse the quantized model is: ``reference - quantized``, and ``quantized - reference`` for an
    error, of which less is better (``smaller_is_better``). ``interval`` is that of the paired drop. ``reference`` is
    None where the check set holds no outputs of the float model. ``p_value`` is that of McNemar's exact test, where the
    metric is a share of right samples. ``needed_samples`` is about how many would settle whether the drop keeps to the
    budget (no more than ``samples`` where these do); None without a budget, and where no number of them would.
    ``quantized_interval`` is that of ``quantized`` itself: Wilson's for a share, the bootstrap's for any other metric.
    """

    metric: str
    reference: float | None
    quantized: float
    drop: float | None
    samples: int
    interval: Interval | None
    p_value: float | None = None
    needed_samples: int | None = None
    smaller_is_better: bool = False
    quantized_interval: Interval | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class LatencyMs:
    """Latency percentiles in milliseconds over ``n`` runs; None where too few runs were made for the percentile."""

    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    mean: float | None
    min: float | None
    n: int


@dataclasses.dataclass(frozen=True, slots=True)
class LatencyIntervals:
    """The intervals of the percentiles in :class:`LatencyMs`, in milliseconds; None where no interval holds."""

    p50: Interval | None
    p90: Interval | None
    p95: Interval | None
    p99: Interval | None


@dataclasses.dataclass(frozen=True, slots=True)
class Outliers:
    """How many of the timed runs lie far out, ``above`` high_ms and ``below`` low_ms. They are never dropped."""

    above: int
    below: int
    low_ms: float
    high_ms: float


@dataclasses.dataclass(frozen=True, slots=True)
class Ratio:
    """Latency of the checked release over that of ``release``, run in turns in the same minutes (1.05 = 5 % slower).

    ``statistic`` names what was divided ("p50", "p95", "mean"), ``pairs`` how many pairs of blocks it rests on.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    statistic: str
    pairs: int
    release: str


@dataclasses.dataclass(frozen=True, slots=True)
class Parity:
    """The device's outputs against the host's quantized outputs on the same samples, as floats.

    ``max_steps`` is the largest difference in quantization steps of the output (None where no output is an integer);
    ``reference_agreement`` the share of samples whose top class is the float model's; ``diverging`` the first layer in
    the order of execution whose values differ beyond tolerance between device and host, None where none was looked for
    or found; ``cause`` what was found when it was looked for, as the end of a sentence. ``max_share`` is the largest
    difference as a share of the span of the host's numbers, ``tolerated`` whether two runtimes may differ so.
    """

    top1_agreement: float | None
    max_abs_error: float
    samples: int
    max_steps: float | None = None
    reference_agreement: float | None = None
    diverging: str | None = None
    max_share: float | None = None
    tolerated: bool = True
    cause: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Gate:
    """One gate's outcome ("pass", "fail", "inconclusive") and the sentence that says why, with the numbers."""

    name: str
    outcome: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class LayerParity:
    """How near the device's values of one tensor are to the host's: signal to noise in dB, and the most steps apart.

    ``tolerated`` is whether two runtimes may differ so.
    """

    name: str
    operator: str
    sqnr_db: float | None
    max_steps: float | None
    tolerated: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class ClassEvidence:
    """Class numbers by sample: the labels, and what the device and the float model said (None: no float outputs)."""

    labels: tuple[int, ...]
    device: tuple[int, ...]
    reference: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """What a verdict is computed from again; ``measured`` holds what :class:`edgepack.check.verdict.Measured` holds.

    Times are nanoseconds in the order of the runs. ``current_ns`` are the runs of the release that was compared with,
    ``blocks`` the order in which both ran: ("candidate" or "current", runs) one after the other. ``series`` are the
    device's conditions over time: ``at_s`` since the start, ``run``, and what could be read of ``temperature_c``,
    ``clock_khz``, ``throttled_bits``. ``operators`` is the time by operator, where the runtime tells. ``drop_bound`` is
    the one-sided 95 % upper bound of the accuracy drop. ``every`` is n where ``latency_ns`` holds every n-th run only.
    """

    latency_ns: tuple[int, ...]
    warmup_ns: tuple[int, ...] = ()
    current_ns: tuple[int, ...] = ()
    blocks: tuple[tuple[str, int], ...] = ()
    series: tuple[Mapping[str, Any], ...] = ()
    operators: tuple[Mapping[str, Any], ...] = ()
    classes: ClassEvidence | None = None
    layers: tuple[LayerParity, ...] = ()
    drop_bound: float | None = None
    measured: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    every: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class CheckDocument:
    """A verdict ("pass", "fail", "inconclusive") on one release on one device, with what it rests on.

    ``load_ms`` is with warm file caches, ``cold_load_ms`` without them (None where the device does not let them be
    dropped), ``first_ms`` the first inference after loading. ``evidence`` is what the verdict is computed from again.
    ``warmup_left`` says how many of the timed runs, at their start, still were warm-up: 0 where the device had settled,
    None where it never did or where the runs are too few to tell.
    ``check_set`` is the set that went to the device in pieces, if one did: ``name``, ``samples``, ``pieces``,
    ``sent_bytes``, ``received_bytes``.
    """

    verdict: str
    reasons: tuple[str, ...]
    app: str
    release: str
    latency_ms: LatencyMs
    load_ms: float | None
    peak_rss_bytes: int | None
    model_bytes: int
    accuracy: Accuracy | None
    parity: Parity | None
    device: Mapping[str, Any]
    runtime: Mapping[str, Any]
    conditions: Mapping[str, Any]
    budget: Mapping[str, Any]
    seconds: float
    gates: tuple[Gate, ...] = ()
    intervals: LatencyIntervals | None = None
    ratio: Ratio | None = None
    first_ms: float | None = None
    cold_load_ms: float | None = None
    delegated_share: float | None = None
    evidence: Evidence | None = None
    outliers: Outliers | None = None
    warmup_left: int | None = None
    check_set: Mapping[str, Any] | None = None
