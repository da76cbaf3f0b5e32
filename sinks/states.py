"""The states of requests, grants and findings as rows, so that queries do not compute them from the whole ledger.

The views ``computed_requests``, ``computed_grants`` and ``computed_findings`` are the definition. A refresh computes
the rows that the entries since the last refresh concern. If something changes that all states depend on, such as the
watch policy, a new generation of all rows is computed, and shown once it is complete.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from ..schemas.event import FINDINGS_TOPIC, LIFECYCLE_TOPIC
from .migrate import available

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Range = tuple[str, int, int]
"""Entries of a log: origin, first index, and the index after the last one."""

TABLES = ("access_events", "stored_requests", "stored_grants", "stored_findings")
"""The tables that :meth:`States.refresh` fills, by generation."""
MAX_ENTRIES = 100_000
"""Entries that one refresh processes, so that memory is bounded."""

PROCESSED = "(SELECT argMax(sizes, (generation, version)) FROM state_refreshes WHERE complete)"
"""SQL: the number of entries of each log that the shown states contain, a map by origin."""
_SIZES = f"""
SELECT origin, max(`index`) + 1 AS size FROM entries
WHERE origin IN (
    SELECT origin FROM origins WHERE splitByChar('/', origin)[-3] IN ('{LIFECYCLE_TOPIC}', '{FINDINGS_TOPIC}')
)
GROUP BY origin ORDER BY origin
"""  # noqa: S608 - our own text
STORED_SIZES = f"SELECT mapFromArrays(groupArray(origin), groupArray(size)) AS sizes FROM ({_SIZES})"  # noqa: S608 - our own text
"""The number of stored entries of each log that the states depend on, as one map."""
SHOWN_SIZES = f"SELECT {PROCESSED} AS sizes"
"""The number of those entries that the shown states contain, as one map."""
_BASIS = f"""
SELECT
    countIf(event_type = 'config.changed' AND resource_id = 'watch-policy') AS policies,
    countIf(event_type = 'finding.closed' AND finding_accept_index IS NOT NULL) AS acceptances,
    countIf(event_type = 'payload.erased') AS erasures,
    if(erasures = 0, 0, (SELECT count() FROM entries WHERE erased_at IS NOT NULL)) AS erased
FROM entries
WHERE origin IN (SELECT origin FROM origins WHERE splitByChar('/', origin)[-3] = '{FINDINGS_TOPIC}')
"""  # noqa: S608 - our own text
_SHOWN = "SELECT max(generation) FROM state_refreshes WHERE complete"
_SETTINGS = {
    "max_threads": 1, "max_insert_threads": 1, "query_plan_merge_expressions": 0, "query_plan_remove_unused_columns": 0,
}  # fmt: skip
"""A refresh leaves the other processors to inserts and queries. Without two rewrites of the plan, which make nothing
here faster, planning takes half the time: it is most of a small refresh."""
_LAST = """
SELECT generation, complete, sizes, basis FROM state_refreshes
ORDER BY generation DESC, complete DESC, version DESC LIMIT 1
"""
_EVENTS = (
    "epoch, `index`, origin, event_type, event_id, occurred_at, recorded_at, arrived_at, outcome, signature, tenant, "
    "subject_id, subject_kind, actor_id, resource_kind, resource_id, resource_environment, entitlement, grant_id, "
    "grant_key, grant_source_system, grant_source_instance, request_id, request_key, request_source_system, "
    "request_source_instance, source_system, source_instance, approvals, starts_at, expires_at, expiry_source, "
    "ends_by_itself, removal_evidence, reason, ticket, customer"
)
ACCESS_EVENTS = f"""
SELECT if(grant_id != '' AND startsWith(event_type, 'grant.'), grant_key, request_key) AS access_key, {_EVENTS}
FROM events
WHERE believed AND origin IN (SELECT origin FROM origins WHERE splitByChar('/', origin)[-3] = '{LIFECYCLE_TOPIC}')
    AND (grant_id != '' OR request_id != '') AND match(event_type, '^(request|grant)\\.')
