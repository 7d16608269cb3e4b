"""HTML from documents; nothing is measured here."""

from __future__ import annotations

from edgepack.report.writing import check_report_place, report

__all__ = ["check_report_place", "report"]
