"""Marks the events of an import of history: a header that is sealed with them."""

from __future__ import annotations

from dataclasses import dataclass

from ..schemas.history import HISTORY_HEADER, HISTORY_VALUE
from .client import RecordSigner


@dataclass(frozen=True, slots=True)
class HistoryMark:
    """Adds the mark to the headers of a signer, if there is one. The signature does not cover it."""

    signer: RecordSigner | None = None

    def headers(self, topic: str, key: bytes | None, value: bytes | None) -> list[tuple[str, bytes]]:
        """Return the Kafka headers of a record. ``topic`` is the name without a prefix."""
        signed = self.signer.headers(topic, key, value) if self.signer is not None else []
        return [*signed, (HISTORY_HEADER, HISTORY_VALUE)]
