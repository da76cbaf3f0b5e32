"""The dashboards as Grafana reads them. tests/stack/test_dashboards.py runs their SQL."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.alertmanager import programs_or_skip

from .test_alert_rules import exported_metrics, metrics_in, promtool

FOLDER = Path(__file__).resolve().parents[2] / "monitoring" / "grafana"
BOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))
}
SOURCES = yaml.safe_load((FOLDER / "provisioning/datasources/grantledger.yml").read_text("utf-8"))["datasources"]
TYPES = {one["uid"]: one["type"] for one in SOURCES}
EXPRESSIONS = sorted(
    {one["expr"] for board in BOARDS.values() for panel in board["panels"] for one in panel["targets"] if "expr" in one}
)


def test_each_has_an_id_of_its_own() -> None:
    assert sorted(board["uid"] for board in BOARDS.values()) == [f"grantledger-{name}" for name in sorted(BOARDS)]
    assert len({board["title"] for board in BOARDS.values()}) == len(BOARDS)
    # Grafana upgrades an older schema at each start. It must not have an id: that is the database's.
    assert {(board["schemaVersion"], board.get("id")) for board in BOARDS.values()} == {(39, None)}


@pytest.mark.parametrize("name", BOARDS)
def test_the_panels_are_whole(name: str) -> None:
    panels = BOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["type"] in ("stat", "table", "timeseries") and panel["title"] and panel["description"]
        references = [target["refId"] for target in panel["targets"]]
        assert references and len(set(references)) == len(references)
        for asked in (panel, *panel["targets"]):
            assert TYPES[asked["datasource"]["uid"]] == asked["datasource"]["type"]
        for target in panel["targets"]:
            assert ("expr" in target) == (target["datasource"]["type"] == "prometheus")
    for variable in BOARDS[name]["templating"]["list"]:
        assert f"${variable['name']}" in json.dumps(panels) and variable["query"] == variable["definition"]


@pytest.mark.parametrize("name", BOARDS)
def test_no_panel_covers_another(name: str) -> None:
    places = [panel["gridPos"] for panel in BOARDS[name]["panels"]]
    assert all(one["x"] >= 0 and one["x"] + one["w"] <= 24 for one in places)
    for one, two in combinations(places, 2):
        beside = one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
        below = one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"]
        assert beside or below, (one, two)


def test_each_metric_on_a_dashboard_is_exported() -> None:
    used = metrics_in("\n".join(EXPRESSIONS))
    assert used and used - exported_metrics() == set()


def test_prometheus_understands_every_expression(tmp_path: Path) -> None:
    programs_or_skip()
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(EXPRESSIONS)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
