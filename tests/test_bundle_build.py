"""Making, inspecting and verifying bundles."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from agent_client import device_pythons, record_digest
from bundle_models import BOOKWORM, make_bundle, through_the_index, write_model, write_wheel
from bundle_tiny import content_of
from deploying import TINY as CLASSIFIER
from tiny_tflite import tiny_model

import edgepack
from edgepack.bundle import choose_runtime, diff_bundles, document, open_bundle, verify_bundle
from edgepack.bundle.build import build_bundle, observed_scheme
from edgepack.bundle.wheels import folder_wheels
from edgepack.cli.render import platform_line
from edgepack.documents import to_json_value
from edgepack.errors import EdgepackError, InputError, IntegrityError, MisfitError
from edgepack.events import Event
from edgepack.target import Platform, load_target
from edgepack.target.lock import shipped_wheels
from edgepack.tflite import Tensor, read_model

TESTS = Path(__file__).parent


def test_a_bundle_holds_what_a_device_needs(tmp_path: Path) -> None:
    """Model, loader, door, recipe, check set and provenance are in the bundle, and the document says so."""
    made = make_bundle(tmp_path, check_set=True)
    bundle = open_bundle(tmp_path / "app.edgepack")
    assert set(bundle.entries) == {
        "model.tflite", "loader.py", "edgepack_device.py", "recipe.json", "check.npz", "provenance.json",
    }  # fmt: skip
    assert content_of(bundle, "model.tflite") == (tmp_path / "m.tflite").read_bytes()
    assert bundle.manifest.provenance == {"schema": 1, "options": {"scheme": "float32"}}
    assert bundle.manifest.target == load_target("raspberry-pi-4").to_json()
    assert made == document(bundle)
    shown = to_json_value(made)
    assert (shown["name"], shown["version"], shown["target"], shown["signature"]) == (
        "app",
        "1.0.0",
        "raspberry-pi-4",
        None,
    )
    assert shown["release"] == bundle.release
    assert shown["budget"]["p95_ms"] == 100.0
    assert shown["bytes"] == (tmp_path / "app.edgepack").stat().st_size
    assert json.loads(content_of(bundle, "recipe.json"))["file"] == "model.tflite"
    assert verify_bundle(tmp_path / "app.edgepack").files == 6


NOBODY = 65534
PURE_PACKAGES = ("flatbuffers", "tflite", "packaging")

BUILD = """
import os, sys, time
from pathlib import Path
folder, mask, day, user = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
sys.path[:0] = sys.argv[5:]
os.umask(mask)
import datetime
for name, now in {"time": lambda: day, "time_ns": lambda: int(day * 1e9)}.items():
    setattr(time, name, now)
for name in ("localtime", "gmtime", "ctime"):
    setattr(time, name, lambda at=None, real=getattr(time, name): real(day if at is None else at))
time.asctime = lambda at=None, real=time.asctime: real(at or time.localtime())
time.strftime = lambda form, at=None, real=time.strftime: real(form, at or time.localtime())
class Day(datetime.datetime):
    now = classmethod(lambda cls, tz=None: cls.fromtimestamp(day, tz))
    utcnow = classmethod(lambda cls: cls.utcfromtimestamp(day))
    today = now
class Date(datetime.date):
    today = classmethod(lambda cls: Day.now().date())
datetime.datetime, datetime.date = Day, Date
from edgepack.bundle.build import build_bundle
from edgepack.target import Platform, load_target
shelf = folder / "shelf"
runtime = (dict(wheels=shelf, sign_key=folder / "key", platforms=[Platform("3.13", "armv7l", "glibc-2.41")])
           if shelf.is_dir() else dict(with_runtime=False))
def build(name):
    build_bundle(folder / "m.tflite", target=load_target("raspberry-pi-4"), name="app", version="1",
                 output=folder / name, counter=3, **runtime)
