"""A new epoch binds the last head of the epoch before, and both verifiers check it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest
import second_verifier

from grantledger.ledger.anchor import Anchor, anchor_origin, append_anchor, encode_anchor
from grantledger.ledger.batch import SealedBatch, encode
from grantledger.ledger.entry import NO_HEADERS
from grantledger.ledger.keys import LogKeys
from grantledger.ledger.merkle import EMPTY_ROOT, Frontier
from grantledger.ledger.note import Checkpoint
from grantledger.verifier.anchors import verify_anchors
from grantledger.verifier.kafka_source import KafkaEvidence, PlacedRecord
from grantledger.verifier.logs import VerifiedLog, check_epochs
from grantledger.verifier.procedure import verify
from grantledger.verifier.scratch import Scratch
from support.small_ledger import GENESIS, SIGNER, Entry, seal_parts

KEY = SIGNER.public_key
ENTRIES: list[Entry] = [(1, offset, 5, b"k", b"v", NO_HEADERS) for offset in range(10, 15)]
BEFORE, HEAD = seal_parts([ENTRIES[:3], ENTRIES[3:]])
RIGHT = replace(GENESIS, origin=GENESIS.origin[:-1] + "1", previous_size=HEAD.size, previous_root=HEAD.frontier.root())


def verified(batches: list[SealedBatch]) -> list[str]:
    records = [PlacedRecord("access.lifecycle.sealed", 0, at, encode(batch)) for at, batch in enumerate(batches)]
    evidence = KafkaEvidence("test.example", records, [])
    return [problem.message for problem in verify(evidence, LogKeys.single(SIGNER.public_key)).problems]


def accepted_by_the_second(batches: list[SealedBatch]) -> bool:
    logs: dict[str, second_verifier.Log] = {}
    for batch in map(second_verifier.read_batch, map(encode, batches)):
        log = logs.setdefault(batch["origin"], second_verifier.Log(batch))
        list(log.add(batch, second_verifier.Keys([(SIGNER.public_key, {})])))
    try:
        second_verifier.check_epochs(logs)
    except second_verifier.UnsoundError:
        return False
    return True


def test_the_next_epoch_binds_the_last_head() -> None:
    after, _ = seal_parts([ENTRIES[:2]], RIGHT)
    assert verified(BEFORE + after) == []
    assert accepted_by_the_second(BEFORE + after)
    assert verified(after) == []  # Kafka lost the epoch before, so a new one was opened


@pytest.mark.parametrize(
    "wrong",
    [{"previous_size": 3}, {"previous_root": bytes(32)}, {"previous_size": 0, "previous_root": bytes(32)}],
)
def test_another_head_is_found(wrong: dict[str, object]) -> None:
    after, _ = seal_parts([ENTRIES[:2]], replace(RIGHT, **wrong))  # type: ignore[arg-type]
    assert verified(BEFORE + after) == ["its genesis does not bind the last head of the epoch before"]
    assert not accepted_by_the_second(BEFORE + after)


def both(batches: list[SealedBatch], made: list[Anchor]) -> bool:
    """Whether the ledger in Kafka is sound: both verifiers agree."""
    records = [PlacedRecord("access.lifecycle.sealed", 0, at, encode(batch)) for at, batch in enumerate(batches)]
    anchored = [PlacedRecord("access.anchors", 0, at, encode_anchor(anchor)) for at, anchor in enumerate(made)]
    ours = verify(KafkaEvidence("test.example", records, anchored), LogKeys.single(SIGNER.public_key)).sound
    try:
        second_verifier.verify([encode(one) for one in batches] + [encode_anchor(one) for one in made], KEY)
        theirs = True
    except second_verifier.UnsoundError:
        theirs = False
    assert ours == theirs
    return ours


def anchor_log(count: int, *heads: Checkpoint, epoch: int = 0) -> list[Anchor]:
    frontier, made = Frontier(), []
    for number in range(count):
        origin = anchor_origin("test.example", epoch)
        anchor, frontier = append_anchor(frontier, origin, number, heads, SIGNER)
        made.append(anchor)
    return made


AFTER, NEXT = seal_parts([[], ENTRIES[:2]], RIGHT)
BOUND = Checkpoint(GENESIS.origin, HEAD.size, HEAD.frontier.root())


def test_anchors_cover_the_end_of_an_epoch_that_kafka_lost() -> None:
    lost = BEFORE[:1] + AFTER
    assert both(lost, []) and both(AFTER, [])
    for head in (
        BOUND,
        BEFORE[0].verified_head(KEY).checkpoint(),
        Checkpoint(GENESIS.origin, HEAD.size - 1, bytes(32)),
    ):
        assert both(lost, anchor_log(2, head))
    for head in (replace(BOUND, root=bytes(32)), replace(BOUND, size=BOUND.size + 1)):
        assert not both(lost, anchor_log(2, head))
        assert not both(AFTER, anchor_log(1, head))
    assert both(BEFORE + AFTER, anchor_log(2, BOUND))
    assert not both(BEFORE[:1], anchor_log(1, BOUND))  # no epoch explains it


def test_the_report_names_entries_that_kafka_lost() -> None:
    records = [PlacedRecord("access.lifecycle.sealed", 0, at, encode(one)) for at, one in enumerate(BEFORE[:1] + AFTER)]
    report = verify(KafkaEvidence("test.example", records, []), LogKeys.single(KEY))
    assert report.sound and report.lost == {GENESIS.origin: 2}
    assert any("2 entries at its end are not in Kafka" in line for line in report.as_text())


def test_a_new_epoch_of_the_anchor_log_covers_the_head_of_the_one_before() -> None:
    first = anchor_log(3, BOUND)
    head = first[-1].head()
    good = anchor_log(2, BOUND, head, epoch=1)
    assert both(BEFORE, first + good)
    assert both(BEFORE, good)  # the topic was lost
    assert both(BEFORE, first[1:] + good)  # the anchors that only the file had were written again
    assert both(BEFORE, first[:2] + good)  # and here the file has more than the topic
    for wrong in (
        anchor_log(1, BOUND, epoch=1),
        anchor_log(1, BOUND, replace(head, root=bytes(32)), epoch=1),
        anchor_log(1, BOUND, first[1].head(), epoch=1),
        anchor_log(1, BOUND, head, epoch=2),
        good[1:],
        anchor_log(3, BOUND)[1:],
    ):
        assert not both(BEFORE, first + wrong)
    assert not both(BEFORE, first[1:])


def test_in_the_store_nothing_of_the_anchor_log_may_be_missing() -> None:
    first = anchor_log(2, BOUND)
    good = anchor_log(1, BOUND, first[-1].head(), epoch=1)
    log = VerifiedLog(GENESIS)
    log.roots.add(HEAD.size, HEAD.frontier.root())
    for made, sound in ((first + good, True), (good, False), (first[1:] + good, False)):
        with closing(Scratch()) as scratch:
            verified = verify_anchors(made, LogKeys.single(KEY), {GENESIS.origin: log}, "test.example", scratch)
        assert (verified.problem is None) == sound


def test_an_epoch_after_an_empty_one_binds_the_empty_tree() -> None:
    empty, _ = seal_parts([[]])
    right, _ = seal_parts([ENTRIES[:2]], replace(RIGHT, previous_size=0, previous_root=EMPTY_ROOT))
    assert verified(empty + right) == []
    assert accepted_by_the_second(empty + right)


def test_epoch_0_names_none_before_it() -> None:
    odd, _ = seal_parts([ENTRIES], replace(GENESIS, previous_size=1))
    assert verified(odd) == ["epoch 0 names an epoch before it"]
    assert not accepted_by_the_second(odd)


def test_the_store_keeps_every_epoch() -> None:
    """ClickHouse keeps the evidence of every epoch."""
    log = VerifiedLog(RIGHT)
    check_epochs({RIGHT.origin: log}, complete=True)
    assert log.problem is not None and log.problem.message == "the epoch before it is not here"
