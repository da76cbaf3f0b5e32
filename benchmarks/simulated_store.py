"""A store of many simulated days, through our own encoding, sealing, decoding and inserts, without Kafka.

One day of a company is simulated and mapped by the real adapters. Each stored day is a copy of it with its own times
and ids. The last day ends now, in the middle of its lives, so that some access is active.
"""

from __future__ import annotations

import multiprocessing
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from multiprocessing.pool import AsyncResult, Pool
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from clickhouse_connect.driver.client import Client

from grantledger.base.times import micros_of
from grantledger.ledger.batch import MAX_ENTRIES, Head, Records, seal
from grantledger.ledger.entry import NO_HEADERS, Genesis, origin_of
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.source_keys import SourceKeys
from grantledger.processors.watch.findings import config_event
from grantledger.processors.watch_policy import WatchPolicy
from grantledger.producers.adapters import Location, Skipped, make_adapter
from grantledger.producers.event_json import event_from_json
from grantledger.producers.json_fields import parse_object
from grantledger.runtime.store_access import refresh_states
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import ACTIVITY_TOPIC, Event
from grantledger.simulator.lifecycle import TOOLS, Tool
from grantledger.simulator.playback import Playback
from grantledger.simulator.scenario import scenarios
from grantledger.sinks.clickhouse import StoreAddress, connect
from grantledger.sinks.evidence import insert_entries, insert_origin
from grantledger.sinks.migrate import migrate
from grantledger.sinks.rows import entries_table

DEPLOYMENT = "bench.local"
ACTIVITY_PARTITIONS = 4
DAY = timedelta(days=1)
LIVES_PER_DAY = 10_000
INSERTED_ROWS = 100_000
PROCESSES = 2
"""That encode."""

Log = tuple[str, int]


class Sent(NamedTuple):
    """An event of the simulated day, and when its record was sent, after the beginning of the day."""

    after: timedelta
    event: Event


class Row(NamedTuple):
    """A Kafka record."""

    time_ms: int
    key: bytes
    value: bytes


@dataclass
class _Clock:
    """A clock that goes on when somebody waits."""

    time: datetime

    def now(self) -> datetime:
        return self.time

    def wait(self, seconds: float) -> bool:
        self.time += timedelta(seconds=seconds)
        return False


def simulated_day(lives: int, seed: int, begins: datetime) -> list[Sent]:
    """Return the events of a day on which ``lives`` lives begin, 3 % of them with a fault, in the order of sending."""
    clock = _Clock(begins)
    adapters = {tool: make_adapter(tool) for tool in TOOLS}
    sent: list[Sent] = []

    def take(tool: Tool, line: bytes) -> None:
        place = Location(f"simulated {tool}", len(sent) + 1)
        if tool == "emit":
            events: Sequence[Event] = [event_from_json(parse_object(line, place))]
        else:
            mapped = adapters[tool].read(line, place)
            events = () if isinstance(mapped, Skipped) else mapped
        sent.extend(Sent(clock.time - begins, event) for event in events)

    told = scenarios(random.Random(seed), share=0.03)
    Playback(told, take, clock, random.Random(seed)).in_real_time(lives / DAY.total_seconds(), lives)
    return sent


def copied(event: Event, by: timedelta, suffix: str) -> Event:
    """Return an event ``by`` later, with ids of its own."""

    def later(time: datetime | None) -> datetime | None:
        return time + by if time else None

    def other(name: str | None) -> str | None:
        return name + suffix if name else None

    return replace(
        event,
        occurred_at=event.occurred_at + by,
        starts_at=later(event.starts_at),
        expires_at=later(event.expires_at),
        approvals=tuple(replace(one, at=later(one.at)) for one in event.approvals),
        source=replace(event.source, native_id=event.source.native_id + suffix),
        grant_id=other(event.grant_id),
        request_id=other(event.request_id),
        session_id=other(event.session_id),
        event_id="",
    )


