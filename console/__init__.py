"""The SQL endpoint: read-only SQL over the embedded ClickHouse, for analysts, auditors and their tools.

Reading order: `sql_gate` admits statements, `execution` runs them within limits, `runner` streams the answers,
`query_log` records statements of people on `query_spool`, `service` handles HTTP requests, `endpoint` starts and stops
the server, `address` lets other processes find it.
"""
