"""HTML from values: what is no ``Markup`` is text and gets escaped, so no name can break out of a page.

Drawings are values, made with :func:`tag`; pages are templates of Jinja, which are filled with them and with text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

# Control characters that HTML forbids, halves of surrogate pairs, noncharacters, and those that turn the direction of
# writing around and so make a name look like another one (Unicode, UAX #9).
_UNSHOWABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
_VOID = frozenset({"meta", "br"})


def escaped(text: str) -> Markup:
    """The text as HTML that shows it, also inside of an attribute; what no page can show becomes U+FFFD."""
    return text if isinstance(text, Markup) else escape(showable(text))


def showable(text: str) -> str:
    """The text, with U+FFFD for what no page can show."""
    return _UNSHOWABLE.sub("\ufffd", text)


def filled(template: str, **values: Any) -> str:
    """A template of ``templates/`` with its values; a value that is not given is an error, not a gap."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    def shown(value: Any) -> Any:
        return value if isinstance(value, Markup) else showable(str(value))

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)


def joined(parts: Iterable[str]) -> Markup:
    """Parts one after the other, text among them escaped."""
    return Markup("").join(map(escaped, parts))


def tag(name: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """An element: ``class_`` is the attribute class, ``text_anchor`` is text-anchor, None leaves an attribute out."""
    written = joined(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _attribute(value))
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup("<{}{}>").format(name, written)
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, joined(children))


def shortened(text: str, most: int) -> str:
    """The text in at most so many characters, cut in its middle: tensors differ in how their names end."""
    if len(text) <= most:
        return text
    end = (most - 1) // 2
    return f"{text[: most - 1 - end]}…{text[len(text) - end :]}"


def _attribute(value: str | float) -> str:
    if isinstance(value, str):
        return escaped(value)
    return f"{round(value, 1) + 0.0:g}" if math.isfinite(value) else "0"
