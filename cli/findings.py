"""``grantledger findings``: list and show findings."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ..base.text import printable
from ..runtime.settings import Settings
from ..schemas.finding_rules import FINDING_RULES, SEVERITIES
from ..sinks.clickhouse import Ask
from .errors import fail, suggestion
from .finding_conflict import RULE, conflicting_versions, print_versions
from .grant_command import grant_command
from .grants import SourceOption, TenantOption, resource_text
from .lag_note import asking_states
from .output import Column, Output, Row, print_fields, print_table, shortened, text_column

_STYLES = {"critical": "red", "warning": "yellow"}
_FIELDS = (
    "id", "rule", "key", "deadline", "severity", "summary", "open", "opened_at", "resolved_at", "acknowledged_at",
    "acknowledged_by", "closed_at", "closed_by", "closed_reason", "times_opened", "evidence", "tenant",
    "issuer_system", "issuer_instance", "grant_source_system", "grant_source_instance", "request_source_system",
    "request_source_instance", "session_source_system", "session_source_instance", "grant_id", "grant_key",
    "request_id", "session_id", "subject_id", "resource_kind", "resource_id", "resource_environment", "entitlement",
    "origin", "index",
)  # fmt: skip
# The id is the beginning of the hash of what identifies a finding, short enough to type.
WITH_ID = """
SELECT lower(substring(hex(SHA256(arrayStringConcat(
    [rule, key, ifNull(toString(deadline), ''), tenant, issuer_system, issuer_instance], '\\n'
))), 1, 10)) AS id, *
FROM findings
"""
_LIST = f"""
SELECT *, count() OVER () AS total FROM ({WITH_ID})
WHERE (open OR {{all:Bool}}) AND (empty({{rule:String}}) OR rule = {{rule:String}})
    AND (empty({{severities:Array(String)}}) OR has({{severities:Array(String)}}, severity))
    AND (empty({{tenant:String}}) OR tenant = {{tenant:String}})
    AND (empty({{source:String}}) OR has([concat(issuer_system, '/', issuer_instance), issuer_system,
        concat(grant_source_system, '/', grant_source_instance), grant_source_system], {{source:String}}))
ORDER BY open DESC, indexOf(['critical', 'warning', 'info'], severity), opened_at DESC
LIMIT {{limit:UInt32}}
"""  # noqa: S608 - our own text
_ONE = f"SELECT * FROM ({WITH_ID}) WHERE startsWith(id, {{id:String}}) LIMIT 20"  # noqa: S608 - our own text
_EVENTS = """
SELECT occurred_at, event_type, actor_id, reason, origin, `index` FROM finding_events
WHERE rule = {rule:String} AND key = {key:String} AND tenant = {tenant:String}
    AND issuer = ({issuer_system:String}, {issuer_instance:String})
    AND ifNull(toString(deadline), '') = (
        SELECT ifNull(toString(deadline), '') FROM finding_events
        WHERE origin = {origin:String} AND `index` = {index:UInt64}
    )
ORDER BY append_time, origin, `index` LIMIT 1000
"""

_HISTORICAL = """
SELECT
    count() AS grants, countIf(NOT ended) AS unresolved,
    countIf(NOT ended AND removal_evidence = 'none') AS without_any_removal
