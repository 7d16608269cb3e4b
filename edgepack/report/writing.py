"""The report as files: where they may go, and the ``report`` verb, which makes them of a document that was kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from edgepack.documents import CheckDocument, ReportDocument
from edgepack.errors import InputError
from edgepack.files import check_output, write_whole
from edgepack.report import summaries
from edgepack.report.frame import GENERATOR
from edgepack.report.page import Reportable, page
from edgepack.report.reading import no_report, read_document, read_stdin

_MARK = f'<meta name="generator" content="{GENERATOR} '.encode()
_HEAD_BYTES = 1 << 10

Place = str | Path | None


def report(
    document: str | Path | Reportable,
    *,
    output: Place = None,
    junit: Place = None,
    markdown: Place = None,
    dry_run: bool = False,
) -> ReportDocument:
    """Write one offline HTML page from a document of ``quantize``, ``tune`` or ``check``, and summaries of a check.

    ``document`` is the value, or the path of a file with what ``--json`` printed; the text "-" reads that from standard
    input. ``output`` (OUT.html) is where the page goes; ``junit`` (OUT.xml) and ``markdown`` are for a CI server and
    take a document of ``check``. With ``dry_run`` nothing is written.

    Raises InputError "bad-document" and "no-report" about the document, "bad-output" and "output" about the places,
    "usage" where none is named, "no-gates" for summaries of what is no check.
    """
    from_stdin = isinstance(document, str) and document == "-"
    inputs = [Path(document)] if isinstance(document, (str, Path)) and not from_stdin else []
    check_report_places(output, junit, markdown, inputs)
    value: object = document
    if from_stdin:
        value = read_stdin()
    elif isinstance(document, (str, Path)):
        value = read_document(Path(document))
    if not isinstance(value, Reportable):
        raise no_report(f"A {type(value).__name__}")
    return write_reports(value, output, junit, markdown, dry_run=dry_run)


def write_reports(
    document: Reportable, output: Place, junit: Place, markdown: Place, *, dry_run: bool = False
) -> ReportDocument:
    """Write what is asked for of a document; the places were looked at before."""
    texts: list[tuple[Place, str]] = []
    if output is not None:
        texts.append((output, page(document)))
    if junit is not None or markdown is not None:
        if not isinstance(document, CheckDocument):
            raise InputError(
                "no-gates",
                "Summaries for CI are made of a check's gates, and this is no document of check.",
                hint="Leave --junit and --markdown out, or name what `edgepack check -o FILE.json` wrote.",
            )
        texts += [(junit, summaries.junit(document))] if junit is not None else []
        texts += [(markdown, summaries.markdown(document))] if markdown is not None else []
    if not dry_run:
        for place, text in texts:
            write_whole(Path(str(place)), text)
    return ReportDocument(
        path=None if output is None else str(output),
        bytes=None if output is None else len(texts[0][1].encode()),
        junit=None if junit is None else str(junit),
        markdown=None if markdown is None else str(markdown),
    )


def check_report_places(output: Place, junit: Place, markdown: Place, inputs: Iterable[Path] = ()) -> None:
    """Refuse places that cannot be written to, before anything is measured.

    Raises InputError "bad-output", and "usage" where none is named.
    """
    named = [("-o", output), ("--junit", junit), ("--markdown", markdown)]
    places = [(option, Path(place)) for option, place in named if place is not None]
    if not places:
        raise InputError("usage", "Nowhere to write to is named.", hint="Name a page: -o OUT.html")
    refuse_shared(places)
    if output is not None:
        check_report_place(Path(output), inputs)
    if junit is not None:
        if Path(junit).suffix.lower() != ".xml":
            raise InputError("bad-output", f"{junit} is no name for JUnit's XML.", hint="Name a file: OUT.xml")
        check_output(Path(junit), "a JUnit summary of edgepack", _begins(summaries.JUNIT_MARK), inputs)
    if markdown is not None:
        check_output(Path(markdown), "a Markdown summary of edgepack", _begins(summaries.MARKDOWN_MARK), inputs)


def check_report_place(place: Path, inputs: Iterable[Path] = ()) -> None:
    """Refuse what cannot be written, or must not be written over. Raises InputError "bad-output"."""
    if place.suffix.lower() not in (".html", ".htm"):
        raise InputError("bad-output", f"{place} is no name for a page.", hint="Name a file: OUT.html")
    check_output(place, "a report of edgepack", is_report, inputs)


def refuse_shared(places: Iterable[tuple[str, Path]]) -> None:
    """One file cannot hold two things. Raises InputError "bad-output"; ``places`` are options and what they name."""
    seen: dict[Path, str] = {}
    for option, place in places:
        other = seen.setdefault(place.resolve(), option)
        if other != option:
            raise InputError(
                "bad-output", f"{place} is named by {other} and by {option}.", hint="Name a file for each of them."
            )


def is_report(path: Path) -> bool:
    """Whether a file is a page that edgepack wrote."""
    with path.open("rb") as stream:
        return _MARK in stream.read(_HEAD_BYTES)


def _begins(mark: str) -> Callable[[Path], bool]:
    def is_ours(path: Path) -> bool:
        with path.open("rb") as stream:
            return stream.read(_HEAD_BYTES).startswith(mark.encode())

    return is_ours
