"""What goes over the wire when a model changes, against rsync: real int8 models, a real OpenSSH sshd.

    python benchmarks/delta.py [--models FOLDER] [--memory-mib 400] [--folder DIR]

TensorFlow makes the models in the run: a MobileNetV2 with trained biases, converted to int8 with two calibration sets,
with another head on the same features, and with a head of another class count. Each is pushed to a device that holds
the first one. Counted is every byte that the session writes and reads after ``hello``: the questions, the recipe, the
chunks, the manifest and the commit; SSH's own framing is not. rsync is given the bare files. ``--memory-mib`` measures
the memory at both ends, of a model of that size of which a hundredth changed (0: not at all). Prints a table on stderr
and JSON on stdout.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from bundle_tiny import content_of, rewritten  # noqa: E402 (needs the path above)
from deploying import TINY, tiny_target  # noqa: E402
from real_sshd import RealSshd  # noqa: E402

from edgepack.bundle import open_bundle  # noqa: E402
from edgepack.bundle.build import build_bundle  # noqa: E402
from edgepack.bundle.recipe import PIECE_BYTES  # noqa: E402
from edgepack.deploy.push import push  # noqa: E402
from edgepack.device import connect  # noqa: E402

EDGE, FEATURES, CLASSES, OTHER_CLASSES = 96, 1280, 1000, 700
# Name, class count, seed of the head, seed and spread of the calibration set.
MODELS = (
    ("first", CLASSES, 3, 4, 1.0),
    ("recalibrated", CLASSES, 3, 5, 1.2),
    ("new head", CLASSES, 6, 4, 1.0),
    ("other classes", OTHER_CLASSES, 7, 4, 1.0),
)


def make_models(folder: Path) -> None:
    """The models, each from a network that is built anew, as a training script does."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    for name, classes, head, seed, spread in MODELS:
        (folder / f"{name}.tflite").write_bytes(_converted(_network(classes, head), seed, spread))


def _network(classes: int, head_seed: int) -> Any:
    """A MobileNetV2 (Keras) whose batch statistics are no longer those it began with: its biases are not zero."""
    import keras
    import numpy as np

    keras.backend.clear_session()  # the names of layers are those of the first network again
    keras.utils.set_random_seed(1)
    image = keras.Input(batch_shape=(1, EDGE, EDGE, 3))
    body = keras.applications.MobileNetV2(input_tensor=image, weights=None, include_top=False, pooling="avg")
    rng = np.random.default_rng(2)
    for layer in body.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            count = layer.gamma.shape[0]
            spreads = ((0.5, 1.5), (-0.5, 0.5), (-0.5, 0.5), (0.5, 1.5))  # gamma, beta, mean, variance
            layer.set_weights([rng.uniform(low, high, count).astype(np.float32) for low, high in spreads])
    head = keras.layers.Dense(classes, activation="softmax", name="head")
    model = keras.Model(image, head(body.output))
    rng = np.random.default_rng(head_seed)
    weights = rng.normal(0, 0.05, (FEATURES, classes)), rng.normal(0, 0.1, classes)
    head.set_weights([part.astype(np.float32) for part in weights])
    return model


def _converted(model: Any, seed: int, spread: float) -> bytes:
    import numpy as np
    import tensorflow as tf

    samples = np.random.default_rng(seed).normal(0, spread, (8, 1, EDGE, EDGE, 3)).astype(np.float32)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


class Bench:
    """One sshd, and bundles of the models; each case begins on a device that holds the first one."""

    def __init__(self, sshd: RealSshd, models: Path, folder: Path) -> None:
        self.sshd = sshd
        self.models = models
        self.folder = folder
        self._number = itertools.count()

    def bundle(self, model: Path, version: str) -> Path:
        """A bundle of a model, without a runtime and without a check set."""
        path = self.folder / f"{model.stem}-{version}.edgepack"
        build_bundle(model, target=tiny_target(), name="app", version=version, output=path, with_runtime=False)
        return path

    def row(self, case: str, second: Path, goal: str, most: int, *, model: str | None = None) -> dict[str, Any]:
        """Push the first bundle and then ``second``; ``most`` is how many bytes the goal allows on the wire."""
        root = self.folder / "device" / str(next(self._number))
        options = dataclasses.replace(self.sshd.options, root=str(root))
        push(self.bundle(self.models / "first.tflite", "1.0.0"), self.sshd.address, options=options)
        with connect(self.sshd.address, options, app="app", lock=True) as session:
            before = session.bytes_sent + session.bytes_received
            pushed = push(second, session)
            wire = session.bytes_sent + session.bytes_received - before
        installed = root / "apps" / "app" / "releases" / pushed.release / "model.tflite"
        content = open_bundle(second)
        whole = content_of(content, "model.tflite")
        if installed.read_bytes() != whole:
            raise SystemExit(f"{case}: the device has another model")
        row = {
            "case": case,
            "model_bytes": len(whole),
            "wire_bytes": wire,
            "file_bytes_sent": pushed.bytes.sent,
            "model_bytes_sent": max(pushed.bytes.sent - _others(content, second), 0) if model is None else None,
            "share": wire / len(whole),
            "round_trips_after_hello": pushed.round_trips - 1,
            "goal": goal,
        }
        counted = wire if model else row["model_bytes_sent"]
        row["met"] = counted <= most
        if model is not None:
            row |= self.rsync(model)
        return row

    def rsync(self, model: str) -> dict[str, int | None]:
        """What rsync writes and reads for the bare file, without and with -z; None where it is not installed."""
        if shutil.which("rsync") is None:
            return {"rsync_bytes": None, "rsync_z_bytes": None}
        found = []
        for options in ([], ["-z"]):
            there = self.folder / "there.tflite"
            shutil.copyfile(self.models / "first.tflite", there)
            told = subprocess.run(
                ["rsync", "--stats", "--no-whole-file", "--ignore-times", *options,
                 self.models / f"{model}.tflite", there],
                check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"},
            ).stdout  # fmt: skip
            both = re.findall(r"Total bytes (?:sent|received): ([\d,]+)", told)
            found.append(sum(int(number.replace(",", "")) for number in both))
        return {"rsync_bytes": found[0], "rsync_z_bytes": found[1]}


