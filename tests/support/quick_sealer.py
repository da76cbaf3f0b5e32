"""Seals records at once, with the functions of the sealer, but without its process."""

from __future__ import annotations

from datetime import UTC, datetime

from grantledger.kafka.identity import identify_topics
from grantledger.kafka.offsets import wait_without_open_transaction
from grantledger.kafka.records import read_range, signed_record
from grantledger.ledger import batch as batches
from grantledger.ledger.batch import Head, Records
from grantledger.ledger.entry import Genesis, origin_of
from grantledger.ledger.keys import LocalSigner
from grantledger.schemas.topics import sealed

from .events import produce
from .pipeline import Pipeline


class QuickSealer:
    """The only sealer of a deployment, until another one continues its logs."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline, self._heads = pipeline, dict[str, Head]()

    def seal(self, *topics: str) -> None:
        """Seal what the topics contain now."""
        cluster = self._pipeline.cluster
        signer = LocalSigner.from_pem(self._pipeline.settings().private_key_path.read_bytes(), None)
        for topic in topics:
            head = self._heads.get(topic) or self._new(topic)
            end = wait_without_open_transaction(cluster, (topic, 0))[topic, 0]
            records = Records()
            for message in read_range(cluster, topic, 0, head.next_offset, end):
                one = signed_record(topic, message)
                records.flags.append(1)
                records.offsets.append(message.offset() or 0)
                records.append_times.append(one.append_time_ms)
                records.keys.append(one.key)
                records.values.append(one.value)
                records.headers.append(one.headers)
            if records.offsets:
                batch, self._heads[topic] = batches.seal(head, records, end, datetime.now(UTC), signer)
                produce(cluster, sealed(topic), [{"value": batches.encode(batch), "key": batch.origin}])

    def _new(self, topic: str) -> Head:
        topic_id = identify_topics(self._pipeline.cluster, (topic,))[topic].topic_id
        return Head.at_genesis(Genesis(origin_of(self._pipeline.deployment, topic, 0), topic_id, 0))
