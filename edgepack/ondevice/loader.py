"""The loader: what runs a release's model on the device. Python 3.8; numpy and one TFLite runtime, nothing else.

As a module (through ``edgepack_device.load``)::

    model = Model("/home/pi/.edgepack/apps/kws/current")
    scores = model.predict(x)            # float in, float out, whatever the scheme

and as a command::

    python3 loader.py info                                    what the model takes and gives, and what runs it
    python3 loader.py predict INPUT.npy|INPUT.npz [-o OUT.npz]
    python3 loader.py verify                                  every digest, and whether the model loads
    python3 loader.py measure OUTDIR --options JSON           latency, memory, the check set (docs/protocol.md)

It lies in the release's folder beside ``manifest.json`` and ``model.tflite``; ``device.json`` beside it says which
runtime was chosen on this device. What the runtime needs is looked for in ``runtimes/<id>/<dist>``, then where Python
looks anyway. A numpy that the program has imported already is never shadowed, and two runtimes never share a process:
where that does not fit, the error names the way out, a worker process (:class:`IsolatedModel`).

Numbers: a quantized input is ``clip(rint(x / scale) + zero_point)``, an output ``(q - zero_point) * scale``, both in
float32, as the host computes them:
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import gc
import glob
import hashlib
import importlib
import importlib.util
import io
import json
import math
import operator
import os
import queue
import re
import resource
import shlex
import shutil
import subprocess
import sys
import threading
import time
import weakref
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
CHUNK = 1024 * 1024
MODULES = {"tflite-runtime": "tflite_runtime.interpreter", "ai-edge-litert": "ai_edge_litert.interpreter"}
# Import names of programs that bring a TFLite runtime of their own into the process.
RUNTIME_MODULES = ("tflite_runtime", "ai_edge_litert", "tensorflow")
WORKER_HEADER_LIMIT = 1024 * 1024
PUSH_HINT = "Push the bundle again."
MEMORY_HINT = "Stop other programs on the device, or take a smaller model."
CHECK_SET_LIMIT = 512 * 1024 * 1024
CHECK_SET_DIRECTORY_LIMIT = 256 * 1024
# Timed runs take their inputs from so many batches, in memory before the first of them.
INPUT_BATCHES = 256
INPUT_BYTES = 32 * 1024 * 1024
RANDOM_BATCHES = 8
CHECK_SET_HINT = "Build the bundle again, with a check set made for this model."
KEEP_HINT = "Take a newer tflite-runtime or ai-edge-litert for this target, to look at its layers."
RELOAD_HINT = "Load the model again: edgepack_device.load(app)."

# Warm-up: a fixed number of runs is unsafe (Barrett et al., arXiv 1602.00602), so it goes on until its own times show
# where it ended (settled_at), and ends at the latest after this share of the time for measuring. A governor takes tens
# of milliseconds to raise the clock, however many runs that are.
WARMUP_BATCH = 5
WARMUP_BATCHES = 8
WARMUP_AGREEMENT = math.log(1.03)
WARMUP_LEAST_S = 0.15
WARMUP_SHARE = 0.25
WARMUP_LIMIT = 4_000
# With the warm-up's, 54,000 times of nine digits at most: less than 1 MB on the wire.
KEPT_RUNS = 50_000
MAX_RUNS = 200_000
PROGRESS_INTERVAL_S = 0.25
SAMPLE_INTERVAL_S = 0.5
SAMPLE_COST = 100
SERIES_LIMIT = 1000
# What adjtimex(2) slews in a minute is a tenth of it.
CLOCK_JUMP_S = 0.3
MAPS_LIMIT = 4 * CHUNK
# A Raspberry Pi slows down from 80 °C on, and at 60 °C already (bit 3) where its case is small:
# https://www.raspberrypi.com/documentation/computers/raspberry-pi.html#frequency-management-and-thermal-control
COOL_C = 55.0
COOL_LOOK_S = 2.0
COOL_LOOKS = 15
COOL_FALL_C = 0.5
# The bits 0 to 3 of get_throttled: https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
THROTTLED_BITS = ("under-voltage", "clock capped", "throttled", "soft temperature limit")
HEX = r"(?:0x)?[0-9a-fA-F]{1,8}"
# What is kept of a model's tensors, for a look at its layers.
KEPT_BYTES = 32 * 1024 * 1024
KEPT_ROWS = 8
USUAL_RUNS = 3  # what a run takes, so that the agent can say how many make a turn
SETTLING_S = 0.005  # at the beginning of each turn: caches and clock are those of the other process


class LoaderError(Exception):
    """The model cannot be loaded or run; ``code`` is a stable word, ``hint`` says what to do next."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(f"{message} {hint}".strip())
        self.code = code
        self.message = message
        self.hint = hint


def closed() -> LoaderError:
    """The model was closed, by this thread or another."""
    return LoaderError("closed", "The model is closed.", RELOAD_HINT)


class InputMismatch(LoaderError, ValueError):
    """What was handed to ``predict`` is not what the model takes, which the message tells as far as it matters."""

    def __init__(self, message: str, hint: str = "model.inputs tells all that the model takes.") -> None:
        super().__init__("bad-input", message, hint)


# ------------------------------------------------------------------------------------------------ a release on disk


def read_json(path: str) -> Dict[str, Any]:
    """The object in a JSON file; empty where there is none."""
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: str, value: Any) -> None:
    """Writes a JSON file whole or not at all."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(path + ".new", path)


def digest_file(path: str) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


class Release:
    """A release's folder: its manifest, and what was chosen on this device."""

    def __init__(self, folder: str) -> None:
        self.folder = os.path.realpath(folder)
        self.manifest = read_json(os.path.join(self.folder, "manifest.json"))
        if not self.manifest:
            raise LoaderError(
                "no-release", f"{folder} holds no release: its manifest.json is missing or broken.", PUSH_HINT
            )
        device = read_json(os.path.join(self.folder, "device.json"))
        runtime = device.get("runtime")
        self.runtime: Dict[str, Any] = runtime if isinstance(runtime, dict) else {}
        self.platform: Dict[str, Any] = device.get("platform") or {}
        self.interpreter = str(device.get("interpreter") or sys.executable)
        target = self.manifest.get("target")
        self.target: Dict[str, Any] = target if isinstance(target, dict) else {}

    @property
    def model_path(self) -> str:
        """The model's file."""
        return os.path.join(self.folder, str(self._model().get("file", "model.tflite")))

    @property
    def check_path(self) -> str:
        """The check set's file, which may not exist."""
        return os.path.join(self.folder, "check.npz")

    @property
    def threads(self) -> Optional[int]:
        """How many threads the target profile asks for, not more than there are cores; None where it does not say."""
        measure = self.target.get("measure")
        threads = measure.get("threads") if isinstance(measure, dict) else None
        return min(int(threads), len(os.sched_getaffinity(0))) if threads else None

    def _model(self) -> Dict[str, Any]:
        model = self.manifest.get("model")
        return model if isinstance(model, dict) else {}

    def verify_model(self) -> None:
        """Raises LoaderError "release-damaged" where the model is not the one that the manifest names."""
        expected = self._model().get("sha256")
        try:
            found = digest_file(self.model_path)
        except OSError as error:
            raise LoaderError("release-damaged", f"The model cannot be read: {error}.", PUSH_HINT) from None
        if found != expected:
            raise LoaderError(
                "release-damaged",
                f"{self.model_path} is damaged: its digest is not the manifest's.",
                PUSH_HINT,
            )

    def find_damage(self) -> List[str]:
        """The files that are not what the manifest says (wheels are unpacked elsewhere)."""
        damaged = []
        for entry in self.manifest.get("files") or []:
            path = str(entry["path"])
            if not path.startswith("wheels/"):
                full = os.path.join(self.folder, path)
                if not os.path.isfile(full) or digest_file(full) != entry["sha256"]:
                    damaged.append(path)
        return damaged

    def runtime_folders(self) -> Dict[str, str]:
        """The unpacked wheels of this release: distribution name (as in ``numpy``) to folder."""
        runtime_id = self.runtime.get("id")
        if not runtime_id:
            return {}
        root = os.path.normpath(os.path.join(self.folder, "..", "..", "..", ".."))
        base = os.path.join(root, "runtimes", str(runtime_id))
        return {
            str(dist).replace("_", "-").lower(): os.path.join(base, str(dist)) for dist in self.runtime.get("dists", [])
        }


# ----------------------------------------------------------------------------------------------------- the runtime


def isolated_hint() -> str:
    """The way out of every clash inside one process."""
    return "Let the model run in a process of its own: edgepack_device.load(app, isolated=True)."


def check_python(release: Release) -> None:
    """Raises LoaderError "runtime-refused" where this is not the Python that the runtime's wheels are for."""
    wanted = str(release.platform.get("python") or "")
    found = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if release.runtime.get("id") and re.fullmatch(r"\d+\.\d+", wanted) and wanted != found:
        raise LoaderError(
            "runtime-refused",
            f"This release's runtime is for Python {wanted}; this program runs on Python {found}.",
            f"Run it with {release.interpreter}, or: {isolated_hint()}",
        )


def check_numpy(package: str, whose: str = "This program has imported") -> None:
    """Raises LoaderError "numpy-mismatch" where the numpy that this process has imported does not fit the runtime.

    tflite-runtime is compiled against numpy 1; with numpy 2 its interpreter dies (``_ARRAY_API not found``).
    """
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return
    version = str(getattr(numpy, "__version__", "0"))
    if package == "tflite-runtime" and int(version.split(".")[0] or 0) >= 2:
        raise LoaderError(
            "numpy-mismatch",
            f"{whose} numpy {version}; the release's runtime ({package}) needs numpy 1.",
            isolated_hint(),
        )


def check_alone(package: str, folder: Optional[str]) -> None:
    """Raises LoaderError "runtime-clash" where this process holds another runtime already: two crash each other."""
    wanted = MODULES[package].split(".")[0]
    for name in RUNTIME_MODULES:
        module = sys.modules.get(name)
        if module is None:
            continue
        where = os.path.realpath(os.path.dirname(str(getattr(module, "__file__", "") or "")))
        if name == wanted and (folder is None or where.startswith(os.path.realpath(folder) + os.sep)):
            continue
        raise LoaderError(
            "runtime-clash",
            f"This program has loaded {name} from {where}; the release's own {package} cannot share a process with it.",
            isolated_hint(),
        )


def import_runtime(release: Release) -> Tuple[Any, Any, str]:
    """Imports numpy and the release's runtime: (numpy, the interpreter module, the package's name).

    Without ``device.json`` (a release that is not deployed) whichever runtime this Python has is taken. ``sys.path`` is
    left as it was.
    """
    check_python(release)
    folders = release.runtime_folders()
    package = str(release.runtime.get("package") or "")
    packages = [package] if package in MODULES else present_packages()
    absent = [path for path in folders.values() if not os.path.isdir(path)]
    if absent:
        raise LoaderError("no-runtime", f"The release's runtime is gone: {absent[0]}.", PUSH_HINT)
    before = list(sys.path)
    ours = [path for name, path in folders.items() if name != "numpy" or "numpy" not in sys.modules]
    sys.path[:0] = ours
    importlib.invalidate_caches()
    try:
        return import_first(packages, folders, missing_hint(release))
    finally:
        sys.path[:] = [path for path in sys.path if path not in ours or path in before]


