"""Documents to make reports of, as large and as nasty as a test needs."""

from __future__ import annotations

from edgepack.documents import (
    Accuracy,
    BrokenBudget,
    Conformance,
    Finding,
    Histogram,
    Interval,
    LatencyMs,
    LayerError,
    ModelInfo,
    QuantizeDocument,
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
