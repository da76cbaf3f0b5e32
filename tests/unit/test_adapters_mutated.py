"""Real records of every tool, changed: each becomes events, is skipped for a stated reason, or fails with its place."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.producers.adapters import ADAPTERS, RecordError, Skipped, make_adapter
from grantledger.producers.adapters.contract import Adapter
from support.adapters import ENCODER, HERE
from support.examples import few
from support.mangling import mangled

from .test_adapters import samples

MOST = 120
"""Records per tool, each of another shape."""


@functools.cache
def shapes(tool: str) -> tuple[tuple[bytes, dict[str, Any]], ...]:
    """Return sample records of different shapes: with other members, or of another type."""
    found: dict[str, tuple[bytes, dict[str, Any]]] = {}
    for line in samples(tool):
        record = json.loads(line)
        found.setdefault(f"{_shape(record)} {record.get('eventName') or record.get('event')}", (line, record))
    return tuple(found.values())[:MOST]


def _shape(value: Any) -> str:
    if isinstance(value, dict):
        return str({name: _shape(one) for name, one in sorted(value.items())})
    return f"[{_shape(value[0])}]" if isinstance(value, list) and value else type(value).__name__


def check(adapter: Adapter, raw: bytes) -> None:
    try:
        result = adapter.read(raw, HERE)
    except RecordError as error:
        assert error.location == HERE and error.problem
        return
    if isinstance(result, Skipped):
        assert result.reason in adapter.SKIP_REASONS and result.detail
        return
    assert result, "a record without events must be skipped with its reason"
    for event in result:
        ENCODER.encode(event)
        assert event.raw is not None


@pytest.mark.parametrize("tool", sorted(ADAPTERS))
@few(60)
@given(data=st.data())
def test_a_record_with_other_members(tool: str, data: st.DataObject) -> None:
    """The record before it is a real one, because some adapters remember."""
    records = [record for _, record in shapes(tool)]
    adapter = make_adapter(tool)
    check(adapter, data.draw(st.sampled_from(shapes(tool)))[0])
    check(adapter, json.dumps(data.draw(mangled(records))).encode())


@pytest.mark.parametrize("tool", sorted(ADAPTERS))
@few(60)
@given(data=st.data())
def test_a_record_with_other_bytes(tool: str, data: st.DataObject) -> None:
    line = data.draw(st.sampled_from(shapes(tool)))[0]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(line)))
        line = line[:at] + data.draw(st.binary(max_size=4)) + line[at + data.draw(st.integers(0, 4)) :]
    check(make_adapter(tool), line)
