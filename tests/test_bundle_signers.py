"""What of a file of allowed signers goes to a pinned device: judged on the host, dates and all."""

from __future__ import annotations

import base64
import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.bundle.signers import pinned_signers
from edgepack.errors import InputError

NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)
BLOB = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)
KEY = f"ssh-ed25519 {base64.b64encode(BLOB).decode()}"


def pinned(*lines: str) -> list[str]:
    """The lines that go to the device, without the key."""
    return [line.replace(KEY, "KEY") for line in pinned_signers("\n".join(lines), NOW).text.splitlines()]


def test_lines_go_without_their_dates_and_comments() -> None:
    """A device's clock may be wrong: what it gets is who may sign, and for which namespace."""
    expected = ["alice@example.com,bob KEY", 'carol namespaces="edgepack,git" KEY', "*@example.com cert-authority KEY"]
    found = pinned(
        "# a comment", "", f"alice@example.com,bob {KEY} alice's laptop",
        f'carol namespaces="edgepack,git",valid-before="20270101" {KEY}',
        f'*@example.com cert-authority,valid-after="202601010000Z" {KEY}',
    )  # fmt: skip
    assert found == expected


def test_a_key_that_is_not_valid_now_stays_away_and_is_told() -> None:
    """Expired, or not valid yet: not pinned, with the line and the reason."""
    dates = {
        "old": 'valid-before="20260531Z"',
        "new": 'valid-after="20260601120001Z"',
        "now": 'valid-before="20270101"',
    }
    found = pinned_signers("\n".join(f"{name} {option} {KEY}" for name, option in dates.items()), NOW)
    assert found.principals == ("now",)
    assert [reason.split(": ")[0] for reason in found.left_out] == ["line 1, old", "line 2, new"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names nobody"),
        (f'old valid-before="20200101" {KEY}', "expired on 20200101"),
        (f"alice no-touch-required {KEY}", "no option of an allowed signer"),
        ("alice ssh-ed25519 AAAA", "not one of the type"),
        ("alice ssh-ed25519 no!base64", "line 1"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "no name and public key"),
        (f'alice valid-before="tomorrow" {KEY}', "no time"),
        (f'alice valid-before="20261350" {KEY}', "line 1"),
        (f"{KEY}", "no name and public key"),
    ],
)
def test_what_cannot_be_pinned_is_refused_by_its_line(text: str, words: str) -> None:
    """No device is left with half of the signers that its owner meant."""
    with pytest.raises(InputError, match="cannot be pinned") as caught:
        pinned_signers(text, NOW)
    assert words in caught.value.message


@given(st.text(max_size=200))
def test_any_text_is_pinned_or_refused(text: str) -> None:
    """No other exception comes out."""
    with pytest.raises(InputError):
        pinned_signers(text, NOW)
