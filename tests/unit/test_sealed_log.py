"""A sealed partition as its readers verify it: what is skipped, what stops it, and the findings about both."""

from __future__ import annotations

from dataclasses import dataclass, replace

from grantledger.kafka.cluster import Cluster
from grantledger.kafka.sealed_log import SealedBatchVerifier, SealedLogProblem, SealedLogs
from grantledger.kafka.sealed_log_findings import finding_about
from grantledger.ledger.batch import SealedBatch, encode
from grantledger.ledger.entry import NO_HEADERS
from grantledger.ledger.keys import LogKeys
from support.small_ledger import GENESIS, SIGNER, Entry, seal_parts

ENTRIES: list[Entry] = [(1, offset, 5, b"k", b"v", NO_HEADERS) for offset in range(10, 22)]
BATCHES, _ = seal_parts([ENTRIES[:4], ENTRIES[4:8], ENTRIES[8:]])
TOPIC, PARTITION = GENESIS.origin.split("/")[1], 0


@dataclass
class Record:
    """The part of a Kafka message that a reader uses."""

    number: int
    content: bytes | None

    def value(self) -> bytes | None:
        return self.content

    def offset(self) -> int:
        return self.number

    def timestamp(self) -> tuple[int, int]:
        return 2, 1_700_000_000_000 + self.number


def read(
    *values: bytes | None, begin: int = 0
) -> tuple[list[SealedBatch], list[SealedLogProblem], SealedBatchVerifier]:
    problems: list[SealedLogProblem] = []
    keys = LogKeys.single(SIGNER.public_key)
    verifier = SealedBatchVerifier(
        SealedLogs(Cluster({}), "test.example", keys, problems.append), TOPIC, PARTITION, begin=begin
    )
    found = [verifier.accept(Record(offset, value)) for offset, value in enumerate(values, begin)]  # type: ignore[arg-type]
    return [verified.batch for verified in found if verified is not None], problems, verifier


def test_a_sound_log_is_read_without_a_problem() -> None:
    assert read(*map(encode, BATCHES))[:2] == (BATCHES, [])


def test_records_without_a_valid_note_are_skipped() -> None:
    forged = replace(BATCHES[1], values=BATCHES[1].values[:-1] + b"w")
    foreign = seal_parts([ENTRIES], replace(GENESIS, origin=GENESIS.origin.replace("test.", "evil.")))[0][0]
    unsigned = replace(BATCHES[0], note=BATCHES[0].note.replace(BATCHES[0].note[-20:-10], "A" * 10))
    bad = [b"no batch", None, encode(forged), encode(foreign), encode(unsigned)]
    found, problems, partition = read(encode(BATCHES[0]), *bad, *map(encode, BATCHES[1:]))
    assert found == BATCHES and not partition.stopped
    assert [(problem.rule, problem.offset) for problem in problems] == [
        ("sealed_record_invalid", n) for n in range(1, 6)
    ]


def test_a_signed_batch_that_does_not_continue_the_log_stops_the_partition() -> None:
    found, problems, partition = read(*map(encode, (BATCHES[0], BATCHES[2], BATCHES[1])))
    assert found == BATCHES[:1] and partition.stopped
    assert [(problem.rule, problem.offset) for problem in problems] == [("sealed_log_discontinuous", 1)]
    assert partition.head is not None and partition.head.size == BATCHES[0].size


def test_reading_continues_after_the_last_record_with_a_valid_note() -> None:
    problems: list[SealedLogProblem] = []
    keys = LogKeys.single(SIGNER.public_key)
    verifier = SealedBatchVerifier(SealedLogs(Cluster({}), "test.example", keys, problems.append), TOPIC, PARTITION)
    records = [Record(offset, value) for offset, value in enumerate([*map(encode, BATCHES[:2]), b"no batch", None])]
    found = verifier.start_after(reversed(records))  # type: ignore[arg-type]
    assert found is not None and (found.batch, found.offset, found.head.size) == (BATCHES[1], 1, 8)
    assert [(problem.rule, problem.offset) for problem in problems] == [
        ("sealed_record_invalid", 3), ("sealed_record_invalid", 2)
    ]  # fmt: skip
    verified = verifier.accept(Record(4, encode(BATCHES[2])))  # type: ignore[arg-type]
    assert verified is not None and verified.head.size == 12 and not verifier.stopped


def test_a_log_whose_first_batches_are_missing_is_read_only_where_retention_deleted_them() -> None:
    rest = [encode(batch) for batch in BATCHES[1:]]
    assert read(*rest, begin=3)[0] == BATCHES[1:]
    found, problems, verifier = read(*rest)
    assert found == [] and verifier.stopped and problems[0].rule == "sealed_log_discontinuous"


def test_readers_with_different_heads_report_one_finding() -> None:
    stale = encode(BATCHES[0])
    problems = [read(*map(encode, BATCHES), stale)[1][0], read(encode(BATCHES[0]), b"", b"", stale)[1][-1]]
    assert problems[0].reason != problems[1].reason and problems[0].offset == problems[1].offset == 3
    events = [finding_about("test.example", problem) for problem in problems]
    assert replace(events[0], salt=None) == replace(events[1], salt=None)
    assert events[0].event_id == events[1].event_id
    assert events[0].finding is not None and events[0].finding.severity == "critical"
    assert finding_about("test.example", replace(problems[0], offset=4)).event_id != events[0].event_id


def test_a_discontinuity_is_skipped_once_a_person_has_opened_a_later_epoch() -> None:
    """The forged batch stays in the topic. The genesis of the new epoch shows which branch the person chose."""
    head = BATCHES[1].verified_head(SIGNER.public_key)
    fork, _ = seal_parts([ENTRIES[:8], ENTRIES[8:]], replace(GENESIS, first_offset=9))
    forged = replace(fork[1], genesis=GENESIS)
    stray = BATCHES[2]
    bound = replace(
        GENESIS, origin=GENESIS.origin[:-1] + "1", previous_size=head.size, previous_root=head.frontier.root()
    )
    after, _ = seal_parts([[], ENTRIES[:2]], bound)
    values = [*map(encode, (BATCHES[0], stray, forged, BATCHES[1], *after))]
    for last_epoch, expected in ((1, [*BATCHES[:2], *after]), (0, BATCHES[:1])):
        problems: list[SealedLogProblem] = []
        logs = SealedLogs(Cluster({}), "test.example", LogKeys.single(SIGNER.public_key), problems.append)
        verifier = SealedBatchVerifier(logs, TOPIC, PARTITION, last_epoch=lambda epoch=last_epoch: epoch)
        found = [verifier.accept(Record(at, value)) for at, value in enumerate(values)]  # type: ignore[arg-type]
        assert [one.batch for one in found if one is not None] == expected
        assert verifier.stopped == (last_epoch == 0)
        assert ("sealed_log_discontinuous", 1) in [(one.rule, one.offset) for one in problems]
