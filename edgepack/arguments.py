"""What people hand to the verbs, taken as they mean it: paths, targets, sets of samples, and where to write."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.errors import InputError

if TYPE_CHECKING:
    from edgepack.target import Target

    TargetLike = str | Path | Target


def as_target(target: TargetLike) -> Target:
    """The profile of that name or in that file, or the value itself."""
    from edgepack.target import Target, load_target

    return target if isinstance(target, Target) else load_target(target)


def with_budget(target: Target, budget: Mapping[str, Any] | None) -> Target:
    """The target with limits of edgepack.toml or of flags on top of its own. Raises InputError "bad-budget"."""
    return dataclasses.replace(target, budget=target.budget.override(budget)) if budget else target


def as_path(name: str, value: str | Path) -> Path:
    """The path that an argument gives; people who come from numpy hand in the array itself."""
    if isinstance(value, (str, os.PathLike)):
        return Path(value)
    raise InputError(
        "not-a-path",
        f"{name} takes a path, and got a value of the type {type(value).__name__}.",
        hint="Save it first, samples for example with numpy.savez('samples.npz', x=..., y=...), and name the file.",
    )


def as_text(name: str, samples: str | Path | None) -> str | None:
    """A set of samples as the command line writes it."""
    return None if samples is None else str(as_path(name, samples))


def report_place(report_file: str | Path | None, model: Path) -> Path | None:
    """Where the report goes, if anywhere. Raises InputError "bad-output"."""
    if report_file is None:
        return None
    place = as_path("report_file", report_file)
    from edgepack.report import check_report_place

    check_report_place(place, [model])
    return place


@contextlib.contextmanager
def written(outputs: Sequence[Path], *, dry_run: bool) -> Iterator[list[Path]]:
    """Where to write: the outputs themselves, or in a dry run files of those names in folders that go away."""
    if not dry_run:
        yield list(outputs)
        return
    with tempfile.TemporaryDirectory(prefix="edgepack-") as name:
        folders = [Path(name) / str(place) for place in range(len(outputs))]
        for folder in folders:
            folder.mkdir()
        yield [folder / output.name for folder, output in zip(folders, outputs, strict=True)]
