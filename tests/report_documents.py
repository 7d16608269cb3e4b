"""Documents to make reports of, as large and as nasty as a test needs."""

from __future__ import annotations

import random

from edgepack.documents import (
    Accuracy,
    BrokenBudget,
    CheckDocument,
    ClassEvidence,
    Conformance,
    Evidence,
    Finding,
    Gate,
    Histogram,
    Interval,
    LatencyIntervals,
    LatencyMs,
    LayerError,
    LayerParity,
    ModelInfo,
    Parity,
    QuantizeDocument,
    Ratio,
    SourceInfo,
    TunedCandidate,
    TuneDocument,
)

ACCURACY = Accuracy("top1", 0.9, 0.85, 0.05, 400, Interval(0.03, 0.07), p_value=0.001, needed_samples=300)


def layers(count: int, name: str = "net/conv") -> tuple[LayerError, ...]:
    """So many layers, the later the worse; five with histograms, as ``quantize`` gives them."""
    histogram = Histogram(-1.0, 1.0, tuple(range(48)), tuple(range(48, 0, -1)))
    return tuple(
        LayerError(
            f"{name}_{place}", "CONV_2D", 50 - 45 * place / count, 30.0, 4096, -1.0, 1.0,
            histogram if place >= count - 5 else None,
        )
        for place in range(count)
    )  # fmt: skip


def quantized(count: int = 20, name: str = "net/conv", target: str = "raspberry-pi-4") -> QuantizeDocument:
    """What ``quantize`` found of a model with so many layers, all of whose names begin with ``name``."""
    finding = Finding("bad-layer", "note", name, f"{name} is spoiled.", f"Leave {name} in float.")
    made = layers(count, name)
    return QuantizeDocument(
        model=ModelInfo(f"{name}.tflite", 52_520, "0" * 64, "int8"),
        source=SourceInfo(f"{name}.keras", "keras", 300_000, "1" * 64),
        target=target,
        conformance=Conformance(True, (finding,), delegated_share=0.5, int8_weight_share=0.987),
        accuracy=ACCURACY,
        check_set=None,
        provenance="out.provenance.json",
        seconds=1.0,
        layers=made,
        layers_left_out=2,
        first_bad_layer=made[-1].tensor if made else None,
    )


def candidate(number: int, *, name: str = "int8", chosen: bool = False, legal: bool = True) -> TunedCandidate:
    """One that was tried: the higher its number, the larger it is and the less it loses."""
    latency = LatencyMs(0.7 + number, None, 1.5 + number, None, None, None, 130)
    return TunedCandidate(
        name=f"{name}-{number}", scheme="int8", engine="tensorflow", bytes=50_000 + 9_000 * number if legal else None,
        drop=0.1 / (number + 1) if legal else None, interval=Interval(-0.01, 0.11) if legal else None,
        latency_ms=latency if legal else None, legal=legal, reason=None if legal else f"{name} is float.",
        on_front=legal, chosen=chosen, float_layers=(f"{name}/dense",) if chosen else (),
    )  # fmt: skip


def tuned(count: int = 5, name: str = "int8") -> TuneDocument:
    """What ``tune`` found among so many candidates, the last of them not for the target."""
    one = quantized(8, name)
    return TuneDocument(
        source=one.source, target=one.target, max_drop=0.05,
        candidates=tuple(
            candidate(number, name=name, chosen=number == 2, legal=number < count - 1) for number in range(count)
        ),
        chosen=f"{name}-2", reason=f"{name}-2 keeps the drop.", model=one.model, accuracy=one.accuracy, check_set=None,
        provenance=one.provenance, seconds=9.0, conformance=one.conformance, uncompiled=None, layers=one.layers,
        metric="top1", device="pi@kitchen",
    )  # fmt: skip


def broken(count: int = 5, name: str = "int8") -> BrokenBudget:
    """What ``tune`` found where none of so many candidates keeps the budget."""
    found = tuned(count, name)
    return BrokenBudget(
        message=f"The nearest, {name}-2, loses 0.0333.", hint="Allow --max-drop 0.034.", source=found.source,
        target=found.target, max_drop=0.01, metric="top1", candidates=found.candidates, nearest=found.candidates[0],
        spoiled=found.layers,
    )  # fmt: skip


def checked(runs: int = 400, samples: int = 400, name: str = "kws") -> CheckDocument:
    """What ``check`` found in so many runs and over so many samples of ten classes, on a device that grew hot."""
    draw = random.Random(0)  # noqa: S311 - noise
    latency = [int(8e6 + draw.gammavariate(2, 2e5) + (4e6 if place % 97 == 0 else 0)) for place in range(runs)]
    labels = tuple(place % 10 for place in range(samples))
    said = tuple(label if draw.random() < 0.9 else draw.randrange(10) for label in labels)
    blocks = 8
    series = tuple(
        {"at_s": 0.5 * place, "run": place * runs // 40, "temperature_c": 50.0 + place / 2,
         "clock_khz": 1_500_000 - 300_000 * (place > 30), "throttled_bits": 4 * (place > 30)} for place in range(40)
    )  # fmt: skip
    return CheckDocument(
        verdict="fail", reasons=(f"{name} is too slow.",), app=name, release=f"{name}-1.0.0-0123456789ab",
        latency_ms=LatencyMs(8.4, 8.8, 9.1, None, 8.5, 8.01, runs), load_ms=12.3, peak_rss_bytes=34_000_000,
        model_bytes=52_520, accuracy=ACCURACY,
        parity=Parity(0.99, 0.0039, samples, max_steps=1.0, reference_agreement=0.95, diverging=f"{name}/conv_7"),
        device={"model": name, "arch": "aarch64"}, runtime={"package": "tflite-runtime", "version": "2.14.0"},
        conditions={"throttled": True, "temperature_c": 70.0, "governor": name, "frequencies": {"wished_khz": 1}},
        budget={"p95_ms": 9.0, "max_accuracy_drop": 0.03}, seconds=12.25,
        gates=(
            Gate("p95_ms", "fail", f"{name}: p95 latency is 9.1 ms, more than 9 ms."),
            Gate("max_accuracy_drop", "inconclusive", f"{name}: top1 drops by 0.05."),
            Gate("model_bytes", "pass", "The model has 52,520 bytes, within 60,000 bytes."),
        ),
        intervals=LatencyIntervals(Interval(8.3, 8.5), None, Interval(9.0, 9.2), None),
        ratio=Ratio(1.03, 1.01, 1.05, 0.95, "p50", 4, f"{name}-0.9.0"), first_ms=20.0, cold_load_ms=80.0,
        delegated_share=0.5,
        evidence=Evidence(
            latency_ns=tuple(latency), warmup_ns=(30_000_000, 9_000_000),
            current_ns=tuple(latency[: runs // blocks * blocks]) if runs <= 1000 else (),
            blocks=(("candidate", runs // blocks), ("current", runs // blocks)) * blocks if runs % blocks == 0 else (),
            series=series, operators=({"operator": "CONV_2D", "name": f"{name}/conv_1", "ms": 3.2},),
            classes=ClassEvidence(labels, said, labels),
            layers=tuple(LayerParity(f"{name}/conv_{place}", "CONV_2D", 60.0 - 7 * place, 1.0) for place in range(8)),
            drop_bound=0.06, measured={"load_ms": 12.3, "model_bytes": 52_520, "peak_rss_bytes": 34_000_000},
        ),
    )  # fmt: skip
