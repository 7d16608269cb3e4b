"""What outputs are worth against labels: shares of right rows, errors, ROC AUC. Pure functions of arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def topk_hits(outputs: Array, labels: Array, k: int = 1) -> Array:
    """Which rows are right: the label is among the ``k`` largest of ``outputs`` [N, classes]; booleans [N].

    ``labels`` are class numbers [N] or one-hot rows [N, classes]. Of equal scores the first counts as the larger, as
    argmax has it; a row with NaN is wrong. Raises ValueError where shapes or labels do not fit.
    """
    import numpy as np

    scores, truth = _rows(outputs, labels)
    classes = scores.shape[1]
    if classes <= k:
        raise ValueError("top1 needs an output with one score per class" if k == 1 else f"top{k} of {classes} scores")
    places = class_numbers(truth, classes)
    own = np.take_along_axis(scores, places[:, None], axis=1)
    earlier = np.arange(classes) < places[:, None]
    better = (scores > own) | ((scores == own) & earlier)
    hits: Array = (better.sum(axis=1) < k) & ~np.isnan(scores).any(axis=1)
    return hits


def class_numbers(labels: Array, classes: int) -> Array:
    """The class of each row, int64 [N] from 0 to ``classes - 1``, of class numbers [N] or one-hot rows [N, classes].

    Raises ValueError, in words for whoever made the labels, where one is no such number.
    """
    import numpy as np

    truth = labels.reshape(len(labels), -1)
    columns = truth.shape[1]
    if columns > 1:
        if columns != classes:
            raise ValueError(f"one-hot labels have one column for each of the {classes} scores; yours have {columns}")
        if not (((truth == 0) | (truth == 1)).all(axis=1) & (truth.sum(axis=1) == 1)).all():
            raise ValueError("y is neither class numbers nor one-hot (a 1 among 0s); did you mean --metric mae?")
        hot: Array = truth.argmax(axis=1).astype(np.int64)
        return hot
    truth = truth[:, 0]
    wanted = f"labels have to be whole numbers 0..{classes - 1}"
    odd = truth[~np.isfinite(truth) | (truth != np.floor(truth))]
    if len(odd):
        raise ValueError(f"{wanted}; yours hold {odd[0]:g}")
    low, high = int(truth.min(initial=classes)), int(truth.max(initial=0))
    if high >= classes or low < 0:
        cure = " (subtract 1?)" if low == 1 and high == classes else ""
        raise ValueError(f"{wanted}; yours are {low}..{high}{cure}")
    numbers: Array = truth.astype(np.int64)
    return numbers


def row_errors(outputs: Array, labels: Array) -> Array:
    """Each row's mean absolute error, float64 [N]; outputs and labels [N, ...] hold equally many numbers a row.

    Raises ValueError where they do not.
    """
    import numpy as np

    values, truth = _rows(outputs, labels)
    require_width(truth, values.shape[1])
    errors: Array = np.abs(values.astype(np.float64) - truth).mean(axis=1)
    return errors


def require_width(labels: Array, width: int) -> None:
    """Raises ValueError where there are not ``width`` labels a row."""
    found = labels.reshape(len(labels), -1).shape[1]
    if found != width:
        raise ValueError(f"{width} outputs a row, {found} labels a row")


def roc_auc(outputs: Array, labels: Array) -> float:
    """The area under the ROC curve, 0..1: the chance that a row of class 1 scores higher than one of class 0.

    Mann and Whitney's U over the number of pairs, ties counting half (J. A. Hanley and B. J. McNeil, Radiology 143:29,
    1982). ``outputs`` is one score a row, or two (the second class's less the first's); ``labels`` are 0 and 1, or
    one-hot rows [N, 2]. Raises ValueError where shapes or labels do not fit, or only one class is there.
    """
    import numpy as np

    scores, truth = _rows(outputs, labels)
    if scores.shape[1] > 2 or truth.shape[1] > 2:
        raise ValueError(f"roc-auc takes one score a row or two, and two classes; there are {scores.shape[1]} scores")
    values = scores[:, 0] if scores.shape[1] == 1 else scores[:, 1].astype(np.float64) - scores[:, 0]
    positive = two_classes(truth)
    if np.isnan(values).any():
        raise ValueError("an output is NaN")
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ones = np.bincount(places.reshape(-1), weights=positive.astype(np.float64))
    zeros = counts - ones
    below = np.cumsum(zeros) - zeros
    return float((ones * (below + zeros / 2)).sum() / (ones.sum() * zeros.sum()))


def two_classes(labels: Array) -> Array:
    """Which rows are of class 1, as 0 and 1 [N], of such labels [N] or one-hot rows [N, 2]; both classes are there.

    Raises ValueError, in words for whoever made the labels, where they are not.
    """
    import numpy as np

    positive: Array = labels.reshape(len(labels), -1)[:, -1]
    if not np.isin(positive, (0, 1)).all():
        raise ValueError("roc-auc takes the labels 0 and 1")
    if not 0 < positive.sum() < len(positive):
        raise ValueError("all labels are of one class")
    return positive


def _rows(outputs: Array, labels: Array) -> tuple[Array, Array]:
    if len(outputs) != len(labels):
        raise ValueError(f"{len(outputs)} outputs, {len(labels)} labels")
    if not len(outputs):
        raise ValueError("no rows")
    return outputs.reshape(len(outputs), -1), labels.reshape(len(labels), -1)
