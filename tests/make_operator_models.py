"""Writes .tflite files of many operators into the folder argv[1]: one per layer and scheme, by TensorFlow's converter.

Also what litert-quantizer makes of some of them (``quantizer-*.tflite``). Runs in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from litert_quantizer import quantizer, recipe

DRAW = np.random.default_rng(0)
SIDE, CHANNELS = 8, 8


def weights(*shape: int) -> Any:
    """Weights whose channels differ a hundredfold, so that one scale for all of them is visibly wrong."""
    return tf.constant((DRAW.normal(size=shape) * np.logspace(-2, 0, shape[-1])).astype(np.float32))


IMAGE, ROW, SEQUENCE = (1, SIDE, SIDE, CHANNELS), (1, 64), (1, 6, 8)
KERNEL, DENSE, MATRIX = weights(3, 3, CHANNELS, 16), weights(64, 48), weights(1, 8, 24)
DEEP, BACK = tf.transpose(weights(3, 3, 1, CHANNELS), (0, 1, 3, 2)), weights(3, 3, 4, CHANNELS)

BORDER = ((0, 0), (1, 1), (1, 1), (0, 0))

LAYERS: dict[str, tuple[tuple[int, ...], Callable[[Any], Any]]] = {
    "convolution": (IMAGE, lambda x: tf.nn.relu(tf.nn.conv2d(x, KERNEL, 1, "SAME"))),
    "dilated": (IMAGE, lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME", dilations=2)),
    "depthwise": (IMAGE, lambda x: tf.nn.depthwise_conv2d(x, DEEP, (1, 1, 1, 1), "SAME")),
    "transposed": (IMAGE, lambda x: tf.nn.conv2d_transpose(x, BACK, (1, 16, 16, 4), 2)),
    "dense": (ROW, lambda x: tf.matmul(x, DENSE)),
    "products": (SEQUENCE, lambda x: tf.matmul(x, MATRIX)),
    "pools": (IMAGE, lambda x: tf.nn.avg_pool2d(tf.nn.max_pool2d(x, 2, 2, "SAME"), 2, 2, "VALID")),
    "sums": (IMAGE, lambda x: x + 1.5 * x * x - tf.maximum(x, 0.5 * x)),
    "quotients": (IMAGE, lambda x: x / (2.0 + tf.abs(x))),
    "negatives": (IMAGE, lambda x: tf.nn.relu(x) - 0.2 * tf.nn.relu(-x)),
    "shapes": (IMAGE, lambda x: tf.transpose(tf.concat([x, x[:, ::-1]], 1), (0, 2, 1, 3))),
    "tiles": (IMAGE, lambda x: tf.tile(x, (1, 1, 1, 2))),
    "slices": (IMAGE, lambda x: tf.stack(tf.split(x, 2, axis=3), axis=1)[:, :, 1:7:2, 2:5]),
    "padded": (IMAGE, lambda x: tf.pad(tf.pad(x, BORDER), BORDER, "REFLECT")),
    "means": (IMAGE, lambda x: tf.reduce_mean(x, (1, 2)) + tf.reduce_max(x, (1, 2))),
    "totals": (IMAGE, lambda x: tf.reduce_sum(x, (1, 2))),
    "curves": (IMAGE, lambda x: tf.tanh(tf.sigmoid(x)) + tf.nn.leaky_relu(x) + tf.nn.elu(x) + tf.nn.relu6(x)),
    "smooth": (IMAGE, lambda x: tf.nn.gelu(x) + tf.exp(x) + tf.sqrt(tf.abs(x) + 1.0) + tf.math.rsqrt(x * x + 1.0)),
    "resized": (IMAGE, lambda x: tf.image.resize(tf.image.resize(x, (16, 16)), (24, 24), "nearest")),
    "best": (ROW, lambda x: (tf.nn.softmax(x), tf.argmax(x, 1), tf.math.top_k(x, 3).values)),
    "choices": (IMAGE, lambda x: tf.where(x > 0.5, x, tf.where(tf.equal(x, 0.0), x + 1.0, tf.minimum(x, 0.25)))),
    "gathered": (ROW, lambda x: tf.gather(x, [1, 3, 5], axis=1)),
    "blocks": (IMAGE, lambda x: tf.nn.space_to_depth(tf.nn.depth_to_space(x, 2), 2)),
    "normal": (IMAGE, lambda x: tf.math.l2_normalize(x, -1)),
    "cast": (IMAGE, lambda x: tf.cast(tf.cast(x, tf.int32), tf.float32) * tf.cast(x > 0, tf.float32)),
    "six": ((1, 2, 3, 2, 3, 2), lambda x: tf.transpose(x, (0, 5, 4, 3, 2, 1))),
}


def converters(name: str) -> Iterator[tuple[str, Any]]:
    """A fresh converter per scheme."""
    shape, layer = LAYERS[name]
    module = tf.Module()
    module.call = tf.function(layer, input_signature=[tf.TensorSpec(shape, tf.float32)])  # type: ignore[attr-defined]
    function = module.call.get_concrete_function()  # type: ignore[attr-defined]
    for scheme in ("float32", "dynamic", "int8", "int16x8", *(["float16"] if name == "convolution" else [])):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
        yield scheme, quantize(converter, scheme, shape)


def quantize(converter: Any, scheme: str, shape: tuple[int, ...]) -> Any:
    """Set the converter up for a scheme."""
    if scheme == "float32":
        return converter
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif scheme != "dynamic":
        samples = DRAW.normal(size=(4, *shape)).astype(np.float32)
        converter.representative_dataset = lambda: ([sample] for sample in samples)
        ops = tf.lite.OpsSet
        wide = ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = (
            [ops.TFLITE_BUILTINS_INT8] if scheme == "int8" else [wide, ops.TFLITE_BUILTINS]
        )
        if scheme == "int8":
            converter.inference_input_type = converter.inference_output_type = tf.int8
            converter.target_spec.supported_ops.append(ops.TFLITE_BUILTINS)
    return converter


def recurrent() -> bytes:
    """An LSTM whose weights are int8."""
    model = keras.Sequential([keras.Input(batch_shape=(1, 6, 32)), keras.layers.LSTM(32)])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return bytes(converter.convert())


def main(folder: Path) -> None:
    """Write everything; a layer that a scheme cannot be made of is left out."""
    for name in LAYERS:
        for scheme, converter in converters(name):
            try:
                (folder / f"{name}-{scheme}.tflite").write_bytes(converter.convert())
            except Exception as refusal:  # noqa: BLE001 (the converter's errors are of many kinds)
                sys.stderr.write(f"{name}-{scheme}: {str(refusal)[:200]}\n")
    (folder / "recurrent-dynamic.tflite").write_bytes(recurrent())
    for name in ("convolution", "depthwise", "dense", "products", "transposed"):
        for recipe_name in ("dynamic_wi8_afp32", "dynamic_wi4_afp32", "dynamic_wi4b32_afp32", "weight_only_wi8_afp32"):
            engine = quantizer.Quantizer(str(folder / f"{name}-float32.tflite"))
            engine.load_quantization_recipe(getattr(recipe, recipe_name)())
            engine.quantize().export_model(str(folder / f"quantizer-{name}-{recipe_name}.tflite"), overwrite=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
