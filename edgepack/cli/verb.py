"""What every command has in common: the shared options, one object to report and answer through."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgepack.cli.lazy import DEFAULT_WAIT_S, HELP_SETTINGS, StrictCommand, Table
from edgepack.cli.progress import stderr_progress
from edgepack.cli.stdout import write_out
from edgepack.errors import InputError
from edgepack.events import Reporter, ignore_events
from edgepack.words import printable_lines

if TYPE_CHECKING:
    from edgepack.device.options import ConnectOptions
    from edgepack.project import Project

Command = Callable[..., int]

_OUTPUT: dict[str, Any] = {
    "as_json": Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")],
    "verbose": Annotated[
        int, typer.Option("--verbose", "-v", count=True, show_default=False, help="Say more; -vv adds tracebacks.")
    ],
    "quiet": Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, no messages: the result and errors only.")
    ],
}
_EVENTS: dict[str, Any] = {
    "events": Annotated[
        Path | None, typer.Option("--events", metavar="FILE", help="Write what happens as JSON lines.", dir_okay=False)
    ],
}
_DRY_RUN: dict[str, Any] = {
    "dry_run": Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")],
}


def _env(name: str) -> str:
    return f"EDGEPACK_{name}"


_DEVICE: dict[str, Any] = {
    "ssh_config": Annotated[
        Path | None, typer.Option("--ssh-config", envvar=_env("SSH_CONFIG"), metavar="FILE", help="As `ssh -F`.")
    ],
    "identity": Annotated[
        Path | None,
        typer.Option(
            "--identity", "-i", envvar=_env("IDENTITY"), metavar="FILE", help="The private key to log in with."
        ),
    ],
    "known_hosts": Annotated[
        Path | None,
        typer.Option("--known-hosts", envvar=_env("KNOWN_HOSTS"), metavar="FILE", help="Host keys to trust."),
    ],
    "accept_new_host_key": Annotated[
        bool,
        typer.Option("--accept-new-host-key", help="Trust a host that is not in known_hosts yet, and remember it."),
    ],
    "transport": Annotated[
        str | None,
        typer.Option("--transport", envvar=_env("TRANSPORT"), metavar="ssh|openssh", help="How to reach the device."),
    ],
    "connect_timeout": Annotated[
        float | None,
        typer.Option("--connect-timeout", envvar=_env("CONNECT_TIMEOUT"), metavar="SECONDS", help="How long to wait."),
    ],
    "retries": Annotated[
        int | None,
        typer.Option(
            "--retries", envvar=_env("RETRIES"), min=0, metavar="N", help="Tries after a broken connection [4]."
        ),
    ],
    "root": Annotated[
        str | None,
        typer.Option("--root", envvar=_env("ROOT"), metavar="PATH", help="The device's edgepack folder [~/.edgepack]."),
    ],
    "python": Annotated[
        str | None,
        typer.Option("--python", envvar=_env("PYTHON"), metavar="PATH", help="Python on the device [python3]."),
    ],
    "app": Annotated[
        str | None,
        typer.Option(
            "--app", envvar=_env("APP"), metavar="APP", help="May be left out where the device holds one app."
        ),
    ],
}


_WAIT: dict[str, Any] = {
    "wait": Annotated[
        float | None,
        typer.Option(
            "--wait",
            envvar=_env("WAIT"),
            metavar="[SECONDS]",
            help=f"Wait while somebody else works on the device; without a number, {DEFAULT_WAIT_S} s.",
        ),
    ],
}


@dataclass
class Run:
    """One run of a command: its shared options, and the way to report and to answer."""

    as_json: bool = False
    verbose: int = 0
    quiet: bool = False
    dry_run: bool = False
    app: str | None = None
    device_flags: Mapping[str, Any] = field(default_factory=dict)
    report: Reporter = ignore_events

    @functools.cached_property
    def project(self) -> Project | None:
        """The edgepack.toml of this folder, None where there is none."""
        from edgepack.project import find_project

        return find_project(Path.cwd())

    @functools.cached_property
    def connect_options(self) -> ConnectOptions:
        """How to reach the device: flag, then environment, then edgepack.toml, then the default."""
        from edgepack.project import connect_options

        return dataclasses.replace(connect_options(self.device_flags, self.project), report=self.report)

    @functools.cached_property
    def app_name(self) -> str | None:
        """The app that a command is about: flag, environment, edgepack.toml; None leaves it to the device."""
        if self.app is not None or self.project is None:
            return self.app
        return self.project.name

    @property
    def allowed_signers(self) -> Path | None:
        """Who may have signed bundles, by edgepack.toml."""
        return self.project.sign.get("allowed_signers") if self.project else None

    def answer(self, document: Any, text: str, exit_code: int = 0) -> int:
        """Print the document (``--json``) or the text for people on stdout, and hand on the exit code.

        The document of a dry run says so: ``"dry_run": true``.
        """
        if self.as_json:
            from edgepack import documents

            value = document if isinstance(document, dict) else documents.to_json_value(document)
            text = documents.to_json({**value, "dry_run": True} if self.dry_run else value)
        else:
            text = printable_lines(text)
        write_out(text.rstrip("\n") + "\n")
        return exit_code


def verb(
    table: Table,
    name: str,
    *,
    device: bool = False,
    app: bool = True,
    changes: bool = False,
    locks: bool = False,
    long: bool = False,
) -> Callable[[Command], Command]:
    """Put a command into the table; it takes a :class:`Run` first and returns its exit code.

    ``device`` adds the options of every command that reaches a device (without ``app``, all but ``--app``), ``changes``
    adds ``--dry-run``, ``locks`` (the device, while it works there) ``--wait``, ``long`` ``--events``. The command's
    own parameters follow the usual Typer annotations.
    """
    reaching = {key: hint for key, hint in _DEVICE.items() if app or key != "app"}
    shared = _OUTPUT | (reaching if device else {}) | (_DRY_RUN if changes else {}) | (_EVENTS if long else {})
    shared |= _WAIT if locks else {}

    def register(command: Command) -> Command:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        @functools.wraps(command)
        def wrapper(context: typer.Context, **values: Any) -> int:
            given = {key: values.pop(key) for key in shared}
            if device:
                given["root_gives_way"] = _from_environment(context, "root")
            _refuse_shared_output(given.get("events"), values)
            with _run(given, device=device) as run:
                try:
                    return command(run, **values)
                except InputError as error:
                    if error.code == "no-app" and run.app is None and run.app_name is not None:
                        error.hint = f"The name {run.app_name} comes from ./edgepack.toml. {error.hint}"
                    raise

        extra = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=hint, default=_DEFAULTS.get(key))
            for key, hint in shared.items()
        ]
        parameters = [_CONTEXT, *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own), *extra]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        alone = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=HELP_SETTINGS)
        alone.command(name, cls=StrictCommand)(wrapper)
        table[name] = alone
        return command

    return register


_DEFAULTS: dict[str, Any] = {
    "as_json": False,
    "verbose": 0,
    "quiet": False,
    "dry_run": False,
    "accept_new_host_key": False,
}


_CONTEXT = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)


def _from_environment(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name == "ENVIRONMENT"


@contextlib.contextmanager
def _run(given: dict[str, Any], *, device: bool) -> Iterator[Run]:
    _require_folder()
    events: Path | None = given.get("events")
    if events is not None:
        from edgepack.files import check_output, is_event_log

        check_output(events, "what --events writes", is_event_log)
        _refuse_ending(events)
    if given["verbose"]:
        _log_libraries(given["verbose"])
    with stderr_progress(quiet=given["quiet"], events=events) as progress:
        yield Run(
            as_json=given["as_json"],
            verbose=given["verbose"],
            quiet=given["quiet"],
            dry_run=given.get("dry_run", False),
            app=given.get("app"),
            device_flags={key: given.get(key) for key in (*_DEVICE, *_WAIT, "root_gives_way") if key != "app"}
            if device
            else {},
            report=progress,
        )


def _refuse_shared_output(events: Path | None, values: Mapping[str, Any]) -> None:
    """One file cannot hold what happens and what comes of it; the later would be written over the earlier."""
    named = {"output": "--output", "report_file": "--report", "junit": "--junit", "markdown": "--markdown"}
    for key, option in named.items():
        place: Path | None = values.get(key)
        if events is not None and place is not None and events.resolve() == place.resolve():
            raise InputError(
                "bad-output", f"{place} is named by --events and by {option}.", hint="Name a file for each of them."
            )


def _refuse_ending(events: Path) -> None:
    """What ends so may be written by the command itself: beside -o, for one of several targets, into build/."""
    if events.name.endswith((".tflite", ".check.npz", ".provenance.json", ".edgepack", ".html")):
        raise InputError(
            "bad-output",
            f"{events} is no name for a log of events: what edgepack makes ends so.",
            hint="Name a file such as events.jsonl.",
        )


def _require_folder() -> None:
    """Everything that a person names is found from the current folder."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise InputError(
            "no-current-folder", "The current folder is gone.", hint="Somebody deleted it: cd elsewhere."
        ) from None


def _log_libraries(verbosity: int) -> None:
    import logging

    class Printable(logging.Formatter):
        """What a library logs may be a server's own words."""

        def format(self, record: logging.LogRecord) -> str:
            return printable_lines(super().format(record))

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Printable("%(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if verbosity > 1 else logging.INFO)
