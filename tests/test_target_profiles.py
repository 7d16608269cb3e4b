"""The profiles: what ships, and what a user's own file may say."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from edgepack.bundle.build import bundle_options
from edgepack.errors import InputError
from edgepack.strict_toml import Table
from edgepack.target import Budget, Platform, Scheme, Target, builtin_folder, list_targets, load_target
from edgepack.target.lock import read_lock
from edgepack.target.profile import PROFILE
from edgepack.target.solver import runtime_options

SHIPPED = sorted(path.stem for path in builtin_folder().glob("*.toml"))
PROMISED = {
    "generic-cpu", "raspberry-pi-zero-2w", "raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-5", "raspberry-pi-4-32bit",
    "coral-usb", "coral-dev-board", "imx8m-plus-npu", "stm32mp25-npu", "ethos-u65", "jetson-orin-nano", "generic-gpu",
    "android-gpu", "x86-64",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _refusal(name_or_path: str | Path) -> InputError:
    with pytest.raises(InputError) as caught:
        load_target(name_or_path)
    assert caught.value.exit_code == 2
    return caught.value


def test_every_promised_profile_ships() -> None:
    """A user finds a profile for each device that the documentation names."""
    assert set(SHIPPED) >= PROMISED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_is_sound_and_plain(name: str) -> None:
    """Every shipped profile loads, pickles, and goes into a manifest as plain JSON."""
    target = load_target(name)
    assert target.name == name
    assert target.description
    assert pickle.loads(pickle.dumps(target)) == target  # noqa: S301 - our own bytes
    assert json.loads(json.dumps(target.to_json())) == target.to_json()


@pytest.mark.parametrize("name", SHIPPED)
def test_every_platform_of_a_shipped_profile_has_a_locked_runtime(name: str) -> None:
    """Bundling for a shipped profile never ends in a platform that no wheel exists for.

    Where a delegate is required above Python 3.11, the vendor's image has the runtime that goes with it.
    """
    target, lock = load_target(name), read_lock()
    for platform in target.platforms:
        if target.delegate.required and platform.python == "3.12":
            assert not runtime_options(target, platform, lock)
            (option,) = bundle_options(target, [platform])[0]
            assert (option.package, option.wheels) == (target.runtime.package, ())
            continue
        runtime, *others = runtime_options(target, platform, lock)
        assert runtime.package == target.runtime.package_for(platform.python), platform.label
        assert len(runtime.wheels) == (1 if platform.arch == "armv7l" else 2), platform.label
        assert not (others and target.delegate.library), "a profile with a delegate names the pair"


def test_profiles_give_each_kind_of_device_the_scheme_that_it_can_run() -> None:
    """Integer accelerators get full int8, GPUs float16, and what has no sshd is not deployable."""
    targets = {target.name: target for target in list_targets()}
    for name in ("coral-usb", "coral-dev-board", "imx8m-plus-npu", "stm32mp25-npu", "ethos-u65"):
        assert targets[name].quantization.scheme is Scheme.INT8
        assert not targets[name].quantization.float_fallback
        assert targets[name].delegate.required
        assert targets[name].delegate.library
    assert targets["stm32mp25-npu"].quantization.granularity == "per-tensor"
    for name in ("jetson-orin-nano", "generic-gpu", "android-gpu"):
        assert targets[name].quantization.scheme is Scheme.FLOAT16
    assert not targets["jetson-orin-nano"].delegate.required
    assert not targets["android-gpu"].deployable
    assert targets["x86-64"].budget.gated_percentile == 95


@pytest.mark.parametrize("name", ["raspberry-pi-zero-2w", "raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-5"])
def test_a_raspberry_pi_may_run_bookworm_or_trixie(name: str) -> None:
    """One bundle for a 64-bit Raspberry Pi serves both releases of its system."""
    assert load_target(name).platforms == (
        Platform("3.11", "aarch64", "glibc-2.36"),
        Platform("3.13", "aarch64", "glibc-2.41"),
    )


def test_an_unknown_target_is_told_the_nearest_names() -> None:
    """A mistyped name is answered with what was probably meant."""
    error = _refusal("rasberry-pi4")
    assert error.code == "unknown-target"
    assert "raspberry-pi-4" in error.hint
    assert "raspberry-pi-4" in error.details["nearest"]


def test_three_faults_are_told_at_once() -> None:
    """A profile with three faults is mended in one go, not in three."""
    path = _write(
        Path("mine.toml"),
        'extends = "generic-cpu"\ndescripton = "x"\n[measure]\nthreads = "four"\n[quantization]\nscheme = "int9"\n',
    )
    error = _refusal(path)
    assert error.code == "bad-target"
    assert len(error.details["faults"]) == 3
    assert "did you mean description?" in error.message
    assert "measure.threads" in error.message
    assert "did you mean int8?" in error.message


def test_faults_of_a_parent_are_told_with_its_name() -> None:
    """A fault in the file that a profile extends is told together with the profile's own."""
    _write(Path("targets/base.toml"), 'tested = "maybe"\n')
    path = _write(Path("targets/mine.toml"), 'extends = "base"\ndeployable = 1\n')
    faults = _refusal(path).details["faults"]
    assert any(fault.startswith("base.toml: tested") for fault in faults)
    assert any(fault.startswith("deployable") for fault in faults)
    assert any(fault.startswith("runtime.package: missing") for fault in faults)