class Days:
    """Makes the records of each day. Kept in a global of the processes that encode, which inherit it by ``fork``."""

    def __init__(self, sent: Sequence[Sent], begins: datetime, count: int, until: datetime) -> None:
        self._sent, self._begins, self._count, self._until = sent, begins, count, until
        self._encoder = EventEncoder()

    def encode(self, number: int) -> dict[Log, list[Row]]:
        """Return the records that were sent on a day, in order: those of its lives, and the rest of the day before."""
        rows: dict[Log, list[Row]] = defaultdict(list)
        begins = self._begins + number * DAY
        for copy, first in ((number - 1, DAY), (number, timedelta())):
            if copy < 0:
                continue
            by, suffix = copy * DAY, f".{copy:04d}"
            for after, event in self._sent:
                at = self._begins + by + after
                if not first <= after < first + DAY or at > self._until:
                    continue
                made = copied(event, by, suffix)
                key = made.key.encode()
                where = sum(key) % ACTIVITY_PARTITIONS if made.topic == ACTIVITY_TOPIC else 0
                time_ms = micros_of(begins + after - first) // 1000
                rows[made.topic, where].append(Row(time_ms, key, self._encoder.encode(made)))
        for one in rows.values():
            one.sort(key=lambda row: row.time_ms)
        return rows


_days: list[Days] = []


def _encode(number: int) -> dict[Log, list[Row]]:
    return _days[0].encode(number)


class _Logs:
    """Seals the records of each log and stores them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._signer = LocalSigner.generate()
        self._catalog = SchemaCatalog((event_schema(),))
        self._sources = SourceKeys(DEPLOYMENT)
        self._heads: dict[Log, Head] = {}
        self.entries = 0

    def append(self, log: Log, rows: Sequence[Row]) -> None:
        """Seal and store records, in batches and inserts of the greatest size."""
        for at in range(0, len(rows), INSERTED_ROWS):
            part = rows[at : at + INSERTED_ROWS]
            tables = [self._sealed(log, part[b : b + MAX_ENTRIES]) for b in range(0, len(part), MAX_ENTRIES)]
            table = pa.concat_tables(tables).combine_chunks()
            insert_entries(self._client, table, f"{log}:{self._heads[log].size}")
            self.entries += len(part)

    def _sealed(self, log: Log, rows: Sequence[Row]) -> pa.Table:
        if log not in self._heads:
            genesis = Genesis(origin_of(DEPLOYMENT, *log), bytes(16), 0)
            insert_origin(self._client, genesis)
            self._heads[log] = Head.at_genesis(genesis)
        head, size = self._heads[log], len(rows)
        records = Records(
            flags=[1] * size,
            offsets=list(range(head.size, head.size + size)),
            append_times=[row.time_ms for row in rows],
            keys=[row.key for row in rows],
            values=[row.value for row in rows],
            headers=[NO_HEADERS] * size,
        )
        sealed_at = datetime.fromtimestamp(rows[-1].time_ms / 1000, UTC)
        batch, self._heads[log] = seal(head, records, head.size + size, sealed_at, self._signer)
        return entries_table(batch, self._catalog, self._sources)


def build(folder: Path, entries: int, policy: WatchPolicy, report: Callable[[str], None]) -> int:
    """Fill an empty store with at least so many entries, if days are long enough, and return how many it has.

    Args:
        policy: put on record at the beginning, as the watch does.
        report: receives a line for people after each day.
    """
    now = datetime.now(UTC)
    sent = simulated_day(max(1, min(LIVES_PER_DAY, entries // 20)), 7, now - DAY)
    count = -(-entries // len(sent))
    begins = now - count * DAY
    moved = [Sent(after, copied(event, begins - (now - DAY), "")) for after, event in sent]
    _days[:] = [Days(moved, begins, count, now)]
    # The workers begin before the engine: it starts threads, and a process with threads must not fork.
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool, connect(StoreAddress(folder)) as client:
        migrate(client)
        logs = _Logs(client)
        event = config_event(DEPLOYMENT, policy, begins)
        row = Row(micros_of(begins) // 1000, event.key.encode(), EventEncoder().encode(event))
        logs.append((event.topic, 0), [row])
        for number, rows in enumerate(_encoded(pool, count)):
            for log in sorted(rows):
                logs.append(log, rows[log])
            report(f"day {number + 1} of {count}: {logs.entries:,} entries")
        report("computing the states of grants, requests and findings")
        refresh_states(client)
    return logs.entries


def _encoded(pool: Pool, count: int) -> Iterator[dict[Log, list[Row]]]:
    """Return the records of each day. One day more than there are processes is in memory."""
    ahead: deque[AsyncResult[dict[Log, list[Row]]]] = deque()
    for number in range(count):
        ahead.append(pool.apply_async(_encode, (number,)))
        if len(ahead) > PROCESSES:
            yield ahead.popleft().get()
    while ahead:
        yield ahead.popleft().get()
