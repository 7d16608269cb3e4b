"""edgepack.toml: read strictly, its paths resolved, flags before it; and the starter."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from edgepack.deploy.hooks import Hooks
from edgepack.device import ConnectOptions
from edgepack.errors import InputError
from edgepack.project import (
    Project,
    budget_from_pairs,
    connect_options,
    find_project,
    load_project,
)
from edgepack.starter import STARTER, starter, write_starter

FULL = """
[app]
name = "kws"
version = "1.0.0"
target = "raspberry-pi-4"
model = "saved_model"
calibration = "samples.npz#0:100"
eval = "/data/samples.npz#100:500"
check_set = "check"
[budget]
p95_ms = 20
max_accuracy_drop = 0.02
gate = "confident"
[hooks]
after_activate = ["systemctl", "--user", "restart", "kws"]
health = ["true"]
health_retries = 5
[ssh]
config = "ssh_config"
known_hosts = "~/hosts"
identity = "keys/id"
transport = "openssh"
root = "/opt/edgepack"
python = "python3.11"
"""


def written(folder: Path, text: str) -> Path:
    """An edgepack.toml with that text."""
    path = folder / "edgepack.toml"
    path.write_text(text)
    return path


def test_every_key_arrives_with_its_paths_resolved(tmp_path: Path) -> None:
    """Paths are relative to the file, ``~`` is the home folder, rows stay behind their #."""
    project = load_project(written(tmp_path, FULL))
    assert project == Project(
        folder=tmp_path,
        name="kws",
        version="1.0.0",
        target="raspberry-pi-4",
        model=tmp_path / "saved_model",
        calibration=f"{tmp_path}/samples.npz#0:100",
        eval="/data/samples.npz#100:500",
        check_set=f"{tmp_path}/check",
        budget={"p95_ms": 20, "max_accuracy_drop": 0.02, "gate": "confident"},
        hooks=Hooks(("systemctl", "--user", "restart", "kws"), ("true",), health_retries=5),
        ssh={
            "config": tmp_path / "ssh_config",
            "known_hosts": Path("~/hosts").expanduser(),
            "identity": tmp_path / "keys/id",
            "transport": "openssh",
            "root": "/opt/edgepack",
            "python": "python3.11",
        },
    )
    assert pickle.loads(pickle.dumps(project)) == project  # noqa: S301 - our own bytes


def test_an_empty_file_is_a_project_that_says_nothing(tmp_path: Path) -> None:
    """Every key is optional, and so are the tables."""
    assert load_project(written(tmp_path, "")) == Project(folder=tmp_path)


def test_a_target_with_a_slash_is_a_file_beside_the_project(tmp_path: Path) -> None:
    """A profile of one's own is found from any current folder; a name stays a name."""
    assert load_project(written(tmp_path, '[app]\ntarget = "./mine.toml"')).target == str(tmp_path / "mine.toml")


def test_no_project_is_no_error(tmp_path: Path) -> None:
    """A folder without an edgepack.toml has no project."""
    assert find_project(tmp_path) is None
    written(tmp_path, FULL)
    assert find_project(tmp_path) == load_project(tmp_path / "edgepack.toml")


def test_all_faults_are_told_at_once_with_the_nearest_names(tmp_path: Path) -> None:
    """Four mistakes give one error that names each, and what was meant."""
    text = '[app]\nnmae = "kws"\nversion = 1\n[bugdet]\n[hooks]\nhealth = "true"\n'
    with pytest.raises(InputError) as caught:
        load_project(written(tmp_path, text))
    assert caught.value.code == "bad-project"
    faults = caught.value.details["faults"]
    assert isinstance(faults, list)
    assert len(faults) == 4
    for words in ("nmae", "did you mean name", "app.version", "bugdet", "did you mean budget", "hooks.health"):
        assert words in str(caught.value), words


@pytest.mark.parametrize("name", ["../kws", "a b", "", "x" * 65, ".kws"])
def test_a_name_that_cannot_name_an_app_is_refused_early(tmp_path: Path, name: str) -> None:
    """An app's name becomes a folder on the device; what cannot is told when the project is read."""
    with pytest.raises(InputError, match=r"app\.name"):
        load_project(written(tmp_path, f'[app]\nname = "{name}"\n'))


def test_the_files_to_sign_with_are_found_from_the_project(tmp_path: Path) -> None:
    """[sign] names its files as the other tables do: beside the file, or in the home folder."""
    project = load_project(written(tmp_path, '[sign]\nkey = "~/.ssh/id_ed25519"\nallowed_signers = "signers"\n'))
    assert project.sign == {
        "key": Path("~/.ssh/id_ed25519").expanduser(), "allowed_signers": tmp_path / "signers",
    }  # fmt: skip


def test_what_is_no_toml_says_where(tmp_path: Path) -> None:
    """A syntax error names the file and the line."""
    with pytest.raises(InputError, match="line 2"):
        load_project(written(tmp_path, "[app]\nname = \n"))


