"""Emulated devices, as far as no root, no debootstrap and no minutes are needed; the whole is in tests/emulated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.cli.complete import system_names
from edgepack.cli.main import run
from edgepack.device import ConnectOptions, DeviceAddress
from edgepack.device.emulated import SYSTEMS, list_devices, needs, start
from edgepack.device.emulated.access import give_to_sudoer, ssh_config
from edgepack.device.emulated.aptsources import choose_mirror, mirror_for, parse_deb822, parse_list, read_sources
from edgepack.device.emulated.making import _Progress, failed, mounted_below, remove_tree
from edgepack.device.emulated.running import Process, is_alive
from edgepack.device.emulated.systems import Places
from edgepack.device.sshconfig import resolve
from edgepack.errors import EdgepackError, InputError
from edgepack.events import Event
from edgepack.target import load_target

PI = SYSTEMS["pi-bookworm64"]

ONE_LINE = """\
# a comment
deb [arch=amd64 signed-by=/usr/share/keyrings/docker.gpg] https://download.docker.com/linux/debian bookworm stable
deb http://packages.microsoft.com/debian/12/prod bookworm main
deb-src http://mirror.example.org/debian bookworm main
deb cdrom:[Debian GNU/Linux 12]/ bookworm main
deb http://mirror.example.org/debian/ bookworm main contrib   # the site's own
deb http://mirror.example.org/debian/ bookworm-updates main
deb http://mirror.example.org/security bookworm-security main
"""
DEB822 = """\
Types: deb
URIs: https://packages.sury.org/php
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQGNBF

Enabled: no
Types: deb
URIs: http://switched-off.example.org/debian
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

# the archive
Types: deb deb-src
URIs: http://one.example.org/debian
  http://two.example.org/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


@pytest.mark.parametrize(
    ("sources", "suite", "mirror"),
    [
        (parse_list(ONE_LINE), "bookworm", "http://mirror.example.org/debian"),
        (parse_list(ONE_LINE), "trixie", "http://mirror.example.org/debian"),
        (parse_deb822(DEB822), "bookworm", "http://one.example.org/debian"),
        ([*parse_list(ONE_LINE), *parse_deb822(DEB822)], "trixie", "http://one.example.org/debian"),
        (parse_list("deb http://near.debian.org/debian stable main"), "bookworm", "http://near.debian.org/debian"),
        (parse_list("deb http://mirror.example/ubuntu noble main universe"), "bookworm", None),
        (parse_list("deb http://archive.raspberrypi.com/debian/ bookworm main"), "bookworm", None),
        (parse_list("deb http://[broken/debian bookworm main"), "bookworm", None),
        ([], "bookworm", None),
    ],
)
def test_the_mirror_is_that_of_the_debian_archive(sources: list[object], suite: str, mirror: str | None) -> None:
    """Of everything that apt reads here, the archive itself is taken: no third party's packages, no disabled line."""
    assert choose_mirror(sources, suite) == mirror  # type: ignore[arg-type]


def test_both_kinds_of_apt_s_files_are_read(tmp_path: Path) -> None:
    """sources.list, *.list and *.sources count, and nothing else that lies there."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.example.org/debian bookworm main\n")
    (tmp_path / "sources.list.d" / "b.list").write_text("deb http://b.example.org/debian bookworm main\n")
    (tmp_path / "sources.list.d" / "c.sources").write_text(DEB822)
    (tmp_path / "sources.list.d" / "d.list.save").write_text("deb http://d.example.org/debian bookworm main\n")
    hosts = [uri.split("/")[2] for source in read_sources(tmp_path) for uri in source.uris]
    assert hosts == [
        "a.example.org", "b.example.org", "packages.sury.org", "one.example.org", "two.example.org",
    ]  # fmt: skip
    assert read_sources(tmp_path / "nowhere") == []


@given(st.text(alphabet="deb :/[]=#\n\tTypesURISuitesComponents.http-main", max_size=200))
def test_no_source_that_a_person_typed_is_too_odd(text: str) -> None:
    """Whatever stands in apt's files, reading them ends with a mirror or without one."""
    assert choose_mirror([*parse_list(text), *parse_deb822(text)], "bookworm") is None or "http" in text


def test_a_mirror_that_is_none_is_refused() -> None:
    """--mirror takes an address, and one with a slash at its end as well."""
    assert mirror_for("bookworm", "http://mirror.example.org/debian/") == "http://mirror.example.org/debian"
    with pytest.raises(InputError, match="no address of a Debian mirror") as caught:
        mirror_for("bookworm", "mirror.example.org")
    assert caught.value.code == "bad-mirror"


def test_every_system_is_one_of_the_profiles_that_it_stands_for() -> None:
    """A bundle for one of these profiles has a runtime for the emulated device's Python, processor and C library."""
    for system in SYSTEMS.values():
        for name in system.like:
            assert system.platform in load_target(name).platforms