def present_packages() -> List[str]:
    """The runtimes that this Python has; all that there are where it has none, so that the error can name them."""
    return [name for name, module in MODULES.items() if importlib.util.find_spec(module.split(".")[0])] or list(MODULES)


def missing_hint(release: Release) -> str:
    """What to do where this Python lacks what the release needs."""
    if release.runtime and os.path.realpath(release.interpreter) != os.path.realpath(sys.executable):
        return f"The release was set up for {release.interpreter}: run this program with it. Or: {isolated_hint()}"
    return "Push the bundle again; it brings its runtime along (or install numpy and tflite-runtime for this Python)."


def import_first(packages: List[str], folders: Mapping[str, str], hint: str) -> Tuple[Any, Any, str]:
    """Imports numpy and the first of these runtimes that is there."""
    failures = []
    for package in packages:
        check_numpy(package)
        check_alone(package, folders.get(package))
        try:
            numpy = importlib.import_module("numpy")
            check_numpy(package, "This Python has")
            return numpy, importlib.import_module(MODULES[package]), package
        except ImportError as error:
            check_executable(folders)
            failures.append(f"{package}: {error}")
    raise LoaderError("no-runtime", f"No TFLite runtime can be imported ({'; '.join(failures)}).", hint)


def check_executable(folders: Mapping[str, str]) -> None:
    """Raises LoaderError "noexec" where the runtime's libraries lie on a file system that lets none be loaded."""
    for folder in folders.values():
        mount = os.path.realpath(folder)
        while not os.path.ismount(mount):
            mount = os.path.dirname(mount)
        if os.statvfs(mount).f_flag & os.ST_NOEXEC:
            raise LoaderError(
                "noexec",
                f"{mount} is mounted noexec: the runtime's libraries cannot be loaded from {folder}.",
                f"Push to another file system with --root PATH, or: sudo mount -o remount,exec {shlex.quote(mount)}",
            )


def package_version(package: str, release: Release) -> Optional[str]:
    """The version of the runtime in use."""
    module = sys.modules.get(MODULES[package].split(".")[0])
    version = getattr(module, "__version__", None)
    return str(version) if version else release.runtime.get("version")


def load_delegate(runtime: Any, target: Mapping[str, Any]) -> Tuple[List[Any], Optional[str]]:
    """The target's delegate, loaded: ([delegate], its library); a required one that cannot be loaded is an error."""
    wanted = target.get("delegate")
    if not isinstance(wanted, dict) or not wanted.get("library"):
        return [], None
    library = wanted["library"]
    options = wanted.get("options") or {}
    try:
        return [runtime.load_delegate(str(library), dict(options) or None)], str(library)
    except (ValueError, OSError, RuntimeError) as error:
        if wanted.get("required"):
            raise LoaderError(
                "delegate-missing",
                f"The delegate {library}, which the target requires, cannot be loaded: {error}.",
                "Install the accelerator's library on the device and plug the accelerator in.",
            ) from None
        return [], None


def open_interpreter(
    release: Release, runtime: Any, threads: Optional[int], delegates: List[Any], keep: bool = False
) -> Tuple[Any, Optional[int]]:
    """An interpreter, and how many operators the delegates took.

    What the runtime refuses is LoaderError "runtime-refused". The operators are counted before the tensors are
    allocated, because that is when the runtime's own XNNPACK takes what the target's delegate left. With ``keep`` every
    tensor can be read after a run: the runtime's plain kernels compute them, one by one.
    """
    try:
        options: Dict[str, Any] = {"experimental_delegates": delegates or None}
        if keep:
            plain = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            options = {"experimental_op_resolver_type": plain, "experimental_preserve_all_tensors": True}
        interpreter = runtime.Interpreter(model_path=release.model_path, num_threads=threads, **options)
        return interpreter, count_delegated(interpreter)
    except (AttributeError, TypeError) as error:
        if not keep:
            raise
        raise LoaderError("runtime-refused", f"This runtime keeps no tensors: {error}.", KEEP_HINT) from None
    except (ValueError, RuntimeError, ImportError, MemoryError) as error:
        raise refused(runtime, error) from None


def allocate(interpreter: Any, runtime: Any) -> bool:
    """Allocates the tensors; False where the model leaves sizes open that it cannot do without (a picture's, say).

    Raises LoaderError "memory-short", "out-of-memory" (a runtime that gets no memory may fail without a word),
    "runtime-refused".
    """
    try:
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError, MemoryError) as error:
        if any(-1 in details.get("shape_signature", ()) for details in interpreter.get_input_details()):
            return False
        require_memory(needed_bytes(interpreter), memory_available())
        raise refused(runtime, error) from None
    return True


def needed_bytes(interpreter: Any) -> Optional[int]:
    """What the model needs at least, in bytes; None where the runtime does not tell its operators.

    The weights once (mapped, or packed for the CPU; float16 is unpacked to float32), and the inputs and outputs of the
    operator that has the largest: they are in memory together. Sizes that the model leaves open count as 1.
    """
    try:
        nodes = interpreter._get_ops_details()
        details = {int(tensor["index"]): tensor for tensor in interpreter.get_tensor_details()}
    except (AttributeError, ValueError, RuntimeError):
        return None
    sizes = {index: tensor_bytes(tensor) for index, tensor in details.items()}
    computed = {int(tensor["index"]) for tensor in interpreter.get_input_details()}
    computed.update(int(i) for node in nodes for i in node["outputs"])
    touched = [{int(i) for i in (*node["inputs"], *node["outputs"])} & set(sizes) for node in nodes]
    weights = set().union(*touched) - computed if touched else set()
    unpacked = sum(sizes[i] * (2 if getattr(details[i]["dtype"], "__name__", "") == "float16" else 1) for i in weights)
    return unpacked + max((sum(sizes[i] for i in tensors & computed) for tensors in touched), default=0)


def tensor_bytes(details: Mapping[str, Any]) -> int:
    """The size of a tensor, whose type is named after its bits; texts count as nothing: theirs is not known yet."""
    found = re.search(r"(\d+)$|bool", getattr(details["dtype"], "__name__", ""))
    size = 0 if found is None else int(found.group(1) or 8) // 8
    for length in details["shape"]:
        size *= int(length)
    return size


def require_memory(needed: Optional[int], available: Optional[int], what: str = "the model") -> None:
    """Raises LoaderError "memory-short" where both are known and ``what`` needs more than there is (in bytes)."""
    if needed is not None and available is not None and needed > available:
        raise LoaderError(
            "memory-short",
            f"The device has {available:,} bytes of memory available; {what} needs {needed:,} at least.",
            MEMORY_HINT,
        )


def refused(runtime: Any, error: Exception) -> LoaderError:
    """What the runtime said against the model, or that it got no memory."""
    if isinstance(error, MemoryError):
        return LoaderError("out-of-memory", "The device has no memory left for the model.", MEMORY_HINT)
    return LoaderError(
        "runtime-refused",
        f"{runtime.__name__.split('.')[0]} does not take this model: {error}",
        "Quantize it for a target whose runtime knows its operators, and push that.",
    )


def count_delegated(interpreter: Any) -> Optional[int]:
    """How many of the model's operators delegates took; None where the runtime does not tell."""
    counted = count_operators(interpreter)
    return counted[0] if counted else None


def count_operators(interpreter: Any) -> Optional[Tuple[int, int]]:
    """(operators that delegates took, operators of the model); None where the runtime does not tell.

    A delegate adds nodes that make tensors which nodes before them (the replaced ones) make as well.
    """
    try:
        nodes = interpreter._get_ops_details()
    except (AttributeError, ValueError, RuntimeError):
        return None
    makers: Dict[int, Tuple[int, List[int]]] = {}
    taken = set()
    total = 0
    for node in nodes:
        outputs = [int(i) for i in node["outputs"]]
        inputs = [int(i) for i in node["inputs"]]
        if outputs and all(i in makers for i in outputs):
            taken |= upstream(makers, outputs, set(inputs))
        else:
            total += 1
            makers.update({i: (int(node["index"]), inputs) for i in outputs})
    return len(taken), total


def upstream(makers: Mapping[int, Tuple[int, List[int]]], outputs: List[int], inputs: Any) -> Any:
    """The nodes between these inputs and outputs."""
    found = set()
    open_tensors = list(outputs)
    while open_tensors:
        tensor = open_tensors.pop()
        if tensor in inputs or tensor not in makers or makers[tensor][0] in found:
            continue
        node, sources = makers[tensor]
        found.add(node)
        open_tensors += sources
    return found


# ------------------------------------------------------------------------------------------------------- tensors


def numbers_of(q: Any, scale: Any, zero: Any, numpy: Any) -> Any:
    """What integers stand for, as float32: ``(q - zero) * scale``, both of them float32."""
    values = q.astype(numpy.float32)
    values -= zero
    values *= scale
    return values


