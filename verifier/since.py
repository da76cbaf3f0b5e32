"""Where a later verification may go on (``verify --since``), so that its cost grows with what is new.

An anchor covers a size of each log, and later anchors cover no smaller ones. So a sound verification leaves the heads
of the logs at the sizes that its last anchor covers. A later one reads the entries and anchors from there on. Logs of
findings are always read as a whole: they contain the schemas, keys and erasures by which the others are judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..ledger.anchor import Anchor
from ..ledger.batch import Head
from ..ledger.entry import Genesis, split_origin
from ..ledger.merkle import Frontier
from ..ledger.note import Checkpoint


@dataclass(frozen=True, slots=True)
class LogHead:
    """A verified head of a log: all that is needed to verify the entries after it. ``genesis`` is the genesis hash."""

    genesis: bytes
    size: int
    frontier: bytes
    last_leaf: bytes
    next_offset: int

    @classmethod
    def of(cls, head: Head) -> LogHead:
        """Return the head of a log."""
        return cls(head.genesis.hash(), head.size, head.frontier.pack(), head.last_leaf, head.next_offset)

    @property
    def root(self) -> bytes:
        """The root of the tree."""
        return Frontier.unpack(self.size, self.frontier).root()

    def of_log(self, genesis: Genesis) -> Head:
        """Return the head of a log with this genesis."""
        return Head(genesis, Frontier.unpack(self.size, self.frontier), self.last_leaf, self.next_offset)


@dataclass(frozen=True, slots=True)
class Since:
    """The last anchor of a sound verification, and the heads of the logs that it covers.

    Attributes:
        anchors: the anchor log with that anchor as its last one.
    """

    anchors: Checkpoint
    logs: Mapping[str, LogHead]

    @property
    def index(self) -> int:
        """The index of the anchor. It is read again, as the first one."""
        return self.anchors.size - 1

    def is_before(self, origin: str, index: int) -> bool:
        """Whether an anchor is older."""
        return (_order(origin), index) < (_order(self.anchors.origin), self.index)

    def compared(self, origin: str, size: int) -> bool:
        """Whether a remembered head can be compared: those before were compared by earlier verifications."""
        if split_origin(origin)[0] == split_origin(self.anchors.origin)[0]:
            return not self.is_before(origin, size - 1)
        return origin not in self.logs or size >= self.logs[origin].size

    def as_json(self) -> dict[str, Any]:
        """Return it as written to the file."""
        logs = {
            origin: [one.genesis.hex(), one.size, one.frontier.hex(), one.last_leaf.hex(), one.next_offset]
            for origin, one in self.logs.items()
        }
        return {"anchors": [self.anchors.origin, self.anchors.size, self.anchors.root.hex()], "logs": logs}

    @classmethod
    def from_json(cls, found: Any) -> Since:
        """Undo :meth:`as_json`; raise ValueError, TypeError or KeyError if it is not that."""
        origin, size, root = found["anchors"]
        split_origin(origin)
        logs = {}
        for log, (genesis, entries, frontier, last_leaf, next_offset) in found["logs"].items():
            split_origin(log)
            logs[log] = LogHead(_hash(genesis), entries, bytes.fromhex(frontier), _hash(last_leaf), next_offset)
            if type(next_offset) is not int or next_offset < 0 or _size(entries) != logs[log].size:
                raise ValueError
            Frontier.unpack(entries, logs[log].frontier)
        return cls(Checkpoint(origin, _size(size), _hash(root)), logs)


@dataclass(frozen=True, slots=True)
class Later:
    """The anchor and all later ones of others, and None for each line that is not an anchor."""

    anchors: Iterable[Anchor | None]
    since: Since

    def __iter__(self) -> Iterator[Anchor | None]:
        return (one for one in self.anchors if one is None or not self.since.is_before(one.origin, one.index))


def _order(origin: str) -> tuple[int, str]:
    return len(origin), origin


def _size(found: object) -> int:
    if type(found) is not int or not 0 < found < 1 << 63:
        raise ValueError
    return found


def _hash(text: object) -> bytes:
    if not isinstance(text, str) or not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError
    return bytes.fromhex(text)
