"""Metrics of the processors."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from ..base.health import HEALTH

SEALED_ENTRIES = Counter("grantledger_sealed_entries_total", "Entries sealed, by input topic.", ["topic"])
SEALED_BATCHES = Counter("grantledger_sealed_batches_total", "Batches sealed, by input topic.", ["topic"])
SEALED_BYTES = Counter("grantledger_sealed_payload_bytes_total", "Bytes of sealed batches, by input topic.", ["topic"])
SEAL_TRANSACTIONS = Counter("grantledger_seal_transactions_total", "Transactions, by result.", ["result"])
SEAL_SECONDS = Histogram("grantledger_seal_transaction_seconds", "Time of one sealing transaction with its commit.")
LOG_SIZE = Gauge("grantledger_log_size_entries", "Entries of a log that are sealed.", ["topic", "partition"])
SEAL_POSITION = Gauge(
    "grantledger_seal_position_offset", "Input offset at which sealing continues.", ["topic", "partition"]
)
SEAL_STOPPED = Gauge(
    "grantledger_seal_stopped",
    "1 while sealing of a partition is stopped and an operator must act.",
    ["topic", "partition"],
)
SENDER_TIMED = Counter(
    "grantledger_sender_timed_entries_total", "Entries whose time the sender set. No deadline uses it.", ["topic"]
)
LAST_CHECKPOINT = Gauge("grantledger_last_checkpoint_timestamp_seconds", "When the last checkpoint was committed.")
ANCHORS = Counter("grantledger_anchors_total", "Anchors committed.")
LAST_ANCHOR = Gauge("grantledger_last_anchor_timestamp_seconds", "When the last anchor was committed.")
ANCHOR_FAILURES = Counter("grantledger_anchor_target_failures_total", "Anchor targets that did not answer.", ["target"])


def show_head(partition: tuple[str, int], size: int, next_offset: int) -> None:
    """Set the gauges of a log's head."""
    topic, number = partition
    LOG_SIZE.labels(topic, str(number)).set(size)
    SEAL_POSITION.labels(topic, str(number)).set(next_offset)


def show_stop(partition: tuple[str, int], rule: str | None) -> None:
    """Report that sealing of a partition is stopped by a rule; None: it is not."""
    topic, number = partition
    SEAL_STOPPED.labels(topic, str(number)).set(rule is not None)
    if rule is None:
        HEALTH.settle(f"{topic}/{number}")
    else:
        HEALTH.waits(f"{topic}/{number}", f"partition {topic}/{number} is stopped: {rule}, see docs/runbooks/{rule}.md")
