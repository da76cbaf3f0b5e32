"""Where sealing resumes, and when it must not: the rules without a broker."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.kafka.identity import TopicIdentity
from grantledger.kafka.sealed_log import VerifiedBatch
from grantledger.ledger import batch as batches
from grantledger.ledger.batch import Head, Records
from grantledger.ledger.entry import NO_HEADERS, Genesis
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.note import Checkpoint
from grantledger.processors.partition_state import check_partition_counts
from grantledger.processors.resume import PartitionState, SealingStoppedError, resume

SIGNER = LocalSigner.generate()
TOPIC_ID = bytes(range(16))
NOW = datetime(2026, 3, 1, tzinfo=UTC)
ORIGIN = "d.example/access.lifecycle/0/0"
EMPTY = PartitionState(
    deployment="d.example", topic="access.lifecycle", partition=0, topic_id=TOPIC_ID, tail=None, sealed_begin=0,
    committed=None, stored=False, anchored=None, input_begin=0, input_end=0,
)  # fmt: skip


def sealed(
    count: int, *, first_offset: int = 0, origin: str = ORIGIN, next_offset: int | None = None
) -> PartitionState:
    """The state of a healthy partition with this many sealed records."""
    offsets = list(range(first_offset, first_offset + count))
    records = Records(
        [1] * count, offsets, [7] * count, [b"k"] * count, [b"%d" % offset for offset in offsets], [NO_HEADERS] * count
    )
    head = Head.at_genesis(Genesis(origin, TOPIC_ID, first_offset))
    end = next_offset if next_offset is not None else first_offset + count
    tail = VerifiedBatch(*batches.seal(head, records, end, NOW, SIGNER), offset=0)
    return replace(EMPTY, tail=tail, committed=end, input_begin=first_offset, input_end=end)


def stops(state: PartitionState) -> str:
    with pytest.raises(SealingStoppedError) as stop:
        resume(state)
    assert str(stop.value)
    return stop.value.rule


@given(st.integers(0, 1 << 40))
def test_a_log_begins_where_its_input_begins(begin: int) -> None:
    head = resume(replace(EMPTY, input_begin=begin, input_end=begin + 5))
    assert (head.size, head.next_offset) == (0, begin)
    assert head.genesis == Genesis(ORIGIN, TOPIC_ID, begin)


ANCHORED = Checkpoint(ORIGIN, 5, bytes(32))


@given(
    st.sampled_from([None, 0, 9]),
    st.booleans(),
    st.sampled_from([None, ANCHORED]),
    st.integers(0, 3),
    st.integers(0, 9),
)
def test_an_empty_log_with_any_trace_is_never_begun_again(
    committed: int | None, stored: bool, anchored: Checkpoint | None, sealed_begin: int, input_begin: int
) -> None:
    state = replace(
        EMPTY, committed=committed, stored=stored, anchored=anchored, sealed_begin=sealed_begin,
        input_begin=input_begin, input_end=input_begin,
    )  # fmt: skip
    if committed is not None or stored or anchored is not None or sealed_begin > 0:
        assert stops(state) == "sealed_topic_lost"
    else:
        assert resume(state).next_offset == input_begin


@given(st.integers(0, 5), st.integers(0, 50), st.integers(0, 3), st.integers(0, 9), st.booleans(), st.booleans())
def test_sealing_resumes_at_the_tail(
    count: int, first: int, gap: int, more: int, expired_group: bool, anchored: bool
) -> None:
    state = sealed(count, first_offset=first, next_offset=first + count + gap)
    assert state.tail is not None
    head = state.tail.head
    state = replace(
        state,
        committed=None if expired_group else state.committed,  # restored from the tail
        anchored=head.checkpoint() if anchored else None,
        stored=True,
        input_begin=head.next_offset,  # everything sealed has expired, and no more
        input_end=head.next_offset + more,
    )
    found = resume(state)
    assert (found.genesis, found.last_leaf, found.next_offset) == (head.genesis, head.last_leaf, head.next_offset)
    assert (found.size, found.frontier.pack()) == (head.size, head.frontier.pack())


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"committed": 4}, "offset_mismatch"),
        ({"committed": 6}, "offset_mismatch"),
        ({"topic_id": bytes(16)}, "topic_replaced"),
        ({"input_begin": 6, "input_end": 9}, "input_expired"),
        ({"input_end": 4}, "input_truncated"),
        ({"anchored": Checkpoint(ORIGIN, 6, bytes(32))}, "head_mismatch"),
        ({"anchored": Checkpoint(ORIGIN, 5, bytes(32))}, "head_mismatch"),
        ({"anchored": Checkpoint("d.example/access.lifecycle/0/1", 1, bytes(32))}, "head_mismatch"),
    ],
)
def test_a_contradiction_stops(change: dict[str, object], rule: str) -> None:
    assert stops(replace(sealed(5), **change)) == rule


def test_an_anchor_of_an_older_head_or_an_earlier_epoch_contradicts_nothing() -> None:
    assert resume(replace(sealed(5), anchored=Checkpoint(ORIGIN, 4, bytes(32)))).size == 5
    later_epoch = sealed(5, origin="d.example/access.lifecycle/0/1")
    assert resume(replace(later_epoch, anchored=Checkpoint(ORIGIN, 99, bytes(32)))).size == 5


@pytest.mark.parametrize(("of_input", "of_sealed"), [(6, 4), (4, 6), (0, 4)])
def test_another_partition_count_stops_that_topic_only(of_input: int, of_sealed: int) -> None:
    identities = {
        "access.activity": TopicIdentity(TOPIC_ID, of_input),
        "access.activity.sealed": TopicIdentity(TOPIC_ID, of_sealed),
        "access.lifecycle": TopicIdentity(TOPIC_ID, 1), "access.lifecycle.sealed": TopicIdentity(TOPIC_ID, 1),
    }  # fmt: skip
    check_partition_counts(identities, "access.lifecycle")
    with pytest.raises(SealingStoppedError, match=f"has {of_input} partitions, access.activity.sealed has") as stop:
        check_partition_counts(identities, "access.activity")
    assert stop.value.rule == "partition_count"
