"""Records split off a stream, in pieces of any size."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.producers.envelopes.documents import Piece, Splitter


def reader(content: bytes, size: int) -> Any:
    """Return a reader that returns up to ``size`` bytes at a time."""
    at = 0

    def more(limit: int) -> bytes:
        nonlocal at
        piece = content[at : at + min(size, limit)]
        at += len(piece)
        return piece

    return more


def cut(content: bytes, size: int = 1000, limit: int = 10_000) -> tuple[list[Piece], bytes]:
    rejected: list[bytes] = []
    records = Splitter(reader(content, size), limit=limit, reject=rejected.append, is_record=lambda one: "own" in one)
    return list(records), b"".join(rejected)


OBJECTS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none() | st.integers() | st.text(st.sampled_from('"\\{}[],:\n aé'), max_size=12),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@given(st.lists(OBJECTS, max_size=5), st.integers(1, 200), st.booleans(), st.sampled_from([None, 1]), st.booleans())
def test_records_are_complete_whatever_the_sizes_of_the_pieces(
    objects: list[dict[str, Any]], size: int, ascii_only: bool, indent: int | None, bare: bool
) -> None:
    document = objects if bare else {"awsAccountId": "1", "Records": objects}
    content = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()
    limit = 10_000 if bare or indent else min(10_000, len(content) - 1)
    found, rejected = cut(content, size, limit)
    assert [json.loads(each.raw or b"") for each in found] == objects
    assert all(each.listed for each in found)
    assert rejected == b""
    for each in found:
        raw = each.raw or b""
        if indent is None:
            assert each.line == 1
        else:
            assert content.split(b"\n")[each.line - 1].lstrip().startswith(raw.split(b"\n")[0])


SEPARATORS = ["\n", "\n\n", " ", "", ", ", "\r\n", "\x1e", "\n\x1e", ",\n", "\n\ufeff"]


@given(
    st.lists(st.tuples(OBJECTS, st.sampled_from(SEPARATORS), st.sampled_from([None, 2])), max_size=5),
    st.integers(1, 200),
)
def test_objects_are_found_in_any_layout(parts: list[tuple[dict[str, Any], str, int | None]], size: int) -> None:
    texts = [(json.dumps(one, indent=indent), separator) for one, separator, indent in parts]
    found, rejected = cut("".join(text + separator for text, separator in texts).encode(), size)
    assert [each.raw for each in found if each.raw] == [text.encode() for text, _ in texts]
    assert (rejected, any(each.problem for each in found)) == (b"", False)


@given(st.lists(OBJECTS, min_size=1, max_size=4), st.integers(1, 100), st.integers(0, 30))
def test_a_record_that_is_too_long_hides_no_other(objects: list[dict[str, Any]], size: int, limit: int) -> None:
    texts = [json.dumps(each).encode() for each in objects]
    for content in (b'{"Records":[' + b",".join(texts) + b"]}", b"\n".join(texts), b"[" + b",".join(texts) + b"]"):
        found, rejected = cut(content, size, limit)
        if content[:1] == b"{" and len(content) <= limit:
            continue
        assert [each.raw for each in found] == [text if len(text) <= limit else None for text in texts]
        assert rejected == b"".join(text + b"\n" for text in texts if len(text) > limit)


@given(st.lists(OBJECTS, max_size=3), st.integers(1, 50), st.data())
def test_a_truncated_list_is_reported(objects: list[dict[str, Any]], size: int, data: st.DataObject) -> None:
    content = json.dumps({"Records": objects}).encode()
    length = data.draw(st.integers(len(b'{"Records": ['), len(content) - 1))
    found, _ = cut(content[:length], size)
    whole = [each for each in found if not each.problem]
    assert [json.loads(each.raw or b"") for each in whole] == objects[: len(whole)]
    assert [bool(each.problem) for each in found[len(whole) :]] == [True]


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    "damaged",
    [b'{"a": "b', b'{"a": "b",', b'{"a": {', b'{"a": [1,', b'{"a": [1', b'{"a": 1', b"{", b'{"a":'],
)
def test_a_damaged_line_hides_no_other(damaged: bytes, size: int) -> None:
    found, rejected = cut(b'{"x": 1}\n' + damaged + b'\n{"y": 2}\n{\n "z": 3\n}\n', size)
    assert [(each.line, each.raw) for each in found] == [
        (1, b'{"x": 1}'),
        (2, damaged),
        (3, b'{"y": 2}'),
        (4, b'{\n "z": 3\n}'),
    ]
    assert rejected == b""


@given(st.binary(max_size=60) | st.text(st.sampled_from('{}[]",:\\ \nRecords'), max_size=60).map(str.encode))
def test_any_bytes_are_read_or_reported_as_damaged(content: bytes) -> None:
    for whole in (content, b'{"Records":[' + content, b"[{" + content, b"__CURSOR=1\n" + content):
        found, rejected = cut(whole, 7)
        assert not any(each.problem for each in found[:-1])
        assert len(rejected) <= len(whole) + 1


@given(st.integers(1, 200))
def test_a_second_list_of_the_same_name_is_refused_and_not_lost(size: int) -> None:
    content = b'{"Records": [{"a": 1}], "Records": [{"a": 2}]}'
    found, rejected = cut(content, size)
    assert found[0].raw == b'{"a": 1}'
    assert found[1].raw is None and found[1].problem.startswith("has two members of the same name: 'Records'")
    assert b'{"a": 2}' in rejected


@pytest.mark.parametrize(("name", "first", "split"), [
    ("Records", {}, True), ("items", {"own": 1}, True), ("items", {}, False), ("other", {"own": 1}, False),
])  # fmt: skip
def test_a_common_name_is_a_list_of_records_only_if_it_holds_one(name: str, first: dict[str, Any], split: bool) -> None:
    content = json.dumps({"kind": "x", name: [first, {"b": 1}], "z": {}}, indent=1).encode()
    assert len(cut(content)[0]) == (2 if split else 1)


def test_a_long_line_is_never_in_memory() -> None:
    rejected = 0

    def reject(piece: bytes) -> None:
        nonlocal rejected
        rejected += len(piece)
        assert len(piece) < 300_000

    for begin in (b"x", b'{"a": "', b'{"a": [', b'{"Records": [{"a": "'):
        rejected, left = 0, 100

        def more(limit: int, begin: bytes = begin) -> bytes:
            nonlocal left
            left -= 1
            return b"" if left < 0 else begin if left == 99 else b"1" * limit

        found = list(Splitter(more, limit=1000, reject=reject, is_record=lambda one: False))
        assert len(found) == 1 and found[0].problem
        assert 99 * 65536 <= rejected + 20 <= 100 * 65536


def test_nesting_is_cheap() -> None:
    """Neither deep nesting nor many damaged lines cost more than their length."""
    content = b'{"a":[\n' * 3_000
    found, _ = cut(content, 65536, 1 << 20)
    assert len(found) == 3_000
    assert [each.line for each in cut(b"[" * 100_000 + b'\n{"a":1}')[0]] == [1, 2]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("start", ["[", '{"a": 1, "logEvents": ['])
def test_a_list_of_strings(start: str, size: int) -> None:
    texts = ['{"a": 1}', "{}", '{"b": "c ] }"}', "{text"]
    found, _ = cut((start + ", ".join(map(json.dumps, texts)) + ("]}" if start[0] == "{" else "]")).encode(), size, 30)
    assert [each.raw for each in found] == [text.encode() for text in texts]


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_journald_export(size: int) -> None:
    def binary(name: bytes, value: bytes) -> bytes:
        return name + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"

    entries = [
        b'__CURSOR=s=1;i=2\n_PID=7\nMESSAGE={"a":1}\n',
        b"__CURSOR=s=1;i=3\n" + binary(b"MESSAGE", b'{\n"b": "\x01\n\n"}') + b"_PID=7\n",
        b"__CURSOR=s=1;i=4\n" + binary(b"COREDUMP", b"MESSAGE=x\n\n" * 10) + b"MESSAGE=last\n",
    ]
    found, rejected = cut(b"\n".join(entries) + b"\n", size)
    assert [each.raw for each in found] == [b'{"a":1}', b'{\n"b": "\x01\n\n"}', b"last"]
    assert [each.line for each in found] == [1, 5, 13] and rejected == b""
