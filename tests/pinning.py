"""What tests of pinned devices share: keys, refusals, and a host of another mind than edgepack's."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agent_client import FakeRelease

from edgepack.device import Session
from edgepack.errors import EdgepackError, IntegrityError


def make_key(path: Path) -> str:
    """A throw-away key; returns its public half without the comment."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def refused(code: str, call: Callable[[], object]) -> EdgepackError:
    """The refusal that a call ends in: exit 6, with something to do next."""
    with pytest.raises(IntegrityError) as caught:
        call()
    assert (caught.value.code, bool(caught.value.hint)) == (code, True), str(caught.value)
    return caught.value


def commit_by_hand(session: Session, release: FakeRelease, **changes: Any) -> dict[str, Any]:
    """Stages a release that was made by hand, wheels and all, and commits it."""
    for content in [*release.files.values(), *(wheel for wheel, _ in release.wheels.values())]:
        sha256 = hashlib.sha256(content).hexdigest()
        session.request("put", [content], len(content), sha256=sha256, bytes=len(content), offset=0)
    return session.request("commit", **{**release.commit_arguments(), **changes}).result
