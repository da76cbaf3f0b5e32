"""Records cut out of a JSON document, in pieces of any size."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from grantledger.producers.record_list import RawRecord, RecordList, is_record_list


def pieces(content: bytes, size: int) -> tuple[bytes, Any]:
    """Return the first bytes of a file, and a reader that returns up to ``size`` bytes of the rest at a time."""
    at = size

    def more(limit: int) -> bytes:
        nonlocal at
        piece = content[at : at + min(size, limit)]
        at += len(piece)
        return piece

    return content[:size], more


def cut(content: bytes, size: int, limit: int = 10_000) -> tuple[list[RawRecord], bytes]:
    rejected: list[bytes] = []
    head, more = pieces(content, size)
    records = RecordList("trail.json", head, more, member="Records", limit=limit, reject=rejected.append)
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


@given(st.lists(OBJECTS, max_size=5), st.integers(1, 200), st.booleans(), st.sampled_from([None, 1]))
def test_records_are_complete_whatever_the_sizes_of_the_pieces(
    objects: list[dict[str, Any]], size: int, ascii_only: bool, indent: int | None
) -> None:
    content = json.dumps({"Records": objects}, ensure_ascii=ascii_only, indent=indent).encode()
    found, rejected = cut(content, size)
    assert [json.loads(each.raw or b"") for each in found] == objects
    assert [each.location.record for each in found] == list(range(1, len(objects) + 1))
    assert rejected == b""
    for each in found:
        raw = each.raw or b""
        if indent is None:
            assert each.location.line == 1
        else:
            assert content.split(b"\n")[each.location.line - 1].lstrip().startswith(raw.split(b"\n")[0])


@given(st.lists(OBJECTS, min_size=1, max_size=4), st.integers(1, 100), st.integers(0, 30))
def test_a_record_that_is_too_long_hides_no_other(objects: list[dict[str, Any]], size: int, limit: int) -> None:
    texts = [json.dumps(each).encode() for each in objects]
    found, rejected = cut(b'{"Records":[' + b",".join(texts) + b"]}", size, limit)
    assert [each.raw for each in found] == [text if len(text) <= limit else None for text in texts]
    assert rejected == b"".join(text + b"\n" for text in texts if len(text) > limit)


@given(st.lists(OBJECTS, max_size=3), st.integers(1, 50), st.data())
def test_a_truncated_file_is_reported(objects: list[dict[str, Any]], size: int, data: st.DataObject) -> None:
    content = json.dumps({"Records": objects}).encode()
    length = data.draw(st.integers(1, len(content) - 1))
    found, _ = cut(content[:length], size)
    whole = [each for each in found if not each.problem]
    assert [json.loads(each.raw or b"") for each in whole] == objects[: len(whole)]
    assert [bool(each.problem) for each in found[len(whole) :]] == [True]


@given(st.binary(max_size=60) | st.text(st.sampled_from('{}[]",:\\ Records'), max_size=60).map(str.encode))
def test_any_bytes_are_read_or_reported_as_damaged(content: bytes) -> None:
    for whole in (content, b'{"Records":[' + content):
        found, rejected = cut(whole, 7)
        assert not any(each.problem for each in found[:-1])
        assert len(rejected) <= len(whole) + 1


@given(st.binary(max_size=40))
def test_recognizing_the_shape_never_fails(head: bytes) -> None:
    assert is_record_list(head, "Records") in (True, False, None)
    assert is_record_list(b' {\n"Records" : [' + head, "Records") is True


@given(st.integers(1, 200))
def test_a_second_list_of_the_same_name_is_refused_and_not_lost(size: int) -> None:
    content = b'{"Records": [{"a": 1}], "Records": [{"a": 2}]}'
    found, rejected = cut(content, size)
    assert found[0].raw == b'{"a": 1}'
    assert found[1].raw is None and found[1].problem.startswith("has two members of the same name: 'Records'")
    assert b'{"a": 2}' in rejected
