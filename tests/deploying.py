"""What tests of deploying share: a tiny bundle that fits this machine, and this machine as a device."""

from __future__ import annotations

import dataclasses
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from real_sshd import RealSshd

from edgepack.bundle.build import build_bundle
from edgepack.device import ConnectOptions, Session, connect
from edgepack.documents import BundleDocument
from edgepack.hostruntime import HostModel
from edgepack.target import MeasurePolicy, Platform, Target, load_target

TINY = Path(__file__).parent / "data" / "tiny_int8.tflite"
SAMPLES = 40
# The oldest C library that the wheels in runtimes.lock take.
_LIBC = "glibc-2.17" if sys.version_info < (3, 12) else "glibc-2.28"
PLATFORM = Platform(f"3.{sys.version_info.minor}", platform.machine(), _LIBC)
QUICK = MeasurePolicy(threads=1, min_runs=20, min_seconds=0.0, max_seconds=20.0)


@dataclass(frozen=True)
class Device:
    """A device that a test may do with what it wants; ``root`` is its edgepack folder, seen from here."""

    address: str
    options: ConnectOptions
    root: Path

    @property
    def where(self) -> dict[str, Any]:
        """The keyword arguments that reach it."""
        return {"device": self.address, "options": self.options}

    def session(self, *, lock: bool = False, app: str | None = None) -> Session:
        """A session with it."""
        return connect(self.address, self.options, app=app, lock=lock)

    def release(self, app: str, release: str) -> Path:
        """Where a release lies on it."""
        return self.root / "apps" / app / "releases" / release


def local_device(root: Path) -> Device:
    """This machine as a device, its edgepack folder at ``root``."""
    return Device(f"local:{root}", ConnectOptions(python=sys.executable), root)


def sshd_device(sshd: RealSshd, root: Path) -> Device:
    """The same behind a real OpenSSH sshd."""
    return Device(sshd.address, dataclasses.replace(sshd.options, root=str(root)), root)


def tiny_target(**budget: Any) -> Target:
    """This machine's profile, measured quickly, with a budget of just these limits."""
    target = load_target("x86-64")
    limits = {key: None for key, value in target.budget.to_json().items() if key != "gate" and value is not None}
    return dataclasses.replace(
        target, platforms=(PLATFORM,), measure=QUICK, budget=target.budget.override(limits | budget)
    )


def this_machine(folder: Path) -> Path:
    """A profile of this machine with a wide budget, in a file of its own."""
    path = folder / "this-machine.toml"
    path.write_text(
        'extends = "x86-64"\n[[platforms]]\n'
        f'python = "{PLATFORM.python}"\narch = "{PLATFORM.arch}"\nlibc = "{PLATFORM.libc}"\n'
        "[budget]\np95_ms = 1000.0\n[measure]\nmin_seconds = 0.0\n"
    )
    return path


def tiny_model(folder: Path, *, wrong: int = 0, noise: float = 0.0) -> Path:
    """The tiny classifier with a check set: the reference is right everywhere, the model wrong on ``wrong`` samples.

    ``noise`` is added to what the check set says that the host computed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "tiny.tflite"
    shutil.copyfile(TINY, model)
    images = np.random.default_rng(0).uniform(0, 1, (SAMPLES, 8, 8, 1)).astype(np.float32)
    output, scores = host_scores(model, images)
    labels = scores.argmax(axis=1)
    labels[:wrong] = (labels[:wrong] + 1) % scores.shape[1]
    reference = np.eye(scores.shape[1], dtype=np.float32)[labels]
    arrays = {
        "input/image": images,
        "labels": labels,
        f"float/{output}": reference,
        f"quantized/{output}": scores + noise,
    }
    np.savez(folder / "tiny.check.npz", **arrays)
    return model


def host_scores(model: Path, images: np.ndarray[Any, Any]) -> tuple[str, np.ndarray[Any, Any]]:
    """The name of the classifier's output, and its scores [N, 4] as floats, computed on this machine."""
    runtime = HostModel(model)
    rows = [runtime.run({"image": images[i : i + 1]}) for i in range(len(images))]
    name = next(iter(rows[0]))
    return name, np.concatenate([row[name] for row in rows])


def tiny_bundle(
    folder: Path,
    *,
    name: str = "tiny",
    version: str = "1.0.0",
    check_set: bool = True,
    target: Target | None = None,
    budget: Mapping[str, Any] | None = None,
    wrong: int = 0,
    noise: float = 0.0,
) -> tuple[Path, BundleDocument]:
    """A bundle of the tiny classifier without wheels: the device's own runtime does."""
    model = tiny_model(folder / f"{name}-{version}", wrong=wrong, noise=noise)
    if not check_set:
        model.with_suffix(".check.npz").unlink()
    path = folder / f"{name}-{version}.edgepack"
    document = build_bundle(
        model,
        target=target or tiny_target(**(budget or {})),
        name=name,
        version=version,
        output=path,
        with_runtime=False,
    )
    return path, document
