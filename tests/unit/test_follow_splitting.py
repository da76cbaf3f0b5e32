"""Reading a file as it grows gives the records that reading it at once gives."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grantledger.producers.adapters.postgresql.adapter import PostgresqlAdapter
from grantledger.producers.envelopes import Envelopes, ToolRecord
from grantledger.producers.envelopes.pieces import Boundary

LIMIT = 2_000


class AtEndError(Exception):
    pass


class Growing:
    """A stream over the beginning of a content."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = 0
        self.at = 0

    def ahead(self, length: int) -> bytes:
        data = self.content[self.at : min(self.size, self.at + length)]
        self.at += len(data)
        return data

    def read(self, length: int) -> bytes:
        data = self.ahead(length)
        if not data:
            raise AtEndError
        return data


def envelopes(rejected: list[bytes] | None = None) -> Envelopes:
    reject = (lambda piece: None) if rejected is None else rejected.append
    return Envelopes(
        lambda values: values.keys() >= {"event", "time"}, limit=LIMIT, reject=reject, lines=PostgresqlAdapter()
    )


def at_once(content: bytes) -> list[tuple[bytes, str]]:
    return [shown(one) for one in envelopes().records(io.BytesIO(content).read, "a")]


def shown(record: ToolRecord) -> tuple[bytes, str]:
    return record.raw, record.problem


def grown(content: bytes, cuts: list[int], restarts: bool = False) -> list[list[tuple[bytes, str]]]:
    """Return the records of each step; the last step reads to the end."""
    file = Growing(content)
    stream = envelopes().stream("a")
    steps = []
    for cut in sorted(cuts):
        if restarts:
            stream = envelopes().stream("a", stream.safe)
        file.size, file.at = cut, stream.at.offset
        found = []
        with pytest.raises(AtEndError):
            for record in stream.records(file.read, file.ahead):
                found.append(shown(record))
        steps.append(found)
    rest = io.BytesIO(content)
    rest.seek(stream.at.offset)
    steps.append([shown(one) for one in stream.records(rest.read)])
    assert stream.at.offset == len(content)
    return steps


def record(number: int, **more: Any) -> dict[str, Any]:
    return {"event": "x", "time": number, **more}


NUMBERS = st.integers(0, 9)
TEXTS = st.text('ab"\\\n{}[]é,: ', max_size=12)
RECORDS = st.builds(lambda number, text: record(number, text=text), NUMBERS, TEXTS)
LINES = st.one_of(
    RECORDS.map(json.dumps),
    RECORDS.map(lambda one: json.dumps(one, indent=1)),
    st.lists(RECORDS, min_size=2, max_size=3).map(lambda many: " ".join(map(json.dumps, many))),
    RECORDS.map(lambda one: json.dumps(one, indent=1) + json.dumps(one)),
    st.lists(RECORDS, min_size=1, max_size=3).map(json.dumps),
    st.lists(RECORDS, min_size=1, max_size=3).map(lambda many: json.dumps({"a": [1], "Records": many}, indent=2)),
    RECORDS.map(lambda one: "2026-11-28T05:00:00.1Z stdout F " + json.dumps(one)),
    RECORDS.map(lambda one: json.dumps({"log": json.dumps(one) + "\n", "stream": "stdout"})),
    st.tuples(RECORDS, st.integers(1, 10)).map(
        lambda both: "2026-11-28T05:00:00.1Z stdout P " + json.dumps(both[0])[: both[1]]
        + "\n2026-11-28T05:00:00.1Z stdout F " + json.dumps(both[0])[both[1] :]
    ),
    TEXTS.map(lambda text: f'2026-11-28 05:00:00.1 UTC,"{text.replace(chr(34), chr(34) * 2)}\n\t{{x\n",1'),
    st.just('2026-11-28 05:00:00.1 UTC,"its end is missing'),
    st.sampled_from(["", "text", "{broken", '{"event": "x", ', "]", "}", "[error] of a program", "x" * (LIMIT + 5)]),
    st.integers(LIMIT, LIMIT + 100).map(lambda length: json.dumps(record(1, long="y" * length))),
)  # fmt: skip
CONTENTS = st.lists(LINES, min_size=1, max_size=6).map(lambda lines: ("\n".join(lines) + "\n").encode())


@given(CONTENTS, st.data())
def test_a_file_read_as_it_grows_gives_the_same_records(content: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=6))
    assert [one for step in grown(content, cuts) for one in step] == at_once(content)


@given(CONTENTS, st.data())
def test_a_restart_repeats_records_and_loses_none(content: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=6))
    expected = at_once(content)
    found = [one for step in grown(content, cuts, restarts=True) for one in step]
    assert {one for one in found if not one[1]} == {one for one in expected if not one[1]}
    assert len(found) >= len(expected)


@given(st.lists(RECORDS.map(json.dumps), min_size=1, max_size=4))
def test_nothing_comes_from_a_line_without_its_end(lines: list[str]) -> None:
    content = ("\n".join(lines) + "\n").encode()
    ends = [content[:cut].count(b"\n") for cut in range(len(content))]
    steps = grown(content, list(range(len(content))))
    given_until = 0
    for end, step in zip(ends, steps, strict=False):
        given_until += len(step)
        assert given_until == end


def test_a_damaged_list_costs_a_line_of_a_growing_file() -> None:
    good = json.dumps(record(1)).encode()
    content = b"[" + good + b" x, " + good + b"]\n" + good + b"\n"
    steps = grown(content, [len(content)])
    assert [(raw, bool(problem)) for raw, problem in steps[0]] == [(good, False), (b"", True), (good, False)]


def test_a_list_whose_end_is_missing_can_be_read_as_lines() -> None:
    good = json.dumps(record(1)).encode()
    content = b"[{worker\n" + good + b"\n"
    file, stream = Growing(content), envelopes().stream("a")
    file.size = len(content)
    with pytest.raises(AtEndError):
        list(stream.records(file.read, file.ahead))
    assert stream.at == Boundary()
    file.at, found = 0, []
    with pytest.raises(AtEndError):
        for one in stream.records(file.read, file.ahead, as_line=True):
            found.append(one.raw)
    assert found == [b"[{worker", good]
    assert stream.safe.offset == len(content)


@example(1)
@given(st.integers(0, 40))
def test_a_long_line_is_never_in_memory_and_named_once(step: int) -> None:
    content = b"x" * 200_000 + b"\n" + json.dumps(record(1)).encode() + b"\n"
    cuts = [70_000 + step * 1_000, 150_000, 200_000, 200_001]
    steps = grown(content, cuts, restarts=True)
    assert [problem for found in steps for _, problem in found] == [f"longer than {LIMIT} bytes", ""]
