"""A new epoch binds the last head of the epoch before, and both verifiers check it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import second_verifier

from grantledger.ledger.batch import SealedBatch, encode
from grantledger.ledger.entry import NO_HEADERS
from grantledger.ledger.keys import LogKeys
from grantledger.ledger.merkle import EMPTY_ROOT
from grantledger.verifier.kafka_source import KafkaEvidence, Record
from grantledger.verifier.logs import VerifiedLog, check_epochs
from grantledger.verifier.procedure import verify
from support.small_ledger import GENESIS, SIGNER, Entry, seal_parts

ENTRIES: list[Entry] = [(1, offset, 5, b"k", b"v", NO_HEADERS) for offset in range(10, 15)]
BEFORE, HEAD = seal_parts([ENTRIES[:3], ENTRIES[3:]])
RIGHT = replace(GENESIS, origin=GENESIS.origin[:-1] + "1", previous_size=HEAD.size, previous_root=HEAD.frontier.root())


def verified(batches: list[SealedBatch]) -> list[str]:
    records = [Record("access.lifecycle.sealed", 0, at, encode(batch)) for at, batch in enumerate(batches)]
    evidence = KafkaEvidence("test.example", records, [])
    return [problem.message for problem in verify(evidence, LogKeys.single(SIGNER.public_key)).problems]


def accepted_by_the_second(batches: list[SealedBatch]) -> bool:
    logs: dict[str, second_verifier.Log] = {}
    for batch in map(second_verifier.read_batch, map(encode, batches)):
        log = logs.setdefault(batch["origin"], second_verifier.Log(batch))
        list(log.add(batch, SIGNER.public_key))
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
