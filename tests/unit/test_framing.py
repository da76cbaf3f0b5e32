"""How a value names its schema: fingerprints that others compute too, and both framings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.schemas.catalog import load
from grantledger.schemas.framing import (
    FramingError,
    compact_json,
    confluent_prefix,
    prefix_of,
    single_object_prefix,
)


def crc_64_avro(data: bytes) -> int:
    """The Avro specification's own algorithm ("Schema Fingerprints"), written again."""
    empty = 0xC15D213AA4D7A795
    table = []
    for number in range(256):
        value = number
        for _ in range(8):
            value = (value >> 1) ^ (empty & -(value & 1))
        table.append(value)
    value = empty
    for byte in data:
        value = (value >> 8) ^ table[(value ^ byte) & 0xFF]
    return value


@pytest.mark.parametrize(
    ("schema", "canonical", "fingerprint"),
    [
        # From Avro's share/test/data/schema-tests.txt.
        ({"type": "null"}, b'"null"', 0x63DD24E7CC258F8A),
        ({"type": "boolean"}, b'"boolean"', 0x9F42FC78A4D4F764),
        ({"type": "int"}, b'"int"', 0x7275D51A3F395C8F),
        ({"type": "string"}, b'"string"', 0x8F014872634503C7),
        (
            {"fields": [], "type": "record", "name": "foo", "namespace": "x.y", "doc": "left out"},
            b'{"name":"x.y.foo","type":"record","fields":[]}',
            None,
        ),
    ],
)
def test_known_fingerprints_stand_little_endian_behind_the_marker(
    schema: dict, canonical: bytes, fingerprint: int | None
) -> None:
    computed = crc_64_avro(canonical)
    assert fingerprint in (None, computed)
    assert single_object_prefix(schema) == b"\xc3\x01" + computed.to_bytes(8, "little")


def test_the_fingerprint_of_int_on_the_wire() -> None:
    assert single_object_prefix({"type": "int"}).hex() == "c3018f5c393f1ad57572"


def test_documentation_and_defaults_do_not_change_a_fingerprint() -> None:
    schema = load("receipt")
    plain = {
        "type": "record",
        "name": "grantledger.Receipt",
        "fields": [
            {"name": "origin", "type": "string"},
            {"name": "index", "type": "long"},
            {"name": "target", "type": "string"},
            {"name": "at", "type": "long"},
            {"name": "receipt", "type": "bytes"},
            {"name": "error", "type": "string"},
        ],
    }
    canonical = (
        b'{"name":"grantledger.Receipt","type":"record","fields":[{"name":"origin","type":"string"},'
        b'{"name":"index","type":"long"},{"name":"target","type":"string"},{"name":"at","type":"long"},'
        b'{"name":"receipt","type":"bytes"},{"name":"error","type":"string"}]}'
    )
    assert single_object_prefix(schema) == single_object_prefix(plain)
    assert single_object_prefix(schema)[2:] == crc_64_avro(canonical).to_bytes(8, "little")


def test_the_confluent_prefix() -> None:
    assert confluent_prefix(258).hex() == "0000000102"
    assert confluent_prefix(2**32 - 1).hex() == "00ffffffff"


@given(st.binary(max_size=20))
def test_both_framings_are_read(datum: bytes) -> None:
    single = single_object_prefix({"type": "int"})
    assert prefix_of(single + datum) == single
    assert prefix_of(confluent_prefix(7) + datum) == confluent_prefix(7)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"", "framing_empty"),
        (b"\xc3", "framing_unknown"),
        (b"\xc3\x02" + bytes(8), "framing_unknown"),
        (b"{}", "framing_unknown"),
        (b"\xc3\x01" + bytes(7), "framing_truncated"),
        (b"\x00", "framing_truncated"),
        (b"\x00\x00\x00\x00", "framing_truncated"),
    ],
)
def test_other_values_say_why(value: bytes, code: str) -> None:
    with pytest.raises(FramingError) as caught:
        prefix_of(value)
    assert caught.value.code == code


def test_compact_json_keeps_order_and_letters() -> None:
    assert compact_json({"b": 1, "a": "é"}) == '{"b":1,"a":"é"}'
