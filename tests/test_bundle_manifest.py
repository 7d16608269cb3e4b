"""manifest.json: parsed strictly, written canonically."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bundle_tiny import FILES, digest, entry, manifest_value
from hypothesis import given
from hypothesis import strategies as st

from edgepack.bundle.manifest import check_label, parse, release_id, runtime_id, safe_path, serialize
from edgepack.documents import canonical_json
from edgepack.errors import EdgepackError, InputError, IntegrityError, MisfitError

RECORDS = {"wheels/a-1-py3-none-any.whl": "0" * 64}
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def test_parsing_and_writing_are_inverse() -> None:
    """A manifest is written again byte for byte, fields that this edgepack does not know included."""
    content = canonical_json(
        manifest_value(FILES, future={"a": [1]}, counter=7, provenance={"tf": "2.21"}, records=RECORDS)
    )
    manifest = parse(content)
    assert serialize(manifest) == content
    assert (manifest.extra, manifest.records) == ({"future": {"a": [1]}}, RECORDS)
    assert (manifest.counter, manifest.platforms[0].platform.arch) == (7, "aarch64")


@pytest.mark.parametrize("key", sorted(manifest_value(FILES)))
@pytest.mark.parametrize("value", [None, 3, "x", [], {}, [[]], [3], {"a": 1}, -1, True])
def test_a_field_of_the_wrong_kind_is_refused(key: str, value: object) -> None:
    """Each field of a manifest is what it has to be, or the bundle is refused."""
    changed = manifest_value(FILES, **{key: value})
    legal = {
        "provenance": value is None or isinstance(value, dict),
        "target": isinstance(value, dict),
        "counter": value is None or (value == 3 and not isinstance(value, bool)),
        "platforms": value == [],
        "name": value == "x",
        "version": value == "x",
    }
    if legal.get(key):
        return
    with pytest.raises(MisfitError if key == "schema" and value == 3 else IntegrityError):
        parse(canonical_json(changed))


@pytest.mark.parametrize("key", sorted(manifest_value(FILES)))
def test_a_missing_field_is_refused(key: str) -> None:
    """A manifest without one of its fields is damaged."""
    value = manifest_value(FILES)
    del value[key]
    with pytest.raises(IntegrityError):
        parse(canonical_json(value))


@given(st.sampled_from(sorted(manifest_value(FILES))), json_values)
def test_no_value_makes_the_parser_crash(key: str, value: Any) -> None:
    """Whatever a field holds, the parser answers with a manifest or one of edgepack's own errors."""
    try:
        content = canonical_json(manifest_value(FILES, **{key: value}))
    except UnicodeEncodeError:
        return  # lone surrogates cannot be written at all
    try:
        manifest = parse(content)
    except EdgepackError:
        return
    assert serialize(manifest) == content


@given(st.binary(max_size=60))
def test_no_bytes_make_the_parser_crash(content: bytes) -> None:
    """Arbitrary bytes are a damaged manifest."""
    with pytest.raises(IntegrityError):
        parse(content)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(manifest_value(FILES)).encode(),
        canonical_json(manifest_value(FILES)).replace(b'"app"', b'"app","name":"app"'),
        canonical_json(manifest_value(FILES)) + b" ",
        b"[" * 100_000,
        b'{"schema":NaN}',
        b'{"schema":1e999}',
        b'{"a":"\\ud800"}',
    ],
    ids=["spaced", "duplicate key", "trailing", "deep", "nan", "infinite", "surrogate"],
)
def test_only_the_canonical_form_is_accepted(content: bytes) -> None:
    """One content has one byte string, so that a digest and later a signature mean one thing."""
    with pytest.raises(IntegrityError):
        parse(content)


def test_references_have_to_hold() -> None:
    """A manifest whose wheels, runtime id or model do not match its files is refused."""
    good = manifest_value(FILES)
    runtime = good["platforms"][0]["runtime"]
    platform = good["platforms"][0]
    for changed in (
        {"platforms": [{**platform, "runtime": {**runtime, "wheels": ["wheels/b.whl"]}}]},
        {"platforms": [{**platform, "runtime": {**runtime, "id": "0" * 16}}]},
        {"platforms": [{**platform, "runtime": {**runtime, "wheels": ["loader.py"]}}]},
        {"model": {**good["model"], "sha256": digest(b"other")}},
        {"model": {**good["model"], "file": "loader.py"}},
        {"records": {}},
        {"records": {"loader.py": "0" * 64}},
        {"records": {"wheels/a-1-py3-none-any.whl": "0"}},
        {"records": {"wheels/a-1-py3-none-any.whl": 0}},
        {"records": None},
        {"files": list(reversed(good["files"]))},
        {"files": [*good["files"], good["files"][-1]]},
        {"files": [entry("manifest.json", b""), *good["files"][1:]]},
        {"name": "../evil"},
        {"version": "a/b"},
    ):
        with pytest.raises(IntegrityError):
            parse(canonical_json({**good, **changed}))


def test_a_newer_schema_asks_for_an_update() -> None:
    """A bundle of a later edgepack is refused with the command that updates this one."""
    with pytest.raises(MisfitError) as caught:
        parse(canonical_json(manifest_value(FILES, schema=2)))
    assert "pip install --upgrade" in caught.value.hint


def test_the_release_id_stands_for_the_content() -> None:
    """The id is the version and the manifest's digest: another byte, another id."""
    content = canonical_json(manifest_value(FILES))
    assert release_id(content, "1.0.0") == f"1.0.0-{digest(content)[:12]}"
    assert release_id(content + b" ", "1.0.0") != release_id(content, "1.0.0")


def test_a_runtime_id_depends_on_names_and_digests_alone() -> None:
    """The same wheels have the same id in every bundle, so that a device keeps them once."""
    assert runtime_id({"b.whl": "1", "a.whl": "2"}) == runtime_id({"a.whl": "2", "b.whl": "1"})
    assert runtime_id({"a.whl": "1"}) != runtime_id({"a.whl": "2"})
    assert runtime_id({}) is None
    assert runtime_id({"a.whl": "2", "b.whl": "1"}) == digest(b"a.whl 2\nb.whl 1\n")[:16]


@pytest.mark.parametrize("label", ["", "-x", ".x", "a/b", "a b", "ä", "x" * 65, "a\n"])
def test_a_name_that_cannot_be_a_folder_is_refused(label: str) -> None:
    """An app's name and version go into paths on the device, so they are held to a plain alphabet."""
    with pytest.raises(InputError) as caught:
        check_label(label, "name")
    assert caught.value.code == "bad-name"


@given(st.text(alphabet="ab/._-\\\0 ä", max_size=12))
def test_a_safe_path_stays_inside(path: str) -> None:
    """What counts as a safe path has only plain names between its slashes."""
    if safe_path(path):
        assert all(part and part not in (".", "..") and not part.startswith(".") for part in path.split("/"))
        assert not set(path) & set("\\\0 ä")
