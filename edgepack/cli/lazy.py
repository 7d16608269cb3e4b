"""The classes of groups and commands for Typer.

A group's commands are built when one is asked for: ``--help`` needs names and sentences only, and building every option
of every command costs as much as importing Typer does. A command takes no option twice that has one value.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

HELP_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 120}

Table = dict[str, typer.Typer]
"""Each command's name and the Typer app that holds it alone, in the order of ``--help``."""


DEFAULT_WAIT_S = 600


def with_wait(args: list[str]) -> list[str]:
    """Gives ``--wait`` a number where none follows it: no option of Typer's has a value that may be left out."""
    end = args.index("--") if "--" in args else len(args)
    given: list[str] = []
    for position, word in enumerate(args):
        given.append(word)
        following = args[position + 1] if position + 1 < len(args) else ""
        if word == "--wait" and position < end and not re.fullmatch(r"[0-9.]+", following):
            given.append(str(DEFAULT_WAIT_S))
    return given


class StrictCommand(TyperCommand):
    """A command that refuses an option with one value that is given twice: the last one would win in silence.

    Plain flags say the same twice, and may.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as Typer does, and refuse what it would take silently."""
        args = with_wait(args)
        raw, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in self.params:
            if _takes_paths(parameter) and _is_empty(raw.get(str(parameter.name))):
                ctx.fail(f"{max(parameter.opts, key=len)}: empty file name.")
        for option, times in Counter(given).items():
            if times > 1 and _has_one_value(option) and not ctx.resilient_parsing:
                names = "/".join((max(option.opts, key=len), *option.secondary_opts))
                ctx.fail(f"{names} is given {times} times, and takes one value.")
        return super().parse_args(ctx, args)


def _takes_paths(parameter: Any) -> bool:
    """Whether Typer makes paths of it: the path of nothing would be that of the current folder, which nobody meant."""
    return getattr(getattr(parameter, "type_descriptor", None), "annotation", None) is Path


def _is_empty(value: Any) -> bool:
    return value == "" or (isinstance(value, (list, tuple)) and "" in value)


def _has_one_value(option: Any) -> bool:
    if option.param_type_name != "option" or option.multiple or option.count:
        return False
    return not option.is_flag or bool(option.secondary_opts)


class _Commands(MutableMapping[str, Any]):
    """The commands of a group by name, each built when it is first looked up."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            command = get_command(self._table[name])
            command.name = name
            self._built[name] = command
        return self._built[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


def lazy_group(table: Table) -> type[TyperGroup]:
    """The class of a group that holds the table's commands, for ``typer.Typer(cls=...)``."""

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = _Commands(table)

        def format_commands(self, ctx: Any, formatter: Any) -> None:
            width = formatter.width - 6 - max(len(name) for name in table)
            with formatter.section("Commands"):
                formatter.write_dl(
                    [(name, textwrap.shorten(_sentence(app), width, placeholder="...")) for name, app in table.items()]
                )

    return LazyGroup


def command_group(table: Table, help_text: str) -> typer.Typer:
    """An app that is a group of the table's commands; its help, one sentence, stands in the list of the group above."""
    return typer.Typer(
        cls=lazy_group(table),
        help=help_text,
        callback=_make_group,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        context_settings=HELP_SETTINGS,
    )


def _make_group() -> None:
    """Make Typer take an app without commands of its own as a group."""


def _sentence(app: typer.Typer) -> str:
    """What a command or a group does: its docstring or its help, first paragraph, one line."""
    callback: Callable[..., Any] | None = app.registered_commands[0].callback if app.registered_commands else None
    text = inspect.getdoc(callback) if callback is not None else str(app.info.help)
    return " ".join((text or "").split("\n\n")[0].split())
