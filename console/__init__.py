"""The SQL endpoint: read-only SQL over the embedded ClickHouse, for analysts and their tools.

Reading order: `sql_gate` admits statements, `execution` runs them within limits, `runner` streams the answers,
`service` handles HTTP requests, `endpoint` starts and stops the server, `address` lets other processes find it.
"""
