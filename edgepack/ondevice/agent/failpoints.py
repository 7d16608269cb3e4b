"""The named instants of the agent's work at which the proofs of reliability kill it, its host, or fill its disk.

A point is an auditing event (PEP 578): it costs a few hundred nanoseconds and does nothing, unless the program that
started Python listens. Nothing that reaches the agent over the wire can listen; tests/dying.py does.
"""

from __future__ import annotations

import sys

EVENT = "edgepack.point"
POINTS = {
    "put:writing": "a part of a staged file is written, and not synced yet",
    "put:arrived": "a file is whole and synced, under its temporary name",
    "put:staged": "a file lies staged under the name of its digest",
    "delta:recipe": "the recipe of a model is staged, none of its chunks is looked for",
    "delta:gathered": "what the releases here hold of a model is in the file that grows",
    "delta:writing": "a part of the chunks that lacked is written, and not synced yet",
    "delta:woven": "the last chunk is there and synced, nobody looked whether they make the model",
    "delta:staged": "the model lies staged under the name of its digest",
    "commit:counted": "the counter is kept, no file has moved",
    "runtime:unpacking": "a part of a wheel's files is written in incoming/, and not synced yet",
    "runtime:unpacked": "the runtime is whole and synced in incoming/",
    "runtime:placed": "the runtime is in its place, and no release that needs it",
    "commit:assembled": "the release is whole in incoming/",
    "commit:placed": "the release is in its place, still writable, and nobody's candidate",
    "commit:sealed": "the release is read-only",
    "commit:noted": "the release is the candidate; incoming/ is not swept",
    "commit:swept": "all is done, and the host not told",
    "record:noted": "a check's verdict is kept, and the host not told",
    "switch:intended": "the intent is written, `current` is the old release",
    "switch:swapped": "`current` is the new release, no hook ran",
    "switch:hooked": "the hooks ran, and how they ended is noted nowhere",
    "switch:noted": "the activation is in the history, and the host not told",
    "back:intended": "a hook failed, the way back is noted, `current` is the new release",
    "back:swapped": "`current` is the old release again, the failure not in the history",
    "back:noted": "the failure is in the history, the old release's hook did not run",
    "settle:begun": "a session found an unfinished activation",
    "settle:settled": "it is settled, the session's own work has not begun",
    "gc:trashed": "a release is out of its place, and not removed",
    "gc:removed": "it is removed, the notes still name it",
    "gc:noted": "gc is done, and the host not told",
}


def reach(point: str) -> None:
    """Says that the agent is at one of :data:`POINTS`."""
    sys.audit(EVENT, point)
