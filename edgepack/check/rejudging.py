"""The verdict of a check again, from its document alone; pure."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgepack.check.verdict import Measured, Verdict, judge
from edgepack.checkdocuments import CheckDocument, Evidence
from edgepack.errors import InputError
from edgepack.shaped import MisshapenError, shaped
from edgepack.target import Budget

_AGAIN = "Check again with this edgepack: `edgepack check DEVICE -o FILE.json`."


def evidence_of(measured: Measured) -> dict[str, Any]:
    """What ``Evidence.measured`` holds: plain JSON values, without the latencies, which stand there in nanoseconds."""
    values = dataclasses.asdict(measured)
    del values["latency_ms"]
    return values


def measured_of(evidence: Evidence) -> Measured:
    """What was measured, from the evidence alone; the inverse of :func:`evidence_of`.

    Raises InputError "bad-document" where a value is missing or of another kind.
    """
    latency_ms = tuple(nanoseconds / 1e6 for nanoseconds in evidence.latency_ns)
    try:
        return shaped(Measured, {**evidence.measured, "latency_ms": latency_ms})
    except MisshapenError as fault:
        raise InputError("bad-document", f"The evidence of this check cannot be read: {fault}.", hint=_AGAIN) from fault


def rejudge(document: CheckDocument) -> Verdict:
    """The verdict of a check again, from the evidence, the accuracy and the budget in its document.

    Percentiles and their intervals are computed from the samples; accuracy, parity and ratio are taken as they stand.

    Raises InputError: "no-evidence" (an older edgepack made the document), "bad-document", "bad-budget" (a limit that
    this edgepack does not know).
    """
    evidence = document.evidence
    if evidence is None or not evidence.measured:
        raise InputError(
            "no-evidence",
            f"The check of {document.app} {document.release} holds no evidence: its verdict cannot be computed again.",
            hint=_AGAIN,
        )
    budget = Budget().override(document.budget)
    return judge(measured_of(evidence), document.accuracy, evidence.drop_bound, budget)