build("first.edgepack")  # everything is imported now: another user may not read this Python's home
if user:
    for place in (folder, folder / "key"):
        if place.exists():
            os.chown(place, user, user)
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
build("out.edgepack")
"""


def pure_packages(folder: Path) -> Path:
    """What making a bundle without wheels needs besides the standard library; it runs on any Python."""
    folder.mkdir()
    for name in PURE_PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        (folder / name).symlink_to(Path(spec.origin).parent)
    return folder


def hosts() -> list[str]:
    """This Python, and the others of this machine that edgepack runs on."""
    others = [path for version, path in device_pythons().items() if version in ("3.11", "3.12", "3.13")]
    own = os.path.realpath(sys.executable)
    return [sys.executable, *(path for path in others if os.path.realpath(path) != own)]


@pytest.mark.parametrize("whole", [False, True], ids=["bare", "with wheels and a signature"])
def test_the_same_input_gives_the_same_bytes_anywhere(tmp_path: Path, whole: bool) -> None:
    """Python, user, folder, time zone, umask, locale, hash seed, file times and day change nothing about a bundle."""
    pythons = hosts()
    if len(pythons) < 2:
        pytest.skip("this machine has one Python only")
    packages = pure_packages(tmp_path / "packages")
    tmp_path.chmod(0o755)
    shelf = tmp_path / "own wheels"
    for name in (OWN, OWN_NUMPY):
        write_wheel(shelf, name)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    cases = [
        (pythons[0], "UTC", 0o022, "0", 1e9, 0, "C"),
        (pythons[0], "Asia/Tokyo", 0o077, "1", 1.9e9, NOBODY if os.geteuid() == 0 else 0, "C.UTF-8"),
        *((python, "America/St_Johns", 0o002, "2", 1.5e9, 0, "POSIX") for python in pythons[1:]),
    ]
    made = []
    for index, (python, zone, mask, seed, day, user, locale) in enumerate(cases):
        folder = Path(tempfile.mkdtemp(prefix=f"somewhere {index}", dir="/tmp"))
        try:
            model = write_model(folder, values=40_000, check_set=True)
            if whole:
                shutil.copytree(shelf, folder / "shelf")
                shutil.copy(tmp_path / "key", folder)
                shutil.copy(tmp_path / "key.pub", folder)
            for path in folder.iterdir():
                os.utime(path, (day - index * 1e6, day - index * 1e6))
                path.chmod(0o755 if path.is_dir() else 0o600 if path.name == "key" else 0o644)
            environment = {**os.environ, "TZ": zone, "PYTHONHASHSEED": seed, "LC_ALL": locale, "HOME": str(folder)}
            environment |= {"SOURCE_DATE_EPOCH": str(int(day)), "PYTHONDONTWRITEBYTECODE": "1"}
            command = [
                python,
                "-c",
                BUILD,
                str(folder),
                str(mask),
                str(day),
                str(user),
                str(TESTS.parent),
                str(packages),
            ]
            subprocess.run(command, check=True, env=environment, cwd=folder)
            assert model.exists()
            assert (folder / "out.edgepack").stat().st_uid == (user or os.geteuid())
            made.append((folder / "out.edgepack").read_bytes())
        finally:
            shutil.rmtree(folder)
    assert len(set(made)) == 1
    (tmp_path / "b.edgepack").write_bytes(made[0])
    bundle = open_bundle(tmp_path / "b.edgepack")
    assert (bundle.signature is not None, any(path.startswith("wheels/") for path in bundle.entries)) == (whole, whole)


def test_another_model_is_another_release(tmp_path: Path) -> None:
    """Two bundles of one version with different models never share a release id."""
    assert make_bundle(tmp_path / "a").release != make_bundle(tmp_path / "b", values=5).release
    assert make_bundle(tmp_path / "a").release == make_bundle(tmp_path / "c").release


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 65])
def test_a_name_that_cannot_be_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    """An app's name goes into paths on the device; one that cannot is refused before anything is written."""
    with pytest.raises(InputError) as caught:
        build_bundle(
            write_model(tmp_path), target=load_target("generic-cpu"), name=name, version="1", output=tmp_path / "o"
        )
    assert caught.value.code == "bad-name"
    assert not (tmp_path / "o").exists()


