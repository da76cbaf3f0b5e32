"""Faust's Kafka consumer as the watch needs it: committed records only, from where the watch says.

Faust reads committed records only together with its own transactions, which it then duplicates (its issue 517); and it
counts transaction markers as records that are still missing, so the offsets that it commits lag behind or stand still.
The watch needs neither: it keeps with its state how far it has read, and writes both in transactions of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, cast

from faust.transport.drivers import aiokafka as driver
from faust.types import TP


class _CommittedThread(driver.AIOKafkaConsumerThread):
    shutdown_timeout = 5.0  # where its client is already broken it waits this long in vain, and nobody watches

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # taken when the consumer starts
        return consumer


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> Any:
        return _CommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go to the record that the watch wants next, once it knows."""
        begin = await cast(Transport, self.transport).begin()
        places = dict.fromkeys(self.assignment(), begin)
        if places:
            await self.seek_wait(places)
        return places

    async def commit(self, topics: AbstractSet[str | TP] | None = None, start_new_transaction: bool = True) -> bool:
        """Commit nothing: the watch knows by itself where to go on."""
        return True

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Forget markers at once; nothing is counted."""


class Transport(driver.Transport):
    """Faust's transport with the consumer above.

    Args:
        begin: returns the offset of the record to read first.
    """

    Consumer = _Consumer

    def __init__(self, *args: Any, begin: Callable[[], Awaitable[int]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.begin = begin
