"""Events whose every field is chosen by an attacker, as data for Hypothesis."""

from __future__ import annotations

import io
from typing import Any

import fastavro
from hypothesis import strategies as st

from grantledger.schemas.catalog import event_schema, load
from grantledger.schemas.rules import EVENT_TYPES

from .mutated import plain

ATTACKS = (
    "", " ", "[/x]", "[bold]", "\x1b[2J", "\x1b]0;t\x07", "\x9b31m", "a\nSOUND: all", "\r", "\u202egnp", "\u200b",
    "\x00", "=cmd|' /C calc'!A0", "'; DROP TABLE entries; --", "{{.x}}", "${jndi:x}", "%s%n", "../../etc", "schema/x",
    "\U000e0001", "NaN", '{"a":', "[" * 3000, "x" * 5000, "grantledger-enforcer", "fuzz.example", "g", "native", "é",
    "e\u0301", "ſ", "<!channel>", "<script>", "default", "confirmed", "deadline", "approved", "overdue", "critical",
    "human", "success",
)  # fmt: skip
TEXT = st.sampled_from(ATTACKS) | st.text(max_size=20)
TIMES = (0, 1, -1, 2**63 - 1, -(2**63), 1_790_000_000_000_000, 1_790_000_100_000_000, 253_402_300_800_000_000)
NUMBERS = st.sampled_from(TIMES) | st.integers(-(2**63), 2**63 - 1)
_PARSED = fastavro.parse_schema(plain(load("event")))


def _values(schema: Any, named: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    if isinstance(schema, list):
        return st.one_of([_values(branch, named) for branch in reversed(schema)])
    if isinstance(schema, str) and schema in named:
        return named[schema]
    if isinstance(schema, str):
        simple: dict[str, st.SearchStrategy[Any]] = {
            "null": st.none(), "boolean": st.booleans(), "int": st.integers(-(2**31), 2**31 - 1), "long": NUMBERS,
            "string": TEXT, "bytes": st.binary(max_size=12),
        }  # fmt: skip
        return simple[schema]
    if schema["type"] == "record":
        fields = {field["name"]: _values(field["type"], named) for field in schema["fields"]}
        return named.setdefault(schema["name"], st.fixed_dictionaries(fields))
    if schema["type"] == "array":
        return st.lists(_values(schema["items"], named), max_size=2)
    if schema["type"] == "fixed":
        return st.binary(min_size=schema["size"], max_size=schema["size"])
    return _values(schema["type"], named)


EVENTS = st.tuples(_values(load("event"), {}), st.sampled_from(sorted(EVENT_TYPES)) | TEXT).map(
    lambda drawn: drawn[0] | {"event_type": drawn[1]}
)
"""Data of events: known types, or text."""


def framed(datum: dict[str, Any]) -> bytes:
    """Return an event's value without the checks of the product's encoder."""
    out = io.BytesIO()
    out.write(event_schema().prefix)
    fastavro.schemaless_writer(out, _PARSED, datum)
    return out.getvalue()
