"""``python -m edgepack``: the same as the ``edgepack`` command."""

from edgepack.cli import entry

entry()
