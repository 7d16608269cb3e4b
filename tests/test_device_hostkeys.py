from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.device import ConnectOptions, DeviceAddress
from edgepack.device.hostkeys import (
    Standing,
    add_known_host,
    host_names,
    judge,
    known_types,
    parse_known_hosts,
    read_known_hosts,
)
from edgepack.device.sshconfig import expand, parse_settings, resolve
from edgepack.errors import InputError

KEY, OTHER = b"\0\0\0\x0bssh-ed25519 key", b"\0\0\0\x0bssh-ed25519 other"
NAMES = st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True)


def line(patterns: str, blob: bytes = KEY, marker: str = "", key_type: str = "ssh-ed25519") -> str:
    """One line of a known_hosts file."""
    return f"{marker} {patterns} {key_type} {base64.b64encode(blob).decode()} a comment\n".lstrip()


@pytest.mark.parametrize(
    ("text", "standing"),
    [
        ("", Standing.UNKNOWN),
        (line("board"), Standing.KNOWN),
        (line("other,board"), Standing.KNOWN),
        (line("*.example,b?ard"), Standing.KNOWN),
        (line("BOARD"), Standing.KNOWN),
        (line("*,!board"), Standing.UNKNOWN),
        (line("board", OTHER), Standing.CHANGED),
        (line("board", OTHER, key_type="ecdsa-sha2-nistp256"), Standing.CHANGED),
        (line("board", OTHER) + line("board"), Standing.KNOWN),
        (line("board") + line("*", marker="@revoked"), Standing.REVOKED),
        (line("*", OTHER, marker="@revoked"), Standing.UNKNOWN),
        (line("board", marker="@cert-authority"), Standing.UNKNOWN),
        (line("board", marker="@unheard-of"), Standing.UNKNOWN),
        ("board ssh-ed25519 not*base64\n", Standing.UNKNOWN),
        ("# " + line("board"), Standing.UNKNOWN),
    ],
)
def test_each_line_means_what_sshd_8_says(text: str, standing: Standing) -> None:
    """A known_hosts file lets in exactly whom its lines name, as in OpenSSH."""
    assert judge(parse_known_hosts(text), ["board"], KEY).standing is standing


def test_another_port_is_another_host() -> None:
    """A key that is known on port 22 confirms the same key on another port, but a different one there is no change."""
    names = host_names("board", 2222)
    assert judge(parse_known_hosts(line("board")), names, KEY).standing is Standing.KNOWN
    assert judge(parse_known_hosts(line("board", OTHER)), names, KEY).standing is Standing.UNKNOWN
    assert judge(parse_known_hosts(line("[board]:2222", OTHER)), names, KEY).standing is Standing.CHANGED
    assert host_names("board", 22) == ("board",)
    assert host_names("board", 2222, "alias") == ("alias",)


def test_brackets_are_no_pattern() -> None:
    """The brackets around a host with a port stand for themselves."""
    assert judge(parse_known_hosts(line("[board]:2222")), ["b"], KEY).standing is Standing.UNKNOWN


def test_an_authority_is_noticed() -> None:
    """A host that an authority may vouch for is told apart from a stranger."""
    judgement = judge(parse_known_hosts(line("*", marker="@cert-authority")), ["board"], KEY)
    assert judgement.has_authority
    assert judgement.standing is Standing.UNKNOWN


