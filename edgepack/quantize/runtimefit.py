"""Holds a .tflite against every runtime that its target's platforms get: pure functions of the model and the target."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

from edgepack.documents import Finding
from edgepack.quantize.operators import RUNTIMES, TF_SELECT, RuntimeTable, needed_version, runtime_table, traps_of
from edgepack.target import Target
from edgepack.target.lock import shipped_wheels
from edgepack.target.solver import RuntimeOption, runtime_options, runtimes_of
from edgepack.tflite import TfliteModel

TFLITE_RUNTIME = "tflite-runtime"


def runtime_tables(target: Target) -> tuple[RuntimeTable, ...]:
    """What each runtime of the target implements, each once."""
    return tuple(dict.fromkeys(runtime_table(package, version) for package, version in runtimes_of(target)))


def needs_dense_per_tensor(model: TfliteModel, target: Target) -> bool:
    """Whether what a runtime of the target lacks is per-channel weights in float FULLY_CONNECTED (version 12)."""
    wanted = ("FULLY_CONNECTED", 12)
    return wanted in _needed(model) and any(table.operators["FULLY_CONNECTED"] < 12 for table in runtime_tables(target))


def runtime_findings(
    model: TfliteModel,
    target: Target,
    compiled: frozenset[str] = frozenset(),
    options: Sequence[Sequence[RuntimeOption]] | None = None,
) -> Iterator[Finding]:
    """What the runtimes that the target's platforms get lack or compute wrongly.

    ``options`` are the runtimes of each platform, by preference (from the lock, where they are not given); ``compiled``
    are the custom operators of the target's delegate. The codes: "tf-select", "custom-operator", "operator-version",
    "wrong-numbers" (errors); "other-runtime" (a note: the first of a platform's runtimes cannot do it, another can).
    """
    if options is None:
        options = [runtime_options(target, platform, shipped_wheels()) for platform in target.platforms]
    if not all(options) or not options:
        yield from table_findings(model, runtime_tables(target), compiled)
        return
    chosen = fit_runtimes(model, target, options, compiled)
    yield from table_findings(model, _tables(chosen), compiled)
    first = [ordered[0] for ordered in options]
    for table in _tables(chosen):
        exchanged = [old for old, new in zip(first, chosen, strict=True) if old.package != new.package == table.package]
        if exchanged:
            why = " ".join(found.message for found in table_findings(model, _tables(exchanged), compiled))
            yield Finding(
                "other-runtime", "note", table.package,
                f"{table.title} goes to {'; '.join(one.platform.label for one in exchanged)}, and not "
                f"{_either([one.title for one in _tables(exchanged)])}: {why}",
                "Choose another scheme where the smaller runtime matters.",
            )  # fmt: skip


def _tables(options: Sequence[RuntimeOption]) -> tuple[RuntimeTable, ...]:
    return tuple(dict.fromkeys(runtime_table(one.package, one.version) for one in options))


def table_findings(
    model: TfliteModel, tables: tuple[RuntimeTable, ...], compiled: frozenset[str] = frozenset()
) -> Iterator[Finding]:
    """As :func:`runtime_findings`, for these runtimes."""
    yield from _customs(model, tables, compiled)
    yield from _versions(model, tables)
    yield from _traps(model, tables)


def fit_runtimes(
    model: TfliteModel,
    target: Target,
    options: Sequence[Sequence[RuntimeOption]],
    compiled: frozenset[str] = frozenset(),
) -> list[RuntimeOption]:
    """For each platform the first of its runtimes that computes the model, the first of all where none does.

    Its ``enough`` tells from which version on a runtime that the device has will do as well: either package, but for a
    target with a delegate, whose profile names the pair.
    """

    @functools.cache
    def takes(table: RuntimeTable) -> bool:
        return not any(table_findings(model, (table,), compiled))

    lowest: dict[str, str] = {}
    for table in RUNTIMES:
        if takes(table):
            lowest.setdefault(table.package, table.version)
    chosen = []
    for ordered in options:
        taking = [one for one in ordered if takes(runtime_table(one.package, one.version))]
        one = (taking or ordered)[0]
        pair = (one.package, target.runtime.package)
        enough = {name: version for name, version in lowest.items() if not target.delegate.library or name in pair}
        chosen.append(dataclasses.replace(one, enough=enough))
    return chosen


def _customs(model: TfliteModel, tables: tuple[RuntimeTable, ...], compiled: frozenset[str]) -> Iterator[Finding]:
    names = {operator.custom_name for operator in model.operators if operator.custom_name is not None} - compiled
    select = sorted(name for name in names if name.startswith(TF_SELECT))
    if select:
        yield Finding(
            "tf-select", "error", ", ".join(select),
            f"The model needs TensorFlow's own kernels (TF Select) for {_operators(select)}, which are not in "
            f"{_either([table.title for table in tables])}.",
            "Replace the layers that they come from by ones that TFLite's own operators can compute.",
        )  # fmt: skip
    for name in sorted(names - set(select)):
        lacking = [table.title for table in tables if name not in table.customs]
        if lacking:
            yield Finding(
                "custom-operator", "error", name,
                f"The operator {name!r} is not in {_either(lacking)}.",
                "Replace the layer that it comes from.",
            )  # fmt: skip


def _needed(model: TfliteModel) -> set[tuple[str, int]]:
    return {(one.name, needed_version(model, one)) for one in model.operators if one.custom_name is None}


def _versions(model: TfliteModel, tables: tuple[RuntimeTable, ...]) -> Iterator[Finding]:
    for name, version in sorted(_needed(model)):
        lacking = [table for table in tables if version > table.operators.get(name, 0)]
        if lacking:
            have = "; ".join(_has(table, name) for table in lacking)
            yield Finding(
                "operator-version", "error", name,
                f"{name} is needed in version {version}, and {have}.",
                _cure(lacking),
            )  # fmt: skip


def _has(table: RuntimeTable, name: str) -> str:
    have = table.operators.get(name)
    return f"{table.title} has " + (f"up to {have}" if have else "none")


def _traps(model: TfliteModel, tables: tuple[RuntimeTable, ...]) -> Iterator[Finding]:
    found: dict[tuple[str, str], dict[str, RuntimeTable]] = {}
    for operator in model.operators:
        for table in tables:
            for trap in traps_of(model, operator, table):
                found.setdefault((operator.name, trap.what), {})[table.title] = table
    for (name, what), lacking in sorted(found.items()):
        yield Finding(
            "wrong-numbers", "error", name,
            f"{name} has {what}: {_either(list(lacking))} loads that, and then fails or answers wrongly.",
            _cure(list(lacking.values())),
        )  # fmt: skip


def _cure(lacking: list[RuntimeTable]) -> str:
    if any(table.package == TFLITE_RUNTIME for table in lacking):
        return "Choose another scheme, or a profile with ai-edge-litert where that has a wheel (not on 32-bit ARM)."
    return "Choose another scheme, or replace the layer that it comes from."


def _operators(names: list[str]) -> str:
    return f"the operator{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _either(titles: list[str]) -> str:
    return " or ".join(titles)
