"""SSH as people have it: their configuration, their keys, certificates, a stock sshd with too much to do."""

from __future__ import annotations

import dataclasses
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cutting_proxy import CuttingProxy, Fault
from deploying import tiny_bundle
from real_sshd import RealSshd
from test_device_ssh import encrypted_copy, log_in, refused

import edgepack
from edgepack.device import ConnectOptions, DeviceAddress, hostkeys
from edgepack.device.openssh import ssh_arguments
from edgepack.device.sshconfig import resolve
from edgepack.errors import EdgepackError, IntegrityError, UnreachableError
from edgepack.events import Event

pytestmark = pytest.mark.sshd


@pytest.fixture(params=["ssh", "openssh"])
def client(request: pytest.FixtureRequest) -> str:
    """Both SSH clients."""
    return str(request.param)


def test_include_and_match_count(sshd: RealSshd, client: str, tmp_path: Path) -> None:
    """A configuration in pieces, with Include and Match, means for edgepack what it means for ssh."""
    (tmp_path / "boards").write_text(
        f"Host board\n HostName 127.0.0.1\n Port 1\nMatch originalhost board exec true\n User {sshd.user}\n"
    )
    config = tmp_path / "config"
    config.write_text(
        f'Match originalhost board exec "test -d {tmp_path}"\n Port {sshd.port}\nInclude {tmp_path}/boards\n'
        f"Match all\n IdentityFile {sshd.key}\n UserKnownHostsFile {sshd.known_hosts}\n"
    )
    assert log_in("board", ConnectOptions(ssh_config=config, transport=client)) == b"in\n"  # type: ignore[arg-type]


def test_a_program_in_the_configuration_runs_once(sshd: RealSshd, client: str, tmp_path: Path) -> None:
    """A `Match exec` that rings a bell rings it once for each connection, with either client."""
    config, bell = tmp_path / "config", tmp_path / "bell"
    config.write_text(
        f'Match originalhost board exec "echo rang >>{bell}"\n HostName 127.0.0.1\n Port {sshd.port}\n'
        f" User {sshd.user}\n IdentityFile {sshd.key}\n UserKnownHostsFile {sshd.known_hosts}\n"
    )
    assert log_in("board", ConnectOptions(ssh_config=config, transport=client)) == b"in\n"  # type: ignore[arg-type]
    assert bell.read_text().split() == ["rang"]


def test_a_host_certificate_is_openssh_s(sshd: RealSshd, tmp_path: Path) -> None:
    """Where a certificate authority vouches for a host, openssh believes it; the own client refuses, and says so."""
    keygen = ["ssh-keygen", "-q"]
    subprocess.run([*keygen, "-t", "ed25519", "-N", "", "-f", tmp_path / "ca"], check=True)
    with RealSshd(tmp_path / "certified") as plain:
        shutil.copy(plain.folder / "host.pub", tmp_path / "host.pub")
    subprocess.run([*keygen, "-s", tmp_path / "ca", "-I", "board", "-h", "-n", "127.0.0.1", tmp_path / "host.pub"],
                   check=True, capture_output=True)  # fmt: skip
    shutil.copy(plain.folder / "host", tmp_path / "host")
    known = tmp_path / "known_hosts"
    known.write_text(f"@cert-authority 127.0.0.1,[127.0.0.1]:* {(tmp_path / 'ca.pub').read_text()}")
    settings = (f"HostCertificate={tmp_path / 'host-cert.pub'}", f"HostKey={tmp_path / 'host'}")
    with RealSshd(tmp_path / "sshd", *settings) as certified:
        options = dataclasses.replace(certified.options, known_hosts=known)
        error = refused(certified.address, options)
        assert isinstance(error, IntegrityError)
        assert "--transport openssh" in error.hint
        assert log_in(certified.address, dataclasses.replace(options, transport="openssh")) == b"in\n"


def test_a_passphrase_is_asked_for_on_a_real_terminal(sshd: RealSshd, tmp_path: Path) -> None:
    """`edgepack status` on a terminal asks for the passphrase of an encrypted key, once, and hides what is typed."""
    edgepack.push(tiny_bundle(tmp_path)[0], f"local:{tmp_path}/device", options=ConnectOptions(python=sys.executable))
    key = encrypted_copy(sshd, tmp_path)
    command = [sys.executable, "-m", "edgepack", "status", sshd.address]
    command += ["--ssh-config", os.devnull, "-i", str(key), "--known-hosts", str(sshd.known_hosts)]
    command += ["--root", f"{tmp_path}/device", "--python", sys.executable]
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.pop("SSH_AUTH_SOCK", None)
        os.execv(command[0], command)  # noqa: S606 - what pty.fork is for
    said = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            part = os.read(terminal, 4096)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not part:
            break
        said += part
        if said.endswith(b"locked: "):
            os.write(terminal, b"secret\n")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, said
    assert said.count(b"Passphrase for") == 1
    assert b"secret" not in said
    assert b"tiny" in said