def test_bad_input_leaves_what_was_there(tmp_path: Path) -> None:
    """A model that is missing or no model, and a folder that is not there, change nothing and are exit 2."""
    output = tmp_path / "o.edgepack"
    output.write_text("before")
    (tmp_path / "text.tflite").write_text("hello, this is no model")
    model = write_model(tmp_path)
    for path, out in (
        (tmp_path / "missing.tflite", output),
        (tmp_path / "text.tflite", output),
        (model, tmp_path / "no" / "folder.edgepack"),
        (model, tmp_path),
        (model, model),
    ):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(InputError) as caught:
            build_bundle(path, target=load_target("generic-cpu"), name="a", version="1", output=out, with_runtime=False)
        assert caught.value.exit_code == 2
        assert caught.value.hint
        assert sorted(tmp_path.iterdir()) == before
    assert output.read_text() == "before"


def test_provenance_of_another_model_is_refused(tmp_path: Path) -> None:
    """A check set and provenance that a later model left behind are never packed with an older one."""
    model = write_model(tmp_path)
    beside = model.with_suffix(".provenance.json")
    for text, code in (
        (json.dumps({"model": {"sha256": "0" * 64}}), "stale-provenance"),
        ("{", "bad-provenance"),
        ("[]", "bad-provenance"),
        ('{"a": NaN}', "bad-provenance"),
    ):
        beside.write_text(text)
        with pytest.raises(InputError) as caught:
            build_bundle(
                model,
                target=load_target("generic-cpu"),
                name="a",
                version="1",
                output=tmp_path / "o",
                with_runtime=False,
            )
        assert caught.value.code == code


def test_a_platform_without_a_runtime_is_refused(tmp_path: Path) -> None:
    """A platform for which no wheel is locked is exit 5, and the error names it."""
    with pytest.raises(MisfitError) as caught:
        build_bundle(
            write_model(tmp_path),
            target=load_target("generic-cpu"),
            name="a",
            version="1",
            output=tmp_path / "o",
            platforms=[Platform("3.13", "armv7l", "glibc-2.41")],
        )
    assert caught.value.exit_code == 5
    assert "python 3.13, armv7l" in caught.value.message


def test_a_target_without_sshd_can_be_bundled(tmp_path: Path) -> None:
    """A profile that is not deployable still gives a bundle, without platforms."""
    made = build_bundle(
        write_model(tmp_path), target=load_target("android-gpu"), name="a", version="1", output=tmp_path / "o"
    )
    assert made.platforms == ()


def test_the_scheme_is_read_from_the_model(tmp_path: Path) -> None:
    """The document says how the model is really quantized, not what the target would have liked."""
    assert load_target("raspberry-pi-4").quantization.scheme == "int8"
    assert make_bundle(tmp_path).model["scheme"] == "float32"


@pytest.mark.parametrize(
    ("relative", "scheme"),
    [
        ("wakeword/str_ww_ref_model.tflite", "int8"),
        ("anomaly/ad01_fp32.tflite", "float32"),
        ("image/pretrainedResnet.tflite", "float32"),
    ],
)
def test_the_scheme_of_real_models_is_recognised(data: Path, relative: str, scheme: str) -> None:
    """MLPerf Tiny's own models are recognised for what they are."""
    assert observed_scheme(read_model(data / relative).tensors) == scheme


def _tensor(dtype: str, *, constant: bool, scaled: bool) -> Tensor:
    scales = (0.1,) if scaled else ()
    return Tensor(0, 0, "t", (1,), (1,), dtype, scales, (0,) * len(scales), 0, constant, 1 if constant else 0)


