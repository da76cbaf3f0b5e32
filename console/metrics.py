"""Metrics of the SQL endpoint and its query log."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

STATEMENTS = Counter(
    "grantledger_sql_statements_total", "Statements that ended, by role and outcome.", ["role", "outcome"]
)
UNAUTHENTICATED = Counter(
    "grantledger_sql_unauthenticated_total", "Requests without a valid user and password. They are not logged."
)
SPOOL_STATEMENTS = Gauge("grantledger_query_spool_statements", "Statements on the spool of the query log.")
SPOOL_BYTES = Gauge("grantledger_query_spool_bytes", "Bytes that they take.")
SPOOL_REFUSALS = Counter(
    "grantledger_query_spool_refusals_total", "Statements refused because the query log could not record them."
)