def test_an_unlocked_key_is_not_asked_for_again(
    sshd: RealSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that breaks asks nobody for the passphrase a second time."""
    answers = iter(["secret"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))
    known = tmp_path / "known_hosts"
    known.write_text(f"* {sshd.host_key}\n")
    options = dataclasses.replace(sshd.options, identity=encrypted_copy(sshd, tmp_path), known_hosts=known)
    with CuttingProxy(sshd.port) as proxy:
        address = f"{sshd.user}@127.0.0.1:{proxy.port}"
        with edgepack.connect(address, dataclasses.replace(options, root=str(tmp_path / "none"))) as session:
            proxy.cut()
            assert session.persist(lambda: session.request("probe").result)["facts"]
            assert proxy.connections == 2


@pytest.mark.parametrize("after", [5, 500, 1800, 2400, 2900])
def test_a_cut_in_the_login_is_no_refusal(sshd: RealSshd, client: str, after: int, tmp_path: Path) -> None:
    """A line that is cut while keys are exchanged or offered is told as that, and is tried again."""
    known = tmp_path / "known_hosts"
    known.write_text(f"* {sshd.host_key}\n")
    events: list[Event] = []
    with CuttingProxy(sshd.port, faults=[Fault(after)]) as proxy:
        options = dataclasses.replace(
            sshd.options, known_hosts=known, transport=client, root=str(tmp_path / "none"), report=events.append
        )
        edgepack.connect(f"{sshd.user}@127.0.0.1:{proxy.port}", options).close()
        assert proxy.connections == 2
    told = [event.message for event in events if "Trying again" in event.message]
    assert len(told) <= 1  # where sshd had said nothing yet, nobody needs to know


@pytest.mark.parametrize("kind", ["ssh", pytest.param("openssh", marks=pytest.mark.slow)])
def test_thirty_at_once_get_through_a_stock_sshd(tmp_path: Path, kind: str) -> None:
    """A stock sshd (MaxStartups 10:30:100, MaxSessions 10) drops some of thirty logins; every session opens."""
    with RealSshd(tmp_path / "stock", "MaxStartups=10:30:100", "MaxSessions=10") as stock:
        options = dataclasses.replace(stock.options, transport=kind, root=str(tmp_path / "none"))

        def opened(_: int) -> bool:
            with edgepack.connect(stock.address, options) as session:
                return bool(session.facts.python)

        with ThreadPoolExecutor(30) as pool:
            assert list(pool.map(opened, range(30))) == [True] * 30


def test_a_line_that_stalls_behind_a_jump_host_is_given_up(
    sshd: RealSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The silence is noticed through a jump host too, and everything of the dead line goes."""
    monkeypatch.setattr("edgepack.device.conversation.SILENCE_S", 2.0)
    known, config = tmp_path / "known_hosts", tmp_path / "config"
    known.write_text(f"* {sshd.host_key}\n")
    with CuttingProxy(sshd.port) as proxy:
        common = f" HostName 127.0.0.1\n User {sshd.user}\n IdentityFile {sshd.key}\n UserKnownHostsFile {known}\n"
        config.write_text(
            f"Host hop\n Port {proxy.port}\n{common}Host board\n Port {sshd.port}\n ProxyJump hop\n{common}"
        )
        options = ConnectOptions(ssh_config=config, root=str(tmp_path / "none"), python=sys.executable, retries=0)
        with edgepack.connect("board", options) as session:
            proxy.stall()
            started = time.monotonic()
            with pytest.raises(EdgepackError) as caught:
                session.request("probe")
            assert caught.value.code == "stalled"
        assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("text", "host", "name"),
    [
        ("pi@[fe80::1%eth0]:2222", "fe80::1%eth0", "[fe80::1%eth0]:2222"),
        ("pi@[::1]", "::1", "::1"),
        ("pi@[::1]:2222", "::1", "[::1]:2222"),
        ("ssh://pi@[fe80::1%25eth0]:22", "fe80::1%eth0", "fe80::1%eth0"),
        ("ssh://pi@[2001:db8::7]:22", "2001:db8::7", "2001:db8::7"),
    ],
)
def test_an_ipv6_address_means_the_same_to_both_clients(text: str, host: str, name: str) -> None:
    """An IPv6 address, with a zone or a port, goes to ssh, a socket and known_hosts in the form that each wants."""
    address = DeviceAddress.parse(text)
    options = ConnectOptions(ssh_config=Path(os.devnull))
    place = resolve(address, options)
    assert (place.host, place.user) == (host, "pi")
    assert hostkeys.host_names(place.host, place.port)[0] == name
    assert ssh_arguments(address, options)[-2:] == ["--", host]
    line = hostkeys.parse_known_hosts(f"{name} ssh-ed25519 AAAA")[0]
    assert line.names(name)


def test_nobody_behind_an_ipv6_address_is_unreachable() -> None:
    """The loopback address of IPv6, where no sshd listens, ends with exit code 4 and the address as it was typed."""
    error = refused("pi@[::1]:1", ConnectOptions(ssh_config=Path(os.devnull), connect_timeout_s=2))
    assert isinstance(error, UnreachableError)
    assert "pi@[::1]:1" in error.message
