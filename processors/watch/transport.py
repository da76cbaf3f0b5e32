"""Faust's Kafka consumer, changed to read committed records only, from the position that the watch gives it.

Faust reads committed records only in combination with its own transactions, which duplicate output (its issue 517), and
it counts transaction markers as missing records, so its committed offsets stall. The watch needs neither: its snapshots
contain its position, and it publishes in transactions of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, cast

from faust.transport.drivers import aiokafka as driver
from faust.types import TP


class _CommittedThread(driver.AIOKafkaConsumerThread):
    shutdown_timeout = 5.0  # a broken client waits this long in vain, and no process watches meanwhile

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # read when the consumer starts
        return consumer


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> Any:
        return _CommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the record that the watch needs next, once it is known."""
        begin = await cast(Transport, self.transport).begin()
        positions = {tp: begin for tp in self.assignment() if tp == self._mine}
        if positions:
            await self.seek_wait(positions)
        return positions

    @property
    def _mine(self) -> TP:
        return cast(Transport, self.transport).mine

    def _set_active_tps(self, tps: set[TP]) -> set[TP]:
        """Read our partition only. The group assigns all of them, because Faust subscribes to topics."""
        return super()._set_active_tps({tp for tp in tps if tp == self._mine})

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Read our partition again, if it is among these."""
        super().resume_partitions([tp for tp in tps if tp == self._mine])

    async def commit(self, topics: AbstractSet[str | TP] | None = None, start_new_transaction: bool = True) -> bool:
        """Commit nothing: snapshots contain the position."""
        return True

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Ignore transaction markers."""


class Transport(driver.Transport):
    """Faust's transport with the consumer above.

    ``mine`` is the partition to read; ``begin`` returns the offset of the first record.
    """

    Consumer = _Consumer

    def __init__(self, *args: Any, mine: TP, begin: Callable[[], Awaitable[int]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mine, self.begin = mine, begin
