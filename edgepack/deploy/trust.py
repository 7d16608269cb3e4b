"""Pinning a device: from then on the deploying account's key installs signed, ever newer bundles and does nothing else.

What that is worth, and what it is not, stands in docs/security.md.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.bundle.signature import require_signers
from edgepack.bundle.signers import pinned_signers
from edgepack.deploy.hooks import Hooks
from edgepack.device.bootstrap import installed_agent
from edgepack.device.opened import opened
from edgepack.documents import TrustDocument
from edgepack.errors import EdgepackError, InputError
from edgepack.events import Event, Reporter, ignore_events

if TYPE_CHECKING:
    from edgepack.device import ConnectOptions, DeviceAddress

STEP = "trust"
INSTALL_ROOT = "/usr/local/lib/edgepack"
# What stands for the key in the printed line where none was named.
NO_KEY = "PUBLIC-KEY-OF-WHO-DEPLOYS"


def trust(
    device: str | DeviceAddress,
    *,
    allowed_signers: str | Path,
    account: str | None = None,
    key: str | Path | None = None,
    install_root: str = INSTALL_ROOT,
    sudo: bool = False,
    hooks: Hooks | None = None,
    reset_counter: Sequence[str] = (),
    options: ConnectOptions | None = None,
    dry_run: bool = False,
    report: Reporter = ignore_events,
) -> TrustDocument:
    """Pin a device to its signers, for an account that deploys.

    ``device`` is reached by its owner: root, or with ``sudo`` an account that may use it without a password, or anybody
    who may write ``install_root`` where the deploying ``account`` (the one that logs in, where None) may not. Agent,
    signers and terms are laid down there. ``authorized_keys`` of what is returned is the line that lets a key (``key``,
    a .pub file) run that agent and nothing else; putting it into the account's authorized_keys is the owner's deed.
    ``hooks`` are the only ones that will run. The pinned edgepack folder is ``options.root``, from the account's home.

    ``reset_counter`` names apps whose counter begins anew: the way back where a signed release had one too high.

    Done again, it renews agent, signers and hooks, and the counters that were seen become the floor: kept out of the
    account's reach too, so that they outlive its folder. Raises InputError about signers, key, account and folder, and
    "within-reach" where the account could change what pins it; whatever the way to the device can do.
    """
    from edgepack.device import DEFAULT_ROOT
    from edgepack.device.opening import operator_name

    signers = pinned_signers(_signers_text(Path(allowed_signers)), datetime.datetime.now(datetime.UTC))
    for reason in signers.left_out:
        report(Event(STEP, f"note: not pinned: {reason}"))
    public_key = NO_KEY if key is None else _public_key(Path(key))
    allowed = [list(argv) for argv in ((hooks.after_activate, hooks.health) if hooks else ()) if argv]
    agent = installed_agent()
    arguments: dict[str, Any] = {
        "account": account,
        "install_root": install_root,
        "root": (options.root if options else None) or DEFAULT_ROOT,
        "signers": signers.text,
        "hooks": allowed,
        "by": operator_name(),
        "sha256": hashlib.sha256(agent).hexdigest(),
        "dry_run": dry_run,
        **({"reset": list(reset_counter)} if reset_counter else {}),
    }
    with _as_owner(sudo=sudo), opened(device, options, sudo=sudo, report=report) as session:
        result = session.request("trust", [agent], len(agent), **arguments).result
        name = session.description
    _tell(result, report)
    return TrustDocument(
        device=name,
        account=result["account"],
        folder=result["folder"],
        root=result["root"],
        signers=signers.principals,
        hooks=tuple(tuple(argv) for argv in allowed),
        authorized_keys=f'restrict,command="{result["command"]}" {public_key}',
        again=result.get("again") is True,
        counters=result["counters"],
        doors=tuple(result["doors"]),
    )


_HELD = (
    "note: {root} holds {apps} from before. What is active there stays so, but nothing unsigned of it is activated or "
    "measured again; if you are not sure who put it there, empty that folder first."
)


_DOORS = (
    "note: {account} is reached in other ways too: {doors}. Whoever comes in there is not held to the pin; best is an "
    "account of its own with no other way in."
)
_HINDERED = "note: {account} cannot deploy as it is: {hindrances}. A forced command needs a home and a login shell."
_UNREAD = (
    "note: this login cannot read {root}/counters.json, or it makes no sense: what it has counted is not laid down."
)


def _tell(result: Mapping[str, Any], report: Reporter) -> None:
    """What of the device the owner should know."""
    if result.get("apps") and not result.get("again"):
        report(Event(STEP, _HELD.format(root=result["root"], apps=", ".join(result["apps"]))))
    if result.get("hindrances"):
        report(Event(STEP, _HINDERED.format(account=result["account"], hindrances="; ".join(result["hindrances"]))))
    if not result["counters_read"]:
        report(Event(STEP, _UNREAD.format(root=result["root"])))
    if result["doors"]:
        report(Event(STEP, _DOORS.format(account=result["account"], doors="; ".join(result["doors"]))))


@contextlib.contextmanager
def _as_owner(*, sudo: bool) -> Iterator[None]:
    """Where the agent did not start through sudo, it is sudo that has to be looked at."""
    try:
        yield
    except EdgepackError as error:
        if sudo and error.code in ("no-agent", "no-python"):
            error.hint = (
                "--sudo takes a sudo that asks for no password (`sudo -n true` on the device); or log in as root."
            )
        raise


def _signers_text(path: Path) -> str:
    require_signers(path)
    return path.expanduser().read_text(encoding="utf-8", errors="replace")


def _public_key(path: Path) -> str:
    """The one line of a .pub file; a private key is refused before anything of it goes anywhere."""
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("bad-key", f"{path} cannot be read: {error}.", hint="Name a .pub file with --key.") from None
    if len(lines) != 1 or not lines[0].startswith(("ssh-", "ecdsa-", "sk-")):
        raise InputError(
            "bad-key", f"{path} is no public key.", hint="Name the .pub file of the key that will deploy with --key."
        )
    return lines[0].strip()
