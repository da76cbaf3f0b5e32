"""Findings about sealed topics. All readers make the same event about a record, so there is one finding."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from ..ledger.source_signature import SourceSigner
from ..schemas.event import Event, EventSource, Subject
from ..schemas.finding_event import finding_event
from ..schemas.own_sources import READER
from .cluster import Cluster
from .errors import KafkaUnavailableError
from .publisher import Publisher
from .sealed_log import SealedLogProblem

log = structlog.get_logger("grantledger.kafka")

SYSTEM = READER
"""``source.system`` of the findings of every reader."""


def finding_about(deployment: str, problem: SealedLogProblem) -> Event:
    """Return the finding about a record. It contains nothing that differs from reader to reader."""
    place = f"{problem.topic}/{problem.partition}"
    key = f"{place}@{problem.offset}"
    return finding_event(
        "finding.opened",
        EventSource(SYSTEM, deployment, f"{problem.rule}:{key}", "finding"),
        (problem.rule, key),
        datetime.fromtimestamp(max(problem.append_time_ms, 0) / 1000, UTC),
        subject=Subject(place, "system"),
        evidence={"topic": problem.topic, "partition": problem.partition, "offset": problem.offset},
    )


class ProblemPublisher:
    """Publishes problems as findings, each once per process. If the brokers refuse, it logs: reading continues."""

    def __init__(self, cluster: Cluster, deployment: str, signer: SourceSigner | None = None) -> None:
        self._cluster, self._deployment, self._signer = cluster, deployment, signer
        self._published: set[str] = set()

    def __call__(self, problem: SealedLogProblem) -> None:
        """Publish the finding about a problem."""
        event = finding_about(self._deployment, problem)
        if event.source.native_id in self._published:
            return
        self._published.add(event.source.native_id)
        place = {"topic": problem.topic, "partition": problem.partition, "offset": problem.offset}
        log.error(problem.rule, **place, reason=problem.reason)
        try:
            Publisher(self._cluster, self._signer).publish_events([event])
        except KafkaUnavailableError as error:
            log.error("finding_not_published", rule=problem.rule, offset=problem.offset, reason=str(error))
