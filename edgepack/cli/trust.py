"""``edgepack trust``: pin a device to its signers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgepack.cli import render_device
from edgepack.cli.bundles import AllowedSignersOption
from edgepack.cli.devices import DeviceArgument
from edgepack.cli.lazy import Table
from edgepack.cli.output import required
from edgepack.cli.verb import Run, verb


def add_commands(table: Table) -> None:
    """Put this module's command into the table."""

    @verb(table, "trust", device=True, app=False, changes=True, long=True)
    def trust(
        run: Run,
        device: DeviceArgument,
        allowed_signers: AllowedSignersOption = None,
        account: Annotated[
            str | None,
            typer.Option("--account", metavar="NAME", help="The account that deploys [the one that logs in]."),
        ] = None,
        key: Annotated[
            Path | None, typer.Option("--key", metavar="FILE.pub", help="The key that deploys, for the printed line.")
        ] = None,
        install_root: Annotated[
            str | None,
            typer.Option(
                "--install-root", metavar="PATH", help="Where agent and signers lie [/usr/local/lib/edgepack]."
            ),
        ] = None,
        reset_counter: Annotated[
            list[str] | None,
            typer.Option("--reset-counter", metavar="APP", help="Begin this app's counter anew; may be repeated."),
        ] = None,
        sudo: Annotated[bool, typer.Option("--sudo", help="Become root on the device with `sudo -n`.")] = False,
    ) -> int:
        """Pin a device: an account there then installs signed, newer bundles and does nothing else."""
        from edgepack import trust as trust_device
        from edgepack.deploy.trust import INSTALL_ROOT

        document = trust_device(
            device,
            allowed_signers=required(allowed_signers or run.allowed_signers, "--allowed-signers"),
            account=account,
            key=key,
            install_root=install_root or INSTALL_ROOT,
            sudo=sudo,
            reset_counter=tuple(reset_counter or ()),
            hooks=run.project.hooks if run.project else None,
            options=run.connect_options,
            dry_run=run.dry_run,
            report=run.report,
        )
        return run.answer(document, render_device.trusted(document, dry_run=run.dry_run))
