"""Payload hash, leaf and genesis compared with bytes written by hand from DESIGN section 4."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.ledger.entry import (
    NO_HEADERS,
    Genesis,
    chain,
    encode_headers,
    leaf_hash,
    origin_of,
    payload_hashes,
)

ORIGIN = "prod.example.com/access.lifecycle/0/0"
GENESIS = Genesis(ORIGIN, bytes(range(16)), 7)

# GLP1, key "k", value "v1", two headers: a = "x", a = null
PAYLOAD = (
    "474c5031" "00000001" "6b" "00000002" "7631" "00000002" "00000001" "61" "00000001" "78" "00000001" "61" "ffffffff"
)  # fmt: skip
GENESIS_BYTES = (
    "474c4731" "0025" "70726f642e6578616d706c652e636f6d2f6163636573732e6c6966656379636c652f302f30"
    "000102030405060708090a0b0c0d0e0f" "0000000000000007" "0000000000000000" + "00" * 32
)  # fmt: skip
LEAF = (
    "474c4531" "01" "71f9790ec6ed594b7be63e3a679351262a988881f64a11ddcb365e49e0b37bd9" "0000000000000007"
    "0000018bcfe5687b" "f6e4832e211a4d5520440b962147ccee240df4ceba145811e5e4150d8f4c4ccb"
)  # fmt: skip


def sha(hex_bytes: str) -> str:
    return hashlib.sha256(bytes.fromhex(hex_bytes)).hexdigest()


def test_payload_hash_of_a_record_with_headers() -> None:
    headers = encode_headers([("a", b"x"), ("a", None)])
    assert payload_hashes([b"k"], [b"v1"], [headers])[0].hex() == sha(PAYLOAD)
    assert sha(PAYLOAD) == "f6e4832e211a4d5520440b962147ccee240df4ceba145811e5e4150d8f4c4ccb"


@pytest.mark.parametrize(
    ("key", "value", "hex_bytes"),
    [
        (None, None, "474c5031" "ffffffff" "ffffffff" "00000000"),
        (b"", b"", "474c5031" "00000000" "00000000" "00000000"),
        (None, b"", "474c5031" "ffffffff" "00000000" "00000000"),
        (b"", None, "474c5031" "00000000" "ffffffff" "00000000"),
    ],
)  # fmt: skip
def test_null_and_empty_are_not_the_same(key: bytes | None, value: bytes | None, hex_bytes: str) -> None:
    assert payload_hashes([key], [value], [NO_HEADERS])[0].hex() == sha(hex_bytes)


def test_headers_keep_their_order_and_distinguish_null_from_empty() -> None:
    encodings = {
        encode_headers(headers)
        for headers in (
            [("a", b"1"), ("b", b"2")], [("b", b"2"), ("a", b"1")], [("a", None)], [("a", b"")], [("", b"a")], [],
        )
    }  # fmt: skip
    assert len(encodings) == 6
    assert encode_headers(None) == encode_headers([]) == NO_HEADERS == bytes(4)
    assert encode_headers([("é", b"")]).hex() == "0000000100000002c3a900000000"


def test_genesis_binds_origin_topic_offset_and_the_epoch_before() -> None:
    assert GENESIS.hash().hex() == sha(GENESIS_BYTES)
    assert GENESIS.hash().hex() == "71f9790ec6ed594b7be63e3a679351262a988881f64a11ddcb365e49e0b37bd9"
    others = [
        Genesis(ORIGIN[:-1] + "1", bytes(range(16)), 7),
        Genesis(ORIGIN, bytes(16), 7),
        Genesis(ORIGIN, bytes(range(16)), 8),
        Genesis(ORIGIN, bytes(range(16)), 7, 1),
        Genesis(ORIGIN, bytes(range(16)), 7, 0, b"\1" * 32),
    ]
    assert len({genesis.hash() for genesis in [GENESIS, *others]}) == 6


def test_leaf_of_entry_0() -> None:
    payload = bytes.fromhex(sha(PAYLOAD))
    assert len(bytes.fromhex(LEAF)) == 85
    expected = "adbebdaa432ad0a541f3d369a961f09c77dd3d5a1890eb48d7f8ea6ffcbd484f"
    assert leaf_hash(bytes.fromhex(LEAF)).hex() == sha("00" + LEAF) == expected
    [leaf] = chain(GENESIS.hash(), [1], [7], [1_700_000_000_123], [payload])
    assert leaf.hex() == expected


def test_a_time_before_1970_is_a_negative_number() -> None:
    data = b"GLE1" + bytes(1 + 32 + 8) + b"\xff" * 8 + bytes(32)
    assert chain(bytes(32), [0], [0], [-1], [bytes(32)]) == [leaf_hash(data)]


@pytest.mark.parametrize("origin", ["", "x" * 256, "é" * 128])
def test_an_origin_has_1_to_255_bytes(origin: str) -> None:
    with pytest.raises(ValueError, match="origin must be 1 to 255 bytes"):
        Genesis(origin, bytes(16), 0)


@pytest.mark.parametrize(("topic_id", "root"), [(bytes(15), bytes(32)), (bytes(16), bytes(31))])
def test_ids_and_roots_have_their_size(topic_id: bytes, root: bytes) -> None:
    with pytest.raises(ValueError, match="topic_id must be 16 bytes and previous_root 32"):
        Genesis(ORIGIN, topic_id, 0, 0, root)


def test_the_name_of_a_log() -> None:
    assert origin_of("prod.example.com", "access.lifecycle", 0) == ORIGIN


def _bytes(data: bytes | None) -> bytes:
    return b"\xff\xff\xff\xff" if data is None else struct.pack(">I", len(data)) + data


_blob = st.none() | st.binary(max_size=40)
_headers = st.none() | st.lists(st.tuples(st.text(max_size=5), _blob), max_size=4)
_record = st.tuples(
    _blob, _blob, _headers, st.integers(0, 255), st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1)
)


@given(st.binary(min_size=32, max_size=32), st.lists(_record, max_size=10))
def test_columns_hash_like_single_records(previous: bytes, records: list[tuple]) -> None:
    """The loop that the sealer uses against a second writing of the rule."""
    columns = [list(column) for column in zip(*records, strict=True)] or [[] for _ in range(6)]
    keys, values, headers, flags, offsets, times = columns
    payloads = payload_hashes(keys, values, [encode_headers(h) for h in headers])
    leaves = chain(previous, flags, offsets, times, payloads)
    for at, (key, value, header, flag, offset, time) in enumerate(records):
        body = b"GLP1" + _bytes(key) + _bytes(value) + struct.pack(">I", len(header or []))
        body += b"".join(_bytes(name.encode()) + _bytes(content) for name, content in header or [])
        assert payloads[at] == hashlib.sha256(body).digest()
        leaf = b"GLE1" + bytes([flag]) + previous + struct.pack(">Qq", offset, time) + payloads[at]
        previous = hashlib.sha256(b"\0" + leaf).digest()
        assert leaves[at] == previous
