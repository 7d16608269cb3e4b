"""Which devices this machine has met as pinned: they run the agent that their owner laid down, so none is sent to them.

It is a guess that saves a push some 40 KB. Where it is wrong the device asks for the agent ("agent-wanted" in
``bootstrap.py``), which costs one round trip, once; what is not known gets the agent unasked, as ever. One small file
in the cache folder for each way to a pinned device.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from edgepack.cachefolder import cache_folder
from edgepack.device.options import ConnectOptions

# A cache that cannot be written, or nobody's home (pathlib: RuntimeError), costs bytes and no command.
_NO_CACHE = (OSError, RuntimeError)


def met_as_pinned(device: str, options: ConnectOptions) -> bool:
    """Whether the last session that came to ``device`` (its address) in this way found it pinned."""
    with contextlib.suppress(*_NO_CACHE):
        return _mark(device, options).is_file()
    return False


def remember(device: str, options: ConnectOptions, *, pinned: bool) -> None:
    """Keep what a session found."""
    with contextlib.suppress(*_NO_CACHE):
        mark = _mark(device, options)
        if pinned:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(f"{device}\n", encoding="utf-8")
        else:
            mark.unlink(missing_ok=True)


def _mark(device: str, options: ConnectOptions) -> Path:
    """One for each way: it is a key that is pinned, and another key of the same account may be its owner's."""
    files = [str(file.expanduser().absolute()) if file else None for file in (options.ssh_config, options.identity)]
    way = json.dumps([device, *files]).encode("utf-8", "surrogatepass")
    return cache_folder() / "pinned" / hashlib.sha256(way).hexdigest()[:32]
