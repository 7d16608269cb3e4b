from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.device import ConnectOptions, DeviceAddress
from edgepack.errors import InputError

NAMES = st.from_regex(r"[a-z0-9_][a-z0-9_.-]{0,20}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("pi@raspberrypi.local", DeviceAddress("ssh", "raspberrypi.local", "pi")),
        ("pi@10.0.0.7:2222", DeviceAddress("ssh", "10.0.0.7", "pi", 2222)),
        ("kiosk-7", DeviceAddress("ssh", "kiosk-7")),
        ("ssh://pi@board:22", DeviceAddress("ssh", "board", "pi", 22)),
        ("ssh://board/", DeviceAddress("ssh", "board")),
        ("root@[fe80::1]:2200", DeviceAddress("ssh", "fe80::1", "root", 2200)),
        ("fe80::1%eth0", DeviceAddress("ssh", "fe80::1%eth0")),
        ("ssh://pi@[fe80::1%25eth0]:22", DeviceAddress("ssh", "fe80::1%eth0", "pi", 22)),
        ("ssh://pi@[fe80::1%eth0]", DeviceAddress("ssh", "fe80::1%eth0", "pi")),
        ("me@work@board", DeviceAddress("ssh", "board", "me@work")),
        ("local:", DeviceAddress("local")),
        ("local:/srv/edge pack", DeviceAddress("local", root="/srv/edge pack")),
        ("local:~/there", DeviceAddress("local", root="~/there")),
    ],
)
def test_what_people_write_is_understood(text: str, address: DeviceAddress) -> None:
    """Every documented way to write a device's address means what the documentation says."""
    assert DeviceAddress.parse(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "", "@host", "user@", "host:", "host:0", "host:65536", "host:-1", "host:2a", "host:٣", "ssh://",
        "-oProxyCommand=x", "-l@h", "u@-h", "a b", "h\n", "h;reboot", "u'@h", "[::1", "[host]:22", "[::1]22",
        "local:relative", "local:-x", "local:/a\nb",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    """A mistyped address ends with exit code 2 and the shapes that are possible, before anything is tried."""
    with pytest.raises(InputError) as caught:
        DeviceAddress.parse(text)
    assert caught.value.code == "bad-address"
    assert "user@host" in caught.value.hint


@given(
    st.builds(DeviceAddress, st.just("ssh"), NAMES, st.none() | NAMES, st.none() | st.integers(1, 65535))
    | st.builds(DeviceAddress, st.just("local"), root=st.none() | NAMES.map(lambda name: f"/{name}"))
)
def test_an_address_survives_being_printed(address: DeviceAddress) -> None:
    """The address in a message can be pasted into the next command."""
    assert DeviceAddress.parse(str(address)) == address


@given(st.text())
def test_any_text_is_an_address_or_a_clear_refusal(text: str) -> None:
    """Whatever is typed, the answer is an address or exit code 2, never a crash."""
    try:
        address = DeviceAddress.parse(text)
    except InputError:
        return
    assert DeviceAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "wrong", [{"transport": "telnet"}, {"connect_timeout_s": 0}, {"root": ""}, {"root": "-rf"}, {"python": "a\nb"}]
)
def test_options_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    """An option that no device could be reached with ends with exit code 2 before anything is tried."""
    with pytest.raises(InputError, match="is no"):
        ConnectOptions(**wrong)  # type: ignore[arg-type]
