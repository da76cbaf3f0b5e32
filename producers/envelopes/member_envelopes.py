"""The JSON objects that collectors wrap around a record: where the record is, and how such an object is recognized."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class MemberEnvelope:
    """One kind of envelope.

    Attributes:
        kind: its name, for people.
        path: the members that lead to the record: a string, an object, or a list of them.
        beside: members of the envelope. If one of them is present, the object certainly is this envelope. Otherwise it
            is opened only if it contains a record of a known tool.
        certain: the path is proof enough.
        base64: the string is Base64, perhaps of gzip.
        several: the value is a list of records.
    """

    kind: str
    path: tuple[str, ...]
    beside: frozenset[str] = frozenset()
    certain: bool = False
    base64: bool = False
    several: bool = False

    def value(self, members: Mapping[str, Any]) -> Any:
        """Return the wrapped value; None if this object is not such an envelope."""
        value: Any = members
        for name in self.path:
            value = value.get(name) if isinstance(value, dict) else None
        if self.several:
            return value if isinstance(value, list) else None
        if isinstance(value, list):  # journald's form of a text that is not UTF-8
            return value if value and all(type(one) is int and 0 <= one <= 255 for one in value) else None
        if isinstance(value, dict):
            return None if self.base64 else value
        return value if isinstance(value, str) and value else None

    def is_certain(self, members: Mapping[str, Any]) -> bool:
        """Return whether the object is this envelope, whatever it contains."""
        return self.certain or not self.beside.isdisjoint(members)


def _one(kind: str, path: str, beside: str = "", **more: bool) -> MemberEnvelope:
    return MemberEnvelope(kind, tuple(path.split("/")), frozenset(beside.split()), **more)


def _list(kind: str, path: str, beside: str = "", **more: bool) -> MemberEnvelope:
    return MemberEnvelope(kind, tuple(path.split("/")), frozenset(beside.split()), several=True, **more)


_SHIPPED = "@timestamp @version agent beat fluent_tag fluentd_tag kubernetes container_id container_name source_type"
LISTS = (
    _list("CloudWatch Logs subscription", "logEvents", certain=True),
    _list("list of records", "Records", certain=True),
    _list("CloudTrail lookup-events", "Events"),
    _list("CloudWatch Logs events", "events"),
    _list("list of records", "records"),
    _list("Kubernetes EventList", "items"),
    _list("list of records", "value"),
    _list("list of records", "entries"),
    _list("list of records", "data"),
    _list("SQS", "Messages"),
    _list("Elasticsearch search", "hits/hits"),
    _list("Loki", "data/result"),
    _list("Loki", "streams"),
    _list("Loki", "values"),
    _list("Okta event hook", "data/events"),
    _list("CloudTrail Lake", "QueryResultRows"),
    _list("OTLP", "resourceLogs", certain=True),
    _list("OTLP", "scopeLogs", certain=True),
    _list("OTLP", "logRecords", certain=True),
)
ENVELOPES = (
    _one("Elastic event.original", "event/original", certain=True),
    _one("Elastic event.original", "event.original", certain=True),
    _one("Elastic log.original", "log/original", certain=True),
    _one("CloudTrail lookup-events", "CloudTrailEvent", certain=True),
    _one("EventBridge", "detail", "detail-type"),
    _one("CloudWatch Logs for Lambda", "awslogs/data", certain=True, base64=True),
    _one("Kinesis", "kinesis/data", certain=True, base64=True),
    _one("Firehose", "data", "recordId approximateArrivalTimestamp", base64=True),
    _one("Kinesis", "Data", "PartitionKey SequenceNumber", base64=True),
    _one("Firehose", "data", base64=True),
    _one("CloudEvents", "data", "specversion"),
    _one("CloudEvents", "data_base64", "specversion", base64=True),
    _one("CloudTrail Lake", "eventJson"),
    _one("CloudWatch Logs Insights", "@message", "@timestamp @ptr"),
    _one("AKS", "properties/log", certain=True),
    _one("SNS", "Sns/Message", certain=True),
    _one("SNS", "Message", "TopicArn"),
    _one("SQS", "body", "receiptHandle"),
    _one("SQS", "Body", "ReceiptHandle"),
    _one("OTLP", "body/stringValue", certain=True),
    _one("journald", "MESSAGE", "__REALTIME_TIMESTAMP __CURSOR _SYSTEMD_UNIT SYSLOG_IDENTIFIER _PID _TRANSPORT"),
    _one("Docker or Fluent Bit", "log", f"stream date logtag _p {_SHIPPED}"),
    _one("collector message", "message", f"date {_SHIPPED} ingestionTime logStreamName eventId tag tags"),
    _one("Elasticsearch document", "_source", "_index"),
    _one("Splunk", "result/_raw", certain=True),
    _one("Splunk", "_raw", "_time _indextime sourcetype"),
    _one("GELF", "full_message", "short_message"),
    _one("GELF", "short_message", "version"),
    _one("Google Cloud Logging", "jsonPayload", "logName insertId"),
    _one("Google Cloud Logging", "textPayload", "logName insertId"),
    _one("Azure container log", "LogMessage", "ContainerId PodName"),
    _one("Azure container log", "LogEntry", "ContainerID LogEntrySource"),
    *(
        _one("payload", "payload", "hvc_organization_id") if name == "payload" else _one(f"member {name!r}", name)
        for name in (
            "payload", "resp", "event", "detail", "data", "record", "json", "parsed", "log_processed", "audit",
            "msg", "line", "text", "body", "content", "original", "event_data", "attributes",
        )
    ),
)  # fmt: skip
"""In the order of preference: an object may be several of them."""


_BY_MEMBER: dict[str, list[tuple[int, MemberEnvelope]]] = {}
for _number, _envelope in enumerate((*LISTS, *ENVELOPES)):
    _BY_MEMBER.setdefault(_envelope.path[0], []).append((_number, _envelope))


def envelopes_of(members: Mapping[str, Any]) -> Iterator[tuple[MemberEnvelope, Any]]:
    """Yield each envelope that an object may be, the certain ones first, with the wrapped value."""
    possible = [
        (not envelope.is_certain(members), number, envelope, value)
        for name in members.keys() & _BY_MEMBER.keys()
        for number, envelope in _BY_MEMBER[name]
        if (value := envelope.value(members)) is not None
    ]
    for _, _, envelope, value in sorted(possible, key=lambda found: found[:2]):
        yield envelope, value


def list_named(name: str) -> MemberEnvelope | None:
    """Return the list envelope whose records are in a member of this name."""
    return next((one for one in LISTS if one.path == (name,)), None)
