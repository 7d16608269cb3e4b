"""What tests of several rooms share: a real sshd, and the MLPerf Tiny models and samples."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from real_sshd import RealSshd, sshd_program

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


def need_sshd() -> None:
    """Without sshd, tests of the real thing are skipped on a laptop and fail where CI promises to run them."""
    if sshd_program() is None:
        if os.environ.get("CI"):
            pytest.fail("CI has to have OpenSSH's sshd (Debian: openssh-server)")
        pytest.skip("there is no sshd (Debian: sudo apt install openssh-server)")


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSshd]:
    """A real OpenSSH sshd for the whole test run."""
    need_sshd()
    with RealSshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of the MLPerf Tiny models and samples, beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "mlperf-tiny"
    if not folder.is_dir():
        pytest.skip("the MLPerf Tiny data is not beside the repository")
    return folder


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small trained models of every kind, with samples; see tests/make_small_models.py."""
    folder = tmp_path_factory.mktemp("small-models")
    script = Path(__file__).parent / "make_small_models.py"
    made = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    return folder
