"""Sealed batches: they decode to what was encoded, batch boundaries do not change the ledger, corruption is refused."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.base.times import micros_of
from grantledger.ledger import packing
from grantledger.ledger.batch import (
    BatchError,
    Head,
    Records,
    SealedBatch,
    decode,
    encode,
    leaf_at,
    seal,
)
from grantledger.ledger.entry import NO_HEADERS, Genesis
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.merkle import root_of
from grantledger.schemas.framing import confluent_prefix
from support.small_ledger import GENESIS, SIGNER, START, cut, entries, records_of, seal_parts

KEY = SIGNER.public_key


def small() -> SealedBatch:
    records = Records([1, 0], [7, 9], [1, -2], [b"k", None], [b"", b"value"], [NO_HEADERS, NO_HEADERS])
    return seal(Head.at_genesis(GENESIS), records, 12, START, SIGNER)[0]


@given(entries())
def test_a_batch_comes_back_as_it_was_written(found) -> None:
    (batch,), head = seal_parts([found])
    again = decode(encode(batch))
    assert again == batch
    assert again.records() == records_of(found)
    assert again.verified_head(KEY).checkpoint() == head.checkpoint()
    assert again.sealed_at.tzinfo is UTC


@given(entries(max_size=30), st.lists(st.integers(0, 7), min_size=1, max_size=5))
def test_entries_and_roots_do_not_depend_on_where_batches_are_cut(found, sizes: list[int]) -> None:
    (whole,), expected = seal_parts([found])
    batches, head = seal_parts(cut(found, sizes))
    assert b"".join(batch.leaf_hashes for batch in batches) == whole.leaf_hashes
    assert b"".join(batch.payload_hashes for batch in batches) == whole.payload_hashes
    assert head.checkpoint() == expected.checkpoint()
    assert head.frontier.pack() == expected.frontier.pack()
    if found:
        assert head.last_leaf == expected.last_leaf
    leaves = packing.unpack_hashes(whole.leaf_hashes)
    for batch in batches:
        assert batch.verified_head(KEY).checkpoint().root == root_of(leaves[: batch.size])


@given(entries(min_size=1), st.integers(0, 20))
def test_sealing_goes_on_from_a_batch_that_was_read_back(found, at: int) -> None:
    """A new process has nothing but the last batch."""
    at = min(at, len(found))
    (first,), _ = seal_parts([found[:at]])
    head = decode(encode(first)).verified_head(KEY)
    second, head = seal(head, records_of(found[at:]), found[-1][1] + 1, START, SIGNER)
    _, expected = seal_parts([found])
    assert head.checkpoint() == expected.checkpoint()
    assert second.previous_leaf_hash == first.last_leaf


def test_an_empty_batch_restates_the_head() -> None:
    batch = small()
    head = batch.verified_head(KEY)
    empty, after = seal(head, Records(), head.next_offset, START + timedelta(days=1), SIGNER)
    assert (empty.count, empty.size, empty.last_leaf) == (0, 2, batch.last_leaf)
    assert after == dataclasses.replace(head, frontier=after.frontier)
    assert decode(encode(empty)).verified_head(KEY).checkpoint() == head.checkpoint()


def test_a_log_begins_with_its_genesis_hash() -> None:
    head = Head.at_genesis(GENESIS)
    assert (head.size, head.last_leaf, head.next_offset) == (0, GENESIS.hash(), 7)
    empty, _ = seal(head, Records(), 7, START, SIGNER)
    assert empty.last_leaf == GENESIS.hash()
    assert empty.verified_head(KEY).checkpoint().size == 0


def test_times_are_exact_to_the_microsecond_and_do_not_depend_on_the_zone() -> None:
    time = datetime(2262, 4, 11, 23, 47, 16, 854_775, tzinfo=UTC)
    assert micros_of(time) == 9_223_372_036_854_775
    assert micros_of(time.astimezone(timezone(timedelta(hours=5, minutes=30)))) == micros_of(time)
    batch, _ = seal(Head.at_genesis(GENESIS), Records(), 7, time, SIGNER)
    assert decode(encode(batch)).sealed_at == time


@given(st.data())
def test_a_changed_batch_is_refused_or_reads_as_another(data: st.DataObject) -> None:
    """Corrupt bytes give BatchError and nothing else; what still reads is not what was written."""
    value = encode(small())
    at = data.draw(st.integers(0, len(value) - 1))
    cut_off = data.draw(st.integers(0, 4))
    changed = value[:at] + data.draw(st.binary(max_size=6)) + value[at + cut_off :]
    try:
        batch = decode(changed)
        batch.records()
        batch.genesis.hash()
        batch.verified_head(KEY)
    except BatchError:
        return
    assert (batch == small()) == (changed == value)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(value: bytes) -> None:
    for prefix in (b"", encode(small())[:10]):
        with pytest.raises(BatchError):
            decode(prefix + value)


def test_every_truncation_and_every_addition_is_refused() -> None:
    value = encode(small())
    for end in range(len(value)):
        with pytest.raises(BatchError):
            decode(value[:end])
    with pytest.raises(BatchError, match="1 bytes follow the datum"):
        decode(value + b"\0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": -1}, "count is -1"),
        ({"count": 3}, "column flags has the wrong length"),
        ({"first_index": -2}, "first_index is -2"),
        ({"next_offset": -1}, "next_offset is -1"),
        ({"genesis": Genesis(GENESIS.origin, GENESIS.topic_id, -1)}, "first_offset is -1"),
        ({"genesis": Genesis(GENESIS.origin, GENESIS.topic_id, 0, -1)}, "previous_size is -1"),
        ({"offsets": bytes(15)}, "column offsets has the wrong length"),
        ({"leaf_hashes": bytes(65)}, "column leaf_hashes has the wrong length"),
    ],
)
def test_columns_that_make_no_sense_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(BatchError, match=message):
        decode(encode(dataclasses.replace(small(), **changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"keys": b""},
        {"values": b"value!"},
        {"key_lengths": packing.pack(packing.U32, [2, packing.NULL])},
        {"value_lengths": packing.pack(packing.U32, [0, 2**32 - 2])},
        {"header_lengths": packing.pack(packing.U32, [packing.NULL, 4]), "headers": NO_HEADERS},
        {"header_lengths": packing.pack(packing.U32, [0, 4]), "headers": NO_HEADERS},
    ],
)
def test_lengths_that_do_not_add_up_are_refused(changes: dict) -> None:
    batch = decode(encode(dataclasses.replace(small(), **changes)))
    with pytest.raises(BatchError, match=r"batch of test\.example/access\.lifecycle/0/0 at index 0"):
        batch.records()


@pytest.mark.parametrize(
    "changes",
    [
        {"frontier": bytes(32)},
        {"frontier": b""},
        {"first_index": 1, "frontier": bytes(64)},
        {"sealed_at": START + timedelta(microseconds=1)},
        {"note": ""},
        {"note": "x"},
        {"genesis": Genesis(GENESIS.origin[:-1] + "1", GENESIS.topic_id, 7)},
    ],
)
def test_a_head_that_is_not_the_signed_one_is_refused(changes: dict) -> None:
    with pytest.raises(BatchError):
        decode(encode(dataclasses.replace(small(), **changes))).verified_head(KEY)


def test_a_head_signed_with_another_key_is_refused() -> None:
    with pytest.raises(BatchError, match="has no signature by the given key"):
        small().verified_head(LocalSigner.generate().public_key)


def test_another_schema_is_no_sealed_batch() -> None:
    with pytest.raises(BatchError, match="not a sealed batch: schema id 0000000001"):
        decode(confluent_prefix(1) + encode(small())[10:])
    with pytest.raises(BatchError, match="value is empty"):
        decode(b"")


def test_leaves_by_index() -> None:
    batch = small()
    assert leaf_at(batch, 1) == batch.last_leaf
    assert leaf_at(batch, 0) == batch.leaf_hashes[:32]
    for index in (-1, 2):
        with pytest.raises(IndexError):
            leaf_at(batch, index)


@given(st.lists(st.none() | st.binary(max_size=5)))
def test_blobs_come_back(blobs: list[bytes | None]) -> None:
    lengths, joined = packing.pack_blobs(blobs)
    assert packing.unpack_blobs(lengths, joined) == blobs


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.lists(st.integers(0, 2**64 - 1)))
def test_packed_integers_are_big_endian(signed: list[int], unsigned: list[int]) -> None:
    assert packing.pack(packing.I64, signed) == b"".join(number.to_bytes(8, "big", signed=True) for number in signed)
    assert packing.unpack(packing.I64, packing.pack(packing.I64, signed)) == signed
    assert packing.pack(packing.U64, unsigned) == b"".join(number.to_bytes(8, "big") for number in unsigned)
    assert packing.unpack(packing.U64, packing.pack(packing.U64, unsigned)) == unsigned
