"""What ``deploy`` is to build: from flags, and where they are silent from edgepack.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.arguments import as_path
from edgepack.bundle.manifest import check_label
from edgepack.errors import InputError
from edgepack.quantize import SourceOptions
from edgepack.target import Platform, Target, load_target
from edgepack.target.select import select_platforms

if TYPE_CHECKING:
    from edgepack.project import Project


@dataclass(frozen=True, slots=True)
class Sets:
    """The sets of samples that quantizing takes, as people write them."""

    calibration: str | None
    evaluation: str | None
    check_set: str | None

    def __or__(self, other: Sets) -> Sets:
        """These, and the other's where there is none."""
        return Sets(
            self.calibration or other.calibration,
            self.evaluation or other.evaluation,
            self.check_set or other.check_set,
        )


@dataclass(frozen=True, slots=True)
class Packing:
    """Which runtimes the bundle carries, and where they come from: as :func:`edgepack.bundle` takes it."""

    platforms: tuple[Platform | str, ...] | None = None
    with_runtime: bool = True
    wheels: Path | None = None
    extra_indexes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be built: everything that quantize and bundle need, from flags and edgepack.toml."""

    source: Path
    target: Target
    name: str
    version: str
    samples: Sets
    preprocessing: Mapping[str, Any] | None
    taken: SourceOptions
    metric: str
    sign: Path | None = None
    counter: int | None = None
    packing: Packing = Packing()

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """Those that the bundle is for. Raises InputError "bad-platform"."""
        named = self.packing.platforms
        return self.target.platforms if named is None else select_platforms(self.target, named)


def source_of(source: str | Path | None, project: Project | None) -> Path:
    """The model or bundle that is meant: the one given, else the project's. Raises InputError "usage", "no-model"."""
    chosen = as_path("source", source) if source is not None else (project.model if project else None)
    if chosen is None:
        raise InputError(
            "usage",
            "There is nothing to deploy: no model and no bundle was named.",
            hint="Name one, or write model = ... into [app] of edgepack.toml (`edgepack init` makes one).",
        )
    if not chosen.exists():
        raise InputError("no-model", f"There is no {chosen}.", hint="Check the path.", path=str(chosen))
    return chosen


def refuse_idle_flags(source: Path, naming: Mapping[str, object], samples: Sets, taken: SourceOptions) -> None:
    """A flag that could change nothing any more is an error, not a silence."""
    quantizing: dict[str, object] = {
        "--calibration": samples.calibration,
        "--eval": samples.evaluation,
        "--check-set": samples.check_set,
        "--batch": None if taken.batch == SourceOptions().batch else taken,
        "--signature": taken.signature,
        "--input-shape": taken.input_shapes or None,
    }
    if source.suffix == ".edgepack":
        state, idle = "a bundle already", {**naming, **quantizing}
    elif not needs_quantizing(source):
        state, idle = "quantized already", quantizing
    else:
        return
    given = [flag for flag, value in idle.items() if value is not None]
    if given:
        raise InputError(
            "usage",
            f"{source} is {state}: {', '.join(given)} cannot change it.",
            hint="Leave the option out, or name the model that it was made from.",
        )


def make_order(
    source: Path,
    project: Project | None,
    naming: tuple[str | Path | Target | None, str | None, str | None],
    samples: Sets,
    taken: SourceOptions,
    metric: str,
    signing: tuple[str | Path | None, int | None] = (None, None),
    packing: Packing = Packing(),
) -> Order:
    """Flags before edgepack.toml; what is missing is told all at once.

    ``naming`` is target, name and version, ``signing`` the key and the counter.
    """
    settled = (project.target, project.name, project.version) if project else (None, None, None)
    wanted, app, release = naming
    wanted = wanted if wanted is not None else settled[0]
    app = app if app is not None else settled[1]
    release = release if release is not None else settled[2]
    needed = (("--target", wanted), ("--name", app), ("--version", release))
    missing = [flag for flag, value in needed if value is None]
    if wanted is None or app is None or release is None:
        raise InputError(
            "usage",
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.",
            hint="Give them, or write them into [app] of edgepack.toml (`edgepack init` makes one).",
        )
    check_label(app, "name")
    check_label(release, "version")
    key = project.sign.get("key") if project else None
    return Order(
        source=source,
        target=wanted if isinstance(wanted, Target) else load_target(wanted),
        name=app,
        version=release,
        samples=samples | Sets(project.calibration, project.eval, project.check_set) if project else samples,
        preprocessing=project.samples if project else None,
        taken=taken,
        metric=metric,
        sign=as_path("sign", signing[0]) if signing[0] is not None else key,
        counter=signing[1],
        packing=packing,
    )


def needs_quantizing(source: Path) -> bool:
    """A .tflite with scales or float16 in it is the result of quantizing; everything else is still to be done."""
    if source.suffix != ".tflite":
        return True
    from edgepack.tflite import read_model

    return not any(tensor.scales or tensor.dtype == "float16" for tensor in read_model(source).tensors)