"""  # noqa: S608 - our own text
"""The columns of ``access_events`` after the first two."""
_ADD_EVENTS = f"""
INSERT INTO access_events (generation, version, access_key, {_EVENTS})
SELECT {{generation:UInt64}}, {{version:UInt64}}, * FROM ({ACCESS_EVENTS})
WHERE origin = {{origin:String}} AND `index` >= {{first:UInt64}} AND `index` < {{end:UInt64}}
"""  # noqa: S608 - our own text
_NEW = "generation = {generation:UInt64} AND version = {version:UInt64}"
_KINDS = f"SELECT DISTINCT splitByChar('.', event_type)[1] FROM access_events WHERE {_NEW}"  # noqa: S608 - our own text
_ADD_REQUESTS = f"""
INSERT INTO stored_requests SELECT {{generation:UInt64}}, {{version:UInt64}}, * FROM computed_requests
WHERE request_key IN (SELECT request_key FROM access_events WHERE {_NEW} AND startsWith(event_type, 'request.'))
"""  # noqa: S608 - our own text
_ADD_GRANTS = f"""
INSERT INTO stored_grants SELECT {{generation:UInt64}}, {{version:UInt64}}, * FROM computed_grants
WHERE grant_key IN (
    SELECT grant_key FROM access_events WHERE {_NEW} AND grant_key != ''
    UNION DISTINCT
    SELECT grant_key FROM access_events
    WHERE generation = {{generation:UInt64}} AND grant_key != '' AND request_key IN (
        SELECT request_key FROM access_events WHERE {_NEW} AND grant_key = '' AND startsWith(event_type, 'grant.')
    )
)
"""  # noqa: S608 - our own text
_ADD_FINDINGS = """
INSERT INTO stored_findings SELECT {generation:UInt64}, {version:UInt64}, * FROM computed_findings
WHERE (rule, key, tenant) IN (
    SELECT finding_rule, finding_key, tenant FROM entries
    WHERE origin = {origin:String} AND `index` >= {first:UInt64} AND `index` < {end:UInt64} AND finding_rule != ''
)
"""


KEEP_SECONDS = 10.0
"""How long the rows of the previous generation stay for queries that have begun to read them."""


@dataclass(frozen=True, slots=True)
class RefreshProgress:
    """How far a generation is: one row of ``state_refreshes``.

    Attributes:
        complete: whether it has reached the end of the entries once.
        sizes: number of processed entries, by log.
        basis: what the states depend on besides these entries.
    """

    generation: int = 0
    complete: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)
    basis: str = ""

    @property
    def version(self) -> int:
        """Number of processed entries of all logs. Of two rows with one key, the higher version is the newer one."""
        return sum(self.sizes.values())


class States:
    """Refreshes the states of one store. One instance at a time should do so; a second one only repeats the work."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._entries = self._counted = -1
        """Number of entries when everything was last up to date; when :meth:`grows` was last called."""
        self._erasures = False
        """Whether entries may be erased: that changes no number of entries."""
        self._drop_at: float | None = time.monotonic() + KEEP_SECONDS

    def refresh(self, most: int | None = None) -> bool:
        """Process entries that are stored and not processed yet, at most ``most``. Return whether some are left."""
        self._drop_former()
        entries = self._count()
        if entries == self._entries and not self._erasures:
            return False
        # In this order: an entry that changes the basis is never processed under the old one.
        sizes, basis, done = self.sizes(), self._basis(), self._last()
        if done.basis != basis:
            done = self._begin(done.generation + 1, basis)
        ranges = _next_ranges(done.sizes, sizes, most or MAX_ENTRIES)
        reached = {**done.sizes, **{origin: end for origin, _, end in ranges}}
        complete = done.complete or reached == sizes
        now = RefreshProgress(done.generation, complete, reached, basis)
        if ranges:
            self._compute(now, ranges)
        if ranges or complete != done.complete:
            self._record(now)
        if complete and not done.complete:
            self._drop_at = time.monotonic() + KEEP_SECONDS
        if reached == sizes:
            self._entries = entries
        return reached != sizes

    def grows(self) -> bool:
        """Return whether entries were stored since the last call."""
        before, self._counted = self._counted, self._count()
        return self._counted != before

    def _count(self) -> int:
        return int(self._client.query("SELECT count() FROM entries").result_rows[0][0])

    def sizes(self) -> dict[str, int]:
        """Return how many entries of each log are stored."""
        return {str(origin): int(size) for origin, size in self._client.query(_SIZES).result_rows}

    def contain(self, sizes: Mapping[str, int]) -> bool:
        """Return whether the states contain at least these entries, under the policy and decisions now in force."""
        done = self._last()
        return done.complete and done.basis == self._basis() and reaches(done.sizes, sizes)

    def begin_again(self) -> None:
        """Begin another generation, which :meth:`refresh` computes. The views show the last one meanwhile."""
        self._begin(self._last().generation + 1, self._basis())
        self._entries = -1

    def progress(self) -> tuple[int, int]:
        """Return how many entries the latest generation contains, and how many it must."""
        return self._last().version, sum(self.sizes().values())

    def _begin(self, generation: int, basis: str) -> RefreshProgress:
        for table in TABLES:  # an attempt that was not recorded may have left rows
            self._client.command(f"ALTER TABLE {table} DROP PARTITION {generation}")
        begun = RefreshProgress(generation, basis=basis)
        self._record(begun)  # the computed views read the latest generation
        return begun

    def _compute(self, now: RefreshProgress, ranges: Sequence[Range]) -> None:
        values = {"generation": now.generation, "version": now.version}
        for origin, first, end in ranges:
            statement = _ADD_EVENTS if f"/{LIFECYCLE_TOPIC}/" in origin else _ADD_FINDINGS
            self._insert(statement, **values, origin=origin, first=first, end=end)
        kinds = {row[0] for row in self._client.query(_KINDS, parameters=values).result_rows}
        if "request" in kinds:
            self._insert(_ADD_REQUESTS, **values)
        if "grant" in kinds:
            self._insert(_ADD_GRANTS, **values)

    def _insert(self, statement: str, **values: object) -> None:
        self._client.command(statement, parameters=values, settings=_SETTINGS)

    def _last(self) -> RefreshProgress:
        for generation, complete, sizes, basis in self._client.query(_LAST).result_rows:
            return RefreshProgress(generation, complete, sizes, basis)
        return RefreshProgress()

    def _basis(self) -> str:
        policies, acceptances, erasures, erased = self._client.query(_BASIS).result_rows[0]
        self._erasures = erasures > 0
        return f"{_definitions()} {policies} {acceptances} {erasures} {erased}"

    def _record(self, progress: RefreshProgress) -> None:
        row = [progress.generation, progress.complete, progress.version, dict(progress.sizes), progress.basis]
        names = ["generation", "complete", "version", "sizes", "basis", "refreshed_at"]
        self._client.insert("state_refreshes", [[*row, datetime.now(UTC)]], column_names=names)

    def _drop_former(self) -> None:
        """Drop the rows of former generations once no query reads them any more."""
        if self._drop_at is None or time.monotonic() < self._drop_at:
            return
        for table in TABLES:
            former = f"SELECT DISTINCT generation FROM {table} WHERE generation < ({_SHOWN})"  # noqa: S608 - our names
            for (generation,) in self._client.query(former).result_rows:
                self._client.command(f"ALTER TABLE {table} DROP PARTITION {int(generation)}")
        self._drop_at = None


def reaches(sizes: Mapping[str, int], wanted: Mapping[str, int]) -> bool:
    """Return whether every log has at least so many entries."""
    return all(sizes.get(origin, 0) >= size for origin, size in wanted.items())


def _next_ranges(done: Mapping[str, int], sizes: Mapping[str, int], room: int) -> list[Range]:
    """Return the next entries to process, at most ``room``."""
    ranges = []
    for origin, size in sorted(sizes.items()):
        first = done.get(origin, 0)
        end = min(size, first + room)
        if end > first:
            ranges.append((origin, first, end))
            room -= end - first
    return ranges


@cache
def _definitions() -> str:
    """Return a hash of this version's views: another version computes everything again."""
    return hashlib.sha256("".join(migration.sha256 for migration in available()).encode()).hexdigest()[:16]
