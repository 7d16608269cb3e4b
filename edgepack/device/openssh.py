"""The user's own ``ssh`` program as the transport: FIDO keys, host certificates, exotic configuration."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from edgepack.device import hostkeys
from edgepack.device.address import DeviceAddress, ssh_words
from edgepack.device.lost import connection_dropped
from edgepack.device.options import ConnectOptions
from edgepack.device.process import ProcessChannel
from edgepack.device.sshconfig import resolve
from edgepack.errors import EdgepackError, InputError, IntegrityError, UnreachableError
from edgepack.events import Event

# ssh(1), EXIT STATUS: "exits with the exit status of the remote command or with 255 if an error occurred".
SSH_FAILED = 255

_AGAIN = "Run the command again."

# What OpenSSH prints (ssh.c, sshconnect.c, sshconnect2.c, misc.c, readconf.c), as regular expressions; the first that
# is found decides. What the system adds comes from strerror(3) and gai_strerror(3).
_FAILURES: tuple[tuple[str, type[EdgepackError], str, str, str], ...] = (
    (
        r"revoked (?:host )?key|marked as revoked",
        IntegrityError,
        "host-key-revoked",
        "{device} shows a host key that is marked as revoked.",
        "Do not log in there. Somebody may use a stolen key.",
    ),
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|host key for .* has changed",
        IntegrityError,
        "host-key-changed",
        "{device} shows another host key than the one that is known.",
        hostkeys.CHANGED + " {forget}",
    ),
    (
        r"No .* host key is known for|Host key verification failed",
        IntegrityError,
        "unknown-host-key",
        "The host key of {device} is not known: {words}",
        "Compare it with the device's own, then add --accept-new-host-key once.",
    ),
    (
        r"Permission denied|Too many authentication failures|No supported authentication methods",
        UnreachableError,
        "login-refused",
        "{device} refused the login: {words}",
        "Install your key there: ssh-copy-id {ssh_words}. An encrypted key has to be in an agent: ssh-add KEYFILE",
    ),
    (
        r"Could not resolve hostname|Name or service not known",
        UnreachableError,
        "unknown-host-name",
        "No such host: {words}",
        "Check its name, or write its IP address.",
    ),
    (
        r"Connection refused",
        UnreachableError,
        "connection-refused",
        "{device} refuses connections: {words}",
        "Is sshd running there, and on this port? On the device: sudo systemctl enable --now ssh",
    ),
    (
        r"timed out|Operation timed out",
        UnreachableError,
        "connect-timeout",
        "{device} did not answer in time: {words}",
        "Is it switched on and on the network? Give it longer with --connect-timeout SECONDS.",
    ),
    (
        r"No route to host|Network is unreachable",
        UnreachableError,
        "no-route",
        "There is no way to {device} from here: {words}",
        "Are this machine and the device on the same network? A jump host: ProxyJump in ~/.ssh/config.",
    ),
    (
        r"Bad configuration option|\d+ bad configuration options|Can't open user config file|Bad owner or permissions",
        InputError,
        "bad-ssh-config",
        "The ssh configuration for {device} cannot be read: {words}",
        "Mend the file that it names, or name another with --ssh-config.",
    ),
    (
        r"Connection (?:reset|closed) by|kex_exchange_identification|Broken pipe|Connection to .* closed by remote",
        UnreachableError,
        "connection-dropped",
        "{device} dropped the connection: {words}",
        _AGAIN,
    ),
    (
        r"no matching .* found|Unable to negotiate",
        UnreachableError,
        "no-common-algorithm",
        "{device} and this machine's ssh share no algorithm: {words}",
        "Update the older of the two, or allow the algorithm in ~/.ssh/config.",
    ),
)


class OpenSshChannel(ProcessChannel):
    """One command over one ``ssh`` process."""

    def failure(self) -> EdgepackError | None:
        """Why ssh itself failed; None where the remote command ended by itself."""
        if self.wait(0.0) != SSH_FAILED:
            return None
        return classify(self.stderr_tail(), self._description)


class OpenSshTransport:
    """Runs commands on a device through the ``ssh`` program, one process for each."""

    def __init__(self, address: DeviceAddress, options: ConnectOptions) -> None:
        program = shutil.which("ssh")
        if program is None:
            raise InputError(
                "no-ssh-program",
                "--transport openssh needs the ssh program, which this machine lacks.",
                hint="Install it (Debian: sudo apt install openssh-client), or leave --transport out.",
            )
        identity = options.identity.expanduser() if options.identity else None
        if identity and not identity.is_file():
            raise InputError("no-identity", f"There is no private key {identity}.", hint="Name one with -i.")
        self.description = str(address)
        self.server: str | None = None  # ssh keeps it to itself
        self._address, self._options = address, options
        self._argv = [program, *ssh_arguments(address, options)]
        self._channels: list[OpenSshChannel] = []

    def open(self, command: str) -> OpenSshChannel:
        """Start ``command`` through the login shell of the account."""
        channel = OpenSshChannel([*self._argv, command], self.description)
        self._channels.append(channel)
        return channel

    def close(self) -> None:
        """End every ssh that still runs."""
        while self._channels:
            channel = self._channels.pop()
            channel.close()
            if self._options.accept_new_host_key:
                said = channel.stderr_tail().decode("utf-8", "replace")
                for event in _added_keys(said, self._address, self._options):
                    self._options.report(event)


def ssh_arguments(address: DeviceAddress, options: ConnectOptions) -> list[str]:
    """The arguments of ssh before the command. Host keys are believed exactly as in edgepack's own client."""
    arguments = ["-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={max(1, round(options.connect_timeout_s))}"]
    # A dead peer is noticed after a minute, as in edgepack's own client.
    arguments += ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]
    arguments += ["-o", f"StrictHostKeyChecking={'accept-new' if options.accept_new_host_key else 'yes'}"]
    # Ours is the only use of this connection: nothing is forwarded, and no master of the user's changes what the
    # options mean.
    for setting in ("ClearAllForwardings=yes", "ForwardAgent=no", "ForwardX11=no", "ControlPath=none"):
        arguments += ["-o", setting]
    arguments += ["-F", str(options.ssh_config.expanduser())] if options.ssh_config else []
    arguments += ["-i", str(options.identity.expanduser())] if options.identity else []
    if options.known_hosts is not None:
        arguments += ["-o", f"UserKnownHostsFile={_quoted(options.known_hosts)}", "-o", "GlobalKnownHostsFile=none"]
    arguments += ["-p", str(address.port)] if address.port is not None else []
    arguments += ["-l", address.user] if address.user else []
    return [*arguments, "--", address.host]


