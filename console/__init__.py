"""The SQL endpoint: read-only SQL over the embedded ClickHouse, for analysts and their tools.

Reading order: `sql_gate` decides whether a text may run, `execution` runs it within limits, `runner` streams its
answer, `service` answers HTTP requests, `endpoint` starts and stops everything, `address` lets other processes find it.
"""
