"""The states of requests, grants and findings as rows, so that queries do not compute them from the whole ledger.

The views ``computed_requests``, ``computed_grants`` and ``computed_findings`` are the definition. A refresh computes
the rows that the entries since the last refresh concern. If something changes that all states depend on, such as the
watch policy, a new generation of all rows is computed, and shown once it is complete.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from ..schemas.event import ACTIVITY_TOPIC, FINDINGS_TOPIC, LIFECYCLE_TOPIC
from . import state_statements as sql
from .migrate import available

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Range = tuple[str, int, int]
"""Entries of a log: origin, first index, and the index after the last one."""

TABLES = (
    "access_events", "key_events", "stored_requests", "stored_findings", "stored_grants", "live_grants",
    "stored_activity",
)  # fmt: skip
"""The tables that :meth:`States.refresh` fills, by generation."""
MAX_ENTRIES = 100_000
"""Entries that one refresh processes, so that memory is bounded."""
MAX_ROWS = 200_000
"""Rows of events from which one statement computes states, when all are computed."""
RETIRE_SECONDS = 30.0
"""How often grants that are over since some time has passed leave ``live_grants``."""
LEFT_ROWS = 10_000
"""Rows of such grants that may be left in the table; more if a quarter as many are live."""

PROCESSED = "(SELECT argMax(sizes, (generation, version)) FROM state_refreshes WHERE complete)"
"""SQL: the number of entries of each log that the shown states contain, a map by origin."""
_SIZES = f"""
SELECT origin, max(`index`) + 1 AS size FROM entries
WHERE origin IN (
    SELECT origin FROM origins
    WHERE splitByChar('/', origin)[-3] IN ('{LIFECYCLE_TOPIC}', '{FINDINGS_TOPIC}', '{ACTIVITY_TOPIC}')
)
GROUP BY origin
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
_SETTINGS = {"max_threads": "1", "max_insert_threads": "1", **sql.LOOKUPS}
"""A refresh leaves the other processors to inserts and queries."""
_LAST = """
SELECT generation, complete, sizes, basis FROM state_refreshes
ORDER BY generation DESC, complete DESC, version DESC LIMIT 1
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

    @property
    def values(self) -> dict[str, object]:
        """The values of :mod:`.state_statements` for the rows to add."""
        return {"generation": self.generation, "version": self.version}


class States:
    """Refreshes the states of one store. One instance at a time should do so; a second one only repeats the work."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._entries = self._counted = -1
        """Number of entries when everything was last up to date; when :meth:`grows` was last called."""
        self._erasures = False
        """Whether entries may be erased: that changes no number of entries."""
        self._all: Iterator[None] | None = None
        """What is left to compute of a generation whose entries are all added."""
        self._retire_at = 0.0
        self._drop_at: float | None = time.monotonic() + KEEP_SECONDS

    def refresh(self, most: int | None = None) -> bool:
        """Process entries that are stored and not processed yet, at most ``most``. Return whether some are left.

        A new generation takes many calls: its states are computed part by part once all entries are added.
        """
        if self._all is not None:
            return self._go_on(self._all)
        self._drop_former()
        entries = self._count()
        if entries == self._entries and not self._erasures:
            self._retire()
            return False
        # In this order: an entry that changes the basis is never processed under the old one.
        sizes, basis, done = self.sizes(), self._basis(), self._last()
        if done.basis != basis:
            done = self._begin(done.generation + 1, basis)
        ranges = _next_ranges(done.sizes, sizes, most or MAX_ENTRIES)
        reached = {**done.sizes, **{origin: end for origin, _, end in ranges}}
        now = RefreshProgress(done.generation, done.complete, reached, basis)
        if ranges:
            self._add(now, ranges)
            if done.complete:
                self._compute_new(now)
            self._record(now)
        if not done.complete and reached == sizes:
            return self._go_on(self._compute_all(replace(now, complete=True)))
        self._retire()
        if reached == sizes:
            self._entries = entries
        return reached != sizes

    @property
    def computing(self) -> bool:
        """Whether the parts of a new generation are being computed: the next call of :meth:`refresh` goes on."""
        return self._all is not None

    def _go_on(self, parts: Iterator[None]) -> bool:
        """Compute the next part of a generation. Return True: there may be more."""
        self._all = None  # also if it fails
        for _ in parts:
            self._all = parts
            break
        return True

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
        self._all, self._entries = None, -1

    def progress(self) -> tuple[int, int]:
        """Return how many entries the latest generation contains, and how many it must."""
        return self._last().version, sum(self.sizes().values())

    def _begin(self, generation: int, basis: str) -> RefreshProgress:
        for table in TABLES:  # an attempt that was not recorded may have left rows
            self._client.command(f"ALTER TABLE {table} DROP PARTITION {generation}")
        begun = RefreshProgress(generation, basis=basis)
        self._record(begun)  # the computed views read the latest generation
        return begun

    def _add(self, now: RefreshProgress, ranges: Sequence[Range]) -> None:
        """Add entries to the events by key; those of the lifecycle to the events of requests and grants, too."""
        for origin, first, end in ranges:
            place = {"origin": origin, "first": first, "end": end}
            if f"/{LIFECYCLE_TOPIC}/" in origin:
                self._insert(now, sql.ADD_ACCESS_EVENTS, **place)
            self._insert(now, sql.ADD_KEY_EVENTS, **place)
            if f"/{FINDINGS_TOPIC}/" in origin:
                self._insert(now, sql.ADD_FINDINGS, **place)

    def _compute_new(self, now: RefreshProgress) -> None:
        """Compute the states that the added entries concern."""
        requests, grants, activity = self._client.query(sql.NEWS, parameters=now.values).result_rows[0]
        if requests:
            self._insert(now, sql.add_requests())
        if grants:
            self._insert(now, sql.add_grants())
            self._insert(now, sql.ADD_LIVE_GRANTS)
        if activity:
            self._insert(now, sql.add_activity())

    def _compute_all(self, now: RefreshProgress) -> Iterator[None]:
        """Compute the states of all added entries, part by part in the order of their keys; then show them."""
        for part in self._parts(now, "access_events", "access_key", "1"):
            self._insert(now, sql.add_requests(part.format("request_key")))
            yield
        for part in self._parts(now, "access_events", "access_key", "1"):
            self._insert(now, sql.add_grants(part.format("grant_key")))
            yield
        self._insert(now, sql.ADD_LIVE_GRANTS)
        for part in self._parts(now, "key_events", "id", "kind = 'grant'"):
            self._insert(now, sql.add_activity(part.format("grant_id")))
            yield
        self._record(now)
        self._drop_at = time.monotonic() + KEEP_SECONDS

    def _parts(self, now: RefreshProgress, table: str, key: str, condition: str) -> Iterator[str]:
        """Yield conditions that divide the rows of a table by a key. ``{}`` in them stands for the key."""
        ends = self._client.query(sql.ends(table, key, condition, MAX_ROWS), parameters=now.values).result_rows
        for last, end in pairwise(["", *(end for (end,) in ends), ""]):
            yield (f"{{0}} > unhex('{last}')" if last else "1") + (f" AND {{0}} <= unhex('{end}')" if end else "")

    def _insert(self, now: RefreshProgress, statement: str, **values: object) -> None:
        self._client.command(statement, parameters={**now.values, **values}, settings=_SETTINGS)

    def _retire(self) -> None:
        """Let grants that are over since some time has passed leave the live ones, and delete what is left of them."""
        if time.monotonic() < self._retire_at:
            return
        done = self._last()
        self._insert(done, sql.RETIRE_GRANTS)
        rows, over = self._client.query(sql.LIVE_ROWS, parameters=done.values).result_rows[0]
        if over > max((rows - over) // 4, LEFT_ROWS):
            self._client.command(f"OPTIMIZE TABLE live_grants PARTITION {done.generation} FINAL CLEANUP")
        self._retire_at = time.monotonic() + RETIRE_SECONDS

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
    """Return the next entries to process, at most ``room``: those that decide about access before those of sessions."""
    ranges = []
    for origin, size in sorted(sizes.items(), key=lambda one: (f"/{ACTIVITY_TOPIC}/" in one[0], one[0])):
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
