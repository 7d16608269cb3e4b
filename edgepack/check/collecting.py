"""What a measurement left on the device, fetched: arrays, as the device computed them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from edgepack.errors import IntegrityError

if TYPE_CHECKING:
    import numpy as np

    from edgepack.device import Session

    Array = np.ndarray[Any, Any]


def collect(session: Session, token: str) -> dict[str, Array]:
    """The arrays of a measurement of this session, by name. Raises IntegrityError "digest-mismatch", "bad-outputs"."""
    from edgepack.check.compare import read_outputs

    reply = session.request("collect", token=token)
    if hashlib.sha256(reply.payload).hexdigest() != reply.result.get("sha256"):
        raise IntegrityError(
            "digest-mismatch",
            f"The outputs that {session.description} sent did not arrive as it computed them.",
            hint="Run the check again. If it happens again, suspect the device's disk or memory: SSH protects what it "
            "carries.",
        )
    return read_outputs(reply.payload)
