"""In which partition of ``access.lifecycle`` an event belongs where the topic has several: its shards.

All events of a tenant are in one shard, because overlapping grants and approvals need one order. A sender in any
language gets the same with the tenant as the key and Kafka's own partitioner, which hashes with murmur2.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from .event import LIFECYCLE_TOPIC, Event

ANY_PARTITION = -1
"""Leaves the choice to the partitioner of the Kafka client."""
_M = 0x5BD1E995
_32_BITS = 0xFFFFFFFF


class Placement(NamedTuple):
    """The key and the partition of a record."""

    key: str
    partition: int = ANY_PARTITION


def placement_of(event: Event, shards: int) -> Placement:
    """Return the key and the partition of an event's record. ``shards``: number of partitions of the lifecycle."""
    if shards > 1 and event.topic == LIFECYCLE_TOPIC:
        return Placement(event.tenant, shard_of(event.tenant.encode(), shards))
    return Placement(event.key)


@lru_cache(maxsize=1 << 12)
def shard_of(tenant: bytes, shards: int) -> int:
    """Return the partition of ``access.lifecycle`` for the events of a tenant."""
    return (murmur2(tenant) & 0x7FFFFFFF) % shards


def murmur2(data: bytes) -> int:
    """Return Kafka's 32-bit murmur2 hash."""
    length = len(data)
    result = 0x9747B28C ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        part = int.from_bytes(data[at : at + 4], "little") * _M & _32_BITS
        part = (part ^ part >> 24) * _M & _32_BITS
        result = result * _M & _32_BITS ^ part
    if rest := data[whole:]:
        result = (result ^ int.from_bytes(rest, "little")) * _M & _32_BITS
    result = (result ^ result >> 13) * _M & _32_BITS
    return result ^ result >> 15
