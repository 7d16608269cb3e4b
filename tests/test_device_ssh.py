from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import pkgutil
import shutil
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import paramiko
import pytest
from cutting_proxy import CuttingProxy
from real_sshd import RealSshd
from test_device_contract import STAND_IN

from edgepack.device import ConnectOptions, DeviceAddress, open_session, open_transport
from edgepack.device.hostkeys import fingerprint, parse_known_hosts, read_known_hosts
from edgepack.device.openssh import classify
from edgepack.device.ssh.faults import TABLE, connect_error, translated, translation
from edgepack.device.transport import Transport
from edgepack.errors import DeviceFailure, EdgepackError, InputError, IntegrityError, UnreachableError
from edgepack.events import Event

OTHER_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIJ6wRzTnsVVkz+vBVrSpgLG2aHpUBBKgIVjlY6gBMVZc"


@pytest.fixture(params=["ssh", "openssh"])
def client(request: pytest.FixtureRequest) -> str:
    """Both SSH clients: what one promises, the other does too."""
    return str(request.param)


def log_in(address: str, options: ConnectOptions) -> bytes:
    """Log in, run a command, log out; openssh logs in with its first command."""
    with ExitStack() as stack:
        transport: Transport = open_transport(DeviceAddress.parse(address), options)
        stack.callback(transport.close)
        channel = transport.open("echo in")
        said = b"".join(iter(lambda: channel.read(100), b""))
        channel.wait(10)
        failure = channel.failure()
        if failure is not None:
            raise failure
        return said


def refused(address: str, options: ConnectOptions) -> EdgepackError:
    """The error of a login that must not work."""
    with pytest.raises(EdgepackError) as caught:
        log_in(address, options)
    return caught.value


