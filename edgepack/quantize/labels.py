"""Labels as people write them, names or numbers, as the numbers that a metric takes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgepack.errors import InputError
from edgepack.strict_toml import nearest

# A column with more different words than this holds no classes.
_MOST_CLASSES = 10_000


@dataclass(frozen=True, slots=True)
class Labelling:
    """How labels become numbers: by their place in ``classes``, or (no classes) because they are numbers."""

    classes: tuple[str, ...]
    dtype: str

    def number(self, text: str, where: str) -> float:
        """The number of one label. Raises InputError "bad-label", which says ``where`` it stands."""
        if not self.classes:
            return number_of(text, where)
        if text in self.classes:
            return self.classes.index(text)
        near = nearest(text, self.classes, limit=1)
        raise InputError(
            "bad-label",
            f"{where}: {text!r} is none of the {len(self.classes)} classes ({listed(self.classes)})."
            + (f" Did you mean {near[0]!r}?" if near else ""),
            hint="Mend the label, or add the class to classes in [samples].",
            classes=list(self.classes),
        )


def labelling_of(texts: Iterable[str], classes: Sequence[str], where: str) -> Labelling:
    """How to number these labels: by ``classes`` where they are stated, else as numbers, else by sorted name.

    Raises InputError "bad-label" where one is missing, or where they are words beyond counting.
    """
    known = set(texts)
    if "" in known:
        raise InputError("bad-label", f"{where}: there is a sample without a label.", hint="Label it, or leave it out.")
    if classes:
        return Labelling(tuple(classes), "<i8")
    numbers = [_number(text) for text in known]
    if all(number is not None for number in numbers):
        whole = all(number == int(number) for number in numbers if number is not None and abs(number) < 2**53)
        return Labelling((), "<i8" if whole and all(abs(number or 0) < 2**53 for number in numbers) else "<f8")
    if len(known) > _MOST_CLASSES:
        raise InputError(
            "bad-label",
            f"{where}: there are {len(known)} different labels, which are no numbers: {min(known)!r}, ...",
            hint="Name the column of the labels: label = ... in [samples].",
        )
    return Labelling(tuple(sorted(known)), "<i8")


def listed(names: Sequence[str], most: int = 8) -> str:
    """The names, the first of them where there are many."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def number_of(text: str, where: str) -> float:
    """The finite number that a text is. Raises InputError "bad-number", which says ``where`` it stands."""
    number = _number(text)
    if number is None:
        shown = "nothing" if not text.strip() else repr(text[:40])
        raise InputError(
            "bad-number", f"{where}: {shown} is no finite number.", hint="Write a number, with a point for decimals."
        )
    return number


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None
