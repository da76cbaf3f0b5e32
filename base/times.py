"""Times as microseconds since 1970 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros_of(time: datetime) -> int:
    """Return microseconds since 1970 without rounding."""
    return (time - EPOCH) // timedelta(microseconds=1)
