"""What makes a measured accuracy doubtful without making it wrong: notes beside it; pure."""

from __future__ import annotations

from edgepack.documents import Accuracy, Finding
from edgepack.metric import Metric
from edgepack.statistics import DROP_ROUNDING
from edgepack.words import settled_by


def doubts(metric: Metric, accuracy: Accuracy, scores: int | None, max_drop: float | None) -> tuple[Finding, ...]:
    """The notes on an accuracy; ``scores`` is how many numbers a row the model gives, ``max_drop`` the budget's limit.

    A float model that is no better than guessing is most often one whose labels or preprocessing are wrong.
    """
    found = (_chance(metric, accuracy, scores), _few_samples(accuracy, max_drop), _no_interval(accuracy))
    return tuple(filter(None, found))


def _chance(metric: Metric, accuracy: Accuracy, scores: int | None) -> Finding | None:
    if metric.chance is None or scores is None or accuracy.reference is None:
        return None
    chance = metric.chance(scores)
    if accuracy.reference > chance:
        return None
    return Finding(
        "no-better-than-chance",
        "note",
        accuracy.metric,
        f"The float model has {accuracy.metric} {accuracy.reference:.4f}, and guessing is worth {chance:.4f}: "
        "what quantizing cost of it says little.",
        "See that y is the place of the class among the outputs, and that the samples are preprocessed as in training.",
    )


def _few_samples(accuracy: Accuracy, max_drop: float | None) -> Finding | None:
    """Noted where the interval reaches over the limit, but for a one-sided bound that is on its side already."""
    needed, interval = accuracy.needed_samples, accuracy.interval
    if max_drop is None or interval is None or (needed is not None and needed <= accuracy.samples):
        return None
    if not interval.low <= max_drop + DROP_ROUNDING < interval.high:
        return None
    settled = settled_by(needed)
    return Finding(
        "few-samples",
        "note",
        accuracy.metric,
        f"{accuracy.samples} samples do not settle whether the drop keeps to {max_drop:g}: its "
        f"{interval.confidence:.0%} interval is {interval.low:+.4f} to {interval.high:+.4f}.",
        f"{settled[0].upper()}{settled[1:]}.",
    )


def _no_interval(accuracy: Accuracy) -> Finding | None:
    if accuracy.drop is None or accuracy.interval is not None:
        return None
    return Finding(
        "no-interval",
        "note",
        accuracy.metric,
        f"The drop of {accuracy.metric} comes without an interval: the metric refuses samples drawn from these, or "
        "--resamples 0 asked for none.",
        "Let it take any draw of the rows; where it is slow, let it compute on whole arrays.",
    )


def unlabelled_check_set(text: str, *, evaluated: bool) -> Finding:
    """The note on a check set that ``check`` cannot hold a limit of accuracy against; ``evaluated``: --eval has labels.

    ``text`` is how the user named it.
    """
    cure = "or leave --check-set out: the --eval rows are labelled" if evaluated else "an array of labels"
    return Finding(
        "unlabelled-check-set",
        "note",
        text,
        "The check set has no labels, and the budget limits accuracy: check will be inconclusive on the device.",
        f"Add y, {cure}.",
    )
