"""HTML from documents; nothing is measured here."""

from __future__ import annotations

from edgepack.report.reading import NONE_KEEPS, broken_budget
from edgepack.report.writing import check_report_place, check_report_places, refuse_shared, report, write_reports

__all__ = [
    "NONE_KEEPS",
    "broken_budget",
    "check_report_place",
    "check_report_places",
    "refuse_shared",
    "report",
    "write_reports",
]