class TestHostKeys:
    """Who is at the other end, before anything is said to it."""

    def test_an_unknown_host_stops_with_its_fingerprint(self, sshd: RealSshd, client: str, tmp_path: Path) -> None:
        """A host that was never seen ends with exit code 6 and the option that lets it in."""
        options = dataclasses.replace(sshd.options, known_hosts=tmp_path / "none", transport=client)
        error = refused(sshd.address, options)
        assert isinstance(error, IntegrityError)
        assert error.code == "unknown-host-key"
        assert "--accept-new-host-key" in error.hint
        if client == "ssh":
            assert error.details["fingerprint"] in error.message
            listed = subprocess.run(
                ["ssh-keygen", "-lf", sshd.folder / "host.pub"], capture_output=True, text=True, check=True
            ).stdout
            assert str(error.details["fingerprint"]) in listed

    def test_accepting_writes_the_key_down(self, sshd: RealSshd, client: str, tmp_path: Path) -> None:
        """--accept-new-host-key is needed once and says what it wrote where; both clients know the host afterwards."""
        told: list[Event] = []
        file = tmp_path / "new" / "known_hosts"
        options = dataclasses.replace(
            sshd.options, known_hosts=file, accept_new_host_key=True, transport=client, report=told.append
        )
        if client == "openssh":
            (tmp_path / "new").mkdir()
        assert log_in(sshd.address, options) == b"in\n"
        shown = fingerprint(read_known_hosts([file])[0].blob)
        assert [event.message for event in told] == [f"added {shown} of [127.0.0.1]:{sshd.port} to {file}"]
        for other in ("ssh", "openssh"):
            again = dataclasses.replace(options, accept_new_host_key=other == client, transport=other)
            assert log_in(sshd.address, again) == b"in\n"
        assert len(told) == 1

    def test_a_changed_key_always_stops(self, sshd: RealSshd, client: str, tmp_path: Path) -> None:
        """Another key than the known one ends with exit code 6, whatever was accepted."""
        known = tmp_path / "known_hosts"
        known.write_text(f"[127.0.0.1]:{sshd.port} ssh-ed25519 {OTHER_KEY}\n")
        before = known.read_bytes()
        options = dataclasses.replace(sshd.options, known_hosts=known, accept_new_host_key=True, transport=client)
        error = refused(sshd.address, options)
        assert isinstance(error, IntegrityError)
        assert error.code == "host-key-changed"
        assert f"ssh-keygen -R '[127.0.0.1]:{sshd.port}' -f {known}" in error.hint
        assert known.read_bytes() == before

    def test_a_revoked_key_always_stops(self, sshd: RealSshd, client: str, tmp_path: Path) -> None:
        """A key that is marked as revoked ends with exit code 6, even where another line knows it."""
        known = tmp_path / "known_hosts"
        known.write_text(sshd.known_hosts.read_text() + f"@revoked * {sshd.host_key}\n")
        options = dataclasses.replace(sshd.options, known_hosts=known, accept_new_host_key=True, transport=client)
        error = refused(sshd.address, options)
        assert isinstance(error, IntegrityError)
        assert error.code == "host-key-revoked"

    def test_an_authority_is_left_to_openssh(self, sshd: RealSshd, tmp_path: Path) -> None:
        """A host that only an authority vouches for is not believed, and the error names the way that works."""
        known = tmp_path / "known_hosts"
        known.write_text(f"@cert-authority * ssh-ed25519 {OTHER_KEY}\n")
        error = refused(sshd.address, dataclasses.replace(sshd.options, known_hosts=known))
        assert error.code == "unknown-host-key"
        assert "--transport openssh" in error.hint

    def test_strange_lines_do_not_disturb(self, sshd: RealSshd, tmp_path: Path) -> None:
        """A known_hosts file with authorities, revoked keys, unknown types and rubbish still lets the known host in."""
        known = tmp_path / "known_hosts"
        known.write_text(
            f"# a comment\n\nrubbish\n@cert-authority *.example ssh-ed25519 {OTHER_KEY}\n"
            f"@revoked * ssh-ed25519 {OTHER_KEY}\nhost sk-ssh-ed25519@openssh.com !!!\n|1|broken\n"
            + sshd.known_hosts.read_text()
        )
        assert log_in(sshd.address, dataclasses.replace(sshd.options, known_hosts=known)) == b"in\n"

    def test_a_hashed_name_is_found(self, sshd: RealSshd, tmp_path: Path) -> None:
        """Hashed known_hosts files, Debian's default, work."""
        known = tmp_path / "known_hosts"
        shutil.copy(sshd.known_hosts, known)
        subprocess.run(["ssh-keygen", "-Hf", known], check=True, capture_output=True)
        assert "|1|" in known.read_text()
        assert log_in(sshd.address, dataclasses.replace(sshd.options, known_hosts=known)) == b"in\n"

    def test_an_alias_names_the_key(self, sshd: RealSshd, tmp_path: Path) -> None:
        """HostKeyAlias and UserKnownHostsFile of the ssh configuration are honoured."""
        (tmp_path / "known").write_text(f"my-board {sshd.host_key}\n")
        config = tmp_path / "config"
        config.write_text(
            f"Host board\n HostName 127.0.0.1\n Port {sshd.port}\n User {sshd.user}\n IdentityFile {sshd.key}\n"
            f" HostKeyAlias my-board\n UserKnownHostsFile {tmp_path}/known\n"
        )
        assert log_in("board", ConnectOptions(ssh_config=config)) == b"in\n"

    def test_asks_for_the_type_that_is_known(self, sshd: RealSshd, tmp_path: Path) -> None:
        """A host with several keys is asked for the one that is known, and is no stranger for its others."""
        subprocess.run(["ssh-keygen", "-qt", "ecdsa", "-N", "", "-f", tmp_path / "ecdsa"], check=True)
        with RealSshd(tmp_path / "two", f"HostKey={tmp_path / 'ecdsa'}") as both:
            known = tmp_path / "known"
            known.write_text(f"[127.0.0.1]:{both.port} {(tmp_path / 'ecdsa.pub').read_text()}")
            assert log_in(both.address, dataclasses.replace(both.options, known_hosts=known)) == b"in\n"


