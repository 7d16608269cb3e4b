from __future__ import annotations

from pathlib import Path

import pytest
from test_quantize_conformance import target

from edgepack.building import quantize
from edgepack.errors import EdgepackError, InputError, MisfitError
from edgepack.quantize.logs import log_folder, with_log
from edgepack.target import Scheme


def test_a_converters_failure_points_to_its_whole_log(small_models: Path, tmp_path: Path) -> None:
    """One sentence with the operator and a cure, and the path of a file that stays, with all that was printed."""
    floats = target(scheme=Scheme.FLOAT32, io="float32")
    with pytest.raises(MisfitError, match="MatrixDeterminant") as refusal:
        quantize(small_models / "determinant", target=floats, output=tmp_path / "out.tflite")
    log = Path(str(refusal.value.details["log"]))
    assert str(log) in refusal.value.hint
    assert "MatrixDeterminant" in log.read_text()
    assert "Traceback" in log.read_text()
    assert not list(tmp_path.iterdir())


def test_logs_do_not_pile_up(tmp_path: Path) -> None:
    """The last twenty are kept."""
    failure = MisfitError("conversion-failed", "It failed.")
    for number in range(25):
        (tmp_path / "worker.log").write_text(f"run {number}")
        kept = Path(str(with_log(failure, tmp_path / "worker.log").details["log"]))
    assert kept.read_text() == "run 24"
    assert len(list(log_folder().iterdir())) == 20


@pytest.mark.parametrize(
    ("error", "printed"),
    [(InputError("no-such-model", "None."), "words"), (MisfitError("conversion-failed", "It failed."), " \n")],
)
def test_no_log_is_kept_that_says_nothing(tmp_path: Path, error: EdgepackError, printed: str) -> None:
    """An error that says by itself what is wrong, or a converter that printed nothing, leaves no file."""
    (tmp_path / "worker.log").write_text(printed)
    assert with_log(error, tmp_path / "worker.log") is error
    assert not log_folder().exists()