def test_another_system_and_another_user_are_told_why_not() -> None:
    """Linux and root are needed, and the message says for what."""
    with pytest.raises(InputError, match="run on Linux; this is darwin") as caught:
        needs.require_linux_root("darwin", 0)
    assert caught.value.code == "not-linux"
    with pytest.raises(InputError, match="need root: they are made with debootstrap") as caught:
        needs.require_linux_root("linux", 1000)
    assert (caught.value.code, caught.value.exit_code) == ("not-root", 2)
    needs.require_linux_root("linux", 0)


@pytest.mark.parametrize(
    ("gone", "keys", "registered", "packages"),
    [
        ((), True, False, []),
        (("debootstrap",), True, True, ["debootstrap"]),
        (("qemu-aarch64-static", "update-binfmts"), True, False, ["binfmt-support", "qemu-user-static"]),
        (("qemu-aarch64-static", "update-binfmts"), True, True, []),
        ((), False, True, ["debian-archive-keyring"]),
        (("ssh-keygen", "debootstrap"), False, True, ["debian-archive-keyring", "debootstrap", "openssh-client"]),
    ],
)
def test_the_packages_that_are_missing_are_named(
    gone: tuple[str, ...], keys: bool, registered: bool, packages: list[str]
) -> None:
    """All of them at once, and none that this kernel does not need."""
    found = needs.missing_packages(
        PI,
        make=True,
        which=lambda program: None if program in gone else f"/usr/bin/{program}",
        exists=lambda path: keys,
        registered=registered,
    )
    assert found == packages


def test_running_needs_less_than_making() -> None:
    """A device that is made already starts on a machine without debootstrap."""
    lacking = {"debootstrap", "setpriv"}
    find = lambda program: None if program in lacking else program  # noqa: E731 - a table of one line
    assert needs.missing_packages(PI, make=False, which=find, exists=lambda path: False, registered=True) == []


def test_a_64_bit_arm_runs_its_own_programs() -> None:
    """On such a machine no QEMU is asked for, but for the 32-bit system."""
    assert not needs.needs_qemu(PI, "aarch64")
    assert needs.needs_qemu(SYSTEMS["pi-bookworm32"], "aarch64")
    assert needs.needs_qemu(PI, "x86_64")


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is needed and what is free stand in the message."""
    monkeypatch.setattr(needs, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(InputError, match=r"needs .* are free") as caught:
        needs.require_disk(tmp_path / "not" / "there")
    assert caught.value.code == "disk-too-small"


@pytest.mark.parametrize(
    ("tail", "code", "words"),
    [
        (["I: Retrieving InRelease", "E: Failed getting release file http://x/Release"], "mirror", "--mirror"),
        (["E: Invalid Release file, no entry for main/binary-armhf/Packages"], "mirror", "armhf|arm64"),
        (["E: Couldn't download packages: libc6"], "mirror", "libc6"),
        (["W: Failure while configuring base packages."], "debootstrap", "configuring base packages"),
        ([], "debootstrap", "its log|Its log"),
    ],
)
def test_debootstrap_s_last_words_become_an_error_with_a_way_out(tail: list[str], code: str, words: str) -> None:
    """A mirror that is not there is told from a system that does not build, and the log is named."""
    error = failed(PI, "http://x", tail, Path("/c/pi.log"))
    assert error.code == code
    assert "/c/pi.log" in error.hint
    assert any(word in str(error) for word in words.split("|"))


def test_progress_counts_what_debootstrap_says() -> None:
    """Each phase is said once, each package counted; the rest of its chatter is not shown."""
    told: list[Event] = []
    progress = _Progress(PI, "http://x", told.append)
    for line in (
        "I: Checking Release signature",
        "I: Retrieving libc6 2.36-9+deb12u10",
        "I: Validating libc6 2.36-9+deb12u10",
        "I: Retrieving dash 0.5.12-2",
        "I: Unpacking required packages...",
        "I: Unpacking dash...",
        "I: Base system installed successfully.",
    ):
        progress.said(line)
    assert [(event.message.split(": ")[1], event.done) for event in told] == [
        ("retrieving packages from http://x", None), ("retrieving packages", 1), ("retrieving packages", 2),
        ("unpacking packages", None), ("unpacking packages", 1),
    ]  # fmt: skip


def test_the_configuration_is_read_by_ssh_itself_from_a_folder_with_blanks(tmp_path: Path) -> None:
    """Key, pinned host key, port and user come out as they are, by the device's name and by its address."""
    places = Places(tmp_path / "a folder, 100 % odd" / PI.name)
    places.folder.mkdir(parents=True)
    places.known_hosts.write_text("")
    places.ssh_config.write_text(ssh_config(PI, places, 40022))
    for address in (PI.name, "pi@127.0.0.1"):
        found = resolve(DeviceAddress.parse(address), ConnectOptions(ssh_config=places.ssh_config))
        assert (found.host, found.port, found.user) == ("127.0.0.1", 40022, "pi")
        assert found.identity_files == (places.key,)
        assert found.user_known_hosts == (places.known_hosts,)
        assert found.identities_only


