"""What is said when a connection breaks: one error before the agent has answered, another one after."""

from __future__ import annotations

from edgepack.errors import DeviceFailure, UnreachableError

RESUMES = "Run the command again; it resumes from what the device already has."


def connection_dropped(device: str, why: str = "") -> UnreachableError:
    """Before the agent's first answer: the device was not reached, and nothing on it has changed (exit code 4)."""
    return UnreachableError(
        "connection-dropped",
        f"The connection to {device} broke before edgepack's agent answered" + (f": {why}" if why else "."),
        hint="Run the command again.",
    )


def connection_lost(device: str, why: str = "") -> DeviceFailure:
    """In the middle of the work (exit code 7)."""
    return DeviceFailure(
        "connection-lost", f"The connection to {device} was lost" + (f": {why}" if why else "."), hint=RESUMES
    )


def stalled(device: str, silent_s: float) -> DeviceFailure:
    """Nothing breaks, and nothing comes (exit code 7)."""
    return DeviceFailure(
        "stalled",
        f"Nothing came from {device} for {silent_s:.0f} s.",
        hint="Look at its network, or whether it hangs. " + RESUMES,
    )
