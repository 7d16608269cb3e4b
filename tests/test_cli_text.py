"""What commands print for people: short, with units, nothing that is normal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.cli import render_device
from edgepack.cli.tables import table
from edgepack.documents import CheckDocument, LatencyMs, StatusDocument


def checked(conditions: dict[str, Any]) -> str:
    """The line on conditions of a check that was made under them."""
    latency = LatencyMs(None, None, None, None, None, None, 0)
    document = CheckDocument(
        verdict="pass", reasons=(), app="kws", release="1-0", latency_ms=latency, load_ms=None, peak_rss_bytes=None,
        model_bytes=1, accuracy=None, parity=None, device={}, runtime={}, conditions=conditions, budget={}, seconds=1.0,
    )  # fmt: skip
    lines = render_device.checked(document).splitlines()
    return next(line for line in lines if line.startswith("conditions")).split("  ")[-1]


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        ({"load1": 4.07, "memory_available_bytes": 23828123648, "emulated": False}, "load 4.1, 23.8 GB free"),
        (
            {"throttled": False, "throttled_before": 0, "throttled_after": 0, "temperature_c": 51.5, "load1": 0.0},
            "not throttled, 52 °C, load 0.0",
        ),
        ({"throttled": True, "governor": "powersave", "emulated": True}, "throttled, governor powersave, emulated"),
        ({"throttled": None, "emulated": False}, "none could be read"),
    ],
)
def test_conditions_are_told_for_people(conditions: dict[str, Any], told: str) -> None:
    """Units and short numbers; what is normal, or could not be read, is left out."""
    assert checked(conditions).strip() == told


def test_a_check_that_could_not_tell_stands_beside_the_pass() -> None:
    """`status` shows both words of an active release that was checked again without a result."""
    releases = ({"release": "1-0", "bytes": 1, "verdict": "pass", "rechecked": "inconclusive"},)
    assert "pass, later inconclusive" in render_device.status(StatusDocument("kws", "1-0", None, None, releases, None))


WORDS = st.lists(st.text("abc-/.", min_size=1, max_size=30), min_size=1, max_size=30).map(" ".join)


@given(
    rows=st.lists(st.tuples(st.sampled_from(["note", "worst layer"]), WORDS), min_size=1), width=st.integers(40, 120)
)
def test_a_wrapped_table_keeps_every_word_and_the_width(rows: list[tuple[str, str]], width: int) -> None:
    """No line is longer than the terminal unless a single word is, no word is cut or lost, the columns stand."""
    before = max(len(name) for name, _ in rows) + 2
    lines = table(rows, width=width).splitlines()
    assert " ".join(line[before:] for line in lines).split() == " ".join(text for _, text in rows).split()
    assert [line[:before].strip() for line in lines if line[:before].strip()] == [name for name, _ in rows]
    assert all(len(line) <= width or " " not in line[before:] for line in lines)


def test_long_lines_keep_to_the_terminal_and_stay_whole_in_a_pipe() -> None:
    """A person's 60 columns are not overrun by a sentence; what is searched or logged has one line for each thing."""
    command = [sys.executable, "-m", "edgepack", "targets", "show", "ethos-u65"]
    piped = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert max(map(len, piped)) > 100
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=theirs, env={**os.environ, "COLUMNS": "60"}) as process:
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 1 << 16):
                said += part
        except OSError:  # Linux's way to say that the other end is closed
            pass
        assert process.wait() == 0
    os.close(ours)
    shown = said.decode().splitlines()
    assert max(map(len, shown)) <= 60
    assert " ".join(" ".join(shown).split()) == " ".join(" ".join(piped).split())
