"""ClickHouse: its version, its migrations, the table of evidence, and its disks."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC

from ...base.errors import GrantledgerError
from ...base.text import counted
from ...sinks.clickhouse import Ask
from ...sinks.migrate import APPLIED, Migration, MigrationError, not_in
from .clocks import Clock
from .diagnosis import Diagnosis, Subject
from .machine import FEW_SHARE, GIB, LEAST_BYTES

ABOUT = Subject("ClickHouse")
TESTED = (26, 9)
"""The version that the tests run against."""
OLDEST = (26, 2)
"""The first version with all that the migrations use: text indexes, for example."""
LEAST_WINDOW = 1000
"""Blocks of which the table of evidence remembers the tokens: fewer could forget an insert that is repeated."""
_DISKS = "SELECT name, free_space AS free, total_space AS total FROM system.disks WHERE total_space > 0"
_TABLE = """
SELECT engine, create_table_query AS query FROM system.tables
WHERE database = currentDatabase() AND name = 'entries'
"""


@dataclass(frozen=True, slots=True)
class Store:
    """What ClickHouse says of itself.

    Attributes:
        place: the server, or the folder of the embedded engine.
        missing: the migrations that are not applied.
        unknown: what is wrong with those that are applied.
        table: engine and definition of ``entries``; empty if there is no such table.
        disks: name, free and total bytes of each disk; none for the embedded engine, which is in the data folder.
    """

    place: str
    version: str
    missing: Sequence[Migration] = ()
    unknown: str = ""
    table: tuple[str, str] = ("", "")
    disks: Iterable[tuple[str, int, int]] = ()


def check(found: Store) -> list[Diagnosis]:
    """Return what is to be said about ClickHouse."""
    lines = [*_version(found), *_migrations(found), *_table(found)]
    for name, free, total in found.disks:
        text = f"disk {name}: {free / GIB:,.1f} GiB of {total / GIB:,.1f} GiB are free"
        what = "make room, or add a disk: without room the store waits, and Kafka keeps the backlog"
        if free < LEAST_BYTES:
            lines.append(ABOUT.problem(text, what))
        elif free < FEW_SHARE * total:
            lines.append(ABOUT.warning(text, what))
        else:
            lines.append(ABOUT.ok(text))
    return lines


def _version(found: Store) -> Iterable[Diagnosis]:
    numbers = tuple(int(one) for one in re.findall(r"\d+", found.version)[:2])
    text = f"{found.place} answers: version {found.version}"
    tested = ".".join(map(str, TESTED))
    if numbers < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        yield ABOUT.problem(text, f"upgrade it to {oldest} or later: grantledger is tested with {tested}")
    elif numbers < TESTED:
        yield ABOUT.warning(text, f"grantledger is tested with {tested}: upgrade it when you can")
    else:
        yield ABOUT.ok(text)


def _migrations(found: Store) -> Iterable[Diagnosis]:
    if found.unknown:
        yield ABOUT.problem(found.unknown, "run the version of grantledger that the store has")
    elif found.missing:
        names = ", ".join(one.name for one in found.missing)
        yield ABOUT.problem(
            f"{counted(len(found.missing), 'migrations')} not applied: {names}", "start `run store`: it applies them"
        )
    else:
        yield ABOUT.ok("all migrations of this version are applied")


def _table(found: Store) -> Iterable[Diagnosis]:
    engine, query = found.table
    if not engine:
        if not found.missing:
            yield ABOUT.problem("there is no table entries", "run `grantledger verify`: somebody has removed it")
        return
    setting = "replicated_deduplication_window" if "Replicated" in engine else "non_replicated_deduplication_window"
    window = re.search(rf"\b{setting} = (\d+)", query)
    if window is None or int(window[1]) < LEAST_WINDOW:
        has = window[1] if window is not None else "no value"
        yield ABOUT.problem(
            f"entries has {setting} = {has}, so an insert that is repeated may be stored twice",
            f"ALTER TABLE entries MODIFY SETTING {setting} = 10000",
        )


def read_store(ask: Ask, place: str, *, embedded: bool) -> tuple[Store, Clock]:
    """Ask ClickHouse, also for its time. Raises DependencyError."""
    before = time.time()
    first = ask("SELECT version() AS version, now64(6, 'UTC') AS now")[0]
    clock = Clock(f"ClickHouse at {place}", before, time.time(), first["now"].replace(tzinfo=UTC).timestamp())
    missing: Sequence[Migration] = ()
    unknown = ""
    try:
        missing = not_in([tuple(row.values()) for row in ask(APPLIED)])
    except MigrationError as error:
        unknown = str(error)
    except GrantledgerError as error:  # there is no such table
        missing, unknown = not_in([]), "" if "earlier version" in str(error) else str(error)
    table = [(str(row["engine"]), str(row["query"])) for row in ask(_TABLE)]
    disks = [] if embedded else [(row["name"], row["free"], row["total"]) for row in ask(_DISKS)]
    return Store(place, first["version"], missing, unknown, table[0] if table else ("", ""), disks), clock


def away(reason: str, *, embedded: bool) -> list[Diagnosis]:
    """Return what is to be said if ClickHouse does not answer."""
    found = re.search(r"\[Errno \d+\] ([^\"')]+)", reason)  # the HTTP client wraps it in much text
    if found is not None:
        reason = f"{reason.partition(': ')[0]}: {found[1]}"
    how = "start `run store`" if embedded else "start it, or correct the settings that the text names"
    return [ABOUT.problem(reason, how), ABOUT.unchecked("its version, migrations and disks: it does not answer")]
