"""Writes models that quantizing to int8 spoils, each in its own way, and samples for them, into the folder argv[1].

Each is trained, then rewritten so that it computes the same in float. Runs in a process of its own, as
make_small_models.py does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

CLASSES = 8
TRAINED, ROWS = 1200, 2000  # the rest is 200 rows to calibrate and 600 to evaluate


def make_samples(folder: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Noisy images of a few patterns; rows 0 to 199 are for calibration, 200 to 799 for evaluation."""
    draw = np.random.default_rng(5)
    patterns = draw.random((CLASSES, 8, 8, 1))
    labels = draw.integers(0, CLASSES, ROWS)
    images = (patterns[labels] + 0.45 * draw.standard_normal((ROWS, 8, 8, 1))).astype(np.float32)
    np.savez(folder / "samples.npz", x=images[TRAINED:], y=labels[TRAINED:])
    return images[:TRAINED], labels[:TRAINED]


def trained(body: list[Any], images: Any, labels: Any) -> Any:
    """A classifier of the patterns."""
    keras.utils.set_random_seed(0)
    head = [keras.layers.Dense(CLASSES, activation="softmax", name="scores")]
    model = keras.Sequential([keras.layers.Input((8, 8, 1), name="image"), *body, *head])
    model.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy")
    model.fit(images, labels, epochs=12, verbose=0)
    return model


def change(model: Any, layer: str, by: Callable[[Any, Any], None]) -> None:
    """Let ``by`` change a layer's kernel and bias in place."""
    kernel, bias = model.get_layer(layer).get_weights()
    by(kernel, bias)
    model.get_layer(layer).set_weights([kernel, bias])


def dense_body() -> list[Any]:
    """Three hidden layers behind a convolution, the first of them the largest."""
    layers = keras.layers
    return [
        layers.Conv2D(8, 3, activation="relu", name="first"),
        layers.Flatten(),
        layers.Dense(48, activation="relu", name="hidden"),
        layers.Dense(24, activation="relu", name="second"),
        layers.Dense(16, activation="relu", name="third"),
    ]


def with_outliers(images: Any, labels: Any) -> Any:
    """One unit of a hidden layer is a thousand times as large as the others, and does not count."""
    model = trained(dense_body(), images, labels)

    def enlarge(kernel: Any, bias: Any) -> None:
        kernel[:, 0], bias[0] = 1000 * np.abs(kernel[:, 0]), 1000

    def ignore(kernel: Any, bias: Any) -> None:
        kernel[0, :] = 0

    change(model, "second", enlarge)
    change(model, "third", ignore)
    return model


def with_a_spoiled_layer(images: Any, labels: Any) -> Any:
    """Each channel of a dense layer has one weight a thousand times its others, for a unit that is always zero."""
    model = trained(dense_body(), images, labels)

    def silence(kernel: Any, bias: Any) -> None:
        kernel[:, 0], bias[0] = 0, -1

    def enlarge(kernel: Any, bias: Any) -> None:
        kernel[0, :] = 1000 * np.abs(kernel).max()

    change(model, "hidden", silence)
    change(model, "second", enlarge)
    return model


def with_uneven_channels(images: Any, labels: Any) -> Any:
    """Depthwise layers with two channels 100 times as large as the others, which the layers after them take back."""
    layers = keras.layers
    blocks = [
        [
            layers.DepthwiseConv2D(3, padding="same", activation="relu", name=f"depthwise{number}"),
            layers.Conv2D(16, 1, activation="relu", name=f"pointwise{number}"),
        ]
        for number in range(2)
    ]
    first = layers.Conv2D(16, 3, activation="relu", name="first")
    model = trained([first, *blocks[0], *blocks[1], layers.Flatten()], images, labels)
    factors = np.where(np.arange(16) % 8 == 3, 100, 1).astype(np.float32)[:, None]

    def scale(kernel: Any, bias: Any) -> None:
        kernel *= factors
        bias *= factors[:, 0]

    def unscale(kernel: Any, bias: Any) -> None:
        kernel /= factors

    for number in range(2):
        change(model, f"depthwise{number}", scale)
        change(model, f"pointwise{number}", unscale)
    return model


def main() -> None:
    """Make everything."""
    folder = Path(sys.argv[1])
    images, labels = make_samples(folder)
    with_outliers(images, labels).save(folder / "outliers.keras")
    with_a_spoiled_layer(images, labels).save(folder / "spoiled.keras")
    with_uneven_channels(images, labels).save(folder / "uneven.keras")


if __name__ == "__main__":
    main()
