"""The strict reader of what people write."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.errors import InputError
from edgepack.strict_toml import (
    Flag,
    Number,
    Table,
    TableList,
    TableOf,
    Text,
    TextList,
    find_faults,
    nearest,
    refuse_faults,
)

SCHEMA = Table(
    {
        "name": Text(pattern=r"[a-z]+", form="lower-case letters"),
        "kind": Text(("one", "two")),
        "count": Number(1, 10, integer=True),
        "share": Number(0, 1),
        "on": Flag(),
        "argv": TextList(minimum=1),
        "item": TableList(Table({"id": Number(0)}, required=("id",))),
        "group": TableOf(Table({"size": Number(0)}), key=Text(pattern=r"[a-z]+", form="lower-case letters")),
    },
    required=("name",),
)

toml_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('name = "a"\nshere = 0.5', "shere: unknown key (did you mean share?)"),
        ('name = "a"\nzzz = 1', "zzz: unknown key (known here: name, kind"),
        ('name = "A"', "name: must be lower-case letters, not 'A'"),
        ('name = "a"\nkind = "tow"', "kind: must be one of one, two, not 'tow', did you mean two?"),
        ('name = "a"\ncount = 11', "count: must be at least 1 and at most 10, not 11"),
        ('name = "a"\ncount = true', "count: must be an integer, not true"),
        ('name = "a"\ncount = 1.0', "count: must be an integer, not 1.0"),
        ('name = "a"\nshare = nan', "share: must be at least 0 and at most 1, not nan"),
        ('name = "a"\non = 1', "on: must be true or false, not 1"),
        ('name = "a"\nargv = "ls -l"', "argv: must be an array of strings, not 'ls -l'"),
        ('name = "a"\nargv = []', "argv: needs at least 1 strings"),
        ('name = "a"\n[[item]]\n[[item]]\nid = 1', "item[0].id: missing"),
        ('name = "a"\nitem = 3', "item: must be an array of tables ([[item]]), not 3"),
        ('name = "a"\n[group.B]\nsize = 1', "group.B: the name must be lower-case letters, not 'B'"),
        ('name = "a"\nwhen = 2020-01-01\nkind = 2020-01-01', "kind: must be a string, not a date or time"),
        ("", "name: missing"),
    ],
)
def test_a_fault_names_the_key_and_says_what_would_do(text: str, fault: str) -> None:
    """Each kind of fault names its key, what was written, and what would be right."""
    assert any(found.startswith(fault) for found in find_faults(tomllib.loads(text), SCHEMA))


def test_a_sound_file_has_no_faults() -> None:
    """What follows the schema passes, integers where fractions are allowed included."""
    text = 'name = "a"\nkind = "two"\ncount = 1\nshare = 1\non = true\nargv = ["a b"]\n'
    text += "[[item]]\nid = 2\n[group.x]\nsize = 1"
    assert find_faults(tomllib.loads(text), SCHEMA) == []


@given(st.dictionaries(st.sampled_from([*SCHEMA.keys, "other"]), toml_values, max_size=5))
def test_any_value_gives_faults_or_passes_but_never_crashes(value: dict[str, Any]) -> None:
    """Whatever a TOML file holds, the reader answers with phrases."""
    faults = find_faults(value, SCHEMA)
    assert all(isinstance(fault, str) and fault for fault in faults)
    assert faults or "name" in value


def test_all_faults_are_raised_once() -> None:
    """One error carries every fault, in words and as data."""
    with pytest.raises(InputError) as caught:
        refuse_faults(["a: missing", "b: missing"], code="bad", subject="x.toml", hint="Mend it.")
    assert caught.value.message == "x.toml has 2 faults: a: missing; b: missing."
    assert caught.value.details["faults"] == ["a: missing", "b: missing"]
    refuse_faults([], code="bad", subject="x.toml", hint="")


def test_nearest_names_come_best_first() -> None:
    """A guess is offered where one is near, and none where nothing is."""
    assert nearest("Raspberry-Pi4", ["raspberry-pi-4", "raspberry-pi-5", "coral-usb"])[0] == "raspberry-pi-4"
    assert nearest("zzzz", ["raspberry-pi-4"]) == ()
