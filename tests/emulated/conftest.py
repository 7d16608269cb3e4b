"""What the tests on emulated devices share: the user's own cache, where the devices lie, and one quantized model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from emulated_pi import Pi

import edgepack
from edgepack.device.emulated import SYSTEMS, list_devices, start, stop

TARGETS = sorted({name for system in SYSTEMS.values() for name in system.like})


@pytest.fixture(scope="module", autouse=True)
def _cache_of_this_module() -> None:
    """The user's own: making a device takes minutes."""


@pytest.fixture(autouse=True)
def _cache_of_this_test() -> None:
    """As of the module."""


@pytest.fixture(scope="session")
def pi(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Pi]]:
    """A device by its name. Those that these tests name are made side by side, where the cache has none.

    What did not run before is stopped at the end.
    """
    ran = {device.name for device in list_devices().devices if device.state == "running"}
    named = {name for name in SYSTEMS for item in request.session.items if name in item.nodeid} | {"pi-bookworm64"}
    with ThreadPoolExecutor(len(named)) as makers:
        started = {document.name: document for document in makers.map(start, sorted(named))}
    yield lambda name: Pi(started[name].device, Path(started[name].ssh_config))
    for name in named - ran:
        stop(name)


@pytest.fixture(scope="session")
def models(small_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Keras 2 SavedModel that has learned four patterns, quantized once for every profile of a Raspberry Pi."""
    folder = tmp_path_factory.mktemp("models")
    samples = small_models / "images.npz"
    made = edgepack.quantize(
        small_models / "keras2_saved_model",
        target=list(TARGETS),
        output=folder,
        calibration=f"{samples}#0:20",
        evaluation=f"{samples}#20:120",
        cache=False,
    )
    assert [model.within_budget for model in made.models] == [True] * len(TARGETS)
    shutil.copyfile(samples, folder / "images.npz")
    return folder


@pytest.fixture
def bundle(models: Path, tmp_path: Path) -> Callable[..., Path]:
    """A bundle of the model for a profile, in a version; with the runtime's wheels for each of its platforms.

    The keyword arguments are those of ``edgepack.bundle``: ``sign``, ``counter``.
    """

    def make(target: str, version: str, **more: Any) -> Path:
        path = tmp_path / f"{target}-{version}.edgepack"
        model = models / f"{target}.tflite"
        edgepack.bundle(model, target=target, name="patterns", version=version, output=path, **more)
        return path

    return make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these need the package index; a device that is made first takes its minutes."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.emulated)
            item.add_marker(pytest.mark.network)
            item.add_marker(pytest.mark.timeout(2400 if os.environ.get("CI") else 1500))
