"""Silent sources of a ledger with several lifecycle shards: one finding per source, over all shards.

A source is silent if none of its events arrive in any shard. Each watch reads one shard and shares no state with the
others, so the sweep judges: it reads all shards, once everything in them is stored. With a single shard, the watch
judges by the same rule (``processors/watch/core/sources.py``).
"""

from __future__ import annotations

from collections.abc import Mapping

from ...schemas.event import LIFECYCLE_TOPIC
from ..access import Source, in_micros, shorten_source
from ..watch_policy import EffectivePolicy
from .gaps import Identity, SourceChange
from .numbered_events import ORIGINS, Ask

RULE = "source_silent"
MOST_SOURCES = 10_000
"""Sources that are followed, besides those that sign: anyone can invent some."""

KNOWN = """
SELECT key, toUnixTimestamp64Micro(assumeNotNull(deadline)) AS since, open
FROM findings
WHERE rule = 'source_silent' AND deadline IS NOT NULL
"""
ACTIVITY = """
SELECT system, instance, max(signed) AS signs, maxIf(appended, recent) AS last, max(place) AS latest
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
GROUP BY system, instance
ORDER BY min(place)
"""
"""By source, when its latest event that is not historical was appended, from an index of a log on."""


class Silences:
    """The sources that may fall silent, and the findings on record, each open or not."""

    def __init__(self, policy: EffectivePolicy) -> None:
        self._policy = policy
        self._history = in_micros(policy.stated.history_after_seconds)
        self._last: dict[Source, int] = {}
        """Append time of the latest event of each source whose silence the policy limits."""
        self._unsigned = 0
        self._next: dict[str, int] = {}
        """By log, the index of the first entry that was not read."""
        self._known: dict[Identity, bool] | None = None

    def judge(self, ask: Ask, now: int) -> list[SourceChange]:
        """Read what was stored meanwhile, and return the changes. Everything appended before ``now`` must be stored."""
        for row in ask(ORIGINS, topics=[LIFECYCLE_TOPIC]):
            self._read(ask, row["origin"])
        if self._known is None:
            self._known = {(row["key"], row["since"]): bool(row["open"]) for row in ask(KNOWN)}
        silent = self._silent(now)
        opened = [
            SourceChange("opened", one, {"last_event": last}) for one, last in silent.items() if one not in self._known
        ]
        over = [one for one, is_open in self._known.items() if is_open and one not in silent]
        changes = [*opened, *(SourceChange("resolved", one, {}) for one in over)]
        self._known |= {one.identity: one.kind == "opened" for one in changes}
        return changes

    def forget(self) -> None:
        """Read the findings on record again: changes may not have been published."""
        self._known = None

    def _read(self, ask: Ask, origin: str) -> None:
        for row in ask(ACTIVITY, origin=origin, begin=self._next.get(origin, 0), history=self._history):
            self._next[origin] = max(self._next.get(origin, 0), row["latest"] + 1)
            self._note(row)

    def _note(self, row: Mapping[str, object]) -> None:
        source = Source(*self._policy.stated.names.of((str(row["system"]), str(row["instance"]))))
        source, last = shorten_source(source), int(str(row["last"]))
        if not last or self._policy.source_limits(source).silent_after_seconds is None:
            return
        if source not in self._last and not row["signs"]:
            if self._unsigned >= MOST_SOURCES:
                return
            self._unsigned += 1
        self._last[source] = max(last, self._last.get(source, 0))

    def _silent(self, now: int) -> dict[Identity, int]:
        """Return source and beginning of each silence, with the time of the last event before it."""
        found = {}
        for source, last in self._last.items():
            longest = self._policy.source_limits(source).silent_after_seconds
            if longest is not None and (since := last + in_micros(longest)) < now:
                found[str(source), since] = last
        return found
