"""What a channel is to the rest: it words messages for the outbox, and delivers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .config import AlertConfigError
from .core import Outcome
from .finding import FindingEvent, What
from .http import Poster, tls_context

USER_AGENT = "grantledger-alert"


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message to deliver: its place in the outbox, its idempotency key, and the text that was kept for it."""

    number: int
    message_id: str
    what: What
    text: str


@dataclass(frozen=True, slots=True)
class Post:
    """One exchange with the other side, and the messages that it carried."""

    numbers: tuple[int, ...]
    outcome: Outcome


class Sender(Protocol):
    """One channel. ``send`` never raises for what the other side does, and returns in bounded time."""

    def message(self, finding: FindingEvent) -> str:
        """Return the text that is kept for an opening and sent at every try."""
        ...

    def ending(self, finding: FindingEvent, opened: str) -> str:
        """Return the same for an end.

        Args:
            opened: the text that was kept for the opening.
        """
        ...

    def send(self, envelopes: Sequence[Envelope]) -> list[Post]:
        """Deliver, and say for every message what became of it."""
        ...


class Tls(Protocol):
    """The TLS files of a channel's configuration."""

    @property
    def ca_file(self) -> Path | None:
        """Certificates to trust instead of the system's."""
        ...

    @property
    def cert_file(self) -> Path | None:
        """Our own certificate."""
        ...

    @property
    def key_file(self) -> Path | None:
        """The key of our own certificate."""
        ...

    @property
    def timeout_seconds(self) -> float:
        """Longest exchange."""
        ...


def poster(place: str, url: str, config: Tls) -> Poster:
    """Return what posts to a channel's address.

    Args:
        place: the channel in the configuration, for the error.

    Raises:
        AlertConfigError: a TLS file cannot be used.
    """
    try:
        secure = url.startswith("https:")
        context = tls_context(config.ca_file, config.cert_file, config.key_file) if secure else None
    except OSError as error:
        raise AlertConfigError(f"{place}: the TLS files cannot be used: {error.strerror or error}") from None
    return Poster(url, config.timeout_seconds, context)
