"""Evidence in Kafka: the sealed topics and the anchor topic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from ..kafka.cluster import Cluster
from ..kafka.identity import identify_topics
from ..kafka.offsets import end_offset, first_offset
from ..kafka.records import read_range
from ..ledger.anchor import Anchor, AnchorError, decode_anchor
from ..ledger.batch import BatchError, SealedBatch, decode
from ..ledger.key_change import SUBJECT, KeyChange, key_change
from ..ledger.keys import LogKeys
from ..ledger.log_verifier import DiscontinuityError, LogVerifier
from ..ledger.source_keys import KEY_PREFIX, SourceKeys, signed_records
from ..schemas.event import FINDINGS_TOPIC
from ..schemas.topics import ANCHORS_TOPIC, SEALED_TOPICS, sealed
from .logs import VerifiedLog, VerifiedRoots, kind_of
from .procedure import Progress
from .report import VerifyReport
from .scratch import Scratch
from .steps import Kind, Problem

FINDINGS = sealed(FINDINGS_TOPIC)


class PlacedRecord(NamedTuple):
    """One Kafka record: its place and its value."""

    topic: str
    partition: int
    offset: int
    value: bytes

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition} offset {self.offset}"


@dataclass(slots=True)
class PartitionRecords:
    """The records that a partition has when they are first read. Iterating again returns the same ones."""

    cluster: Cluster
    topic: str
    partition: int
    _end: int | None = None

    def __iter__(self) -> Iterator[PlacedRecord]:
        begin = first_offset(self.cluster, self.topic, self.partition)
        if self._end is None:
            self._end = end_offset(self.cluster, self.topic, self.partition)
        for message in read_range(self.cluster, self.topic, self.partition, begin, self._end):
            yield PlacedRecord(self.topic, self.partition, message.offset() or 0, message.value() or b"")


@dataclass(slots=True)
class DecodedAnchors:
    """The anchors in records. When they are first read, each record without an anchor is reported as a problem."""

    records: Iterable[PlacedRecord]
    report: VerifyReport | None

    def __iter__(self) -> Iterator[Anchor]:
        report, self.report = self.report, None
        for record in self.records:
            try:
                yield decode_anchor(record.value)
            except AnchorError as error:
                if report is not None:
                    report.add(Problem(str(record), None, "anchor", str(error)))


@dataclass(frozen=True, slots=True)
class KafkaEvidence:
    """Records of the sealed topics, each partition in order of offset, and of the anchor topic, to be read twice."""

    deployment: str
    sealed: Iterable[PlacedRecord]
    anchors: Iterable[PlacedRecord]
    name: ClassVar[str] = "kafka"
    complete_epochs: ClassVar[bool] = False
    complete_anchors: ClassVar[bool] = True
    since: ClassVar[None] = None

    @classmethod
    def on_brokers(cls, deployment: str, cluster: Cluster) -> KafkaEvidence:
        """Return the evidence on a cluster, read when it is verified: KafkaUnavailableError is raised then."""

        def sealed() -> Iterator[PlacedRecord]:
            for topic, identity in identify_topics(cluster, SEALED_TOPICS).items():
                for partition in range(identity.partitions):
                    yield from PartitionRecords(cluster, topic, partition)

        return cls(deployment, sealed(), PartitionRecords(cluster, ANCHORS_TOPIC, 0))

    def read_anchors(self, report: VerifyReport) -> Iterable[Anchor]:
        """Return the anchors, which are decoded each time they are read."""
        return DecodedAnchors(self.anchors, report)

    def verify_logs(
        self, keys: LogKeys, covered: Mapping[str, int], scratch: Scratch, report: VerifyReport, progress: Progress
    ) -> Mapping[str, VerifiedLog]:
        """Verify every record as all readers of sealed topics do, and keep the roots for the anchors."""
        verifiers: dict[tuple[str, int], LogVerifier] = {}
        stopped: set[tuple[str, int]] = set()
        logs: dict[str, VerifiedLog] = {}
        sources = SourceKeys(self.deployment)
        for record in self.sealed:
            place = (record.topic, record.partition)
            if place in stopped:
                continue
            log = f"{self.deployment}/{record.topic.removesuffix('.sealed')}/{record.partition}"
            try:
                # Step 1, Format: the record is a batch whose columns all have one member per entry.
                batch = decode(record.value)
                # Steps 2 to 8.
                head = verifiers.setdefault(place, LogVerifier(log, keys)).accept(batch)
            except DiscontinuityError as error:
                stopped.add(place)
                known = logs.setdefault(batch.origin, VerifiedLog(batch.genesis))
                known.problem = Problem(batch.origin, error.index, error.check, str(error))
            except BatchError as error:
                where = str(record) if error.index is None else batch.origin
                # A value that is not a batch has the check "batch"; after it, ``batch`` is that of another record.
                foreign = error.check == "origin" and not batch.origin.startswith(self.deployment + "/")
                kind: Kind = "deployment" if foreign else kind_of(error)
                report.add(Problem(where, error.index, error.check, str(error), kind))
            else:
                if batch.origin not in logs:
                    logs[batch.origin] = VerifiedLog(batch.genesis, VerifiedRoots(scratch.roots_of(batch.origin)))
                logs[batch.origin].roots.add(head.size, head.frontier.root())
                if record.topic == FINDINGS:
                    logs[batch.origin].key_changes += _key_changes(batch, sources)
                report.entries += batch.count
                progress(report.entries, 0)
        return logs


def _key_changes(batch: SealedBatch, sources: SourceKeys) -> Iterator[KeyChange]:
    """Yield the changes of the log key in the next batch of findings, and learn the sources that it registers."""
    if KEY_PREFIX not in batch.keys and SUBJECT.encode() not in batch.keys:
        return  # most batches
    for index, record in enumerate(signed_records(FINDINGS_TOPIC, batch.records()), batch.first_index):
        sources.learn(record)
        if (change := key_change(record, batch.origin, index, sources)) is not None:
            yield change
