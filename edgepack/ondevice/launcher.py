"""The agent's beginning: finds its modules in this very program, which the host assembled, and runs it.

``MODULES`` is empty here: the host puts the source of each module of ``agent/`` in (edgepack/device/bootstrap.py). So
the agent needs no file on the device; where a device is pinned, it is one.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from typing import Any, Dict, Optional

PACKAGE = "edgepack_agent"
MODULES: Dict[str, str] = {}


class Assembled:
    """A finder and loader (``sys.meta_path``) of the modules in this program; with their lines for tracebacks."""

    @classmethod
    def find_spec(cls, name: str, *more: Any) -> Optional[ModuleSpec]:
        """The package itself, or a module of it; None for any other."""
        package, _, module = name.partition(".")
        if package != PACKAGE or (module or "__init__") not in MODULES:
            return None
        loader: Any = cls
        return ModuleSpec(name, loader, origin=f"<{PACKAGE}>/{module or '__init__'}.py", is_package=not module)

    @staticmethod
    def create_module(_: ModuleSpec) -> None:
        """A module of the usual kind."""

    @classmethod
    def exec_module(cls, module: Any) -> None:
        """Runs a module's source."""
        exec(compile(cls.get_source(module.__name__), module.__spec__.origin, "exec"), module.__dict__)

    @staticmethod
    def get_source(name: str) -> str:
        """A module's source."""
        return MODULES[name.partition(".")[2] or "__init__"]


if __name__ == "__main__":
    sys.meta_path.insert(0, Assembled)
    importlib.import_module(f"{PACKAGE}.serving").main(
        str(globals().get("EDGEPACK_NONCE", "-")), str(globals().get("__file__", ""))
    )
