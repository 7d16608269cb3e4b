"""Wheels: locked by digest, fetched through pip, cached, never taken on trust."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform as host
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_client import device_pythons
from bundle_models import BOOKWORM, add_model, through_the_index
from serving import serving

from edgepack.bundle.download import require_fetching
from edgepack.bundle.lock import (
    WANTED,
    lock_text,
    lock_wheel,
    newer_version,
    oldest_glibc,
    platform_tags,
    renew,
)
from edgepack.bundle.wheels import fetch_wheels, wheel_cache
from edgepack.cli.main import run
from edgepack.digest import sha256_file
from edgepack.errors import InputError, IntegrityError
from edgepack.target import Platform, builtin_folder, load_target, version_tuple
from edgepack.target.lock import Wheel, choose_wheel, read_lock
from edgepack.target.solver import NUMPY_FOR, runtime_options

TINY = Path(__file__).parent / "data" / "tiny_int8.tflite"
NAME = "numpy-1.26.4-cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64.whl"


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder with one small wheel that pip accepts."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    with zipfile.ZipFile(folder / NAME, "w") as wheel:
        wheel.writestr("numpy-1.26.4.dist-info/METADATA", "Metadata-Version: 2.1\nName: numpy\nVersion: 1.26.4\n")
        wheel.writestr("numpy-1.26.4.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_17_aarch64\n")
        wheel.writestr("numpy-1.26.4.dist-info/RECORD", "")
    return folder


@pytest.fixture
def wheel(shelf: Path) -> Wheel:
    """The lock's line for the wheel on the shelf."""
    content = (shelf / NAME).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Wheel("numpy", "1.26.4", NAME, digest, len(content), "3.11", "aarch64", "2.17")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A pip that reaches no index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    return monkeypatch


def test_pip_fetches_what_the_lock_names_and_the_cache_keeps_it(
    tmp_path: Path, shelf: Path, wheel: Wheel, offline: pytest.MonkeyPatch
) -> None:
    """What was fetched once is there without any index; a damaged copy in the cache is fetched again."""
    cache = tmp_path / "cache"
    offline.setenv("PIP_FIND_LINKS", str(shelf))
    first = fetch_wheels([wheel], cache=cache)[NAME]
    assert first.read_bytes() == (shelf / NAME).read_bytes()
    assert [path.name for path in cache.rglob("*") if path.is_file()] == [NAME]
    offline.setenv("PIP_FIND_LINKS", "")
    assert fetch_wheels([wheel, wheel], cache=cache) == {NAME: first}
    first.write_bytes(b"damaged")
    with pytest.raises(InputError):
        fetch_wheels([wheel], cache=cache)
    offline.setenv("PIP_FIND_LINKS", str(shelf))
    assert fetch_wheels([wheel], cache=cache)[NAME].stat().st_size == wheel.bytes


