"""What collectors wrap around a record, made as they make it: bytes of a record in, bytes of a file out."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from collections.abc import Callable
from typing import Any

Wrap = Callable[[bytes], bytes]
TIME = "2026-11-28T05:00:00.123Z"


def _json(**members: Any) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode()


def _raw(**members: Any) -> bytes:
    """Return an object in which each value that is bytes is put in as it is."""
    parts = (json.dumps(name).encode() + b":" + (value if isinstance(value, bytes) else json.dumps(value).encode())
             for name, value in members.items())  # fmt: skip
    return b"{" + b",".join(parts) + b"}"


def _text(record: bytes) -> str:
    return record.decode()


def _subscription(record: bytes) -> bytes:
    return _json(
        messageType="DATA_MESSAGE", owner="111122223333", logGroup="g", logStream="s", subscriptionFilters=["f"],
        logEvents=[{"id": "1", "timestamp": 1764306000123, "message": _text(record)}],
    )  # fmt: skip


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _cri(record: bytes) -> bytes:
    parts = [record[at : at + 40] for at in range(0, len(record), 40)]
    lines = [f"{TIME} stdout P ".encode() + part for part in parts[:-1]]
    return b"\n".join([*lines, f"{TIME} stdout F ".encode() + parts[-1]])


def _docker_split(record: bytes) -> bytes:
    text = _text(record) + "\n"
    return b"\n".join(_json(log=text[at : at + 40], stream="stdout", time=TIME) for at in range(0, len(text), 40))


def _journal_export(record: bytes) -> bytes:
    return b"__CURSOR=s=1\n_PID=1\nMESSAGE\n" + struct.pack("<Q", len(record)) + record + b"\n\n"


STRINGS: dict[str, Wrap] = {
    "event.original": lambda one: _json(**{"@timestamp": TIME, "event": {"original": _text(one), "kind": "event"}}),
    "event.original and message": lambda one: _json(
        **{"@timestamp": TIME, "message": _text(one), "event": {"original": _text(one)}}
    ),
    "message": lambda one: _json(**{"@timestamp": TIME, "message": _text(one), "agent": {"type": "filebeat"}}),
    "message alone": lambda one: _json(message=_text(one)),
    "vector": lambda one: _json(message=_text(one), source_type="file", timestamp=TIME, host="h", file="/a"),
    "fluent bit log": lambda one: _json(date=1764306000.1, log=_text(one)),
    "fluent bit message": lambda one: _json(date=1764306000.1, message=_text(one), tag="t"),
    "fluent bit kubernetes": lambda one: _json(
        date=1.5, time=TIME, stream="stdout", _p="F", log=_text(one), kubernetes={"pod_id": "p"}
    ),
    "docker": lambda one: _json(log=_text(one) + "\n", stream="stdout", time=TIME),
    "docker without line end": lambda one: _json(log=_text(one), stream="stdout", time=TIME),
    "docker in parts": _docker_split,
    "cri": lambda one: f"{TIME} stderr F ".encode() + one,
    "cri in parts": _cri,
    "journald": lambda one: _json(__REALTIME_TIMESTAMP="1", _SYSTEMD_UNIT="vault.service", MESSAGE=_text(one)),
    "journald bytes": lambda one: _json(__REALTIME_TIMESTAMP="1", MESSAGE=list(one)),
    "journald export": _journal_export,
    "syslog 3164": lambda one: b"Nov 28 05:00:00 vault1 vault[1234]: " + one,
    "syslog 3164 with priority": lambda one: b"<134>Nov  8 05:00:00 vault1 vault: " + one,
    "syslog with a time of RFC 3339": lambda one: b"2026-11-28T05:00:00.123456+00:00 vault1 vault[1]: " + one,
    "syslog 5424": lambda one: b"<134>1 2026-11-28T05:00:00.1Z vault1 vault 12 - - " + one,
    "syslog 5424 with data": lambda one: (
        b'<134>1 2026-11-28T05:00:00.1Z vault1 vault 12 ID47 [a@1 b="c \\"]\\" d"][e@2] \xef\xbb\xbf' + one
    ),
    "cee": lambda one: b"@cee: " + one,
    "cee in syslog": lambda one: b"Nov 28 05:00:00 vault1 vault[1234]: @cee:" + one,
    "fluentd": lambda one: b"2026-11-28T05:00:00+00:00\ttest.log\t" + one,
    "fluentd standard output": lambda one: b"2026-11-28 05:00:00.000000000 +0000 test.log: " + one,
    "cloudwatch export": lambda one: b"2026-11-28T05:00:00.000Z " + one,
    "aws logs tail": lambda one: b"2026-11-28T05:00:00.000000+00:00 vault/vault-0/abc " + one,
    "aws logs tail of eks": lambda one: b"2026-11-28T05:00:00.000000+00:00 kube-apiserver-audit-0af1 " + one,
    "aws logs tail, short": lambda one: b"2026-11-28T05:00:00 " + one,
    "kubectl --prefix": lambda one: b"[pod/vault-0/vault] " + one,
    "docker compose": lambda one: b"vault-1  | " + one,
    "cloudwatch subscription": _subscription,
    "kinesis": lambda one: _json(
        Records=[{"kinesis": {"data": _base64(gzip.compress(_subscription(one)))}, "eventSource": "aws:kinesis"}]
    ),
    "firehose": lambda one: _json(
        requestId="r", timestamp=1, records=[{"data": _base64(gzip.compress(_subscription(one)))}]
    ),
    "lambda": lambda one: _json(awslogs={"data": _base64(gzip.compress(_subscription(one)))}),
    "kinesis, plain": lambda one: _json(
        Records=[{"Data": _base64(one), "PartitionKey": "k", "SequenceNumber": "1"}]
    ),
    "filter-log-events": lambda one: _json(
        events=[{"logStreamName": "s", "timestamp": 1, "message": _text(one), "eventId": "e"}], searchedLogStreams=[]
    ),
    "lookup-events": lambda one: _json(Events=[{"EventId": "e", "EventName": "n", "CloudTrailEvent": _text(one)}]),
    "eventbridge in sns in sqs": lambda one: _json(
        Messages=[{"MessageId": "m", "ReceiptHandle": "h", "Body": _json(
            Type="Notification", TopicArn="arn", Message=_raw(**{"detail-type": "t", "detail": one}).decode()
        ).decode()}]
    ),
    "splunk": lambda one: _json(preview=False, result={"_raw": _text(one), "_time": "t"}),
    "gelf": lambda one: _json(version="1.1", host="h", short_message="x", full_message=_text(one)),
    "google cloud text": lambda one: _json(logName="l", insertId="i", textPayload=_text(one)),
    "otlp": lambda one: _json(
        resourceLogs=[{"scopeLogs": [{"logRecords": [{"timeUnixNano": "1", "body": {"stringValue": _text(one)}}]}]}]
    ),
    "heroku": lambda one: b"83 <40>1 2026-11-28T05:00:00+00:00 host app web.1 - " + one,
    "journalctl short-full": lambda one: b"Sat 2026-11-28 05:00:00 UTC vault1 vault[1]: " + one,
    "journalctl short-iso": lambda one: b"2026-11-28T05:00:00+0000 vault1 vault[1]: " + one,
    "journalctl short-unix": lambda one: b"1764306000.123456 vault1 vault[1]: " + one,
    "vault prefix": lambda one: b"audit: " + one,
    "fluent bit file": lambda one: b"tag.a: [1764306000.123000, " + _json(log=_text(one)) + b"]",
    "fluent bit 2 file": lambda one: b"tag.a: [[1764306000.123000, {}], " + _json(log=_text(one)) + b"]",
    "fluentd forward": lambda one: b'["tag",1764306000,' + one + b"]",
    "elastic flattened": lambda one: _json(**{"@timestamp": TIME, "event.original": _text(one)}),
    "logs insights": lambda one: _json(**{"@timestamp": TIME, "@message": _text(one)}),
    "aks": lambda one: _json(records=[{"category": "kube-audit", "properties": {"log": _text(one)}}]),
    "loki": lambda one: _json(status="success", data={"result": [{"stream": {}, "values": [["1", _text(one)]]}]}),
    "logcli": lambda one: _json(labels={}, line=_text(one), timestamp=TIME),
    "elasticsearch bulk": lambda one: (
        b'{"index":{"_index":"i"}}\n' + _json(**{"@timestamp": TIME, "message": _text(one)})
    ),
    "cloudtrail lake": lambda one: _json(QueryResultRows=[[{"eventJson": _text(one)}]]),
    "cri with elastic with syslog": lambda one: f"{TIME} stdout F ".encode() + _json(
        **{"@timestamp": TIME, "message": "Nov 28 05:00:00 h p[1]: " + _text(one)}
    ),
}  # fmt: skip
"""The record is the content of a string, or the rest of a line."""
OBJECTS: dict[str, Wrap] = {
    "event handler": lambda one: _raw(event=one),
    "event handler with time": lambda one: _raw(event=one, time=TIME),
    "hcp payload": lambda one: _raw(**{"@metadata": {}, "hvc_organization_id": "x", "payload": one}),
    "hcp resp": lambda one: _raw(resp=one),
    "eventbridge": lambda one: _raw(**{"version": "0", "detail-type": "t", "source": "aws.sts", "detail": one}),
    "elasticsearch": lambda one: _raw(_index="i", _id="1", _source=one),
    "elasticsearch search": lambda one: (
        b'{"took":1,"hits":{"total":1,"hits":[' + _raw(_index="i", _source=one) + b"]}}"
    ),
    "filebeat json": lambda one: _raw(**{"@timestamp": TIME, "json": one}),
    "fluent bit merged": lambda one: _raw(date=1.5, log_processed=one),
    "vector object": lambda one: _raw(message=one, source_type="http_server", timestamp=TIME),
    "google cloud": lambda one: _raw(logName="l", insertId="i", jsonPayload=one),
    "cloudevents": lambda one: _raw(specversion="1.0", id="1", source="s", type="t", data=one),
    "records": lambda one: b'{"Records":[' + one + b"]}",
    "records after others": lambda one: b'{"awsAccountId":"1","x":{"y":[1]},"Records" : [ ' + one + b' ],"z":[]}',
    "event list": lambda one: _raw(kind="EventList", apiVersion="v1", metadata={}, items=b"[" + one + b"]"),
    "list": lambda one: b"[" + one + b"]",
    "list of strings": lambda one: json.dumps([one.decode()]).encode(),
}
"""The record is a JSON value in another one."""
ENCODINGS: dict[str, Wrap] = {
    "byte order mark": lambda one: b"\xef\xbb\xbf" + one,
    "utf-16-le": lambda one: ("\ufeff" + one.decode()).encode("utf-16-le"),
    "utf-16-be": lambda one: ("\ufeff" + one.decode()).encode("utf-16-be"),
    "utf-16-le without mark": lambda one: one.decode().encode("utf-16-le"),
    "utf-16-be without mark": lambda one: one.decode().encode("utf-16-be"),
    "utf-32": lambda one: one.decode().encode("utf-32"),
    "gzip": gzip.compress,
    "gzip in two members": lambda one: gzip.compress(one[:10]) + gzip.compress(one[10:]),
    "gzip twice": lambda one: gzip.compress(gzip.compress(one)),
    "gzip of utf-16": lambda one: gzip.compress(one.decode().encode("utf-16")),
}
WRAPS = {**STRINGS, **OBJECTS}
