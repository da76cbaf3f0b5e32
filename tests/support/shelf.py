"""What the watch keeps, in a list instead of Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping


class Power(Exception):  # noqa: N818 - no error of the shelf
    """It went out."""


class Shelf:
    """Keeps segments and a manifest. ``log`` names the log that is read; the power goes out after ``lasts`` writes."""

    def __init__(self) -> None:
        self.log = "topic"
        self.manifest = b""
        self.lying: dict[int, bytes] = {}
        self.names: dict[str, int] = {}
        self.writes = 0
        self.lasts = 1 << 30

    def recall(self) -> tuple[str, bytes]:
        return self.log, self.manifest

    def segments(self, offsets: Iterable[int]) -> Iterator[bytes]:
        return (self.lying[offset] for offset in offsets)

    def remember(
        self, segments: Mapping[str, bytes], gone: Iterable[str], manifest: Callable[[Mapping[str, int]], bytes]
    ) -> None:
        self.lasts -= 1
        if self.lasts < 0:
            raise Power
        self.writes += 1
        made = {}
        for at, (name, value) in enumerate(segments.items()):
            made[name] = self.writes * 1000 + at
            self.lying[made[name]] = value
            self._drop(name)
        for name in gone:
            self._drop(name)
        self.names |= made
        self.manifest = manifest(made)

    def lose(self) -> None:
        """Lose everything."""
        self.manifest = b""
        self.lying.clear()
        self.names.clear()

    def _drop(self, name: str) -> None:
        """Do what compaction does: of one key, only the last record stays."""
        if name in self.names:
            del self.lying[self.names.pop(name)]
