"""Valid datums (docs/ledger.md): every decoder of the product and the second verifier agree on them."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import pyarrow as pa
import pytest
import second_verifier
from second_verifier import Datum

from grantledger.schemas.arrow import decode_values
from grantledger.schemas.catalog import SchemaCatalog, WriterSchema, event_schema
from grantledger.schemas.codec import DecodeError, decode
from grantledger.schemas.datum_check import datum_check
from grantledger.schemas.framing import FramingError, confluent_prefix
from grantledger.schemas.readers import readers_of
from grantledger.schemas.resolved import UnusableSchemaError, resolve
from support.columns import comparable
from support.mutated import events, mutated

SLOW = "GRANTLEDGER_TEST_SLOW" in os.environ
CATALOG = SchemaCatalog((event_schema(),))


def second() -> second_verifier.Schemas:
    found = second_verifier.Schemas({})
    found.found = {bytes(schema.prefix): (schema.text, schema.in_force_ms) for schema in CATALOG}
    return found


@pytest.mark.parametrize("seed", range(100 if SLOW else 3))
def test_all_decoders_agree_on_mutated_records(seed: int) -> None:
    values = list(mutated(event_schema(), seed, 1000))
    rows = comparable(decode_values(pa.array(values, pa.binary()), [0] * len(values), CATALOG))
    outside = second()
    invalid = 0
    for value, row in zip(values, rows, strict=True):
        assert row == outside.columns(value, 0)
        invalid += row["decode_error"] == "datum_invalid"
        try:
            datum = decode(value or b"", CATALOG, 0)
        except (DecodeError, FramingError) as error:
            assert row["decode_error"] == (error.code if value is not None else "value_null")
        else:
            assert row["decode_error"] == ""
            assert datum["event_id"] == row["event_id"].decode("utf-8", "replace")
            assert [one["forced"] for one in datum["approvals"]] == [one["forced"] for one in row["approvals"]]
    assert 300 < invalid < 900
    for at in random.Random(seed).sample(range(len(values)), 20):  # alone as together
        alone = decode_values(pa.array([values[at]], pa.binary()), [0], CATALOG)
        assert comparable(alone) == [rows[at]]


SCHEMA = json.dumps(
    {"type": "record", "name": "R", "fields": [
        {"name": "number", "type": "int"}, {"name": "truth", "type": "boolean"}, {"name": "text", "type": "string"},
        {"name": "list", "type": {"type": "array", "items": "string"}}, {"name": "maybe", "type": ["null", "long"]},
        {"name": "raw_sha256", "type": {"type": "fixed", "name": "F", "size": 32}}]}
)  # fmt: skip
REST = b"\x00\x00" + bytes(32)
"""An empty list, null and a hash."""
CASES: dict[str, tuple[bytes, dict[str, Any] | None]] = {
    "plain": (b"\x02\x01\x02a" + REST, {"number": 1, "truth": True, "text": b"a"}),
    "bytes after the datum": (b"\x02\x01\x02a" + REST + b"more", {"number": 1}),
    "cut": ((b"\x02\x01\x02a" + REST)[:-1], None),
    "nothing": (b"", None),
    "a number longer than needed": (b"\x82\x80\x00\x01\x02a" + REST, {"number": 1}),
    "a number of ten bytes": (b"\x82" + b"\x80" * 8 + b"\x00\x01\x02a" + REST, {"number": 1}),
    "a number of eleven bytes": (b"\x82" + b"\x80" * 9 + b"\x00\x01\x02a" + REST, None),
    "bits beyond the 64th": (b"\xff" * 9 + b"\x7f\x01\x02a" + REST, {"number": -(2**63)}),
    "an int of more than 32 bits": (b"\x80\x80\x80\x80\x20\x01\x02a" + REST, {"number": 2**32}),
    "a boolean of 2": (b"\x02\x02\x02a" + REST, None),
    "a negative length": (b"\x02\x01\x01" + REST, None),
    "a length beyond the end": (b"\x02\x01\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" + REST, None),
    "text that is not UTF-8": (b"\x02\x01\x04\xff\xc0" + REST, {"text": b"\xff\xc0"}),
    "a block with its size": (b"\x02\x01\x02a\x03\x08\x02b\x02c\x00\x00" + bytes(32), {"list": [b"b", b"c"]}),
    "a block with a wrong size": (b"\x02\x01\x02a\x01\x7f\x02b\x00\x00" + bytes(32), {"list": [b"b"]}),
    "several blocks": (b"\x02\x01\x02a\x02\x02b\x02\x02c\x00\x00" + bytes(32), {"list": [b"b", b"c"]}),
    "the least count": (b"\x02\x01\x02a" + b"\xff" * 9 + b"\x01\x00\x02\x02b\x00\x00" + bytes(32), {"list": [b"b"]}),
    "a huge count": (b"\x02\x01\x02a" + b"\xfe" + b"\xff" * 8 + b"\x01" + bytes(2000), None),
    "a branch that is not there": (b"\x02\x01\x02a\x00\x04" + bytes(32), None),
    "a negative branch": (b"\x02\x01\x02a\x00\x01" + bytes(32), None),
}


@pytest.mark.parametrize("what", CASES)
def test_valid_datums_are_those_of_the_page(what: str) -> None:
    datum, expected = CASES[what]
    readers = readers_of(SCHEMA)
    assert readers.wire
    assert readers.valid(datum) == (expected is not None)
    if expected is None:
        with pytest.raises(ValueError, match=r"."):
            Datum(datum).value(second_verifier.shape_of(SCHEMA))
        return
    for found in (readers.slow(datum), Datum(datum).value(second_verifier.shape_of(SCHEMA))):
        assert {name: found[name] for name in expected} == expected
    schema = WriterSchema(confluent_prefix(3), SCHEMA)
    assert decode(b"\0\0\0\0\3" + datum, SchemaCatalog((schema,)), 0)["number"] == expected.get("number", 1)


def field(type_: Any, name: str = "x") -> str:
    return json.dumps({"type": "record", "name": "R", "fields": [{"name": name, "type": type_}]})


def nested(depth: int) -> Any:
    return "int" if not depth else {"type": "array", "items": nested(depth - 1)}


DOUBLING: Any = {"type": "record", "name": "R0", "fields": [{"name": "a", "type": "int"}]}
for _level in range(1, 30):
    DOUBLING = {"type": "record", "name": f"R{_level}", "fields": [
        {"name": "a", "type": DOUBLING}, {"name": "b", "type": f"R{_level - 1}"}]}  # fmt: skip
UNUSABLE = {
    "contains itself": field(["null", "R"]),
    "doubles": json.dumps(DOUBLING),
    "too deep": field(nested(25)),
    "items without bytes": field({"type": "array", "items": "null"}),
    "items that are empty records": field({"type": "array", "items": {"type": "record", "name": "E", "fields": []}}),
    "a negative size": field({"type": "fixed", "name": "F", "size": -1}),
    "text where a time belongs": field("string", "occurred_at"),
    "milliseconds where a time belongs": field({"type": "long", "logicalType": "timestamp-millis"}, "occurred_at"),
    "a number without a unit where a time belongs": field("long", "occurred_at"),
    "text where a number belongs": field(
        {"type": "record", "name": "S", "fields": [{"name": "seq", "type": "string"}]}, "source"
    ),
    "a map where a record belongs": field({"type": "map", "values": "string"}, "source"),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_no_datum_of_an_unusable_schema_is_valid(what: str) -> None:
    readers = readers_of(UNUSABLE[what])
    for datum in (b"", b"\0", b"\2\0", bytes(100), b"\xfe\xff\xff\xff\x0f" + bytes(100)):
        assert not readers.valid(datum)
    with pytest.raises(ValueError, match="not usable"):
        second_verifier.shape_of(UNUSABLE[what])


def test_the_deepest_schema_is_usable() -> None:
    text = field(nested(23))
    assert readers_of(text).valid(b"\2" * 24 + b"\0" * 23)
    assert Datum(b"\2" * 24 + b"\0" * 23).value(second_verifier.shape_of(text))


def test_names_in_a_schema_never_reach_the_generated_check() -> None:
    text = json.dumps({"type": "record", "name": "R", "fields": [
        {"name": "x", "type": {"type": "enum", "name": "E", "symbols": ["raise_SystemExit", "b"]}}]})  # fmt: skip
    assert [datum_check(text)(bytes([number])) for number in range(6)] == [True, False, True, False, False, False]


def test_a_schema_that_is_not_avro_is_not_usable() -> None:
    for text in ("", "[", "[" * 5000, "{}", '"long"', '{"type":["null"]}'):
        with pytest.raises(UnusableSchemaError):
            resolve(text)


def test_a_long_list_takes_time_in_proportion() -> None:
    """A datum of 4 MB with two million items, and one whose last item is cut."""
    text = field({"type": "array", "items": "string"}, "args")
    items = b"\x80\x92\xf4\x01" + b"\x02a" * 2_000_000 + b"\x00"
    assert readers_of(text).valid(items)
    assert not readers_of(text).valid(items[:-2])


def test_events_of_every_kind_are_drawn() -> None:
    drawn = events(event_schema(), random.Random(1), 200)
    assert all(readers_of(event_schema().text).valid(value[10:]) for value in drawn)