def classify(stderr: bytes, device: str) -> EdgepackError:
    """The edgepack error for what ssh printed before it ended with 255. Pure."""
    text = stderr.decode("utf-8", "replace")
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    for pattern, kind, code, message, hint in _FAILURES:
        if re.search(pattern, text):
            said = next((line for line in lines if re.search(pattern, line)), lines[-1])
            cure = hint.format(ssh_words=ssh_words(device), forget=_forget_command(text, device))
            return kind(code, message.format(device=device, words=said[:300]), hint=cure)
    if not lines:
        return connection_dropped(device)
    return UnreachableError(
        "ssh-failed", f"ssh to {device} failed: {lines[-1][:300]}", hint=f"Try `ssh -v {ssh_words(device)}`."
    )


def _forget_command(stderr: str, device: str) -> str:
    """How to forget a changed key, by the name and the file that ssh names (sshconnect.c, check_host_key)."""
    name = re.search(r"host key for (.+) has changed", stderr, re.IGNORECASE)
    file = re.search(r"Offending .*key in (.+):\d+", stderr)
    if name is None or file is None:
        return f"ssh-keygen -R {device}"
    return hostkeys.forget_command(name[1], file[1].strip())


def _added_keys(stderr: str, address: DeviceAddress, options: ConnectOptions) -> list[Event]:
    """The keys of new hosts that ssh says it has written down, as it does to the first of the user's files."""
    written = re.findall(r"Permanently added '(.+)' \(\w+\) to the list of known hosts", stderr)
    files = resolve(address, options).user_known_hosts if written else ()
    lines = hostkeys.read_known_hosts(files[:1])
    return [hostkeys.added(name, line.blob, files[0]) for name in written for line in lines if line.names(name.lower())]


def _quoted(file: Path) -> str:
    """A path for an option that takes several, separated by blanks (ssh_config(5) on quotes)."""
    return '"' + str(file.expanduser()) + '"'
