"""Metrics of ``grantledger follow``. The help texts define them; ``tool`` is the adapter with its instance."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

LINES = Counter("grantledger_follow_lines_total", "Lines read, also of pipes and journald.", ["tool"])
RECORDS = Counter("grantledger_follow_records_total", "Records by result: mapped, failed.", ["tool", "result"])
SKIPPED = Counter("grantledger_follow_skipped_total", "Records skipped on purpose, by reason.", ["tool", "reason"])
EVENTS = Counter("grantledger_follow_events_total", "Events acknowledged by Kafka.")
WAITING = Gauge("grantledger_follow_unacknowledged_events", "Events sent that Kafka has not acknowledged yet.")
LAST_ACKNOWLEDGEMENT = Gauge(
    "grantledger_follow_last_acknowledgement_timestamp_seconds", "When Kafka last acknowledged everything sent."
)
LAG_BYTES = Gauge("grantledger_follow_lag_bytes", "Bytes of a file that are not acknowledged yet.", ["tool", "file"])
LAG_SECONDS = Gauge(
    "grantledger_follow_lag_seconds", "How long a file has had bytes that are not acknowledged.", ["tool", "file"]
)
UNREADABLE = Gauge("grantledger_follow_unreadable", "Files, pipes and units that cannot be read now.", ["tool"])