def test_an_index_that_serves_another_file_is_refused(
    tmp_path: Path, shelf: Path, wheel: Wheel, offline: pytest.MonkeyPatch
) -> None:
    """A wheel of the right name with other bytes never gets into a bundle."""
    offline.setenv("PIP_FIND_LINKS", str(shelf))
    (shelf / NAME).write_bytes((shelf / NAME).read_bytes() + b"x")
    with pytest.raises(IntegrityError, match=f"{NAME} is not the wheel of numpy==1.26.4"):
        fetch_wheels([wheel], cache=tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.usefixtures("offline")
def test_without_a_network_the_error_names_the_way_out(tmp_path: Path, wheel: Wheel) -> None:
    """No index: exit 2, what was wanted, and the option that takes wheels from a folder."""
    with pytest.raises(InputError) as caught:
        fetch_wheels([wheel], cache=tmp_path / "cache")
    assert caught.value.code == "wheels-unavailable"
    assert "numpy==1.26.4" in caught.value.message
    assert "--wheels" in caught.value.hint


@pytest.fixture
def index(tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a plain index (PEP 503) with the wheel on the shelf; pip's usual one is empty."""
    for name, wheels in (("empty", []), ("simple", [shelf / NAME])):
        (tmp_path / name / "numpy").mkdir(parents=True)
        links = [f'<a href="/shelf/{path.name}">{path.name}</a>' for path in wheels]
        (tmp_path / name / "numpy" / "index.html").write_text("".join(links))
    with serving(tmp_path) as address:
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"{address}/empty")
        monkeypatch.setenv("PIP_RETRIES", "0")
        for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        yield f"{address}/simple"


def test_an_extra_index_serves_what_the_usual_one_lacks(tmp_path: Path, wheel: Wheel, index: str) -> None:
    """--extra-index: the locked wheel comes from there; where no index has it, the error says which was asked."""
    with pytest.raises(InputError, match=r"no page for numpy") as caught:
        fetch_wheels([wheel], cache=tmp_path / "cache", extra_indexes=[index.replace("simple", "nothing")])
    assert caught.value.code == "wheels-unavailable"
    found = fetch_wheels([wheel], cache=tmp_path / "cache", extra_indexes=[index])
    assert sha256_file(found[NAME]) == wheel.sha256


def test_an_extra_index_with_another_file_is_refused_by_name(tmp_path: Path, wheel: Wheel, index: str) -> None:
    """A wheel that is not the locked one is exit 6, and the message says where it lies."""
    other = dataclasses.replace(wheel, sha256="0" * 64)
    with pytest.raises(IntegrityError, match=rf"http://127\.0\.0\.1:\d+/shelf/{NAME} is not the wheel") as caught:
        fetch_wheels([other], cache=tmp_path / "cache", extra_indexes=[index])
    assert caught.value.code == "wheel-digest"
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_the_command_asks_the_extra_index(
    tmp_path: Path, index: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`bundle --extra-index`: what that index has under a locked name is fetched; another file there is exit 6."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    for package in ("numpy", "tflite-runtime"):
        locked = choose_wheel(read_lock(), package, BOOKWORM)
        assert locked is not None
        folder = tmp_path / "simple" / package
        folder.mkdir(exist_ok=True)
        (folder / locked.filename).write_bytes(b"another")
        (folder / "index.html").write_text(f'<a href="{locked.filename}">{locked.filename}</a>')
    output = tmp_path / "out.edgepack"
    words = ["--target", "raspberry-pi-4", "--platform", "3.11", "--name", "a", "--version", "1", "-o", str(output)]
    assert run(["bundle", str(TINY), *words, "--extra-index", index]) == 6
    assert f"{index}/" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.usefixtures("index")
def test_an_extra_index_that_does_not_answer_is_named_without_its_password(tmp_path: Path, wheel: Wheel) -> None:
    """An address where nobody listens: exit 2, the address, the system's word for it, and no secret."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(InputError, match=rf"http://127\.0\.0\.1:{port}/simple does not answer: .*refused") as caught:
        fetch_wheels([wheel], cache=tmp_path / "cache", extra_indexes=[f"http://me:secret@127.0.0.1:{port}/simple"])
    assert caught.value.code == "index-unreachable"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("url", "code"), [("numpy", "bad-index"), ("http://", "bad-index"), ("ftp://x/y", "bad-index"),
                                           ("http://x/a b", "bad-index"), ("http://[x/", "bad-index")])  # fmt: skip
def test_what_is_no_address_of_an_index_is_refused_at_once(url: str, code: str) -> None:
    """A typo is told before pip runs."""
    with pytest.raises(InputError) as caught:
        require_fetching([url], wheels=None, with_runtime=True)
    assert caught.value.code == code


def test_an_extra_index_that_nobody_would_ask_is_refused(tmp_path: Path) -> None:
    """With --wheels or --without-runtime nothing is fetched: the option is an error, not a silence."""
    for told in ({"wheels": tmp_path, "with_runtime": True}, {"wheels": None, "with_runtime": False}):
        with pytest.raises(InputError, match="--extra-index neither"):
            require_fetching(["http://127.0.0.1/simple"], **told)
        require_fetching([], **told)


@pytest.mark.usefixtures("offline")
def test_a_folder_of_wheels_needs_no_network(tmp_path: Path, shelf: Path, wheel: Wheel) -> None:
    """--wheels is enough and the only source: what it lacks is named, with the command that fetches all of it."""
    assert fetch_wheels([wheel], cache=tmp_path / "cache", folder=shelf) == {NAME: shelf / NAME}
    cached = tmp_path / "cache" / wheel.sha256 / NAME
    cached.parent.mkdir(parents=True)
    cached.write_bytes((shelf / NAME).read_bytes())
    with pytest.raises(InputError) as caught:
        fetch_wheels([wheel], cache=tmp_path / "cache", folder=tmp_path)
    assert caught.value.details["missing"] == [NAME]
    assert "--platform manylinux_2_17_aarch64" in caught.value.hint


def test_the_hint_fetches_every_wheel_that_lacks(tmp_path: Path) -> None:
    """Runtime and NumPy, for each Python, with the folder quoted for a shell."""
    folder = tmp_path / "my wheels"
    folder.mkdir()
    options = [runtime_options(load_target("generic-cpu"), one, read_lock())[0] for one in (BOOKWORM, here())]
    wanted = {one.filename: one for option in options for one in option.wheels}
    with pytest.raises(InputError) as caught:
        fetch_wheels(list(wanted.values()), folder=folder)
    assert sorted(caught.value.details["missing"]) == sorted(wanted)
    for one in wanted.values():
        (command,) = [
            part for part in caught.value.hint.split(" && ") if one.arch in part and f"version {one.python} " in part
        ]
        assert f"{one.package}=={one.version}" in command
        assert any(f"--platform {tag} " in command for tag in platform_tags(one.arch) if tag in one.filename)
        assert f"--dest '{folder}' " in command


def test_a_cache_that_cannot_be_written_is_bad_input(tmp_path: Path, wheel: Wheel) -> None:
    """A file where the cache folder should be is exit 2, with the variable that moves the cache."""
    (tmp_path / "cache").touch()
    with pytest.raises(InputError, match="XDG_CACHE_HOME"):
        fetch_wheels([wheel], cache=tmp_path / "cache")


def test_renewing_the_lock_writes_what_pip_gets_or_nothing(
    tmp_path: Path, shelf: Path, wheel: Wheel, offline: pytest.MonkeyPatch
) -> None:
    """The maintainer's command writes the real digests down, and leaves the file alone where a wheel is missing."""
    path = tmp_path / "runtimes.lock"
    wanted = [("numpy", "1.26.4", ("3.11",), ("aarch64",))]
    offline.setenv("PIP_FIND_LINKS", str(shelf))
    assert renew(path, wanted) == 1
    assert read_lock(path) == (wheel,)
    before = path.read_text()
    with pytest.raises(InputError):
        renew(path, [*wanted, ("numpy", "9.9.9", ("3.11",), ("aarch64",))])
    assert path.read_text() == before
    assert sorted(tmp_path.iterdir()) == [path, shelf]


def test_renewing_the_lock_never_takes_another_content_for_a_locked_name(
    tmp_path: Path, shelf: Path, offline: pytest.MonkeyPatch
) -> None:
    """An index that serves other bytes under a locked file name is refused, and the lock stays as it was."""
    path, wanted = tmp_path / "runtimes.lock", [("numpy", "1.26.4", ("3.11",), ("aarch64",))]
    offline.setenv("PIP_FIND_LINKS", str(shelf))
    renew(path, wanted)
    before = path.read_text()
    with zipfile.ZipFile(shelf / NAME, "a") as changed:
        changed.writestr("numpy/extra.py", "evil = True")
    with pytest.raises(IntegrityError, match="was locked with") as caught:
        renew(path, wanted)
    assert caught.value.code == "wheel-digest"
    assert path.read_text() == before


def test_newer_versions_are_told_and_prereleases_are_none() -> None:
    """What grew old is seen from the index's file names."""
    names = ["numpy-2.5.5-cp312-cp312-linux_x86_64.whl", "numpy-3.0.0rc1-cp312-cp312-linux_x86_64.whl"]
    assert newer_version(names, "2.5.5") is None
    assert newer_version([*names, "numpy-2.10.0-cp312-cp312-linux_x86_64.whl"], "2.5.5") == "2.10.0"


def test_a_wrong_file_in_the_folder_is_an_integrity_error(tmp_path: Path, shelf: Path, wheel: Wheel) -> None:
    """A file in --wheels that only has the right name is exit 6."""
    content = bytearray((shelf / NAME).read_bytes())
    content[40] ^= 1
    (shelf / NAME).write_bytes(content)
    with pytest.raises(IntegrityError, match="is not the wheel"):
        fetch_wheels([wheel], cache=tmp_path / "cache", folder=shelf)


def test_the_cache_follows_the_users_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG_CACHE_HOME moves the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert wheel_cache() == tmp_path / "edgepack" / "wheels"


def test_the_shipped_lock_is_complete_and_canonical() -> None:
    """Every wheel that is wanted is locked once, in the form that the renewing command writes, without an address."""
    lock = read_lock()
    wanted = [
        (package, version, python, arch)
        for package, version, pythons, archs in WANTED
        for python in pythons
        for arch in archs
    ]
    assert [(wheel.package, wheel.version, wheel.python, wheel.arch) for wheel in lock] == wanted
    text = (builtin_folder() / "runtimes.lock").read_text()
    assert text == lock_text(lock)
    assert "://" not in text
    for wheel in lock:
        assert wheel.glibc == oldest_glibc(wheel.filename)
        assert any(tag in wheel.filename for tag in platform_tags(wheel.arch))


def test_the_newest_wheel_that_loads_is_chosen() -> None:
    """The C library decides: what was built for a newer one is passed over."""
    lock = read_lock()
    assert choose_wheel(lock, "tflite-runtime", Platform("3.11", "aarch64", "glibc-2.31")) is None
    chosen = choose_wheel(lock, "tflite-runtime", BOOKWORM)
    assert chosen is not None
    assert chosen.glibc == "2.34"
    newer = Wheel("numpy", "1.26.10", "numpy-1.26.10-x.whl", "0" * 64, 1, "3.11", "aarch64", "2.17")
    assert choose_wheel([*lock, newer], "numpy", BOOKWORM) == newer


def test_a_broken_lock_tells_all_its_faults(tmp_path: Path) -> None:
    """A lock file that was edited by hand is refused with every fault."""
    path = tmp_path / "runtimes.lock"
    path.write_text('[[wheel]]\npackage = "scipy"\nsha256 = "x"\n')
    with pytest.raises(InputError) as caught:
        read_lock(path)
    assert len(caught.value.details["faults"]) == 8


def here() -> Platform:
    """The platform of the Python that runs the tests."""
    return Platform(f"3.{sys.version_info.minor}", host.machine(), f"glibc-{host.libc_ver()[1]}")


@pytest.mark.network
def test_the_index_still_serves_what_is_locked() -> None:
    """The digest in runtimes.lock is that of the wheel that pip gets today (the smallest one stands for all)."""
    smallest = min(read_lock(), key=lambda wheel: wheel.bytes)
    with through_the_index():
        fetched = lock_wheel(smallest.package, smallest.version, smallest.python, smallest.arch)
    assert fetched == smallest


_RUN = """
import sys; sys.path[:0] = sys.argv[1:3]
from {module}.interpreter import Interpreter
import numpy
interpreter = Interpreter(model_path=sys.argv[3]); interpreter.allocate_tensors()
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], numpy.ones(4, numpy.float32))
interpreter.invoke()
assert interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tolist() == [2.5] * 4
assert numpy.__file__.startswith(sys.argv[2]), numpy.__file__
foreign = [str(getattr(module, "__file__", None) or "") for module in sys.modules.values()]
print([path for path in foreign if "site-packages" in path or "dist-packages" in path])
"""


@pytest.mark.network
@pytest.mark.parametrize("package", sorted(NUMPY_FOR))
@pytest.mark.parametrize(
    "python",
    [
        pytest.param(one, marks=() if one == here().python else pytest.mark.slow)
        for one in ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
    ],
)
def test_a_runtime_needs_nothing_but_its_wheel_and_numpy(tmp_path: Path, python: str, package: str) -> None:
    """The set that the solver chooses is enough and none of it can be left out: a bare Python with it runs a model."""
    program = sys.executable if python == here().python else device_pythons().get(python)
    if program is None:
        pytest.skip(f"this machine has no Python {python}")
    platform = Platform(python, here().arch, here().libc)
    options = {option.package: option for option in runtime_options(load_target("generic-cpu"), platform, read_lock())}
    assert options, platform.label
    if package not in options:
        assert version_tuple(python) > (3, 11) if package == "tflite-runtime" else python == "3.8"
        return
    with through_the_index():
        fetched = fetch_wheels(options[package].wheels)
    sites = []
    for wheel in options[package].wheels:
        sites.append(tmp_path / wheel.package)
        with zipfile.ZipFile(fetched[wheel.filename]) as archive:
            archive.extractall(sites[-1])
    (tmp_path / "m.tflite").write_bytes(add_model(4))
    script = _RUN.format(module=package.replace("-", "_"))
    # -I -S: no site-packages, so that nothing of this machine can help.
    command = [program, "-I", "-S", "-c", script, *map(str, sites), str(tmp_path / "m.tflite")]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (run.returncode, run.stdout.strip()) == (0, "[]"), run.stderr[-2000:]
    for left_out in (0, 1):
        kept = [str(tmp_path) if place == left_out else str(site) for place, site in enumerate(sites)]
        lacking = subprocess.run([*command[:5], *kept, command[-1]], capture_output=True, check=False, timeout=120)
        assert b"No module named" in lacking.stderr, sites[left_out].name