@pytest.mark.parametrize(
    ("tensors", "scheme"),
    [
        ([("int8", False, True), ("int8", True, True), ("int32", True, True)], "int8"),
        ([("uint8", False, True), ("uint8", True, True)], "int8"),
        ([("float32", False, False), ("int8", False, True), ("int8", True, True)], "int8"),
        ([("int16", False, True), ("int8", True, True)], "int16x8"),
        ([("float32", False, False), ("int8", True, True)], "dynamic"),
        ([("float32", False, False), ("float16", True, False)], "float16"),
        ([("float32", False, False), ("float32", True, False), ("int32", True, False)], "float32"),
    ],
)
def test_each_scheme_has_its_signature(tensors: list[tuple[str, bool, bool]], scheme: str) -> None:
    """Activations and constants together tell the scheme; index tensors (int32 without scales) say nothing."""
    made = tuple(_tensor(dtype, constant=constant, scaled=scaled) for dtype, constant, scaled in tensors)
    assert observed_scheme(made) == scheme


def test_progress_is_reported(tmp_path: Path) -> None:
    """Whoever calls hears what is being done."""
    events: list[Event] = []
    build_bundle(
        write_model(tmp_path),
        target=load_target("generic-cpu"),
        name="a",
        version="1",
        output=tmp_path / "o",
        with_runtime=False,
        report=events.append,
    )
    assert {event.step for event in events} == {"bundle"}
    assert len(events) >= 3


def test_a_diff_names_what_changed(tmp_path: Path) -> None:
    """Between two bundles the changed files and fields are told, and the rest is counted."""
    make_bundle(tmp_path / "a", check_set=True)
    make_bundle(tmp_path / "b", version="2.0.0", values=5)
    found = diff_bundles(open_bundle(tmp_path / "a/app.edgepack"), open_bundle(tmp_path / "b/app.edgepack"))
    assert found["removed"] == ["check.npz", "provenance.json"]
    assert found["added"] == []
    assert [change["path"] for change in found["changed"]] == ["model.tflite", "recipe.json"]
    assert found["fields"] == ["version", "model", "provenance"]
    assert found["unchanged"] == 2


def test_verify_names_the_file_that_differs(tmp_path: Path) -> None:
    """A changed byte in the model is exit 6, and the message says that it is the model."""
    make_bundle(tmp_path)
    path = tmp_path / "app.edgepack"
    entry = open_bundle(path).entries["model.tflite"]
    content = bytearray(path.read_bytes())
    content[entry.offset + 10] ^= 1
    path.write_bytes(content)
    with pytest.raises(EdgepackError, match=r"model\.tflite") as caught:
        verify_bundle(path)
    assert caught.value.exit_code == 6


def test_inspecting_a_bundle_is_light(tmp_path: Path) -> None:
    """Looking into a bundle and choosing a runtime import neither numpy nor TensorFlow nor paramiko nor tflite."""
    make_bundle(tmp_path)
    script = (
        "import sys\nfrom pathlib import Path\nfrom edgepack.bundle import document, open_bundle, verify_bundle\n"
        f"path = Path({str(tmp_path / 'app.edgepack')!r})\ndocument(open_bundle(path)); verify_bundle(path)\n"
        "heavy = {'numpy', 'tensorflow', 'paramiko', 'tflite', 'ai_edge_litert', 'typer'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=TESTS.parent)


TRIXIE32 = (Platform("3.13", "armv7l", "glibc-2.36"), Platform("3.13", "armv7l", "glibc-2.41"))
OWN = "tflite_runtime-2.17.0-cp313-cp313-linux_armv7l.whl"
OWN_NUMPY = "numpy-1.26.4-cp313-cp313-manylinux_2_31_armv7l.whl"


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder with wheels that somebody built, for a platform that no locked wheel is for, and with others."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    others = (
        OWN.replace("313", "312"),
        "scipy-1-py3-none-any.whl",
        "x.whl",
    )
    for name in (OWN, OWN_NUMPY, "numpy-2.2.4-cp313-cp313-linux_armv7l.whl"):
        write_wheel(folder, name)
    for name in others:
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_folder_brings_what_the_lock_lacks(tmp_path: Path, shelf: Path) -> None:
    """Wheels of one's own go into the bundle, with their digests in the manifest, and the same files give it again."""
    made = [
        edgepack.bundle(
            write_model(tmp_path), target="generic-cpu", name="app", version="1", output=tmp_path / f"{index}.edgepack",
            platforms=["3.13,armv7l,glibc-2.41"], wheels=shelf,
        )
        for index in range(2)
    ]  # fmt: skip
    assert made[0].sha256 == made[1].sha256
    runtime = made[0].platforms[0]["runtime"]
    assert (runtime["package"], runtime["version"]) == ("tflite-runtime", "2.17.0")
    assert runtime["wheels"] == [f"wheels/{OWN_NUMPY}", f"wheels/{OWN}"], "NumPy 2 never meets tflite-runtime"
    digests = {file.path: file.sha256 for file in made[0].files}
    assert digests[f"wheels/{OWN}"] == hashlib.sha256((shelf / OWN).read_bytes()).hexdigest()
    verify_bundle(tmp_path / "0.edgepack")
    with pytest.raises(MisfitError, match="--wheels FOLDER") as caught:
        edgepack.bundle(
            tmp_path / "m.tflite", target="generic-cpu", name="app", version="1", output=tmp_path / "2.edgepack",
            platforms=["3.13,armv7l,glibc-2.41"],
        )  # fmt: skip
    assert caught.value.code == "no-wheel"
    assert not (tmp_path / "2.edgepack").exists()


