"""edgepack.toml: a project's own defaults, read strictly, and the starter that ``edgepack init`` writes.

Every path in it is relative to the folder that it lies in; ``~`` is the user's home folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
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

STARTER = """\
# What edgepack knows about this project: every command that is run in this folder reads it. Every line is optional; a
# flag on the command line wins over it.
# Paths are relative to this file.

[app]
# name = "my-app"                 # the app's name on the device: edgepack_device.load("my-app")
# version = "0.1.0"
# target = "raspberry-pi-4"       # `edgepack targets list` shows them; a profile of your own: "./mine.toml"
# model = "saved_model"           # SavedModel folder, .keras, .h5 or float .tflite
# calibration = "samples.npz#0:100"   # rows that set the int8 ranges: typical inputs, 100 to 500 of them
# eval = "samples.npz#100:500"    # other rows, with labels in "y": what accuracy is measured on, here and on the device
# check_set = "check.npz"         # what the device is checked with, where that is not the eval rows; these three are
                                  # an .npz, a .csv, a folder of .npy or of images, or "module:function"

[samples]                         # how images and CSV become the model's inputs; the other kinds are fed as they are
# range = [0.0, 1.0]              # what pixels of 0 and 255 become: [0.0, 1.0] divides by 255, [0.0, 255.0] leaves them
# mean = [0.485, 0.456, 0.406]    # taken away after that, then divided by std: one number, or one for each colour
# std = [0.229, 0.224, 0.225]
# size = [96, 96]                 # height and width of images; left out: what the model takes
# resize = "stretch"              # "crop" keeps the proportions and cuts the edges, "pad" keeps all and adds black
# interpolation = "bilinear"      # nearest, bilinear, bicubic, lanczos, box
# colors = "rgb"                  # or "bgr", "gray"; left out: gray for a model of one channel, else rgb
# classes = ["no", "yes"]         # in the order of the model's outputs; left out: the names of the labels, sorted
# label = "class"                 # CSV: the column of the labels; left out: "y", or "label"
# inputs = { x = ["ax", "ay"] }   # CSV: the columns of each input; left out: all but the label's

[budget]                          # on top of the target's own; `edgepack targets show NAME` prints those
# p95_ms = 50.0                   # also p50_ms, p90_ms, p99_ms, load_ms
# max_accuracy_drop = 0.02        # two points; also min_accuracy
# model_bytes = 1000000           # also peak_rss_bytes
# gate = "point"                  # "confident" asks that the 95 % bound of the drop keeps to max_accuracy_drop

[hooks]                           # run on the device after the switch; one that fails switches back
# after_activate = ["systemctl", "--user", "restart", "my-app"]
# health = ["curl", "-fsS", "http://127.0.0.1:8080/health"]
# hook_timeout_s = 60.0
# health_timeout_s = 10.0
# health_retries = 3

[ssh]                             # your ~/.ssh/config is honoured anyway
# config = "ssh_config"
# known_hosts = "known_hosts"
# identity = "~/.ssh/id_ed25519"
# transport = "ssh"               # "openssh" uses your own ssh program: FIDO keys, host certificates
# root = "~/.edgepack"            # edgepack's folder on the device
# python = "python3"              # Python on the device
"""


@dataclass(frozen=True, slots=True)
class Project:
    """An edgepack.toml, its paths resolved; None where it says nothing.

    ``calibration``, ``eval`` and ``check_set`` may end in ``#first:last``. ``samples`` holds the keys of its
    ``[samples]`` table, ``budget`` the limits that it sets, ``ssh`` the keys of its ``[ssh]`` table.
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
    if "sign" in content and not faults:
        # Better no bundle than one that its owner believes to be signed.
        faults.append("sign: this version of edgepack signs no bundles yet, remove the table")
    refuse_faults(
        faults, code="bad-project", subject=str(path), hint="`edgepack init` in an empty folder shows every key."
    )
    return _project(path.absolute().parent, content)


def connect_options(flags: Mapping[str, Any], project: Project | None) -> ConnectOptions:
    """How to reach a device: what ``flags`` say (None: nothing), then the project's ``[ssh]``, then the defaults.

    ``flags`` has the names of the command line's options: ssh_config, identity, known_hosts, accept_new_host_key,
    transport, connect_timeout (seconds), root, python.
    """
    from edgepack.device.options import ConnectOptions

    own = project.ssh if project else {}
    values = {("ssh_config" if key == "config" else key): value for key, value in own.items()}
    for key, value in flags.items():
        if value is not None:
            values["connect_timeout_s" if key == "connect_timeout" else key] = value
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


def starter(folder: Path) -> str:
    """The starter for a project in ``folder``: named after it, with the one trained model that lies there."""
    values = {"name": _project_name(folder), "version": "0.1.0"}
    models = [path.name for path in sorted(folder.glob("*")) if path.suffix in (".keras", ".h5")]
    models += [path.parent.name for path in sorted(folder.glob("*/saved_model.pb"))]
    if len(models) == 1:
        values["model"] = models[0]
    text = STARTER
    for key, value in values.items():
        line = f"{key} = {json.dumps(value)}"
        text = re.sub(rf'^# {key} = "[^"]*"', line.replace("\\", r"\\"), text, flags=re.MULTILINE)
    return text


def _project_name(folder: Path) -> str:
    """The folder's name as far as an app can have it."""
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", folder.resolve().name).lstrip("._+-")[:64]
    return name or "my-app"


def write_starter(folder: Path, *, force: bool = False, dry_run: bool = False) -> Path:
    """Write a starter edgepack.toml into ``folder`` (made where it is missing) and return its path.

    Raises InputError "exists" where one is there and ``force`` is not given, "output" where it cannot be written.
    """
    path = folder / FILE_NAME
    if path.exists() and not force:
        raise InputError("exists", f"{path} is there already.", hint="Edit it, or give --force to overwrite it.")
    if dry_run:
        return path
    partial = path.with_name(f".{FILE_NAME}.{os.getpid()}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_text(starter(folder), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise InputError(
            "output", f"{path} cannot be written: {error.strerror}.", hint="Name a folder of yours."
        ) from error
    return path


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
