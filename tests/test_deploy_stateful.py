"""Any order of verbs and deaths: a state machine of Hypothesis over push, check, activate, rollback, gc and kill."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deploying import tiny_bundle
from dying import APP, Door, require_whole, write_dying_python
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import edgepack
from edgepack.deploy.hooks import Hooks
from edgepack.device import ConnectOptions
from edgepack.errors import EdgepackError
from edgepack.ondevice.agent.failpoints import POINTS

NUMBERS = st.integers(0, 2)
COMES_BY = {
    "push": ("put", "commit"),
    "check": ("record",),
    "activate": ("switch", "back"),
    "rollback": ("switch", "back"),
    "gc": ("gc",),
}
DEATHS = [
    (verb, point) for verb, places in COMES_BY.items() for point in POINTS if point.startswith((*places, "settle"))
]
WELL, UNWELL = Hooks(after_activate=("true",)), Hooks(after_activate=("false",))


@pytest.mark.timeout(3600)
def test_whatever_happens_in_whatever_order_a_verified_release_is_active(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> None:
    """After any sequence of verbs, refusals and kills, `current` names a whole release that somebody activated."""
    folder = tmp_path_factory.mktemp("bundles")
    bundles = [tiny_bundle(folder, version=f"{number}.0.0", wrong=number)[0] for number in range(3)]
    killed: list[str] = []
    long = pytestconfig.getoption("--slow")
    run_state_machine_as_test(
        lambda: Life(bundles, killed),
        settings=settings(
            max_examples=100 if long else 4,
            stateful_step_count=30 if long else 6,
            derandomize=not long,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert killed


class Life(RuleBasedStateMachine):
    """A device, and what may be said of it: ``active`` is what `current` may name, ``passed`` what may be activated."""

    def __init__(self, bundles: list[Path], killed: list[str]) -> None:
        super().__init__()
        self.bundles = bundles
        self.killed = killed
        self.folder = tempfile.TemporaryDirectory()
        folder = Path(self.folder.name)
        self.root, self.order = folder / "device", folder / "order"
        write_dying_python(folder / "python", self.order)
        options = ConnectOptions(python=str(folder / "python"), wait_s=60.0, retries=0)
        self.where: dict[str, Any] = {"device": f"local:{self.root}", "options": options}
        self.active: set[str | None] = {None}
        self.ids: dict[int, str] = {}
        self.passed: set[str] = set()
        self.ever_active: set[str] = set()

    @property
    def current(self) -> str | None:
        """What the symlink names."""
        link = self.root / "apps" / APP / "current"
        return link.readlink().name if link.is_symlink() else None

    @contextlib.contextmanager
    def allowed(self, *codes: str) -> Iterator[None]:
        """A refusal with one of these codes is fine."""
        try:
            yield
        except EdgepackError as error:
            if error.code not in codes:
                raise

    @initialize(death=st.sampled_from(DEATHS))
    def begin(self, death: tuple[str, str]) -> None:
        """A release that is active, a candidate, and the first death."""
        self.push(0)
        self.activate(0, True, WELL)
        self.push(1)
        self.kill(death, 2)

    @rule(number=NUMBERS)
    def push(self, number: int) -> None:
        """Makes the candidate, activates nothing."""
        pushed = edgepack.push(self.bundles[number], **self.where)
        self.ids[number] = pushed.release
        assert edgepack.status(**self.where).candidate == pushed.release

    @rule()
    def check(self) -> None:
        """Records a verdict, activates nothing."""
        with self.allowed("no-app", "no-release", "no-candidate", "nothing-to-check", "release-damaged"):
            checked = edgepack.check(app=APP, **self.where)
            if checked.verdict == "pass":
                self.passed.add(checked.release)
            else:
                self.passed.discard(checked.release)

    @rule(number=NUMBERS, unchecked=st.booleans(), hooks=st.sampled_from([WELL, WELL, UNWELL]))
    def activate(self, number: int, unchecked: bool, hooks: Hooks) -> None:
        """Switches where it may; a hook that fails switches back."""
        release = self.ids.get(number)
        with self.allowed("no-app", "no-candidate", "no-release", "not-checked", "marked-bad", "hook-failed"):
            done = edgepack.activate(app=APP, release=release, unchecked=unchecked, hooks=hooks, **self.where)
            assert unchecked or done.current in self.passed
            assert hooks is WELL or not done.changed
            self.now_active(done.current)

    @rule()
    def rollback(self) -> None:
        """Goes back to what was active once."""
        with self.allowed("no-app", "no-previous", "not-checked"):
            done = edgepack.rollback(app=APP, hooks=WELL, **self.where)
            assert done.current in self.ever_active
            self.now_active(done.current)

    @rule(keep=st.integers(0, 2))
    def gc(self, keep: int) -> None:
        """Removes nothing that is needed."""
        with self.allowed("no-app"):
            before = edgepack.status(app=APP, **self.where)
            removed = edgepack.gc(app=APP, keep=keep, **self.where).removed
            assert not {before.current, before.previous, before.candidate} & set(removed)
            self.passed -= set(removed)

    @rule(death=st.sampled_from(DEATHS), number=NUMBERS)
    def kill(self, death: tuple[str, str], number: int) -> None:
        """The agent dies on its way, if it comes by; what it was at has happened, or not."""
        verb, point = death
        goal: str | None = self.ids.get(number)
        with self.allowed("no-app"):
            status = edgepack.status(app=APP, **self.where)
            goal = status.previous if verb == "rollback" else goal or status.candidate
            # Whether the verdict was kept when it died is unknown: it may be activated.
            self.passed |= {status.candidate} if verb == "check" and status.candidate else set()
        self.active |= {goal} if verb in ("activate", "rollback") else set()
        self.ever_active |= {goal} - {None} if verb == "activate" else set()  # type: ignore[arg-type]
        self.order.write_text(json.dumps({"point": point, "victim": "agent"}))
        hooks = UNWELL if point.startswith("back:") else WELL
        with contextlib.suppress(EdgepackError):
            if verb == "push":
                edgepack.push(self.bundles[number], **self.where)
            elif verb == "check":
                edgepack.check(app=APP, **self.where)
            elif verb == "activate":
                edgepack.activate(app=APP, release=goal, unchecked=True, hooks=hooks, **self.where)
            elif verb == "rollback":
                edgepack.rollback(app=APP, hooks=hooks, **self.where)
            else:
                edgepack.gc(app=APP, keep=0, **self.where)
        if not self.order.exists():
            self.killed.append(f"{verb} at {point}")
        self.order.unlink(missing_ok=True)

    @invariant()
    def a_verified_release_is_active(self) -> None:
        """Or none, as long as none was activated."""
        assert self.current in self.active
        if self.current is not None:
            require_whole(self.root, self.current)

    def now_active(self, release: str) -> None:
        """An activation was told: from now on `current` names that release."""
        self.active = {release}
        self.ever_active.add(release)

    def teardown(self) -> None:
        """What is active at the end loads and computes."""
        if self.current is not None:
            door = Door()
            assert door.load(self.root) == self.current
            door.close()
        self.folder.cleanup()
