"""Publish the statements of people from the spool to Kafka, in a thread of the process that serves SQL."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from ..base.retry import backoff
from ..console.person_statement import executed_event
from ..console.query_spool import QuerySpool, QuerySpoolError
from ..kafka.cluster import Cluster
from ..kafka.errors import KafkaUnavailableError
from ..kafka.publisher import Publisher
from ..ledger.source_signature import SourceSigner

log = structlog.get_logger("grantledger.query_log")

PUBLISH_SECONDS: Final = 5.0
"""Seconds that the brokers may take to acknowledge a batch, also the last one before a stop."""
LONGEST_WAIT: Final = 30.0
"""Seconds between attempts while Kafka is away."""
_BATCH: Final = 100
_IDLE_SECONDS: Final = 5.0


class QueryPublisher:
    """Publishes completed statements in order, and removes them from the spool once they are acknowledged.

    A statement whose acknowledgement was lost is published again, with the same event id and the same bytes.
    """

    def __init__(self, spool: QuerySpool, cluster: Cluster, deployment: str, signer: SourceSigner) -> None:
        self._spool, self._cluster, self._deployment, self._signer = spool, cluster, deployment, signer
        self._publisher: Publisher | None = None
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ask `run` to publish what is on the spool, once, and to return."""
        self._stopping.set()
        self._spool.wake()

    def run(self) -> None:
        """Publish until stopped. While Kafka is away, or the spool cannot be read, keep trying."""
        failures = 0
        while True:
            last = self._stopping.is_set()
            try:
                if self.publish_batch() == 0:
                    if last:
                        return
                    self._spool.wait(_IDLE_SECONDS)
                failures = 0
            except (KafkaUnavailableError, QuerySpoolError) as error:
                failures += 1
                # A new producer sends nothing that the failed one still has.
                self._publisher = None
                log.warning("statements_not_published", reason=str(error), action="they stay on the spool")
                if last:
                    return
                self._stopping.wait(backoff(failures, 1.0, LONGEST_WAIT, random.random()))  # noqa: S311 - jitter

    def publish_batch(self) -> int:
        """Publish the oldest statements, and remove them from the spool; return their number.

        Raises:
            KafkaUnavailableError: they are not acknowledged. They stay on the spool.
            QuerySpoolError: the spool cannot be read or written.
        """
        statements = self._spool.oldest(_BATCH)
        if not statements:
            return 0
        events = [executed_event(self._deployment, statement) for statement in statements]
        if self._publisher is None:
            self._publisher = Publisher(self._cluster, self._signer)
        self._publisher.publish_events(events, PUBLISH_SECONDS)
        self._spool.remove(statements)
        return len(statements)


@contextmanager
def published_statements(
    spool: QuerySpool, cluster: Cluster, deployment: str, signer: SourceSigner
) -> Iterator[QueryPublisher]:
    """Publish the statements on the spool until the context ends, and then those that are left, if Kafka answers."""
    publisher = QueryPublisher(spool, cluster, deployment, signer)
    thread = threading.Thread(target=publisher.run, name="query-publisher", daemon=True)
    thread.start()
    try:
        yield publisher
    finally:
        publisher.stop()
        # An attempt that began before the stop counts as the last one.
        thread.join(PUBLISH_SECONDS + 1)