FROM grant_states
WHERE historical AND tenant = {tenant:String} AND concat(source_system, '/', source_instance) = {source:String}
"""
_IDENTITY = ("rule", "key", "tenant", "issuer_system", "issuer_instance", "origin", "index")
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the finding, or the beginning of it.")]


def list_command(  # noqa: PLR0917 - one parameter per flag
    settings: Settings,
    output: Output,
    everything: Annotated[
        bool, typer.Option("--all", help="All findings, including resolved and closed ones.")
    ] = False,
    rule: Annotated[str, typer.Option(help="Only findings of this rule, for example overdue.")] = "",
    severity: Annotated[str, typer.Option(help="Only this severity and above: info, warning, critical.")] = "",
    tenant: TenantOption = "",
    source: SourceOption = "",
    limit: Annotated[int, typer.Option(help="Maximum number of rows.", min=1, max=100_000)] = 50,
) -> None:
    """List open findings, the most severe and latest first. docs/findings.md explains every rule.

    Exit codes: 0 listed, even if there are none; 2 the store cannot be read, or an option is wrong.
    """
    if rule and rule not in FINDING_RULES:
        fail(f"--rule: there is no rule {rule!r}{suggestion(rule, FINDING_RULES)}; docs/findings.md lists them")
    if severity and severity not in SEVERITIES:
        fail(f"--severity: {severity!r} is not one of {', '.join(SEVERITIES)}")
    severities = list(SEVERITIES[SEVERITIES.index(severity) :]) if severity else []
    with asking_states(settings, output) as ask:
        rows = ask(_LIST, all=everything, rule=rule, severities=severities, tenant=tenant, source=source, limit=limit)
    total = rows[0]["total"] if rows else 0
    for row in rows:
        del row["total"]
    columns = [
        text_column("id", "id"),
        Column("severity", lambda row: str(row["severity"]), style=lambda row: _STYLES.get(row["severity"], "")),
        text_column("rule", "rule"),
        Column("about", _about),
        Column(f"opened ({output.zone_name})", lambda row: output.moment(row["opened_at"]), whole=True),
        Column("state", _state),
    ]
    empty = "No findings on record." if everything else "No open findings."
    output.rows(rows, identity="id", fields=_FIELDS, show=columns, empty=empty)
    if total > len(rows):
        output.note(f"{len(rows):,} of {total:,}: --limit shows more")


def show(settings: Settings, output: Output, finding: IdArgument) -> None:
    """Show one finding: its meaning, evidence and events, and the remedy.

    Exit codes: 0 shown; 1 no finding has this id, or several ids begin with it: they are listed; 2 the store cannot be
    read.
    """
    with asking_states(settings, output) as ask:
        row = resolved(ask, finding)
        events = ask(_EVENTS, **{name: row[name] for name in _IDENTITY})
        versions = {"versions": conflicting_versions(ask, row)} if row["rule"] == RULE else {}
        more = {**_historical_grants(ask, row), **versions}
    record = {**row, **more, "events": events}
    output.record(record, lambda console: _print(console, output, record, events), identity="id")


def _historical_grants(ask: Ask, row: Row) -> Row:
    """Return how many historical grants a source has now in a tenant: the evidence has the numbers of the opening."""
    if row["rule"] != "late_records":
        return {}
    source = row["key"].partition("#")[0]
    return {"historical_grants": ask(_HISTORICAL, tenant=row["tenant"], source=source)[0]}


def resolved(ask: Ask, prefix: str) -> Row:
    """Return the only finding with this id or prefix; otherwise end the command."""
    found = ask(_ONE, id=prefix.lower()) if prefix else []
    if not found:
        fail(f"no finding has the id {shortened(prefix, 40)!r}; `grantledger findings list --all` lists them", 1)
    if len(found) > 1:
        lines = [f"  {row['id']}  {printable(row['rule'])}, {_about(row)}" for row in found]
        fail("\n".join([f"several findings begin with {shortened(prefix, 40)!r}; give more of the id:", *lines]), 1)
    return found[0]


def _about(row: Row) -> str:
    """Return the holder and the access of a finding; without them, its key."""
    parts = [printable(row["subject_id"]), resource_text(row), printable(row["entitlement"])]
    named = ", ".join(part for part in parts if part)
    grant = f" (grant {printable(row['grant_id'])})" if row["grant_id"] else ""
    return (named or printable(row["key"])) + grant


def _state(row: Row) -> str:
    if row["open"]:
        return f"acknowledged by {printable(row['acknowledged_by'])}" if row["acknowledged_at"] else "open"
    return f"closed by {printable(row['closed_by'])}" if row["closed_at"] else "resolved"


def _print(console: Console, output: Output, row: Row, events: list[dict[str, Any]]) -> None:
    known = FINDING_RULES.get(row["rule"])
    lines = {
        "summary": known.summary if known else "",
        "severity": row["severity"],
        "about": _about(row),
        "key": printable(row["key"]),
        # Of other rules, the hour or day in which the finding counts what a source did.
        "deadline" if known is None or known.about else "from": (
            f"{output.moment(row['deadline'])} {output.zone_name}" if row["deadline"] else ""
        ),
        "state": _state(row),
        "evidence": printable(_compact(row["evidence"])),
        "now": _numbers(row.get("historical_grants")),
        "next": grant_command("show", _grant_of(row)) if row["grant_id"] else "",
    }
    console.print(Text(f"finding {row['id']}: {printable(row['rule'])}", style="bold"))
    print_fields(console, lines)
    columns = [
        Column(f"when ({output.zone_name})", lambda event: output.moment(event["occurred_at"]), whole=True),
        text_column("event", "event_type"),
        text_column("who", "actor_id"),
        text_column("reason", "reason"),
        Column("entry", lambda event: f"{printable(event['origin'])} #{event['index']}"),
    ]
    print_table(console, events, columns)
    print_versions(console, output, row, row.get("versions", []))
    if known:
        console.print(Text(f"What it means: {known.meaning}"), soft_wrap=True)
        console.print(Text(f"What to do: {known.action}"), soft_wrap=True)


def _numbers(now: Row | None) -> str:
    if now is None:
        return ""
    unresolved = f"{now['unresolved']:,} unresolved, {now['without_any_removal']:,} of them without any removal"
    return f"{now['grants']:,} historical grants of this source, of all days: {unresolved}"


def _grant_of(row: Row) -> Row:
    source = {"source_system": row["grant_source_system"], "source_instance": row["grant_source_instance"]}
    return {"grant_id": row["grant_id"], "tenant": row["tenant"], **source}


def _compact(evidence: str) -> str:
    try:
        return json.dumps(json.loads(evidence), ensure_ascii=False)
    except ValueError:
        return evidence
