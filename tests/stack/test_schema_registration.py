"""The registration of the event schema at the first start of a sealer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from grantledger.processors.notices import ANCHORING, finding_opened
from support.pipeline import WITHOUT_STATES, Pipeline
from support.shared_broker import RunningBroker


def test_events_before_the_first_seal_are_decoded_even_after_a_finding(
    broker: RunningBroker, make_pipeline: Callable[..., Pipeline]
) -> None:
    pipeline = make_pipeline(broker.bootstrap_servers, WITHOUT_STATES)
    finding = finding_opened(
        pipeline.deployment,
        ANCHORING,
        rule="anchoring_stopped",
        key="log",
        evidence={},
        at=datetime.now(UTC),
        identity="1",
    )
    pipeline.publish(finding)
    sent = pipeline.run(
        "emit", "grant.activated", "--subject", "alice", "--resource-kind", "database", "--resource", "orders",
        "--entitlement", "rw", "--expires-in", "1h",
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    pipeline.start()
    pipeline.wait_stored(1)
    shown = "SELECT event_type FROM events WHERE event_type != 'source.registered' ORDER BY append_time, event_type"
    rows = pipeline.query(shown)
    assert [row["event_type"] for row in rows][:2] == ["finding.opened", "grant.activated"]
    assert pipeline.query("SELECT * FROM rejected_events") == []