class TestLogin:
    """Which keys are offered, and what a refusal says."""

    def test_an_alias_of_the_configuration_is_enough(self, sshd: RealSshd, client: str) -> None:
        """With an entry in the ssh configuration, the host's alias is all that has to be typed."""
        assert log_in("device", ConnectOptions(ssh_config=sshd.ssh_config, transport=client)) == b"in\n"

    def test_a_refused_login(self, sshd: RealSshd, client: str, tmp_path: Path) -> None:
        """A key that the device does not take ends with exit code 4 and how to install it."""
        subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
        error = refused(sshd.address, dataclasses.replace(sshd.options, identity=tmp_path / "other", transport=client))
        assert isinstance(error, UnreachableError)
        assert error.code == "login-refused"
        assert f"ssh-copy-id -p {sshd.port} {sshd.user}@127.0.0.1" in error.hint

    def test_too_many_keys(self, tmp_path: Path, client: str) -> None:
        """A host that hangs up after a few wrong keys (MaxAuthTries) refused the login, and the error says so."""
        keys = [tmp_path / f"key-{number}" for number in range(4)]
        for key in keys:
            subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", key], check=True)
        with RealSshd(tmp_path / "sshd", "MaxAuthTries=2") as strict:
            config = tmp_path / "config"
            config.write_text("Host *\n" + "".join(f" IdentityFile {key}\n" for key in keys[1:]))
            options = dataclasses.replace(strict.options, ssh_config=config, identity=keys[0], transport=client)
            error = refused(strict.address, options)
        assert isinstance(error, UnreachableError)
        assert error.code == "login-refused"

    def test_an_identity_that_is_no_key(self, sshd: RealSshd, tmp_path: Path) -> None:
        """Samples after -i are told as no private key, in a sentence without a parser's insides."""
        (tmp_path / "samples.npz").write_bytes(b"PK\x03\x04 no key at all")
        error = refused(sshd.address, dataclasses.replace(sshd.options, identity=tmp_path / "samples.npz"))
        assert error.code == "key-unusable"
        assert "PEM" not in str(error)
        assert "http" not in str(error)

    def test_a_missing_identity(self, sshd: RealSshd, client: str, tmp_path: Path) -> None:
        """A key file that does not exist ends with exit code 2, before anything is tried."""
        error = refused(sshd.address, dataclasses.replace(sshd.options, identity=tmp_path / "no", transport=client))
        assert isinstance(error, InputError)
        assert error.code == "no-identity"

    def test_what_is_no_key(self, sshd: RealSshd, tmp_path: Path) -> None:
        """A file that is no private key ends with exit code 2."""
        (tmp_path / "rubbish").write_text("this is no key")
        error = refused(sshd.address, dataclasses.replace(sshd.options, identity=tmp_path / "rubbish"))
        assert isinstance(error, InputError)
        assert error.code == "key-unusable"

    def test_an_encrypted_key_without_a_terminal(self, sshd: RealSshd, tmp_path: Path) -> None:
        """Without a terminal nobody is asked for a passphrase; the error says how an agent helps."""
        key = encrypted_copy(sshd, tmp_path)
        error = refused(sshd.address, dataclasses.replace(sshd.options, identity=key))
        assert error.code == "key-locked"
        assert f"ssh-add {key}" in error.hint

    def test_an_encrypted_key_on_a_terminal(
        self, sshd: RealSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a terminal the passphrase is asked for, and a typing error forgiven."""
        answers = iter(["wrong", "secret"])
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))
        key = encrypted_copy(sshd, tmp_path)
        assert log_in(sshd.address, dataclasses.replace(sshd.options, identity=key)) == b"in\n"

    def test_the_agent_holds_the_key(
        self, sshd: RealSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ssh_agent: Path
    ) -> None:
        """An encrypted key that an ssh-agent holds works without a question; IdentityAgent names the agent too."""
        subprocess.run(["ssh-add", "-q", sshd.key], check=True, env={**os.environ, "SSH_AUTH_SOCK": str(ssh_agent)})
        key = encrypted_copy(sshd, tmp_path)
        options = dataclasses.replace(sshd.options, identity=key)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(ssh_agent))
        assert log_in(sshd.address, options) == b"in\n"
        monkeypatch.delenv("SSH_AUTH_SOCK")
        config = tmp_path / "config"
        config.write_text(f"Host *\n IdentityAgent {ssh_agent}\n")
        assert log_in(sshd.address, dataclasses.replace(options, ssh_config=config)) == b"in\n"

    @pytest.mark.parametrize("kind", [("rsa", "2048"), ("ecdsa", "256"), ("ed25519", "256")])
    def test_every_common_kind_of_key(self, tmp_path: Path, sshd: RealSshd, kind: tuple[str, str]) -> None:
        """RSA (with SHA-2), ECDSA and Ed25519 keys log in."""
        key = tmp_path / "key"
        subprocess.run(["ssh-keygen", "-qt", kind[0], "-b", kind[1], "-N", "", "-f", key], check=True)
        with RealSshd(tmp_path / "sshd", f"AuthorizedKeysFile={key}.pub") as other:
            shutil.copy(f"{key}.pub", f"{other.key}.pub")
            assert log_in(other.address, dataclasses.replace(other.options, identity=key)) == b"in\n"


class TestTheWayThere:
    """Networks, jump hosts, and an sshd with too much to do."""

    def test_nobody_listens(self, client: str) -> None:
        """A wrong port ends with exit code 4 and a question about sshd."""
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            error = refused(f"me@127.0.0.1:{unused.getsockname()[1]}", plain(client))
        assert isinstance(error, UnreachableError)
        assert error.code == "connection-refused"
        assert "sshd" in error.hint

    def test_an_unknown_name(self, client: str) -> None:
        """A host name that nobody knows ends with exit code 4."""
        error = refused("me@no-such-host.invalid", plain(client))
        assert isinstance(error, UnreachableError)
        assert error.code == "unknown-host-name"

    def test_a_silent_host(self, client: str) -> None:
        """A host that accepts and says nothing ends with exit code 4 within the connect timeout."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            before = time.monotonic()
            error = refused(
                f"me@127.0.0.1:{silent.getsockname()[1]}", dataclasses.replace(plain(client), connect_timeout_s=1)
            )
        assert isinstance(error, UnreachableError)
        assert error.code == "connect-timeout"
        assert time.monotonic() - before < 10

    def test_a_host_that_hangs_up_is_tried_again(self, sshd: RealSshd, tmp_path: Path) -> None:
        """A busy sshd that drops connections before its banner costs a moment, not the deployment."""
        known = tmp_path / "known_hosts"
        known.write_text(f"* {sshd.host_key}\n")
        with CuttingProxy(sshd.port, rejections=3) as proxy:
            options = dataclasses.replace(sshd.options, known_hosts=known)
            assert log_in(f"{sshd.user}@127.0.0.1:{proxy.port}", options) == b"in\n"

    def test_a_host_that_always_hangs_up_is_given_up(self, sshd: RealSshd) -> None:
        """The retries end with the connect timeout, with exit code 4."""
        with CuttingProxy(sshd.port, rejections=10_000) as proxy:
            before = time.monotonic()
            options = dataclasses.replace(sshd.options, connect_timeout_s=1.0)
            error = refused(f"{sshd.user}@127.0.0.1:{proxy.port}", options)
        assert isinstance(error, UnreachableError)
        assert error.code == "connection-dropped"
        assert time.monotonic() - before < 5

    @pytest.mark.parametrize("busy", ["waiting", "sending"])
    def test_a_lost_connection(self, sshd: RealSshd, client: str, tmp_path: Path, busy: str) -> None:
        """A connection that breaks while the device works, or a file travels, ends with exit code 7."""
        known = tmp_path / "known_hosts"
        known.write_text(f"* {sshd.host_key}\n")
        options = dataclasses.replace(sshd.options, known_hosts=known, transport=client)
        with CuttingProxy(sshd.port) as proxy:
            address = DeviceAddress.parse(f"{sshd.user}@127.0.0.1:{proxy.port}")
            with open_session(open_transport(address, options), options, agent=STAND_IN) as session:
                threading.Timer(0.3, proxy.cut).start()
                payload = [bytes(1 << 20)] * 10_000 if busy == "sending" else []
                with pytest.raises(DeviceFailure) as caught:
                    session.request("sleep", payload, len(payload) << 20, seconds=5)
        assert caught.value.code == "connection-lost"
        assert "resumes" in caught.value.hint

    @pytest.mark.parametrize("greeting", ["", "\nEDGEPACK1 %s\n"])
    def test_a_connection_that_breaks_before_the_first_answer(
        self, sshd: RealSshd, client: str, tmp_path: Path, greeting: str
    ) -> None:
        """A line that is cut before the agent answered ends with exit code 4 and a code of its own: nothing changed."""
        known = tmp_path / "known_hosts"
        known.write_text(f"* {sshd.host_key}\n")
        options = dataclasses.replace(sshd.options, known_hosts=known, transport=client)
        says = f"sys.stdout.write({greeting!r} % EDGEPACK_NONCE)\n" if greeting else ""
        mute = zlib.compress(f"import sys, time\n{says}time.sleep(30)\n".encode())
        with CuttingProxy(sshd.port) as proxy:
            address = DeviceAddress.parse(f"{sshd.user}@127.0.0.1:{proxy.port}")
            transport = open_transport(address, options)
            threading.Timer(1.5, proxy.cut).start()
            with pytest.raises(UnreachableError) as caught:
                open_session(transport, options, agent=mute)
        assert caught.value.code == "connection-dropped"
        assert caught.value.hint

    def test_over_jump_hosts(self, sshd: RealSshd, client: str, tmp_path: Path) -> None:
        """A device behind one or two jump hosts is reached through the ssh configuration's ProxyJump."""
        common = f" HostName 127.0.0.1\n Port {sshd.port}\n User {sshd.user}\n IdentityFile {sshd.key}\n"
        common += f" UserKnownHostsFile {sshd.known_hosts}\n"
        config = tmp_path / "config"
        config.write_text(
            f"Host hop1\n{common}Host hop2\n{common}"
            f"Host one\n ProxyJump hop1\n{common}Host two\n ProxyJump hop1,hop2\n{common}"
        )
        options = ConnectOptions(ssh_config=config, transport=client)
        assert log_in("one", options) == b"in\n"
        assert log_in("two", options) == b"in\n"

    def test_a_jump_host_that_leads_nowhere(self, sshd: RealSshd, tmp_path: Path) -> None:
        """When the jump host cannot reach the device, the error says which of the two failed."""
        config = tmp_path / "config"
        config.write_text(
            f"Host hop\n HostName 127.0.0.1\n Port {sshd.port}\n User {sshd.user}\n IdentityFile {sshd.key}\n"
            f" UserKnownHostsFile {sshd.known_hosts}\nHost board\n HostName 127.0.0.1\n Port 1\n ProxyJump hop\n"
        )
        error = refused("board", ConnectOptions(ssh_config=config))
        assert error.code == "jump-failed"

    def test_a_circle_of_jump_hosts_ends(self, tmp_path: Path) -> None:
        """Jump hosts that name each other end with exit code 2 instead of running for ever."""
        config = tmp_path / "config"
        config.write_text("Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
        assert refused("a", ConnectOptions(ssh_config=config)).code == "bad-ssh-config"

    def test_through_a_proxy_command(self, sshd: RealSshd, client: str, tmp_path: Path) -> None:
        """A ProxyCommand of the ssh configuration carries the connection."""
        script = tmp_path / "proxy.py"
        script.write_text(
            "import os, select, socket, sys\n"
            "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
            "while True:\n"
            "    for f in select.select([0, s], [], [])[0]:\n"
            "        data = os.read(0, 65536) if f == 0 else s.recv(65536)\n"
            "        if not data: sys.exit()\n"
            "        s.sendall(data) if f == 0 else os.write(1, data)\n"
        )
        config = tmp_path / "config"
        config.write_text(
            f"Host board\n HostName 127.0.0.1\n Port {sshd.port}\n User {sshd.user}\n IdentityFile {sshd.key}\n"
            f" UserKnownHostsFile {sshd.known_hosts}\n ProxyCommand python3 {script} %h %p\n"
        )
        assert log_in("board", ConnectOptions(ssh_config=config, transport=client)) == b"in\n"

    def test_a_proxy_command_that_fails(self, client: str, tmp_path: Path) -> None:
        """A ProxyCommand that ends at once ends with exit code 4."""
        config = tmp_path / "config"
        config.write_text("Host board\n ProxyCommand false\n")
        options = ConnectOptions(ssh_config=config, transport=client, connect_timeout_s=1)
        assert isinstance(refused("board", options), UnreachableError)

    def test_a_broken_configuration_is_told(self, client: str, tmp_path: Path) -> None:
        """A mistake in the ssh configuration ends with exit code 2 and ssh's own words."""
        config = tmp_path / "config"
        config.write_text("Host *\n Prot 22\n")
        error = refused("board", ConnectOptions(ssh_config=config, transport=client))
        assert isinstance(error, InputError)
        assert "prot" in error.message.lower()

    def test_without_an_ssh_program(self, sshd: RealSshd, monkeypatch: pytest.MonkeyPatch, client: str) -> None:
        """A machine without OpenSSH's client still deploys; what needs it says so."""
        monkeypatch.setattr(shutil, "which", lambda name: None)
        bare = dataclasses.replace(sshd.options, ssh_config=None, transport=client)
        if client == "ssh":
            assert log_in(sshd.address, bare) == b"in\n"
            assert refused("device", ConnectOptions(ssh_config=sshd.ssh_config)).code == "no-ssh-program"
        else:
            assert refused(sshd.address, bare).code == "no-ssh-program"

    def test_a_talkative_login(self, tmp_path: Path, client: str) -> None:
        """Banners, messages of the day and start-up files that print do not disturb a session."""
        noise = tmp_path / "noise"
        noise.write_text("*** Welcome! Authorised use only. ***\n" * 50)
        force = f"ForceCommand=cat {noise}; cat {noise} >&2; printf 'EDGEPACK1 '; eval \"$SSH_ORIGINAL_COMMAND\""
        with RealSshd(tmp_path / "sshd", f"Banner={noise}", force) as talkative:
            options = dataclasses.replace(talkative.options, transport=client)
            with open_session(
                open_transport(DeviceAddress.parse(talkative.address), options), options, agent=STAND_IN
            ) as session:
                assert session.request("anything").result["verb"] == "anything"

    def test_the_fast_way_is_taken(self, sshd: RealSshd) -> None:
        """Small frames leave at once, and the cipher is one that hardware speeds up."""
        transport = open_transport(DeviceAddress.parse(sshd.address), sshd.options)
        connection = transport._connection  # type: ignore[attr-defined]
        try:
            assert transport.cipher == "aes128-gcm@openssh.com"  # type: ignore[attr-defined]
            assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        finally:
            transport.close()


def test_an_interrupt_inside_paramiko_does_not_hang_the_end(sshd: RealSshd) -> None:
    """Ctrl-C in the middle of a write may leave paramiko's lock taken: the session ends within seconds all the same."""
    transport = open_transport(DeviceAddress.parse(sshd.address), sshd.options)
    with contextlib.closing(transport):
        channel = transport.open("cat")
        channel.write(b"whole")
        getattr(channel, "_channel").lock.acquire()  # noqa: B009 - as an interrupt between acquire() and try leaves it
        started = time.monotonic()
        channel.finish_input()
        assert channel.read(100) == b"whole"
        assert channel.wait(10) == 0
        channel.close()
        assert time.monotonic() - started < 20


class TestForeignErrors:
    """No exception of a library reaches the user."""

    def test_every_exception_of_paramiko_is_translated(self) -> None:
        """Whatever paramiko raises ends as an edgepack error with a code and a next step."""
        classes = set()
        for module in pkgutil.iter_modules(paramiko.__path__, "paramiko."):
            if module.name not in ("paramiko._winapi", "paramiko.win_openssh", "paramiko.win_pageant"):
                classes |= {
                    value
                    for value in vars(importlib.import_module(module.name)).values()
                    if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == module.name
                }
        assert len(classes) > 15
        for kind in classes:
            error = kind.__new__(kind)
            for attribute in ("hostname", "command", "error", "code", "text", "explanation", "key_type"):
                setattr(error, attribute, "said")
            error.key = error.expected_key = paramiko.ECDSAKey.generate()
            error.key_bytes, error.result = b"", []
            known = translation(error, "pi@board")
            assert known is not None, kind
            assert known.hint, kind

    def test_special_classes_come_before_their_bases(self) -> None:
        """No line of the table is hidden by one above it."""
        for position, (later, *_) in enumerate(TABLE):
            assert not any(issubclass(later, earlier) for earlier, *_ in TABLE[:position]), later

    def test_our_own_mistakes_are_not_dressed_up(self) -> None:
        """A fault of edgepack stays one: it is not reported as a broken network."""
        with pytest.raises(ZeroDivisionError), translated("device"):
            raise ZeroDivisionError

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (socket.gaierror(-2, "Name or service not known"), "unknown-host-name"),
            (UnicodeError("label too long"), "unknown-host-name"),
            (ConnectionRefusedError(111, "refused"), "connection-refused"),
            (TimeoutError("timed out"), "connect-timeout"),
            (OSError(113, "No route to host"), "no-route"),
            (OSError(101, "Network is unreachable"), "no-route"),
            (OSError(13, "Permission denied"), "connect-failed"),
        ],
    )
    def test_each_dead_end_has_its_code(self, error: Exception, code: str) -> None:
        """A script can tell a switched-off device from a wrong port and a wrong name."""
        known = connect_error("pi@board", "board", 22, error)
        assert isinstance(known, UnreachableError)
        assert known.code == code
        assert known.hint

    @pytest.mark.parametrize(
        ("said", "code"),
        [
            ("ssh: connect to host 10.0.0.9 port 22: No route to host", "no-route"),
            ("ssh: connect to host 10.0.0.9 port 22: Connection timed out", "connect-timeout"),
            ("kex_exchange_identification: Connection closed by remote host\nConnection closed", "connection-dropped"),
            ("Unable to negotiate with 10.0.0.9 port 22: no matching host key type found. Their offer: ssh-dss",
             "no-common-algorithm"),
            ("client_loop: send disconnect: Broken pipe", "connection-dropped"),
            ("", "connection-dropped"),
            ("something never seen", "ssh-failed"),
        ],
    )  # fmt: skip
    def test_what_ssh_prints_is_understood(self, said: str, code: str) -> None:
        """The ssh program's words become the same codes as those of edgepack's own client."""
        error = classify(said.encode(), "pi@board")
        assert error.code == code
        assert error.hint