class TensorInfo:
    """An input or output: ``name``, ``shape`` (-1: may vary), ``dtype``, ``scale`` and ``zero_point`` (or None)."""

    def __init__(self, name: str, details: Mapping[str, Any], numpy: Any) -> None:
        self.name = name
        self.index = int(details["index"])
        self.dtype = numpy.dtype(details["dtype"])
        signature = details.get("shape_signature")
        shape = details["shape"] if signature is None or not len(signature) else signature
        self.shape: Tuple[int, ...] = tuple(int(n) for n in shape)
        scales = details["quantization_parameters"]["scales"]
        quantized = len(scales) == 1 and self.dtype.kind in "iu"
        self.scale = numpy.float32(scales[0]) if quantized else None
        self.zero_point = int(details["quantization_parameters"]["zero_points"][0]) if quantized else None
        if quantized:
            limits = numpy.iinfo(self.dtype)
            self._low, self._high = numpy.float32(limits.min), numpy.float32(limits.max)
            self._zero = numpy.float32(self.zero_point)
        self._floats: Any = None
        self._integers: Any = None
        self._numpy = numpy

    def __repr__(self) -> str:
        quantized = "" if self.scale is None else f", scale {self.scale:g}, zero_point {self.zero_point}"
        return f"<{self.name!r}: {self.dtype.name} {list(self.shape)}{quantized}>"

    @classmethod
    def from_json(cls, value: Mapping[str, Any], numpy: Any) -> TensorInfo:
        """The tensor that :meth:`to_json` told of; it lies in another process, so it has no index here (-1)."""
        quantized = value["scale"] is not None
        quantization = {
            "scales": [value["scale"]] if quantized else [],
            "zero_points": [value["zero_point"]] if quantized else [],
        }
        return cls(str(value["name"]), dict(value, index=-1, quantization_parameters=quantization), numpy)

    def to_json(self) -> Dict[str, Any]:
        """The tensor as plain values."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype.name,
            "scale": None if self.scale is None else float(self.scale),
            "zero_point": self.zero_point,
        }

    def quantize(self, x: Any) -> Any:
        """A float array in the tensor's own dtype: ``clip(rint(x / scale) + zero_point)``, in float32.

        The result is a buffer that the next call overwrites: an image's worth of fresh memory at each call would cost
        more than the arithmetic. Calls take turns (the model's lock).
        """
        numpy = self._numpy
        if self._floats is None or self._floats.shape != x.shape:
            self._floats, self._integers = numpy.empty(x.shape, numpy.float32), numpy.empty(x.shape, self.dtype)
        values = self._floats
        numpy.divide(x, self.scale, out=values)
        numpy.rint(values, out=values)
        values += self._zero
        numpy.maximum(values, self._low, out=values)
        numpy.minimum(values, self._high, out=values)
        try:
            with numpy.errstate(invalid="raise"):
                numpy.copyto(self._integers, values, casting="unsafe")
        except FloatingPointError:
            raise InputMismatch(f"The input {self.name!r} holds NaN, which no integer stands for.") from None
        return self._integers

    def dequantize(self, q: Any) -> Any:
        """A tensor's content as float32: ``(q - zero_point) * scale``."""
        if self.scale is None:
            return q
        return numbers_of(q, self.scale, self._zero, self._numpy)

    def accept(self, x: Any) -> Any:
        """An array-like as an array of a dtype that this tensor can take: float32 for a quantized one."""
        numpy = self._numpy
        if self.scale is not None:
            array = numpy.asarray(x, numpy.float32)
        else:
            array = numpy.asarray(x)
            if array.dtype != self.dtype:
                array = self._convert(array)
        return array

    def _convert(self, array: Any) -> Any:
        kinds = {"f": "fiub", "i": "iub", "u": "iub", "b": "b"}.get(self.dtype.kind, self.dtype.kind)
        if array.dtype.kind not in kinds:
            raise InputMismatch(f"The input {self.name!r} takes {self.dtype.name}, not {array.dtype.name}.")
        return array.astype(self.dtype)


def named_details(interpreter: Any) -> Tuple[List[Tuple[str, Any]], List[Tuple[str, Any]]]:
    """The inputs and outputs with the names that the model's signature gives them (else the tensors' names)."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    signatures = interpreter.get_signature_list()
    if signatures:
        key = "serving_default" if "serving_default" in signatures else next(iter(signatures))
        runner = interpreter.get_signature_runner(key)
        by_input = {int(d["index"]): name for name, d in runner.get_input_details().items()}
        by_output = {int(d["index"]): name for name, d in runner.get_output_details().items()}
        if {int(d["index"]) for d in inputs} == set(by_input) and {int(d["index"]) for d in outputs} == set(by_output):
            return (
                [(by_input[int(d["index"])], d) for d in inputs],
                [(by_output[int(d["index"])], d) for d in outputs],
            )
    return [(str(d["name"]), d) for d in inputs], [(str(d["name"]), d) for d in outputs]


# --------------------------------------------------------------------------------------------------------- the model


def hold(user: Any, folder: str) -> Callable[[], Any]:
    """Marks a release as in use, so that `edgepack gc` leaves it, until ``user`` is gone or the result is called.

    The mark is a shared lock of the kernel's (flock): it writes nothing, and falls with the process. Where the file
    system has no such lock there is no mark, and the model works all the same.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return lambda: None
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return weakref.finalize(user, os.close, descriptor)


class Model:
    """A release's model, loaded and verified; safe to use from several threads, which take turns.

    ``inputs`` and ``outputs`` describe its tensors (:class:`TensorInfo`). ``threads`` is how many the runtime may use
    (None: as the target profile says), ``cautious`` refuses a model for which memory is short instead of trying (swap
    may help, slowly), ``keep`` lets all tensors be read (:meth:`kept`), without delegates and several times slower.
    Raises :class:`LoaderError` where the release is damaged or cannot run here.
    """

    def __init__(
        self, folder: str = HERE, threads: Optional[int] = None, cautious: bool = False, keep: bool = False
    ) -> None:
        self.release = Release(folder)
        self._let_go = hold(self, self.release.folder)
        started = time.perf_counter()
        self._numpy, runtime, self.package = import_runtime(self.release)
        imported = time.perf_counter()
        self.import_ms = (imported - started) * 1e3
        self.release.verify_model()
        self.threads = threads or self.release.threads
        delegates, self.delegate = ([], None) if keep else load_delegate(runtime, self.release.target)
        self._interpreter, self._delegated = open_interpreter(self.release, runtime, self.threads, delegates, keep)
        looking = time.perf_counter()
        if cautious:
            require_memory(needed_bytes(self._interpreter), memory_available())
        looked = time.perf_counter() - looking
        allocated = allocate(self._interpreter, runtime)
        self.load_ms = (time.perf_counter() - imported - looked) * 1e3
        inputs, outputs = named_details(self._interpreter)
        self.inputs = tuple(TensorInfo(name, details, self._numpy) for name, details in inputs)
        self.outputs = tuple(TensorInfo(name, details, self._numpy) for name, details in outputs)
        # The sizes that the tensors are allocated for; none before the first call where the model leaves them open.
        self._shapes = [tuple(int(n) for n in details["shape"]) for _, details in inputs] if allocated else []
        self._single = len(self.inputs) == 1 and len(self.outputs) == 1
        self._lock = threading.Lock()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def predict(self, x: Any = None, **named: Any) -> Any:
        """Runs the model on floats and returns floats, whatever its scheme.

        ``x`` is an array-like for a model with one input, a mapping of name to array-like (or keywords) for several.
        Shapes are the model's; the batch axis may be left out for one sample, and any number of samples may be given:
        a model that cannot be resized runs them one batch at a time. The result has the batch axis; it is an array
        for a model with one output, a dict of arrays for several. Raises :class:`InputMismatch` (a ValueError) on
        anything else.
        """
        arrays = self._take(x, named)
        with self._lock:
            shaped = [a.shape for a in arrays]
            if shaped != self._shapes:
                results = self._run_other_shape(arrays)
            else:
                results = self._run([self._to_tensor(info, a) for info, a in zip(self.inputs, arrays)])
                results = [info.dequantize(q) for info, q in zip(self.outputs, results)]
        if len(results) == 1:
            return results[0]
        return {info.name: result for info, result in zip(self.outputs, results)}

    def predict_raw(self, x: Any = None, **named: Any) -> Any:
        """As :meth:`predict`, with the bare tensors: dtypes and shapes are the model's own, nothing is converted."""
        numpy = self._numpy
        arrays = [numpy.asarray(value) for value in self._match(x, named)]
        for info, array in zip(self.inputs, arrays):
            if array.dtype != info.dtype:
                raise InputMismatch(f"The input {info.name!r} takes {info.dtype.name}, not {array.dtype.name}.")
        with self._lock:
            self._resize([array.shape for array in arrays])
            results = self._run(arrays)
        if len(results) == 1:
            return results[0]
        return {info.name: result for info, result in zip(self.outputs, results)}

    def close(self) -> None:
        """Frees the model; it cannot be used afterwards."""
        with self._lock:
            self._interpreter = None
        self._let_go()

    def info(self) -> Dict[str, Any]:
        """What the model takes and gives, and what runs it, as plain values."""
        manifest = self.release.manifest
        return {
            "app": manifest.get("name"),
            "version": manifest.get("version"),
            "release": os.path.basename(self.release.folder),
            "target": self.release.target.get("name"),
            "runtime": self.runtime_info(),
            "delegate": self.delegate_info(),
            "threads": self.threads,
            "inputs": [info.to_json() for info in self.inputs],
            "outputs": [info.to_json() for info in self.outputs],
        }

    def runtime_info(self) -> Dict[str, Any]:
        """The versions that run the model."""
        return {
            "package": self.package,
            "version": package_version(self.package, self.release),
            "numpy": self._numpy.__version__,
            "python": sys.version.split()[0],
        }

    def delegate_info(self) -> Optional[Dict[str, Any]]:
        """The target's delegate and how many operators it took; None where the target names none."""
        wanted = self.release.target.get("delegate")
        if not isinstance(wanted, dict) or not wanted.get("library"):
            return None
        return {
            "library": wanted["library"],
            "operators": self._delegated if self.delegate else 0,
        }

    def operators(self) -> Optional[Dict[str, int]]:
        """How many operators the model has, and how many of them XNNPACK, which the runtime brings, took."""
        counted = count_operators(self._opened())
        return counted and {"total": counted[1], "xnnpack": counted[0] - (self._delegated or 0)}

    def delegate_use(self) -> Optional[Dict[str, Any]]:
        """:meth:`delegate_info`, the share of the operators that it took, and the library's file (it has a version)."""
        info, counted = self.delegate_info(), self.operators()
        if info is None:
            return None
        share = info["operators"] / counted["total"] if counted and info["operators"] is not None else None
        name = re.escape(os.path.basename(str(info["library"])))
        mapped = re.findall(rf"(/.*/{name}.*)$", read_text("/proc/self/maps", MAPS_LIMIT), re.MULTILINE)
        return {**info, "share": share, "file": mapped[0] if mapped else None}

    def zeros(self) -> List[Any]:
        """One zero tensor per input, in the model's own dtypes and current shapes."""
        if not self._shapes:
            raise LoaderError(
                "bad-check-set",
                f"The model leaves sizes open ({self.inputs}), and there is no check set to take them from.",
                CHECK_SET_HINT,
            )
        return [self._numpy.zeros(shape, info.dtype) for info, shape in zip(self.inputs, self._shapes)]

    # -- one inference

    def _take(self, x: Any, named: Mapping[str, Any]) -> List[Any]:
        """The arguments of predict as one array per input, in a dtype that the input can take."""
        if self._single and not named and not isinstance(x, Mapping) and x is not None:
            return [self.inputs[0].accept(x)]
        return [info.accept(value) for info, value in zip(self.inputs, self._match(x, named))]

    def _match(self, x: Any, named: Mapping[str, Any]) -> List[Any]:
        """The arguments of predict, one per input, in the inputs' order."""
        given: Dict[str, Any] = dict(named)
        names = [info.name for info in self.inputs]
        if isinstance(x, Mapping):
            given.update(x)
        elif x is not None:
            if len(names) != 1 or named:
                raise InputMismatch(f"The model has {len(names)} inputs; give them by name: {', '.join(names)}.")
            return [x]
        unknown, absent = sorted(set(given) - set(names)), [name for name in names if name not in given]
        if unknown or absent:
            raise InputMismatch(
                f"The model's inputs are {', '.join(names)}"
                + (f"; not among them: {', '.join(unknown)}" if unknown else "")
                + (f"; not given: {', '.join(absent)}" if absent else "")
                + "."
            )
        return [given[name] for name in names]

    def _to_tensor(self, info: TensorInfo, array: Any) -> Any:
        return array if info.scale is None else info.quantize(array)

    def _run(self, tensors: List[Any]) -> List[Any]:
        """Sets the inputs, invokes, returns copies of the outputs; the caller holds the lock."""
        interpreter = self._opened()
        for info, tensor in zip(self.inputs, tensors):
            interpreter.set_tensor(info.index, tensor)
        try:
            interpreter.invoke()
        except RuntimeError as error:
            raise InputMismatch(f"The runtime cannot run the model on this input: {error}") from None
        return [interpreter.get_tensor(info.index) for info in self.outputs]

    def _opened(self) -> Any:
        """The interpreter of a model that is not closed."""
        if self._interpreter is None:
            raise closed()
        return self._interpreter

    def _run_other_shape(self, arrays: List[Any]) -> List[Any]:
        """Runs arrays whose shapes are not the current ones: resized, or one batch at a time."""
        arrays = [a[None] if a.ndim == len(i.shape) - 1 else a for i, a in zip(self.inputs, arrays)]
        if all(self._allows(info, a.shape) for info, a in zip(self.inputs, arrays)):
            self._resize([a.shape for a in arrays])
            results = self._run([self._to_tensor(info, a) for info, a in zip(self.inputs, arrays)])
            return [info.dequantize(q) for info, q in zip(self.outputs, results)]
        return self._run_in_batches(arrays)

    def _allows(self, info: TensorInfo, shape: Tuple[int, ...]) -> bool:
        return len(shape) == len(info.shape) and all(want in (-1, n) for want, n in zip(info.shape, shape))

    def _resize(self, shapes: List[Tuple[int, ...]]) -> None:
        """Gives the inputs these shapes, where the model allows them."""
        if shapes == self._shapes:
            return
        for info, shape in zip(self.inputs, shapes):
            if not self._allows(info, shape) or 0 in shape:
                raise InputMismatch(f"The input {info.name!r} takes the shape {list(info.shape)}, not {list(shape)}.")
        interpreter = self._opened()
        try:
            for info, shape in zip(self.inputs, shapes):
                interpreter.resize_tensor_input(info.index, list(shape))
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError, MemoryError) as error:
            before, self._shapes = self._shapes, []
            for info, shape in zip(self.inputs, before):
                interpreter.resize_tensor_input(info.index, list(shape))
            if before:
                interpreter.allocate_tensors()
            self._shapes = before
            told = ", ".join(str(list(shape)) for shape in shapes)
            raise InputMismatch(f"The runtime cannot resize the model to {told}: {error}") from None
        self._shapes = list(shapes)

    def _run_in_batches(self, arrays: List[Any]) -> List[Any]:
        """Runs any number of samples on a model of a fixed batch size; the last batch is filled up with its end."""
        numpy = self._numpy
        counts = [len(array) if array.ndim else 0 for array in arrays]
        if len(set(counts)) > 1:
            told = ", ".join(f"{info.name!r} {n}" for info, n in zip(self.inputs, counts))
            raise InputMismatch(f"Every input needs a row for each sample, and these have different numbers: {told}.")
        size, count = self.batch_size, counts[0]
        shapes = [(size, *array.shape[1:]) for array in arrays]
        for info, array, shape in zip(self.inputs, arrays, shapes):
            if not count or not array.ndim or not self._allows(info, shape):
                raise InputMismatch(
                    f"The input {info.name!r} takes the shape {list(info.shape)}, not {list(array.shape)}."
                )
        self._resize(shapes)
        parts = []
        for start in range(0, count, size):
            blocks = [array[start : start + size] for array in arrays]
            short = size - len(blocks[0])
            if short:
                blocks = [numpy.concatenate([b, numpy.repeat(b[-1:], short, axis=0)]) for b in blocks]
            raw = self._run([self._to_tensor(info, block) for info, block in zip(self.inputs, blocks)])
            parts.append([info.dequantize(q)[: size - short or None] for info, q in zip(self.outputs, raw)])
        return [numpy.concatenate(list(column)) for column in zip(*parts)]

    # -- for the measurement

    @property
    def batch_size(self) -> int:
        """How many samples one call of the interpreter takes; 1 where the model leaves that open."""
        shape = self.inputs[0].shape
        return shape[0] if shape and shape[0] > 0 else 1

    @property
    def shapes(self) -> List[Tuple[int, ...]]:
        """The shapes that the inputs have now."""
        return self._shapes

    def fit(self, shapes: List[Tuple[int, ...]]) -> None:
        """Gives the inputs these shapes; raises :class:`InputMismatch` where the model has others."""
        with self._lock:
            self._resize([tuple(shape) for shape in shapes])

    def set_raw(self, tensors: List[Any]) -> None:
        """Sets the inputs without running; only the measurement uses it, which is alone with the model."""
        for info, tensor in zip(self.inputs, tensors):
            self._interpreter.set_tensor(info.index, tensor)

    def kept(self) -> Iterator[Tuple[int, Any]]:
        """After a run with ``keep``: index and content of what each operator made, in order.

        Without what holds nothing: an output that nobody reads. Where a kernel works in place, as ADD does in some
        runtimes, its input holds what it made.
        """
        indices = [int(i) for node in self._interpreter._get_ops_details() for i in node["outputs"]]
        for index in dict.fromkeys(i for i in indices if i >= 0):
            with contextlib.suppress(ValueError):
                yield index, self._interpreter.get_tensor(index)

    def kept_bytes(self) -> int:
        """What all tensors together take, in bytes; sizes that the model leaves open count as they are now."""
        return sum(tensor_bytes(tensor) for tensor in self._interpreter.get_tensor_details())

    def bare_invoke(self) -> Callable[[], None]:
        """The interpreter's own ``invoke``, so that nothing of edgepack is inside the time that is measured."""
        invoke: Callable[[], None] = self._interpreter.invoke
        return invoke


