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
from ..schemas.finding_event import key_issuer
from ..schemas.framing import FramingError
from ..sinks.clickhouse import Ask
from ..sinks.states import PROCESSED

_IDENTITY = ("rule", "key", "deadline", "tenant", "issuer_system", "issuer_instance")
_STORED = f"""
SELECT origin, max(`offset`) AS last FROM entries
WHERE startsWith(origin, {{log:String}}) AND `index` < {PROCESSED}[origin] GROUP BY origin
"""  # noqa: S608 - our own text


def next_stored_offset(ask: Ask, deployment: str) -> int:
    """Return the offset in ``access.findings`` of the first record that the view ``findings`` does not contain."""
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
        if _identity_in(event) == tuple(finding[name] for name in _IDENTITY):
            found.append(event)
    return found


def _identity_in(event: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Return what identifies the finding that an event is about, None without one."""
    if (about := event["finding"]) is None:
        return None
    named = (
        event[name] or {"system": "", "instance": ""} for name in ("grant_source", "request_source", "session_source")
    )
    issuer = key_issuer(about["rule"], *((one["system"], one["instance"]) for one in named))
    return about["rule"], about["key"], about["deadline"], event["tenant"], *issuer
