"""A full disk is told as a full disk, with exit code 2 and nothing left behind; no model is blamed."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_quantize_conformance import target
from test_quantize_tflite_source import sets

from edgepack.building import quantize
from edgepack.errors import InputError
from edgepack.quantize.disk import is_full_disk


class ResourceExhaustedError(Exception):
    """What TensorFlow calls a full disk, and memory that ran out."""


@pytest.mark.parametrize(
    ("fault", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EFBIG, "File too large"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ResourceExhaustedError("out/variables/part-0.tempstate1; No space left on device [Op:SaveV2]"), True),
        (ResourceExhaustedError("OOM when allocating tensor on /job:localhost/device:CPU:0"), False),
        (ValueError("the model"), False),
        (None, False),
    ],
)
def test_a_full_disk_is_known_by_number_and_by_words(fault: BaseException | None, full: bool) -> None:
    """Also where it is the cause of another error; memory that ran out is none."""
    assert is_full_disk(fault) == full
    outer = RuntimeError("conversion failed")
    outer.__cause__ = fault
    assert is_full_disk(outer) == full


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for 100 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts: a full disk is a mount of the test's own")
@pytest.mark.parametrize("side", ["output", "TMPDIR"])
def test_a_disk_without_room_is_told_before_anything_runs(
    small_models: Path, tmp_path: Path, tiny_disk: Path, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output's folder or that for temporary files, with what is free and what is needed."""
    if side == "TMPDIR":
        monkeypatch.setattr("tempfile.tempdir", str(tiny_disk))
    output = (tiny_disk if side == "output" else tmp_path) / "out.tflite"
    with pytest.raises(InputError, match=r"disk has 102\.4 KB free, and converting the model needs") as refusal:
        quantize(small_models / "keras3.keras", target=target(), output=output, **sets(small_models))
    assert refusal.value.code == "cannot-write"
    assert list(tiny_disk.iterdir()) == []


def test_a_disk_that_fills_up_while_tensorflow_writes_is_told(small_models: Path, tmp_path: Path) -> None:
    """TensorFlow's own words for it (here a file that may not grow) become exit code 2, and no file stays."""
    profile = tmp_path / "floats.toml"
    profile.write_text('extends = "generic-cpu"\n[quantization]\nscheme = "float32"\n')
    output = tmp_path / "made" / "out.tflite"
    output.parent.mkdir()
    command = [sys.executable, "-m", "edgepack", "quantize", small_models / "keras3.keras", "-t", profile, "--no-cache"]
    ran = subprocess.run(
        [*command, "-o", output],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert (ran.returncode, "ran into the disk" in ran.stderr) == (2, True), ran.stderr
    assert list(output.parent.iterdir()) == []
