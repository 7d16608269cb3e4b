"""The verb trust: pins this device for an account that deploys, out of that account's reach."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import shutil
import stat
import sys
from typing import Any, Dict, List, Optional

from .arguments import take, take_name
from .counters import raised_floor, set_back, sound_entry
from .disk import read_json, sync_folder, write_atomically
from .doors import find_doors, find_hindrances
from .errors import AgentError, bad_request
from .facts import now
from .hooks import take_command
from .limits import SCHEMA
from .pin import find_reach
from .releases import list_apps
from .session import Session
from .wire import Request

AGENT_LIMIT = 4 * 1024 * 1024
ACCOUNT_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,63}")
PLAIN_PATH_PATTERN = re.compile(r"(/[A-Za-z0-9._+-]+)+")  # what needs no quotes in authorized_keys or a shell


def trust(session: Session, request: Request) -> Dict[str, Any]:
    """Pins this device for a deploying account: lays down the agent, which is the payload, and what it holds to."""
    if request.payload.remaining > AGENT_LIMIT:
        raise bad_request("The agent that is to be laid down is larger than 4 MiB.")
    return lay_pin(request.args, b"".join(iter(request.payload.read, b"")))


def lay_pin(args: Dict[str, Any], agent: bytes) -> Dict[str, Any]:
    """Lays down agent, signers and terms for a deploying account, out of its reach; the owner's login does this."""
    account = find_account(args)
    name = account.pw_name
    if not 0 < len(agent) <= AGENT_LIMIT or hashlib.sha256(agent).hexdigest() != args.get("sha256"):
        raise bad_request("The agent that is to be laid down did not arrive.")
    folder = os.path.join(os.path.realpath(os.path.expanduser(take(args, "install_root", str))), name)
    root: str = take(args, "root", str)
    root = os.path.realpath(os.path.join(account.pw_dir, root[2:] if root.startswith("~/") else root))
    keygen = find_keygen()
    for path in (folder, sys.executable):
        if not PLAIN_PATH_PATTERN.fullmatch(path):
            raise bad_request(f"{path!r} cannot stand in authorized_keys: letters, digits and . _ + - / only.")
    hooks = [argv for argv in (take_command({"hook": h}, "hook") for h in take(args, "hooks", list)) if argv]
    before = read_json(os.path.join(folder, "pin.json"))
    floor, counters_read = raised_floor(before.get("counters"), root)
    if before.get("root", root) != root:
        floor, _ = raised_floor(floor, take(before, "root", str))
    by = str(args.get("by", ""))[:200]
    set_back(floor, [str(app) for app in take({"reset": [], **args}, "reset", list)], {"at": now(), "by": by})
    pin = {"schema": SCHEMA, "root": root, "ssh_keygen": keygen, "hooks": hooks, "account": name, "pinned_at": now()}
    pin.update(mark=before.get("mark") or os.urandom(4).hex(), by=by, counters=floor)
    signers: str = take(args, "signers", str)
    files = {"agent.py": agent, "allowed_signers": signers.encode(), "pin.json": json.dumps(pin, indent=1).encode()}
    require_out_of_reach([nearest_existing(folder), sys.executable, keygen], account)
    if args.get("dry_run") is not True:
        write_readable(folder, files)
        require_out_of_reach([os.path.join(folder, file) for file in files], account)
    return {
        "account": name,
        "folder": folder,
        "root": root,
        "command": f"{sys.executable} -I -u {folder}/agent.py --pinned",
        "again": bool(before),
        "apps": apps_or_none(root),
        "counters": {app: entry["counter"] for app, entry in floor.items() if sound_entry(entry)},
        "counters_read": counters_read,
        "doors": find_doors(account),
        "hindrances": find_hindrances(account),
    }


def find_account(args: Dict[str, Any]) -> pwd.struct_passwd:
    """The account that is to deploy: the named one, else the one that logged in."""
    if args.get("account") is None:
        args = dict(args, account=os.environ.get("SUDO_USER") or pwd.getpwuid(os.geteuid()).pw_name)
    name = take_name(args, "account", ACCOUNT_PATTERN)
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise AgentError(
            "no-account", f"There is no account {name} on this device.", "Make it, or name another with --account."
        ) from None


def find_keygen() -> str:
    """The device's own ssh-keygen, which will judge signatures there."""
    keygen = shutil.which("ssh-keygen") or shutil.which("ssh-keygen", path="/usr/bin:/usr/local/bin:/bin")
    if keygen is None:
        raise AgentError(
            "no-ssh-keygen", "The device has no ssh-keygen.", "Install it there: sudo apt install openssh-client"
        )
    return keygen


def apps_or_none(root: str) -> List[str]:
    """The apps that a root holds already, as far as this login may see."""
    try:
        return list_apps(root)
    except OSError:
        return []


def nearest_existing(path: str) -> str:
    """A path, or the nearest folder above it that is there."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def require_out_of_reach(paths: List[str], account: pwd.struct_passwd) -> None:
    """Refuses to pin with files that the deploying account could change, or could not read."""
    gids = os.getgrouplist(account.pw_name, account.pw_gid)
    for path in paths:
        loose = find_reach(path, account.pw_uid, gids)
        if loose is not None:
            raise AgentError(
                "within-reach",
                f"{account.pw_name} could change {loose}: what pins a device has to be out of its reach.",
                "Log in as another account than the one that deploys (root, or with --sudo), name another folder with "
                "--install-root, or the system's own Python with --python /usr/bin/python3.",
            )
        hidden = find_hidden(path, account.pw_uid)
        if hidden is not None:
            raise AgentError(
                "within-reach",
                f"{account.pw_name} could not read {path}: {hidden} is closed to it.",
                "Name another folder with --install-root, or another Python with --python /usr/bin/python3.",
            )


def find_hidden(path: str, uid: int) -> Optional[str]:
    """The first folder on the way to a path that is closed to others; None where all are open, and for root."""
    start = os.path.realpath(path)
    while uid and start != "/":
        if not os.stat(start).st_mode & stat.S_IXOTH and os.path.isdir(start):
            return start
        start = os.path.dirname(start)
    return None


def write_readable(folder: str, files: Dict[str, bytes]) -> None:
    """Writes files that everybody may read and only their owner may change, whatever the umask is."""
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    try:
        for path in reversed(missing):
            os.mkdir(path)
            os.chmod(path, 0o755)  # noqa: S103 (the deploying account reads it)
            sync_folder(os.path.dirname(path))
        folder = missing[0] if missing else folder
        for name, data in files.items():
            path = os.path.join(folder, name)
            write_atomically(path, data)
            os.chmod(path, 0o644)
    except PermissionError as error:
        raise AgentError(
            "not-the-owner",
            f"This login may not write {error.filename or folder}.",
            "Log in as root, add --sudo, or name a folder of yours that the deploying account cannot write: "
            "--install-root.",
        ) from None
