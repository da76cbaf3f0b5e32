"""The ways to look: the read-only SQL endpoint over the embedded ClickHouse, and the web pages.

Reading order for the SQL way in: `gate` decides whether a text may run, `execution` runs it under limits,
`endpoint` serves it over HTTP as a ClickHouse server would, `access` tells other processes where it is and what its
password is.
"""