def test_a_process_is_known_by_when_it_started() -> None:
    """Another process that got the same number, or the same one of another boot, is never taken for the device."""
    pid = os.getpid()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert is_alive(Process(pid, int(fields[19]), boot, 22))
    assert not is_alive(Process(pid, int(fields[19]) + 1, boot, 22))
    assert not is_alive(Process(pid, int(fields[19]), "another boot", 22))


def test_a_dead_process_is_not_alive_while_nobody_has_buried_it() -> None:
    """A zombie runs no device."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        process = Process(child.pid, int(fields[19]), Path("/proc/sys/kernel/random/boot_id").read_text().strip(), 22)
        assert is_alive(process)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(process)


def test_mounts_are_found_by_their_whole_path() -> None:
    """A folder with a blank, one below it, and not one whose name only begins so."""
    line = "36 35 98:0 / {} rw,noatime master:1 - ext4 /dev/root rw\n"
    table = "".join(line.format(place) for place in ("/", "/c/pi\\040one/root/proc", "/c/pi\\040one-more", "/c"))
    assert mounted_below(Path("/c/pi one"), table) == ["/c/pi one/root/proc"]


def test_nothing_is_removed_where_something_is_mounted(tmp_path: Path) -> None:
    """Somebody's files, mounted into a device, are not removed with it; without the mount it goes."""
    folder = tmp_path / "pi"
    (folder / "root" / "mnt").mkdir(parents=True)
    (folder / "root" / "file").write_text("kept")
    line = f"36 35 98:0 / {folder}/root/mnt rw - ext4 /dev/root rw\n"
    with pytest.raises(InputError, match=r"root/mnt is a mount") as caught:
        remove_tree(folder, lambda: line)
    assert f"umount {folder}/root/mnt" in caught.value.hint
    assert (folder / "root" / "file").read_text() == "kept"
    remove_tree(folder, lambda: "")
    assert not folder.exists()
    remove_tree(folder)


def test_a_name_that_is_none_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """start, stop and remove all know the same three names, and change nothing for another."""
    for verb in ("start", "stop", "remove"):
        assert run(["emulate", verb, "pi-bookwrm64"]) == 2
        assert "Did you mean pi-bookworm64?" in capsys.readouterr().err
    with pytest.raises(EdgepackError, match="no emulated device"):
        start("")


def test_what_is_not_there_is_listed_stopped_and_removed_without_root(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An empty cache holds no device: `list` says so, `stop` and `remove` have nothing to do."""
    assert [device.state for device in list_devices().devices] == ["absent"] * len(SYSTEMS)
    assert run(["emulate", "stop", PI.name]) == 0
    assert "does not run; nothing to do" in capsys.readouterr().out
    assert run(["emulate", "remove", PI.name]) == 0
    assert "is not there; nothing to do" in capsys.readouterr().out
    assert run(["emulate", "list"]) == 0
    assert "Debian bookworm, armv7l, Python 3.11, glibc-2.36" in capsys.readouterr().out


def test_a_half_made_device_is_never_taken_for_a_whole_one() -> None:
    """What a kill left is told as half made, and removed with its packages."""
    from edgepack.device.emulated import remove

    places = Places.of(PI)
    (places.making / "root" / "etc").mkdir(parents=True)
    places.packages.mkdir()
    assert list_devices().devices[0].state == "half-made"
    if os.geteuid() == 0:
        assert remove(PI.name).changed
        assert list_devices().devices[0].state == "absent"


def test_the_shell_completes_the_names() -> None:
    """TAB after `emulate start pi-b` offers the two with bookworm."""
    assert system_names("pi-b") == ["pi-bookworm64", "pi-bookworm32"]


def test_a_dry_run_prints_the_commands_and_makes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """`start --dry-run` shows the debootstrap and the sshd that it would run, and leaves the cache empty."""
    if os.geteuid() != 0 or needs.missing_packages(PI, make=True):
        pytest.skip("only root makes emulated devices, with debootstrap")
    assert run(["emulate", "start", PI.name, "--mirror", "http://mirror.example.org/debian/", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "debootstrap --arch=arm64" in told
    assert "bookworm" in told
    assert told.count("http://mirror.example.org/debian") == 1
    assert "/usr/sbin/sshd" in told
    assert (
        run(["emulate", "start", PI.name, "--mirror", "http://mirror.example.org/debian/", "--dry-run", "--json"]) == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert (document["made"], document["dry_run"]) == (False, True)
    assert not Places.of(PI).folder.parent.exists()


def test_only_a_sudoer_is_given_files(tmp_path: Path) -> None:
    """Without sudo, and with a SUDO_UID that is no number, files stay whose they are."""
    path = tmp_path / "key"
    path.write_text("")
    owner = path.stat().st_uid
    give_to_sudoer([path], {})
    give_to_sudoer([path], {"SUDO_UID": "pi", "SUDO_GID": "pi"})
    assert path.stat().st_uid == owner
