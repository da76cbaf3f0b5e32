"""Step 14: the stored states of requests, grants and findings are those that the entries give.

ClickHouse computes both sides, by the views whose definitions step 1 checks: no other party vouches for these rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from clickhouse_connect.driver.client import Client

from ..sinks.states import ACCESS_EVENTS, PROCESSED, States
from .report import VerifyReport
from .steps import Problem

BUCKET = 200_000
"""Rows that are compared at once, so that memory is bounded."""
MOST_NAMED = 20
"""Rows per table that a report names."""
PAUSE = 0.5
"""Seconds between two attempts while the store refreshes the states."""


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of states, its definition as a FROM item, and the expression that identifies a row."""

    name: str
    definition: str
    key: str


_TABLES = (
    _Table(
        "access_events",
        f"(SELECT * FROM ({ACCESS_EVENTS}) WHERE `index` < {PROCESSED}[origin])",  # noqa: S608 - our own text
        "concat(origin, '#', toString(`index`))",
    ),
    _Table("stored_requests", "computed_requests", "request_key"),
    _Table("stored_grants", "computed_grants", "grant_key"),
    _Table(
        "stored_findings",
        "computed_findings",
        "concat(rule, ' ', key, ' ', tenant, ' ', issuer_system, ' ', issuer_instance, ' ', toString(deadline))",
    ),
)
_SHOWN = "generation = (SELECT max(generation) FROM state_refreshes WHERE complete)"


def check_states(client: Client, report: VerifyReport, patience: float) -> None:
    """Compare every table of states with its definition.

    Args:
        patience: seconds to wait for a running store to process what it has stored; 0 if none is running.
    """
    # Step 14, States: each row is the one that its definition gives.
    if not client.query("SELECT count() FROM state_refreshes").result_rows[0][0]:
        report.unchecked_states = "the store has not computed any yet"
        return
    until, states = time.monotonic() + patience, States(client)
    stored = states.sizes()
    while not states.contain(stored):
        if time.monotonic() >= until:
            report.unchecked_states = "the store has not computed those of its latest entries"
            return
        time.sleep(PAUSE)
    for table in _TABLES:
        rows = client.query(f"SELECT count() FROM {table.name} WHERE {_SHOWN}").result_rows[0][0]  # noqa: S608 - our names
        buckets = rows // BUCKET + 1
        for bucket in range(buckets):
            where = f"modulo(cityHash64({table.key}), {buckets}) = {bucket}"
            different = _different(client, table, where, [])
            while different and time.monotonic() < until:  # the store may have refreshed one side meanwhile
                time.sleep(PAUSE)
                different = _different(client, table, f"{table.key} IN {{keys:Array(String)}}", different)
            for key in different:
                message = f"{table.name}: the row of {key} is not the one that the entries give"
                report.add(Problem(report.deployment, None, "state", message))
        report.states += rows


def _different(client: Client, table: _Table, where: str, keys: Sequence[str]) -> list[str]:
    """Return the keys of rows, among those with a condition, that are not the same on both sides."""
    hashed = f"toString({table.key}) AS name, sipHash128(toString(tuple(*))) AS hash"
    rows = client.query(
        f"SELECT name FROM (SELECT {hashed} FROM {table.definition} WHERE {where} UNION ALL "  # noqa: S608 - our names
        f"SELECT {hashed} FROM (SELECT * EXCEPT (generation, version) FROM {table.name} FINAL WHERE {_SHOWN}) "
        f"WHERE {where}) GROUP BY name HAVING count() != 2 OR uniqExact(hash) != 1 ORDER BY name LIMIT {MOST_NAMED}",
        parameters={"keys": list(keys)},
    ).result_rows
    return [str(name) for (name,) in rows]
