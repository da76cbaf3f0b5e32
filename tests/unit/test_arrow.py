"""Values to columns: the fast reader, the slow one and the second verifier's agree, and no value disturbs another."""

from __future__ import annotations

import copy
import io
import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import fastavro
import pyarrow as pa
import pytest
import second_verifier
from fastavro.utils import generate_one
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from grantledger.schemas import arrow
from grantledger.schemas.arrow import DECODED_SCHEMA, decode_values
from grantledger.schemas.catalog import SchemaCatalog, WriterSchema, event_schema, load
from grantledger.schemas.framing import compact_json, confluent_prefix
from grantledger.sinks.migrate import available
from support.columns import comparable
from support.examples import few
from support.mutated import plain

SCHEMA = event_schema()
CATALOG = SchemaCatalog((SCHEMA,))


def decoded(values: Sequence[bytes | None], times: Sequence[int], catalog: SchemaCatalog) -> pa.RecordBatch:
    return decode_values(pa.array(values, pa.binary()), times, catalog)


INT64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1, -1, 0, 1, 253_402_300_799_999_999])
quick = few(25, suppress_health_check=[HealthCheck.too_slow])
"""Events are large to draw: ``make test-slow`` tries more of them."""


def values_of(schema: Any, named: dict[str, st.SearchStrategy[Any]] | None = None) -> st.SearchStrategy[Any]:
    """Everything that a schema allows, times over the whole range of 64 bits."""
    named = {} if named is None else named
    if isinstance(schema, list):
        return st.one_of([values_of(branch, named) for branch in schema])
    if isinstance(schema, str) and schema in named:
        return named[schema]
    if isinstance(schema, str):
        return {
            "null": st.none(),
            "boolean": st.booleans(),
            "int": st.integers(-(2**31), 2**31 - 1),
            "long": INT64,
            "string": st.sampled_from(["", "a", "\0", "é", "𝄞", "text of some length"]),
            "bytes": st.binary(max_size=12),
        }[schema]
    kind = schema["type"]
    if kind == "record":
        fields = {field["name"]: values_of(field["type"], named) for field in schema["fields"]}
        return named.setdefault(schema["name"], st.fixed_dictionaries(fields))
    if kind == "array":
        return st.lists(values_of(schema["items"], named), max_size=3)
    if kind == "fixed":
        return st.binary(min_size=schema["size"], max_size=schema["size"]) | st.just(b"\xff" * schema["size"])
    return values_of(kind, named)


def write(datum: Any, definition: dict[str, Any], prefix: bytes) -> bytes:
    out = io.BytesIO()
    out.write(prefix)
    fastavro.schemaless_writer(out, _parsed(compact_json(definition)), datum)
    return out.getvalue()


@cache
def _parsed(text: str) -> Any:
    return fastavro.parse_schema(plain(json.loads(text)))


EVENTS = values_of(load("event")).map(lambda datum: write(datum, load("event"), bytes(SCHEMA.prefix)))


def second(catalog: SchemaCatalog = CATALOG) -> second_verifier.Schemas:
    schemas = second_verifier.Schemas(SCHEMA.text)
    schemas.found = {bytes(schema.prefix): (schema.text, schema.in_force_ms) for schema in catalog}
    return schemas


@quick
@given(st.lists(EVENTS, max_size=8))
def test_events_become_the_columns_that_the_second_verifier_computes(values: list[bytes]) -> None:
    batch = decoded(values, [0] * len(values), CATALOG)
    assert batch.schema == DECODED_SCHEMA
    expected = [second().columns(value, 0) for value in values]
    assert comparable(batch) == expected


@quick
@given(st.lists(EVENTS, max_size=6))
def test_the_slow_reader_agrees_with_the_fast_one(values: list[bytes]) -> None:
    assert arrow.readers_of(SCHEMA.text).wire
    fast = decoded(values, [0] * len(values), CATALOG)
    with pytest.MonkeyPatch.context() as patch:
        reader = replace(arrow.readers_of(SCHEMA.text), wire={})
        patch.setattr(arrow, "readers_of", lambda text: reader)
        slow = decoded(values, [0] * len(values), CATALOG)
    assert fast.equals(slow)


