"""Writes the outbox: findings and the position after them, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...base.sqlite import transaction
from ...schemas.catalog import SchemaCatalog, WriterSchema
from ...schemas.framing import Prefix
from ...schemas.instance_names import NO_NAMES, names_in
from .channel import NamedChannel
from .database import connect_outbox
from .finding import SCOPE, FindingEvent, from_text, message_id
from .schedule import State
from .storms import LONGEST_QUIET_SECONDS, QUIET_SECONDS, STORM, Storms, tool_of

ENDED_BEFORE = "ended before it was sent"
TOO_OLD = "open for longer than first_start_hours at the first start"
NOT_SENT = "its opening was not sent"
STORM_AFTER = 20
REMOVED = "its channel was removed from the configuration"


@dataclass(frozen=True, slots=True)
class OutboxPosition:
    """The next offset to read, and the state of the log there."""

    topic_id: str  # in hex; a recreated topic has another
    next_offset: int
    origin: str = ""  # of the last batch read, empty before the first
    size: int = 0  # entries read of that log


class Outbox:
    """The writing side, for one thread. Times are seconds since 1970.

    Args:
        storm_after: findings of one rule and tool in an hour that have messages of their own.
    """

    def __init__(self, path: Path, channels: Sequence[NamedChannel], *, storm_after: int = STORM_AFTER) -> None:
        self._database = connect_outbox(path)
        self._storms = Storms(self._database, storm_after)
        self._new: list[int] = []
        """The findings that opened in this transaction."""
        self._channels = list(channels)
        row = self._database.execute("SELECT content FROM policy").fetchone()
        self._names = names_in(row[0]) if row is not None else NO_NAMES

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def position(self) -> OutboxPosition | None:
        """Return the next position to read, None before the first start."""
        row = self._database.execute("SELECT topic_id, next_offset, origin, size FROM position").fetchone()
        return OutboxPosition(*row) if row is not None else None

    @property
    def caught_up(self) -> bool:
        """Whether the backlog of the first start has been read."""
        row = self._database.execute("SELECT caught_up FROM position").fetchone()
        return bool(row and row[0])

    def catalog(self) -> SchemaCatalog:
        """Return the writer schemas read so far."""
        rows = self._database.execute("SELECT prefix, text, in_force_ms FROM schemas ORDER BY rowid").fetchall()
        return SchemaCatalog(tuple(WriterSchema(Prefix(prefix), text, time) for prefix, text, time in rows))

    def configure(self, now: float) -> None:
        """Apply the configuration. A new channel, or one of another kind, receives the findings that are open now.

        Messages of open findings that were given up are retried, because a restart often follows a repair.
        """
        kinds = {named.name: named.config.kind for named in self._channels}
        with transaction(self._database):
            for name, kind in self._database.execute("SELECT name, kind FROM channels").fetchall():
                if kinds.get(name) != kind:
                    self._remove(name)
            for named in self._channels:
                added = self._database.execute(
                    "INSERT INTO channels (name, kind) VALUES (?, ?) ON CONFLICT DO NOTHING",
                    (named.name, named.config.kind),
                ).rowcount
                if added:
                    for number, opened in self._database.execute(
                        "SELECT number, opened FROM findings WHERE ended_at IS NULL ORDER BY number"
                    ).fetchall():
                        state: State = "due" if self.caught_up else "backlog"
                        self._open_on(named, number, from_text(opened), state, now)
                        self._new += [number] if state == "due" else []
            self._group(now)
            self._database.execute(
                "UPDATE messages SET state = 'due', send_at = ?, failures = 0, refused_since = NULL "
                "WHERE state = 'given_up' AND finding IN (SELECT number FROM findings WHERE ended_at IS NULL)",
                (now,),
            )

    def _remove(self, channel: str) -> None:
        """Delete a channel. If it is added again, it receives all findings that are open then."""
        self._database.execute(
            "UPDATE messages SET state = 'skipped', note = ? WHERE channel = ? AND (state IN ('backlog', 'due', "
            "'repeating') OR finding IN (SELECT number FROM findings WHERE ended_at IS NULL))",
            (REMOVED, channel),
        )
        self._database.execute("DELETE FROM channels WHERE name = ?", (channel,))

    def take(
        self,
        position: OutboxPosition,
        findings: Sequence[FindingEvent],
        schemas: Sequence[WriterSchema],
        *,
        live: bool,
        now: float,
        policy: bytes | None = None,
    ) -> int:
        """Store the findings of some batches and move the position past them, in one transaction.

        Return how many are new.

        While the backlog is read (not ``live``), messages wait until it is known whether their finding ended.
        ``policy``: the watch policy, if the batches put one on record.
        """
        new = 0
        if policy is not None:
            self._names = names_in(policy)
        with transaction(self._database):
            if policy is not None:
                self._database.execute("INSERT OR REPLACE INTO policy VALUES (1, ?)", (policy,))
            for schema in schemas:
                self._database.execute(
                    "INSERT INTO schemas VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    (bytes(schema.prefix), schema.text, schema.in_force_ms),
                )
            for finding in findings:
                seen = self._database.execute(
                    "INSERT INTO events VALUES (?) ON CONFLICT DO NOTHING", (finding.replay_key,)
                )
                if seen.rowcount:
                    new += 1
                    if finding.change == "opened":
                        self._opened(finding, "due" if live else "backlog", now)
                    else:
                        self._changed(finding, now)
            if not live:
                self._new.clear()  # they are counted at the end of the backlog
            self._group(now)
            self._move(position)
        return new

    def release(self, position: OutboxPosition, now: float, first_start_hours: float) -> dict[str, int]:
        """Release the messages of the backlog, which has been read up to a position.

        Return the skipped messages by reason.

        Findings that ended within the backlog are skipped. At the first start, so are findings open for too long.
        """
        with transaction(self._database):
            ended_within = "state = 'backlog' AND finding IN (SELECT number FROM findings WHERE ended_at IS NOT NULL)"
            ended = self._skip(ended_within, (), ENDED_BEFORE)
            too_old = 0
            if not self.caught_up:
                too_old = self._skip(
                    "state = 'backlog' AND finding IN (SELECT number FROM findings WHERE appended < ?)",
                    (now - first_start_hours * 3600,),
                    TOO_OLD,
                )
            opened = "SELECT DISTINCT finding FROM messages WHERE state = 'backlog' AND change = 'opened'"
            self._new = [row[0] for row in self._database.execute(opened)]
            self._database.execute("UPDATE messages SET state = 'due', send_at = ? WHERE state = 'backlog'", (now,))
            self._group(now)
            self._move(position)  # the backlog may have been empty
            self._database.execute("UPDATE position SET caught_up = 1")
        return {ENDED_BEFORE: ended, TOO_OLD: too_old}

    def enable(self, channel: str, now: float) -> bool:
        """Re-enable a disabled channel, skipping findings that ended meanwhile. Return whether it was disabled."""
        with transaction(self._database):
            row = self._database.execute("SELECT disabled_at FROM channels WHERE name = ?", (channel,)).fetchone()
            if row is None or row[0] is None:
                return False
            self._database.execute(
                "UPDATE channels SET disabled_at = NULL, disabled_why = '', failures = 0, paused_until = 0 "
                "WHERE name = ?",
                (channel,),
            )
            never_sent = (
                "SELECT finding FROM messages JOIN findings ON findings.number = finding WHERE channel = ? "
                "AND change = 'opened' AND state = 'due' AND attempts = 0 AND ended_at IS NOT NULL"
            )
            self._skip(f"state = 'due' AND channel = ? AND finding IN ({never_sent})", (channel, channel), ENDED_BEFORE)
            self._database.execute(
                "UPDATE messages SET send_at = ?, failures = 0, refused_since = NULL "
                "WHERE channel = ? AND state IN ('due', 'repeating')",
                (now, channel),
            )
        return True

    def undelivered(self) -> bool:
        """Whether messages are due on a channel that is not disabled."""
        row = self._database.execute(
            "SELECT count(*) FROM messages JOIN channels ON name = channel WHERE state = 'due' AND disabled_at IS NULL"
        ).fetchone()
        return bool(row[0])

    def _move(self, position: OutboxPosition) -> None:
        self._database.execute(
            "INSERT INTO position VALUES (1, ?, ?, ?, ?, 0) ON CONFLICT (one) DO UPDATE SET "
            "topic_id = excluded.topic_id, next_offset = excluded.next_offset, origin = excluded.origin, "
            "size = excluded.size",
            (position.topic_id, position.next_offset, position.origin, position.size),
        )

    def _group(self, now: float) -> None:
        """Let one message stand for those about many new findings, and end it after all of them have ended."""
        numbers, self._new = self._new, []
        for page in self._storms.count(numbers, now) if numbers else ():
            self._storms.absorb(page, numbers)
            if page.number is None:
                number = self._add(page.finding, STORM + page.finding.rule)
                self._storms.began(page, number)
            else:
                number = page.number
                self._database.execute(
                    "UPDATE findings SET opened = ? WHERE number = ?", (page.finding.as_text(), number)
                )
            for named in self._channels:
                self._open_on(named, number, page.finding, "due", now)  # once, but its severity may have risen
                self._database.execute(
                    "UPDATE messages SET text = ?, send_at = CASE state WHEN 'due' THEN min(created + ?, ?) "
                    "ELSE send_at END WHERE finding = ? AND channel = ? AND change = 'opened' "
                    "AND (state = 'repeating' OR state = 'due' AND attempts = 0)",
                    (
                        named.channel.message(page.finding, ""), LONGEST_QUIET_SECONDS, now + QUIET_SECONDS,
                        number, named.name,
                    ),
                )  # fmt: skip
        for end in self._storms.over(now):
            self._changed(end, now)

    def _add(self, finding: FindingEvent, rule: str) -> int:
        (number,) = self._database.execute(
            "INSERT INTO findings (identity, rule_key, rule, tool, opened, appended) VALUES (?, ?, ?, ?, ?, ?) "
            "RETURNING number",
            (
                finding.identity, finding.rule_key, rule, tool_of(finding), finding.as_text(),
                finding.appended / 1_000_000,
            ),
        ).fetchone()  # fmt: skip
        return int(number)

    def _opened(self, finding: FindingEvent, state: State, now: float) -> None:
        known = self._open_finding(finding)
        if known is None:
            number = self._add(finding, finding.rule)
            self._new.append(number)
        else:
            number = known["number"]
        for named in self._channels:
            repeats = named.config.delivery().repeat is not None
            if repeats and known is not None:
                continue  # the channel shows the state, which has not changed
            if repeats:  # the end of an earlier finding with this identity must not end this one
                self._settle_repeats(named.name, finding.identity)
            self._open_on(named, number, finding, state, now)

    def _open_on(self, named: NamedChannel, number: int, finding: FindingEvent, state: State, now: float) -> None:
        if named.config.accepts(finding):
            self._insert(named.name, number, finding, named.channel.message(finding, ""), state=state, now=now)

    def _changed(self, finding: FindingEvent, now: float) -> None:
        """Store the acknowledgement or the end of an open finding, and the messages about it."""
        known = self._open_finding(finding)
        if known is None:
            return
        opened = from_text(known["opened"])
        ended = finding.change != "acknowledged"
        if ended:
            self._database.execute(
                "UPDATE findings SET ended_at = ?, ending = ? WHERE number = ?", (now, finding.change, known["number"])
            )
            self._settle_repeats(None, opened.identity)
        else:
            self._database.execute(
                "UPDATE findings SET acknowledged = ? WHERE number = ?", (finding.as_text(), known["number"])
            )
        merged = replace(
            finding, facts=opened.facts | finding.facts | {name: opened.facts.get(name, "") for name in SCOPE}
        )
        channels = {named.name: named for named in self._channels}
        # A channel without a message about the opening does not accept such findings.
        openings: dict[str, list[Any]] = {}
        for row in self._database.execute(
            "SELECT channel, state, text FROM messages WHERE finding = ? AND change = 'opened' ORDER BY number",
            (known["number"],),
        ):
            openings.setdefault(row["channel"], []).append(row)
        for name in (name for name in openings if name in channels):
            named, states = channels[name], {row["state"] for row in openings[name]}
            state: State = "due"
            if states == {"skipped"}:
                state = "skipped"
            elif states <= {"backlog", "skipped"}:
                state = "backlog"
            text = named.channel.message(merged, openings[name][0]["text"])
            posts = named.config.delivery().ending_posts if ended else 1
            note = NOT_SENT if state == "skipped" else ""
            self._insert(name, known["number"], merged, text, state=state, now=now, posts=posts, note=note)

    def _open_finding(self, finding: FindingEvent) -> Any:
        """Return the open finding that an event is about.

        An end or an acknowledgement may name an issuer that the opening did not name yet, or not name it any more.
        """
        query = "SELECT number, opened FROM findings WHERE ended_at IS NULL AND "
        known = self._database.execute(f"{query} identity = ?", (finding.identity,)).fetchone()
        if known is not None or (finding.change == "opened" and self._names == NO_NAMES):
            return known
        same = self._database.execute(f"{query} rule_key = ? ORDER BY number", (finding.rule_key,)).fetchall()
        identity = finding.renamed(self._names).identity
        for row in same:  # it may have opened under another name of the installation
            if from_text(row["opened"]).renamed(self._names).identity == identity:
                return row
        if finding.change == "opened":
            return None
        fits = [row for row in same if not (finding.issuer[0] and from_text(row["opened"]).issuer[0])]
        return fits[0] if len(fits) == 1 else None

    def _settle_repeats(self, channel: str | None, identity: str) -> None:
        self._database.execute(
            "UPDATE messages SET state = 'done' WHERE state = 'repeating' AND (?1 IS NULL OR channel = ?1) "
            "AND finding IN (SELECT number FROM findings WHERE identity = ?2)",
            (channel, identity),
        )

    def _insert(
        self,
        channel: str,
        number: int,
        finding: FindingEvent,
        text: str,
        *,
        state: State,
        now: float,
        posts: int = 1,
        note: str = "",
    ) -> None:
        self._database.execute(
            "INSERT INTO messages (id, channel, finding, change, state, text, created, send_at, posts_left, note) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state, "
            "text = excluded.text, created = excluded.created, send_at = excluded.send_at, attempts = 0, failures = 0, "
            "refused_since = NULL, note = '' WHERE messages.note = ?",
            (
                message_id(finding, channel),
                channel,
                number,
                finding.change,
                state,
                text,
                now,
                now,
                posts,
                note,
                REMOVED,
            ),
        )

    def _skip(self, which: str, arguments: Sequence[Any], note: str) -> int:
        return self._database.execute(
            f"UPDATE messages SET state = 'skipped', note = ? WHERE {which}",  # noqa: S608 - our own text
            (note, *arguments),
        ).rowcount
