"""Real records of real tools through a running pipeline: stored, queryable and verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

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


def imported(pipeline: Pipeline, tool: str, file: Path) -> int:
    """Import a file and return how many events were acknowledged."""
    answer = pipeline.run("import", tool, str(file), "-o", "json")
    assert answer.returncode == 0, answer.stderr
    report = json.loads(answer.stdout)
    return int(report["acknowledged"])


def test_real_records_are_stored_and_verified(pipeline: Pipeline, samples: Path) -> None:
    teleport = imported(pipeline, "teleport", samples / "teleport" / "audit_fixtures.jsonl")
    vault = imported(pipeline, "vault", samples / "vault" / "audit.log")
    hoop = imported(pipeline, "hoop", samples / "hoop" / "events.jsonl")
    cloudtrail = imported(pipeline, "cloudtrail", samples / "aws_cloudtrail" / "cloudtrail.jsonl")
    assert teleport >= 100 and vault >= 500
    mcp = imported(pipeline, "mcp", SUPPORT / "mcp_messages.jsonl")
    assert (hoop, cloudtrail, mcp) == (5, 763, 10)
    sent = teleport + vault + hoop + cloudtrail + mcp
    pipeline.wait_stored(sent)
    counts = {row["source_system"]: int(row["c"]) for row in pipeline.query(
        "SELECT source_system, count() AS c FROM events GROUP BY source_system"
    )}  # fmt: skip
    assert counts["teleport"] == teleport and counts["vault"] == vault
    assert (counts["hoop"], counts["cloudtrail"], counts["mcp"]) == (hoop, cloudtrail, mcp)
    assert pipeline.query("SELECT count() AS c FROM rejected_events")[0]["c"] in (0, "0")
    wait_until_stored(pipeline)
    for source in ("clickhouse", "kafka"):
        _, report = pipeline.verify("--from", source)
        assert report["sound"], report["problems"]
        own = 1 + len(OWN_SOURCES)  # the registered schema, and the pipeline's own sources
        assert report["entries"] == sent + own