def test_a_missing_parent_is_one_fault_among_the_others() -> None:
    """What the missing parent would have given is not counted as missing again."""
    path = _write(Path("mine.toml"), 'extends = "generic-cpy"\ncolour = "red"\n')
    faults = _refusal(path).details["faults"]
    assert len(faults) == 2
    assert any("generic-cpu" in fault for fault in faults)


@pytest.mark.parametrize("chain", [("a",), ("a", "b"), ("a", "b", "c")])
def test_profiles_that_extend_each_other_are_refused(chain: tuple[str, ...]) -> None:
    """A circle of `extends` ends in an error that shows the circle, not in a hang."""
    for name, parent in zip(chain, (*chain[1:], chain[0]), strict=True):
        _write(Path(f"targets/{name}.toml"), f'extends = "{parent}"\n')
    assert "circle" in _refusal("a").message


def test_contradictions_are_refused() -> None:
    """Values that are each legal but do not go together are refused before anything is quantized."""
    path = _write(
        Path("mine.toml"),
        'extends = "generic-cpu"\n[delegate]\nrequired = true\n[quantization]\nscheme = "float16"\nio = "int8"\n'
        "[measure]\nmin_seconds = 9\nmax_seconds = 3\n",
    )
    assert len(_refusal(path).details["faults"]) == 3


@pytest.mark.parametrize(
    ("parent", "quantization", "keys"),
    [
        ("coral-usb", 'scheme = "int16x8"', ["scheme"]),
        ("coral-usb", 'scheme = "float32"', ["float_fallback", "scheme"]),
        ("coral-usb", 'scheme = "dynamic"\nfloat_fallback = true', ["scheme"]),
        ("imx8m-plus-npu", 'scheme = "int16x8"', ["scheme"]),
        ("ethos-u65", 'scheme = "int16x8"', []),
        ("generic-cpu", 'scheme = "float16"\nfloat_fallback = false', ["float_fallback"]),
        ("generic-gpu", 'scheme = "int16x8"', []),
    ],
)
def test_a_scheme_that_no_operator_is_taken_in_is_refused(parent: str, quantization: str, keys: list[str]) -> None:
    """What only a conversion would find out is told by key when the profile is read, also by `targets show`."""
    path = _write(Path("mine.toml"), f'extends = "{parent}"\n[quantization]\n{quantization}\n')
    if not keys:
        assert load_target(path).quantization.scheme == quantization.split('"')[1]
        return
    faults = _refusal(path).details["faults"]
    assert [fault.partition(":")[0] for fault in faults] == [f"quantization.{key}" for key in keys]


def test_the_options_of_a_delegate_are_texts() -> None:
    """Delegates take texts: a number is refused with its place, and any name goes, for only the library knows them."""
    head = 'extends = "generic-cpu"\n[delegate]\nlibrary = "libnpu.so"\n[delegate.options]\n'
    target = load_target(_write(Path("mine.toml"), head + 'device = "0"\n"cache path" = "/var/npu"\n'))
    assert target.delegate.options == (("cache path", "/var/npu"), ("device", "0"))
    (fault,) = _refusal(_write(Path("wrong.toml"), head + "device = 0\n")).details["faults"]
    assert fault.startswith("delegate.options.device: ")


