"""Sets of samples in folders of images: what a model gets of them, and what is said where something is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgepack.errors import InputError
from edgepack.events import ignore_events
from edgepack.quantize.arrays import Port
from edgepack.quantize.binding import read_batches
from edgepack.quantize.checking import check_content, read_labels, refuse_sorted_classes
from edgepack.quantize.overlap import refuse_overlap
from edgepack.quantize.preprocessing import preprocessing_from
from edgepack.quantize.samples import Samples, open_samples, samples_from_json

COLOR = (Port("image", (None, 4, 6, 3), "float32"),)
GRAY = (Port("image", (None, 4, 6, 1), "float32"),)
PLAIN = {"range": [0.0, 255.0]}


def pixels(seed: int = 0, height: int = 4, width: int = 6) -> np.ndarray[Any, Any]:
    """A random picture, uint8 [height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def picture(path: Path, seed: int = 0, height: int = 4, width: int = 6) -> np.ndarray[Any, Any]:
    """Write a random picture; its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, height, width)).save(path)
    return pixels(seed, height, width)


def opened(folder: Path | str, **options: Any) -> Samples:
    """The set, with those [samples]."""
    return open_samples(folder, preprocessing_from({**PLAIN, **options}))


def fed(folder: Path | str, inputs: tuple[Port, ...] = COLOR, **options: Any) -> np.ndarray[Any, Any]:
    """What the model gets of a folder."""
    batches = read_batches(opened(folder, **options), inputs, 3)
    return np.concatenate([next(iter(batch.values())) for batch in batches])


def refusal_of(folder: Path, inputs: tuple[Port, ...] = COLOR, **options: Any) -> InputError:
    """What is said about a folder that something is wrong with."""

    def use() -> None:
        check_content(opened(folder, **options), need_labels=False, report=ignore_events)
        fed(folder, inputs, **options)

    with pytest.raises(InputError) as refusal:
        use()
    return refusal.value


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, lambda p: p),
        ({"range": [0.0, 1.0]}, lambda p: p / 255),
        ({"range": [-1.0, 1.0]}, lambda p: p / 127.5 - 1),
        ({"colors": "bgr"}, lambda p: p[..., ::-1]),
        (
            {"range": [0.0, 1.0], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
            lambda p: (p / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        ),
        ({"mean": [103.939, 116.779, 123.68], "colors": "bgr"}, lambda p: p[..., ::-1] - [103.939, 116.779, 123.68]),
    ],
)
def test_pixels_become_what_training_made_of_them(tmp_path: Path, options: dict[str, Any], expected: Any) -> None:
    """Range, mean and std in the order of the colours, for the usual ways of training."""
    rows = np.stack([picture(tmp_path / f"{number}.png", number) for number in range(4)]).astype(np.float64)
    got = fed(tmp_path, **options)
    assert got.dtype == np.float32
    assert np.allclose(got, expected(rows), atol=1e-6, rtol=1e-6)


def test_pixels_divided_by_255_are_exactly_that(tmp_path: Path) -> None:
    """The same float32 numbers as numpy's division, to the last bit."""
    array = picture(tmp_path / "a.png")
    assert np.array_equal(fed(tmp_path, range=[0, 1])[0], array.astype(np.float32) / np.float32(255))


def test_gray_and_uint8_are_the_models_to_say(tmp_path: Path) -> None:
    """A model of one channel gets gray, one of whole numbers gets them."""
    array = picture(tmp_path / "a.png")
    gray = np.asarray(Image.fromarray(array).convert("L"))
    assert np.array_equal(fed(tmp_path, GRAY)[0, ..., 0], gray)
    raw = fed(tmp_path, (Port("image", (None, 4, 6, 3), "uint8"),))
    assert raw.dtype == np.uint8
    assert np.array_equal(raw[0], array)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_pictures_of_any_size_get_the_models(tmp_path: Path, resize: str) -> None:
    """Mixed sizes are brought to the input's height and width; a uniform picture stays uniform where it is."""
    Image.new("RGB", (60, 40), (200, 100, 50)).save(tmp_path / "wide.png")
    Image.new("RGB", (12, 80), (200, 100, 50)).save(tmp_path / "high.png")
    got = fed(tmp_path, resize=resize)
    assert got.shape == (2, 4, 6, 3)
    assert (got[1] == [200, 100, 50]).all()  # 60 x 40 has the shape of 6 x 4
    whole = (got[0] == [200, 100, 50]).all(axis=-1)
    assert whole.all() == (resize != "pad")
    assert whole.any(axis=0).sum() == (1 if resize == "pad" else 6)
    assert (got[0][~whole] == 0).all()


def test_a_stated_size_feeds_a_model_of_any_size(tmp_path: Path) -> None:
    """Without a size on either side the key is named."""
    picture(tmp_path / "a.png", height=9, width=9)
    open_port = (Port("image", (None, None, None, 3), "float32"),)
    assert fed(tmp_path, open_port, size=[5, 7]).shape == (1, 5, 7, 3)
    error = refusal_of(tmp_path, open_port)
    assert error.code == "no-size"
    assert "size = [height, width]" in error.hint


def test_sub_folders_are_classes_and_take_turns(tmp_path: Path) -> None:
    """Labels count the sorted names; any range of rows has its share of each class."""
    for name, count in (("dog", 3), ("bird", 2), ("cat", 3)):
        for number in range(count):
            picture(tmp_path / name / f"{number}.png", hash((name, number)) % 1000)
    assert read_labels(opened(tmp_path)).tolist() == [0, 1, 2, 0, 1, 2, 1, 2]  # type: ignore[union-attr]
    assert read_labels(opened(f"{tmp_path}#3:6")).tolist() == [0, 1, 2]  # type: ignore[union-attr]
    stated = read_labels(opened(tmp_path, classes=["cat", "bird", "fish", "dog"]))
    assert stated is not None
    assert sorted(stated.tolist()) == [0, 0, 0, 1, 1, 3, 3, 3]


def test_sub_folders_with_numbers_are_not_guessed(tmp_path: Path) -> None:
    """Where the name says another number than the place, the order of the classes has to be stated."""
    for number in (1, 2, 10):
        picture(tmp_path / str(number) / "a.png", number)
    error = refusal_of(tmp_path)
    assert error.code == "bad-label"
    assert "classes = [...]" in error.hint
    assert read_labels(opened(tmp_path, classes=["1", "2", "10"])).tolist() == [0, 2, 1]  # type: ignore[union-attr]


def test_a_sub_folder_without_images_is_not_counted_in_silence(tmp_path: Path) -> None:
    """It would shift every label after it."""
    picture(tmp_path / "dog" / "a.png")
    (tmp_path / "cat").mkdir()
    assert "decides every label" in refusal_of(tmp_path).message
    told = refusal_of(tmp_path, classes=["cats", "dog"]).message
    assert "none of the 2 classes (cats, dog). Did you mean 'cats'" in told


def test_a_class_that_is_not_there_does_not_shift_the_others(tmp_path: Path) -> None:
    """Two sub-folders for a model of three classes: the order has to be stated."""
    for name in ("cat", "dog"):
        picture(tmp_path / name / "a.png")
    refuse_sorted_classes(opened(tmp_path), 2)
    refuse_sorted_classes(opened(tmp_path), None)
    refuse_sorted_classes(opened(tmp_path, classes=["bird", "cat", "dog"]), 3)
    with pytest.raises(InputError, match=r"has 2 classes .* and the model has 3") as refusal:
        refuse_sorted_classes(opened(tmp_path), 3)
    assert refusal.value.code == "bad-label"
    (tmp_path / "labels.csv").write_text("file,label\ncat/a.png,cat\n")
    with pytest.raises(InputError, match="has 1 classes"):
        refuse_sorted_classes(opened(tmp_path), 3)


def test_labels_csv_says_otherwise(tmp_path: Path) -> None:
    """Its files in its order; a file that is missing is told with the line."""
    for number in range(3):
        picture(tmp_path / f"{number}.png", number)
    listing = tmp_path / "labels.csv"
    listing.write_text("label,file\nyes,2.png\nno,0.png\n")
    samples = opened(tmp_path)
    assert read_labels(samples).tolist() == [1, 0]  # type: ignore[union-attr]
    assert np.array_equal(fed(tmp_path)[0], pixels(2))
    listing.write_text("label,file\nyes,2.png\nno,7.png\n")
    error = refusal_of(tmp_path)
    assert error.code == "no-samples"
    assert "labels.csv, line 3" in error.message


def test_what_is_no_image_is_left_out_and_told(tmp_path: Path) -> None:
    """A note names it; what file managers leave is not worth one."""
    picture(tmp_path / "a.png")
    for name in ("notes.txt", ".hidden", "Thumbs.db"):
        (tmp_path / name).write_text("x")
    samples = opened(tmp_path)
    assert samples.rows == 1
    assert samples.store.left_out == ("notes.txt",)


def test_images_without_a_stated_range_are_refused(tmp_path: Path) -> None:
    """Nobody can guess whether training divided by 255; the message has what to write."""
    picture(tmp_path / "a.png")
    with pytest.raises(InputError, match="which numbers the model was trained with") as refusal:
        open_samples(tmp_path)
    assert refusal.value.code == "no-range"
    assert "range = [0.0, 1.0]" in refusal.value.hint


@pytest.mark.parametrize("damage", ["empty", "text", "truncated"])
def test_a_broken_image_is_named(tmp_path: Path, damage: str) -> None:
    """A picture that cannot be decoded is exit 2 with its path, before anything runs."""
    picture(tmp_path / "good.png")
    picture(tmp_path / "zbad.jpg", height=80, width=80)
    content = (tmp_path / "zbad.jpg").read_bytes()
    (tmp_path / "zbad.jpg").write_bytes(
        {"empty": b"", "text": b"hello", "truncated": content[: len(content) // 2]}[damage]
    )
    error = refusal_of(tmp_path)
    assert error.code == "bad-image"
    assert "zbad.jpg" in error.message


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    """A small file that unfolds to gigapixels is named, not unfolded."""
    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 200_000
    error = refusal_of(tmp_path)
    assert error.code == "bad-image"
    assert "bomb.png" in error.message


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    """Pillow would cut them off in silence."""
    Image.fromarray(np.full((4, 6), 40_000, np.uint16)).save(tmp_path / "deep.png")
    assert "8 bits" in refusal_of(tmp_path).message


def test_a_model_that_takes_no_images_is_told(tmp_path: Path) -> None:
    """Both shapes, and the way out."""
    picture(tmp_path / "a.png")
    error = refusal_of(tmp_path, (Port("features", (None, 640), "float32"),))
    assert "[N, 640]" in error.message
    assert "module:function" in error.hint


def test_images_beside_classes_are_refused(tmp_path: Path) -> None:
    """A picture that lies in no class has no label."""
    picture(tmp_path / "a.png")
    picture(tmp_path / "dog" / "b.png")
    assert "beside sub-folders" in refusal_of(tmp_path).message


def test_the_same_picture_in_another_folder_is_recognized(tmp_path: Path) -> None:
    """By its pixels, not its name or format."""
    for number in range(4):
        picture(tmp_path / "first" / f"{number}.png", number)
    for number in (2, 3):
        picture(tmp_path / "second" / f"other-{number}.bmp", number)
    sets = [
        check_content(opened(tmp_path / name), need_labels=False, report=ignore_events) for name in ("first", "second")
    ]
    with pytest.raises(InputError, match="2 rows") as refusal:
        refuse_overlap(*sets)
    assert refusal.value.details["rows"] == [[2, 0], [3, 1]]


def test_a_set_goes_to_another_process_as_text(tmp_path: Path) -> None:
    """With its preprocessing and its rows; a folder that has changed meanwhile is told."""
    for number in range(4):
        picture(tmp_path / f"{number}.png", number)
    samples = opened(f"{tmp_path}#1:3", range=[0, 1], mean=[0.5])
    again = samples_from_json(samples.to_json())
    assert again == samples
    picture(tmp_path / "0more.png")
    with pytest.raises(InputError, match="changed"):
        samples_from_json(samples.to_json())


def test_ten_thousand_pictures_do_not_live_in_memory(tmp_path: Path) -> None:
    """1.1 GB of samples pass through with little more than an empty set takes."""
    picture(tmp_path / "pictures" / "0.png", height=96, width=96)
    lines = "file,label\n" + "0.png,1\n" * 10_000
    (tmp_path / "pictures" / "labels.csv").write_text(lines)
    script = (
        "import resource, sys\n"
        "from edgepack.quantize.arrays import Port\n"
        "from edgepack.quantize.binding import read_batches\n"
        "from edgepack.quantize.preprocessing import preprocessing_from\n"
        "from edgepack.quantize.samples import open_samples\n"
        "port = (Port('x', (None, 96, 96, 3), 'float32'),)\n"
        "samples = open_samples(sys.argv[1], preprocessing_from({'range': [0, 1]}))\n"
        "next(read_batches(samples, port, 32))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "rows = sum(len(batch['x']) for batch in read_batches(samples, port, 32))\n"
        "print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "pictures")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, grown_mb = map(int, done.stdout.split())
    assert rows == 10_000
    assert grown_mb < 100
