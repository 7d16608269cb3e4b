from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from edgepack.errors import InputError
from edgepack.quantize.sources import identify_source
from edgepack.quantize.trained import _unreadable


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("keras3.keras", "keras-3"),
        ("keras3.h5", "keras-3-h5"),
        ("keras3_exported", "saved-model"),
        ("keras2.keras", "keras-2"),
        ("keras2.h5", "keras-2-h5"),
        ("keras2_saved_model", "keras-2-saved-model"),
        ("module", "saved-model"),
    ],
)
def test_a_model_is_known_by_its_content(small_models: Path, tmp_path: Path, name: str, kind: str) -> None:
    """The kind and the Keras that wrote it are found whatever the file is called."""
    original = small_models / name
    renamed = tmp_path / "model.bin"
    (shutil.copytree if original.is_dir() else shutil.copy)(original, renamed)
    source = identify_source(renamed)
    assert source.kind == kind
    files = [file for file in original.rglob("*") if file.is_file()] or [original]
    assert source.bytes == sum(file.stat().st_size for file in files)


def test_the_digest_follows_the_content_alone(small_models: Path, tmp_path: Path) -> None:
    """A copied SavedModel has the same digest; one changed byte anywhere in it gives another."""
    copy = tmp_path / "copy"
    shutil.copytree(small_models / "module", copy)
    original = identify_source(small_models / "module").sha256
    assert identify_source(copy).sha256 == original
    index = next(copy.rglob("variables.index"))
    index.write_bytes(index.read_bytes()[:-1] + b"\x00")
    assert identify_source(copy).sha256 != original


def test_real_models_are_known(data: Path) -> None:
    """The MLPerf Tiny files are what they are."""
    kinds = {
        "kws/saved_model": "keras-2-saved-model",
        "wakeword/str_ww_ref_model.h5": "keras-2-h5",
        "anomaly/ad01_fp32.tflite": "tflite",
    }
    assert {name: identify_source(data / name).kind for name in kinds} == kinds


def code_of(path: Path) -> str:
    """The code of what is said about a model that is none."""
    with pytest.raises(InputError) as refusal:
        identify_source(path)
    assert refusal.value.hint
    assert str(path) in refusal.value.message
    return refusal.value.code


def test_what_is_no_model_is_told(small_models: Path, tmp_path: Path) -> None:
    """Nothing there, an empty folder, a text, samples, weights alone: each has its word."""
    text = tmp_path / "model.h5"
    text.write_text("not a model")
    assert code_of(tmp_path / "absent") == "no-such-model"
    assert code_of(tmp_path) == "unknown-model"
    assert code_of(text) == "unknown-model"
    assert code_of(small_models / "images.npz") == "unknown-model"
    assert code_of(small_models / "only.weights.h5") == "weights-only"


@pytest.mark.parametrize(
    ("name", "said"), [("keras2.h5", "bytes only"), ("keras3.keras", "as a ZIP archive it is cut short or garbled")]
)
def test_a_model_cut_short_is_told(small_models: Path, tmp_path: Path, name: str, said: str) -> None:
    """Half a file is exit 2 before TensorFlow sees it, in our words and not a library's."""
    half = tmp_path / name
    content = (small_models / name).read_bytes()
    half.write_bytes(content[: len(content) // 2])
    assert code_of(half) == "broken-model"
    with pytest.raises(InputError, match=said):
        identify_source(half)


@pytest.mark.parametrize(
    ("words", "clause"),
    [
        (
            "Unknown layer: 'Attention2'. Please ensure you are using a `keras.utils.custom_object_scope`",
            "'Attention2'.",
        ),
        ("Expected an instance of `KerasSaveable`, but got {'compile_config': None} of", "of `KerasSaveable`."),
        ("word " * 200, "word word …."),
        ("", "ValueError."),
    ],
)
def test_of_what_keras_says_a_clause_is_told(words: str, clause: str) -> None:
    """The class that is unknown is named; no page of a library's advice stands in a message."""
    message = _unreadable(Path("m.keras"), "keras-3", ValueError(words)).message
    assert message.endswith(clause)
    assert len(message) < 250


def test_code_inside_a_model_is_not_run(small_models: Path) -> None:
    """A Lambda layer is bytecode out of a file; it is refused before anything loads it."""
    assert code_of(small_models / "lambda.keras") == "lambda-layer"


def test_a_configuration_that_is_no_json_is_told(tmp_path: Path) -> None:
    """A .keras with garbage inside is a damaged model."""
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{")
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.0"}))
    assert code_of(path) == "broken-model"