# ------------------------------------------------------------------------------------------ a model in a worker process


def pack_arrays(header: Dict[str, Any], arrays: Mapping[str, Any], numpy: Any) -> bytes:
    """One message between a program and its worker: a JSON line, then each array as .npy (never pickled)."""
    blobs = {}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        numpy.lib.format.write_array(buffer, numpy.asarray(array), allow_pickle=False)
        blobs[name] = buffer.getvalue()
    header = dict(header, arrays=[[name, len(blob)] for name, blob in blobs.items()])
    return b"".join([json.dumps(header).encode("ascii") + b"\n", *blobs.values()])


def send(stream: Any, message: bytes) -> None:
    """Writes a message, whole."""
    stream.write(message)
    stream.flush()


def read_arrays(stream: Any, numpy: Any) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """The next message: (header, arrays); an empty header at the stream's end."""
    line = stream.readline(WORKER_HEADER_LIMIT)
    if not line.endswith(b"\n"):
        return {}, {}
    header = json.loads(line)
    arrays = {}
    for name, size in header["arrays"]:
        blob = stream.read(size)
        if len(blob) < size:
            return {}, {}
        arrays[name] = numpy.lib.format.read_array(io.BytesIO(blob), allow_pickle=False)
    return header, arrays


class IsolatedModel:
    """A model in a worker process with the release's own Python, numpy and runtime; used just as :class:`Model` is.

    The program's own numpy, whichever it is, stays untouched. Raises :class:`LoaderError` as :class:`Model` does, and
    "worker-died" where the worker ended. A call that an exception leaves halfway (Ctrl-C, a signal handler that raises)
    ends the worker: its answer would otherwise be taken for that of the next call.
    """

    def __init__(self, folder: str = HERE, threads: Optional[int] = None) -> None:
        release = Release(folder)
        try:
            self._numpy = importlib.import_module("numpy")
        except ImportError as error:
            raise LoaderError(
                "no-runtime",
                f"This program needs numpy to talk to the model: {error}.",
                f"Install numpy for this Python, or run the program with {release.interpreter}.",
            ) from None
        argv = [release.interpreter, "-I", os.path.join(release.folder, "loader.py"), "worker"]
        if threads:
            argv += ["--threads", str(threads)]
        self._lock = threading.Lock()
        self._closed = False
        # False while a message is under way: what the pipes hold then belongs to a call that may never come back.
        self._in_step = False
        try:
            # In a session of its own: a Ctrl-C for the program does not hit the worker, which ends with its input.
            self._worker = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        except OSError as error:
            raise LoaderError("no-runtime", f"The release's Python cannot be started: {error}.", PUSH_HINT) from None
        try:
            header, _ = self._exchange(b"")
        except BaseException:
            self.close()
            raise
        self._info: Dict[str, Any] = header["info"]
        self.inputs = tuple(TensorInfo.from_json(value, self._numpy) for value in self._info["inputs"])
        self.outputs = tuple(TensorInfo.from_json(value, self._numpy) for value in self._info["outputs"])

    def __enter__(self) -> IsolatedModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def info(self) -> Dict[str, Any]:
        """What the model takes and gives, and what runs it, as plain values."""
        return dict(self._info)

    def predict(self, x: Any = None, **named: Any) -> Any:
        """As :meth:`Model.predict`."""
        return self._ask("predict", x, named)

    def predict_raw(self, x: Any = None, **named: Any) -> Any:
        """As :meth:`Model.predict_raw`."""
        return self._ask("predict_raw", x, named)

    def close(self) -> None:
        """Ends the worker."""
        self._closed = True
        if not self._in_step:
            self._worker.kill()  # before the pipes are closed: a worker that is not heard out may never read them empty
        for stream in (self._worker.stdin, self._worker.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._worker.wait(5)
        except subprocess.TimeoutExpired:
            self._worker.kill()
            self._worker.wait()

    def _ask(self, verb: str, x: Any, named: Mapping[str, Any]) -> Any:
        arrays = {f"={name}": value for name, value in named.items()}
        if isinstance(x, Mapping):
            arrays.update({f"={name}": value for name, value in x.items()})
        elif x is not None:
            arrays["x"] = x
        try:
            message = pack_arrays({"verb": verb}, arrays, self._numpy)
        except ValueError as error:
            raise InputMismatch(f"The input is no array of numbers: {error}") from None
        with self._lock:
            if self._closed:
                raise closed()
            if not self._in_step:
                self._worker.kill()
                raise self._died()
            self._in_step = False
            try:
                header, results = self._exchange(message)
            except BaseException:
                if not self._in_step:
                    self._worker.kill()
                raise
        return results["="] if header["single"] else {name[1:]: array for name, array in results.items()}

    def _exchange(self, message: bytes) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        """Sends a message and waits for the answer; only a whole answer brings the pipes back into step."""
        try:
            send(self._worker.stdin, message)
            header, arrays = read_arrays(self._worker.stdout, self._numpy)
        except BrokenPipeError:
            raise self._died() from None
        except (OSError, ValueError):
            if self._closed:  # the pipes with it, by another thread
                raise closed() from None
            raise
        if not header:
            raise self._died()
        self._in_step = True
        error = header.get("error")
        if error and error["code"] == "bad-input":
            raise InputMismatch(error["message"], error["hint"])
        if error:
            raise LoaderError(error["code"], error["message"], error["hint"])
        return header, arrays

    def _died(self) -> LoaderError:
        code = self._worker.wait()
        if self._closed:
            return closed()
        return LoaderError("worker-died", f"The model's worker process ended ({code}).", RELOAD_HINT)


def serve_worker(threads: Optional[int]) -> int:
    """The worker's side: answers requests on standard input until it ends; stray prints go to standard error."""
    reply = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        model = Model(HERE, threads)
    except LoaderError as error:
        header = {"error": {"code": error.code, "message": error.message, "hint": error.hint}, "arrays": []}
        reply.write(json.dumps(header).encode("ascii") + b"\n")
        reply.flush()
        return 1
    numpy = importlib.import_module("numpy")
    send(reply, pack_arrays({"info": model.info()}, {}, numpy))
    while True:
        header, arrays = read_arrays(sys.stdin.buffer, numpy)
        if not header:
            return 0
        named = {name[1:]: array for name, array in arrays.items() if name.startswith("=")}
        ask = model.predict_raw if header["verb"] == "predict_raw" else model.predict
        try:
            result = ask(arrays.get("x"), **named)
        except (LoaderError, ValueError, RuntimeError) as error:
            code, message = getattr(error, "code", "bad-input"), getattr(error, "message", str(error))
            hint = getattr(error, "hint", "model.inputs tells all that the model takes.")
            send(reply, pack_arrays({"error": {"code": code, "message": message, "hint": hint}}, {}, numpy))
            continue
        single = not isinstance(result, dict)
        results = {"=": result} if single else {f"={name}": array for name, array in result.items()}
        send(reply, pack_arrays({"single": single}, results, numpy))


# ------------------------------------------------------------------------------------------ the device's conditions


def read_text(path: str, limit: int = 65536) -> str:
    """A text file of the system, so many bytes of it at most; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace").replace("\0", "").strip()
    except OSError:
        return ""


def system_roots() -> List[str]:
    """Where the kernel's ``sys`` and ``proc`` lie; under qemu-user those of ``/`` would be the host's.

    ``EDGEPACK_EXTRA_SYSTEM`` names one more place, for tests and for boards that tell elsewhere. What lies there is
    added to what the kernel tells: it can make a device hotter and throttled, never cooler.
    """
    extra = os.environ.get("EDGEPACK_EXTRA_SYSTEM")
    return ([] if is_emulated() else ["/"]) + ([extra] if extra else [])


def system_texts(pattern: str) -> Dict[str, str]:
    """What the kernel tells in the files of a pattern such as ``sys/class/thermal/thermal_zone*/temp``, by path."""
    paths = [path for root in system_roots() for path in sorted(glob.glob(os.path.join(root, pattern)))]
    return {path: text for path, text in ((path, read_text(path)) for path in paths) if text}


def system_numbers(pattern: str) -> List[int]:
    """The whole numbers among :func:`system_texts`."""
    return [int(text) for text in system_texts(pattern).values() if re.fullmatch(r"-?\d{1,18}", text)]


@functools.lru_cache(maxsize=1)
def find_vcgencmd() -> Optional[str]:
    """A Raspberry Pi's program that asks the firmware; none where there is none."""
    folders = os.environ.get("PATH", "") + ":/usr/bin:/opt/vc/bin"
    return None if is_emulated() else shutil.which("vcgencmd", path=folders)


def ask_vcgencmd(*words: str) -> str:
    """What a Raspberry Pi's firmware answers after the ``=``; empty where there is none to ask."""
    program = find_vcgencmd()
    if program:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            answer = subprocess.run([program, *words], stdout=subprocess.PIPE, timeout=5, check=False)
            return answer.stdout.decode("ascii", "replace").strip().rpartition("=")[2]
    return ""


def throttled_bits() -> Optional[int]:
    """The Raspberry Pi's throttling bits (0–3: now, 16–19: since boot); None on other devices.

    https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
    """
    texts = list(system_texts("sys/devices/platform/soc/soc:firmware/get_throttled").values())
    found = [int(text, 16) for text in texts or [ask_vcgencmd("get_throttled")] if re.fullmatch(HEX, text)]
    return functools.reduce(operator.or_, found) if found else None


def throttle_count() -> Optional[int]:
    """How often an x86 CPU has throttled since boot, over its cores; None on other devices."""
    counts = system_numbers("sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count")
    return sum(counts) if counts else None


def cooling_state() -> Optional[int]:
    """How far the kernel holds the CPU's clock down against heat (0: not at all); None where it does not tell.

    https://docs.kernel.org/driver-api/thermal/cpu-cooling-api.html: ``cpufreq-…`` and ``thermal-cpufreq-…`` lower the
    clock of a CPU, ``Processor`` is ACPI's; a fan is no throttle.
    """
    types = system_texts("sys/class/thermal/cooling_device*/type")
    slowing = [os.path.dirname(path) for path, kind in types.items() if "cpufreq" in kind or kind == "Processor"]
    states = [int(text) for text in (read_text(f"{folder}/cur_state") for folder in slowing) if text.isdigit()]
    return max(states) if states else None


def under_voltage() -> Optional[bool]:
    """Whether a Raspberry Pi's supply was too weak (driver rpi_volt); None where no driver tells."""
    names = system_texts("sys/class/hwmon/hwmon*/name")
    folders = [os.path.dirname(path) for path, name in names.items() if name == "rpi_volt"]
    alarms = [read_text(f"{folder}/in0_lcrit_alarm") for folder in folders]
    return "1" in alarms if any(alarms) else None


def temperature_c() -> Optional[float]:
    """The hottest thermal zone, in degrees Celsius."""
    found = system_numbers("sys/class/thermal/thermal_zone*/temp")
    return max(found) / 1000 if found else None


def clock_khz() -> Optional[int]:
    """The rate of the fastest clock among this process's cores: the true one, else (it is root's) the wished one."""
    found = [
        cpu_numbers(cpu, "cpufreq/cpuinfo_cur_freq", "cpufreq/scaling_cur_freq") for cpu in os.sched_getaffinity(0)
    ]
    return max((rate for rates in found for rate in rates), default=None)


def cpu_numbers(cpu: int, *names: str) -> List[int]:
    """What the kernel tells of a core in the first of these files that it lets be read."""
    found = (system_numbers(f"sys/devices/system/cpu/cpu{cpu}/{name}") for name in names)
    return next((numbers for numbers in found if numbers), [])


def frequencies() -> Dict[str, Optional[int]]:
    """The clock of this process's first core in kHz: wished, true (None where it is not told), and its bounds."""
    first = min(os.sched_getaffinity(0))

    def told(name: str) -> Optional[int]:
        return next(iter(cpu_numbers(first, f"cpufreq/{name}")), None)

    true_hz = ask_vcgencmd("measure_clock", "arm")
    true_khz = told("cpuinfo_cur_freq") or (int(true_hz) // 1000 if true_hz.isdigit() else None)
    bounds = {"min_khz": told("scaling_min_freq"), "max_khz": told("scaling_max_freq")}
    return {"wished_khz": told("scaling_cur_freq"), "true_khz": true_khz, **bounds}


def pin_to_fastest(threads: int) -> Optional[List[int]]:
    """Keeps this process on the device's fastest cores; the cores, None where all are alike or there are too few.

    As fast counts what has nine tenths of the best: the kernel's ``cpu_capacity``, else the highest clock.
    """
    allowed = sorted(os.sched_getaffinity(0))
    found = [cpu_numbers(cpu, "cpu_capacity", "cpufreq/cpuinfo_max_freq") for cpu in allowed]
    speeds = [min(numbers) if numbers else 0 for numbers in found]
    fastest = [cpu for cpu, speed in zip(allowed, speeds) if speed >= 0.9 * max(speeds)]
    if min(speeds) <= 0 or len(fastest) == len(allowed) or len(fastest) < threads:
        return None
    try:
        os.sched_setaffinity(0, fastest)
    except OSError:
        return None
    return fastest


def memory_available() -> Optional[int]:
    """MemAvailable in bytes."""
    return memory_field("MemAvailable")


@functools.lru_cache(maxsize=1)
def is_emulated() -> bool:
    """True under qemu-user: it hides behind /proc/self, but not behind the same link of this thread."""
    with contextlib.suppress(OSError):
        if "qemu" in os.path.basename(os.readlink(f"/proc/self/task/{os.getpid()}/exe")):
            return True
    return os.uname().machine.startswith(("aarch64", "arm")) and "vendor_id" in read_text("/proc/cpuinfo")


def is_held_down() -> bool:
    """Whether something throttles this device now, as far as it tells."""
    return bool((throttled_bits() or 0) & 0xF or cooling_state() or under_voltage())


def is_cool(degrees: List[Optional[float]], held_down: bool) -> bool:
    """Whether a device that was looked at so often (the last look last) is as cool as it gets; pure.

    It is where nothing throttles it and it is below COOL_C, or has not got cooler by COOL_FALL_C in COOL_LOOKS looks.
    """
    last = [each for each in degrees[-COOL_LOOKS:] if each is not None]
    if held_down or not last or last[-1] <= COOL_C:
        return not held_down
    return len(last) == COOL_LOOKS and last[0] - last[-1] < COOL_FALL_C


def wait_until_cool(limit_s: float, progress: Progress) -> float:
    """Waits until the device is as cool as it gets, ``limit_s`` at most; the seconds that it took."""
    started = time.monotonic()
    degrees: List[Optional[float]] = [temperature_c()]
    while not is_cool(degrees, is_held_down()) and time.monotonic() - started < limit_s:
        progress.tell("cooling", int(time.monotonic() - started), int(limit_s), "s")
        time.sleep(min(COOL_LOOK_S, limit_s))
        degrees.append(temperature_c())
    return time.monotonic() - started


def memory_field(name: str) -> Optional[int]:
    """A field of /proc/meminfo in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", read_text("/proc/meminfo"), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


def swap_used() -> Optional[int]:
    """The bytes that are swapped out."""
    total, free = memory_field("SwapTotal"), memory_field("SwapFree")
    return total - free if total is not None and free is not None else None


def busy_s() -> Optional[float]:
    """Seconds that all cores together have been busy since boot (proc(5): user to steal, without idle and iowait)."""
    fields = read_text("/proc/stat").partition("\n")[0].split()
    if fields[:1] != ["cpu"] or not all(text.isdigit() for text in fields[1:]):
        return None
    numbers = [int(text) for text in fields[1:9]]
    return (sum(numbers) - sum(numbers[3:5])) / os.sysconf("SC_CLK_TCK")


class Clocks:
    """Whether this device's clock was set, or the device slept, since the last look (in seconds, both added up)."""

    def __init__(self) -> None:
        self.jumped_s = 0.0
        self.slept_s = 0.0
        self._wall, self._asleep = self._read()

    @staticmethod
    def _read() -> Tuple[float, float]:
        """The wall clock against one that counts sleep, and that one against one that does not."""
        boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.time() - boot, boot - time.monotonic()

    def look(self) -> None:
        """What a time server slews (at most 500 ppm, adjtimex(2)) is no jump."""
        wall, asleep = self._read()
        if abs(wall - self._wall) >= CLOCK_JUMP_S:
            self.jumped_s += wall - self._wall
        if asleep - self._asleep >= CLOCK_JUMP_S:
            self.slept_s += asleep - self._asleep
        self._wall, self._asleep = wall, asleep


class Conditions:
    """What the device was like before, during and after the timed runs; it is looked at between two runs only.

    Looks are at least SAMPLE_INTERVAL_S apart, and further where one is dear (a program to ask): they take a hundredth
    of the time at most. Of many, every second one is kept; a throttling that was seen once stays seen.
    """

    def __init__(self, pinned: Optional[List[int]] = None) -> None:
        self.series: List[Dict[str, Any]] = []
        self._pinned = pinned
        self._started = self._next = time.monotonic()
        self._interval_s = SAMPLE_INTERVAL_S
        self._cost_s = 0.0
        self._clocks = Clocks()
        self._seen: List[str] = []
        self._told: Optional[bool] = None
        self._first_bits: Optional[int] = None
        self._first_count: Optional[int] = None
        self.watch(0)
        self._usage = resource.getrusage(resource.RUSAGE_SELF)
        self._busy = busy_s()
        self._left_out_s = 0.0
        self._before = {
            "load1": os.getloadavg()[0],
            "memory_available_bytes": memory_available(),
            "swap_used_before_bytes": swap_used(),
            "frequencies_before": frequencies(),
        }

    def watch(self, run: int) -> None:
        """Looks, where it is time for it, before the timed run of this number."""
        started = time.monotonic()
        if started < self._next:
            return
        self._clocks.look()
        sample = {
            "at_s": round(started - self._started, 3),
            "run": run,
            "temperature_c": temperature_c(),
            "clock_khz": clock_khz(),
            "throttled_bits": throttled_bits(),
            "throttle_count": throttle_count(),
            "cooling_state": cooling_state(),
            "under_voltage": under_voltage(),
        }
        self._judge(sample)
        self.series.append({key: value for key, value in sample.items() if value is not None})
        if len(self.series) >= SERIES_LIMIT:
            del self.series[1::2]
            self._interval_s *= 2
        cost = time.monotonic() - started
        self._cost_s += cost
        self._next = started + max(self._interval_s, SAMPLE_COST * cost)

    def _judge(self, sample: Mapping[str, Any]) -> None:
        """Which kinds of throttling a look tells of that were not seen before."""
        bits, count = sample["throttled_bits"], sample["throttle_count"]
        if not self.series:
            self._first_bits, self._first_count = bits, count
        told = {}
        if bits is not None:
            new = bits & 0xF | (bits & ~(self._first_bits or 0)) >> 16 & 0xF
            told.update({name: bool(new >> bit & 1) for bit, name in enumerate(THROTTLED_BITS)})
        if count is not None:
            told["throttled"] = told.get("throttled", False) or count > (self._first_count or 0)
        if sample["cooling_state"] is not None:
            told["held down against heat"] = sample["cooling_state"] > 0
        if sample["under_voltage"] is not None:
            told["under-voltage"] = told.get("under-voltage", False) or sample["under_voltage"]
        if told:
            self._told = True
        self._seen += [name for name, is_so in told.items() if is_so and name not in self._seen]

    def finish(self, runs: int) -> Dict[str, Any]:
        """The conditions as plain values; ``throttled`` is None where the device does not tell."""
        self._next = 0.0
        self.watch(runs)
        last = self.series[-1]
        degrees = [sample["temperature_c"] for sample in self.series if "temperature_c" in sample]
        voltage = [sample["under_voltage"] for sample in self.series if "under_voltage" in sample]
        known = self._first_bits is not None or bool(voltage)
        governors = system_texts("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        return {
            "throttled": bool(self._seen) if self._told else None,
            "throttled_by": self._seen,
            "throttled_before": self._first_bits if self._first_bits is not None else self._first_count,
            "throttled_after": last.get("throttled_bits", last.get("throttle_count")),
            "under_voltage": THROTTLED_BITS[0] in self._seen if known else None,
            "temperature_c": degrees[-1] if degrees else None,
            "temperature_before_c": degrees[0] if degrees else None,
            "temperature_max_c": max(degrees) if degrees else None,
            "governor": next(iter(governors.values()), None),
            "frequencies_after": frequencies(),
            **self._before,
            **self._shared(),
            "clock_jump_s": round(self._clocks.jumped_s, 3),
            "slept_s": round(self._clocks.slept_s, 3),
            "swap_used_bytes": swap_used(),
            "kernel": " ".join((os.uname().sysname, os.uname().release, os.uname().version)),
            "cpus": self._pinned,
            "nice": os.getpriority(os.PRIO_PROCESS, 0),
            "emulated": is_emulated(),
            "looks_s": round(self._cost_s, 6),
        }

    @contextlib.contextmanager
    def left_out(self) -> Iterator[None]:
        """While another release has its turn, what it takes of the cores is not taken from this one."""
        started, before = time.monotonic(), busy_s()
        yield
        after = busy_s()
        if self._busy is not None and before is not None and after is not None:
            self._busy += after - before
        self._left_out_s += time.monotonic() - started

    def _shared(self) -> Dict[str, Any]:
        """What other programs took since the start: of all cores' time, and how often they broke into this process."""
        usage, busy = resource.getrusage(resource.RUSAGE_SELF), busy_s()
        own = sum(getattr(usage, key) - getattr(self._usage, key) for key in ("ru_utime", "ru_stime"))
        share = None
        if busy is not None and self._busy is not None and not is_emulated():
            elapsed = (time.monotonic() - self._started - self._left_out_s) * (os.cpu_count() or 1)
            share = round(min(max((busy - self._busy - own) / elapsed, 0.0), 1.0), 4)
        return {
            "others_cpu_share": share,
            "involuntary_switches": usage.ru_nivcsw - self._usage.ru_nivcsw,
            "major_faults": usage.ru_majflt - self._usage.ru_majflt,
        }


# ----------------------------------------------------------------------------------------------------- measuring


class Progress:
    """Tells the agent how far a measurement is, a few times a second, through a pipe of its own."""

    def __init__(self, descriptor: Optional[int]) -> None:
        self._descriptor = descriptor
        self._told_at = 0.0

    def tell(self, step: str, done: int, total: Optional[int], unit: str, last: bool = False) -> None:
        """Reports ``done`` of ``total`` (None where the end is unknown)."""
        now = time.monotonic()
        if self._descriptor is None or (now - self._told_at < PROGRESS_INTERVAL_S and not last):
            return
        self._told_at = now
        self.say({"step": step, "done": done, "total": total, "unit": unit})

    def say(self, report: Mapping[str, Any]) -> None:
        """Sends the agent one report, now."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, json.dumps(report).encode("ascii") + b"\n")


def read_check_set(path: str, numpy: Any) -> Dict[str, Any]:
    """The arrays of a check set, none of which is read before all of them are known to fit into the memory.

    Raises LoaderError "bad-check-set" where it is none or holds more than 512 MiB, "memory-short" where the device has
    no memory for its arrays and as much again (for what the model makes of them).
    """
    try:
        total = check_set_bytes(path, numpy)
        if total > CHECK_SET_LIMIT:
            raise ValueError(f"its arrays hold {total:,} bytes, {CHECK_SET_LIMIT:,} are the most")
        require_memory(2 * total, memory_available(), "the check set")
        with numpy.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (LoaderError, MemoryError):
        raise
    except Exception as error:  # numpy and zipfile raise a dozen kinds over a file that lies
        raise LoaderError("bad-check-set", f"check.npz cannot be read: {str(error)[:200]}.", CHECK_SET_HINT) from error


def check_set_bytes(path: str, numpy: Any) -> int:
    """What its arrays hold together, by their headers (NPY format version 1, which is what arrays of numbers have).

    The end of the ZIP is looked at first (APPNOTE.TXT 4.3.16): zipfile reads a directory into memory at once.
    """
    import zipfile  # here and not above: only a measurement needs it

    total = 0
    with open(path, "rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 42, 0))
        tail = file.read()
        locator, end = tail[:-22], tail[-22:]
        if not end.startswith(b"PK\5\6") or not end.endswith(b"\0\0") or locator.startswith(b"PK\6\7"):
            raise ValueError("it is no .npz")
        if int.from_bytes(end[12:16], "little") > CHECK_SET_DIRECTORY_LIMIT:
            raise ValueError("its directory is larger than that of any check set")
        with zipfile.ZipFile(file) as archive:
            if len({name[:-4] for name in archive.namelist()}) < len(archive.namelist()):
                raise ValueError("it holds an array twice")
            for info in archive.infolist():
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"{info.filename[:80]!r} is compressed in a way that arrays are not")
                with archive.open(info) as stream:
                    if numpy.lib.format.read_magic(stream) != (1, 0):
                        raise ValueError(f"{info.filename[:80]!r} is no array of numbers")
                    shape, _, dtype = numpy.lib.format.read_array_header_1_0(stream)
                count = 1
                for length in shape:  # numpy's own product wraps around
                    if length < 0:
                        raise ValueError(f"{info.filename[:80]!r} has a negative size")
                    count *= length
                total += count * dtype.itemsize
    return total


class CheckSet:
    """The release's check set: inputs, and what they are held against; without one, random inputs.

    An input is there as numbers (``input/<name>``), or as the integers that the model's tensor holds for them
    (``raw/<name>``, a quarter of the bytes in int8) with their scale and zero point (``quantization/<name>``). Those
    become numbers again a batch at a time, and the model makes the same integers of them:
    ``rint((q - zero_point) * scale / scale) + zero_point`` is q, since float32 is off by less than 0.01 for 16 bits.
    """

    def __init__(self, model: Model, path: str) -> None:
        self._numpy = importlib.import_module("numpy")
        self._model = model
        self.arrays: Dict[str, Any] = {}
        if os.path.isfile(path):
            self.arrays = read_check_set(path, self._numpy)
        self.inputs: List[Any] = [self._stored(info) for info in model.inputs] if self.arrays else []
        self.samples = len(self.inputs[0]) if self.arrays else 0

    def _stored(self, info: TensorInfo) -> Any:
        raw, found = self.arrays.get(f"raw/{info.name}"), ""
        stored = self.arrays.get(f"input/{info.name}") if raw is None else raw
        if stored is None:
            found = f"check.npz has no samples for the input {info.name!r} of the model."
        elif raw is not None and self._numpy.shape(self.arrays.get(f"quantization/{info.name}")) != (2,):
            found = f"check.npz does not say what the integers of the input {info.name!r} stand for."
        if found:
            raise LoaderError("bad-check-set", found, CHECK_SET_HINT)
        return stored

    def _rows(self, start: int, stop: int) -> List[Any]:
        """Each input's numbers of these samples."""
        blocks = []
        for info, array in zip(self._model.inputs, self.inputs):
            block = array[start:stop]
            if f"raw/{info.name}" in self.arrays:
                scale, zero = self.arrays[f"quantization/{info.name}"]
                block = numbers_of(block, scale, zero, self._numpy)
            blocks.append(block)
        return blocks

    def tensors(self, random: bool = False) -> List[List[Any]]:
        """Batches of real samples in the model's dtypes, INPUT_BATCHES or INPUT_BYTES of them at most.

        Random ones where there is no check set, or where ``random`` ones are asked for, in the samples' sizes then.
        """
        model = self._model
        size = model.batch_size
        if self.samples < size:
            return self._random([tensor.shape for tensor in model.zeros()])
        try:
            model.fit([(size, *array.shape[1:]) for array in self.inputs])
        except InputMismatch as error:
            raise LoaderError("bad-check-set", f"check.npz does not fit: {error.message}", CHECK_SET_HINT) from None
        if random:
            return self._random(model.shapes)
        batches: List[List[Any]] = []
        limit = max(1, min(INPUT_BATCHES, INPUT_BYTES // max(1, sum(tensor.nbytes for tensor in model.zeros()))))
        for start in range(0, min(self.samples - size + 1, limit * size), size):
            blocks = [info.accept(a) for info, a in zip(model.inputs, self._rows(start, start + size))]
            batches.append([model._to_tensor(i, b).copy() for i, b in zip(model.inputs, blocks)])
        return batches

    def batch_of(self, row: int) -> List[Any]:
        """One sample in the model's dtypes, repeated where the model takes several at once."""
        numpy, model = self._numpy, self._model
        blocks = [numpy.repeat(block, model.batch_size, axis=0) for block in self._rows(row, row + 1)]
        model.fit([block.shape for block in blocks])
        return [model._to_tensor(i, i.accept(block)).copy() for i, block in zip(model.inputs, blocks)]

    def _random(self, shapes: List[Tuple[int, ...]]) -> List[List[Any]]:
        numpy = self._numpy
        random = numpy.random.RandomState(0)
        batches = []
        for _ in range(RANDOM_BATCHES):
            batch = []
            for info, shape in zip(self._model.inputs, shapes):
                if info.dtype.kind == "f":
                    batch.append(random.uniform(-1, 1, shape).astype(info.dtype))
                elif info.scale is not None:
                    limits = numpy.iinfo(info.dtype)
                    batch.append(random.randint(limits.min, limits.max + 1, shape).astype(info.dtype))
                else:
                    batch.append(numpy.zeros(shape, info.dtype))
            batches.append(batch)
        return batches

    def run(self, progress: Progress) -> Dict[str, Any]:
        """The model's outputs over the whole check set, and the references to hold them against."""
        numpy, model = self._numpy, self._model
        columns: Dict[str, List[Any]] = {info.name: [] for info in model.outputs}
        step = model.batch_size
        for start in range(0, self.samples, step):
            named = {i.name: block for i, block in zip(model.inputs, self._rows(start, start + step))}
            result = model.predict(named)
            result = result if isinstance(result, dict) else {model.outputs[0].name: result}
            for name, value in result.items():
                columns[name].append(value if getattr(value, "ndim", 0) else numpy.asarray([value]))
            progress.tell("check", min(start + step, self.samples), self.samples, "samples")
        outputs = {f"device/{name}": numpy.concatenate(parts).astype("f4") for name, parts in columns.items()}
        kept = {k: a for k, a in self.arrays.items() if k == "labels" or k.startswith(("float/", "quantized/"))}
        return {**outputs, **kept}


def median(values: Sequence[float]) -> float:
    """The middle value."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return float(ordered[half]) if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def timed_runs(model: Model, batches: List[List[Any]]) -> Iterator[int]:
    """Endless runs over the samples in turn: the nanoseconds of each ``invoke``, and of nothing else."""
    invoke, clock = model.bare_invoke(), time.perf_counter_ns
    while True:
        for batch in batches:
            model.set_raw(batch)
            start = clock()
            invoke()
            yield clock() - start


def settled_at(times: List[int]) -> Optional[int]:
    """How many runs at the start are warm-up; None where the times never settle, or are too few to tell (40).

    The rule is that of edgepack.statistics.warmup_runs, which holds it against synthetic traces: the level is the
    median of the last half of the logarithms of the medians of five runs each, the spread its normal-consistent MAD.
    It is steady where the medians of its two halves differ by at most 3 %, or the spread; the warm-up ends before the
    first batch within 3 %, or three spreads, of the level that one of the next two confirms, in the first half.
    """
    starts = range(0, len(times) - WARMUP_BATCH + 1, WARMUP_BATCH)
    if len(starts) < WARMUP_BATCHES or min(times) <= 0:
        return None
    batches = [math.log(sorted(times[start : start + WARMUP_BATCH])[WARMUP_BATCH // 2]) for start in starts]
    half = len(batches) // 2
    last = batches[half:]
    level = median(last)
    spread = 1.4826 * median([abs(batch - level) for batch in last])
    quarter = len(last) // 2
    if abs(median(last[:quarter]) - median(last[quarter:])) > max(WARMUP_AGREEMENT, spread):
        return None
    near = [abs(batch - level) <= max(WARMUP_AGREEMENT, 3 * spread) for batch in batches]
    settled = next((i for i in range(half) if near[i] and (near[i + 1] or near[i + 2])), None)
    return None if settled is None else settled * WARMUP_BATCH


def warm_up(runs: Iterator[int], limit_s: float, progress: Progress, conditions: Conditions) -> Tuple[List[int], int]:
    """Runs until the times have settled, at most ``limit_s``: (the nanoseconds, the first run's first; how many runs).

    Of more than WARMUP_LIMIT every second one goes.
    """
    started = now = time.monotonic()
    taken: List[int] = []
    made, every, look_again = 0, 1, WARMUP_BATCH * WARMUP_BATCHES
    while not taken or now - started <= limit_s:
        conditions.watch(0)
        nanoseconds = next(runs)
        if made % every == 0:
            taken.append(nanoseconds)
        made += 1
        progress.tell("warm-up", made, None, "runs")
        now = time.monotonic()
        if made >= look_again and now - started >= WARMUP_LEAST_S:
            if settled_at(taken) is not None:
                break
            look_again = made + made // 2
        if len(taken) >= WARMUP_LIMIT:
            del taken[1::2]
            every *= 2
    return taken, made


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Python's garbage collector held off, what it would collect collected before."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def measure_latency(
    runs: Iterator[int], options: Mapping[str, Any], progress: Progress, conditions: Conditions
) -> Tuple[List[int], int, str]:
    """(nanoseconds of the runs, of which every n-th is kept, n, what ended it).

    It ends with "runs", or "seconds" where the time was up before enough were made. Of more than KEPT_RUNS every second
    one goes, over all of the time alike, and no percentile with it.
    """
    min_runs = min(int(options.get("min_runs", 50)), MAX_RUNS)
    kept_runs = max(KEPT_RUNS, 2 * min_runs)
    min_s, max_s = float(options.get("min_seconds", 2.0)), float(options.get("max_seconds", 60.0))
    latency: List[int] = []
    made, every = 0, 1
    started = now = due = time.monotonic()
    while True:
        if now >= due:
            conditions.watch(made)
            progress.tell("latency", made, min_runs, "runs")
            due = now + PROGRESS_INTERVAL_S
        nanoseconds = next(runs)
        if made % every == 0:
            latency.append(nanoseconds)
        made += 1
        now = time.monotonic()
        if len(latency) >= min_runs and now - started >= min(min_s, max_s):
            return latency, every, "runs"
        if now - started >= max_s:
            return latency, every, "seconds"
        if len(latency) >= kept_runs:
            del latency[1::2]
            every *= 2


def measure_in_turns(
    runs: Iterator[int], turns: queue.SimpleQueue[int], progress: Progress, conditions: Conditions
) -> Tuple[List[int], int, str]:
    """As :func:`measure_latency`, but so many runs at a time as the agent asks for, until it asks for none.

    Another release's process has the device in between, and its data the caches: each turn begins with runs that do not
    count. ``ready`` tells the agent what a run takes, ``turn`` that one is over.
    """
    latency: List[int] = []
    progress.say({"ready": median([next(runs) for _ in range(USUAL_RUNS)])})
    while True:
        with conditions.left_out():
            count = turns.get()
        if not count:
            return latency, 1, "turns"
        warm_from = time.monotonic() + SETTLING_S
        next(runs)
        while time.monotonic() < warm_from:
            next(runs)
        for _ in range(min(count, MAX_RUNS - len(latency))):
            conditions.watch(len(latency))
            latency.append(next(runs))
            progress.tell("latency", len(latency), None, "runs")
        progress.say({"turn": len(latency)})


def peak_rss_bytes() -> Optional[int]:
    """The most memory this process has had resident: the kernel's VmHWM, which, unlike ru_maxrss, begins at exec."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", read_text("/proc/self/status"), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


def ask_child(release: Release, threads: Optional[int], path: str, *words: str) -> Dict[str, Any]:
    """What another process of this loader wrote to ``path``; empty where it did not come to that."""
    argv = [release.interpreter, "-I", os.path.join(release.folder, "loader.py"), words[0], path, *words[1:]]
    if threads:
        argv += ["--threads", str(threads)]
    with contextlib.suppress(OSError):
        subprocess.run(argv, stdin=subprocess.DEVNULL, check=False)
    return read_json(path)


def measure_peak(model: Model, output: str) -> Optional[int]:
    """The peak memory of a process that does nothing but load the model and run it; no timed run shares it."""
    shapes = json.dumps(model.shapes)
    told = ask_child(model.release, model.threads, os.path.join(output, "peak.json"), "peak", "--shapes", shapes)
    return int(told["peak_rss_bytes"]) if told.get("peak_rss_bytes") else None


def write_peak(path: str, threads: Optional[int], shapes: List[Tuple[int, ...]]) -> int:
    """The child of :func:`measure_peak`."""
    model = Model(HERE, threads)
    model.fit(shapes)
    for _ in range(3):
        model.set_raw(model.zeros())
        model.bare_invoke()()
    write_json(path, {"peak_rss_bytes": peak_rss_bytes()})
    return 0


def measure_cold(release: Release, threads: Optional[int], output: str) -> Optional[float]:
    """Milliseconds to load (as ``load_ms``) in a process that finds nothing of model and runtime in the file cache.

    None where the model stays there: on tmpfs, where another process has it mapped, or where the kernel does not tell.
    """
    if is_emulated():
        return None
    paths = [release.model_path]
    for folder in release.runtime_folders().values():
        paths += [os.path.join(base, name) for base, _, names in os.walk(folder) for name in names]
    for path in paths:
        drop_cache(path)
    if cached_bytes(release.model_path) != 0:
        return None
    told = ask_child(release, threads, os.path.join(output, "cold.json"), "cold")
    return float(told["load_ms"]) if told.get("load_ms") else None


def write_cold(path: str, threads: Optional[int]) -> int:
    """The child of :func:`measure_cold`."""
    write_json(path, {"load_ms": Model(HERE, threads, cautious=True).load_ms})
    return 0


def drop_cache(path: str) -> None:
    """Asks the kernel to forget a file's cached pages, as far as nobody uses them; nothing on the disk changes."""
    with contextlib.suppress(OSError, AttributeError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # what is not written yet is not forgotten
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def cached_bytes(path: str) -> Optional[int]:
    """How much of a file is in the kernel's cache (mincore(2)); None where that cannot be told.

    Since Linux 5.2 all of a file that is not this user's counts as cached.
    """
    try:
        import ctypes
        import mmap

        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as mapped:
            pages = (ctypes.c_ubyte * (-(-len(mapped) // mmap.PAGESIZE)))()
            first = ctypes.c_char.from_buffer(mapped)
            address, length = ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(len(mapped))
            done = ctypes.CDLL(None).mincore(address, length, pages)
            del first  # else the map cannot be closed
    except (ImportError, OSError, ValueError, AttributeError):
        return None
    return None if done else sum(page & 1 for page in pages) * mmap.PAGESIZE


def measure(output: str, options: Mapping[str, Any]) -> int:
    """Writes ``measurement.json`` and, with a check set, ``outputs.npz`` into ``output``; or ``error.json``."""
    turns: queue.SimpleQueue[int] = queue.SimpleQueue()
    if options.get("watch_stdin"):
        threading.Thread(target=follow_stdin, args=(turns,), daemon=True).start()
    if options.get("nice"):
        os.nice(int(options["nice"]))
    try:
        if options.get("layers"):
            measurement = keep_tensors(output, options)
        elif options.get("samples"):
            measurement = answer_samples(output, options)
        else:
            measurement = take_measurement(output, options, turns)
    except LoaderError as error:
        write_json(
            os.path.join(output, "error.json"), {"code": error.code, "message": error.message, "hint": error.hint}
        )
        return 1
    except MemoryError:
        message = "The device ran out of memory while the model was measured."
        error_path = os.path.join(output, "error.json")
        write_json(error_path, {"code": "out-of-memory", "message": message, "hint": MEMORY_HINT})
        return 1
    write_json(os.path.join(output, "measurement.json"), measurement)
    return 0


def take_measurement(output: str, options: Mapping[str, Any], turns: queue.SimpleQueue[int]) -> Dict[str, Any]:
    """What :func:`measure` writes down."""
    progress = Progress(options.get("progress_fd"))
    release = Release(HERE)
    threads = int(options["threads"]) if options.get("threads") else None
    cooled_s = wait_until_cool(float(options["cool_s"]), progress) if options.get("cool_s") else None
    pinned = pin_to_fastest(threads or release.threads or 1) if options.get("pin", True) else None
    progress.tell("load", 0, None, "")
    latency_only = bool(options.get("latency_only"))
    cold_load_ms = None if latency_only else measure_cold(release, threads, output)
    release.verify_model()  # which leaves the model in the file cache
    conditions = Conditions(pinned)
    model = Model(HERE, threads, cautious=True)
    check = CheckSet(model, release.check_path if options.get("check", True) else "")
    real = check.samples >= model.batch_size and not options.get("random_inputs")
    batches = check.tensors(random=not real)
    runs = timed_runs(model, batches)
    max_s = float(options.get("max_seconds", 60.0))
    with without_collector():
        warmup, warmup_runs = warm_up(runs, max_s * WARMUP_SHARE, progress, conditions)
        if options.get("turns"):
            latency, every, stopped_by = measure_in_turns(runs, turns, progress, conditions)
        else:
            latency, every, stopped_by = measure_latency(runs, options, progress, conditions)
    finished = conditions.finish(len(latency) * every)
    ran = {
        "runtime": model.runtime_info(),
        "delegate": model.delegate_use(),
        "operators": model.operators(),
        "threads": model.threads,
        "tensors": {
            "inputs": [one.to_json() for one in model.inputs],
            "outputs": [one.to_json() for one in model.outputs],
        },
    }
    if check.samples and not latency_only:
        numpy = importlib.import_module("numpy")
        path = os.path.join(output, "outputs.npz")
        with open(path + ".new", "wb") as file:
            numpy.savez(file, **check.run(progress))
        os.replace(path + ".new", path)
    model.close()
    return {
        "schema": 1,
        "latency_ns": latency,
        "every": every,
        "warmup_ns": warmup,
        "warmup_runs": warmup_runs,
        "import_ms": model.import_ms,
        "load_ms": model.load_ms,
        "cold_load_ms": cold_load_ms,
        "first_ms": warmup[0] / 1e6,
        "peak_rss_bytes": None if latency_only else measure_peak(model, output),
        "runs": len(latency),
        "stopped_by": stopped_by,
        "inputs": "check set" if real else "random",
        **ran,
        "conditions": {**finished, "cooled_s": cooled_s},
        "series": conditions.series,
        "check": {"samples": check.samples} if check.samples else None,
    }


def write_arrays(path: str, arrays: Mapping[str, Any]) -> None:
    """Writes an .npz whole or not at all."""
    numpy = importlib.import_module("numpy")
    with open(path + ".new", "wb") as file:
        numpy.savez(file, **arrays)
    os.replace(path + ".new", path)


def answer_samples(output: str, options: Mapping[str, Any]) -> Dict[str, Any]:
    """Writes the model's outputs for ``samples.npz`` (inputs as in a check set) into ``outputs.npz``; times nothing."""
    model = Model(HERE, int(options["threads"]) if options.get("threads") else None, cautious=True)
    check = CheckSet(model, os.path.join(output, "samples.npz"))
    write_arrays(os.path.join(output, "outputs.npz"), check.run(Progress(options.get("progress_fd"))))
    model.close()
    return {"schema": 1, "check": {"samples": check.samples}}


def keep_tensors(output: str, options: Mapping[str, Any]) -> Dict[str, Any]:
    """Writes what every operator made of some samples of the check set: ``outputs.npz`` with ``tensor/<index>``.

    The samples are the options ``row0``, ``row1``, ... (``layers`` of them). Arrays are [samples, *shape] in the
    tensors' own dtypes, inputs first, then in the order of execution, together at most ``keep_bytes``: fewer samples
    first, then fewer tensors (``left_out``).
    """
    numpy = importlib.import_module("numpy")
    progress = Progress(options.get("progress_fd"))
    model = Model(HERE, int(options["threads"]) if options.get("threads") else None, cautious=True, keep=True)
    check = CheckSet(model, model.release.check_path)
    rows = [int(options[f"row{number}"]) for number in range(min(int(options["layers"]), KEPT_ROWS))]
    if not rows or not all(0 <= row < check.samples for row in rows):
        raise LoaderError("bad-check-set", f"check.npz has no samples {rows}.", CHECK_SET_HINT)
    check.batch_of(rows[0])  # gives open sizes those of the samples
    require_memory(2 * model.kept_bytes(), memory_available(), "the model with all its tensors kept")
    columns: Dict[int, List[Any]] = {}
    left, left_out, done = int(options.get("keep_bytes", KEPT_BYTES)), 0, 0
    for row in rows:
        batch = check.batch_of(row)
        model.set_raw(batch)
        model.bare_invoke()()
        kept = [*((info.index, block) for info, block in zip(model.inputs, batch)), *model.kept()]
        size = sum(array.nbytes for _, array in kept)
        if columns and size > left:
            break
        for index, array in kept:
            if array.nbytes > left:
                left_out += 1
            else:
                left -= array.nbytes
                columns.setdefault(index, []).append(array)
        done += 1
        progress.tell("layers", done, len(rows), "samples")
    alike = {
        i: parts for i, parts in columns.items() if len({part.shape for part in parts}) == 1 and len(parts) == done
    }
    arrays = {f"tensor/{i}": numpy.stack(parts) for i, parts in alike.items()}
    path = os.path.join(output, "outputs.npz")
    with open(path + ".new", "wb") as file:
        numpy.savez_compressed(file, **arrays)
    os.replace(path + ".new", path)
    runtime = model.runtime_info()
    model.close()
    return {"schema": 1, "rows": rows[:done], "left_out": left_out + len(columns) - len(alike), "runtime": runtime}


def follow_stdin(turns: queue.SimpleQueue[int]) -> None:
    """Ends this process when its standard input does: the agent that started it is gone. Its lines say what to run."""
    pending = b""
    with contextlib.suppress(OSError):
        for data in iter(lambda: os.read(0, 4096), b""):
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                turns.put(int(line) if line.isdigit() else 0)
    os._exit(9)


# ------------------------------------------------------------------------------------------------------ the command


def predict_file(source: str, target: Optional[str]) -> int:
    """Runs the model on a file's arrays; writes an .npz, or prints shapes and the largest entries."""
    with Model() as model:
        numpy = importlib.import_module("numpy")
        try:
            loaded = numpy.load(source, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputMismatch(
                f"{source} cannot be read: {error}.", "Give a .npy or .npz file without pickles."
            ) from None
        if isinstance(loaded, numpy.ndarray):
            result = model.predict(loaded)
        else:
            with loaded:
                arrays = {name: loaded[name] for name in loaded.files}
            only = next(iter(arrays.values())) if len(arrays) == 1 and len(model.inputs) == 1 else None
            result = model.predict(only) if only is not None else model.predict(arrays)
        results = result if isinstance(result, dict) else {model.outputs[0].name: result}
        if target:
            with open(target, "wb") as file:
                numpy.savez(file, **results)
        for name, array in results.items():
            print(f"{name} {list(array.shape)} {array.dtype}")
            if not target:
                print(numpy.array2string(array, threshold=64, precision=6))
    return 0


def verify() -> int:
    """Every digest, and whether the model loads; prints what it found."""
    release = Release(HERE)
    damaged = release.find_damage()
    if damaged:
        raise LoaderError("release-damaged", f"Damaged: {', '.join(damaged)}.", PUSH_HINT)
    with Model() as model:
        runtime = model.runtime_info()
    print(f"{os.path.basename(release.folder)}: whole; loads on {runtime['package']} {runtime['version']}")
    return 0


def parse(arguments: Optional[List[str]]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="loader.py", description="Runs the model of the release that this file lies in."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="what the model takes and gives, and what runs it (JSON)")
    predict = commands.add_parser("predict", help="run the model on a .npy or .npz file")
    predict.add_argument("input")
    predict.add_argument("-o", "--output", help="write the results here (.npz)")
    commands.add_parser("verify", help="compute every digest anew and load the model")
    measuring = commands.add_parser("measure", help="measure latency, memory and the check set's outputs")
    measuring.add_argument("outdir")
    measuring.add_argument("--options", type=json.loads, default={}, help="JSON: threads, min_runs, min_seconds, ...")
    peak = commands.add_parser("peak")
    peak.add_argument("path")
    peak.add_argument("--shapes", type=json.loads, required=True)
    cold = commands.add_parser("cold")
    cold.add_argument("path")
    worker = commands.add_parser("worker")
    for command in (peak, cold, worker):
        command.add_argument("--threads", type=int)
    return parser.parse_args(arguments)


def main(arguments: Optional[List[str]] = None) -> int:
    """Runs one command; returns the exit code."""
    args = parse(arguments)
    try:
        if args.command == "measure":
            return measure(args.outdir, args.options)
        if args.command == "worker":
            return serve_worker(args.threads)
        if args.command == "peak":
            return write_peak(args.path, args.threads, args.shapes)
        if args.command == "cold":
            return write_cold(args.path, args.threads)
        if args.command == "predict":
            return predict_file(args.input, args.output)
        if args.command == "verify":
            return verify()
        with Model() as model:
            print(json.dumps(model.info(), indent=2))
        return 0
    except LoaderError as error:
        print(f"loader.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
