"""Reads the numbers of senders from the store: each entry once, and of many consecutive numbers one row."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from ...ledger.entry import topic_of_origin
from ...schemas.event import ACTIVITY_TOPIC, LIFECYCLE_TOPIC
from ...schemas.instance_names import InstanceNames
from ..access import Source, shorten_source
from .counters import Counters, Run, Sender

TOPICS = [LIFECYCLE_TOPIC, ACTIVITY_TOPIC]
"""The topics over which a sender may count."""
MOST_ENTRIES = 100_000
"""Entries per query. Each of them is a row of its own if its sender does not count."""
MOST_DOUBTS = 20
"""Senders per sweep of which the store is asked whether they restarted: the query reads all entries."""

Ask = Callable[..., list[dict[str, Any]]]
"""``ask(sql, name=value, …)`` returns the rows of one query."""

ORIGINS = "SELECT origin FROM origins WHERE splitByChar('/', origin)[-3] IN {topics:Array(String)} ORDER BY origin"
RUNS = """
SELECT system, instance, name, signed, latest, entries, run.1 AS first, run.2 AS last, run.3 AS since
FROM
(
    SELECT
        system, instance, name, signed, max(place) AS latest, count() AS entries,
        arraySort(groupArray((number, appended))) AS numbers,
        arrayPushFront(arrayPopBack(numbers), numbers[1]) AS previous,
        arraySplit((one, before) -> one.1 > before.1 + 1, numbers, previous) AS consecutive,
        arrayMap(each -> (each[1].1, each[-1].1, arrayMin(each.2)), consecutive) AS runs
    FROM
    (
        SELECT
            toValidUTF8(substring(source_system, 1, 2000)) AS system,
            toValidUTF8(substring(source_instance, 1, 2000)) AS instance,
            toValidUTF8(substring(source_sender, 1, 200)) AS name,
            signature = 'valid' AS signed, assumeNotNull(source_seq) AS number, `index` AS place,
            if(bitAnd(flags, 1) = 1, 1000 * toUnixTimestamp64Milli(append_time), toUnixTimestamp64Micro(sealed_at))
                AS appended
        FROM entries
        WHERE origin = {origin:String} AND `index` >= {begin:UInt64} AND source_seq IS NOT NULL
            AND decode_error = '' AND signature NOT IN ('missing', 'invalid')
        ORDER BY `index`
        LIMIT {most:UInt32}
    )
    GROUP BY system, instance, name, signed
)
ARRAY JOIN runs AS run
ORDER BY system, instance, name, signed, first
"""
"""The consecutive numbers among the first numbered entries of a log from an index on."""
REUSED = """
SELECT count() > 0 AS reused
FROM
(
    SELECT splitByChar('/', origin)[-3] AS topic
    FROM entries
    WHERE topic IN {topics:Array(String)} AND toValidUTF8(substring(source_system, 1, 2000)) = {system:String}
        AND toValidUTF8(substring(source_instance, 1, 2000)) = {instance:String}
        AND toValidUTF8(substring(source_sender, 1, 200)) = {name:String}
        AND source_seq BETWEEN {first:Int64} AND {last:Int64}
        AND decode_error = '' AND signature NOT IN ('missing', 'invalid')
    GROUP BY topic, source_seq
    HAVING min(event_id) != max(event_id)
    LIMIT 1
)
"""
"""Whether a sender used one of its numbers for several events of a topic."""
ERASED = """
SELECT toUnixTimestamp64Milli(max(append_time)) * 1000 AS until
FROM entries
WHERE erased_at IS NOT NULL AND splitByChar('/', origin)[-3] IN {topics:Array(String)}
"""
FIRST_NUMBERS = 10_000
"""A restarted sender begins again: this many of its first numbers show it."""


class NumberedEvents:
    """Adds the numbers of stored entries to counters. It continues where it ended the last time.

    Args:
        names: the one name of each installation, by which its findings and its limits go.
    """

    def __init__(self, counters: Counters, names: InstanceNames) -> None:
        self._counters, self._names = counters, names
        self._next: dict[str, int] = {}
        """By log, the index of the first entry that was not read."""

    def read(self, ask: Ask) -> None:
        """Add the numbers of all entries that are stored now, and ask which senders have restarted."""
        for row in ask(ORIGINS, topics=TOPICS):
            while self._read_some(ask, row["origin"]):
                pass
        for counter in islice((one for one in self._counters if one.is_doubtful), MOST_DOUBTS):
            first = min(numbers.runs[0].first for numbers in counter.topics.values())
            last = min(first + FIRST_NUMBERS, (1 << 63) - 1)
            [found] = ask(REUSED, topics=TOPICS, first=first, last=last, **counter.sender._asdict())
            counter.restarted, counter.asked = bool(found["reused"]), True

    def _read_some(self, ask: Ask, origin: str) -> bool:
        """Add the numbers of the next entries of a log. Return whether there may be more."""
        rows = ask(RUNS, origin=origin, begin=self._next.get(origin, 0), most=MOST_ENTRIES)
        topic = topic_of_origin(origin)
        for row in rows:
            sender = Sender(row["system"], row["instance"], row["name"])
            source = shorten_source(Source(*self._names.of((sender.system, sender.instance))))
            run = Run(row["first"], row["last"], row["since"])
            self._counters.add(sender, source, topic, run, signed=bool(row["signed"]))
        if rows:
            self._next[origin] = max(row["latest"] for row in rows) + 1
        entries = {(row["system"], row["instance"], row["name"], row["signed"]): int(row["entries"]) for row in rows}
        return sum(entries.values()) == MOST_ENTRIES


def erased_until(ask: Ask) -> int:
    """Return the append time of the newest erased entry, in microseconds since 1970; 0 if there is none."""
    [found] = ask(ERASED, topics=TOPICS)
    return int(found["until"])
