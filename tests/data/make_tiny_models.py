"""Makes the tiny .tflite files beside this script: `python tests/data/make_tiny_models.py` (needs TensorFlow).

- ``tiny_int8.tflite``: a convolutional classifier, input ``image`` (1, 8, 8, 1), output ``output_0`` (1, 4), all
  int8.
- ``tiny_dense.tflite``: one dense layer, input ``x`` (1, 8), output ``output_0`` (1, 4); float32, which XNNPACK takes.
- ``tiny_float.tflite``: inputs ``left`` and ``right`` (batch, 3), outputs ``total`` = 2·left + right and ``product`` =
  left · right; float32, any batch size.
- ``digits.float.tflite``: a softmax regression over scikit-learn's digits, input ``image`` (1, 8, 8, 1), output
  ``output_0`` (1, 10), fitted to the rows that the demo trains on; float32.
- ``tiny_open.tflite``: two convolutions, input ``image`` (1, height, width, 1), output ``output_0`` (1, height - 2,
  width - 2, 2), all int8; any height and width from 3 on.
- ``tiny_vast.tflite``: one ReLU, input ``x`` (1, 1048576, 1048576), float32: 4 TiB in, 4 TiB out.
- ``tiny_spiky.float.tflite`` and its quantized ``.int8`` (int8 border), ``.int8-float`` (float border), ``.int16x8``
  and ``.float16``: dense layers ``calm``, ``spiky``, ``victim``; input ``x`` (1, 6), output ``output_0`` (1, 4). One
  output of spiky is 10,000 times larger than the others and takes its int8 range; victim reads the others only.

The same TensorFlow writes the same bytes again; another version may not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from edgepack.demo_training import SEED, TRAINING_ROWS

HERE = Path(__file__).parent


def to_int8(model: tf.keras.Model) -> bytes:
    """A model of 8x8 pictures as integers from end to end, calibrated with noise from a fixed seed."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    samples = np.random.default_rng(7).uniform(0, 1, (32, 1, 8, 8, 1)).astype(np.float32)
    converter.representative_dataset = lambda: ([sample] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def make_int8() -> bytes:
    """The classifier, with random weights from a fixed seed."""
    tf.keras.utils.set_random_seed(7)
    image = tf.keras.Input(batch_shape=(1, 8, 8, 1), name="image")
    hidden = tf.keras.layers.Conv2D(4, 3, activation="relu")(image)
    hidden = tf.keras.layers.Flatten()(hidden)
    scores = tf.keras.layers.Dense(4, activation="softmax", name="scores")(hidden)
    return to_int8(tf.keras.Model(image, scores))


def make_digits() -> bytes:
    """The softmax regression of the digits, about 0.95 right on the rows that it has not seen."""
    digits = load_digits()
    rows = np.random.default_rng(SEED).permutation(len(digits.target))[:TRAINING_ROWS]
    fitted = LogisticRegression(C=10, max_iter=2000).fit(digits.data[rows] / 16, digits.target[rows])
    image = tf.keras.Input(batch_shape=(1, 8, 8, 1), name="image")
    scores = tf.keras.layers.Dense(10, activation="softmax")
    model = tf.keras.Model(image, scores(tf.keras.layers.Flatten()(image)))
    scores.set_weights([fitted.coef_.T, fitted.intercept_])
    return bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def make_open() -> bytes:
    """The model of any height and width, with random weights from a fixed seed."""
    tf.keras.utils.set_random_seed(7)
    image = tf.keras.Input(batch_shape=(1, None, None, 1), name="image")
    hidden = tf.keras.layers.Conv2D(4, 3, activation="relu")(image)
    return to_int8(tf.keras.Model(image, tf.keras.layers.Conv2D(2, 1)(hidden)))


def make_vast() -> bytes:
    """The model that no device has the memory for."""
    x = tf.keras.Input(batch_shape=(1, 1 << 20, 1 << 20), name="x")
    model = tf.keras.Model(x, tf.keras.layers.ReLU()(x))
    return bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def make_dense() -> bytes:
    """The dense layer, with random weights from a fixed seed."""
    tf.keras.utils.set_random_seed(7)
    x = tf.keras.Input(batch_shape=(1, 8), name="x")
    model = tf.keras.Model(x, tf.keras.layers.Dense(4)(x))
    return bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


class TwoByTwo(tf.Module):
    """Two inputs, two outputs, any batch size."""

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, 3), tf.float32, name="left"),
            tf.TensorSpec((None, 3), tf.float32, name="right"),
        ]
    )
    def __call__(self, left: tf.Tensor, right: tf.Tensor) -> dict[str, tf.Tensor]:
        """The outputs by name."""
        return {"total": 2.0 * left + right, "product": left * right}


def make_float() -> bytes:
    """The model with several inputs and outputs."""
    module = TwoByTwo()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.__call__.get_concrete_function()], module)
    return bytes(converter.convert())


def make_spiky() -> dict[str, bytes]:
    """The model with a layer that int8 destroys, by what it is called."""
    tf.keras.utils.set_random_seed(7)
    x = tf.keras.Input(batch_shape=(1, 6), name="x")
    layers = [tf.keras.layers.Dense(n, activation="relu", name=name) for n, name in ((8, "calm"), (8, "spiky"))]
    victim = tf.keras.layers.Dense(4, name="victim")
    model = tf.keras.Model(x, victim(layers[1](layers[0](x))))
    draw = np.random.default_rng(7)
    kernel = draw.uniform(0.1, 1, (8, 8))
    kernel[:, 0] *= 1e4
    layers[0].set_weights([draw.uniform(-1, 1, (6, 8)), draw.uniform(0, 1, 8)])
    layers[1].set_weights([kernel, np.zeros(8)])
    last = draw.uniform(-1, 1, (8, 4))
    last[0] = 0
    victim.set_weights([last, np.zeros(4)])
    return {kind: _convert_spiky(model, kind) for kind in ("float", "int8", "int8-float", "int16x8", "float16")}


def _convert_spiky(model: tf.keras.Model, kind: str) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if kind == "float":
        return bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
        return bytes(converter.convert())
    samples = np.random.default_rng(8).uniform(0, 1, (32, 1, 6)).astype(np.float32)
    converter.representative_dataset = lambda: ([sample] for sample in samples)
    int16 = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    converter.target_spec.supported_ops = [int16 if kind == "int16x8" else tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if kind == "int8":
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


if __name__ == "__main__":
    (HERE / "tiny_int8.tflite").write_bytes(make_int8())
    (HERE / "digits.float.tflite").write_bytes(make_digits())
    (HERE / "tiny_open.tflite").write_bytes(make_open())
    (HERE / "tiny_vast.tflite").write_bytes(make_vast())
    (HERE / "tiny_dense.tflite").write_bytes(make_dense())
    (HERE / "tiny_float.tflite").write_bytes(make_float())
    for kind, content in make_spiky().items():
        (HERE / f"tiny_spiky.{kind}.tflite").write_bytes(content)
