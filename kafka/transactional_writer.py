"""Kafka transactions: records and consumer offsets, written together or not at all.

The result of a transactional call is unknown until it returns. So calls are retried, but a stop request shortens the
wait, and a call that can never return is given up. Then the process ends, or continues with a new writer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ..base.retry import retry
from ..ledger.source_signature import SourceSigner
from .cluster import Cluster
from .errors import KafkaUnavailableError
from .offsets import Partition
from .options import TRANSACTION_TIMEOUT_MS, transactional_options
from .publisher import Record, produce, signature_headers

log = structlog.get_logger("grantledger.kafka")

CALL_SECONDS = 4.0
"""Seconds that one call may block. Signals are delivered between calls."""
HANG_SECONDS = 7.0
"""Seconds after which a call will never return."""
RETRY_SECONDS = 60.0
"""Seconds until a call that keeps failing is given up."""
STOP_RETRY_SECONDS = 10.0
"""The same once a stop has been requested."""
ANY_PARTITION = -1

Delivered = Callable[[KafkaError | None, Message], None]


class TransactionHangsError(KafkaUnavailableError):
    """A call can never return. Whether its transaction is committed is unknown until a new writer called ``init``."""


class TransactionalWriter:
    """A transactional producer. Topic names are logical.

    Usage: ``init`` once; then ``begin``, ``produce`` and ``send_offsets``, and ``commit`` or ``abort``.

    Args:
        transactional_id: of several writers with the same id, the latest to call ``init`` fences off the others.
        signer: signs the events.
        stopping: whether a stop has been requested.
        timeout_ms: the brokers abort a transaction that is open for longer.
    """

    def __init__(
        self,
        cluster: Cluster,
        transactional_id: str,
        *,
        signer: SourceSigner | None = None,
        stopping: Callable[[], bool] = lambda: False,
        timeout_ms: int = TRANSACTION_TIMEOUT_MS,
    ) -> None:
        self._cluster, self._signer, self._stopping = cluster, signer, stopping
        options = transactional_options(cluster, transactional_id)
        self._producer = Producer(options | {"transaction.timeout.ms": timeout_ms})

    def init(self) -> None:
        """Fence off earlier writers with the same id and abort the transactions that they left open.

        Raises:
            KafkaException: it failed for good, or did not succeed in time.
            TransactionHangsError: only a new writer can continue. The same holds for all methods below.
        """
        self._retry(self._producer.init_transactions)

    def begin(self) -> None:
        """Begin a transaction."""
        self._producer.begin_transaction()

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: str | bytes | None = None,
        partition: int = ANY_PARTITION,
        on_delivery: Delivered | None = None,
    ) -> None:
        """Add a record to the transaction; wait while the local queue is full."""
        name, headers = self._cluster.physical(topic), signature_headers(self._signer, Record(topic, value, key))
        produce(self._producer, name, value, key, partition=partition, headers=headers, on_delivery=on_delivery)

    def send_offsets(self, offsets: Mapping[Partition, int], group_metadata: Any) -> None:
        """Add the offsets at which a consumer group continues to the transaction."""
        positions = [self._cluster.partition(*partition, offset) for partition, offset in offsets.items()]
        self._retry(lambda seconds: self._producer.send_offsets_to_transaction(positions, group_metadata, seconds))

    def flush(self, timeout: float) -> int:
        """Wait for the delivery reports of the records so far; return how many are missing."""
        return self._producer.flush(timeout)

    def commit(self) -> None:
        """Commit the transaction."""
        self._retry(self._producer.commit_transaction)

    def abort(self) -> None:
        """Abort the transaction."""
        self._retry(self._producer.abort_transaction)

    def _retry(self, call: Callable[[float], Any]) -> None:
        began = time.monotonic()

        def attempt() -> None:
            _bounded(call)

        def retryable(error: BaseException) -> bool:
            limit = STOP_RETRY_SECONDS if self._stopping() else RETRY_SECONDS
            in_time = time.monotonic() - began < limit
            return in_time and isinstance(error, KafkaException) and bool(error.args[0].retriable())

        def report(error: BaseException) -> None:
            log.warning("transaction_waits", reason=error.args[0].str(), seconds=round(time.monotonic() - began, 1))

        # Some errors come back at once, hence the pause.
        retry(attempt, retryable=retryable, on_retry=report, first_wait=0.1, longest_wait=0.1)


def _bounded(call: Callable[[float], Any]) -> None:
    """Make a call, but do not wait for it for ever.

    After a restart of the group coordinator librdkafka may wait forever and ignore its timeout and signals (its issues
    5456 and 5511). The call keeps its thread and its producer then: nothing else may use them.
    """
    outcome = Future[Any]()

    def run() -> None:
        try:
            outcome.set_result(call(CALL_SECONDS))
        except BaseException as error:  # raised to the caller
            outcome.set_exception(error)

    threading.Thread(target=run, name="transaction", daemon=True).start()
    try:
        outcome.result(HANG_SECONDS)
    except TimeoutError:
        log.error("transaction_hangs", seconds=HANG_SECONDS)
        raise TransactionHangsError("a transaction hangs after a restart of the brokers: restart") from None
