"""Where profiles are, and reading one: by name or path, following ``extends``, telling all faults at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgepack.errors import InputError
from edgepack.events import Event, Reporter, ignore_events
from edgepack.strict_toml import find_faults, nearest, read_toml, refuse_faults
from edgepack.target.profile import PROFILE, build, contradictions, incomplete, merge, sound_part
from edgepack.target.values import Target

_HINT = "docs/targets.md lists the keys of a profile; `edgepack targets show generic-cpu` shows a complete one."


def load_target(name_or_path: str | Path) -> Target:
    """The profile of that name, or in that file (anything with a slash or the ending ``.toml`` is a path).

    A name is looked up in ``./targets``, in the user's configuration folder, then among the built-in profiles. Raises
    :class:`InputError` "unknown-target" with the nearest names, or "bad-target" with every fault of the file.
    """
    path = _find(name_or_path)
    layers, faults = _read_layers(path)
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = merge(merged, layer)
    if "extends" not in merged:  # else a parent was not found, and what it would have given is not missing here
        faults += [gap for gap in incomplete(merged) if not any(gap.partition(":")[0] in fault for fault in faults)]
    if "package" in merged.get("runtime", {}) and "scheme" in merged.get("quantization", {}):
        target = build(path.stem, merged)
        faults += contradictions(target)
    refuse_faults(faults, code="bad-target", subject=f"The target profile {path}", hint=_HINT)
    return target


def list_targets(report: Reporter = ignore_events) -> tuple[Target, ...]:
    """Every sound profile that a name reaches, sorted by name; of two with one name the one that is found first.

    A profile with faults is left out and told to ``report``: one bad file of a user's must not hide the others.
    """
    names = sorted({path.stem for folder in target_folders() for path in _profiles_in(folder)})
    found = []
    for name in names:
        try:
            found.append(load_target(name))
        except InputError as error:
            report(Event("targets", f"left out: {error.message}"))
    return tuple(found)


def target_folders() -> tuple[Path, ...]:
    """Where a name is looked up, first to last."""
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path("targets"), Path(config).expanduser() / "edgepack" / "targets", builtin_folder()


def target_origin(name_or_path: str | Path) -> str:
    """Where the profile of that name comes from: "built in", or the folder or file that it was found in."""
    path = _find(name_or_path)
    if path.parent.resolve() == builtin_folder():
        return "built in"
    shown = path if _is_path(name_or_path) else path.parent
    return str(shown) if shown.is_absolute() or str(shown).startswith(".") else f"./{shown}"


def builtin_folder() -> Path:
    """The folder of the shipped profiles and of runtimes.lock: inside an installed package, else beside it."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "targets"
    return installed if installed.is_dir() else package.parent / "targets"


def _profiles_in(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*.toml") if path.is_file())


def _find(name_or_path: str | Path, *, beside: Path | None = None, chain: tuple[Path, ...] = ()) -> Path:
    """The file of a name or path; in ``extends`` a path is relative to the file ``beside``.

    Files of the ``chain`` that led here are passed over: a user's own raspberry-pi-4 may extend the built-in one.
    """
    text = os.fspath(name_or_path)
    if _is_path(name_or_path):
        path = (beside.parent if beside else Path()) / Path(text).expanduser()
        candidates = [path]
    else:
        candidates = [folder / f"{text}.toml" for folder in target_folders()]
    found = [path for path in candidates if path.is_file()]
    for path in found:
        if path.resolve() not in chain:
            return path
    if found:
        shown = " → ".join(path.name for path in (*chain, found[0]))
        raise InputError(
            "bad-target", f"Target profiles extend each other in a circle: {shown}.", hint="Break the circle."
        )
    raise _unknown(text, is_path=_is_path(name_or_path))


def _is_path(name_or_path: str | Path) -> bool:
    text = os.fspath(name_or_path)
    return isinstance(name_or_path, Path) or "/" in text or text.endswith(".toml")


def _unknown(text: str, *, is_path: bool) -> InputError:
    names = sorted({path.stem for folder in target_folders() for path in _profiles_in(folder)})
    similar = nearest(Path(text).stem, names)
    if similar:
        hint = f"Did you mean {' or '.join(similar)}? `edgepack targets list` shows all of them."
    else:
        hint = "`edgepack targets list` shows all of them; your own file works too: --target ./mine.toml."
    said = f"The file {text} does not exist." if is_path else f"There is no target profile {text!r}."
    return InputError("unknown-target", said, hint=hint, nearest=list(similar))


def _read_layers(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The sound part of the profile and of each that it extends, nearest first, and the faults of all of them.

    Where a parent cannot be found, the last layer keeps its ``extends``.
    """
    layers: list[dict[str, Any]] = []
    faults: list[str] = []
    chain: tuple[Path, ...] = ()
    while True:
        profile = read_toml(path, code="bad-target")
        faults += [f"{path.name}: {fault}" if chain else fault for fault in find_faults(profile, PROFILE)]
        layers.append(sound_part(profile))
        parent = layers[-1].get("extends")
        if parent is None:
            return layers, faults
        chain = (*chain, path.resolve())
        try:
            path = _find(parent, beside=path, chain=chain)
        except InputError as error:
            faults.append(f"extends: {error}".rstrip("."))
            return layers, faults
        del layers[-1]["extends"]
