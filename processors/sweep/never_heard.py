"""Sources that were added and never heard: one finding per source, until its first event that counts arrives.

The view ``never_heard_sources`` says which sources were added and of which nothing is on record, in any topic. The
watch reads ``access.lifecycle`` only, and some tools send nothing there, so the sweep judges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ..access import Source, in_micros, shorten_source
from ..watch_policy import EffectivePolicy
from .gaps import Identity, SourceChange, known_findings
from .numbered_events import Ask

RULE = "source_never_heard"

ADDED = "SELECT source_system, source_instance, toUnixTimestamp64Micro(added_at) AS added FROM added_sources"
NEVER_HEARD = """
SELECT source_system, source_instance, registered, something_came, toUnixTimestamp64Micro(added_at) AS added
FROM never_heard_sources
"""


class NeverHeardSource(NamedTuple):
    """A source of which nothing is on record.

    Attributes:
        source: it, or a pattern of the policy.
        added: when it was registered or named in the policy, in microseconds since 1970.
        registered: only its signed events count.
        something_came: something came in its name that does not count.
    """

    source: Source
    added: int
    registered: bool = False
    something_came: bool = False


def judge(
    never: Iterable[NeverHeardSource],
    known: Mapping[Identity, bool],
    limit_of: Callable[[Source], float],
    now: int,
    erased_until: int = 0,
) -> list[SourceChange]:
    """Return how the findings change.

    Args:
        never: the sources that were never heard.
        known: the findings on record, each open or not.
        limit_of: returns how many seconds after it was added a source must be heard; 0: there is no limit.
        erased_until: sources that were added before open nothing, because their events may be erased ones.
    """
    late: dict[Identity, NeverHeardSource] = {}
    for one in never:
        limit = in_micros(limit_of(one.source))
        if limit and one.added + limit <= now:
            late[str(shorten_source(one.source)), one.added + limit] = one
    changes = [
        SourceChange("opened", identity, _evidence(one))
        for identity, one in late.items()
        if identity not in known and one.added >= erased_until
    ]
    ended = (identity for identity, is_open in known.items() if is_open and identity not in late)
    return changes + [SourceChange("resolved", identity, {}) for identity in ended]


class NeverHeard:
    """Reads what the store knows, and which findings are on record."""

    def __init__(self, policy: EffectivePolicy) -> None:
        self._policy = policy
        self._added: set[tuple[str, str, int]] = set()
        """The added sources at the last call: names, and when they were added."""
        self._heard: set[tuple[str, str, int]] = set()
        """Those of them that need no query any more."""
        self._known: dict[Identity, bool] | None = None

    def judge(self, ask: Ask, now: int, erased_until: int = 0) -> list[SourceChange]:
        """Return how the findings change. Everything appended before ``now`` must be stored."""
        if self._known is None:
            self._known = known_findings(ask, RULE)
        never: list[NeverHeardSource] = []
        added = {(str(row["source_system"]), str(row["source_instance"]), int(row["added"])) for row in ask(ADDED)}
        if added != self._added:  # an installation that was removed may have stood for a pattern
            self._added, self._heard = added, set()
        if added - self._heard:  # otherwise the query, which reads all entries, would find none
            for row in ask(NEVER_HEARD):
                source = Source(str(row["source_system"]), str(row["source_instance"]))
                told = bool(row["registered"]), bool(row["something_came"])
                never.append(NeverHeardSource(source, int(row["added"]), *told))
        self._heard = added - {(*one.source, one.added) for one in never}
        changes = judge(never, self._known, self._limit, now, erased_until)
        self._known |= {one.identity: one.kind == "opened" for one in changes}
        return changes

    def forget(self) -> None:
        """Read the findings on record again: changes may not have been published."""
        self._known = None

    def _limit(self, source: Source) -> float:
        return self._policy.source_limits(source).heard_within_seconds


def _evidence(one: NeverHeardSource) -> dict[str, object]:
    return {"added": one.added, "registered": one.registered, "something_came": one.something_came}
