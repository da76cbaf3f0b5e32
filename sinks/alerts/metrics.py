"""Metrics of the alerts. The help texts define them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

PENDING = Gauge("grantledger_alert_pending", "Messages not delivered yet.", ["channel"])
OLDEST = Gauge("grantledger_alert_oldest_pending_seconds", "Age of the oldest undelivered message.", ["channel"])
DELIVERIES = Counter(
    "grantledger_alert_deliveries_total",
    "Exchanges with a channel: delivered, retry, rejected, gone.",
    ["channel", "result"],
)
GIVEN_UP = Counter("grantledger_alert_given_up_total", "Messages given up after being rejected.", ["channel"])
DISABLED = Gauge("grantledger_alert_channel_disabled", "1 if a channel answered 410 and is disabled.", ["channel"])
LAST_DELIVERY = Gauge("grantledger_alert_last_delivery_timestamp_seconds", "Time of the last delivery.", ["channel"])
WORKED = Gauge("grantledger_alert_worked_timestamp_seconds", "When a channel last checked for messages.", ["channel"])
FINDINGS = Counter("grantledger_alert_findings_total", "Changes of findings stored.", ["rule", "change"])
SKIPPED = Counter("grantledger_alert_skipped_total", "Backlog messages that were not sent.", ["reason"])
UNREADABLE = Counter(
    "grantledger_alert_unreadable_total", "Sealed entries that could not be decoded and may have been findings."
)
UNSIGNED = Counter(
    "grantledger_alert_unsigned_total", "Sealed entries in the pipeline's names that it did not sign: not believed."
)
MISSED = Counter("grantledger_alert_missed_entries_total", "Entries that Kafka deleted before they were read.")
POSITION = Gauge("grantledger_alert_position_offset", "Next offset to read from the sealed findings.")
LAG = Gauge("grantledger_alert_lag_batches", "Offsets not read yet: sealed batches and transaction markers.")
READING = Gauge("grantledger_alert_reading", "1 while Kafka is readable, 0 while it is unavailable.")
