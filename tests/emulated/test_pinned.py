"""Emulated Raspberry Pis as they are: what a probe tells of them, and pinning an account there that deploys."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from agent_client import FakeRelease
from emulated_pi import Pi
from pinning import commit_by_hand, make_key, refused

import edgepack
from edgepack.bundle.signature import sign
from edgepack.device import connect
from edgepack.device.emulated import SYSTEMS
from edgepack.device.emulated.systems import Places

ACCOUNT = "deploy"
INSTALL_ROOT = "/usr/local/lib/edgepack"
# What a device's own programs say of it; the answers stand in one line each.
ASK = (
    "uname -m; dpkg --print-architecture; getconf GNU_LIBC_VERSION; getconf LONG_BIT; nproc; "
    "for name in openssh-server python3-minimal python3-numpy; do dpkg-query -W -f '${Version}\\n' $name; done; "
    "grep MemTotal /proc/meminfo; df -B1 --output=avail ~ | tail -1"
)


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_probe_tells_the_truth(pi: Callable[[str], Pi], name: str) -> None:
    """Architecture, C library, Python, NumPy, memory, disk and SSH are what the device's own programs say they are."""
    device, system = pi(name), SYSTEMS[name]
    machine, dpkg, libc, bits, cores, ssh, python, numpy, memory, free = device.run(ASK).splitlines()
    told = edgepack.probe(**device.where)
    facts = told.facts
    assert (facts["machine"], facts["arch"], dpkg) == (machine, system.platform.arch, system.dpkg_arch)
    assert facts["libc"] == libc.replace(" ", "-").lower() == system.platform.libc
    assert (facts["userland_bits"], facts["cpus"]) == (int(bits), int(cores))
    assert ".".join(facts["python"].split(".")[:2]) == system.platform.python == python.split("-")[0][:4]
    assert facts["executable"].startswith("/usr/bin/python3")
    assert numpy.partition(":")[2].startswith(facts["installed"]["numpy"])
    assert facts["openssh"]["server"].split("_")[1].startswith(ssh.partition(":")[2].split("p")[0])
    assert facts["memory_bytes"] == pytest.approx(1024 * int(memory.split()[1]), rel=0.01)
    assert facts["disk_free_bytes"] == pytest.approx(int(free), rel=0.2)
    assert facts["emulated"] is True
    hers = {name: facts[name] for name in ("instructions", "throttling", "thermal", "power", "model")}
    assert not any(hers.values()), "these would be this machine's"
    assert set(system.like) <= set(told.fits)
    others = {like for other in SYSTEMS.values() if other.platform.arch != system.platform.arch for like in other.like}
    assert others.isdisjoint(told.fits)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Who signs (alice), who would like to (mallory), who deploys; and the file that allows alice."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("alice", "mallory", "deploy"):
        make_key(folder / name)
    (folder / "signers").write_text(f"alice {(folder / 'alice.pub').read_text()}")
    return folder


@contextlib.contextmanager
def deploying_account(device: Pi, keys: Path) -> Iterator[dict[str, Any]]:
    """A new account there, pinned by pi, who is not root but owns the folder of what pins; what reaches it by its key.

    Account and folder are made from outside, as the one does who sets the device up, and go again.
    """
    system = SYSTEMS[device.name]
    root = Places.of(system).root
    home, library = root / "home" / ACCOUNT, root / INSTALL_ROOT.lstrip("/")
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "QEMU_CPU": system.cpu}

    def inside(*command: str, check: bool = True) -> None:
        subprocess.run(["chroot", str(root), *command], env=environment, capture_output=True, check=check)

    def clear() -> None:
        inside("userdel", ACCOUNT, check=False)  # it is there only where a run before was killed
        subprocess.run(["rm", "-rf", str(home), str(library)], check=True)

    clear()
    try:
        inside("useradd", "--create-home", "--shell", "/bin/sh", "--password", "*", ACCOUNT)
        library.mkdir()
        owner = (root / "home" / "pi").stat()
        os.chown(library, owner.st_uid, owner.st_gid)
        document = edgepack.trust(
            allowed_signers=keys / "signers", account=ACCOUNT, key=keys / "deploy.pub", install_root=INSTALL_ROOT,
            **device.where,
        )  # fmt: skip
        allowed = home / ".ssh" / "authorized_keys"
        allowed.parent.mkdir(mode=0o700)
        allowed.write_text(document.authorized_keys + "\n")
        for path in (allowed.parent, allowed):
            os.chown(path, home.stat().st_uid, home.stat().st_gid)
        options = replace(device.where["options"], identity=keys / "deploy")
        yield {"device": f"{ACCOUNT}@{device.name}", "options": options}
    finally:
        clear()


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_a_pinned_account_takes_what_is_signed_and_newer(pi: Callable[[str], Pi], keys: Path, name: str) -> None:
    """Signed is taken; unsigned, foreign and replayed are refused by the device, and the key gets no shell there."""
    newest, older = FakeRelease(extra={"counter": 2}), FakeRelease(version="0.9", extra={"counter": 1})

    def signed(release: FakeRelease, by: str) -> str:
        return sign(release.manifest, keys / by).decode()

    device = pi(name)
    with deploying_account(device, keys) as where:
        with connect(where["device"], where["options"], lock=True) as session:
            assert session.hello["pinned"]
            refused("unsigned", lambda: commit_by_hand(session, newest))
            refused("foreign-signature", lambda: commit_by_hand(session, newest, signature=signed(newest, "mallory")))
            commit_by_hand(session, newest, signature=signed(newest, "alice"))
            refused("replayed", lambda: commit_by_hand(session, older, signature=signed(older, "alice")))
            status = session.request("status", app="kws").result
        assert (status["counter"], [one["release"] for one in status["releases"]]) == (2, [newest.release])
        words = ["ssh", "-F", str(device.ssh_config), "-i", str(keys / "deploy"), where["device"], "id"]
        shell = subprocess.run(words, input=b"id\n", capture_output=True, check=False, timeout=120)
        assert b"uid=" not in shell.stdout
        assert b"nothing else" in shell.stderr


def test_the_main_job_on_a_pinned_device(pi: Callable[[str], Pi], keys: Path, bundle: Callable[..., Path]) -> None:
    """A signed bundle with its runtime is pushed, checked, activated and followed by a newer one, and by no other."""
    with deploying_account(pi("pi-bookworm64"), keys) as where:
        assert set(SYSTEMS["pi-bookworm64"].like) <= set(edgepack.probe(**where).fits)
        first = edgepack.push(bundle("raspberry-pi-4", "1.0.0", sign=keys / "alice", counter=1), **where)
        checked = edgepack.check(
            budget={"p95_ms": None, "peak_rss_bytes": None}, min_runs=20, min_seconds=0.0, nice=5, **where
        )
        assert checked.verdict == "pass", checked.reasons
        assert edgepack.activate(**where).current == first.release
        refused("unsigned", lambda: edgepack.push(bundle("raspberry-pi-4", "2.0.0"), **where))
        foreign = bundle("raspberry-pi-4", "2.0.1", sign=keys / "mallory", counter=2)
        refused("foreign-signature", lambda: edgepack.push(foreign, **where))
        replayed = bundle("raspberry-pi-4", "2.0.2", sign=keys / "alice", counter=1)
        refused("replayed", lambda: edgepack.push(replayed, **where))
        edgepack.push(bundle("raspberry-pi-4", "2.0.3", sign=keys / "alice", counter=2), **where)
        assert edgepack.activate(unchecked=True, **where).previous == first.release
        assert edgepack.rollback(**where).current == first.release
