"""Step 14: the stored states of requests, grants and findings are those that the entries give.

ClickHouse computes both sides, by the views whose definitions step 1 checks: no other party vouches for these rows.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clickhouse_connect.driver.binding import escape_str
from clickhouse_connect.driver.client import Client

from ..sinks.state_statements import ACCESS_EVENTS, FINDINGS, KEY_EVENTS
from ..sinks.states import PROCESSED, States
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
    """A table of states.

    Attributes:
        name: what a report calls it.
        stored, definition: the rows that it has, and those that it must have, each as a FROM item.
        key: the expression that identifies a row.
        group: the expression that divides the rows into those that are compared at once. Empty: by a hash of the key.
    """

    name: str
    stored: str
    definition: str
    key: str
    group: str = ""


_SHOWN = "generation = (SELECT max(generation) FROM state_refreshes WHERE complete)"


def _rows(name: str, without: str = "generation, version", where: str = "1") -> str:
    return f"(SELECT * EXCEPT ({without}) FROM {name} FINAL WHERE {_SHOWN} AND {where})"  # noqa: S608 - our names


def _added(events: str) -> str:
    """Return the events that the states contain."""
    return f"(SELECT * FROM ({events}) WHERE `index` < {PROCESSED}[origin])"  # noqa: S608 - our own text


_RANGE = f"concat(origin, '#', toString(intDiv(`index`, {BUCKET})))"
_TABLES = (
    _Table(
        "access_events", _rows("access_events"), _added(ACCESS_EVENTS), "concat(origin, '#', toString(`index`))", _RANGE
    ),
    _Table(
        "key_events",
        _rows("key_events"),
        _added(KEY_EVENTS),
        "concat(toString(kind), ' ', access_key, ' ', origin, '#', toString(`index`))",
        _RANGE,
    ),
    _Table("stored_requests", _rows("stored_requests"), "computed_requests", "request_key"),
    _Table("stored_grants", _rows("stored_grants", "generation, version, over"), "computed_grants", "grant_key"),
    _Table(
        "live_grants",
        _rows("live_grants", "generation, version, over", "NOT is_over"),
        _rows("stored_grants", "generation, version, over", "NOT is_over"),
        "grant_key",
    ),
    _Table("stored_activity", _rows("stored_activity"), "computed_activity", "grant_key"),
    _Table(
        "stored_findings",
        _rows("stored_findings"),
        f"({FINDINGS})",
        "concat(rule, ' ', key, ' ', tenant, ' ', issuer_system, ' ', issuer_instance, ' ', toString(deadline))",
    ),
)


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
        rows = client.query(f"SELECT count() FROM {table.stored}").result_rows[0][0]  # noqa: S608 - our names
        for where in _doubtful(client, table) if table.group else _buckets(table, rows):
            different = _different(client, table, where, [])
            while different and time.monotonic() < until:  # the store may have refreshed one side meanwhile
                time.sleep(PAUSE)
                different = _different(client, table, f"{table.key} IN {{keys:Array(String)}}", different)
            for key in different:
                message = f"{table.name}: the row of {key} is not the one that the entries give"
                report.add(Problem(report.deployment, None, "state", message))
        report.states += rows


def _buckets(table: _Table, rows: int) -> Iterator[str]:
    """Yield conditions that divide the rows of a table."""
    buckets = rows // BUCKET + 1
    for bucket in range(buckets):
        yield f"modulo(cityHash64({table.key}), {buckets}) = {bucket}"


def _doubtful(client: Client, table: _Table) -> list[str]:
    """Return conditions for the groups of rows that have different sums on both sides.

    The salt is new each time: nobody can prepare rows whose hashes have the same sum.
    """
    hashed = "sipHash64(concat({salt:String}, toString(tuple(*))))"
    one = f"SELECT {table.group} AS name, count() AS rows, sum({hashed}) AS hashes FROM"
    found = client.query(
        f"SELECT name FROM ({one} {table.stored} GROUP BY name UNION ALL {one} {table.definition} GROUP BY name) "  # noqa: S608 - our names
        "GROUP BY name HAVING count() != 2 OR uniqExact((rows, hashes)) != 1 ORDER BY name",
        parameters={"salt": secrets.token_hex(16)},
    ).result_rows
    return [f"{table.group} = '{escape_str(str(name))}'" for (name,) in found]


def _different(client: Client, table: _Table, where: str, keys: Sequence[str]) -> list[str]:
    """Return the keys of rows, among those with a condition, that are not the same on both sides."""
    hashed = f"toString({table.key}) AS name, sipHash128(toString(tuple(*))) AS hash"
    rows = client.query(
        f"SELECT name FROM (SELECT {hashed} FROM {table.definition} WHERE {where} UNION ALL "  # noqa: S608 - our names
        f"SELECT {hashed} FROM {table.stored} WHERE {where}) "
        f"GROUP BY name HAVING count() != 2 OR uniqExact(hash) != 1 ORDER BY name LIMIT {MOST_NAMED}",
        parameters={"keys": list(keys)},
    ).result_rows
    return [str(name) for (name,) in rows]
