"""What a pinned device holds to: where to work, who may sign, which hooks run."""

from __future__ import annotations

import os
import stat
import subprocess
from typing import Any, Dict, List, Optional, Tuple

from .arguments import take, take_name
from .disk import digest_file, read_json
from .errors import AgentError, broken_pin
from .hooks import Hooks
from .limits import NAME_PATTERN

PIN_FILES = ("agent.py", "allowed_signers", "pin.json")
KEYGEN_TIMEOUT_S = 30.0


class Pin:
    """What the owner of a pinned device laid down beside the agent: where to work, who may sign, which hooks run.

    ``mark`` is in the name of each runtime that was unpacked since, and in the device.json of each release that was set
    up since; ``floor`` is what no counter of an app falls below (``counters.py``); ``agent`` is the digest of the agent
    that was laid down.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        for name in PIN_FILES:
            try:
                loose = find_reach(os.path.join(folder, name), os.geteuid(), [os.getegid(), *os.getgroups()])
            except OSError as error:
                raise broken_pin(f"{os.path.join(folder, name)} cannot be read: {error.strerror}") from None
            if loose is not None:
                raise broken_pin(f"the account that deploys could change {loose}")
        value = read_json(os.path.join(folder, "pin.json"))
        try:
            self.root: str = take(value, "root", str)
            self.mark = take_name(value, "mark", NAME_PATTERN)
            self.ssh_keygen: str = take(value, "ssh_keygen", str)
            self.hooks: List[Any] = take(value, "hooks", list)
            self.floor: Dict[str, Any] = take({"counters": {}, **value}, "counters", dict)
        except AgentError:
            raise broken_pin("its pin.json is not one that edgepack writes") from None
        self.agent = digest_file(os.path.join(folder, "agent.py"))

    def require_signer(self, manifest: bytes, signature: bytes, release: str) -> str:
        """The allowed signer who signed a manifest. Lifetimes were judged when the device was pinned, on the host."""
        signers = os.path.join(self.folder, "allowed_signers")
        code, names, errors = self.keygen(["find-principals", "-f", signers], manifest, signature)
        for name in names.splitlines() if code == 0 else ():
            verify = ["verify", "-f", signers, "-I", name, "-n", "edgepack"]
            code, _, errors = self.keygen(verify, manifest, signature)
            if code == 0:
                return name
        said = (errors.strip().splitlines() or ["no allowed signer made it"])[-1]
        raise AgentError(
            "foreign-signature",
            f"The signature of release {release} is none of this device's signers: {said[:300]}",
            "Have the bundle signed by one of them, or let the device's owner pin another: edgepack trust DEVICE ...",
        )

    def keygen(self, arguments: List[str], manifest: bytes, signature: bytes) -> Tuple[int, str, str]:
        """Runs the device's own ``ssh-keygen -Y`` on a manifest: exit status, output, errors. Writes no file."""
        try:
            read_end = filled_pipe(signature)
            try:
                done = subprocess.run(
                    [self.ssh_keygen, "-Y", *arguments, "-s", f"/dev/fd/{read_end}"],
                    input=manifest,
                    pass_fds=(read_end,),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                    timeout=KEYGEN_TIMEOUT_S,
                    check=False,
                )
            finally:
                os.close(read_end)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise broken_pin(f"{self.ssh_keygen} does not work: {error}") from None
        return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")

    def require_hooks(self, hooks: Hooks) -> None:
        """Refuses a hook that the owner did not pin: it would be a program of the host's choice."""
        for argv in (hooks.after, hooks.health):
            if argv and argv not in self.hooks:
                allowed = "; ".join(" ".join(map(str, pinned)) for pinned in self.hooks) or "none"
                raise AgentError(
                    "hook-refused",
                    f"This device is pinned and runs no hook but these: {allowed}. Not {' '.join(argv)[:200]!r}.",
                    "Let its owner pin the hooks of edgepack.toml: edgepack trust DEVICE ... in the project's folder.",
                )


def filled_pipe(content: bytes) -> int:
    """The end to read of a pipe that holds a signature; what a pipe does not take at once (64 KiB) is cut off."""
    read_end, write_end = os.pipe()
    try:
        os.set_blocking(write_end, False)
        os.write(write_end, content)
    finally:
        os.close(write_end)
    return read_end


def find_reach(path: str, uid: int, gids: List[int]) -> Optional[str]:
    """The first of a path, of what it leads to, and of the folders above them that an account could change.

    Root could change everything; where root itself deploys, only what others could change is found.
    """
    for start in (os.path.abspath(path), os.path.realpath(path)):
        while True:
            info = os.lstat(start)
            mode = 0 if stat.S_ISLNK(info.st_mode) else info.st_mode
            sticky = stat.S_ISDIR(mode) and mode & stat.S_ISVTX  # its entries are their owners' (/tmp)
            shared = mode & stat.S_IWOTH or (mode & stat.S_IWGRP and info.st_gid in gids)
            if (uid and info.st_uid == uid) or (shared and not sticky):
                return start
            if start == "/":
                break
            start = os.path.dirname(start)
    return None
