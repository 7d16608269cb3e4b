"""The edgepack.toml that ``edgepack init`` writes: every key, with what it is for."""

from __future__ import annotations

import json
import re
from pathlib import Path

from edgepack.errors import InputError
from edgepack.files import write_whole
from edgepack.project import FILE_NAME

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
# range = [0.0, 1.0]              # what pixels of 0 and 255 become: [0.0, 1.0] divides by 255, [0.0, 255.0] keeps them;
                                  # samples of every other kind are refused where they lie outside
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
# max_p95_ratio = 1.05            # at most 5 % slower than the active release; also max_p50_ratio
# gate = "point"                  # "confident" asks that the 95 % bound of the drop keeps to max_accuracy_drop

[hooks]                           # run on the device after the switch; one that fails switches back
# after_activate = ["systemctl", "--user", "restart", "my-app"]
# health = ["curl", "-fsS", "http://127.0.0.1:8080/health"]
# hook_timeout_s = 60.0
# health_timeout_s = 10.0
# health_retries = 3

[sign]                            # docs/security.md
# key = "~/.ssh/id_ed25519"       # what `bundle` and `deploy` sign with; or a .pub whose private half is in ssh-agent
# allowed_signers = "signers"     # `verify`, `push` and `deploy` take only what one of these signed; lines such as
                                  # alice@example.com namespaces="edgepack" ssh-ed25519 AAAA...

[ssh]                             # your ~/.ssh/config is honoured anyway
# config = "ssh_config"
# known_hosts = "known_hosts"
# identity = "~/.ssh/id_ed25519"
# transport = "ssh"               # "openssh" uses your own ssh program: FIDO keys, host certificates
# root = "~/.edgepack"            # edgepack's folder on the device
# python = "python3"              # Python on the device
"""


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            "output", f"{path} cannot be written: {error.strerror}.", hint="Name a folder of yours."
        ) from error
    write_whole(path, starter(folder))
    return path
