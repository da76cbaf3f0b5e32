"""The history of a grant on a terminal: one line per event, the commands of each session, and the proof."""

from __future__ import annotations

from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..base.text import printable
from .grant_event_text import finding_text
from .grant_history import GrantHistory, GrantSession
from .grant_revocations import revocations_of
from .grant_state import PastEnd, next_step, state_text
from .grants import lateness, resource_text, source_of, until
from .output import Format, Output, Row, print_fields, shortened

_LONGEST_COMMAND = 60
_ANY_WIDTH = 1_000_000
MOST_REVOCATIONS = 3
MOST_FINDINGS = 20
_STYLES = {"grant.activated": "green", "grant.extended": "yellow", "grant.revoked": "cyan", "grant.expired": "cyan"}


def print_history(
    console: Console, output: Output, history: GrantHistory, ended: PastEnd | None, now: datetime, *, limit: str
) -> None:
    """Print one grant. All text from senders is escaped. ``limit``: that of the policy, as text."""
    wide = output.format is Format.wide
    _print_head(console, output, history, ended, now, limit=limit)
    when = f"when ({output.zone_name})"
    table = Table(when, "event", "who", "what", "entry", box=None, pad_edge=False, header_style="dim")
    for column in table.columns:
        column.overflow = "fold"
    shown: set[str] = set()
    for event in history.events:
        kind, session_key = event["event_type"], event["session_key"]
        cells = [output.moment(event["occurred_at"]), kind, event["actor_id"] or event["subject_id"]]
        cells += [_detail(output, event, history.state), _entry(event)]
        table.add_row(*(Text(printable(cell), style=_STYLES.get(kind, "")) for cell in cells))
        if kind == "session.started" and session_key in history.sessions and session_key not in shown:
            shown.add(session_key)
            _add_session(table, history.sessions[session_key], wide=wide)
    for session in history.sessions.values():
        if session.session_key not in shown:
            _add_session(table, session, wide=wide)
    if wide:  # no cell is folded
        measured = console.measure(table, options=console.options.update(max_width=_ANY_WIDTH))
        console.size = max(console.width, measured.maximum), console.height
    console.print(table)
    if history.cut:
        console.print(f"… and more: only the first {len(history.events):,} are shown; `grantledger query` has them all")
    _print_proof(console, history)


def _print_head(
    console: Console, output: Output, history: GrantHistory, ended: PastEnd | None, now: datetime, *, limit: str
) -> None:
    state = history.state
    console.print(Text(f"grant {printable(history.grant_id)}", style="bold"))
    if state is None or state["activated_at"] is None:
        console.print("  no activation on record")
    if state is None:
        console.print()
        return
    # Some of these are empty where only a finding names the grant.
    access = (resource_text(state), printable(state["entitlement"]))
    person = f", known as {state['person']}" if state["person"] != state["subject_id"] else ""
    ticket = state["ticket"] if state["ticket"] not in state["reason"] else ""
    lines = {
        "who": printable(f"{state['subject_id']} ({state['subject_kind'] or 'unknown'}){person}"),
        "what": ", ".join(part for part in access if part),
        "from": printable(source_of(state)),
        "why": printable(", ".join(part for part in (state["reason"], ticket) if part)),
        "for": printable(f"customer {state['customer']}") if state["customer"] else "",
        "approval": printable(state["approvals"]),
        "deadline": until(output, state, now),
        "limit": limit,
        "state": state_text(output, state, ended),
    }
    print_fields(console, lines)
    wide, requests = output.format is Format.wide, revocations_of(history.revocations)
    for request in requests if wide else requests[:MOST_REVOCATIONS]:
        print_fields(console, {"revoke": request.text(output, now)})
    shown = history.findings if wide else history.findings[:MOST_FINDINGS]
    for finding in shown:
        print_fields(console, {"finding": _finding(output, finding)})
    more = len(history.findings) - len(shown)
    print_fields(console, {"": f"and {more:,} more open findings: see `grantledger findings`" if more > 0 else ""})
    steps = [next_step(output, state, ended, requests, now)]
    if any(row["session_id"] for row in history.findings):
        steps.append("end in the tool the sessions that the findings name")
    print_fields(console, {"next": "; ".join(filter(None, steps))})
    console.print()


