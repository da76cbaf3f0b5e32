"""The answer to a POST, and its meaning for delivery."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

LONGEST_RETRY_AFTER = 3600.0
"""Seconds. A longer ``retry-after`` counts as this."""
RETRIED = frozenset({408, 425, 429})
"""Statuses below 500 that allow a retry (RFC 9110 section 15.5.9, RFC 8470, RFC 6585)."""


class SendResult(StrEnum):
    """Whether a message was delivered, and whether a retry makes sense."""

    delivered = "delivered"
    retry = "retry"
    """No answer, or the receiver is busy or broken: the same message may succeed later."""
    rejected = "rejected"
    """The receiver does not accept the message. A retry fails until a person changes something."""
    gone = "gone"
    """410: the receiver wants no more messages."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, or the lack of one.

    Attributes:
        status: HTTP status, None without an answer.
        detail: a short text for the record, without secrets and without text from the receiver.
        retry_after: seconds after which the receiver wants a retry.
        body: empty if it was too large.
    """

    result: SendResult
    status: int | None
    detail: str
    retry_after: float | None = None
    body: bytes = b""


def answer_of(status: int, retry_after: str | None, body: bytes, now: float) -> Answer:
    """Return a received answer with its meaning.

    Args:
        retry_after: the header, in seconds or as a date.
        now: seconds since 1970.
    """
    detail = f"answered {status}"
    if 200 <= status < 300:
        return Answer(SendResult.delivered, status, detail, body=body)
    if status == 410:
        return Answer(SendResult.gone, status, detail, body=body)
    if status >= 500 or status in RETRIED:
        return Answer(SendResult.retry, status, detail, parse_retry_after(retry_after, now), body)
    if 300 <= status < 400:
        # Following it would send a signed message to whoever can make the receiver redirect.
        detail += ", a redirect, which is not followed"
    return Answer(SendResult.rejected, status, detail, body=body)


def parse_retry_after(text: str | None, now: float) -> float | None:
    """Return the seconds of a ``retry-after`` header: a number or an HTTP date (RFC 9110 section 10.2.3)."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_RETRY_AFTER)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    seconds = (at - datetime.fromtimestamp(now, UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