def test_a_required_delegate_keeps_the_runtime_that_it_is_paired_with(tmp_path: Path) -> None:
    """coral-usb for Python 3.13 is refused instead of given the other runtime; a wheel of one's own will do.

    On a platform that the profile names itself, the vendor's image has its runtime, and the bundle brings none.
    """
    (tmp_path / "m.tflite").write_bytes(CLASSIFIER.read_bytes())
    wanted: dict[str, Any] = {"name": "a", "version": "1", "output": tmp_path / "o"}
    trixie = {"platforms": ["3.13,aarch64,glibc-2.41"], **wanted}
    with pytest.raises(MisfitError, match="tflite-runtime cannot be bundled for") as caught:
        edgepack.bundle(tmp_path / "m.tflite", target="coral-usb", **trixie)
    assert caught.value.code == "no-wheel"
    assert "only for Python 3.8 to 3.11" in caught.value.message
    assert "python 3.11, aarch64, glibc-2.36" in caught.value.hint
    assert not (tmp_path / "o").exists()
    write_wheel(tmp_path / "own", "tflite_runtime-2.17.0-cp313-cp313-linux_aarch64.whl")
    made = edgepack.bundle(tmp_path / "m.tflite", target="coral-usb", wheels=tmp_path / "own", **trixie)
    assert [one["runtime"]["package"] for one in made.platforms] == ["tflite-runtime"]
    events: list[Event] = []
    made = edgepack.bundle(
        tmp_path / "m.tflite", target="imx8m-plus-npu", platforms=["3.12"], report=events.append, **wanted
    )
    runtime = made.platforms[0]["runtime"]
    assert (runtime["package"], runtime["wheels"]) == ("tflite-runtime", [])
    assert set(runtime["enough"]) == {"tflite-runtime"}
    assert any("no wheel for python 3.12" in event.message for event in events)
    yocto = {"tflite-runtime": "2.16.2", "numpy": "1.26.4"}
    choice = choose_runtime(open_bundle(tmp_path / "o").manifest, Platform("3.12", "aarch64", "glibc-2.39"), yocto)
    assert (choice.package, choice.version) == ("tflite-runtime", "2.16.2")


