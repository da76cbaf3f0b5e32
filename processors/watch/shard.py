"""The partition of ``access.lifecycle`` that a watch judges, and what is named after it.

With one partition nothing is named after it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...schemas.topics import watch_group

_SUFFIX = "#shard-"


@dataclass(frozen=True, slots=True)
class Shard:
    """One of ``count`` partitions."""

    number: int = 0
    count: int = 1

    def group(self, deployment: str) -> str:
        """Return the consumer group, which is the transactional id of the findings as well."""
        return watch_group(deployment, self.number, self.count)

    @property
    def mark(self) -> list[int]:
        """What the identities of published findings end with."""
        return [] if self.count == 1 else [self.number]

    def published(self, key: str) -> str:
        """Return the key of a finding about a source or a part of the log: each shard has such findings of its own."""
        return key if self.count == 1 else f"{key}{_SUFFIX}{self.number}"

    def own(self, key: str) -> str | None:
        """Return the key that was published; None if another shard published it."""
        if self.count == 1:
            return key
        suffix = f"{_SUFFIX}{self.number}"
        return key.removesuffix(suffix) if key.endswith(suffix) else None


ONLY_SHARD = Shard()
