"""edgepack.toml: a project's own defaults, read strictly.

Every path in it is relative to the folder that it lies in; ``~`` is the user's home folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgepack.deploy.hooks import Hooks
from edgepack.errors import InputError
from edgepack.quantize.functions import is_function
from edgepack.quantize.preprocessing import SAMPLES, samples_faults
from edgepack.strict_toml import Number, Table, Text, TextList, find_faults, read_toml, refuse_faults
from edgepack.target import BUDGET

if TYPE_CHECKING:
    from edgepack.device.options import ConnectOptions

FILE_NAME = "edgepack.toml"

_NAME = Text(
    pattern=r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", form="1 to 64 letters, digits or . _ + -, a letter or digit first"
)
_PATH = Text(pattern=r"[^\r\n]+", form="a path")
_SECONDS = Number(0.1, 86_400)
PROJECT = Table(
    {
        "app": Table(
            {
                "name": _NAME,
                "version": _NAME,
                "target": _PATH,
                "model": _PATH,
                "calibration": _PATH,
                "eval": _PATH,
                "check_set": _PATH,
            }
        ),
        "samples": SAMPLES,
        "budget": BUDGET,
        "hooks": Table(
            {
                "after_activate": TextList(minimum=1),
                "health": TextList(minimum=1),
                "hook_timeout_s": _SECONDS,
                "health_timeout_s": _SECONDS,
                "health_retries": Number(0, 1000, integer=True),
            }
        ),
        "sign": Table({"key": _PATH, "allowed_signers": _PATH}),
        "ssh": Table(
            {
                "config": _PATH,
                "known_hosts": _PATH,
                "identity": _PATH,
                "transport": Text(("ssh", "openssh")),
                "root": _PATH,
                "python": _PATH,
            }
        ),
    }
)
"""The schema of edgepack.toml; every key is optional."""


@dataclass(frozen=True, slots=True)
class Project:
    """An edgepack.toml, its paths resolved; None where it says nothing.

    ``calibration``, ``eval`` and ``check_set`` may end in ``#first:last``. ``samples`` holds the keys of its
    ``[samples]`` table, ``budget`` the limits that it sets, ``sign`` the files that its ``[sign]`` table names
    (``key``, ``allowed_signers``), ``ssh`` the keys of its ``[ssh]`` table.
    """

    folder: Path
    name: str | None = None
    version: str | None = None
    target: str | None = None
    model: Path | None = None
    calibration: str | None = None
    eval: str | None = None
    check_set: str | None = None
    samples: Mapping[str, Any] = field(default_factory=dict)
    budget: Mapping[str, Any] = field(default_factory=dict)
    hooks: Hooks | None = None
    ssh: Mapping[str, Any] = field(default_factory=dict)
    sign: Mapping[str, Path] = field(default_factory=dict)


def find_project(folder: Path) -> Project | None:
    """The project of ``folder``: None where no edgepack.toml lies there."""
    path = folder / FILE_NAME
    return load_project(path) if path.is_file() else None


def load_project(path: str | Path = FILE_NAME) -> Project:
    """The project in that file. Raises InputError "bad-project" that tells every fault at once."""
    path = Path(path)
    content = read_toml(path, code="bad-project")
    faults = find_faults(content, PROJECT)
    if "samples" in content and not faults:
        faults += samples_faults(content["samples"])
    refuse_faults(
        faults, code="bad-project", subject=str(path), hint="`edgepack init` in an empty folder shows every key."
    )
    return _project(path.absolute().parent, content)


def connect_options(flags: Mapping[str, Any], project: Project | None) -> ConnectOptions:
    """How to reach a device: what ``flags`` say (None: nothing), then the project's ``[ssh]``, then the defaults.

    ``flags`` has the names of the command line's options: ssh_config, identity, known_hosts, accept_new_host_key,
    transport, connect_timeout and wait (seconds), retries, root, python; and root_gives_way where the root is no typed
    one.
    """
    from edgepack.device.options import ConnectOptions

    own = project.ssh if project else {}
    values = {("ssh_config" if key == "config" else key): value for key, value in own.items()}
    for key, value in flags.items():
        if value is not None:
            values[f"{key}_s" if key in ("connect_timeout", "wait") else key] = value
    if "root" in own and flags.get("root") is None:
        values["root_gives_way"] = True
    return ConnectOptions(**values)


def own_settings(project: Project | None, app: str | None, table: Literal["hooks", "budget"]) -> Any:
    """What that table of the project's sets (None: nothing), for ``app``.

    Raises InputError "other-app" where the project is another app's: its services and limits are not this one's.
    """
    value = getattr(project, table) if project else None
    if project is None or not value:
        return None
    if app is not None and project.name is not None and app != project.name:
        raise InputError(
            "other-app",
            f"[{table}] of {project.folder / FILE_NAME} is for the app {project.name}, not for {app}.",
            hint=f"Run this in a folder of {app}'s own, or write name = \"{app}\" into [app] if the file is {app}'s.",
            project=project.name,
            app=app,
        )
    return value


def budget_from_pairs(pairs: Iterable[str]) -> dict[str, Any]:
    """The limits of ``KEY=VALUE`` texts, such as ``p95_ms=20`` or ``gate=confident``; ``KEY=none`` lifts a limit.

    Raises InputError "bad-budget" that tells every pair that is none, every unknown key and every value out of range.
    """
    values: dict[str, Any] = {}
    faults = []
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            faults.append(f"{pair!r} is not of the form KEY=VALUE")
            continue
        values[key] = None if text == "none" else _plain_value(text)
    given = {key: value for key, value in values.items() if value is not None or key not in BUDGET.keys}
    refuse_faults(
        faults + find_faults(given, BUDGET),
        code="bad-budget",
        subject="The budget",
        hint=f"Write KEY=VALUE with one of {', '.join(BUDGET.keys)}.",
    )
    return values


def _project(folder: Path, content: Mapping[str, Any]) -> Project:
    app = content.get("app", {})
    ssh = dict(content.get("ssh", {}))
    for key in ("config", "known_hosts", "identity"):
        if key in ssh:
            ssh[key] = _resolve(folder, ssh[key])
    samples = {key: _samples(folder, app[key]) for key in ("calibration", "eval", "check_set") if key in app}
    hooks: dict[str, Any] = dict(content.get("hooks", {}))
    hooks |= {key: tuple(hooks[key]) for key in ("after_activate", "health") if key in hooks}
    return Project(
        folder=folder,
        name=app.get("name"),
        version=app.get("version"),
        target=_target(folder, app["target"]) if "target" in app else None,
        model=_resolve(folder, app["model"]) if "model" in app else None,
        samples=content.get("samples", {}),
        budget=content.get("budget", {}),
        hooks=Hooks(**hooks) if hooks else None,
        ssh=ssh,
        sign={key: _resolve(folder, text) for key, text in content.get("sign", {}).items()},
        **samples,
    )


def _resolve(folder: Path, text: str) -> Path:
    return folder / Path(text).expanduser()


def _samples(folder: Path, text: str) -> str:
    """``samples.npz#0:100`` with its path resolved; the rows stay as they are, and so does ``module:function``."""
    path, mark, rows = text.partition("#")
    if is_function(path):
        return text
    return f"{_resolve(folder, path)}{mark}{rows}"


def _target(folder: Path, text: str) -> str:
    """A profile's name as it is; anything with a slash or the ending ``.toml`` is a path."""
    return str(_resolve(folder, text)) if "/" in text or text.endswith(".toml") else text


def _plain_value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
