"""A grant's story on the terminal: a line an event, what was done in each session, and where the proof stands."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .asking import Row
from .grant_story import Session, Story
from .grants import PAST_END, lateness, thing, until
from .terminal import moment, printable, shortened, wide_console

_LONGEST_COMMAND = 60
_NO_FINDING = {
    "none": "the watch has no finding: gone under the policy, within the grace, or not judged yet",
    "resolved": "the watch has resolved its finding: gone under the policy",
}
_STYLES = {"grant.activated": "green", "grant.extended": "yellow", "grant.revoked": "cyan", "grant.expired": "cyan"}


def print_story(story: Story) -> None:
    """Print one grant. Everything that a sender chose is escaped."""
    console = wide_console()
    _print_head(console, story)
    table = Table("when (UTC)", "event", "who", "what", "entry", box=None, pad_edge=False, header_style="dim")
    for column in table.columns:
        column.overflow = "fold"
    told: set[str] = set()
    for event in story.events:
        kind, session_id = event["event_type"], event["session_id"]
        cells = [moment(event["occurred_at"]), kind, event["actor_id"] or event["subject_id"]]
        cells += [_detail(event, story.state), _entry(event)]
        table.add_row(*(Text(printable(cell), style=_STYLES.get(kind, "")) for cell in cells))
        if kind == "session.started" and session_id in story.sessions and session_id not in told:
            told.add(session_id)
            _add_session(table, story.sessions[session_id])
    for session in story.sessions.values():
        if session.session_id not in told:
            _add_session(table, session)
    console.print(table)
    if story.cut:
        console.print(f"… and more: only the first {len(story.events):,} are shown, `grantledger query` has them all")
    _print_proof(console, story)


def _print_head(console: Console, story: Story) -> None:
    state = story.state
    console.print(Text(f"grant {printable(story.grant_id)}", style="bold"))
    if state is None or state["activated_at"] is None:
        console.print("  was never activated, as far as is on record")
    if state is None:
        console.print()
        return
    # Where only a finding names the grant, there is nothing to say of some of these.
    access = (thing(state), printable(state["entitlement"]))
    lines = {
        "who": printable(f"{state['subject_id']} ({state['subject_kind'] or 'unknown'})"),
        "what": ", ".join(part for part in access if part),
        "why": printable(", ".join(part for part in (state["reason"], state["ticket"]) if part)),
        "deadline": until(state, datetime.now(UTC)),
        "state": _state(state),
    }
    for name, text in lines.items():
        if text:
            console.print(Text(f"  {name:<9}{text}"), soft_wrap=True)
    console.print()


def _state(state: Row) -> str:
    if state["state"] == "removed":
        return _removed(state)
    if state["state"] == "overdue" and state["removed_at"] is not None:
        return f"overdue: the watch has not resolved its finding yet; {_removed(state)}"
    evidence = state["removal_evidence"]
    known = "no removal on record" if evidence == "none" else f"best evidence of a removal: {evidence}"
    if state["state"] == "overdue":
        return f"overdue, found {moment(state['found_at'])}; {known}"
    if state["state"] == PAST_END:
        return f"past its end; {_NO_FINDING[state['finding']]}; {known}"
    words = {
        "covered": "past its deadline, covered by another open grant of the same access",
        "no deadline": "open, without a deadline",
    }
    return f"{words.get(state['state'], 'active')}; {known}"


def _removed(state: Row) -> str:
    return f"removed {moment(state['removed_at'])}, confirmed"


def _detail(event: Row, state: Row | None) -> str:
    """Return what an event says beyond its type, not yet escaped."""
    kind = event["event_type"]
    parts = []
    if kind in ("grant.activated", "grant.extended"):
        parts.append(f"until {moment(event['expires_at'])}" if event["expires_at"] else "no end given")
        if event["starts_at"]:
            parts.append(f"from {moment(event['starts_at'])}")
    if kind in ("grant.revoked", "grant.expired"):
        parts.append(f"evidence: {event['removal_evidence']}")
        counts = state is not None and event["removal_evidence"] == "confirmed"
        if (
            counts
            and state is not None
            and state["removed_at"] == event["occurred_at"]
            and state["late_seconds"] is not None
        ):
            parts.append(lateness(state["late_seconds"]))
    if event["approvals"]:
        parts.append(", ".join(_decision(each) for each in event["approvals"]))
    if kind.startswith("session."):
        parts.append(f"session {event['session_id']}" + (f" from {event['client_ip']}" if event["client_ip"] else ""))
    if event["reason"]:
        parts.append(event["reason"])
    if event["error"]:
        parts.append(f"error: {event['error']}")
    if event["outcome"] in ("failure", "denied", "pending"):
        parts.append(f"outcome: {event['outcome']}")
    return "; ".join(parts)


def _decision(approval: Mapping[str, object]) -> str:
    forced = " (forced)" if approval["forced"] else ""
    at = approval["at"]
    return f"{approval['reviewer']} {approval['decision']}{forced}" + (
        f" {moment(at.replace(tzinfo=UTC) if at.tzinfo is None else at)}" if isinstance(at, datetime) else ""
    )


def _entry(event: Row) -> str:
    again = "".join(f", again #{other['index']}" for other in event["again"])
    return f"{_short(event['origin'])} #{event['index']}{again}"


def _short(origin: str) -> str:
    """Return an origin without its deployment: ``access.lifecycle/0/0``."""
    return "/".join(origin.rsplit("/", 3)[-3:])


def _add_session(table: Table, session: Session) -> None:
    shown = [shortened(command, _LONGEST_COMMAND) for command in session.first]
    rest = session.commands - len(shown)
    more = f" … {rest:,} more" if rest else ""
    count = f"{session.commands:,} command{'' if session.commands == 1 else 's'}"
    where = ", ".join(
        f"{_short(each['origin'])} #{each['first_index']}"
        + (f" to #{each['last_index']}" if each["last_index"] != each["first_index"] else "")
        for each in session.entries
    )
    name = printable(session.session_id)
    cells = ["", "", "", f"{count} in session {name}: {'; '.join(shown)}{more}", where]
    table.add_row(*(Text(cell, style="dim") for cell in cells))


def _print_proof(console: Console, story: Story) -> None:
    console.print("\nProof:")
    for proof in story.proof:
        entries = f"{proof.entries:,} entr{'y' if proof.entries == 1 else 'ies'}"
        covered = (
            f"covered by its signed checkpoint of size {proof.checkpoint_size:,}"
            if proof.checkpoint_size is not None
            else "and NO signed checkpoint in the store covers them"
        )
        origin = printable(proof.origin)
        console.print(Text(f"  sealed in {origin}: {entries} up to #{proof.last_index}, {covered}"), soft_wrap=True)
    console.print("  Nothing of this was checked just now: run `grantledger verify` to check it.")
