"""Finds the sealed request of each command. Pure.

Whoever can write ``access.commands`` can forge a command, or send an old one again. The watch writes each command to
``access.findings`` as well, in the same transaction. Only a command that is in the sealed log is carried out, and its
age counts from there. What a person requests is written by ``grantledger grants revoke``, to both topics too.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple, Protocol

from .contract import RevokeCommand

MOST_WAITING = 1000
"""No more commands are read while so many wait for the sealer."""


class Requests(Protocol):
    """The requests in the log of ``access.findings``."""

    def update(self) -> None:
        """Read what was sealed meanwhile."""

    def requested(self, value: bytes) -> datetime | None:
        """Return when the contents of a command were requested, byte for byte; None if that is not sealed."""

    def end(self) -> int:
        """Return an offset that is above the requests of all commands that were read before."""

    def has_read_below(self, offset: int) -> bool:
        """Whether everything below an offset is sealed, and was read."""


class _Waiting(NamedTuple):
    command: RevokeCommand
    value: bytes
    below: int | None
    """The request is below this offset of ``access.findings``, if there is one."""


class MatchedCommand(NamedTuple):
    """A command, its offset, and when it was requested; None if it never was."""

    command: RevokeCommand
    offset: int
    requested: datetime | None


class CommandMatcher:
    """The commands that were read and whose request is not known yet."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._waiting: dict[int, _Waiting] = {}

    def __len__(self) -> int:
        """Return how many commands wait."""
        return len(self._waiting)

    def add(self, command: RevokeCommand, offset: int, value: bytes) -> None:
        """Add a command that was read."""
        self._waiting[offset] = _Waiting(command, value, None)

    def matched(self) -> Iterator[MatchedCommand]:
        """Yield the commands that are decided by now, in order."""
        if not self._waiting:
            return
        self._requests.update()
        below = None
        for offset, (command, value, known_below) in list(self._waiting.items()):
            requested = self._requests.requested(value)
            if requested is None:
                if known_below is None:
                    below = below if below is not None else self._requests.end()
                    self._waiting[offset] = _Waiting(command, value, below)
                if not self._requests.has_read_below(known_below or below or 0):
                    continue
            del self._waiting[offset]
            yield MatchedCommand(command, offset, requested)
