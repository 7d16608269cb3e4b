"""edgepack takes a trained TensorFlow model to a small computer and proves on the device that it works.

The functions here are the verbs of the ``edgepack`` command, which only calls them. Each is imported when it is first
used: ``import edgepack`` itself loads nothing heavy.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgepack.building import quantize as quantize
    from edgepack.bundling import bundle as bundle
    from edgepack.bundling import diff_bundles as diff_bundles
    from edgepack.bundling import inspect as inspect
    from edgepack.bundling import verify as verify
    from edgepack.check.measure import check as check
    from edgepack.deploy.gc import gc as gc
    from edgepack.deploy.probe import probe as probe
    from edgepack.deploy.push import push as push
    from edgepack.deploy.state import history as history
    from edgepack.deploy.state import status as status
    from edgepack.deploy.switch import activate as activate
    from edgepack.deploy.switch import rollback as rollback
    from edgepack.deploy.trust import trust as trust
    from edgepack.device import connect as connect
    from edgepack.pipeline import deploy as deploy
    from edgepack.report import report as report
    from edgepack.tuning import tune as tune

_HOMES = {
    "activate": "edgepack.deploy.switch",
    "bundle": "edgepack.bundling",
    "check": "edgepack.check.measure",
    "connect": "edgepack.device",
    "deploy": "edgepack.pipeline",
    "diff_bundles": "edgepack.bundling",
    "gc": "edgepack.deploy.gc",
    "history": "edgepack.deploy.state",
    "inspect": "edgepack.bundling",
    "probe": "edgepack.deploy.probe",
    "push": "edgepack.deploy.push",
    "quantize": "edgepack.building",
    "report": "edgepack.report",
    "rollback": "edgepack.deploy.switch",
    "status": "edgepack.deploy.state",
    "trust": "edgepack.deploy.trust",
    "tune": "edgepack.tuning",
    "verify": "edgepack.bundling",
}

__all__ = ["__version__", *_HOMES]


class _Package(ModuleType):
    """Five verbs share their names with a subpackage (``bundle``, ``check``, ``deploy``, ``quantize``, ``report``).

    Importing a subpackage binds it to its name in the package. Here such a name stays the verb; the subpackage is
    reached as everywhere in edgepack, by ``from edgepack.bundle import ...``.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        verb = getattr(importlib.import_module(_HOMES[name]), name)
        super().__setattr__(name, verb)
        return verb

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
