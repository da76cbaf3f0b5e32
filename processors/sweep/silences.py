"""Silent sources of a ledger with several lifecycle shards: one finding per source, over all shards.

A source is silent if none of its events arrive in any shard. Each watch reads one shard and shares no state with the
others, so the sweep judges: it reads all shards, once everything in them is stored. With a single shard, the watch
judges by the same rule (``processors/watch/core/sources.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...schemas.event import LIFECYCLE_TOPIC
from ..access import Source, in_micros, shorten_source
from ..watch_policy import EffectivePolicy
from .gaps import Identity, SourceChange, known_findings
from .numbered_events import ORIGINS, Ask

RULE = "source_silent"
MOST_SOURCES = 10_000
"""Sources that are followed, besides those that sign: anyone can invent some."""

ACTIVITY = """
SELECT
    system, instance, max(signs) AS signs, max(latest) AS latest,
    arraySort(groupArrayIf((first, last), last > 0)) AS busy,
    arraySlice(arrayPushFront(busy, busy[1]), 1, length(busy)) AS previous,
    arrayMap(
        each -> (each[1].1, arrayMax(each.2)),
        arraySplit((one, before) -> one.1 > before.2 + {shortest:Int64}, busy, previous)
    ) AS spells
FROM
(
    SELECT
        system, instance, max(signed) AS signs, max(place) AS latest, min(place) AS begin,
        minIf(appended, recent) AS first, maxIf(appended, recent) AS last
    FROM
    (
        SELECT
            toValidUTF8(substring(source_system, 1, 2000)) AS system,
            toValidUTF8(substring(source_instance, 1, 2000)) AS instance,
            signature = 'valid' AS signed, `index` AS place,
            if(bitAnd(flags, 1) = 1, 1000 * toUnixTimestamp64Milli(append_time), toUnixTimestamp64Micro(sealed_at))
                AS appended,
            if(signed, least(ifNull(toUnixTimestamp64Micro(received_at), appended), appended), appended)
                - toUnixTimestamp64Micro(occurred_at) < {history:Int64} AS recent
        FROM entries
        WHERE origin = {origin:String} AND `index` >= {begin:UInt64}
            AND decode_error = '' AND signature NOT IN ('missing', 'invalid')
    )
    GROUP BY system, instance, intDiv(appended, {shortest:Int64})
)
GROUP BY system, instance
ORDER BY min(begin)
"""
"""By source, from an index of a log on: the spells in which it was never silent for longer than the shortest limit.

Events that are historical do not count. Of those within one interval of that length, the first and the last suffice.
"""
POLICY = """
SELECT
    raw AS policy,
    if(bitAnd(flags, 1) = 1, 1000 * toUnixTimestamp64Milli(append_time), toUnixTimestamp64Micro(sealed_at)) AS since
FROM entries
WHERE decode_error = '' AND signature NOT IN ('missing', 'invalid') AND event_type = 'config.changed'
    AND resource_id = 'watch-policy' AND source_system = 'grantledger-watch'
    AND origin IN (SELECT origin FROM origins WHERE splitByChar('/', origin)[-3] = 'access.findings')
ORDER BY toUInt32OrZero(splitByChar('/', origin)[-1]) DESC, `index` DESC
LIMIT 1
"""
"""The watch policy in force, and since when it is on record."""
Spell = tuple[int, int]
"""Append times of the first and the last event of a time without silence."""


class Silences:
    """The sources that may fall silent, and the findings on record, each open or not.

    A silence that is over is a finding, too, if it began under the policy in force. The sweep may have been down
    meanwhile, so the store says since when that is.
    """

    def __init__(self, policy: EffectivePolicy) -> None:
        self._policy, self._stated = policy, policy.stated.model_dump_json()
        self._history = in_micros(policy.stated.history_after_seconds)
        limits = [one.silent_after_seconds for one in policy.stated.source if one.silent_after_seconds is not None]
        self._shortest = max(1, in_micros(min(limits, default=1)))
        self._spells: dict[Source, list[Spell]] = {}
        """The latest spells of each source whose silence the policy limits."""
        self._unsigned = 0
        self._next: dict[str, int] = {}
        """By log, the index of the first entry that was not read."""
        self._known: dict[Identity, bool] | None = None
        self._since: int | None = None
        """When the policy in force was put on record."""

    def judge(self, ask: Ask, now: int, erased_until: int = 0) -> list[SourceChange]:
        """Read what was stored meanwhile, and return the changes. Everything appended before ``now`` must be stored.

        Args:
            erased_until: silences that were over and began before are no findings: erased events may have ended them.
        """
        for row in ask(ORIGINS, topics=[LIFECYCLE_TOPIC]):
            self._read(ask, row["origin"])
        if self._known is None:
            self._known = known_findings(ask, RULE)
        begin = max(erased_until, self._policy_since(ask, now))
        lasting, over = self._silent(now, begin)
        opened = {one: last for one, last in {**over, **lasting}.items() if one not in self._known}
        changes = [SourceChange("opened", one, {"last_event": last}) for one, last in opened.items()]
        ended = [one for one, is_open in self._known.items() if is_open] + [one for one in opened if one in over]
        changes += [SourceChange("resolved", one, {}) for one in ended if one not in lasting]
        self._known |= {one.identity: one.kind == "opened" for one in changes}
        return changes

    def forget(self) -> None:
        """Read the findings on record again: changes may not have been published."""
        self._known = None

    def _policy_since(self, ask: Ask, now: int) -> int:
        """Return since when the policy is on record; now if another one is."""
        if self._since is None:
            self._since = next((row["since"] for row in ask(POLICY) if row["policy"] == self._stated), None)
        return now if self._since is None else self._since

    def _read(self, ask: Ask, origin: str) -> None:
        values = {"history": self._history, "shortest": self._shortest}
        for row in ask(ACTIVITY, origin=origin, begin=self._next.get(origin, 0), **values):
            self._next[origin] = max(self._next.get(origin, 0), row["latest"] + 1)
            self._note(row)

    def _note(self, row: Mapping[str, Any]) -> None:
        source = Source(*self._policy.stated.names.of((str(row["system"]), str(row["instance"]))))
        source = shorten_source(source)
        spells = [(int(first), int(last)) for first, last in row["spells"] if last]
        if not spells or self._policy.source_limits(source).silent_after_seconds is None:
            return
        if source not in self._spells and not row["signs"]:
            if self._unsigned >= MOST_SOURCES:
                return
            self._unsigned += 1
        self._spells.setdefault(source, []).extend(spells)

    def _silent(self, now: int, begin: int) -> tuple[dict[Identity, int], dict[Identity, int]]:
        """Return source and beginning of each silence, with the time of the last event before it.

        First those that last, then those that are over and began since ``begin``.
        """
        lasting: dict[Identity, int] = {}
        over: dict[Identity, int] = {}
        known = self._known or {}
        for source, spells in self._spells.items():
            longest = in_micros(self._policy.source_limits(source).silent_after_seconds or 0)
            spells[:] = _merged(spells, longest)
            settled = 0
            for at, (_, last) in enumerate(spells):
                identity = str(source), last + longest
                if identity[1] >= now:
                    break
                if at + 1 == len(spells):
                    lasting[identity] = last
                elif identity[1] < begin or known.get(identity) is False:
                    settled += settled == at
                else:
                    over[identity] = last
            del spells[:settled]
        return lasting, over


def _merged(spells: list[Spell], longest: int) -> list[Spell]:
    """Return the spells of a source, with those together between which it was silent for at most so long."""
    merged: list[Spell] = []
    for first, last in sorted(spells):
        if merged and first <= merged[-1][1] + longest:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return merged
