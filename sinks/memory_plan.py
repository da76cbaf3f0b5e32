"""How the store divides its memory between the embedded engine and the rows on their way to it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
_OWN = 176 * MIB
"""Python with its libraries, the Kafka client, the engine's code and tables of settings."""
_MOST_GROUP = 32 * MIB
"""Larger inserts would cost hardly less CPU per row."""
_COUNTED = 60
"""Per cent of its memory that the engine counts; the rest is what its allocator holds, measured with large events."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Limits in bytes.

    Attributes:
        group: rows of one insert, if it has several batches. One insert runs, and twice as many rows wait.
        waiting: sealed batches that wait for their turn, at least one.
        fetched: what the Kafka client fetches ahead.
        engine: everything that the embedded engine allocates: inserts, merges, states, caches and queries of people.
    """

    group: int
    waiting: int
    fetched: int
    engine: int

    @classmethod
    def of(cls, megabytes: int) -> MemoryPlan:
        """Divide the memory that the setting ``store_memory_mb`` allows."""
        total = megabytes * MIB
        group = min(total // 32, _MOST_GROUP)
        # Two groups may wait. The rows of the running insert exist twice for a moment: as batches, and joined.
        queues = 5 * group + group // 4
        # The client fetches too late if it may have only a few batches of each log.
        return cls(group, group // 4, group, (total - _OWN - queues) * _COUNTED // 100)

    def engine_options(self) -> dict[str, int]:
        """Return the options with which the embedded engine is opened. Caches would grow to gigabytes by default.

        At the limit, a query fails and tells why. The store repeats its inserts, and the engine its merges.
        """
        return {
            "max_server_memory_usage": self.engine,
            "merges_mutations_memory_usage_soft_limit": self.engine // 2,
            # Merges of large rows need some 100 MiB each.
            "background_pool_size": 1 if self.engine < 1024 * MIB else 2,
            "background_merges_mutations_concurrency_ratio": 1,
            "mark_cache_size": self.engine // 8,
            "index_mark_cache_size": self.engine // 32,
            "primary_index_cache_size": self.engine // 16,
            "query_condition_cache_size": self.engine // 32,
            "compiled_expression_cache_size": self.engine // 32,
            "text_index_tokens_cache_size": self.engine // 32,
            "text_index_header_cache_size": self.engine // 32,
            "text_index_postings_cache_size": self.engine // 32,
        }