@st.composite
def damaged(draw: st.DrawFn) -> bytes | None:
    """A value from any sender: an event, an event with a few changed bytes, or something else."""
    kind = draw(st.sampled_from(["event", "changed", "changed", "cut", "noise", "null", "unknown"]))
    if kind == "null":
        return None
    if kind == "noise":
        return draw(st.binary(max_size=30))
    value = draw(EVENTS)
    if kind == "unknown":
        return b"\0\0\0\0\x09" + value[10:]
    if kind == "cut":
        return value[: draw(st.integers(0, len(value)))]
    if kind == "changed":
        for _ in range(draw(st.integers(1, 3))):
            at = draw(st.integers(10, len(value) - 1))
            value = value[:at] + draw(st.binary(max_size=3)) + value[at + draw(st.integers(0, 3)) :]
            if len(value) <= 10:
                break
    return value


@quick
@given(st.lists(damaged(), max_size=12), st.data())
def test_decoding_an_entry_never_depends_on_its_neighbors(values: list[bytes | None], data: st.DataObject) -> None:
    """And nothing escapes: the sink must not stop, the verifier cuts its runs elsewhere."""
    together = decoded(values, [0] * len(values), CATALOG)
    alone = [decoded([value], [0], CATALOG) for value in values]
    assert together.num_rows == len(values)
    for at, one in enumerate(alone):
        assert together.slice(at, 1).equals(one)
    order = data.draw(st.permutations(range(len(values))))
    shuffled = decoded([values[at] for at in order], [0] * len(values), CATALOG)
    for at, was in enumerate(order):
        assert shuffled.slice(at, 1).equals(alone[was])


WORDS = {
    "", "value_null", "framing_empty", "framing_unknown", "framing_truncated", "schema_unknown", "datum_invalid",
}  # fmt: skip


@quick
@given(st.lists(damaged(), min_size=1, max_size=4))
def test_entries_that_are_no_events_have_empty_columns(values: list[bytes | None]) -> None:
    empty = {name: second_verifier.EMPTY.get(name, b"") for name in second_verifier.PLACES}
    for row in comparable(decoded(values, [0] * len(values), CATALOG)):
        word = row.pop("decode_error")
        assert word in WORDS
        if word:
            assert row == empty


def test_columns_that_are_not_nullable_are_never_null() -> None:
    """Else the store fills in a value, and verification takes it for an alteration."""
    text = "".join(migration.text for migration in available())
    nullable = set(re.findall(r"^    `?(\w+)`? Nullable\(", text, re.MULTILINE))
    batch = decoded([None, b"", b"\0\0\0\0\1x"], [0] * 3, CATALOG)
    for field in batch.schema:
        if field.name not in nullable:
            assert batch.column(field.name).null_count == 0, field.name


def test_a_value_that_is_not_utf_8_is_kept_as_it_is() -> None:
    datum = _datum() | {"reason": "XXXX", "raw": b"\xff\xfe\x00"}
    value = write(datum, load("event"), bytes(SCHEMA.prefix)).replace(b"XXXX", b"\xff\xc0\x00\xed")
    [row] = comparable(decoded([value], [0], CATALOG))
    assert (row["reason"], row["raw"], row["decode_error"]) == (b"\xff\xc0\x00\xed", b"\xff\xfe\x00", "")


def _datum() -> dict[str, Any]:
    return {
        "event_id": "e", "event_type": "session.started", "occurred_at": 5,
        "source": {"system": "s", "instance": "i", "native_id": "n", "native_type": "t", "seq": None},
        "tenant": "default", "subject": {"id": "s", "kind": "human", "email": None}, "actor": {"id": "a", "kind": "x"},
        "raw_sha256": bytes(range(32)), "salt": bytes(16), "outcome": "success", "approvals": [],
    }  # fmt: skip


def test_bytes_and_fixed_are_read_by_types_with_the_same_bytes_on_the_wire() -> None:
    """Every pattern of a double, not-a-number and its payload bits among them, comes through unchanged."""
    for pattern in (b"\x7f\xf8" + bytes(6), b"\x01\0\0\0\0\0\xf0\x7f", b"\xff" * 8, b"\0" * 7 + b"\x80"):
        datum = _datum() | {"raw_sha256": pattern * 4}
        [row] = comparable(decoded([write(datum, load("event"), bytes(SCHEMA.prefix))], [0], CATALOG))
        assert row["raw_sha256"] == pattern * 4