def test_a_users_file_works_wherever_a_name_does() -> None:
    """The same profile is reached by path and, from ./targets or the user's configuration folder, by name."""
    text = 'extends = "raspberry-pi-4"\ndescription = "mine"\n[budget]\np95_ms = 5\n'
    _write(Path("targets/kiosk.toml"), text)
    _write(Path("config/edgepack/targets/lobby.toml"), text)
    for reference in ("kiosk", "lobby", "targets/kiosk.toml", Path("targets/kiosk.toml")):
        target = load_target(reference)
        assert target.description == "mine"
        assert target.budget.p95_ms == 5.0
        assert target.platforms == load_target("raspberry-pi-4").platforms
    assert {"kiosk", "lobby"} <= {target.name for target in list_targets()}


def test_a_users_profile_may_refine_the_built_in_one_of_the_same_name() -> None:
    """./targets/raspberry-pi-4.toml that extends raspberry-pi-4 refines the built-in profile instead of itself."""
    _write(Path("targets/raspberry-pi-4.toml"), 'extends = "raspberry-pi-4"\n[budget]\np95_ms = 7.5\n')
    target = load_target("raspberry-pi-4")
    assert target.budget.p95_ms == 7.5
    assert target.measure.threads == 4


def test_a_new_scheme_brings_its_own_io() -> None:
    """Whoever extends an int8 profile and asks for float16 does not inherit int8 inputs."""
    _write(Path("targets/half.toml"), 'extends = "generic-cpu"\n[quantization]\nscheme = "float16"\n')
    assert load_target("half").quantization.io == "float32"


@pytest.mark.parametrize("text", [b"a = [", b"\xff\xfe", b"a = " + b"[" * 5000, b"#" * (2 << 20)])
def test_what_is_no_toml_is_refused_in_words(text: bytes) -> None:
    """Broken, binary, bottomless and huge files end in a sentence, not in a traceback."""
    Path("mine.toml").write_bytes(text)
    assert _refusal("mine.toml").code == "bad-target"


def test_a_budget_is_overridden_strictly() -> None:
    """Limits from edgepack.toml or flags replace the profile's, and a mistyped one is refused."""
    budget = load_target("x86-64").budget
    assert budget.override({"p99_ms": 80, "p95_ms": None}).gated_percentile == 99
    assert budget.override({"p95_ms": None}).gated_percentile is None
    assert budget.override({}) == budget
    with pytest.raises(InputError) as caught:
        budget.override({"p96_ms": 3, "max_accuracy_drop": 2.0, "gate": "sure"})
    assert len(caught.value.details["faults"]) == 3
    assert Budget().gated_percentile is None


def test_tflite_runtime_gives_way_where_it_has_no_wheel() -> None:
    """Above Python 3.11 a profile that prefers tflite-runtime gets ai-edge-litert."""
    target: Target = load_target("generic-cpu")
    assert target.runtime.package_for("3.11") == "tflite-runtime"
    assert target.runtime.package_for("3.9") == "tflite-runtime"
    assert target.runtime.package_for("3.12") == "ai-edge-litert"


def test_the_documentation_lists_every_shipped_profile() -> None:
    """Whoever reads docs/targets.md sees each profile that ships, and none that does not."""
    text = (Path(__file__).parent.parent / "docs" / "targets.md").read_text(encoding="utf-8")
    table = text.partition("## The shipped profiles")[2].partition("## Runtimes")[0]
    assert {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")} == set(SHIPPED)


def test_the_documented_keys_are_those_that_are_read() -> None:
    """Each key of a profile stands in docs/targets.md."""
    text = (Path(__file__).parent.parent / "docs" / "targets.md").read_text(encoding="utf-8")
    table = text.partition("## Every key")[2].partition("## The shipped profiles")[0]
    for key, schema in PROFILE.keys.items():
        assert key in table
        for inner in schema.keys if isinstance(schema, Table) else ():
            assert inner in table or inner in ("p90_ms", "p95_ms"), f"{key}.{inner}"
