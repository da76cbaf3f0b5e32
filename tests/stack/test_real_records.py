"""Real records of real tools through a running pipeline: stored, queryable and verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grantledger.schemas.own_sources import OWN_SOURCES
from support.oracle import wait_until_stored
from support.pipeline import WITHOUT_STATES, Pipeline
from support.shared_broker import RunningBroker

SUPPORT = Path(__file__).resolve().parents[1] / "support"


@pytest.fixture(scope="module")
def pipeline(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    running = make_pipeline(broker.bootstrap_servers, WITHOUT_STATES)
    running.start()
    return running


def imported(pipeline: Pipeline, tool: str, file: Path) -> dict[str, Any]:
    """Import a file and return the summary."""
    answer = pipeline.run("import", tool, str(file), "-o", "json")
    assert answer.returncode == 0, answer.stderr
    summary: dict[str, Any] = json.loads(answer.stdout)
    return summary


def test_real_records_are_stored_and_verified(pipeline: Pipeline, samples: Path) -> None:
    files = {
        "teleport": samples / "teleport" / "audit_fixtures.jsonl",
        "vault": samples / "vault" / "audit.log",
        "hoop": samples / "hoop" / "events.jsonl",
        "cloudtrail": samples / "aws_cloudtrail" / "cloudtrail.jsonl",
        "mcp": SUPPORT / "mcp_messages.jsonl",
    }
    summaries = {tool: imported(pipeline, tool, file) for tool, file in files.items()}
    sent = {tool: int(summary["acknowledged"]) for tool, summary in summaries.items()}
    assert sent["teleport"] >= 100 and sent["vault"] >= 500
    assert (sent["hoop"], sent["cloudtrail"], sent["mcp"]) == (5, 763, 10)
    pipeline.wait_stored(sum(sent.values()))
    wait_until_stored(pipeline)
    counts = {row["source_system"]: int(row["c"]) for row in pipeline.query(
        "SELECT source_system, count() AS c FROM events GROUP BY source_system"
    )}  # fmt: skip
    assert {tool: counts[tool] for tool in sent} == sent
    health = {row["system"]: row for row in pipeline.query(
        "SELECT source_system AS system, sum(events) AS events, sum(mapped) AS mapped, sum(failed) AS failed, "
        "sumMap(skipped_by_reason) AS skipped FROM source_health GROUP BY source_system"
    )}  # fmt: skip
    for tool, summary in summaries.items():
        row, found = health[tool], {name: summary[name] for name in ("mapped", "failed", "skipped")}
        assert {name: row[name] if name == "skipped" else int(row[name]) for name in found} == found
        assert int(row["events"]) == sent[tool]
    reports = int(pipeline.query("SELECT count() AS c FROM entries WHERE event_type = 'source.report'")[0]["c"])
    assert pipeline.query("SELECT count() AS c FROM rejected_events")[0]["c"] in (0, "0")
    wait_until_stored(pipeline)
    for source in ("clickhouse", "kafka"):
        _, report = pipeline.verify("--from", source)
        assert report["sound"], report["problems"]
        own = 1 + len(OWN_SOURCES)  # the registered schema, and the pipeline's own sources
        assert report["entries"] == sum(sent.values()) + reports + own
