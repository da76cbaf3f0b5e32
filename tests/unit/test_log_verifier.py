"""Readers of a sealed topic skip unsigned records and stop at discontinuities."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta

import pytest

from grantledger.ledger.batch import SealedBatch, seal
from grantledger.ledger.entry import NO_HEADERS, Genesis
from grantledger.ledger.keys import LocalSigner, LogKey, LogKeys
from grantledger.ledger.log_verifier import DiscontinuityError, InvalidNoteError, LogVerifier, check_hashes
from grantledger.ledger.merkle import Frontier
from support.small_ledger import GENESIS, SIGNER, START, Entry, records_of, seal_parts

LOG = GENESIS.origin[:-2]
KEYS = LogKeys.single(SIGNER.public_key)
ENTRIES: list[Entry] = [(1, 8 + 2 * at, at, b"k", b"v%d" % at, NO_HEADERS) for at in range(9)]
BATCHES, HEAD = seal_parts([ENTRIES[:3], ENTRIES[3:6], [], ENTRIES[6:]])


def reader(count: int = 0, keys: LogKeys = KEYS) -> LogVerifier:
    """A reader that has accepted some batches."""
    verifier = LogVerifier(LOG, keys)
    for batch in BATCHES[:count]:
        verifier.accept(batch)
    return verifier


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def test_sound_batches_are_accepted() -> None:
    verifier = reader(4)
    assert verifier.head is not None
    assert (verifier.head.checkpoint(), verifier.head.next_offset) == (HEAD.checkpoint(), HEAD.next_offset)


CHANGES = {
    "genesis": replace(GENESIS, first_offset=6),
    "first_index": 4,
    "count": 2,
    "next_offset": 99,
    "sealed_at": START + timedelta(hours=1),
    "note": BATCHES[0].note,
}


@pytest.mark.parametrize("field", [field.name for field in fields(SealedBatch)])
def test_a_changed_field_is_never_accepted_and_the_sealed_batch_still_is(field: str) -> None:
    verifier = reader(1)
    changed = replace(BATCHES[1], **{field: CHANGES.get(field) or flipped(getattr(BATCHES[1], field))})
    with pytest.raises(InvalidNoteError):
        verifier.accept(changed)
    assert verifier.accept(BATCHES[1]).size == 6


@pytest.mark.parametrize(
    ("number", "field"),
    [(1, name) for name in ("first_index", "count", "next_offset", "sealed_at", "note", "frontier", "leaf_hashes")]
    + [(2, "previous_leaf_hash")],
)
def test_no_reader_starts_at_a_changed_batch(number: int, field: str) -> None:
    batch = BATCHES[number]
    changed = replace(batch, **{field: CHANGES.get(field) or flipped(getattr(batch, field))})
    verifier = LogVerifier(LOG, KEYS, check=check_hashes)
    with pytest.raises(InvalidNoteError):
        verifier.start_at(changed)
    assert verifier.start_at(batch).size == batch.size


def test_another_genesis_than_the_one_in_entry_0_is_not_signed() -> None:
    with pytest.raises(InvalidNoteError, match="not the genesis hash"):
        reader().accept(replace(BATCHES[0], genesis=replace(GENESIS, first_offset=6)))


def test_a_changed_payload_names_the_entry() -> None:
    with pytest.raises(InvalidNoteError) as caught:
        reader(1).accept(replace(BATCHES[1], values=flipped(BATCHES[1].values)))
    assert (caught.value.check, caught.value.index) == ("payload", 5)


def test_a_reader_that_only_stores_checks_the_leaves() -> None:
    verifier = LogVerifier(LOG, KEYS, check=check_hashes)
    verifier.accept(replace(BATCHES[0], values=flipped(BATCHES[0].values)))
    with pytest.raises(InvalidNoteError, match="not the sealed ones"):
        verifier.accept(replace(BATCHES[1], offsets=flipped(BATCHES[1].offsets)))


@pytest.mark.parametrize(("accepted", "following", "index"), [(0, 1, 0), (1, 3, 3), (2, 1, 3), (4, 0, 0), (1, 2, 3)])
def test_a_batch_out_of_place_stops_the_partition(accepted: int, following: int, index: int) -> None:
    verifier = reader(accepted)
    before = verifier.head
    with pytest.raises(DiscontinuityError) as caught:
        verifier.accept(BATCHES[following])
    assert (caught.value.check, caught.value.index, verifier.head) == ("index", index, before)


def test_a_fork_by_the_keys_holder_stops_the_partition() -> None:
    head = reader(1).head
    assert head is not None
    twin = replace(head, last_leaf=bytes(32))
    for fork, check in ((twin, "chain"), (replace(head, frontier=Frontier.unpack(2, bytes(32))), "index")):
        batch, _ = seal(fork, records_of(ENTRIES[3:6]), 30, START, SIGNER)
        with pytest.raises(DiscontinuityError) as caught:
            reader(1).accept(batch)
        assert caught.value.check == check
    other, _ = seal_parts([[(1, 8, 0, b"k", b"other", NO_HEADERS), *ENTRIES[1:3]]])
    forked = replace(other[0].verified_head(SIGNER.public_key), last_leaf=head.last_leaf)
    forged, _ = seal(forked, records_of(ENTRIES[3:6]), 30, START, SIGNER)
    with pytest.raises(DiscontinuityError, match="not the head of the entries"):
        reader(1).accept(forged)


@pytest.mark.parametrize("offsets", [(12, 16, 18), (14, 14, 18), (18, 16, 20), (14, 16, 30)])
def test_offsets_must_increase_up_to_the_next_offset(offsets: tuple[int, ...]) -> None:
    head = reader(1).head
    assert head is not None and head.next_offset == 13
    found = [(1, offset, 0, b"k", b"v", NO_HEADERS) for offset in offsets]
    batch, _ = seal(head, records_of(found), 30, START, SIGNER)
    with pytest.raises((InvalidNoteError, DiscontinuityError)) as caught:
        reader(1).accept(batch)
    assert caught.value.check == "offset"


def test_a_batch_of_another_log_is_skipped() -> None:
    """A signed batch copied from another partition must not stop this one."""
    with pytest.raises(InvalidNoteError):
        LogVerifier("test.example/access.activity/0", KEYS).accept(BATCHES[0])


def test_a_new_epoch_binds_the_last_head() -> None:
    right = replace(GENESIS, origin=f"{LOG}/1", previous_size=HEAD.size, previous_root=HEAD.frontier.root())
    for genesis, accepted in ((right, True), (replace(right, previous_size=8), False),
                              (replace(right, origin=f"{LOG}/2"), False)):  # fmt: skip
        batch = seal_parts([ENTRIES], genesis)[0][0]
        verifier = reader(4)
        if accepted:
            assert verifier.accept(batch).size == 9
            with pytest.raises(DiscontinuityError):
                verifier.accept(BATCHES[3])
        else:
            with pytest.raises(DiscontinuityError):
                verifier.accept(batch)


def test_a_new_epoch_may_bind_entries_that_kafka_lost() -> None:
    """A person bound the head of the store or of an anchor, which is further than the sealed topic."""
    further = replace(GENESIS, origin=f"{LOG}/1", previous_size=HEAD.size + 5, previous_root=bytes(32))
    assert reader(4).accept(seal_parts([ENTRIES], further)[0][0]).size == 9


def test_after_a_head_that_was_not_verified_a_new_epoch_may_bind_another() -> None:
    """Reading may begin right after a forged batch. The epoch after it binds the head before the forged batch."""
    earlier = replace(GENESIS, origin=f"{LOG}/1", previous_size=3, previous_root=BATCHES[0].frontier[:32])
    batch = seal_parts([ENTRIES], earlier)[0][0]
    verifier = LogVerifier(LOG, KEYS)
    verifier.start_at(BATCHES[1])
    assert verifier.accept(batch).size == 9
    with pytest.raises(DiscontinuityError):
        reader(2).accept(batch)


def test_a_reader_may_begin_in_the_middle() -> None:
    verifier = LogVerifier(LOG, KEYS)
    with pytest.raises(InvalidNoteError):
        verifier.start_at(replace(BATCHES[1], values=flipped(BATCHES[1].values)))
    verifier.start_at(BATCHES[1])
    verifier.accept(BATCHES[2])
    assert verifier.accept(BATCHES[3]).checkpoint() == HEAD.checkpoint()


def test_each_key_signs_from_its_first_size_on() -> None:
    new = LocalSigner.generate()
    keys = LogKeys((LogKey(SIGNER.public_key), LogKey(new.public_key, {GENESIS.origin: 4})))
    verifier = reader(1, keys)
    with pytest.raises(InvalidNoteError):
        verifier.accept(BATCHES[1])
    assert verifier.head is not None
    batch, _ = seal(verifier.head, records_of(ENTRIES[3:6]), 19, START, new)
    assert verifier.accept(batch).size == 6
    assert keys.at("test.example/access.activity/7/0", 0) == new.public_key  # opened after the change


@pytest.mark.parametrize("origin", ["", "d/t/0", "d/t/0/01", "d/t/0/²", "d/t/x/0", "d/t/0/0\n", "d /t/0/0"])
def test_a_malformed_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="origin"):
        Genesis(origin, bytes(16), 0)
