"""The door to the models on this device, for your own programs. Python 3.8; needs nothing installed.

::

    import sys; sys.path.insert(0, "/home/pi/.edgepack/lib")
    import edgepack_device

    model = edgepack_device.load("kws")      # the active release, found once; load again after an activation
    scores = model.predict(x)                # float in, float out, whatever the scheme

``model.inputs`` and ``model.outputs`` tell names, shapes and dtypes; ``predict_raw`` takes and gives the bare
tensors; ``close`` frees the model. Several apps can be loaded in one process, as long as they share one runtime;
otherwise, and where the program's own numpy does not fit, ``load(app, isolated=True)`` runs the model in a worker
process.
"""

from __future__ import annotations

import os
import threading
import types
from typing import Any, Dict, Optional

DOOR_VERSION = 2

_loaders: Dict[str, Any] = {}
# Importing a runtime changes sys.path for a moment, and several threads may load at once.
_loading = threading.Lock()


class LoadError(Exception):
    """A model could not be loaded; ``code`` is a stable word, ``hint`` says what to do next."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(f"{message} {hint}".strip())
        self.code = code
        self.message = message
        self.hint = hint


def load(app: str, *, root: Optional[str] = None, isolated: bool = False, threads: Optional[int] = None) -> Any:
    """Loads the active release of an app.

    ``root`` is edgepack's folder on this device (default: the one that this file lies in), ``isolated`` runs the
    model in a process of its own, ``threads`` is how many the runtime may use (default: as the target profile says).
    The release is looked up once: a later activation does not change a model that is loaded. Raises
    :class:`LoadError`.
    """
    folder = _find_release(root or os.path.dirname(os.path.dirname(os.path.abspath(__file__))), app)
    with _loading:
        loader = _loader_of(folder)
        try:
            return (loader.IsolatedModel if isolated else loader.Model)(folder, threads=threads)
        except loader.LoaderError as error:
            raise LoadError(error.code, error.message, error.hint) from error


def _find_release(root: str, app: str) -> str:
    """The folder of an app's active release."""
    apps = os.path.join(os.path.expanduser(root), "apps")
    home = os.path.join(apps, app)
    if not app or os.sep in app or app in (".", "..") or not os.path.isdir(home):
        known = ", ".join(sorted(os.listdir(apps))) if os.path.isdir(apps) else ""
        hint = "Name one of those, or push a bundle of this one." if known else "Push a bundle, or name another root."
        raise LoadError("no-app", f"There is no app {app!r} under {apps} (there: {known or 'none'}).", hint)
    try:
        folder = os.path.join(home, os.readlink(os.path.join(home, "current")))
    except OSError:
        raise LoadError("not-active", f"No release of {app} is active.", "Run `edgepack activate`.") from None
    if not os.path.isfile(os.path.join(folder, "loader.py")):
        raise LoadError("release-damaged", f"The active release of {app} has no loader.py.", "Push its bundle again.")
    return os.path.normpath(folder)


def _loader_of(folder: str) -> Any:
    """The release's own loader as a module; compiled here, so that nothing is written beside it."""
    if folder not in _loaders:
        path = os.path.join(folder, "loader.py")
        with open(path, "rb") as file:
            code = compile(file.read(), path, "exec")
        module = types.ModuleType(f"edgepack_loader_{len(_loaders)}")
        module.__file__ = path
        exec(code, module.__dict__)
        _loaders[folder] = module
    return _loaders[folder]
