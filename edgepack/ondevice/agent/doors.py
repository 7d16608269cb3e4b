"""Other ways into an account that deploys: whoever comes in by one of them is not held to what was pinned."""

from __future__ import annotations

import os
import pwd
from typing import List, Optional

from .disk import read_foreign

SHADOW = "/etc/shadow"
KEY_FILES = (".ssh/authorized_keys", ".ssh/authorized_keys2")  # sshd_config(5), the default of AuthorizedKeysFile
FILE_LIMIT = 1024 * 1024


def find_doors(account: pwd.struct_passwd) -> List[str]:
    """Each in words: a password, keys that may run anything. What this login may not look at is not told of."""
    doors = ["a password"] if has_password(account.pw_name) else []
    for name in KEY_FILES:
        path = os.path.join(account.pw_dir, name)
        lines = (line.strip() for line in (read_lines(path) or []))
        free = sum(1 for line in lines if line and not line.startswith("#") and 'command="' not in line)
        if free:
            doors.append(f"{free} key{'s' if free > 1 else ''} without a command in {path}")
    return doors


def find_hindrances(account: pwd.struct_passwd) -> List[str]:
    """What keeps an account from deploying, in words: a forced command runs through its login shell, in its home."""
    found = [] if os.path.isdir(account.pw_dir) else [f"its home {account.pw_dir} is not there"]
    if os.path.basename(account.pw_shell) in ("nologin", "false"):
        found.append(f"its login shell {account.pw_shell} runs nothing")
    return found


def has_password(name: str) -> bool:
    """Whether a password could be typed for an account (shadow(5): ! and * are none); False where nobody may know."""
    fields = [line.split(":") for line in (read_lines(SHADOW) or [])]
    return any(entry[0] == name and not entry[1].startswith(("!", "*")) for entry in fields if len(entry) > 1)


def read_lines(path: str) -> Optional[List[str]]:
    """The lines of a file; None where this login may not read it, or it is none."""
    try:
        return read_foreign(path, FILE_LIMIT).decode("utf-8", "replace").splitlines()
    except OSError:
        return None