def test_a_schema_counts_from_its_registration_on() -> None:
    catalog = SchemaCatalog((WriterSchema(confluent_prefix(3), SCHEMA.text, in_force_ms=100),))
    value = write(_datum(), load("event"), confluent_prefix(3))
    rows = comparable(decoded([value] * 4, [99, 100, 101, -5], catalog))
    assert [row["decode_error"] for row in rows] == ["schema_unknown", "", "", "schema_unknown"]
    assert rows[1] == second(catalog).columns(value, 100)


def variant(change: Any) -> dict[str, Any]:
    schema = copy.deepcopy(load("event"))
    change(schema["fields"])
    return schema


def retyped(name: str, new: Any) -> Any:
    def change(fields: list[dict[str, Any]]) -> None:
        for field in fields:
            if field["name"] == name:
                field["type"] = new
                field.pop("default", None)

    return change


def reverse(fields: list[dict[str, Any]]) -> None:
    """Reverse the fields; a named type must still be defined before it is referred to."""
    types = {field["name"]: field["type"] for field in fields}
    fields.reverse()
    for field in fields:
        swapped = {"grant_source": "session_source", "session_source": "grant_source"}.get(field["name"])
        field["type"] = types[swapped or field["name"]]


OTHER_SCHEMAS = {
    "another order": reverse,
    "fewer fields": lambda fields: fields.__delitem__(slice(5, None)),
    "no fields": lambda fields: fields.clear(),
    "more fields": lambda fields: fields.append({"name": "x", "type": {"type": "array", "items": ["null", "int"]}}),
    "a map": lambda fields: fields.append({"name": "x", "type": {"type": "map", "values": "long"}}),
    "an enumeration": retyped("outcome", {"type": "enum", "name": "Outcome", "symbols": ["success", "failure"]}),
    "text as a uuid": retyped("event_id", {"type": "string", "logicalType": "uuid"}),
    "null second": retyped("reason", ["string", "null"]),
    "a name in full": lambda fields: fields.append({"name": "x", "type": "grantledger.Salt"}),
    "odd fixed": lambda fields: fields.append({"name": "x", "type": {"type": "fixed", "name": "F", "size": 3}}),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHER_SCHEMAS)
