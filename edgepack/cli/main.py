"""The entry point of the ``edgepack`` command: the table of commands and the one error handler."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from edgepack import __version__
from edgepack.cli import bundles, deploy, devices, emulate, model, start, trust, tune
from edgepack.cli.lazy import HELP_SETTINGS, Table, lazy_group
from edgepack.cli.stdout import require_streams, write_out
from edgepack.errors import INTERRUPTED_EXIT_CODE, EdgepackError, InputError, InternalError
from edgepack.words import printable, printable_lines

commands: Table = {}
for part in (start, model, tune, bundles, devices, trust, deploy, emulate):
    part.add_commands(commands)
app = typer.Typer(
    name="edgepack",
    cls=lazy_group(commands),
    help="Take a trained TensorFlow model to a small computer and prove there that it works.",
    # Rich panels cost as much as everything else in --help together.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings=HELP_SETTINGS,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgepack {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take a trained TensorFlow model to a small computer and prove there that it works."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (``sys.argv`` by default) and exit with its code (docs/cli.md lists them)."""
    # A polite end (`kill`, a supervisor, a terminal that closes) cleans up as Ctrl-C does; nohup goes on.
    for end in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(end) is not signal.SIG_IGN:
            signal.signal(end, signal.default_int_handler)
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(words))


def run(words: list[str]) -> int:
    """Run one command line; returns its exit code, every error already shown."""
    as_json, verbosity = _error_style(words)
    try:
        require_streams()
        code = _run_command(words, as_json, verbosity)
        # What Typer prints itself (--help) may still wait to be written.
        write_out()
    except InputError as error:
        return _fail(error, as_json, verbosity)
    return code


def _run_command(words: list[str], as_json: bool, verbosity: int) -> int:
    try:
        code = app(words, prog_name="edgepack", standalone_mode=False)
    except EdgepackError as error:
        return _fail(error, as_json, verbosity)
    except typer.TyperException as error:
        return _fail(_usage_error(error, words), as_json, verbosity)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED_EXIT_CODE
    except Exception as error:  # noqa: BLE001 - the last resort: a fault of ours, told as one
        if isinstance(error, OSError):
            # Typer's own writing fails like this; what it could not write still waits, and fails again here.
            write_out()
        return _fail(_own_fault(error), as_json, verbosity, cause=error)
    if code == INTERRUPTED_EXIT_CODE:
        _show(EdgepackError("interrupted", "Interrupted.", hint=_again(words)), as_json)
    return int(code or 0)


def _again(words: list[str]) -> str:
    if "--no-cache" in words:
        return "Run the same command again; of what was converted nothing is kept (--no-cache)."
    return "Run the same command again to go on."


def _error_style(words: list[str]) -> tuple[bool, int]:
    """What the command line says about errors, read without parsing it: the parse itself may be what fails."""
    verbosity = sum(
        word.count("v") if set(word) == {"-", "v"} and not word.startswith("--") else word == "--verbose"
        for word in words
    )
    return "--json" in words, verbosity


def _usage_error(error: typer.TyperException, words: list[str]) -> InputError:
    context = getattr(error, "ctx", None)
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        return InputError("usage", f"`{context.command_path}` needs a command.", hint=context.get_help())
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    # An option without its value is refused without a context.
    command = next((f"edgepack {word}" for word in words if word in commands), "edgepack")
    path = context.command_path if context is not None else command
    return InputError("usage", message, hint=f"See `{path} --help`.")


def _own_fault(error: Exception) -> InternalError:
    return InternalError(
        "internal",
        f"A fault of edgepack itself: {type(error).__name__}: {error}.",
        hint="Please report it; the same command with -vv shows where.",
    )


def _fail(error: EdgepackError, as_json: bool, verbosity: int, cause: Exception | None = None) -> int:
    if verbosity > 1:
        sys.stderr.write(printable_lines("".join(traceback.format_exception(cause or error))))
    _show(error, as_json)
    return error.exit_code


def _show(error: EdgepackError, as_json: bool) -> None:
    """Where people or scripts expect it; that nothing can be written to standard output goes to stderr."""
    if as_json and error.code != "stdout":
        from edgepack import documents

        value = {"code": error.code, "message": error.message, "hint": error.hint, "details": error.details}
        write_out(documents.to_json({"schema": documents.SCHEMA, "error": value}) + "\n")
    else:
        hint = f"\n  {printable_lines(error.hint)}" if error.hint else ""
        sys.stderr.write(f"edgepack: {printable(error.message)}{hint}\n")
