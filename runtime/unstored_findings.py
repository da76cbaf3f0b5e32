"""The events about a finding that Kafka has and the store does not contain yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..kafka.cluster import Cluster
from ..kafka.offsets import end_offset, first_offset
from ..kafka.records import read_range
from ..ledger.entry import epoch_of
from ..schemas.catalog import SchemaCatalog
from ..schemas.codec import DecodeError, decode
from ..schemas.event import FINDINGS_TOPIC
from ..schemas.framing import FramingError
from .store_access import Ask

_STORED = "SELECT origin, max(`offset`) AS last FROM entries WHERE startsWith(origin, {log:String}) GROUP BY origin"


def next_stored_offset(ask: Ask, deployment: str) -> int:
    """Return the offset in ``access.findings`` of the first record that the store does not contain."""
    logs = ask(_STORED, log=f"{deployment}/{FINDINGS_TOPIC}/0/")
    return max(((epoch_of(log["origin"]), int(log["last"]) + 1) for log in logs), default=(0, 0))[1]


def read_unstored_events(
    cluster: Cluster, catalog: SchemaCatalog, start: int, finding: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the decoded events about a finding from an offset in ``access.findings`` on, in order.

    Args:
        finding: its row of the view ``findings``.

    Raises:
        KafkaUnavailableError: the brokers do not answer.
    """
    start, end = max(start, first_offset(cluster, FINDINGS_TOPIC, 0)), end_offset(cluster, FINDINGS_TOPIC, 0)
    found = []
    for record in read_range(cluster, FINDINGS_TOPIC, 0, start, end):
        try:
            event = decode(record.value() or b"", catalog, record.timestamp()[1])
        except (DecodeError, FramingError):
            continue
        about = event["finding"]
        if about and all(about[name] == finding[name] for name in ("rule", "key", "deadline")):
            found.append(event)
    return found
