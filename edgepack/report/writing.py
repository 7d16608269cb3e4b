"""The report as a file: where it may go, and the ``report`` verb, which makes one of a document that was kept."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgepack.documents import ReportDocument
from edgepack.errors import InputError
from edgepack.files import check_output, write_whole
from edgepack.report.page import GENERATOR, Reportable, page
from edgepack.report.reading import no_report, read_document, read_stdin

_MARK = f'<meta name="generator" content="{GENERATOR} '.encode()
_HEAD_BYTES = 1 << 10


def report(document: str | Path | Reportable, *, output: str | Path, dry_run: bool = False) -> ReportDocument:
    """Write one offline HTML page from a document of ``quantize`` or ``tune``.

    ``document`` is the value, or the path of a file with what ``--json`` printed; the text "-" reads that from standard
    input. With ``dry_run`` nothing is written.

    Raises InputError "bad-document" and "no-report" about the document, "bad-output" and "output" about the place.
    """
    place = Path(output)
    from_stdin = isinstance(document, str) and document == "-"
    inputs = [Path(document)] if isinstance(document, (str, Path)) and not from_stdin else []
    check_report_place(place, inputs)
    value: object = document
    if from_stdin:
        value = read_stdin()
    elif isinstance(document, (str, Path)):
        value = read_document(Path(document))
    if not isinstance(value, Reportable):
        raise no_report(f"A {type(value).__name__}")
    text = page(value)
    if not dry_run:
        write_whole(place, text)
    return ReportDocument(str(place), len(text.encode()))


def check_report_place(place: Path, inputs: Iterable[Path] = ()) -> None:
    """Refuse what cannot be written, or must not be written over. Raises InputError "bad-output"."""
    if place.suffix.lower() not in (".html", ".htm"):
        raise InputError("bad-output", f"{place} is no name for a page.", hint="Name a file: OUT.html")
    check_output(place, "a report of edgepack", is_report, inputs)


def is_report(path: Path) -> bool:
    """Whether a file is a page that edgepack wrote."""
    with path.open("rb") as stream:
        return _MARK in stream.read(_HEAD_BYTES)
