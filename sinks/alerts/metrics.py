"""Metrics of the alerts, one line each with what it means."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

PENDING = Gauge("grantledger_alert_pending", "Messages that wait for their first delivery.", ["channel"])
OLDEST = Gauge("grantledger_alert_oldest_pending_seconds", "Age of the oldest message not delivered yet.", ["channel"])
DELIVERIES = Counter(
    "grantledger_alert_deliveries_total",
    "Exchanges with a channel: accepted, again, refused, gone.",
    ["channel", "result"],
)
GIVEN_UP = Counter("grantledger_alert_given_up_total", "Messages given up because they were refused.", ["channel"])
DISABLED = Gauge("grantledger_alert_channel_disabled", "1 where a channel answered 410 and is disabled.", ["channel"])
LAST_DELIVERY = Gauge("grantledger_alert_last_delivery_timestamp_seconds", "When a channel last accepted.", ["channel"])
WORKED = Gauge("grantledger_alert_worked_timestamp_seconds", "When a channel last looked for work.", ["channel"])
FINDINGS = Counter("grantledger_alert_findings_total", "Findings taken, by what they say.", ["rule", "what"])
SKIPPED = Counter("grantledger_alert_skipped_total", "Messages of the backlog that were not sent.", ["reason"])
UNREADABLE = Counter(
    "grantledger_alert_unreadable_total", "Sealed entries that may have held a finding and could not be read."
)
MISSED = Counter("grantledger_alert_missed_entries_total", "Entries that were gone from Kafka before they were read.")
POSITION = Gauge("grantledger_alert_position_offset", "Offset in the sealed findings at which reading goes on.")
LAG = Gauge("grantledger_alert_lag_batches", "Sealed batches, and markers between them, that are not read yet.")
READING = Gauge("grantledger_alert_reading", "1 while Kafka is read; 0 while it is away.")
