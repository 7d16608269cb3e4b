"""Whatever dies, fills up or is cut: the active release loads, nothing untrue is told, the next push completes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dying import Proving, random_cuts, small_disk
from real_sshd import RealSshd

from edgepack.ondevice.agent.failpoints import POINTS

SOON = ("put:writing", "delta:writing", "runtime:unpacking", "record:noted", "switch:swapped", "back:intended")


@pytest.fixture(scope="module")
def proving(sshd: RealSshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proving]:
    """A device behind a real sshd that dies when it is told to."""
    with Proving(tmp_path_factory.mktemp("proving"), sshd) as ready:
        yield ready


def some(points: tuple[str, ...]) -> list[object]:
    """Every point; those that are not named here in the long run only."""
    return [pytest.param(point, marks=[] if point in points else [pytest.mark.slow]) for point in POINTS]


@pytest.mark.sshd
@pytest.mark.parametrize("point", some(SOON))
def test_an_agent_that_is_killed_leaves_a_whole_release(proving: Proving, point: str) -> None:
    """SIGKILL to the agent at a named point: it is told, the old or the new release loads, the next push completes."""
    proving.blow(point, "agent")


@pytest.mark.sshd
@pytest.mark.parametrize("point", some(("delta:staged", "runtime:unpacked", "switch:intended", "settle:begun")))
def test_a_host_that_is_killed_leaves_a_whole_release(proving: Proving, point: str) -> None:
    """SIGKILL to the host at a named point of the agent: as above, and the next command from anywhere completes."""
    proving.blow(point, "host")


@pytest.mark.sshd
@pytest.mark.parametrize("point", some(("delta:gathered", "runtime:unpacking", "switch:swapped")))
def test_a_disk_that_fills_leaves_a_whole_release(proving: Proving, point: str, tmp_path: Path) -> None:
    """A disk that is full from a named point on: the active release loads, and a push completes once there is room."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small disk")
    with small_disk(tmp_path / "small") as disk:
        proving.blow(point, "disk", on=disk)


@pytest.mark.sshd
def test_a_line_that_is_cut_leaves_a_whole_release(proving: Proving) -> None:
    """Cut at random bytes of a whole deployment: as above."""
    for fault in itertools.islice(random_cuts(5), 3):
        proving.cut(fault)