def _others(content: Any, second: Path) -> int:
    """What may travel where no model has to: the manifest, and a loader that changed."""
    return len(content.manifest_bytes) + (content.entries["loader.py"].bytes if "loader" in second.name else 0)


def compare(bench: Bench) -> list[dict[str, Any]]:
    """The rows of the table."""
    rows = []
    goals = {
        "recalibrated": ("4 % of the model", lambda size: size * 0.04),
        "new head": ("the head and 2 chunks", lambda _: _head(CLASSES) + 2 * PIECE_BYTES),
        "other classes": ("the head and 6 % of the model", lambda size: _head(OTHER_CLASSES) + size * 0.06),
    }
    for name, (goal, most) in goals.items():
        model = bench.models / f"{name}.tflite"
        second = bench.bundle(model, "2.0.0")
        rows.append(bench.row(name, second, goal, int(most(model.stat().st_size)), model=name))
    first = bench.models / "first.tflite"
    again = bench.bundle(first, "1.0.1")
    rows.append(bench.row("manifest changed only", again, "0 bytes of the model", 0))
    opened = open_bundle(again)
    files = {path: content_of(opened, path) for path in opened.entries}
    files["loader.py"] += b"# another loader\n"
    loader = rewritten(bench.folder / "loader.edgepack", opened.manifest_bytes, files)
    rows.append(bench.row("loader changed only", loader, "0 bytes of the model", 0))
    rows.append(bench.row("nothing changed", bench.bundle(first, "1.0.0"), "0 bytes, 1 round trip after hello", 0))
    rows[-1]["met"] = rows[-1]["file_bytes_sent"] == 0 and rows[-1]["round_trips_after_hello"] <= 1
    return rows


def _head(classes: int) -> int:
    """The bytes of a head's constants: int8 weights, int32 biases."""
    return FEATURES * classes + 4 * classes


def measure_memory(bench: Bench, mib: int) -> dict[str, Any]:
    """Peak resident memory at both ends, of a first push and of one that changes a hundredth of the model."""
    root = bench.folder / "device" / "memory"
    found: dict[str, Any] = {"mib": mib}
    content = bytearray(TINY.read_bytes() + os.urandom(mib << 20))
    for step, version in (("first", "1.0.0"), ("delta", "2.0.0")):
        model = bench.folder / "large.tflite"
        model.write_bytes(content)
        path = bench.bundle(model, version)
        model.unlink()
        told = subprocess.run(
            [sys.executable, REPOSITORY / "benchmarks" / "push.py", "--one", path, bench.sshd.address,
             bench.sshd.folder, root],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        found[step] = json.loads(told.stdout)
        path.unlink()
        start = len(content) // 2
        content[start : start + len(content) // 100] = os.urandom(len(content) // 100)
    shutil.rmtree(root)
    return found


def show(rows: list[dict[str, Any]]) -> None:
    """The table on standard error."""
    print(f"{'case':<22}{'model':>10}{'wire':>10}{'share':>8}{'rsync':>10}{'rsync -z':>10}  goal", file=sys.stderr)
    for row in rows:
        other = "".join(f"{row.get(key) or '':>10}" for key in ("rsync_bytes", "rsync_z_bytes"))
        met = "met" if row["met"] else "MISSED"
        print(
            f"{row['case']:<22}{row['model_bytes']:>10}{row['wire_bytes']:>10}{row['share']:>8.2%}{other}  "
            f"{row['goal']}: {met}",
            file=sys.stderr,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="a folder of models of an earlier run [they are made]")
    parser.add_argument("--memory-mib", type=int, default=400)
    parser.add_argument("--folder", type=Path, help="where both ends' files lie [the system's temporary folder]")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make_models(arguments.make)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        models = arguments.models or folder / "models"
        if not (models / "first.tflite").exists():
            models.mkdir(exist_ok=True)
            # A process of its own: TensorFlow prints where it wants, and its memory is given back.
            subprocess.run(
                [sys.executable, __file__, "--make", models], check=True, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
        with RealSshd(folder / "sshd") as sshd:
            bench = Bench(sshd, models, folder)
            rows = compare(bench)
            memory = measure_memory(bench, arguments.memory_mib) if arguments.memory_mib else None
    show(rows)
    print(f"memory: {memory}", file=sys.stderr)
    print(json.dumps({"benchmark": "delta", "rows": rows, "memory": memory}, indent=2))


if __name__ == "__main__":
    main()
