"""Snapshots of the watch in memory instead of Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from grantledger.processors.watch.kafka_snapshots import KafkaSnapshots


class MemorySnapshots(KafkaSnapshots):
    """Keeps the last two snapshots. ``log`` is the id of the log that is read."""

    def __init__(self) -> None:
        self.log = "topic"
        self.stored: list[bytes] = []
        """The manifests, newest first."""
        self.parts: dict[int, bytes] = {}
        self.writes = 0
        self._locations: list[list[int]] = []

    def log_id(self) -> str:
        return self.log

    def manifests(self) -> Iterator[bytes]:
        return iter(list(self.stored))

    def read_parts(self, locations: Sequence[int]) -> list[bytes]:
        return [self.parts[one] for one in locations if one in self.parts]

    def write_snapshot(self, parts: Sequence[bytes], manifest: Callable[[Sequence[int]], bytes]) -> None:
        self.writes += 1
        locations = [self.writes * 1000 + at for at in range(len(parts))]
        self.parts |= zip(locations, parts, strict=True)
        self.stored.insert(0, manifest(locations))
        self._locations.insert(0, locations)
        for old in self._locations[2:]:
            for location in old:
                self.parts.pop(location, None)
        del self.stored[2:], self._locations[2:]

    def lose(self) -> None:
        """Lose everything."""
        self.stored.clear()
        self.parts.clear()
        self._locations.clear()
