"""The metrics of the gateway; docs/gateway.md explains them."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("grantledger_gateway_requests", "Requests, by route and status", ["route", "status"])
UNAUTHENTICATED = Counter("grantledger_gateway_unauthenticated", "Requests without a valid credential")
RECORDS = Counter("grantledger_gateway_records", "Records, by source and result", ["source", "result"])
SKIPPED = Counter("grantledger_gateway_skipped", "Records skipped on purpose, by reason", ["source", "reason"])
EVENTS = Counter("grantledger_gateway_events", "Events stored durably before the answer", ["source", "where"])
SECONDS = Histogram(
    "grantledger_gateway_request_seconds",
    "Time until a request with a valid credential was answered",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
SYSLOG_LOST = Counter("grantledger_gateway_syslog_lost", "UDP messages that could not be stored")
WAITING_EVENTS = Gauge("grantledger_gateway_waiting_events", "Events on the way to Kafka")
WAITING_BYTES = Gauge("grantledger_gateway_waiting_bytes", "Their bytes")
SPOOL_EVENTS = Gauge("grantledger_gateway_spool_events", "Events on the spool")
SPOOL_BYTES = Gauge("grantledger_gateway_spool_bytes", "Their bytes")
LAST_EVENT = Gauge("grantledger_gateway_last_event_timestamp_seconds", "When the last event was stored", ["source"])
