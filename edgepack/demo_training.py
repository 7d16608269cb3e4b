"""Trains the demo's model: ``python -m edgepack.demo_training FOLDER``.

A process of its own, as a user's training is: edgepack sees only the two files that it leaves, ``digits.keras`` and
``digits.npz`` (``x`` [1797,8,8,1] float32 in 0..1, ``y`` [1797] int64), shuffled with a fixed seed. The data are the
handwritten digits of the UCI repository that scikit-learn ships (Alpaydin and Kaynak, 1998).
"""

from __future__ import annotations

import sys
from pathlib import Path

SEED = 7
TRAINING_ROWS = 1200
EPOCHS = 12


def train(folder: Path) -> float:
    """Train on the first 1,200 rows, write both files, return the accuracy on the rest."""
    import keras
    import numpy as np
    from sklearn.datasets import load_digits

    keras.utils.set_random_seed(SEED)
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    images = (digits.images[order, :, :, None] / 16.0).astype(np.float32)
    labels = digits.target[order].astype(np.int64)

    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images[:TRAINING_ROWS], labels[:TRAINING_ROWS], epochs=EPOCHS, batch_size=64, verbose=0)
    _, accuracy = model.evaluate(images[TRAINING_ROWS:], labels[TRAINING_ROWS:], verbose=0)

    model.save(folder / "digits.keras")
    np.savez(folder / "digits.npz", x=images, y=labels)
    return float(accuracy)


if __name__ == "__main__":
    sys.stdout.write(f"{train(Path(sys.argv[1])):.4f}\n")
