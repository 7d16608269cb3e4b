"""Writes small trained models of every kind that edgepack reads, and samples for them, into the folder argv[1].

Runs in a process of its own, so that the tests' process keeps free of TensorFlow.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

CLASSES = 4


def make_samples(folder: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Noisy images of four patterns: 20 rows to calibrate, 100 to evaluate."""
    draw = np.random.default_rng(1)
    patterns = draw.random((CLASSES, 8, 8, 1))
    labels = np.arange(120) % CLASSES
    images = (patterns[labels] + 0.3 * draw.standard_normal((120, 8, 8, 1))).astype(np.float32)
    np.savez(folder / "images.npz", x=images, y=labels)
    np.savez_compressed(folder / "named.npz", image=images.astype(np.float64), y=labels, names=np.array(["a", "b"]))
    left, right = draw.random((60, 6)).astype(np.float32), draw.random((60, 3)).astype(np.float32)
    np.savez(folder / "pairs.npz", left=left, right=right, y=(left.sum(1) > 2 * right.sum(1)).astype(int))
    np.savez(folder / "sequences.npz", v=draw.standard_normal((60, 2, 8)).astype(np.float32))
    np.savez(folder / "vectors.npz", v=draw.standard_normal((40, 16)).astype(np.float32), y=np.arange(40) % 16)
    return images, labels


