"""Grafana's dashboards: the SQL of each panel runs as an analyst, over a small ledger, and has what the panel shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from grantledger.runtime.settings import Settings
from grantledger.runtime.store_access import open_store
from grantledger.schemas.event import LIFECYCLE_TOPIC, Approval, Report
from support.access_store import Record, Story, fill, opened_elsewhere

FOLDER = Path(__file__).resolve().parents[2] / "monitoring" / "grafana"
BOARDS = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}
DAY = 86_400
TIMESERIES, TABLE = 0, 1
"""``format`` of a query."""
NULLS = {"p50", "p95", "p99", "delay_p50", "delay_p99"}


class Panel(NamedTuple):
    """A query of a panel on ClickHouse's data source. ``tool``: the choice of the variable, or None for all."""

    board: str
    title: str
    sql: str
    shape: int
    columns: tuple[str, ...]
    """Columns that the panel's overrides name."""
    tool: str | None = None

    @property
    def query(self) -> str:
        """The SQL as the data source's plug-in sends it."""
        return expanded(self.sql, self.tool)


def expanded(sql: str, tool: str | None = None, *, now: datetime | None = None) -> str:
    """Replace the plug-in's macros and the variable, as the plug-in and Grafana do."""
    end = int((now or datetime.now(UTC)).timestamp()) + 60

    def between(found: re.Match[str]) -> str:
        return f"{found[1]} >= toDateTime({end - DAY}) AND {found[1]} <= toDateTime({end})"

    sql = re.sub(r"\$__timeFilter\((\w+)\)", between, sql)
    sql = re.sub(r"\$__timeInterval\((\w+)\)", r"toStartOfInterval(toDateTime(\1), INTERVAL 60 second)", sql)
    chosen = "1=1" if tool is None else r"\1"
    sql = re.sub(r"\$__conditionalAll\((.*?\)), \$tool\)", chosen, sql)
    sql = sql.replace("${tool:singlequote}", f"'{tool}'")
    assert "$" not in sql, sql
    return sql


def panels() -> Iterator[Panel]:
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            named = tuple(one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"])
            for target in panel["targets"]:
                if "rawSql" in target:
                    found = Panel(name, panel["title"], target["rawSql"], target["format"], named)
                    yield found
                    if "$tool" in found.sql and panel["type"] != "stat":
                        yield found._replace(tool="bot")


PANELS = list(panels())


def told() -> Story:
    """What gives every panel at least one row."""
    story = Story()
    approvals = (Approval("carol", "approved", at=story.at(-121)),)
    story.give("late", -120, -60, approvals=approvals, reason="INC-1")
    story.find("overdue", "late", -59, deadline=-60, grant_id="late", severity="critical")
    story.give("open", -100, 60, reason="INC-2")
    story.give("forced", -90, 60, approvals=(Approval("carol", "approved", at=story.at(-91), forced=True),))
    story.give("gone", -80, -70)
    story.remove("gone", -75)
    story.act("s-1", -60, "psql")
    story.find("source_silent", "vault/eu-1", -30)
    report = Report("failed", 1, "unreadable")
    story.add(story.event("source.report", -20, "r-1", report=report, raw=b'{"a": 1}'), -20)
    story.records.append(Record(LIFECYCLE_TOPIC, b"k", b"no event", int(story.at(-10).timestamp() * 1000)))
    return story


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[Panel, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("dashboards")
    fill(folder, told().records)
    with opened_elsewhere(folder), open_store(Settings(data_dir=folder), role="analyst") as client:
        return {
            panel: [*map(json.loads, client.raw_query(panel.query, fmt="JSONEachRow").splitlines())] for panel in PANELS
        }


def test_every_subject_has_a_dashboard() -> None:
    assert set(BOARDS) == {"overdue", "grants", "sources", "pipeline"}
    assert {panel.board for panel in PANELS} == set(BOARDS)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel.board}: {panel.title}, {panel.tool or 'all'}")
def test_the_panel_has_the_columns_that_it_shows(panel: Panel, answers: dict[Panel, list[dict[str, Any]]]) -> None:
    found = answers[panel]
    assert found, "a panel without rows proves nothing"
    for row in found:
        assert set(panel.columns) <= set(row)
    if panel.shape == TIMESERIES:
        # The plug-in draws one line per value of the second column.
        assert next(iter(found[0])) == "time" and len(found[0]) == 3
        assert all(one["time"] <= two["time"] for one, two in pairwise(found))


def test_the_overdue_grant_is_on_the_first_page(answers: dict[Panel, list[dict[str, Any]]]) -> None:
    told = {panel.title: found for panel, found in answers.items() if panel.board == "overdue"}
    assert told["Overdue grants"] == [{"overdue": 1}]
    [row] = told["Access past its end"]
    assert row["command"] == "grantledger grants show late --source bot/eu-1"
    assert (row["approved_by"], row["reason"]) == ("carol", "INC-1") and int(row["late"]) >= 3600
    assert {one["rule"] for one in told["Open findings"]} == {"overdue", "source_silent"}


def test_the_choice_of_a_tool_is_obeyed() -> None:
    [panel] = [one for one in PANELS if one.title == "Who has access now" and one.tool]
    assert "source_system IN ('bot')" in panel.query
