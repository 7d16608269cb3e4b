"""``quantize`` with samples of every kind: the same pixels give the same bytes, whatever they come in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgepack import quantize
from edgepack.documents import QuantizeDocument
from edgepack.errors import InputError

COUNT, CALIBRATION = 40, 10
SCALED = {"range": [0.0, 1.0]}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray[Any, Any]:
    """Gray pictures, uint8 [40, 8, 8]."""
    return np.random.default_rng(5).integers(0, 256, (COUNT, 8, 8), np.uint8)


def as_npz(folder: Path, pixels: np.ndarray[Any, Any]) -> str:
    """What training had: float32 divided by 255."""
    np.savez(folder / "set.npz", x=pixels[..., None] / np.float32(255), y=np.arange(COUNT) % 4)
    return str(folder / "set.npz")


def as_images(folder: Path, pixels: np.ndarray[Any, Any]) -> str:
    """PNG files in four classes, which take turns."""
    for number, picture in enumerate(pixels):
        place = folder / "set" / "abcd"[number % 4]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{number:03}.png")
    return str(folder / "set")


def as_csv(folder: Path, pixels: np.ndarray[Any, Any]) -> str:
    """A line for each picture, the label as a word."""
    lines = [",".join([*(f"p{number}" for number in range(64)), "label"])]
    for number, picture in enumerate(pixels / np.float32(255)):
        lines.append(",".join([*map(repr, picture.reshape(-1).tolist()), "abcd"[number % 4]]))
    (folder / "set.csv").write_text("\n".join(lines))
    return str(folder / "set.csv")


def as_function(folder: Path, pixels: np.ndarray[Any, Any]) -> str:
    """A generator of pairs over a file of the user's own."""
    np.save(folder / "raw.bin", pixels)
    (folder / "my_training_data.py").write_text(
        "import pathlib\nimport numpy as np\n"
        "def pairs():\n"
        "    for n, p in enumerate(np.load(pathlib.Path(__file__).with_name('raw.bin.npy'))):\n"
        "        yield p[..., None] / np.float32(255), n % 4\n"
    )
    return "my_training_data:pairs"


def made(models: Path, folder: Path, samples: str, **options: Any) -> QuantizeDocument:
    """The classifier in int8, calibrated on the first rows and evaluated on the rest."""
    return quantize(
        models / "keras3.keras", target="generic-cpu", output=folder / "out.tflite", cache=False,
        calibration=f"{samples}#0:{CALIBRATION}", evaluation=f"{samples}#{CALIBRATION}:{COUNT}",
        preprocessing=SCALED, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def expected(
    small_models: Path, pixels: np.ndarray[Any, Any], tmp_path_factory: pytest.TempPathFactory
) -> QuantizeDocument:
    """What an .npz gives."""
    folder = tmp_path_factory.mktemp("npz")
    return made(small_models, folder, as_npz(folder, pixels))


@pytest.mark.parametrize("write", [as_images, as_csv, as_function])
def test_every_kind_gives_the_model_that_arrays_give(
    write: Callable[[Path, np.ndarray[Any, Any]], str],
    small_models: Path,
    pixels: np.ndarray[Any, Any],
    expected: QuantizeDocument,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same bytes, the same accuracy, the same check set; the audit's notes stand in the document."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_training_data", raising=False)
    document = made(small_models, tmp_path, write(tmp_path, pixels))
    assert document.model.sha256 == expected.model.sha256
    assert document.accuracy == expected.accuracy
    assert "few-samples" in [finding.code for finding in document.conformance.findings]
    with np.load(document.check_set or "") as mine, np.load(expected.check_set or "") as theirs:
        assert set(mine.files) == set(theirs.files)
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine.files)


def test_a_misfit_of_pictures_is_told_before_the_conversion(
    small_models: Path, pixels: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    """A stated size that the model does not take is exit 2, and no file is left."""
    samples = as_images(tmp_path, pixels)
    with pytest.raises(InputError, match=r"\[40, 16, 16, 1\]") as refusal:
        quantize(
            small_models / "keras3.keras", target="generic-cpu", output=tmp_path / "out.tflite",
            calibration=samples, preprocessing={**SCALED, "size": [16, 16]},
        )  # fmt: skip
    assert "[samples]" in refusal.value.hint
    assert not list(tmp_path.glob("out*"))