@few(10, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_schemas_of_other_versions(what: str, data: st.DataObject) -> None:
    schema, values_of_it = _other_version(what)
    values = data.draw(values_of_it)
    catalog = SchemaCatalog((schema,))
    rows = comparable(decoded(values, [0] * len(values), catalog))
    assert [row["decode_error"] for row in rows] == [""] * len(values)
    expected = [second(catalog).columns(value, 0) for value in values]
    for row, wanted in zip(rows, expected, strict=True):
        if isinstance(wanted["outcome"], str):  # a symbol, which fastavro gives as text
            wanted["outcome"] = wanted["outcome"].encode()
        assert row == wanted


@cache
def _other_version(what: str) -> tuple[WriterSchema, st.SearchStrategy[list[bytes]]]:
    """Return a schema, and batches of its events. Hypothesis takes long to examine a new strategy."""
    definition = variant(OTHER_SCHEMAS[what])
    schema = WriterSchema(confluent_prefix(3), compact_json(definition))
    events = _with_names(definition).map(lambda datum: write(datum, definition, confluent_prefix(3)))
    return schema, st.lists(events, max_size=4)


def _with_names(definition: dict[str, Any]) -> st.SearchStrategy[Any]:
    named: dict[str, st.SearchStrategy[Any]] = {}
    return st.fixed_dictionaries(
        {
            field["name"]: st.binary(min_size=16, max_size=16)
            if field["type"] == "grantledger.Salt"
            else st.dictionaries(st.text(max_size=3), INT64, max_size=2)
            if isinstance(field["type"], dict) and field["type"]["type"] == "map"
            else st.sampled_from(field["type"]["symbols"])
            if isinstance(field["type"], dict) and field["type"]["type"] == "enum"
            else values_of(field["type"], named)
            for field in definition["fields"]
        }
    )


STRANGE = {
    "not json": "no schema",
    "not a record": '"long"',
    "an empty object": "{}",
    "an unknown type": '{"type":"record","name":"x","fields":[{"name":"a","type":"Foo"}]}',
    "no name": '{"type":"record"}',
    "null": "null",
    "deeply nested": "[" * 3000,
    "a number where text belongs": compact_json(variant(retyped("event_id", "long"))),
    "a record where text belongs": compact_json(
        variant(retyped("event_id", {"type": "record", "name": "X", "fields": []}))
    ),
    "a wide union where text belongs": compact_json(variant(retyped("event_id", ["null", "string", "long"]))),
    "numbers where approvals belong": compact_json(
        variant(retyped("approvals", {"type": "array", "items": "long"}))
    ),
    "text where a list belongs": compact_json(variant(retyped("approvals", "string"))),
    "a hash of 16 bytes": compact_json(variant(retyped("raw_sha256", {"type": "fixed", "name": "Short", "size": 16}))),
    "a hash of 40 bytes": compact_json(variant(retyped("raw_sha256", {"type": "fixed", "name": "Long", "size": 40}))),
}  # fmt: skip


@pytest.mark.parametrize("what", STRANGE)
def test_a_harmful_registered_schema_stops_nothing(what: str) -> None:
    catalog = SchemaCatalog((SCHEMA, WriterSchema(confluent_prefix(4), STRANGE[what])))
    good = write(_datum(), load("event"), bytes(SCHEMA.prefix))
    strange = [bytes(confluent_prefix(4)) + datum for datum in (b"", b"\2", good[10:], bytes(60), b"\xff" * 60)]
    if STRANGE[what].startswith('{"type":"record","name":"AccessEvent"'):
        strange += [fastavro_value(STRANGE[what], seed) for seed in range(20)]
    rows = decoded([good, *strange, good], [0] * (len(strange) + 2), catalog)
    assert rows.slice(0, 1).equals(decoded([good], [0], catalog))
    assert rows.slice(len(strange) + 1, 1).equals(rows.slice(0, 1))
    for at, value in enumerate(strange):
        assert rows.slice(at + 1, 1).equals(decoded([value], [0], catalog))


def test_two_schemas_in_one_batch() -> None:
    """A batch in which a registry begins to be used, or another version of a sender."""
    catalog = SchemaCatalog((SCHEMA, WriterSchema(confluent_prefix(3), SCHEMA.text)))
    values = [write(_datum(), load("event"), prefix) for prefix in (bytes(SCHEMA.prefix), confluent_prefix(3))]
    rows = decoded(values * 2, [0] * 4, catalog)
    assert rows.column("decode_error").to_pylist() == [b""] * 4
    assert rows.slice(0, 1).equals(rows.slice(1, 1))


def test_no_values_are_no_rows() -> None:
    assert decoded([], [], CATALOG).num_rows == 0


def fastavro_value(text: str, seed: int) -> bytes:
    random.seed(seed)
    definition = json.loads(text)
    return write(generate_one(_parsed(text)), definition, confluent_prefix(4))


def test_a_column_has_a_value_unless_it_is_that_of_a_value_that_cannot_be_decoded() -> None:
    empty = arrow.decode_values(pa.array([None, b"x"], pa.binary()), [0, 0], CATALOG)
    for column in arrow.DECODED:
        one = {
            "text": b"x", "time": 0, "number": 0, "boolean": not column.nullable, "texts": [b""], "hash": b"x" * 32,
            "approvals": [{"reviewer": b"", "group": b"", "decision": b"", "at": None, "reason": b"", "forced": False}],
        }[column.place.kind]  # fmt: skip
        array = empty.column(column.name)
        assert not arrow.has_value(array, column.name) or column.name == "occurred_at"
        filled = pa.concat_arrays([array, pa.array([one], column.type)])
        assert arrow.has_value(filled, column.name)
        assert arrow.has_value(filled[1:], column.name)
        assert not arrow.has_value(filled[:2], column.name) or column.name == "occurred_at"
