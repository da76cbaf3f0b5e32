"""The outbox's way in: findings and the position they were read at, in one transaction (DESIGN section 5, rule 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...schemas.catalog import SchemaCatalog, WriterSchema
from ...schemas.framing import Prefix
from .channel import Sender
from .config import Channel
from .core import State
from .database import connect, transaction
from .finding import FindingEvent, from_text, message_id

ENDED_BEFORE = "ended before it was sent"
TOO_OLD = "open for longer than first_start_hours at the first start"
NOT_SENT = "its opening was not sent"
CLOSED = "closed"
REMOVED = "its channel was taken out of the configuration"


@dataclass(frozen=True, slots=True)
class Position:
    """Where reading goes on, and what the log must continue with.

    Attributes:
        topic_id: hex of the Kafka topic id; a topic made anew has another.
        origin: of the last batch read, empty before the first.
        size: entries of that log that were read.
    """

    topic_id: str
    next_offset: int
    origin: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """One channel as configured: what it takes, and how it words it."""

    name: str
    config: Channel
    sender: Sender


class Outbox:
    """The writing side, for one thread. Times given are seconds since 1970."""

    def __init__(self, path: Path, routes: Sequence[Route]) -> None:
        self._database = connect(path)
        self._routes = list(routes)

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def position(self) -> Position | None:
        """Return where reading goes on, None before the first start."""
        row = self._database.execute("SELECT topic_id, next_offset, origin, size FROM position").fetchone()
        return Position(*row) if row is not None else None

    @property
    def caught_up(self) -> bool:
        """Whether the backlog of the first start has been read."""
        row = self._database.execute("SELECT caught_up FROM position").fetchone()
        return bool(row and row[0])

    def catalog(self) -> SchemaCatalog:
        """Return the writer schemas that were read."""
        rows = self._database.execute("SELECT prefix, text, in_force_ms FROM schemas ORDER BY rowid").fetchall()
        return SchemaCatalog(tuple(WriterSchema(Prefix(prefix), text, time) for prefix, text, time in rows))

    def configure(self, now: float) -> None:
        """Bring the channels up to the configuration. A new one, and one of another kind, is told what is open now.

        What was given up of what is still open is tried again: a start is where what was wrong has been mended.
        """
        kinds = {route.name: route.config.kind for route in self._routes}
        with transaction(self._database):
            for name, kind in self._database.execute("SELECT name, kind FROM channels").fetchall():
                if kinds.get(name) != kind:
                    self._remove(name)
            for route in self._routes:
                added = self._database.execute(
                    "INSERT INTO channels (name, kind) VALUES (?, ?) ON CONFLICT DO NOTHING",
                    (route.name, route.config.kind),
                ).rowcount
                if added:
                    for number, opened in self._database.execute(
                        "SELECT number, opened FROM findings WHERE ended_at IS NULL ORDER BY number"
                    ).fetchall():
                        state: State = "due" if self.caught_up else "held"
                        self._open_on(route, number, from_text(opened), state, now)
            self._database.execute(
                "UPDATE messages SET state = 'due', due = ?, failures = 0, refused_since = NULL "
                "WHERE state = 'given_up' AND finding IN (SELECT number FROM findings WHERE ended_at IS NULL)",
                (now,),
            )

    def _remove(self, channel: str) -> None:
        """Forget a channel. What it was told of open findings counts no more: it is told anew if it ever comes back."""
        self._database.execute(
            "UPDATE messages SET state = 'skipped', note = ? WHERE channel = ? AND (state IN ('held', 'due', "
            "'repeating') OR finding IN (SELECT number FROM findings WHERE ended_at IS NULL))",
            (REMOVED, channel),
        )
        self._database.execute("DELETE FROM channels WHERE name = ?", (channel,))

    def take(
        self,
        position: Position,
        findings: Sequence[FindingEvent],
        schemas: Sequence[WriterSchema],
        *,
        live: bool,
        now: float,
    ) -> int:
        """Take what a batch says and move the position past it, together.

        Args:
            live: False while the backlog is read: what opens is held until it is known whether it ended as well.

        Returns:
            How many findings were new.
        """
        new = 0
        with transaction(self._database):
            for schema in schemas:
                self._database.execute(
                    "INSERT INTO schemas VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    (bytes(schema.prefix), schema.text, schema.in_force_ms),
                )
            for finding in findings:
                seen = self._database.execute(
                    "INSERT INTO events VALUES (?) ON CONFLICT DO NOTHING", (finding.event_id,)
                )
                if seen.rowcount:
                    new += 1
                    if finding.what == "opened":
                        self._opened(finding, "due" if live else "held", now)
                    else:
                        self._ended(finding, "resolved", now)
            self._move(position)
        return new

    def release(self, position: Position, now: float, first_start_hours: float) -> dict[str, int]:
        """Let go what was held: the backlog has been read, up to a position.

        What opened and ended meanwhile is not sent. On the first start, neither is what has been open for too long.

        Returns:
            How many messages were not sent, by reason.
        """
        with transaction(self._database):
            held = "state = 'held' AND finding IN (SELECT number FROM findings WHERE ended_at IS NOT NULL)"
            ended = self._skip(held, (), ENDED_BEFORE)
            too_old = 0
            if not self.caught_up:
                too_old = self._skip(
                    "state = 'held' AND finding IN (SELECT number FROM findings WHERE appended < ?)",
                    (now - first_start_hours * 3600,),
                    TOO_OLD,
                )
            self._database.execute("UPDATE messages SET state = 'due', due = ? WHERE state = 'held'", (now,))
            self._move(position)  # nothing may have been there to take
            self._database.execute("UPDATE position SET caught_up = 1")
        return {ENDED_BEFORE: ended, TOO_OLD: too_old}

    def enable(self, channel: str, now: float) -> bool:
        """Let a disabled channel deliver again; what ended in between is not sent. Returns whether it was disabled."""
        with transaction(self._database):
            row = self._database.execute("SELECT disabled_at FROM channels WHERE name = ?", (channel,)).fetchone()
            if row is None or row[0] is None:
                return False
            self._database.execute(
                "UPDATE channels SET disabled_at = NULL, disabled_why = '', failures = 0, paused_until = 0 "
                "WHERE name = ?",
                (channel,),
            )
            never_told = self._database.execute(
                "SELECT finding FROM messages JOIN findings ON findings.number = finding WHERE channel = ? "
                "AND what = 'opened' AND state = 'due' AND attempts = 0 AND ended_at IS NOT NULL",
                (channel,),
            ).fetchall()
            for (number,) in never_told:
                self._skip("state = 'due' AND channel = ? AND finding = ?", (channel, number), ENDED_BEFORE)
            self._database.execute(
                "UPDATE messages SET due = ?, failures = 0, refused_since = NULL "
                "WHERE channel = ? AND state IN ('due', 'repeating')",
                (now, channel),
            )
        return True

    def close_finding(self, number: int, who: str, why: str, now: float) -> bool:
        """End the alerts of a finding because a person says so. Returns whether it was open."""
        with transaction(self._database):
            row = self._database.execute(
                "SELECT opened FROM findings WHERE number = ? AND ended_at IS NULL", (number,)
            ).fetchone()
            if row is None:
                return False
            opened = from_text(row[0])
            micros = int(now * 1_000_000)
            ended = replace(
                opened,
                event_id=f"{opened.event_id}:{CLOSED}",
                what="resolved",
                at=micros,
                appended=micros,
                facts=opened.facts | {"evidence": {"closed_by": who, "reason": why}},
            )
            self._ended(ended, CLOSED, now)
        return True

    def _move(self, position: Position) -> None:
        self._database.execute(
            "INSERT INTO position VALUES (1, ?, ?, ?, ?, 0) ON CONFLICT (one) DO UPDATE SET "
            "topic_id = excluded.topic_id, next_offset = excluded.next_offset, origin = excluded.origin, "
            "size = excluded.size",
            (position.topic_id, position.next_offset, position.origin, position.size),
        )

    def _opened(self, finding: FindingEvent, state: State, now: float) -> None:
        known = self._open_finding(finding.identity)
        if known is None:
            (number,) = self._database.execute(
                "INSERT INTO findings (identity, opened, appended) VALUES (?, ?, ?) RETURNING number",
                (finding.identity, finding.as_text(), finding.appended / 1_000_000),
            ).fetchone()
        else:
            number = known["number"]
        for route in self._routes:
            repeats = route.config.delivery().repeat is not None
            if repeats and known is not None:
                continue  # it shows the state, and that is the same
            if repeats:  # the end of an earlier finding of this name must not end this one
                self._settle_repeats(route.name, finding.identity)
            self._open_on(route, number, finding, state, now)

    def _open_on(self, route: Route, number: int, finding: FindingEvent, state: State, now: float) -> None:
        if route.config.takes(finding):
            self._insert(route.name, number, finding, route.sender.message(finding), state=state, now=now)

    def _ended(self, finding: FindingEvent, ending: str, now: float) -> None:
        known = self._open_finding(finding.identity)
        if known is None:
            return
        self._database.execute(
            "UPDATE findings SET ended_at = ?, ending = ? WHERE number = ?", (now, ending, known["number"])
        )
        self._settle_repeats(None, finding.identity)
        opened = from_text(known["opened"])
        # By channel: what became of the openings that were worded for it. Nothing was, where it takes no such findings.
        told: dict[str, list[Any]] = {}
        for row in self._database.execute(
            "SELECT channel, state, text, what FROM messages WHERE finding = ? AND what = 'opened' ORDER BY number",
            (known["number"],),
        ):
            told.setdefault(row["channel"], []).append(row)
        words: Mapping[str, Route] = {route.name: route for route in self._routes}
        for channel, rows in told.items():
            route = words.get(channel)
            if route is None:
                continue
            states = {row["state"] for row in rows}
            state: State = "due"
            if states == {"skipped"}:
                state = "skipped"
            elif states <= {"held", "skipped"}:
                state = "held"
            text = route.sender.ending(replace(finding, facts=opened.facts | finding.facts), rows[0]["text"])
            posts = getattr(route.config, "ending_posts", 1)
            note = NOT_SENT if state == "skipped" else ""
            self._insert(channel, known["number"], finding, text, state=state, now=now, posts=posts, note=note)

    def _open_finding(self, identity: str) -> Any:
        return self._database.execute(
            "SELECT number, opened FROM findings WHERE identity = ? AND ended_at IS NULL", (identity,)
        ).fetchone()

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
            "INSERT INTO messages (id, channel, finding, what, state, text, created, due, posts_left, note) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state, "
            "text = excluded.text, created = excluded.created, due = excluded.due, attempts = 0, failures = 0, "
            "refused_since = NULL, note = '' WHERE messages.note = ?",
            (message_id(finding, channel), channel, number, finding.what, state, text, now, now, posts, note, REMOVED),
        )

    def _skip(self, which: str, arguments: Sequence[Any], note: str) -> int:
        return self._database.execute(
            f"UPDATE messages SET state = 'skipped', note = ? WHERE {which}",  # noqa: S608 - our own text
            (note, *arguments),
        ).rowcount