def plain(client: str) -> ConnectOptions:
    """Options without the user's own configuration."""
    return ConnectOptions(ssh_config=Path(os.devnull), transport=client)  # type: ignore[arg-type]


def encrypted_copy(sshd: RealSshd, folder: Path) -> Path:
    """The key of a sshd with a passphrase on it, and its public half beside it."""
    key = folder / "locked"
    shutil.copy(sshd.key, key)
    shutil.copy(f"{sshd.key}.pub", f"{key}.pub")
    subprocess.run(["ssh-keygen", "-pq", "-P", "", "-N", "secret", "-f", key], check=True, capture_output=True)
    return key


@pytest.fixture
def ssh_agent(tmp_path: Path) -> Iterator[Path]:
    """A real ssh-agent."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    while not path.exists():
        time.sleep(0.01)
    yield path
    process.terminate()
    process.wait()


def test_fingerprints_are_those_of_ssh_keygen(sshd: RealSshd) -> None:
    """The fingerprint in a message can be compared with the one that the device prints."""
    blob = parse_known_hosts(sshd.known_hosts.read_text())[0].blob
    listed = subprocess.run(["ssh-keygen", "-lf", sshd.known_hosts], capture_output=True, text=True, check=True).stdout
    assert fingerprint(blob) in listed
