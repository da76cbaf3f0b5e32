"""Everything in the ledger about one grant."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

from ..runtime.store_access import Ask, Row

MOST_EVENTS = 1000
FIRST_COMMANDS = 3
MOST_SESSIONS = 1000

_STATE = "SELECT * FROM judged_grants WHERE grant_id = {grant:String}"
_REQUESTS = """
SELECT DISTINCT request_id FROM events
WHERE grant_id = {grant:String} AND request_id != '' AND event_type IN ('grant.activated', 'grant.extended')
"""
_SESSIONS = """
SELECT DISTINCT session_id FROM events
WHERE session_id != '' AND startsWith(event_type, 'session.')
    AND (grant_id = {grant:String}
        OR (grant_id = '' AND request_id != '' AND has({requests:Array(String)}, request_id)))
LIMIT {limit:UInt32}
"""
_OURS = """(
    grant_id = {grant:String}
    OR (grant_id = '' AND request_id != '' AND has({requests:Array(String)}, request_id))
    OR (grant_id = '' AND session_id != '' AND has({sessions:Array(String)}, session_id))
)"""
_EVENTS = f"""
SELECT
    append_time, occurred_at, event_type, outcome, subject_id, actor_id, approvals, starts_at, expires_at,
    removal_evidence, finding_rule, reason, ticket, error, client_ip, request_id, session_id, event_id, source_system,
    origin, `index`
FROM events
WHERE event_type NOT IN ('session.command', 'session.query') AND {_OURS}
ORDER BY append_time, origin, `index`
LIMIT {{limit:UInt32}}
"""  # noqa: S608 - our own text
_COUNTED = f"""
SELECT session_id, origin, uniqExact(event_id) AS commands, min(`index`) AS first_index, max(`index`) AS last_index,
    min(append_time) AS began
FROM events
WHERE event_type IN ('session.command', 'session.query') AND {_OURS}
GROUP BY session_id, origin
ORDER BY began, session_id, origin
"""  # noqa: S608 - our own text
_FIRST = f"""
SELECT session_id, what, query_only, exit_code, origin, `index`
FROM
(
    SELECT session_id, append_time, origin, `index`, command = '' AS query_only, exit_code,
        if(command != '', trim(concat(command, ' ', arrayStringConcat(args, ' '))), query) AS what
    FROM events
    WHERE event_type IN ('session.command', 'session.query') AND {_OURS}
    ORDER BY append_time, origin, `index`
    LIMIT 1 BY event_id
)
ORDER BY append_time, origin, `index`
LIMIT {{limit:UInt32}} BY session_id
"""  # noqa: S608 - our own text
_CHECKPOINT = "SELECT min(size) AS covering FROM checkpoints WHERE origin = {origin:String} AND size >= {needed:UInt64}"


@dataclass(slots=True)
class Session:
    """One session: the number of commands and statements, each event id counted once, and the first few of them."""

    session_id: str
    commands: int = 0
    first: list[str] = field(default_factory=list)
    entries: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Proof:
    """The entries of a grant in one log, and the checkpoint that covers them.

    Attributes:
        entries: number of entries, commands included.
        last_index: the highest index among them.
        checkpoint_size: size of the first signed checkpoint over all of them; None if the store has none.
    """

    origin: str
    entries: int
    last_index: int
    checkpoint_size: int | None


@dataclass(frozen=True, slots=True)
class History:
    """One grant.

    Attributes:
        state: its row of ``judged_grants``; None if it was never activated and has no open finding.
        events: its own and those of its request and sessions, without commands, in the order of the log. Each event id
            occurs once; ``again`` lists the duplicates.
        cut: there are more than ``MOST_EVENTS``.
    """

    grant_id: str
    state: Row | None
    events: list[Row]
    sessions: dict[str, Session]
    proof: list[Proof]
    cut: bool

    def as_json(self) -> dict[str, Any]:
        """Return the history as plain values."""
        return {
            "grant_id": self.grant_id,
            "grant": self.state,
            "events": self.events,
            "events_cut": self.cut,
            "sessions": [asdict(session) for session in self.sessions.values()],
            "proof": [asdict(proof) for proof in self.proof],
            "verified": False,
        }


def read_history(ask: Ask, grant: str) -> History:
    """Read one grant by its full id."""
    state = ask(_STATE, grant=grant)
    requests = [row["request_id"] for row in ask(_REQUESTS, grant=grant)]
    found = ask(_SESSIONS, grant=grant, requests=requests, limit=MOST_SESSIONS)
    bound = {"grant": grant, "requests": requests, "sessions": [row["session_id"] for row in found]}
    rows = ask(_EVENTS, **bound, limit=MOST_EVENTS + 1)
    cut, rows = len(rows) > MOST_EVENTS, rows[:MOST_EVENTS]
    counted = ask(_COUNTED, **bound)
    sessions: dict[str, Session] = {}
    for row in counted:
        session = sessions.setdefault(row["session_id"], Session(row["session_id"]))
        session.commands += row["commands"]
        session.entries.append({name: row[name] for name in ("origin", "commands", "first_index", "last_index")})
    for row in ask(_FIRST, **bound, limit=FIRST_COMMANDS):
        sessions[row["session_id"]].first.append(row["what"])
    return History(grant, state[0] if state else None, _once(rows), sessions, _proof(ask, rows, counted), cut)


def _once(rows: list[Row]) -> list[Row]:
    """Return the first entry of every event id, with its duplicates in ``again``."""
    kept: dict[str, Row] = {}
    for row in rows:
        if (first := kept.get(row["event_id"])) is None:
            kept[row["event_id"]] = {**row, "again": []}
        else:
            first["again"].append({"origin": row["origin"], "index": row["index"]})
    return list(kept.values())


def _proof(ask: Ask, rows: list[Row], counted: list[Row]) -> list[Proof]:
    entries: dict[str, int] = defaultdict(int)
    last: dict[str, int] = defaultdict(int)
    for row in rows:
        entries[row["origin"]] += 1
        last[row["origin"]] = max(last[row["origin"]], row["index"])
    for row in counted:
        entries[row["origin"]] += row["commands"]
        last[row["origin"]] = max(last[row["origin"]], row["last_index"])
    proof = []
    for origin in sorted(entries):
        size = ask(_CHECKPOINT, origin=origin, needed=last[origin] + 1)[0]["covering"]
        proof.append(Proof(origin, entries[origin], last[origin], size or None))
    return proof
