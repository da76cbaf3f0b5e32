"""Faust's Kafka consumer as the watch needs it: committed records only, and always from the beginning.

Faust reads committed records only together with its own transactions, which it then duplicates (its issue 517); and it
counts transaction markers as records that are still missing, so the offsets that it commits lag behind or stand still.
The watch needs neither: its state is the log, read again at every start, and what it says is in its own transactions.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP


class _CommittedThread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # taken when the consumer starts
        return consumer


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> Any:
        return _CommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def commit(self, topics: AbstractSet[str | TP] | None = None, start_new_transaction: bool = True) -> bool:
        """Commit nothing: where there is no offset, reading begins at the first record."""
        return True

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Forget markers at once; nothing is counted."""


class Transport(driver.Transport):
    """Faust's transport with the consumer above."""

    Consumer = _Consumer