def test_only_a_wheel_is_packed_as_a_wheel(tmp_path: Path, shelf: Path) -> None:
    """Junk under a wheel's name, another wheel's content and a damaged file are refused by name; nothing is made."""

    def refused() -> EdgepackError:
        with pytest.raises(EdgepackError) as caught:
            edgepack.bundle(
                write_model(tmp_path), target="generic-cpu", name="app", version="1", output=tmp_path / "o.edgepack",
                platforms=["3.13,armv7l,glibc-2.41"], wheels=shelf,
            )  # fmt: skip
        assert OWN in caught.value.message
        assert not (tmp_path / "o.edgepack").exists()
        return caught.value

    (shelf / OWN).write_bytes(b"junk")
    assert (refused().code, refused().exit_code) == ("bad-wheel", 2)
    (shelf / OWN).write_bytes((shelf / OWN_NUMPY).read_bytes())
    assert "METADATA is that of numpy 1.26.4" in refused().message
    write_wheel(shelf, OWN, damage="tflite_runtime/__init__.py")
    assert (refused().code, refused().exit_code) == ("damaged-wheel", 6)
    whole = write_wheel(shelf, OWN).read_bytes()
    (shelf / OWN).write_bytes(whole[: len(whole) // 2])
    assert refused().code == "bad-wheel"


def test_a_locked_wheel_s_name_stands_for_its_locked_digest(tmp_path: Path) -> None:
    """A sound wheel under the name of a locked one, with another content, is exit 6 and never bundled."""
    locked = next(wheel for wheel in shipped_wheels() if wheel.package == "numpy" and wheel.arch == "aarch64")
    write_wheel(tmp_path / "shelf", locked.filename)
    with pytest.raises(IntegrityError, match="is not the wheel that") as caught:
        folder_wheels(tmp_path / "shelf", [Platform(locked.python, "aarch64", "glibc-2.41")])
    assert caught.value.code == "wheel-digest"


def test_wheels_and_without_runtime_exclude_each_other(tmp_path: Path, shelf: Path) -> None:
    """Options that contradict each other are exit 2, before anything is read."""
    with pytest.raises(InputError, match="--wheels and --without-runtime exclude each other"):
        edgepack.bundle(
            write_model(tmp_path), target="generic-cpu", name="app", version="1", output=tmp_path / "o.edgepack",
            wheels=shelf, with_runtime=False,
        )  # fmt: skip


def test_a_model_that_is_not_what_the_profile_means_is_noted(tmp_path: Path) -> None:
    """An uncompiled model for an accelerator with a compiler, and a model of another scheme, are said in words."""
    (tmp_path / "m.tflite").write_bytes(CLASSIFIER.read_bytes())
    events: list[Event] = []
    wanted: dict[str, Any] = {"name": "a", "version": "1", "output": tmp_path / "o", "with_runtime": False}
    edgepack.bundle(tmp_path / "m.tflite", target="coral-usb", report=events.append, **wanted)
    said = " ".join(event.message for event in events)
    assert "The model is not compiled for coral-usb" in said
    assert "edgetpu_compiler" in said
    events.clear()
    edgepack.bundle(tmp_path / "m.tflite", target="generic-gpu", report=events.append, **wanted)
    assert any("The model is int8, the profile asks for float16." in event.message for event in events)
    events.clear()
    edgepack.bundle(tmp_path / "m.tflite", target="generic-cpu", report=events.append, **wanted)
    assert not [event.message for event in events if "not compiled" in event.message or "asks for" in event.message]


def test_what_platforms_share_is_stored_once(tmp_path: Path, shelf: Path) -> None:
    """A bundle for two platforms is larger than one for a single platform by some lines of the manifest only."""
    sizes = []
    for count in (1, 2):
        made = build_bundle(
            write_model(tmp_path, values=5000), target=load_target("generic-cpu"), name="app", version="1",
            output=tmp_path / "o.edgepack", platforms=TRIXIE32[:count], wheels=shelf,
        )  # fmt: skip
        sizes.append(made.bytes)
        assert len(made.platforms) == count
    assert [file.path for file in made.files if file.path.startswith("wheels/")] == [
        f"wheels/{OWN_NUMPY}", f"wheels/{OWN}",
    ]  # fmt: skip
    assert sizes[1] - sizes[0] < 500
    content = (tmp_path / "o.edgepack").read_bytes()
    for shared in (shelf / OWN, shelf / OWN_NUMPY, tmp_path / "m.tflite"):
        assert content.count(shared.read_bytes()) == 1, shared.name


def test_a_model_that_the_profile_s_runtime_lacks_gets_the_other_one(tmp_path: Path) -> None:
    """FULLY_CONNECTED 12 is not in tflite-runtime 2.14: ai-edge-litert goes along, and that is said.

    What a device has is enough where it computes the model, and a profile with a delegate is not given another runtime.
    """
    (tmp_path / "m.tflite").write_bytes(tiny_model(version=12))
    events: list[Event] = []
    wanted: dict[str, Any] = {"name": "a", "version": "1", "output": tmp_path / "o", "with_runtime": False}
    made = edgepack.bundle(
        tmp_path / "m.tflite", target="raspberry-pi-4", platforms=["3.11"], report=events.append, **wanted
    )
    runtime = made.platforms[0]["runtime"]
    assert (runtime["package"], runtime["version"]) == ("ai-edge-litert", "2.3.0")
    assert runtime["enough"] == {"ai-edge-litert": "2.1"}
    assert any("ai-edge-litert 2.3 goes to python 3.11" in event.message for event in events)
    with pytest.raises(MisfitError, match="FULLY_CONNECTED is needed in version 12"):
        edgepack.bundle(tmp_path / "m.tflite", target="coral-usb", **wanted)
    (tmp_path / "m.tflite").write_bytes(tiny_model())
    made = edgepack.bundle(tmp_path / "m.tflite", target="raspberry-pi-4", platforms=["3.13"], **wanted)
    assert made.platforms[0]["runtime"]["enough"] == {"ai-edge-litert": "2.1", "tflite-runtime": "2.13"}


def test_a_device_with_its_own_runtime_needs_no_wheel_at_all(tmp_path: Path) -> None:
    """--without-runtime bundles for platforms that no wheel exists for: the device has what it needs."""
    made = edgepack.bundle(
        write_model(tmp_path), target="generic-cpu", name="a", version="1", output=tmp_path / "o",
        platforms=["3.13,armv7l,musl"], with_runtime=False,
    )  # fmt: skip
    assert made.platforms[0]["runtime"]["wheels"] == []
    shown = "Python 3.13, armv7l, musl: the device's own ai-edge-litert 2.1 or tflite-runtime 2.13, or newer"
    assert platform_line(made.platforms[0]) == shown
    choice = choose_runtime(
        open_bundle(tmp_path / "o").manifest, Platform("3.13", "armv7l", "musl"),
        {"tflite-runtime": "2.17.1", "numpy": "1.26.4"},
    )  # fmt: skip
    assert (choice.package, choice.use_installed) == ("tflite-runtime", ("numpy", "tflite-runtime"))


@pytest.mark.network
def test_a_bundle_carries_its_runtime(tmp_path: Path) -> None:
    """For bookworm's Python the bundle brings tflite-runtime and NumPy 1.26, each with the digest that is locked."""
    with through_the_index():
        made = build_bundle(
            write_model(tmp_path),
            target=load_target("raspberry-pi-4"),
            name="app",
            version="1",
            output=tmp_path / "o.edgepack",
            platforms=[BOOKWORM],
        )
    wheels = [file.path for file in made.files if file.path.startswith("wheels/")]
    assert [wheel.split("-")[0] for wheel in wheels] == ["wheels/numpy", "wheels/tflite_runtime"]
    assert made.platforms[0]["runtime"]["wheels"] == wheels
    assert made.platforms[0]["runtime"]["numpy"] == ">=1.23.2,<2"
    verify_bundle(tmp_path / "o.edgepack")
    bundle = open_bundle(tmp_path / "o.edgepack")
    records = bundle.manifest.records or {}
    assert {wheel: record_digest(content_of(bundle, wheel)) for wheel in wheels} == records, "as each wheel has it"