@given(NAMES, st.binary(min_size=1, max_size=60), st.booleans(), st.integers(1, 65535))
def test_what_is_added_is_known(
    tmp_path_factory: pytest.TempPathFactory, host: str, blob: bytes, hashed: bool, port: int
) -> None:
    """A key that was accepted once is known from then on, hashed or not, and no other is."""
    file = tmp_path_factory.mktemp("known") / "ssh" / "known_hosts"
    names = host_names(host, port)
    add_known_host(file, names[0], "ssh-ed25519", blob, hashed=hashed)
    lines = read_known_hosts([file, file.with_name("missing")])
    assert judge(lines, names, blob).standing is Standing.KNOWN
    assert judge(lines, names, blob + b"x").standing is Standing.CHANGED
    assert known_types(lines, names) == ("ssh-ed25519",)
    assert (host in file.read_text()) is not hashed or len(host) < 4
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_last_line_without_an_end_is_not_joined(tmp_path: Path) -> None:
    """A file that an editor left without a final newline keeps its last host."""
    file = tmp_path / "known_hosts"
    file.write_text(line("first").rstrip("\n"))
    add_known_host(file, "second", "ssh-ed25519", OTHER, hashed=False)
    lines = read_known_hosts([file])
    assert judge(lines, ["first"], KEY).standing is Standing.KNOWN
    assert judge(lines, ["second"], OTHER).standing is Standing.KNOWN


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    """Whatever stands in the file, reading it never fails."""
    judge(parse_known_hosts(text), ["board"], KEY)


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A known_hosts file that cannot be written ends with exit code 2 and its name."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="known_hosts"):
        add_known_host(tmp_path / "file" / "known_hosts", "board", "ssh-ed25519", KEY, hashed=False)


def test_settings_of_ssh_are_taken_over() -> None:
    """What ``ssh -G`` says is what edgepack does: user, port, keys, alias, jumps, tokens."""
    place = parse_settings(
        "user pi\nhostname 10.0.0.7\nport 2222\nidentityfile ~/.ssh/%h\nidentityfile /k/my key\nidentitiesonly yes\n"
        "userknownhostsfile /a/known /b/known\nglobalknownhostsfile none\nhostkeyalias pi4\nproxyjump a,b@c:22\n"
        "proxycommand nc %h %p %% %z\nhashknownhosts yes\nidentityagent none\n",
        DeviceAddress("ssh", "board"),
    )
    assert (place.host, place.port, place.user) == ("10.0.0.7", 2222, "pi")
    # ssh takes the home folder from the user database, whatever HOME says.
    assert place.identity_files[0].is_absolute()
    assert place.identity_files[0].parts[-2:] == (".ssh", "10.0.0.7")
    assert place.identity_files[1] == Path("/k/my key")
    assert place.known_hosts == (Path("/a/known"), Path("/b/known"))
    assert place.proxy_jump == ("a", "b@c:22")
    assert place.proxy_command == "nc 10.0.0.7 2222 % %z"
    assert (place.host_key_alias, place.identities_only, place.hash_known_hosts) == ("pi4", True, True)
    assert place.identity_agent == "none"


def test_without_ssh_the_defaults_hold() -> None:
    """Without an ssh program, OpenSSH's own defaults are used."""
    place = parse_settings("", DeviceAddress("ssh", "board", "pi", 2200))
    assert (place.host, place.port, place.user) == ("board", 2200, "pi")
    assert place.identity_files[-1].name == "id_ed25519"
    assert place.user_known_hosts[0].name == "known_hosts"


@given(st.text(), st.dictionaries(st.sampled_from("hprdn%"), st.text()))
def test_expanding_ends(text: str, tokens: dict[str, str]) -> None:
    """Tokens are replaced once; what is put in is not expanded again."""
    assert expand(text.replace("%", ""), tokens) == text.replace("%", "")
    assert expand("%h", {"h": text}) == text


def test_options_win_over_the_configuration(tmp_path: Path) -> None:
    """-i and --known-hosts count before everything that the configuration says."""
    key, config = tmp_path / "key", tmp_path / "config"
    key.write_text("")
    config.write_text("Host board\n User pi\n IdentityFile /other\n UserKnownHostsFile /known\n")
    options = ConnectOptions(ssh_config=config, identity=key, known_hosts=tmp_path / "mine")
    place = resolve(DeviceAddress.parse("me@board:2200"), options)
    assert (place.user, place.port) == ("me", 2200)
    assert place.identity_files == (key, Path("/other"))
    assert place.known_hosts == (tmp_path / "mine",)
