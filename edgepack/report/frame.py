"""What every page has around its content: who made it, what a browser may do with it, and its look."""

from __future__ import annotations

from typing import Any

from edgepack import __version__

GENERATOR = "edgepack"
# No source of anything but this page's own <style>: https://www.w3.org/TR/CSP3/
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def frame() -> dict[str, Any]:
    """The values of ``base.html`` that are the same on every page."""
    return {"generator": f"{GENERATOR} {__version__}", "policy": _POLICY}
