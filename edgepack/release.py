"""One release on one device: push, then check, then activate, in one session; a step only if the one before allows it.

This is what ``deploy`` does for one device and a rollout for many.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgepack.check.against import CURRENT
from edgepack.check.measure import Measuring, check_release
from edgepack.deploy.hooks import Hooks
from edgepack.deploy.push import push_verified
from edgepack.deploy.state import status
from edgepack.deploy.switch import activate, marked_bad
from edgepack.documents import ActivateDocument, CheckDocument, PushDocument, to_json_value
from edgepack.errors import GateFailed
from edgepack.events import Event, Reporter, ignore_events

if TYPE_CHECKING:
    from edgepack.bundle import Bundle
    from edgepack.deploy.push import VerifiedBundle
    from edgepack.device import Session

STEP = "deploy"


@dataclass(frozen=True, slots=True)
class ReleasePolicy:
    """How a release goes onto a device.

    ``measuring`` is what the check does otherwise than the bundle has it. ``unchecked`` activates whatever the check
    says; the device's history says so.
    """

    measuring: Measuring = field(default_factory=Measuring)
    unchecked: bool = False
    hooks: Hooks | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far a release came: ``activate`` is None where the check did not pass, ``check`` where none was needed."""

    push: PushDocument
    check: CheckDocument | None
    activate: ActivateDocument | None


def deploy_release(
    session: Session,
    verified: VerifiedBundle,
    *,
    policy: ReleasePolicy | None = None,
    dry_run: bool = False,
    report: Reporter = ignore_events,
) -> Outcome:
    """Push a verified bundle, check it on the device, and activate it if it passes (or the policy says ``unchecked``).

    A release that is active already and passed there is not checked again, unless the policy measures or judges it
    otherwise than the bundle does.
    The session has to hold the device's lock (not for a ``dry_run``, which asks what a push would send and stops
    there). A release whose hooks failed on this device is taken again only where the policy has hooks, which may find
    it bad again. Raises what push, check and activate raise; what was done before stays done, and running it again
    goes on from there.
    """
    policy = policy or ReleasePolicy()
    _settle_bad(session, verified.bundle, policy, report)
    pushed = push_verified(verified, session, dry_run=dry_run, report=report)
    if dry_run:
        report(Event(STEP, "then it would be checked on the device, and activated if it passes"))
        return Outcome(pushed, None, None)
    where: dict[str, Any] = {"app": pushed.app, "release": pushed.release, "report": report}
    checked = None
    if pushed.already_present and policy.measuring == Measuring() and _is_settled(session, pushed):
        report(Event(STEP, f"{pushed.release} is active and has passed here; it is not checked again"))
    else:
        checked = check_release(session, _comparable(session, pushed, policy.measuring, report), **where)
        if checked.verdict != "pass" and not policy.unchecked:
            report(Event(STEP, f"not activated: the verdict is {checked.verdict}"))
            return Outcome(pushed, checked, None)
    unchecked = checked is not None and checked.verdict != "pass"
    try:
        activated = activate(session, unchecked=unchecked, hooks=policy.hooks, **where)
    except GateFailed as error:
        if checked is not None:
            error.message += f" Its check ended in {checked.verdict}: {' '.join(checked.reasons)}"
            error.details["check"] = to_json_value(checked)
        raise
    return Outcome(pushed, checked, activated)


def _settle_bad(session: Session, bundle: Bundle, policy: ReleasePolicy, report: Reporter) -> None:
    """Say that the release is marked bad there; raises GateFailed "marked-bad" where nothing would notice it again."""
    app, release = bundle.manifest.name, bundle.release
    known = (session.hello.get("apps") or {}).get(app) or {}
    if not any(found.get("release") == release and found.get("bad") for found in known.get("releases") or ()):
        return
    said = f"Release {release} of {app} is marked bad: its hooks failed on this device"
    if policy.hooks is None:
        raise marked_bad(f"{said}, and this deployment has no hooks that would notice it again.", release)
    report(Event(STEP, f"warning: {said}; they are run again and decide"))


def _comparable(session: Session, pushed: PushDocument, measuring: Measuring, report: Reporter) -> Measuring:
    """How to measure, without the comparison with the active release where there is no other that is active."""
    if measuring.against != CURRENT:
        return measuring
    current = status(session, app=pushed.app).current
    if current not in (None, pushed.release):
        return measuring
    what = "no release is active yet" if current is None else f"{current} is the active release itself"
    report(Event(STEP, f"{what}: it is checked without --against current"))
    return replace(measuring, against=None)


def _is_settled(session: Session, pushed: PushDocument) -> bool:
    """Whether the release is active already, with a PASS that still counts after the push."""
    summary = status(session, app=pushed.app)
    passed = {found.get("release") for found in summary.releases if found.get("verdict") == "pass"}
    return summary.current == pushed.release and pushed.release in passed
