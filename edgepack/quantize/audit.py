"""What is worth knowing of a calibration set before it sets the ranges: notes, none of which refuses it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from edgepack.documents import Finding
from edgepack.quantize.checking import CheckedSamples, Span
from edgepack.quantize.tables import CsvTable
from edgepack.target import INTEGER_SCHEMES, Scheme

# The guide's rule: around 100 to 500 samples (ai.google.dev/edge/litert, "Post-training quantization").
FEW_SAMPLES = 100
# Pixels of 0 to 255 beside pixels of 0 to 1 differ by 255; two honest halves of one set by far less.
_OTHER_SCALE = 16.0
# A set that stays within a hundredth of the stated range was most likely scaled twice.
_UNUSED_SHARE = 0.01
# A wrong order shows in the first few.
_SHOWN_CLASSES = 12


def audit_samples(calibration: CheckedSamples | None, judging: CheckedSamples | None) -> tuple[Finding, ...]:
    """What the sets of a run show: ``calibration`` sets the ranges, ``judging`` measures accuracy or travels along."""
    notes: list[Finding] = []
    sets = [checked for checked in (calibration, judging) if checked is not None]
    for place in {checked.samples.place: checked for checked in reversed(sets)}.values():
        notes += _left_out(place)
    for checked in sets:
        notes += _unused_range(checked)
    if judging is not None:
        notes += _sorted_labels(judging)
    if calibration is not None:
        notes += [*_few(calibration), *_repeated(calibration), *_constant(calibration)]
    if calibration is not None and judging is not None:
        notes += [*_other_scale(calibration, judging), *_missing_classes(calibration, judging)]
    return tuple(notes)


def unused_calibration(calibration: CheckedSamples | None, scheme: Scheme) -> tuple[Finding, ...]:
    """That a scheme which measures no ranges leaves calibration samples alone."""
    if calibration is None or scheme in INTEGER_SCHEMES:
        return ()
    told = f"{scheme} needs no calibration samples; they were not used."
    return (Finding("unused-calibration", "note", calibration.samples.text, told, ""),)


def _left_out(checked: CheckedSamples) -> Iterator[Finding]:
    names = checked.samples.store.left_out
    if names:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        yield _note(
            "left-out",
            checked,
            f"{_counted(len(names), 'file')} beside the images {_is(len(names))} left out ({shown}).",
            "Give images the ending of their format; nothing to do if these are none.",
        )


def _sorted_labels(checked: CheckedSamples) -> Iterator[Finding]:
    """As many words as the model has classes are numbered without a word otherwise, in the model's order or not."""
    store = checked.samples.store
    classes = store.sorted_classes if isinstance(store, CsvTable) else ()
    if classes:
        shown = ", ".join(f"{word}={number}" for number, word in enumerate(classes[:_SHOWN_CLASSES]))
        more = ", ..." if len(classes) > _SHOWN_CLASSES else ""
        yield _note(
            "sorted-labels",
            checked,
            f"the labels are numbered as sorted: {shown}{more}.",
            "If the model's outputs have another order, write it as classes = [...] into [samples].",
        )


def _unused_range(checked: CheckedSamples) -> Iterator[Finding]:
    limits = checked.samples.preprocessing.limits
    for span in checked.spans if limits and checked.samples.store.kind != "a folder of images" else ():
        if limits and span.high - span.low < _UNUSED_SHARE * (limits[1] - limits[0]):
            yield _note(
                "range-unused",
                checked,
                f"{span.name!r} lies between {span.low:g} and {span.high:g}, and [samples] says {limits[0]:g} to "
                f"{limits[1]:g}.",
                "Were the samples scaled twice? Scale them as in training, or correct range in [samples].",
            )


def _few(checked: CheckedSamples) -> Iterator[Finding]:
    count = checked.samples.rows
    if count < FEW_SAMPLES:
        yield _note(
            "few-samples",
            checked,
            f"{_counted(count, 'sample')} {'sets' if count == 1 else 'set'} the ranges, which may be too narrow for "
            "what the device will see.",
            "Calibrate with 100 to 500 typical samples.",
        )


def _repeated(checked: CheckedSamples) -> Iterator[Finding]:
    first: dict[bytes, int] = {}
    pairs = []
    for row, digest in enumerate(checked.rows, checked.samples.start):
        if digest in first:
            pairs.append((first[digest], row))
        first.setdefault(digest, row)
    if pairs:
        yield _note(
            "repeated-samples",
            checked,
            f"{_counted(len(pairs), 'row')} {'repeats' if len(pairs) == 1 else 'repeat'} an earlier one "
            f"(row {pairs[0][1]} is row {pairs[0][0]}), which adds nothing to the ranges.",
            "Remove the doubles, so that the set is as varied as it is long.",
        )


def _constant(checked: CheckedSamples) -> Iterator[Finding]:
    rows = checked.constant
    if rows:
        yield _note(
            "constant-samples",
            checked,
            f"{_counted(len(rows), 'row')} {_is(len(rows))} one value throughout (row {rows[0]}).",
            "Empty recordings and blank pictures: remove them, unless the device will see such.",
        )


def _other_scale(calibration: CheckedSamples, judging: CheckedSamples) -> Iterator[Finding]:
    others = {span.name: span for span in judging.spans}
    for span in calibration.spans:
        alone = len(judging.spans) == len(calibration.spans) == 1
        other = judging.spans[0] if alone else others.get(span.name)
        if other is None or not 0 < min(_size(span), _size(other)) * _OTHER_SCALE < max(_size(span), _size(other)):
            continue
        yield _note(
            "other-scale",
            calibration,
            f"{span.name!r} lies between {span.low:g} and {span.high:g} here, and between {other.low:g} and "
            f"{other.high:g} in {judging.samples.text}.",
            "Scale both sets as in training: ranges that do not fit cost all accuracy.",
        )


def _missing_classes(calibration: CheckedSamples, judging: CheckedSamples) -> Iterator[Finding]:
    if not calibration.classes or not judging.classes:
        return
    judged = [label for label, _ in judging.classes]
    missing = sorted(set(judged) - {label for label, _ in calibration.classes})
    # With as many labels as samples they count or measure something.
    if missing and len(judged) * 2 <= judging.samples.rows:
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        yield _note(
            "missing-classes",
            calibration,
            f"{len(missing)} of the {len(judged)} classes of {judging.samples.text} are not in it ({shown}).",
            "Take samples of every class, so that the ranges fit all of them.",
        )


def _size(span: Span) -> float:
    return max(abs(span.low), abs(span.high))


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _counted(count: int, thing: str) -> str:
    return f"1 {thing}" if count == 1 else f"{count} {thing}s"


def _note(code: str, checked: CheckedSamples, message: str, cure: str) -> Finding:
    return Finding(code, "note", checked.samples.text, f"{checked.samples.name}: {message}", cure)
