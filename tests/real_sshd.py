"""A real OpenSSH sshd on 127.0.0.1 with throw-away keys, run as the caller, root or not."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from edgepack.device import ConnectOptions

# Ends sshd when its standard input ends, which it does when the test run ends, however it does.
_SUPERVISOR = "import subprocess as s, sys; p = s.Popen(sys.argv[1:]); sys.stdin.read(); p.terminate(); p.wait()"


def sshd_program() -> str | None:
    """Where sshd is; it is often outside a user's PATH."""
    return shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")


class RealSshd:
    """A context manager. ``address`` and ``options`` log in; ``ssh_config`` knows it as the host ``device``."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder = folder
        self.key = folder / "key"
        self.known_hosts = folder / "known_hosts"
        self.ssh_config = folder / "ssh_config"
        self.log = folder / "sshd.log"
        self._settings = settings

    def __enter__(self) -> RealSshd:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("host", "key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.user = getpass.getuser()
        self.address = f"{self.user}@127.0.0.1:{self.port}"
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {self.host_key}\n")
        self.ssh_config.write_text(
            f"Host device\n HostName 127.0.0.1\n Port {self.port}\n User {self.user}\n IdentityFile {self.key}\n"
            f" IdentitiesOnly yes\n UserKnownHostsFile {self.known_hosts}\n"
        )
        self._start()
        return self

    def wrapped(self, command: list[str]) -> list[str]:
        """How the server is started: as it is."""
        return command

    @property
    def host_key(self) -> str:
        """The host's public key, as in known_hosts: type, base64, comment."""
        return (self.folder / "host.pub").read_text().strip()

    @property
    def options(self) -> ConnectOptions:
        """What it takes to log in, with nothing of the user's own configuration."""
        return ConnectOptions(
            ssh_config=Path(os.devnull), identity=self.key, known_hosts=self.known_hosts, python=sys.executable
        )

    def _start(self) -> None:
        if os.geteuid() == 0:
            # sshd's privilege separation wants it; a package's start script would make it.
            Path("/run/sshd").mkdir(exist_ok=True)
        settings = [
            f"HostKey={self.folder / 'host'}", "ListenAddress=127.0.0.1", f"AuthorizedKeysFile={self.key}.pub",
            "StrictModes=no", "UsePAM=no", "PidFile=none", *self._settings,
        ]  # fmt: skip
        command = [str(sshd_program()), "-D", "-e", "-f", os.devnull, "-p", str(self.port)]
        for setting in settings:
            command += ["-o", setting]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SUPERVISOR, *self.wrapped(command)],
                stdin=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                    if probe.recv(4) == b"SSH-":
                        return
            except OSError:
                time.sleep(0.02)
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"sshd did not start: {self.log.read_text()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(20)


# In a mount namespace of its own, so that this machine keeps its accounts and its /tmp: $1 becomes /etc (the whole
# folder: a mount on /etc/passwd alone would fall off as soon as somebody adds an account), the home $2 stays writable,
# /tmp does not; then the rest is started with umask 077.
_AWKWARDLY = """
mount --bind "$1" /etc
mount --bind "$2" "$2"
mount --rbind /tmp /tmp
mount -o remount,bind,ro /tmp
shift 2
umask 077
exec "$@"
"""


class AwkwardSshd(RealSshd):
    """An sshd whose account has another login shell and an odd home folder, a read-only /tmp and umask 077; for root.

    What the shell is called decides what BusyBox is: ``shell`` is its program, started as ``sh``.
    """

    def __init__(self, folder: Path, shell: str) -> None:
        super().__init__(folder)
        self.home = folder / 'The Pi\'s "own" $HOME'
        self._shell = folder / "bin" / "sh"
        self.home.mkdir(parents=True)
        self._shell.parent.mkdir()
        self._shell.symlink_to(shell)

    def wrapped(self, command: list[str]) -> list[str]:
        """Started where /etc/passwd is another one."""
        lines = Path("/etc/passwd").read_text().splitlines(keepends=True)
        name, _, uid, gid, *_ = next(line for line in lines if line.startswith(f"{self.user}:")).split(":")
        own = f"{name}:x:{uid}:{gid}::{self.home}:{self._shell}\n"
        etc = self.folder / "etc"
        etc.mkdir()
        others = [line for line in lines if not line.startswith(f"{self.user}:")]
        (etc / "passwd").write_text("".join([own, *others]))
        (etc / "shadow").write_text(f"{name}:*:19000::::::\n")  # without a password, yet not locked, as sshd sees it
        for name in ("group", "nsswitch.conf", "ld.so.cache", "hosts"):
            if Path("/etc", name).is_file():
                shutil.copy(Path("/etc", name), etc)
        return ["unshare", "--mount", "sh", "-euc", _AWKWARDLY, "sh", str(etc), str(self.home), *command]
