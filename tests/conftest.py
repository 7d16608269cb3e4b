"""What tests of several rooms share: a real sshd, and the MLPerf Tiny models and samples."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from real_sshd import RealSshd, sshd_program

if TYPE_CHECKING:
    from deploying import Device

# A shell starts what runs in its background with SIGINT ignored, and children inherit that: Ctrl-C tests need it back.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes depends on what else the machine does; only what it shows counts.
settings.register_profile("edgepack", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgepack")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--slow`` runs the long proofs too."""
    parser.addoption("--slow", action="store_true", help="run the long proofs too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips the long proofs unless they were asked for."""
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="a long proof: --slow runs it"))


# What CI cannot have everywhere: the other reasons to skip are things that CI has to provide.
SKIPS_IN_CI = (
    "a long proof",
    "the MLPerf Tiny data is not beside the repository",
    "this Python has no TFLite runtime",
    "tflite-runtime ends at Python 3.11",
    "ai-edge-litert takes every numpy",
    "this machine has one Python only",
    "this machine has no Python ",
)
# A test that root alone can run says so in these words; CI that is root runs it.
if os.geteuid() != 0:
    SKIPS_IN_CI += ("only root",)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test that is skipped because something is missing has failed."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        needs_sshd = item.get_closest_marker("sshd") and "a long proof" not in reason
        if needs_sshd or not any(allowed in reason for allowed in SKIPS_IN_CI):
            report.outcome = "failed"
            report.longrepr = f"CI must be able to run {item.nodeid}: {reason}"
    return report


def need_sshd() -> None:
    """Without sshd, tests of the real thing are skipped on a laptop (CI does not take that for an answer)."""
    if sshd_program() is None:
        pytest.skip("there is no sshd (Debian: sudo apt install openssh-server)")


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSshd]:
    """A real OpenSSH sshd for the whole test run."""
    need_sshd()
    with RealSshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def here(tmp_path: Path) -> Device:
    """An empty device: this machine."""
    from deploying import local_device

    return local_device(tmp_path / "device")


@pytest.fixture(params=["local", pytest.param("sshd", marks=pytest.mark.sshd)])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Device:
    """An empty device: this machine, and a real OpenSSH sshd."""
    from deploying import local_device, sshd_device

    if request.param == "local":
        return local_device(tmp_path / "device")
    return sshd_device(request.getfixturevalue("sshd"), tmp_path / "device")


def _give_empty_cache(patch: pytest.MonkeyPatch, factory: pytest.TempPathFactory) -> None:
    """A cache folder with nothing in it but the wheels that were fetched before: those are the same for ever."""
    from edgepack.bundle.wheels import wheel_cache

    folder, wheels = factory.mktemp("cache"), wheel_cache().resolve()
    wheels.mkdir(parents=True, exist_ok=True)
    (folder / "edgepack").mkdir()
    (folder / "edgepack" / "wheels").symlink_to(wheels)
    patch.setenv("XDG_CACHE_HOME", str(folder))


@pytest.fixture(scope="module", autouse=True)
def _cache_of_this_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What an earlier run or another module made is not what this one tests."""
    with pytest.MonkeyPatch.context() as patch:
        _give_empty_cache(patch, tmp_path_factory)
        yield


@pytest.fixture(autouse=True)
def _cache_of_this_test(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor what another test made."""
    _give_empty_cache(monkeypatch, tmp_path_factory)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of the MLPerf Tiny models and samples, beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "mlperf-tiny"
    if not folder.is_dir():
        pytest.skip("the MLPerf Tiny data is not beside the repository")
    return folder


@pytest.fixture(scope="session")
def toy_delegate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real delegate library, compiled from tests/data/toy_delegate.c."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler (Debian: sudo apt install gcc libc6-dev)")
    source = Path(__file__).parent / "data" / "toy_delegate.c"
    library = tmp_path_factory.mktemp("delegate") / "libtoydelegate.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.fixture(scope="session")
def operator_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of .tflite files, one per kind of layer and scheme; see tests/make_operator_models.py."""
    folder = tmp_path_factory.mktemp("operator-models")
    script = Path(__file__).parent / "make_operator_models.py"
    made = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    return folder


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small trained models of every kind, with samples; see tests/make_small_models.py."""
    folder = tmp_path_factory.mktemp("small-models")
    script = Path(__file__).parent / "make_small_models.py"
    made = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    return folder
