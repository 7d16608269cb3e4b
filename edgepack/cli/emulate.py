"""``edgepack emulate``: emulated Raspberry Pis, started, stopped, listed and removed."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from edgepack.cli.complete import system_names
from edgepack.cli.lazy import Table, command_group
from edgepack.cli.tables import table as columns
from edgepack.cli.verb import Run, verb
from edgepack.words import size

if TYPE_CHECKING:
    from edgepack import documents

NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="pi-bookworm64, pi-bookworm32 or pi-trixie64.", autocompletion=system_names),
]


def add_commands(table: Table) -> None:
    """Put this module's commands into the table."""
    own: Table = {}
    table["emulate"] = command_group(own, "Emulated Raspberry Pis for tests and CI: start, stop, list, remove.")
    _add_start(own)
    _add_stop_and_remove(own)

    @verb(own, "list")
    def list_(run: Run) -> int:
        """List the emulated devices: what they are like, whether they run, what they take on the disk."""
        from edgepack.device.emulated import list_devices

        document = list_devices()
        return run.answer(document, _listed(document))


def _add_start(own: Table) -> None:
    @verb(own, "start", changes=True, long=True)
    def start(
        run: Run,
        name: NameArgument,
        mirror: Annotated[
            str | None,
            typer.Option(
                "--mirror", metavar="URL", help="The Debian mirror to make it from [that of this machine's apt]."
            ),
        ] = None,
    ) -> int:
        """Make an emulated Raspberry Pi (minutes, the first time), run it, and print its address."""
        from edgepack.device.emulated import start as start_device

        document = start_device(name, mirror=mirror, dry_run=run.dry_run, report=run.report)
        return run.answer(document, _started(document, dry_run=run.dry_run))


def _add_stop_and_remove(own: Table) -> None:
    @verb(own, "stop", changes=True)
    def stop(run: Run, name: NameArgument) -> int:
        """Stop an emulated device; its files stay."""
        from edgepack.device.emulated import stop as stop_device

        document = stop_device(name, dry_run=run.dry_run)
        done = "would be stopped" if run.dry_run else "is stopped"
        return run.answer(document, f"{name} {done}." if document.changed else f"{name} does not run; nothing to do.")

    @verb(own, "remove", changes=True)
    def remove(run: Run, name: NameArgument) -> int:
        """Stop an emulated device and remove all of its files."""
        from edgepack.device.emulated import remove as remove_device

        document = remove_device(name, dry_run=run.dry_run)
        done = f"{'would be' if run.dry_run else 'is'} removed: {size(document.bytes)}"
        return run.answer(document, f"{name} {done}." if document.changed else f"{name} is not there; nothing to do.")


def _started(document: documents.EmulateStartDocument, *, dry_run: bool) -> str:
    if dry_run:
        if document.already_running:
            return f"{document.name} runs already; nothing to do."
        return "\n".join([f"{document.name} would be started with:", *document.commands])
    head = "runs already" if document.already_running else f"runs, after {document.seconds:.0f} s"
    config = shlex.quote(document.ssh_config)
    rows = [
        ["device", f"{document.name} {head} (127.0.0.1, port {document.port})"],
        ["ssh config", document.ssh_config],
        ["try", f"edgepack probe {document.device} --ssh-config {config}"],
        ["or", f"ssh -F {config} {document.device}"],
    ]
    return columns(rows)


def _listed(document: documents.EmulateListDocument) -> str:
    rows = [
        [
            device.name,
            device.state,
            size(device.bytes) if device.bytes else "-",
            f"Debian {device.suite}, {device.arch}, Python {device.python}, {device.libc}",
            ", ".join(device.like),
        ]
        for device in document.devices
    ]
    return columns(rows, ["name", "state", "on disk", "system", "like"])
