"""The interface of a channel: it formats messages for the outbox, and delivers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ...webhooks.answer import Answer
from .config import AnyChannel
from .finding import ChangeKind, FindingEvent

USER_AGENT = "grantledger-alert"


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message to deliver: its number in the outbox, its idempotency key, and its stored text."""

    number: int
    message_id: str
    change: ChangeKind
    text: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer, with the messages that it carried."""

    numbers: tuple[int, ...]
    answer: Answer


class Channel(Protocol):
    """One channel. ``send`` never raises for what the receiver does, and returns in bounded time."""

    def message(self, finding: FindingEvent, opened: str) -> str:
        """Return the text to store for a change of a finding, and to send at every attempt.

        The opening has no ``opened``.
        """

    def send(self, envelopes: Sequence[Envelope]) -> list[Exchange]:
        """Deliver messages; return the exchanges, which together cover all of them."""


@dataclass(frozen=True, slots=True)
class NamedChannel:
    """A configured channel with its name."""

    name: str
    config: AnyChannel
    channel: Channel
