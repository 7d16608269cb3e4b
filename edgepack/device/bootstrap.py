"""Starting the agent on a device: the one command that goes through its shell, and what may go wrong with it."""

from __future__ import annotations

import functools
import importlib.resources
import shlex
import zlib

from edgepack.device.lost import connection_dropped
from edgepack.device.options import DEFAULT_PYTHON
from edgepack.errors import EdgepackError, MisfitError, UnreachableError
from edgepack.words import printable

TOO_OLD_EXIT_CODE = 97
_CUT_SHORT_EXIT_CODE = 98
# What is sent to a device that has its own agent; any other one ends with this status then, and this error's code.
NO_AGENT = b""
_AGENT_WANTED_EXIT_CODE = 99
AGENT_WANTED = "agent-wanted"
_NO_ISOLATION = b"Unknown option: -I"  # Python 2 and up to 3.3
# One line without quotes of its own, backslashes or exclamation marks, so that every login shell (sh, bash, zsh, fish,
# csh) passes it on unchanged inside single quotes. It has to parse on the oldest Python that knows -I.
BOOTSTRAP = (
    "import sys,zlib;v=sys.version_info;"
    'v>=(3,8) or (sys.stderr.write("EDGEPACK-PYTHON-TOO-OLD %d.%d "%v[:2]),sys.exit(97));'
    "i=sys.stdin.buffer;n,k=i.readline().split();b=i.read(int(n));len(b)==int(n) or sys.exit(98);"
    "b or sys.exit(99);"
    'exec(compile(zlib.decompress(b),"edgepack-agent","exec"),'
    'dict(__name__="__main__",EDGEPACK_NONCE=k.decode()))'
)


_NO_MODULES = "MODULES: Dict[str, str] = {}\n"  # the line of ondevice/launcher.py that takes the agent's modules


@functools.cache
def agent_source() -> bytes:
    """The agent as it is sent: :func:`installed_agent`, deflated."""
    return zlib.compress(installed_agent(), 9)


@functools.cache
def installed_agent() -> bytes:
    """The agent, streamed or laid down on a pinned device: one program, the same bytes on any machine.

    It is ``ondevice/launcher.py`` with the source of each module of ``ondevice/agent/`` in it.
    """
    ondevice = importlib.resources.files("edgepack").joinpath("ondevice")
    files = {file.name: file for file in ondevice.joinpath("agent").iterdir() if file.name.endswith(".py")}
    modules = "".join(
        f"    {name[:-3]!r}: {file.read_text(encoding='utf-8')!r},\n" for name, file in sorted(files.items())
    )
    before, after = ondevice.joinpath("launcher.py").read_text(encoding="utf-8").split(_NO_MODULES)
    return f"{before}MODULES = {{\n{modules}}}\n{after}".encode()


def start_command(python: str, *, sudo: bool = False) -> str:
    """The command line that starts the agent through the device's shell. ``~/`` is left to that shell to expand."""
    program = "~/" + shlex.quote(python[2:]) if python.startswith("~/") else shlex.quote(python)
    return f"exec {'sudo -n ' if sudo else ''}{program} -I -u -c {shlex.quote(BOOTSTRAP)}"


def start_error(device: str, python: str, status: int | None, stderr: bytes, said: bytes) -> EdgepackError:
    """What to say when the channel ended before the agent's first word. Pure.

    ``python`` is the interpreter that was to be started, ``status`` the exit status of the remote shell (127: no such
    program, 126: no permission, 97 to 99: the bootstrap's own), ``said`` what came on its standard output.
    """
    last = last_line(stderr) or last_line(said)
    too_old = "EDGEPACK-PYTHON-TOO-OLD" in (words := stderr.decode("utf-8", "replace").split())
    if too_old or status == TOO_OLD_EXIT_CODE or _NO_ISOLATION in stderr:
        after = words[words.index("EDGEPACK-PYTHON-TOO-OLD") + 1 :] if too_old else []
        return MisfitError(
            "python-too-old",
            f"{f'Python {after[0]}' if after else python} on {device} is too old: edgepack needs 3.8 or newer there.",
            hint="Name a newer one with --python PATH (see `edgepack probe`), or install one on the device.",
        )
    if BOOTSTRAP[:16].encode() in stderr + said:  # a program that took the agent's first line for a file or a word
        return MisfitError(
            "no-python",
            f"{python} on {device} is no Python: it does not run what Python runs.",
            hint="Name a Python 3.8 or newer with --python PATH; `edgepack probe DEVICE` lists those that are there.",
        )
    if status in (126, 127):
        return MisfitError(
            "no-python",
            f"{python} cannot be started on {device}: {last or 'no such program'}",
            hint="Install Python on the device (Debian: sudo apt install python3), or name one that is there with "
            f"--python PATH{'' if python == DEFAULT_PYTHON else ' (without it, edgepack takes python3)'}.",
        )
    if status == _CUT_SHORT_EXIT_CODE or status is None:
        return connection_dropped(device)
    if status == _AGENT_WANTED_EXIT_CODE:
        return UnreachableError(AGENT_WANTED, f"{device} runs no agent of its own.", hint="Run the command again.")
    trial = f"{python} --version" if device.startswith("local:") else f"ssh {device} {python} --version"
    return UnreachableError(
        "no-agent",
        f"{python} on {device} ended without starting edgepack's agent (exit status {status})"
        + (f": {last}" if last else "."),
        hint=f"Try `{trial}`: it takes a login shell that runs commands, and Python 3.8 or newer. --python PATH names "
        "another Python on the device.",
        exit_status=status,
    )


def last_line(text: bytes) -> str:
    """The last line with something in it, printable and at most 300 characters long."""
    lines = text.decode("utf-8", "replace").split("\n")
    cleaned = (printable(line).strip() for line in reversed(lines))
    return next((line for line in cleaned if line), "")[:300]
