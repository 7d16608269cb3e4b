"""The hook `after_activate` where there is no systemd: ends the service that runs, and starts it with the new release.

python3 restart.py [PORT]
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(os.environ["EDGEPACK_ROOT"])
SERVE = Path(__file__).with_name("serve.py")
PID = ROOT / "service.pid"


def runs(pid: int) -> bool:
    """Whether that process is the service, and no other that got its number since."""
    try:
        return str(SERVE).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


if PID.exists():
    old = int(PID.read_text())
    if runs(old):
        os.kill(old, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while runs(old):
        if time.monotonic() > deadline:
            os.kill(old, signal.SIGKILL)
        time.sleep(0.05)
with (ROOT / "service.log").open("ab") as log:
    command = [sys.executable, str(SERVE), os.environ["EDGEPACK_APP"], *sys.argv[1:]]
    new = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
PID.write_text(f"{new.pid}\n")
