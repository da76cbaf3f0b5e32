"""Storms: if many findings of one rule and tool open within an hour, one page stands for them and names their list.

Each finding stays on record, and so does its end. Anyone can invent tools: the further tools of an hour share a storm.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ...schemas.finding_rules import FINDING_RULES
from .finding import FindingEvent, from_text, rfc3339, severity_rank

HOUR = 3600
MOST_TOOLS = 20
"""Tools of one rule that are counted one by one in an hour."""
OTHER_TOOLS = "*"
IN_STORM = "one of many: one page stands for them"
QUIET_SECONDS = 5.0
"""The page of a storm leaves when no finding was added for so long, because it has their number."""
LONGEST_QUIET_SECONDS = 30.0
STORM = "storm of "
"""Begins the rule of a storm's row, so that a storm is no finding of its rule."""


@dataclass(frozen=True, slots=True)
class StormPage:
    """The finding that stands for others. ``number``: its row, None before it has one."""

    finding: FindingEvent
    number: int | None
    grouped: tuple[str, str]
    """Rule and tool of the findings that it stands for, as in their rows."""


class Storms:
    """Counts the findings that open, within the transactions of the outbox.

    Args:
        most: findings of one rule and tool in an hour that have pages of their own.
    """

    def __init__(self, database: sqlite3.Connection, most: int) -> None:
        self._database, self._most = database, most

    def count(self, numbers: Sequence[int], now: float) -> Iterator[StormPage]:
        """Count the findings in these rows, and yield the pages that now stand for others.

        Each page must be stored before the next one is taken, which may be the same.
        """
        hour = int(now // HOUR)
        self._database.execute("DELETE FROM storms WHERE hour < ? AND page IS NULL", (hour,))
        groups = self._database.execute(
            "SELECT rule, tool, count(*), min(number) FROM findings WHERE ended_at IS NULL "
            "AND rule NOT LIKE ? AND number IN (SELECT value FROM json_each(?)) GROUP BY rule, tool",
            (f"{STORM}%", json.dumps(list(numbers))),
        ).fetchall()
        for rule, tool, count, first in groups:
            counted = self._counted_as(rule, tool, hour)
            total, page = self._database.execute(
                "INSERT INTO storms (rule, tool, hour, count) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET count = count + excluded.count RETURNING count, page",
                (rule, counted, hour, count),
            ).fetchone()
            if total > self._most:
                severity = self._severity(rule, tool, numbers, page)
                finding = self._finding(page) if page is not None else self._page(first, counted, hour, now)
                number = {"findings": str(total), "evidence": {"findings": total}}
                finding = replace(finding, severity=severity, facts=finding.facts | number)
                yield StormPage(finding, page, (rule, tool))

    def began(self, page: StormPage, number: int) -> None:
        """Note the row of a page."""
        rule, tool, hour = page.finding.rule, page.finding.facts["tools"], page.finding.facts["hour"]
        self._database.execute(
            "UPDATE storms SET page = ? WHERE rule = ? AND tool = ? AND hour = ?", (number, rule, tool, int(hour))
        )

    def absorb(self, page: StormPage, numbers: Sequence[int]) -> None:
        """Skip the messages about its findings that have not left. ``numbers``: the rows of the new findings."""
        only = json.dumps(list(numbers)) if page.number is not None else None  # the first time earlier ones as well
        self._database.execute(
            "UPDATE messages SET state = 'skipped', note = ?1 WHERE state = 'due' AND attempts = 0 "
            "AND change = 'opened' AND finding IN (SELECT number FROM findings WHERE ended_at IS NULL AND rule = ?2 "
            "AND tool = ?3 AND (?4 IS NULL OR number IN (SELECT value FROM json_each(?4))))",
            (IN_STORM, *page.grouped, only),
        )

    def over(self, now: float) -> list[FindingEvent]:
        """Return the ends of the pages that no open finding needs any more. Their findings are counted from 0 again."""
        rows = self._database.execute(
            "SELECT pages.number FROM storms JOIN findings pages ON pages.number = storms.page "
            "WHERE pages.ended_at IS NULL AND NOT EXISTS (SELECT 1 FROM findings one WHERE one.ended_at IS NULL "
            "AND one.rule = storms.rule AND (one.tool = storms.tool OR storms.tool = ?))",
            (OTHER_TOOLS,),
        ).fetchall()
        opened = [self._finding(number) for (number,) in rows]
        self._database.execute(
            "DELETE FROM storms WHERE page IN (SELECT value FROM json_each(?))", (json.dumps([row[0] for row in rows]),)
        )
        at = int(now * 1_000_000)
        return [
            replace(one, change="resolved", at=at, appended=at, event_id=f"{one.event_id}:resolved") for one in opened
        ]

    def _severity(self, rule: str, tool: str, numbers: Sequence[int], page: int | None) -> str:
        """Return the highest severity of the findings that a page stands for: it must reach all their channels."""
        only = json.dumps([*numbers, page]) if page is not None else None
        found = self._database.execute(
            "SELECT DISTINCT json_extract(opened, '$.severity') FROM findings WHERE ended_at IS NULL AND "
            "(number = ?4 OR rule = ?1 AND tool = ?2) AND (?3 IS NULL OR number IN (SELECT value FROM json_each(?3)))",
            (rule, tool, only, page),
        )
        return max((str(severity) for (severity,) in found), key=severity_rank)

    def _finding(self, number: int) -> FindingEvent:
        (text,) = self._database.execute("SELECT opened FROM findings WHERE number = ?", (number,)).fetchone()
        return from_text(text)

    def _counted_as(self, rule: str, tool: str, hour: int) -> str:
        known = {
            row[0]
            for row in self._database.execute("SELECT tool FROM storms WHERE rule = ? AND hour = ?", (rule, hour))
        }
        return tool if tool in known or len(known) < MOST_TOOLS else OTHER_TOOLS

    def _page(self, first: int, tool: str, hour: int, now: float) -> FindingEvent:
        """Return the page that stands for the finding in a row and others, without their number."""
        one = self._finding(first)
        about = FINDING_RULES[one.rule].about if one.rule in FINDING_RULES else ""
        facts = {"deployment": one.facts.get("deployment", ""), "tools": tool, "hour": str(hour)}
        if about and tool != OTHER_TOOLS:
            issuer = "session_source" if about == "session" else "grant_source"
            facts |= {f"{issuer}_system": one.issuer[0], f"{issuer}_instance": one.issuer[1]}
        return FindingEvent(
            event_id=f"storm:{one.rule}:{tool}:{first}",  # a later storm of the hour is another page
            change="opened",
            rule=one.rule,
            key="*" if tool != OTHER_TOOLS else "*/*",
            deadline=rfc3339(hour * HOUR * 1_000_000),
            severity=one.severity,
            at=int(now * 1_000_000),
            appended=int(now * 1_000_000),
            facts=facts,
        )


def tool_of(finding: FindingEvent) -> str:
    """Return the tool by which findings are counted; empty for rules that are not about access."""
    return "/".join(finding.issuer).strip("/")