def make_classifier(library: Any, images: Any, labels: Any) -> Any:
    """A small convolutional net that has learned the four patterns."""
    library.utils.set_random_seed(0)
    layers = library.layers
    model = library.Sequential(
        [
            layers.Input((8, 8, 1), name="image"),
            layers.Conv2D(8, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(CLASSES, activation="softmax", name="scores"),
        ]
    )
    model.compile(library.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(images, labels, epochs=8, verbose=0)
    return model


def make_depthwise(images: Any, labels: Any) -> Any:
    """A depthwise net that has learned the four patterns, one of its dense layer's units all but without weights."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    shape = [layers.Input((8, 8, 1), name="image"), layers.Conv2D(8, 3, activation="relu", name="first")]
    body = [layers.DepthwiseConv2D(3, activation="relu", name="depthwise"), layers.Flatten()]
    head = [
        layers.Dense(64, activation="relu", name="hidden"),
        layers.Dense(CLASSES, activation="softmax", name="scores"),
    ]
    model = keras.Sequential([*shape, *body, *head])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(images, labels, epochs=8, verbose=0)
    kernel, bias = model.get_layer("hidden").get_weights()
    kernel[:, 0], bias[0] = 1e-12, 0.5
    model.get_layer("hidden").set_weights([kernel, bias])
    return model


def make_two_sided() -> Any:
    """Two inputs, two outputs."""
    left, right = keras.Input((6,), name="left"), keras.Input((3,), name="right")
    hidden = keras.layers.Dense(64, activation="relu")(keras.layers.Concatenate()([left, right]))
    larger = keras.layers.Dense(2, activation="softmax", name="larger")(hidden)
    return keras.Model([left, right], [larger, keras.layers.Dense(3, name="features")(hidden)])


class Module(tf.Module):  # type: ignore[misc]
    """A model that no Keras has seen: a projection, a sine (no int8 kernel), a determinant (no kernel at all).

    With a "table" its classes are looked up in one of numbers, with "words" in one of words.
    """

    def __init__(self, kind: str, batch: int | None) -> None:
        super().__init__()
        self.kind = kind
        self.weights = tf.Variable(np.random.default_rng(2).standard_normal((16, 16)), dtype=tf.float32)
        self.answer = tf.function(self._answer, input_signature=[tf.TensorSpec((batch, 16), tf.float32, name="v")])
        if kind in ("table", "words"):
            values = tf.range(16, dtype=tf.int64) if kind == "table" else tf.constant(list("abcdefghijklmnop"))
            pairs = tf.lookup.KeyValueTensorInitializer(tf.range(16, dtype=tf.int64), values)
            self.table = tf.lookup.StaticHashTable(pairs, -1 if kind == "table" else "?")

    def _answer(self, v: Any) -> dict[str, Any]:
        if self.kind in ("table", "words"):
            found = self.table.lookup(tf.argmax(v @ self.weights, axis=1))
            return {"out": found if self.kind == "words" else tf.cast(found, tf.float32)[:, None]}
        if self.kind == "sine":
            return {"out": tf.sin(v)}
        if self.kind == "determinant":
            return {"out": tf.linalg.det(tf.reshape(v, (-1, 4, 4)))[:, None]}
        return {"out": tf.nn.softmax(v @ self.weights)}

    def save(self, folder: Path) -> None:
        """Write it as a SavedModel."""
        tf.saved_model.save(self, str(folder), signatures={"serving_default": self.answer})


class Signatures(tf.Module):  # type: ignore[misc]
    """Two signatures, neither with the usual name: one with a loop, one with a condition over the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable(0.3 * np.random.default_rng(3).standard_normal((16, 16)), dtype=tf.float32)
        v = tf.TensorSpec((None, 16), tf.float32, name="v")
        self.loop = tf.function(self._loop, input_signature=[v])
        self.branch = tf.function(self._branch, input_signature=[v])

    def _loop(self, v: Any) -> dict[str, Any]:
        step = lambda count, state: (count + 1, tf.tanh(state @ self.weights))  # noqa: E731
        return {"out": tf.while_loop(lambda count, _: count < 5, step, [tf.constant(0), v])[1]}

    def _branch(self, v: Any) -> dict[str, Any]:
        return {"out": tf.cond(tf.reduce_sum(v) > 0, lambda: v @ self.weights, lambda: -v)}

    def save(self, folder: Path) -> None:
        """Write it as a SavedModel."""
        tf.saved_model.save(self, str(folder), signatures={"loop": self.loop, "branch": self.branch})


class OpenSizes(tf.Module):  # type: ignore[misc]
    """What a float .tflite may do with an input of which the batch and a length are open."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable(0.3 * np.random.default_rng(3).standard_normal((16, 16)), dtype=tf.float32)

    def loop(self, v: Any) -> dict[str, Any]:
        """Goes round as often as it says, not as long as the input is."""
        step = lambda count, state: (count + 1, tf.tanh(state @ self.weights))  # noqa: E731
        return {"out": tf.reduce_mean(tf.while_loop(lambda count, _: count < 5, step, [tf.constant(0), v])[1], 1)}

    def branch(self, v: Any) -> dict[str, Any]:
        """One way or the other, as all values decide."""
        return {"out": tf.cond(tf.reduce_sum(v) > 0, lambda: v @ self.weights, lambda: -v)}

    def mask(self, v: Any) -> dict[str, Any]:
        """What lies between is as long as the values say, and asked for its length."""
        kept = tf.boolean_mask(v, v[:, :, 0] > 0) @ self.weights
        return {"out": tf.reduce_sum(tf.reshape(kept, [4 * tf.shape(kept)[0], 4]), 0, keepdims=True)}

    def write(self, folder: Path) -> None:
        """Write each as a float .tflite."""
        spec = tf.TensorSpec((None, None, 16), tf.float32, name="v")
        for name in ("loop", "branch", "mask"):
            function = tf.function(getattr(self, name), input_signature=[spec]).get_concrete_function()
            converter = tf.lite.TFLiteConverter.from_concrete_functions([function], self)
            (folder / f"open_{name}.tflite").write_bytes(converter.convert())


def make_open_sequences(folder: Path) -> None:
    """A float .tflite of two inputs and two outputs; one input's length is open, and sizes are computed from it."""
    layers, draw = keras.layers, np.random.default_rng(7)
    steps, extra = keras.Input((None, 8), name="steps"), keras.Input((4,), name="extra")
    wide = layers.Reshape((-1, 4, 2))(layers.Conv1D(8, 5, activation="relu")(steps))
    narrow = layers.Reshape((-1, 32))(layers.Conv2D(8, 3, padding="same", activation="relu")(wide))
    both = layers.Concatenate()([layers.GlobalMaxPooling1D()(narrow), layers.Dense(8)(extra)])
    outputs = [layers.Dense(CLASSES, name="scores")(both), layers.Dense(5, name="each_step")(narrow)]
    model = keras.Model([steps, extra], outputs)
    (folder / "open_steps.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    arrays = {"steps": draw.standard_normal((60, 12, 8)), "extra": draw.standard_normal((60, 4))}
    np.savez(folder / "steps.npz", **{name: array.astype(np.float32) for name, array in arrays.items()})


def make_narrow(folder: Path) -> None:
    """Models trained under mixed_float16: of Keras 3, exported too, with a model in it; and an .h5 of Keras 2."""
    for library in (keras, tf_keras):
        layers = library.layers
        library.mixed_precision.set_global_policy("mixed_float16")
        inner = library.Sequential([layers.Input((6, 6, 4)), layers.Conv2D(4, 3), layers.BatchNormalization()])
        image = library.Input((8, 8, 1), name="image")
        hidden = layers.Flatten()(inner(layers.Conv2D(4, 3, activation="relu")(image)))
        scores = layers.Dense(CLASSES, activation="softmax", dtype="float32", name="scores")(hidden)
        model = library.Model(image, scores)
        library.mixed_precision.set_global_policy("float32")
        model.save(folder / ("narrow.keras" if library is keras else "narrow2.h5"))
        if library is keras:
            model.export(folder / "narrow", verbose=False)
            np.savez(folder / "narrow.npz", scores=np.asarray(model(np.load(folder / "images.npz")["x"][20:120])))


_ANCHORS = 12
# As the TensorFlow Object Detection API exports it (research/object_detection/export_tflite_graph_lib_tf2.py): a
# function that TFLiteConverter replaces by the runtimes' own operator, with a placeholder for a body.
_POST_PROCESSING = 'name: "TFLite_Detection_PostProcess"' + "".join(
    f' attr {{ key: "{key}" value {{ {value} }} }}'
    for key, value in {
        "max_detections": "i: 4",
        "max_classes_per_detection": "i: 1",
        "use_regular_nms": "b: false",
        "nms_score_threshold": "f: 0.0",
        "nms_iou_threshold": "f: 0.6",
        "y_scale": "f: 10.0",
        "x_scale": "f: 10.0",
        "h_scale": "f: 5.0",
        "w_scale": "f: 5.0",
        "num_classes": "i: 2",
    }.items()
)


class Detector(tf.Module):  # type: ignore[misc]
    """Boxes and classes of 8x8 images, with the post-processing that only a TFLite runtime has."""

    def __init__(self) -> None:
        super().__init__()
        draw = np.random.default_rng(4)
        self.kernel = tf.Variable(0.2 * draw.standard_normal((3, 3, 3, 18)), dtype=tf.float32)
        corners = draw.random((_ANCHORS, 2))
        self.anchors = tf.constant(np.concatenate([corners, np.full((_ANCHORS, 2), 0.3)], 1), tf.float32)
        self.answer = tf.function(self._answer, input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32, name="image")])

    def _answer(self, image: Any) -> dict[str, Any]:
        features = tf.reshape(tf.nn.conv2d(image, self.kernel, 4, "SAME"), (1, _ANCHORS, 6))
        scores = tf.nn.sigmoid(tf.pad(features[:, :, 4:], [[0, 0], [0, 0], [1, 0]]))

        @tf.function(experimental_implements=_POST_PROCESSING)
        def post_process(_boxes: Any, _scores: Any, _anchors: Any) -> Any:
            return tf.zeros((1, 4, 4)), tf.zeros((1, 4)), tf.zeros((1, 4)), tf.zeros((1,))

        found = post_process(features[:, :, :4], scores, self.anchors)
        return dict(zip(("boxes", "classes", "scores", "count"), found, strict=True))

    def save(self, folder: Path) -> None:
        """Write it as a SavedModel."""
        tf.saved_model.save(self, str(folder), signatures={"serving_default": self.answer})


def make_other_sources(folder: Path) -> None:
    """Signatures, control flow, recurrent layers, open sizes, a detector."""
    layers, draw = keras.layers, np.random.default_rng(5)
    Signatures().save(folder / "signatures")
    Detector().save(folder / "detector")
    OpenSizes().write(folder)
    make_open_sequences(folder)
    np.savez(folder / "scenes.npz", x=draw.random((30, 8, 8, 3)).astype(np.float32))
    for unroll, name in ((False, "gru"), (True, "gru_unrolled")):
        head = [layers.GRU(8, unroll=unroll), layers.Dense(3, activation="softmax", name="scores")]
        keras.Sequential([layers.Input((10, 6), name="sequence"), *head]).save(folder / f"{name}.keras")
    np.savez(folder / "gru.npz", x=draw.standard_normal((30, 10, 6)).astype(np.float32))
    open_body = [layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(3, name="scores")]
    keras.Sequential([layers.Input((None, None, 3), name="photo"), *open_body]).save(folder / "open.keras")
    np.savez(folder / "photos.npz", x=draw.random((30, 12, 14, 3)).astype(np.float32))


def main() -> None:
    """Make everything."""
    folder = Path(sys.argv[1])
    images, labels = make_samples(folder)
    classifier = make_classifier(keras, images, labels)
    classifier.save(folder / "keras3.keras")
    classifier.save(folder / "keras3.h5")
    classifier.export(folder / "keras3_exported", verbose=False)
    classifier.save_weights(folder / "only.weights.h5")
    older = make_classifier(tf_keras, images, labels)
    older.save(folder / "keras2.keras")
    older.save(folder / "keras2.h5")
    older.save(folder / "keras2_saved_model")
    make_depthwise(images, labels).save(folder / "depthwise.keras")
    make_two_sided().save(folder / "two_sided.keras")
    tokens = [keras.layers.Embedding(50, 32), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(3)]
    keras.Sequential([keras.Input((5,), dtype="int32", name="tokens"), *tokens]).save(folder / "tokens.keras")
    recurrent = [keras.layers.LSTM(16), keras.layers.Dense(CLASSES, activation="softmax")]
    keras.Sequential([keras.Input((2, 8), name="v"), *recurrent]).save(folder / "recurrent.keras")
    wide = [keras.layers.Dense(64, activation="relu", name="hidden"), keras.layers.Dense(32)]
    keras.Sequential([keras.Input((64,), name="v"), *wide]).save(folder / "wide.keras")
    doubling = keras.layers.Lambda(lambda x: x * 2)
    keras.Sequential([keras.Input((4,)), doubling]).save(folder / "lambda.keras")
    make_narrow(folder)
    Module("projection", None).save(folder / "module")
    Module("projection", 8).save(folder / "module_of_8")
    Module("sine", None).save(folder / "sine")
    for kind in ("determinant", "table", "words"):
        Module(kind, None).save(folder / kind)
    make_other_sources(folder)


if __name__ == "__main__":
    main()
