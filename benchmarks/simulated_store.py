"""A store of many simulated days, through our own encoding, sealing, decoding and inserts, without Kafka.

One day of a company is simulated and mapped by the real adapters. Each stored day is a copy of it with its own times
and ids (see :mod:`.day_copies`). The last day ends now, in the middle of its lives, so that some access is active. One
process copies, seals and decodes; the other one, which has the store open, inserts.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from grantledger.base.times import micros_of
from grantledger.ledger.batch import Head, Records, seal
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
from grantledger.schemas.event import Event
from grantledger.simulator.lifecycle import TOOLS, Tool
from grantledger.simulator.playback import Playback
from grantledger.simulator.scenario import scenarios
from grantledger.sinks.clickhouse import StoreAddress, connect
from grantledger.sinks.evidence import insert_entries, insert_origin
from grantledger.sinks.migrate import migrate
from grantledger.sinks.rows import entries_table, needed_columns

from .day_copies import DAY, DayCopies, Log, Rows, Sent, copied

DEPLOYMENT = "bench.local"
LIVES_PER_DAY = 10_000
INSERTED_ROWS = 50_000
"""Least rows of an insert."""
TOLD_ENTRIES = 1_000_000
"""Where there is no terminal, progress is printed after so many."""
BUILT = "built.json"
"""Written beside a complete store: how many entries it has, and how long it took."""


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


class Block(NamedTuple):
    """Consecutive rows of a log's ``entries``; the first block has its genesis."""

    log: Log
    first_index: int
    genesis: Genesis | None
    table: pa.Table


class _SealedLog:
    """Seals and decodes the records of a log, and gathers them until they are enough for an insert."""

    def __init__(self, log: Log, signer: LocalSigner, catalog: SchemaCatalog) -> None:
        self._log, self._signer, self._catalog = log, signer, catalog
        self._sources = SourceKeys(DEPLOYMENT)
        self._genesis = Genesis(origin_of(DEPLOYMENT, *log), bytes(16), 0)
        self._head = Head.at_genesis(self._genesis)
        self._gathered: list[pa.Table] = []
        self._needed: frozenset[str] = frozenset()
        self._first = 0

    def append(self, rows: Rows) -> None:
        """Seal and decode one batch of records."""
        head, size = self._head, len(rows.keys)
        records = Records(
            flags=[1] * size,
            offsets=list(range(head.size, head.size + size)),
            append_times=rows.times_ms,
            keys=list(rows.keys),
            values=list(rows.values),
            headers=[NO_HEADERS] * size,
        )
        sealed_at = datetime.fromtimestamp(rows.times_ms[-1] / 1000, UTC)
        batch, self._head = seal(head, records, head.size + size, sealed_at, self._signer)
        table = entries_table(batch, self._catalog, self._sources)
        self._needed |= needed_columns(table)
        self._gathered.append(table)

    def blocks(self, least: int) -> Iterator[Block]:
        """Yield what is gathered, if it has at least so many rows."""
        rows = sum(table.num_rows for table in self._gathered)
        if rows >= least:
            names = [name for name in self._gathered[0].schema.names if name in self._needed]
            table = pa.concat_tables([one.select(names) for one in self._gathered]).combine_chunks()
            yield Block(self._log, self._first, None if self._first else self._genesis, table)
            self._gathered, self._needed, self._first = [], frozenset(), self._first + rows


def sealed_days(copies: DayCopies, days: int, policy: WatchPolicy, begins: datetime) -> Iterator[Block]:
    """Yield the rows of all days, which start with the policy on record."""
    signer, catalog = LocalSigner.generate(), SchemaCatalog((event_schema(),))
    event = config_event(DEPLOYMENT, policy, begins)
    findings = _SealedLog((event.topic, 0), signer, catalog)
    findings.append(Rows([micros_of(begins) // 1000], [event.key.encode()], [EventEncoder().encode(event)]))
    yield from findings.blocks(1)
    logs = {log: _SealedLog(log, signer, catalog) for log in copies.logs}
    for number in range(days):
        for log, sealed in logs.items():
            for rows in copies.rows(log, number):
                if rows.keys:
                    sealed.append(rows)
                yield from sealed.blocks(INSERTED_ROWS)
    for sealed in logs.values():
        yield from sealed.blocks(1)


def _send(blocks: Iterator[Block], to: Connection) -> None:
    """Send every block, then the CPU time of this process. The pipe holds back a sender that is ahead."""
    for block in blocks:
        to.send(block)
    to.send(time.process_time())


def _copies(entries: int, now: datetime) -> tuple[DayCopies, datetime, int]:
    """Return the copies of a day, when the first of them begins, and how many make so many entries until now."""
    sent = simulated_day(max(1, min(LIVES_PER_DAY, entries // 20)), 7, now - DAY)
    days = -(-entries // len(sent))
    begins = now - days * DAY
    first = [Sent(after, copied(one, begins - (now - DAY), "")) for after, one in sent]
    return DayCopies(first, begins), begins, days


def build(folder: Path, entries: int, policy: WatchPolicy, console: Console) -> dict[str, Any]:
    """Fill an empty store with at least so many entries, if days are long enough; return what it has and took.

    Args:
        folder: receives the store as ``clickhouse``, and at the end ``built.json``.
        policy: put on record at the beginning, as the watch does.
    """
    started = time.monotonic()
    now = datetime.now(UTC)
    with console.status("simulating a day"):
        copies, begins, days = _copies(entries, now)
    simulated, simulated_cpu = time.monotonic(), _cpu()
    receive, send = multiprocessing.get_context("fork").Pipe(duplex=False)
    # Fork before the engine is opened: it starts threads, and a process with threads must not fork.
    blocks = sealed_days(copies, days, policy, begins)
    sealer = multiprocessing.get_context("fork").Process(target=_send, args=(blocks, send), daemon=True)
    sealer.start()
    send.close()
    stored = 0
    with connect(StoreAddress(folder / "clickhouse")) as client:
        migrate(client)
        with _progress(console) as progress:
            task = progress.add_task("entries", total=days * copies.per_day)
            while isinstance(block := receive.recv(), Block):
                if block.genesis is not None:
                    insert_origin(client, block.genesis)
                insert_entries(client, block.table, f"{block.log}:{block.first_index}")
                before, stored = stored, stored + block.table.num_rows
                progress.update(task, completed=stored)
                if not console.is_terminal and before // TOLD_ENTRIES < stored // TOLD_ENTRIES:
                    console.print(
                        f"{stored:,} of {days * copies.per_day:,} entries, {time.monotonic() - simulated:,.0f} s"
                    )
        sealer.join()
        inserted, inserted_cpu = time.monotonic(), _cpu()
        with console.status("computing the states of grants, requests and findings"):
            refresh_states(client)
        ended, ended_cpu = time.monotonic(), _cpu()
    result = {
        "entries": stored,
        "days": days,
        "simulate_s": simulated - started,
        "store_s": inserted - simulated,
        "states_s": ended - inserted,
        "seal_and_decode_cpu_s": block,
        "insert_cpu_s": inserted_cpu - simulated_cpu,
        "states_cpu_s": ended_cpu - inserted_cpu,
    }
    (folder / BUILT).write_text(json.dumps(result, indent=2) + "\n")
    return result


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