def test_a_flag_wins_over_the_project_and_the_project_over_the_default(tmp_path: Path) -> None:
    """Precedence: flag (or environment), edgepack.toml, default."""
    flags = {"identity": Path("mine"), "connect_timeout": 3.0, "root": None, "transport": None, "python": None}
    project = load_project(written(tmp_path, FULL))
    assert connect_options(flags, project) == ConnectOptions(
        ssh_config=tmp_path / "ssh_config",
        identity=Path("mine"),
        known_hosts=Path("~/hosts").expanduser(),
        transport="openssh",
        connect_timeout_s=3.0,
        root="/opt/edgepack",
        python="python3.11",
        root_gives_way=True,
    )
    assert connect_options({"identity": None}, None) == ConnectOptions()


def test_budget_pairs_are_typed_and_lift_limits() -> None:
    """KEY=VALUE gives numbers and words; KEY=none takes a limit away."""
    assert budget_from_pairs(["p95_ms=20", "max_accuracy_drop=0.5", "gate=confident", "model_bytes=100"]) == {
        "p95_ms": 20,
        "max_accuracy_drop": 0.5,
        "gate": "confident",
        "model_bytes": 100,
    }
    assert budget_from_pairs(["p95_ms=none"]) == {"p95_ms": None}


@pytest.mark.parametrize(
    "pair", ["p95_ms", "=3", "p96_ms=3", "p95_ms=fast", "p95_ms=-1", "p95_ms=nan", "gate=maybe", "p96_ms=none"]
)
def test_a_pair_that_is_no_limit_is_refused(pair: str) -> None:
    """A limit that would be ignored in silence is an error instead."""
    with pytest.raises(InputError) as caught:
        budget_from_pairs([pair])
    assert caught.value.code == "bad-budget"


def test_the_starter_is_a_sound_project_with_every_line_uncommented_too(tmp_path: Path) -> None:
    """What `edgepack init` writes names the project only, and reads without a fault with every example on."""
    path = write_starter(tmp_path / "new")
    untouched = load_project(path)
    assert (untouched.name, untouched.version, untouched.target, untouched.model) == ("new", "0.1.0", None, None)
    assert (untouched.budget, untouched.hooks) == ({}, None)
    path.write_text(re.sub(r"^# (?=[a-z_0-9]+ = )", "", STARTER, flags=re.MULTILINE))
    project = load_project(path)
    assert project.name == "my-app"
    assert project.calibration == f"{tmp_path}/new/samples.npz#0:100"
    assert project.budget["gate"] == "point"
    assert project.hooks is not None
    assert project.samples["inputs"] == {"x": ["ax", "ay"]}
    assert project.ssh["transport"] == "ssh"


@pytest.mark.parametrize("name", ["my project", 'quo"te', "back\\slash", "ümläut", "...", "x" * 90])
def test_the_starter_names_the_model_that_is_there(tmp_path: Path, name: str) -> None:
    """A folder with one trained model gets it written in, and the folder's name is made one that an app can have."""
    folder = tmp_path / name
    folder.mkdir()
    model = folder / f"{name}.keras"
    model.touch()
    project = load_project(write_starter(folder))
    assert project.model == model
    assert project.name
    (folder / "other.h5").touch()
    assert load_project(write_starter(folder, force=True)).model is None


def test_samples_of_a_function_are_no_path(tmp_path: Path) -> None:
    """``module:function`` stays as it is; a file beside the edgepack.toml is found from anywhere."""
    text = '[app]\ncalibration = "my_data:rows#0:9"\neval = "set.csv"\n[samples]\nrange = [0, 1]\nmean = [0.5]\n'
    project = load_project(written(tmp_path, text))
    assert project.calibration == "my_data:rows#0:9"
    assert project.eval == f"{tmp_path}/set.csv"
    assert project.samples == {"range": [0, 1], "mean": [0.5]}


def test_samples_that_contradict_themselves_are_told(tmp_path: Path) -> None:
    """A mean without a range and a falling range, both at once."""
    with pytest.raises(InputError) as refusal:
        load_project(written(tmp_path, "[samples]\nrange = [1, 0]\nclasses = ['a', 'a']\n"))
    assert refusal.value.code == "bad-project"
    assert "must rise" in refusal.value.message
    assert "'a' stands there twice" in refusal.value.message


def test_the_starter_never_overwrites_unless_told_to(tmp_path: Path) -> None:
    """An edgepack.toml that is there stays, byte by byte; a dry run writes nothing."""
    assert not write_starter(tmp_path, dry_run=True).exists()
    path = written(tmp_path, FULL)
    with pytest.raises(InputError, match="there already"):
        write_starter(tmp_path)
    assert path.read_text() == FULL
    write_starter(tmp_path, force=True)
    assert path.read_text() == starter(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["edgepack.toml"]


def test_a_starter_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    """A file where the folder should be: an InputError with the path, and the file stays."""
    place = tmp_path / "file"
    place.write_text("mine")
    with pytest.raises(InputError) as caught:
        write_starter(place / "inner")
    assert caught.value.code == "output"
    assert place.read_text() == "mine"
