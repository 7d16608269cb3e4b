"""Where edgepack keeps what it can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/edgepack``, by default ``~/.cache/edgepack``; it may not exist yet, and is safe to delete."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "edgepack"
