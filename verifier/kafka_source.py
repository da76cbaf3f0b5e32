"""Evidence in Kafka: the sealed topics and the anchor topic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from ..kafka.cluster import Cluster
from ..kafka.identity import identify_topics
from ..kafka.records import read_whole
from ..ledger.anchor import Anchor, AnchorError, decode_anchor
from ..ledger.batch import BatchError, decode
from ..ledger.keys import LogKeys
from ..ledger.log_verifier import DiscontinuityError, LogVerifier
from ..schemas.topics import ANCHORS_TOPIC, SEALED_TOPICS
from .logs import VerifiedLog, kind_of
from .procedure import Progress, Wanted
from .report import Report
from .steps import Kind, Problem


class Record(NamedTuple):
    """One Kafka record: its place and its value."""

    topic: str
    partition: int
    offset: int
    value: bytes

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition} offset {self.offset}"


@dataclass(frozen=True, slots=True)
class KafkaEvidence:
    """Records of the sealed topics, each partition in order of offset, and of the anchor topic."""

    deployment: str
    sealed: Iterable[Record]
    anchors: Iterable[Record]
    name: ClassVar[str] = "kafka"
    complete_epochs: ClassVar[bool] = False
    complete_anchors: ClassVar[bool] = True

    @classmethod
    def on_brokers(cls, deployment: str, cluster: Cluster) -> KafkaEvidence:
        """Return the evidence on a cluster, read when it is verified: KafkaUnavailableError is raised then."""

        def sealed() -> Iterator[Record]:
            for topic, identity in identify_topics(cluster, SEALED_TOPICS).items():
                for partition in range(identity.partitions):
                    yield from _records(cluster, topic, partition)

        return cls(deployment, sealed(), _records(cluster, ANCHORS_TOPIC, 0))

    def read_anchors(self, report: Report) -> Sequence[Anchor]:
        """Decode the anchors."""
        found = []
        for record in self.anchors:
            try:
                found.append(decode_anchor(record.value))
            except AnchorError as error:
                report.add(Problem(str(record), None, "anchor", str(error)))
        return found

    def verify_logs(
        self, keys: LogKeys, covered: Mapping[str, int], wanted: Wanted, report: Report, progress: Progress
    ) -> Mapping[str, VerifiedLog]:
        """Verify every record as all readers of sealed topics do, and keep the roots for the anchors."""
        verifiers: dict[tuple[str, int], LogVerifier] = {}
        stopped: set[tuple[str, int]] = set()
        logs: dict[str, VerifiedLog] = {}
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
                    logs[batch.origin] = VerifiedLog(batch.genesis, wanted=wanted.get(batch.origin, frozenset()))
                logs[batch.origin].add_checkpoint(head.size, head.frontier.root())
                report.entries += batch.count
                progress(report.entries, 0)
        return logs


def _records(cluster: Cluster, topic: str, partition: int) -> Iterator[Record]:
    for message in read_whole(cluster, topic, partition):
        yield Record(topic, partition, message.offset() or 0, message.value() or b"")
