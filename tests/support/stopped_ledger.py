"""A deployment with a few entries and a stopped sealer, for tests of what stops a log."""

from __future__ import annotations

from datetime import UTC, datetime

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from grantledger.kafka.sealed_log import SealedLogs
from grantledger.ledger import batch as batches
from grantledger.ledger.batch import Records
from grantledger.ledger.entry import NO_HEADERS
from grantledger.ledger.keys import LocalSigner, LogKeys
from grantledger.runtime.settings import load_settings

from .load import Load
from .oracle import committed_records
from .pipeline import Pipeline
from .waiting import wait_for

LIFECYCLE = "access.lifecycle"


SINGLE = (LIFECYCLE, "access.findings", "access.queries")
"""The topics with one partition."""


class Ledger:
    """A deployment with a few entries and a stopped sealer."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.group = f"{pipeline.deployment}-seal"
        self.admin = pipeline.cluster.admin
        self.lifecycle = pipeline.cluster.physical(LIFECYCLE)
        self.seal_until_done(60)
        self.tail = committed_records(pipeline.cluster, [f"{LIFECYCLE}.sealed"])

    def seal_until_done(self, count: int) -> None:
        """Send records, run a sealer until everything is sealed, and stop it."""
        Load(self.pipeline.cluster, count, 2000, seed=count, odd=False).start().finish()
        self.pipeline.start("seal")
        wait_for(self.all_sealed, "everything is sealed")
        self.pipeline.stop("seal")
        assert self.pipeline.children["seal"].exit_code == 0

    def all_sealed(self) -> bool:
        return self.pipeline.metric("seal", "grantledger_log_size_entries") >= self._records()

    def all_stored(self) -> bool:
        """Return whether everything is stored, except the store's own findings that are not sealed."""
        topics = (LIFECYCLE, "access.activity")
        return self.pipeline.metric("store", "grantledger_stored_log_size_entries") >= self._records(*topics)

    def store_and_anchor(self) -> None:
        """Store and anchor everything that is sealed, and stop."""
        self.pipeline.start("store", "anchor")
        wait_for(self.all_stored, "everything is stored")
        wait_for(lambda: self.pipeline.metric("anchor", "grantledger_anchors_total") >= 2, "everything is anchored")
        self.stop_drained()

    def stop_drained(self) -> None:
        """Stop everything; the store once it has every sealed entry, as its anchors demand."""
        self.pipeline.stop("seal", "anchor")
        partitions = [*((topic, 0) for topic in SINGLE), *(("access.activity", number) for number in range(4))]
        last = [self.logs().last(topic, partition) for topic, partition in partitions]
        sealed = sum(batch.head.size for batch in last if batch is not None)
        wait_for(
            lambda: self.pipeline.metric("store", "grantledger_stored_log_size_entries") >= sealed, "all is stored"
        )
        self.pipeline.stop()

    def pem(self) -> bytes:
        """Return the private key of the logs."""
        return load_settings(self.pipeline.data_dir).private_key_path.read_bytes()

    def logs(self) -> SealedLogs:
        """Return the reader of this ledger's sealed logs."""
        keys = LogKeys.single(LocalSigner.from_pem(self.pem(), None).public_key)
        return SealedLogs(self.pipeline.cluster, self.pipeline.deployment, keys, on_problem=print)

    def _records(self, *topics: str) -> int:
        topics = topics or (LIFECYCLE, "access.activity", "access.findings")
        return sum(map(len, committed_records(self.pipeline.cluster, topics).values()))

    def sealed_stays(self) -> bool:
        """Return whether the log is unchanged since the start."""
        return committed_records(self.pipeline.cluster, [f"{LIFECYCLE}.sealed"]) == self.tail

    def refuses(self, *words: str, rule: str = "", code: int = 3) -> str:
        """Start a sealer that must end with a message and, with ``rule``, a finding on record."""
        answer = self.pipeline.run("run", "seal")
        assert answer.returncode == code, answer.stderr[-2000:]
        assert "Traceback" not in answer.stderr, answer.stderr[-2000:]
        message = [line for line in answer.stderr.splitlines() if line.startswith("grantledger: ")][-1]
        for word in words:
            assert word in message, message
        if rule:
            assert self.findings(rule), f"no finding {rule}"
        return message

    def stops_one(self, rule: str) -> None:
        """Start a sealer that must stop the lifecycle log, report it, and seal the other logs."""
        self.pipeline.start("seal")
        wait_for(lambda: self.pipeline.metric("seal", "grantledger_seal_stopped") == 1, "one log is stopped")
        wait_for(lambda: self.findings(rule), f"the finding {rule} is on record")
        told = f"partition access.lifecycle/0 is stopped: {rule}, see docs/runbooks/{rule}.md"
        health = self.pipeline.health("seal")
        assert told in health.waits and not health.hanging, health
        position = self.pipeline.metric("seal", "grantledger_log_size_entries")
        Load(self.pipeline.cluster, 50, 2000, seed=5, odd=False).start().finish()
        wait_for(
            lambda: self.pipeline.metric("seal", "grantledger_log_size_entries") > position + 10, "other logs continue"
        )
        self.pipeline.stop("seal")
        assert f'"rule": "{rule}"' in self.pipeline.log("seal")
        assert self.pipeline.children["seal"].exit_code == 0

    def findings(self, rule: str) -> list[str]:
        records = committed_records(self.pipeline.cluster, ["access.findings"])["access.findings", 0]
        return [
            value
            for _, _, value in records
            if value and rule.encode().hex() in value and self.pipeline.deployment.encode().hex() in value
        ]

    def alter(self, offset: int) -> None:
        """Change the sealers' committed offset, as an operator can."""
        where = ConsumerGroupTopicPartitions(self.group, [TopicPartition(self.lifecycle, 0, offset)])

        def altered() -> bool:  # the group must be empty first: its static member leaves when its session times out
            try:
                done = self.admin.alter_consumer_group_offsets([where])[where.group_id].result(10)
            except Exception:
                return False
            return all(partition.error is None for partition in done.topic_partitions or [])

        wait_for(altered, "the offset is changed")


def foreign_batch(ledger: Ledger, topic: str, partition: int) -> bytes:
    """Return a batch with a valid note that does not continue the log: its predecessor was never written."""
    signer = LocalSigner.from_pem(ledger.pem(), None)
    last = ledger.logs().last(topic, partition)
    assert last is not None
    head = last.head
    for _ in range(2):
        records = Records([1], [head.next_offset], [7], [b"k"], [b"v"], [NO_HEADERS])
        batch, head = batches.seal(head, records, head.next_offset + 1, datetime.now(UTC), signer)
    return batches.encode(batch)
