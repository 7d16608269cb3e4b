"""The one candidate to take, and why, in a sentence; or why none will do. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgepack.errors import EdgepackError, GateFailed, InconclusiveError, MisfitError
from edgepack.quantize.conformance import refused_by
from edgepack.quantize.tune.candidates import short_name
from edgepack.quantize.tune.told import told as tell
from edgepack.quantize.tune.trial import ROUNDING, Made, Trial, made_of
from edgepack.target import INTEGER_SCHEMES, Scheme, Target

# Sizes and latencies that differ by less are equal: a model's size hangs on its metadata too, a median moves that much.
_ALIKE = 1.1
_SHOWN_LAYERS = 3
# What a CPU computes fastest first. TFLite's 16x8 kernels are reference code, 80 times slower than int8 and more.
_BY_SPEED = (Scheme.INT8, Scheme.DYNAMIC, Scheme.FLOAT16, Scheme.FLOAT32, Scheme.INT16X8)


@dataclass(frozen=True, slots=True)
class Choice:
    """The trial that is taken, and the reason for a person."""

    trial: Made
    reason: str


def choose(trials: Sequence[Trial], max_drop: float, target: Target) -> Choice | None:
    """The smallest and fastest that keeps the budget; None where none does.

    Where latencies were measured the fastest, and of those within a tenth of it the smallest; where not, the smallest,
    int16x8 last unless it is the profile's own scheme. Of equals the profile's own scheme, the one that a CPU
    computes faster, the smaller drop, and the one that was tried first.

    Raises InconclusiveError where the device measured every one that keeps, and none of its latencies says anything.
    """
    keeping = [trial for trial in made_of(trials) if trial.keeps(max_drop)]
    if not keeping:
        return None
    measured = [trial for trial in keeping if trial.latency_ms is not None]
    if not measured and _untold(keeping):
        raise _nothing_conclusive(keeping, trials)
    left = measured or _quick(keeping, target)
    if measured:
        left = _near_best(left, lambda trial: trial.latency_ms or 0.0)
    left = _near_best(left, lambda trial: trial.bytes)
    chosen = min(left, key=lambda trial: (_rank(trial, target), trial.drop))
    return Choice(chosen, _reason(chosen, keeping, trials, max_drop, target))


def nearest(trials: Sequence[Trial]) -> Made | None:
    """The legal trial with the smallest drop, of equals the smaller one; where all are too large, the smallest."""
    made = made_of(trials)
    legal = min((trial for trial in made if trial.legal), key=lambda trial: (trial.drop, trial.bytes), default=None)
    large = (trial for trial in made if trial.oversize and not trial.refused)
    return legal or min(large, key=lambda trial: (trial.bytes, trial.drop), default=None)


def none_keeps(trials: Sequence[Trial], max_drop: float, target: Target) -> EdgepackError:
    """The error that says that no legal candidate keeps the budget, which came nearest, and what would."""
    best = nearest(trials)
    there = [one for one in made_of(trials) if one.refused]
    if best is None and not there:
        reasons = " ".join(dict.fromkeys(trial.reason for trial in trials if trial.reason))
        return MisfitError(
            "nothing-legal",
            f"{target.name} takes none of the {len(trials)} candidates. {reasons}",
            hint="Change the model as the reasons say, or choose another target.",
            candidates=_details(trials),
        )
    passes = " and passes on the device" if there else ""
    told = [f"None of the {len(trials)} candidates {_kept(max_drop, target)} on {target.name}{passes}."]
    told += [f"{one.candidate.name}: {one.refused}" for one in there]
    layers: list[str] = []
    if best is not None:
        layers = [] if best.oversize else _worst_layers(best)
        told.append(f"The nearest, {best.candidate.name}, loses {best.drop:.4f}{_where(best)}.")
        told += filter(None, (best.oversize, best.too_poor))
        told += [] if best.within(max_drop) else _cannot(target, trials)
        told += [f"The layers that it spoils most: {', '.join(layers)}."] if layers else []
    return GateFailed(
        "no-candidate-keeps-budget",
        " ".join(told),
        hint=_way_out(target, best, max_drop),
        nearest=best and _details([best])[0],
        layers=layers,
        candidates=_details(trials),
        target=target.name,
        max_drop=max_drop,
        spoiled=[dataclasses.asdict(layer) for layer in best.layers] if best else [],
    )


def _kept(max_drop: float, target: Target) -> str:
    """The limits that this machine can hold, as what keeps them."""
    budget, limits = target.budget, [f"keeps the drop within {max_drop:g}"]
    limits += [] if budget.min_accuracy is None else [f"min_accuracy {budget.min_accuracy:g}"]
    limits += [] if budget.model_bytes is None else [f"model_bytes {budget.model_bytes:,}"]
    return ", ".join(limits[:-1]) + " and " + limits[-1] if len(limits) > 1 else limits[0]


def _nothing_conclusive(keeping: list[Made], trials: Sequence[Trial]) -> InconclusiveError:
    return InconclusiveError(
        "no-conclusive-latency",
        f"{len(keeping)} of the {len(trials)} candidates keep the drop, and no latency says which to take. "
        + " ".join(_untold(keeping)),
        hint="Cool the device or leave it alone, and tune again: what was converted and evaluated is kept. Or choose "
        "without latencies: leave --on out.",
        candidates=_details(trials),
    )


def _untold(keeping: Sequence[Made]) -> list[str]:
    """Those whose latency says nothing, and why."""
    measured = [(one.candidate.name, one.measurement.inconclusive) for one in keeping if one.measurement]
    return [f"{name}: {why}" for name, why in measured if why]


def _details(trials: Sequence[Trial]) -> list[dict[str, object]]:
    return [dataclasses.asdict(one) for one in tell(trials)]


def _where(trial: Made) -> str:
    """Where the drop is the device's: this machine's beside it."""
    here = trial.accuracy.drop
    if trial.measurement is None or trial.measurement.drop is None or here is None or here >= trial.drop:
        return ""
    return f" on the device, and {here:.4f} on this machine"


def _quick(keeping: list[Made], target: Target) -> list[Made]:
    slow = Scheme.INT16X8
    quick = [trial for trial in keeping if trial.candidate.conversion.scheme != slow]
    return keeping if target.quantization.scheme == slow else quick or keeping


def _near_best(trials: list[Made], cost: Callable[[Made], float]) -> list[Made]:
    best = min(map(cost, trials))
    return [trial for trial in trials if cost(trial) <= best * _ALIKE]


def _rank(trial: Made, target: Target) -> tuple[bool, bool, int]:
    conversion = trial.candidate.conversion
    own = conversion.scheme == target.quantization.scheme
    return bool(conversion.float_layers or conversion.int16_layers), not own, _BY_SPEED.index(conversion.scheme)


def _reason(chosen: Made, keeping: list[Made], trials: Sequence[Trial], max_drop: float, target: Target) -> str:
    name, drop = chosen.candidate.name, f"{chosen.drop:+.4f}"
    kept = f"keeps the drop within {max_drop:g} ({drop})"
    untold = _untold(keeping)
    left_out = f" The device's latency says nothing for {'; '.join(untold)}" if untold else ""
    if chosen.latency_ms is not None:
        other = _does_not_pay(chosen, keeping)
        if other is not None:
            return (
                f"{other.candidate.name} does not pay on this device: it takes {other.latency_ms:.3g} ms, and {name}, "
                f"which {kept}, {chosen.latency_ms:.3g} ms.{left_out}"
            )
        faster = [one for one in keeping if one.latency_ms is not None and one.latency_ms < chosen.latency_ms]
        why = " and none that does is faster by more than a tenth" if faster else " and is the fastest that does"
        return f"{name} {kept}{why}, at {chosen.latency_ms:.3g} ms and {chosen.bytes:,} bytes.{left_out}"
    return f"{name} {kept}{_why_small(chosen, keeping)}, at {chosen.bytes:,} bytes{_lost(chosen, trials, max_drop)}."


def _why_small(chosen: Made, keeping: list[Made]) -> str:
    if len(keeping) == 1:
        return " and is the only one that does"
    smaller = [trial for trial in keeping if trial.bytes < chosen.bytes]
    if not smaller:
        return " and is the smallest that does"
    if any(trial.bytes * _ALIKE < chosen.bytes for trial in smaller):
        return " and is the smallest that does without int16x8's slow kernels"
    return " and none that does is smaller by more than a tenth"


def _lost(chosen: Made, trials: Sequence[Trial], max_drop: float) -> str:
    """What was hoped for more than the chosen one, and what it would have cost."""
    better = [one for one in made_of(trials) if one.legal and not one.keeps(max_drop) and one.bytes <= chosen.bytes]
    best = min(better, key=lambda trial: trial.drop, default=None)
    return "" if best is None else f"; {best.candidate.name} would lose {best.drop:.4f}"


def _does_not_pay(chosen: Made, keeping: list[Made]) -> Made | None:
    """The integer model that was expected to be faster than the chosen one, and is not."""
    if chosen.candidate.conversion.scheme in INTEGER_SCHEMES:
        return None
    integer = [
        trial for trial in keeping if trial.candidate.conversion.scheme == Scheme.INT8 and trial.latency_ms is not None
    ]
    fastest = min(integer, key=lambda trial: trial.latency_ms or 0.0, default=None)
    if fastest is None or chosen.latency_ms is None or (fastest.latency_ms or 0.0) <= chosen.latency_ms:
        return None
    return fastest


def _cannot(target: Target, trials: Sequence[Trial]) -> list[str]:
    """What would win the accuracy back, and why it does not here."""
    if target.quantization.float_fallback:
        return []
    wide = [trial for trial in trials if trial.candidate.conversion.int16_layers]
    only = f"{target.name} computes in {target.quantization.scheme} only: no layer can be kept in float there"
    if made_of(wide):
        return [f"{only}, and its worst layers in 16 bits are not enough."]
    reasons = [trial.reason.removeprefix(refused_by(target)) for trial in wide[:1] if trial.reason]
    return [f"{only}, which is what would win the accuracy back.", *(f"Nor in 16 bits: {why}" for why in reasons)]


def _way_out(target: Target, best: Made | None, max_drop: float) -> str:
    if best is None:
        return "Lift the limit of the profile's [budget] that fails, or choose a smaller model."
    ways = [f"Train a smaller model, or raise model_bytes in [budget] to {best.bytes:,}."] if best.oversize else []
    if best.too_poor:
        enough = math.floor(best.accuracy.quantized * 1000) / 1000
        ways += [f"Train a more accurate model, or lower min_accuracy in [budget] to {enough:g}."]
    if ways and best.drop <= max_drop + ROUNDING:
        return " ".join(ways)
    allow = f"allow --max-drop {_rounded_up(best.drop):g}"
    if target.quantization.float_fallback:
        way = f"Look at the samples and at the layers that lose most, train with quantization in mind, or {allow}."
    else:
        way = f"Train with quantization in mind, choose a target that may fall back to float, or {allow}."
    return " ".join((way, *ways))


def _rounded_up(drop: float) -> float:
    return int(drop * 1000 + 1) / 1000


def _worst_layers(trial: Made) -> list[str]:
    ranked = sorted(trial.layers, key=lambda layer: layer.sqnr_db)
    return [f"{short_name(layer.tensor)} ({layer.sqnr_db:.1f} dB)" for layer in ranked[:_SHOWN_LAYERS]]