def _finding(output: Output, row: Row) -> str:
    session = f", session {row['session_id']}" if row["session_id"] else ""
    acknowledged = f", acknowledged by {row['acknowledged_by']}" if row["acknowledged_at"] else ""
    about = f"{row['rule']} ({row['severity']}, {row['id']}{session})"
    return f"{about}: open since {output.moment(row['opened_at'])}{acknowledged}"


def _detail(output: Output, event: Row, state: Row | None) -> str:
    """Return the details of an event, not yet escaped."""
    kind, rule = event["event_type"], event["finding_rule"]
    repeats = kind in ("finding.opened", "finding.resolved")  # the reason and the approvals of the grant
    parts = []
    if kind in ("grant.activated", "grant.extended"):
        parts.append(f"until {output.moment(event['expires_at'])}" if event["expires_at"] else "no end given")
        if event["starts_at"]:
            parts.append(f"from {output.moment(event['starts_at'])}")
    if kind in ("grant.revoked", "grant.expired"):
        unsure = event["removal_evidence"] == "confirmed" and event["outcome"] != "success"
        counts = f", but with the outcome {event['outcome']}: counts as api_accepted" if unsure else ""
        parts.append(f"evidence: {event['removal_evidence']}{counts}")
        first = state is not None and state["removed_at"] == event["occurred_at"]
        if state and first and event["removal_evidence"] == "confirmed" and state["late_seconds"] is not None:
            parts.append(lateness(state["late_seconds"]))
    if event["approvals"] and not repeats:
        parts.append(", ".join(_decision(output, each) for each in event["approvals"]))
    if kind.startswith("session."):
        parts.append(f"session {event['session_id']}" + (f" from {event['client_ip']}" if event["client_ip"] else ""))
    if event["reason"] and not repeats:
        parts.append(event["reason"])
    if rule:
        parts.append(finding_text(event))
    if event["error"]:
        parts.append(f"error: {event['error']}")
    if not rule and event["outcome"] in ("failure", "denied", "pending"):
        parts.append(f"outcome: {event['outcome']}")
    if not event["believed"]:
        parts.append("NOT BELIEVED: unsigned, or another version was accepted")
    return "; ".join(filter(None, parts))


def _decision(output: Output, approval: Row) -> str:
    forced = " (forced)" if approval["forced"] else ""
    return f"{approval['reviewer']} {approval['decision']}{forced} {output.moment(approval['at'])}".rstrip()


def _entry(event: Row) -> str:
    again = "".join(f", again #{other['index']}" for other in event["again"])
    return f"{_short(event['origin'])} #{event['index']}{again}"


def _short(origin: str) -> str:
    """Return an origin without its deployment: ``access.lifecycle/0/0``."""
    return "/".join(origin.rsplit("/", 3)[-3:])


def _add_session(table: Table, session: GrantSession, *, wide: bool) -> None:
    shown = [printable(command) if wide else shortened(command, _LONGEST_COMMAND) for command in session.first]
    rest = session.commands - len(shown)
    more = f" … {rest:,} more" if rest else ""
    count = f"{session.commands:,} command{'' if session.commands == 1 else 's'}"
    where = ", ".join(
        f"{_short(each['origin'])} #{each['first_index']}"
        + (f" to #{each['last_index']}" if each["last_index"] != each["first_index"] else "")
        for each in session.entries
    )
    name = printable(session.session_id)
    commands = "\n" + "\n".join(shown) if wide else " " + "; ".join(shown)
    cells = ["", "", "", f"{count} in session {name}:{commands}{more}", where]
    table.add_row(*(Text(cell, style="dim") for cell in cells))


def _print_proof(console: Console, history: GrantHistory) -> None:
    console.print("\nProof:")
    for proof in history.proof:
        entries = f"{proof.entries:,} entr{'y' if proof.entries == 1 else 'ies'}"
        covered = (
            f"covered by the signed checkpoint of size {proof.checkpoint_size:,}"
            if proof.checkpoint_size is not None
            else "and NO signed checkpoint in the store covers them"
        )
        origin = printable(proof.origin)
        console.print(Text(f"  sealed in {origin}: {entries} up to #{proof.last_index}, {covered}"), soft_wrap=True)
    console.print("  Nothing of this has been verified: run `grantledger verify`.")
