"""The versions of an event that a source sent with different content, so that a person can accept one of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from ..base.text import printable
from ..sinks.clickhouse import Ask
from .errors import fail
from .output import Column, Output, Row, print_table, text_column

RULE = "event_conflict"
_HOUR = 3600
_MOST = 20
_CONTENT = (
    "event_type", "occurred_at", "outcome", "subject_id", "subject_kind", "actor_id", "actor_kind",
    "actor_on_behalf_of", "resource_kind", "resource_id", "resource_environment", "entitlement", "grant_id",
    "request_id", "session_id", "approvals", "starts_at", "expires_at", "expiry_source", "ends_by_itself",
    "removal_evidence", "reason", "ticket", "customer", "error", "client_ip", "command", "args", "query", "exit_code",
)  # fmt: skip
_LIFECYCLE = "splitByChar('/', origin)[-3] = 'access.lifecycle' AND signature NOT IN ('missing', 'invalid')"
_VERSIONS = f"""
SELECT origin, `index`, append_time, event_id, believed, {", ".join(_CONTENT)} FROM events
WHERE {_LIFECYCLE} AND (tenant, source_system, source_instance, event_id) IN (
    SELECT tenant, source_system, source_instance, event_id FROM events
    WHERE {_LIFECYCLE} AND splitByChar('/', origin)[-2] = {{partition:String}} AND `index` = {{index:UInt64}}
        AND tenant = {{tenant:String}}
        AND ({{hour:UInt64}} = 0 OR toUnixTimestamp(append_time) BETWEEN {{hour:UInt64}} AND {{hour:UInt64}} + {_HOUR})
    ORDER BY epoch DESC LIMIT 1
)
ORDER BY append_time, epoch, `index` LIMIT {{limit:UInt32}}
"""  # noqa: S608 - our own text


def conflicting_versions(ask: Ask, finding: Row) -> list[Row]:
    """Return the versions of the first conflicting event of a finding, each with the fields in which it differs."""
    evidence = _evidence(finding)
    index, hour = evidence.get("first_entry"), finding["deadline"]
    if finding["rule"] != RULE or not isinstance(index, int):
        return []
    return _read(ask, finding, index, int(hour.timestamp()) if hour is not None else 0)


def check_acceptable(ask: Ask, finding: Row, index: int) -> None:
    """End the command if the entry with this index is no version of an event that a person can decide."""
    if finding["rule"] != RULE:
        fail(f"--accept decides an {RULE}; {finding['id']} is a finding of the rule {printable(finding['rule'])}")
    versions, show = _read(ask, finding, index, 0), f"`grantledger findings show {finding['id']}`"
    if len(versions) < 2:
        fail(f"--accept: entry #{index} is not a version of an event that was sent twice; {show} lists the versions")
    if not all(version["believed"] for version in versions):
        fail(f"--accept: a version of the event of entry #{index} was accepted already; {show} lists the versions")


def undecided_note(finding: Row) -> str:
    """Return what counts after a conflict was closed without a decision; empty for other findings."""
    if finding["rule"] != RULE or "#mapping" in finding["key"]:  # there all contents are equal
        return ""
    command = f"grantledger findings close {finding['id']} --accept INDEX --reason '…'"
    return (
        "No version was accepted: the stricter reading still counts (the earliest end, and a removal only if all "
        f"versions agree), and no command is sent. `{command}` decides, also now; `findings show` lists each INDEX."
    )


def print_versions(console: Console, output: Output, finding: Row, versions: Sequence[Row]) -> None:
    """Print the versions as a table."""
    if not versions:
        return
    decided = not all(version["believed"] for version in versions)
    console.print(Text("The versions of the event (`findings close --accept INDEX` accepts one):"), soft_wrap=True)
    columns = [
        Column("index", lambda version: f"#{version['index']}", right=True),
        Column(f"appended ({output.zone_name})", lambda version: output.moment(version["append_time"]), whole=True),
        text_column("event", "event_type"),
        Column("differs in", lambda version: _differences(output, version)),
        Column("log", lambda version: str(version["origin"])),
    ]
    if decided:
        columns.insert(1, Column("", lambda version: "accepted" if version["believed"] else "does not count"))
    print_table(console, versions, columns)
    count = _evidence(finding).get("count")
    if isinstance(count, int) and count > 1:
        console.print(
            f"This is the first of {count:,} conflicts of this source in this hour. A decision is about one event."
        )


def _read(ask: Ask, finding: Row, index: int, hour: int) -> list[Row]:
    shard = re.search(r"#shard-([0-9]+)$", finding["key"])
    rows = ask(
        _VERSIONS, partition=shard[1] if shard else "0", index=index, tenant=finding["tenant"], hour=hour, limit=_MOST
    )
    differing = [name for name in _CONTENT if any(row[name] != rows[0][name] for row in rows)]
    for row in rows:
        row["differs"] = {name: row[name] for name in differing}
    return [
        {
            name: row[name]
            for name in ("origin", "index", "append_time", "event_id", "event_type", "believed", "differs")
        }
        for row in rows
    ]


def _differences(output: Output, version: Row) -> str:
    def text(value: Any) -> str:
        return (
            output.moment(value) if hasattr(value, "astimezone") else str(value) if value not in ("", None) else "none"
        )

    shown = "; ".join(f"{name} {text(value)}" for name, value in version["differs"].items())
    return shown or "no field of the view events"


def _evidence(finding: Row) -> dict[str, Any]:
    try:
        found = json.loads(finding["evidence"])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
