"""Samples out of Python: scikit-learn's handwritten digits, in the order in which the demo's training shuffled them.

edgepack calls such a function again for each pass, and takes its rows as they come: an array, or (array, label). Here
the rows that judge are rows that training has not seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.datasets import load_digits

from edgepack.demo_training import SEED, TRAINING_ROWS

CALIBRATION_ROWS = 200


def calibration() -> Iterator[np.ndarray]:
    """200 typical images [8, 8, 1] in 0..1; they set the int8 ranges."""
    images, _ = _digits()
    yield from images[:CALIBRATION_ROWS]


def evaluation() -> Iterator[tuple[np.ndarray, int]]:
    """597 images with the digit that each is."""
    images, labels = _digits()
    yield from zip(images[TRAINING_ROWS:], labels[TRAINING_ROWS:], strict=True)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    return (digits.images[order, :, :, None] / 16.0).astype(np.float32), digits.target[order]
