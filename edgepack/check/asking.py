"""Asking a device to measure: its progress is passed on, and a device that was throttled may be asked once more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgepack.check.conditions import require_sound, was_hot
from edgepack.events import Event, Reporter

if TYPE_CHECKING:
    from edgepack.device import Session

STEP = "check"

COOL_S = 600.0
"""How long a device may take to get cool before it is measured again."""

TRIES = 3
"""How often a device that gets hot each time is measured."""


def ask(
    session: Session, arguments: Mapping[str, Any], report: Reporter, *, retry_when_cool: bool = False
) -> Mapping[str, Any]:
    """The measurement that a device makes with these arguments of the verb ``measure``.

    With ``retry_when_cool`` one that was throttled is thrown away: the device waits until it is cool (its loader does,
    :data:`COOL_S` at most) and measures again, :data:`TRIES` times in all.

    Raises DeviceFailure "measure-failed" where what comes back is no measurement.
    """
    measurement = _ask_once(session, arguments, report)
    for _ in range(TRIES - 1 if retry_when_cool else 0):
        if not was_hot(measurement):
            break
        minutes = f"{COOL_S / 60:.0f}"
        report(Event(STEP, f"{session.description} was throttled; waiting until it is cool, {minutes} minutes at most"))
        options = {**arguments["options"], "cool_s": COOL_S}
        measurement = _ask_once(session, {**arguments, "options": options}, report)
    return measurement


def _ask_once(session: Session, arguments: Mapping[str, Any], report: Reporter) -> Mapping[str, Any]:
    measurement = session.request("measure", on_progress=teller(report), **arguments).result
    require_sound(measurement, session.description)
    return measurement


def teller(report: Reporter) -> Callable[[Mapping[str, Any]], None]:
    """What makes events of a device's reports of progress."""

    def tell(progress: Mapping[str, Any]) -> None:
        done, total = progress.get("done"), progress.get("total")
        report(
            Event(
                STEP,
                str(progress.get("step") or "measuring"),
                done if isinstance(done, int) else None,
                total if isinstance(total, int) else None,
                str(progress.get("unit") or "runs"),
            )
        )

    return tell
