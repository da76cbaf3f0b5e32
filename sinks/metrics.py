"""Metrics of the store."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from ..base.health import HEALTH
from ..schemas.topics import SEALED_SUFFIX

STORED_ENTRIES = Counter("grantledger_stored_entries_total", "Entries stored, by input topic.", ["topic"])
STORED_BATCHES = Counter("grantledger_stored_batches_total", "Batches stored, by input topic.", ["topic"])
REJECTED = Counter("grantledger_rejected_entries_total", "Entries stored with a decode error.", ["topic", "code"])
INSERT_SECONDS = Histogram("grantledger_store_insert_seconds", "Time of one insert.")
INSERT_FAILURES = Counter("grantledger_store_insert_failures_total", "Inserts that failed and are tried again.")
STORED_SIZE = Gauge("grantledger_stored_log_size_entries", "Entries of a log that are stored.", ["topic", "partition"])
STORE_STOPPED = Gauge(
    "grantledger_store_stopped",
    "1 if a sealed log is discontinuous and is not stored any further.",
    ["topic", "partition"],
)
STORED_ANCHORS = Counter("grantledger_stored_anchors_total", "Anchors stored.")
SCHEMA_CONFLICTS = Counter("grantledger_schema_conflicts_total", "Schema ids registered twice with different schemas.")
LAST_STORED = Gauge("grantledger_last_stored_timestamp_seconds", "When the last batch was stored.")
REFRESHED_AT = Gauge(
    "grantledger_states_refreshed_timestamp_seconds",
    "When the states of requests, grants and findings were up to date.",
)
REFRESH_FAILURES = Counter("grantledger_state_refresh_failures_total", "Refreshes of these states that failed.")


def show_failure(reason: str) -> None:
    """Report that ClickHouse has failed, and that the store tries again until it succeeds."""
    INSERT_FAILURES.inc()
    HEALTH.waits("clickhouse", f"waits for {reason}")


def show_stop(topic: str, partition: int, *, stopped: bool) -> None:
    """Report whether a log is stored any further. ``topic``: its sealed topic, or that of the anchors."""
    topic = topic.removesuffix(SEALED_SUFFIX)
    STORE_STOPPED.labels(topic, str(partition)).set(stopped)
    name = f"{topic}/{partition}"
    if stopped:
        rule = "sealed_log_discontinuous"
        HEALTH.waits(name, f"storing of {name} is stopped: {rule}, see docs/runbooks/{rule}.md")
    else:
        HEALTH.settle(name)
