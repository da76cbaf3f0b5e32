"""Everything in the ledger about one grant, and the open findings about it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

from ..schemas.access_key import id_of
from ..sinks.clickhouse import Ask, Row
from . import grant_revocations
from .findings import WITH_ID
from .grant_event_text import EVIDENCE

MOST_EVENTS = 1000
FIRST_COMMANDS = 3
MOST_COMMANDS = 1000
"""Of one session."""
MOST_SESSIONS = 1000
MOST_FINDINGS = 1000

_MINE = "grant_id = {id:String} AND grant_key = {grant:String}"  # the id finds them by its index, the key decides
STATE = f"SELECT * FROM grants WHERE {_MINE}"  # noqa: S608 - our own text
_REQUESTS = f"""
SELECT DISTINCT request_key FROM events
WHERE {_MINE} AND request_id != '' AND event_type IN ('grant.activated', 'grant.extended')
"""  # noqa: S608 - our own text
_SESSIONS = f"""
SELECT DISTINCT session_key FROM events
WHERE session_id != ''
    AND (({_MINE}) OR (grant_id = '' AND request_id != '' AND has({{requests:Array(String)}}, request_key)))
LIMIT {{limit:UInt32}}
"""  # noqa: S608 - our own text
_OURS = f"""(
    ({_MINE})
    OR (grant_id = '' AND request_id != '' AND has({{requests:Array(String)}}, request_key))
    OR (grant_id = '' AND session_id != '' AND has({{sessions:Array(String)}}, session_key))
)"""
_EVENTS = f"""
SELECT
    append_time, occurred_at, event_type, outcome, subject_id, actor_id, approvals, starts_at, expires_at,
    removal_evidence, finding_rule, reason, ticket, error, client_ip, request_id, session_id, session_key, event_id,
    source_system, source_instance, believed, origin, `index`
FROM events
WHERE event_type NOT IN ('session.command', 'session.query') AND {_OURS}
ORDER BY append_time, origin, `index`
LIMIT {{limit:UInt32}}
"""  # noqa: S608 - our own text
_COUNTED = f"""
SELECT session_key, session_id, origin, uniqExact(event_id) AS commands, min(`index`) AS first_index,
    max(`index`) AS last_index, min(append_time) AS began
FROM events
WHERE event_type IN ('session.command', 'session.query') AND {_OURS}
GROUP BY session_key, session_id, origin
ORDER BY began, session_key, origin
"""  # noqa: S608 - our own text
_FIRST = f"""
SELECT session_key, what, query_only, exit_code, origin, `index`
FROM
(
    SELECT session_key, append_time, origin, `index`, command = '' AS query_only, exit_code,
        if(command != '', trim(concat(command, ' ', arrayStringConcat(args, ' '))), query) AS what
    FROM events
    WHERE event_type IN ('session.command', 'session.query') AND {_OURS}
    ORDER BY append_time, origin, `index`
    LIMIT 1 BY event_id
)
ORDER BY append_time, origin, `index`
LIMIT {{limit:UInt32}} BY session_key
"""  # noqa: S608 - our own text
_FINDINGS = f"""
SELECT id, rule, severity, summary, key, session_id, deadline, opened_at, acknowledged_at, acknowledged_by
FROM ({WITH_ID})
WHERE open AND issuer_system != '' AND (grant_key = {{grant:String}} OR has({{keys:Array(String)}},
    concat(arrayStringConcat(arrayMap(part -> replaceAll(replaceAll(part, '%', '%25'), '/', '%2F'),
        [tenant, issuer_system, issuer_instance]), '/'), '/', key)))
ORDER BY rule, opened_at, key
LIMIT {{limit:UInt32}}
"""  # noqa: S608 - our own text
_CHECKPOINT = "SELECT min(size) AS covering FROM checkpoints WHERE origin = {origin:String} AND size >= {needed:UInt64}"


@dataclass(slots=True)
class GrantSession:
    """One session: the number of commands and statements, each event id counted once, and the first few of them."""

    session_id: str
    session_key: str
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
class GrantHistory:
    """One grant.

    Attributes:
        grant_key: its access key.
        state: its row of ``grants``; None if it was never activated and has no open finding.
        events: its own and those of its request and sessions, without commands, in the order of the log. Each event id
            occurs once; ``again`` lists the duplicates.
        sessions: by access key.
        findings: the open ones of the grant, its request and its sessions, by rule.
        revocations: rows of ``QUERY`` in :mod:`.grant_revocations`.
        cut: there are more than ``MOST_EVENTS``.
    """

    grant_key: str
    state: Row | None
    events: list[Row]
    sessions: dict[str, GrantSession]
    proof: list[Proof]
    cut: bool
    findings: list[Row] = field(default_factory=list)
    revocations: list[Row] = field(default_factory=list)

    @property
    def grant_id(self) -> str:
        """The id that its source issued."""
        return id_of(self.grant_key)

    def as_json(self) -> dict[str, Any]:
        """Return the history as plain values."""
        return {
            "grant_id": self.grant_id,
            "grant_key": self.grant_key,
            "grant": self.state,
            "findings": self.findings,
            "revocations": self.revocations,
            "events": self.events,
            "events_cut": self.cut,
            "sessions": [asdict(session) for session in self.sessions.values()],
            "proof": [asdict(proof) for proof in self.proof],
            "verified": False,
        }


def read_history(ask: Ask, grant: str, *, commands: int = FIRST_COMMANDS) -> GrantHistory:
    """Read one grant by its access key. ``commands``: how many of each session."""
    mine = {"grant": grant, "id": id_of(grant)}
    state = ask(STATE, **mine)
    requests = [row["request_key"] for row in ask(_REQUESTS, **mine)]
    found = ask(_SESSIONS, **mine, requests=requests, limit=MOST_SESSIONS)
    bound = {**mine, "requests": requests, "sessions": [row["session_key"] for row in found]}
    rows = ask(_EVENTS, **bound, limit=MOST_EVENTS + 1)
    cut, rows = len(rows) > MOST_EVENTS, rows[:MOST_EVENTS]
    counted = ask(_COUNTED, **bound)
    sessions: dict[str, GrantSession] = {}
    for row in counted:
        key = row["session_key"]
        session = sessions.setdefault(key, GrantSession(row["session_id"], key))
        session.commands += row["commands"]
        session.entries.append({name: row[name] for name in ("origin", "commands", "first_index", "last_index")})
    for row in ask(_FIRST, **bound, limit=commands):
        sessions[row["session_key"]].first.append(row["what"])
    findings = ask(_FINDINGS, grant=grant, keys=[*requests, *bound["sessions"]], limit=MOST_FINDINGS)
    revocations = ask(grant_revocations.QUERY, **mine, limit=grant_revocations.MOST_ROWS)
    evidence = {
        (row["origin"], row["index"]): row["finding_evidence"]
        for row in ask(EVIDENCE, id=mine["id"], limit=MOST_EVENTS)
    }
    rows = [{**row, "finding_evidence": evidence.get((row["origin"], row["index"]), "")} for row in rows]
    proof = _proof(ask, rows, counted)
    return GrantHistory(grant, state[0] if state else None, _once(rows), sessions, proof, cut, findings, revocations)


def _once(rows: list[Row]) -> list[Row]:
    """Return the first entry of every event of a source, with its duplicates in ``again``."""
    kept: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        identity = (row["source_system"], row["source_instance"], row["event_id"])
        if (first := kept.get(identity)) is None:
            kept[identity] = {**row, "again": []}
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
