"""The gateway: the records of tools, with the event ids of ``import``, in every body that tools and collectors send."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from grantledger.producers.gateway import tool_records
from support.gateway import TOKENS, GatewayInProcess, imported_ids
from support.wrapping import OBJECTS, STRINGS

SAMPLES = {
    "vault": "vault/audit.log",
    "teleport": "teleport/audit_fixtures.jsonl",
    "hoop": "hoop/events.jsonl",
    "cloudtrail": "aws_cloudtrail/cloudtrail.jsonl",
    "kubernetes": "kubernetes/audit.jsonl",
    "okta": "okta/system_log.jsonl",
}
PROTOBUF = {"content-type": "application/x-protobuf"}


def session(number: int) -> bytes:
    record = {"event": "session.start", "code": "T2000I", "uid": f"u{number}", "sid": f"s{number}", "user": "alice"}
    return json.dumps({**record, "time": "2024-05-01T10:00:00Z"}).encode()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInProcess]:
    with GatewayInProcess(tmp_path_factory.mktemp("gateway"), most_body=8 << 20, most_decoded=16 << 20) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_sent(gateway: GatewayInProcess) -> None:
    gateway.kafka.records.clear()


def sent_ids(gateway: GatewayInProcess) -> list[str]:
    return [event["event_id"] for event in gateway.kafka.events]


@pytest.mark.parametrize("tool", SAMPLES)
def test_real_records_have_the_ids_of_import(gateway: GatewayInProcess, samples: Path, tool: str) -> None:
    content = (samples / SAMPLES[tool]).read_bytes()
    response = gateway.post(f"/ingest/{tool}", gzip.compress(content), source=tool)
    assert response.status_code == 200, response.text[:500]
    answer = response.json()
    assert sent_ids(gateway) == imported_ids(tool, content)
    assert answer["events"] == len(gateway.kafka.records) > 0
    lines = sum(1 for line in content.splitlines() if line.strip())
    assert answer["records"] == lines and answer["refused_count"] == len(answer["refused"])


def test_every_envelope_of_import_is_opened(gateway: GatewayInProcess) -> None:
    expected = imported_ids("teleport", session(1))
    for name, wrap in {**STRINGS, **OBJECTS}.items():
        gateway.kafka.records.clear()
        assert gateway.post("/ingest/teleport", wrap(session(1)), source="teleport").status_code == 200, name
        assert sent_ids(gateway) == expected, name


BODIES = {
    "fluent bit, json": json.dumps([{"date": 1.5, "log": session(n).decode()} for n in range(3)]).encode(),
    "fluent bit, json_lines": b"\n".join(
        json.dumps({"date": 1.5, **json.loads(session(n))}).encode() for n in range(3)
    ),
    "fluent bit, json_stream": b"".join(
        json.dumps({"date": 1.5, "log": session(n).decode()}).encode() for n in range(3)
    ),
    "vector, json": json.dumps(
        [{"message": session(n).decode(), "source_type": "file", "timestamp": "2026-11-28T05:00:00Z"} for n in range(3)]
    ).encode(),
    "vector, newline_delimited and gzip": gzip.compress(
        b"".join(json.dumps({"message": session(n).decode(), "source_type": "file"}).encode() + b"\n" for n in range(3))
    ),
    "vector, text": b"".join(session(n) + b"\n" for n in range(3)),
    "fluentd": b"".join(
        json.dumps({"message": session(n).decode(), "fluentd_tag": "t"}).encode() + b"\n" for n in range(3)
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_of_collectors(gateway: GatewayInProcess, name: str) -> None:
    headers = {"content-encoding": "gzip"} if BODIES[name].startswith(b"\x1f\x8b") else {}
    response = gateway.post("/ingest/teleport", BODIES[name], source="teleport", headers=headers)
    assert response.status_code == 200, response.text
    assert sent_ids(gateway) == imported_ids("teleport", b"\n".join(map(session, range(3))))
    assert response.json() == {
        "records": 3, "events": 3, "stored": "kafka", "skipped": {}, "refused_count": 0, "kept": 0, "refused": [],
    }  # fmt: skip


def test_the_probe_of_the_http_audit_device_is_answered(gateway: GatewayInProcess) -> None:
    """OpenBao sends it when the device is enabled and at each unseal: any other answer than 2xx is an error there."""
    probe = {
        "time": "2026-11-28T05:00:00Z", "type": "request", "auth": {"token_type": "default"},
        "request": {"id": "8ab", "operation": "update", "namespace": {"id": "root"}, "path": "sys/audit/test"},
    }  # fmt: skip
    response = gateway.post("/ingest/vault", json.dumps(probe).encode() + b"\n", source="vault")
    assert (response.status_code, response.json()["skipped"]) == (200, {"request_half": 1})


def test_the_verification_of_an_okta_event_hook_is_answered(gateway: GatewayInProcess) -> None:
    challenge = {"x-okta-verification-challenge": "a1b2"}
    headers = {**challenge, "authorization": f"Bearer {TOKENS['okta']}"}
    [answered, unknown, other, none] = gateway.request(
        ("GET", "/ingest/okta", {"headers": headers}),
        ("GET", "/ingest/okta", {"headers": challenge}),
        ("GET", "/ingest/vault", {"headers": headers}),
        ("GET", "/ingest/okta", {"headers": {"authorization": headers["authorization"]}}),
    )
    assert (answered.status_code, answered.json()) == (200, {"verification": "a1b2"})
    assert (unknown.status_code, other.status_code, none.status_code) == (401, 403, 400)


def test_the_events_of_an_okta_event_hook_have_the_ids_of_the_log(gateway: GatewayInProcess, samples: Path) -> None:
    lines = (samples / SAMPLES["okta"]).read_bytes().splitlines()
    hook = {"eventType": "com.okta.event_hook", "data": {"events": [json.loads(line) for line in lines]}}
    assert gateway.post("/ingest/okta", hook, source="okta").status_code == 200
    assert sent_ids(gateway) == imported_ids("okta", b"\n".join(lines))


def test_the_event_list_of_a_kubernetes_webhook(gateway: GatewayInProcess, samples: Path) -> None:
    lines = (samples / SAMPLES["kubernetes"]).read_bytes().splitlines()
    items = [json.loads(line) for line in lines]
    body = {"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": items}
    assert gateway.post("/ingest/kubernetes", body, source="kubernetes").status_code == 200
    assert sent_ids(gateway) == imported_ids("kubernetes", b"\n".join(lines))


def test_the_paths_of_the_teleport_event_handler(gateway: GatewayInProcess) -> None:
    for path in ("/ingest/teleport", "/ingest/teleport/session.0a1b.log"):
        assert gateway.post(path, session(1), source="teleport").status_code == 200


def test_an_event_of_eventbridge_has_the_id_of_the_file_in_s3(gateway: GatewayInProcess, samples: Path) -> None:
    [line, *_] = [
        one for one in (samples / SAMPLES["cloudtrail"]).read_bytes().splitlines() if imported_ids("cloudtrail", one)
    ]
    event = {"version": "0", "detail-type": "AWS API Call via CloudTrail", "source": "aws.sts"}
    response = gateway.post("/ingest/cloudtrail", {**event, "detail": json.loads(line)}, source="cloudtrail")
    assert response.status_code == 200
    assert sent_ids(gateway) == imported_ids("cloudtrail", line)


def test_a_record_as_a_binary_cloudevent(gateway: GatewayInProcess) -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-type": "t",
        "ce-source": "s",
        "content-type": "application/json",
    }
    assert gateway.post("/ingest/teleport", session(1), source="teleport", headers=headers).status_code == 200
    assert sent_ids(gateway) == imported_ids("teleport", session(1))


def test_an_adapter_remembers_earlier_requests(gateway: GatewayInProcess, samples: Path) -> None:
    """The revocation of a Vault token ends the leases that earlier records name."""
    content = (samples / SAMPLES["vault"]).read_bytes()
    half = content.find(b"\n", len(content) // 2) + 1
    for part in (content[:half], content[half:]):
        assert gateway.post("/ingest/vault", part, source="vault").status_code == 200
    assert sent_ids(gateway) == imported_ids("vault", content)


def test_what_is_not_understood_is_named_and_the_rest_is_stored(gateway: GatewayInProcess) -> None:
    vault = b'{"type":"response","request":{"id":"1"}}'
    broken = b'{"event":"session.start","code":"T2000I"}'
    body = b"\n".join([session(1), b"some text", broken, vault, session(2)])
    response = gateway.post("/ingest/teleport", body, source="teleport")
    answer = response.json()
    assert (response.status_code, answer["records"], answer["events"], answer["refused_count"]) == (200, 5, 2, 3)
    text, missing, other = answer["refused"]
    assert (text["index"], text["line"], text["looks_like"]) == (1, 2, "text")
    assert (missing["index"], missing["problem"]) == (2, "time: is missing")
    assert "a record of vault" in other["problem"]


def test_a_request_of_which_nothing_is_understood_is_a_problem(gateway: GatewayInProcess) -> None:
    response = gateway.post("/ingest/teleport", b"some text\nmore text", source="teleport")
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    assert [one["index"] for one in response.json()["errors"]] == [0, 1]


@pytest.mark.parametrize(
    ("path", "source", "status", "detail"),
    [
        ("/ingest/telport", "teleport", 404, "Did you mean 'teleport'?"),
        ("/ingest/vault", "teleport", 403, "POST /ingest/teleport"),
        ("/ingest/vault", "bot", 403, "POST /v1/events"),
        ("/v1/logs", "bot", 403, "POST /v1/events"),
        ("/v1/events", "vault", 403, "POST /ingest/vault"),
    ],
)
def test_a_credential_is_for_one_route(
    gateway: GatewayInProcess, path: str, source: str, status: int, detail: str
) -> None:
    response = gateway.post(path, b"{}", source=source)
    assert response.status_code == status
    assert detail in response.json()["detail"]


def test_message_pack_is_refused_with_the_remedy(gateway: GatewayInProcess) -> None:
    headers = {"content-type": "application/msgpack"}
    response = gateway.post("/ingest/teleport", b"\x81", source="teleport", headers=headers)
    assert response.status_code == 415
    assert "json_lines" in response.json()["detail"]


def test_too_many_records_are_refused_as_a_whole(gateway: GatewayInProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_records, "MOST_RECORDS", 2)
    response = gateway.post("/ingest/teleport", b"\n".join(map(session, range(3))), source="teleport")
    assert response.status_code == 413
    assert gateway.kafka.records == []


def otlp(*bodies: dict[str, Any]) -> dict[str, Any]:
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": "1", "body": one} for one in bodies]}]}]}


def as_map(record: bytes) -> dict[str, Any]:
    members = json.loads(record).items()
    return {"kvlistValue": {"values": [{"key": key, "value": {"stringValue": value}} for key, value in members]}}


@pytest.mark.parametrize("kind", ["text", "map", "bytes"])
@pytest.mark.parametrize("encoding", ["json", "protobuf"])
def test_otlp_logs_carry_records(gateway: GatewayInProcess, kind: str, encoding: str) -> None:

    bodies = {
        "text": lambda one: {"stringValue": one.decode()},
        "map": as_map,
        "bytes": lambda one: {"bytesValue": base64.b64encode(one).decode()},
    }
    request = otlp(*(bodies[kind](session(number)) for number in range(3)))
    body: Any = request
    if encoding == "protobuf":
        body = gzip.compress(ParseDict(request, ExportLogsServiceRequest()).SerializeToString())
    response = gateway.post("/v1/logs", body, source="teleport", headers=PROTOBUF if encoding == "protobuf" else {})
    assert response.status_code == 200, response.text
    assert sent_ids(gateway) == imported_ids("teleport", b"\n".join(map(session, range(3))))
    if encoding == "json":
        assert response.json() == {}
    else:
        assert ExportLogsServiceResponse.FromString(response.content) == ExportLogsServiceResponse()
        assert response.headers["content-type"] == "application/x-protobuf"


def test_otlp_logs_that_are_refused_are_counted_in_the_answer(gateway: GatewayInProcess) -> None:
    request = otlp({"stringValue": session(1).decode()}, {"stringValue": "text"}, {"intValue": "7"}, {})
    response = gateway.post("/v1/logs", request, source="teleport")
    assert response.status_code == 200
    partial = response.json()["partialSuccess"]
    assert partial["rejectedLogRecords"] == "3" and partial["errorMessage"]


def test_errors_of_otlp_in_protobuf_are_protobuf(gateway: GatewayInProcess) -> None:
    response = gateway.post("/v1/logs", b"\xff\xff", source="teleport", headers=PROTOBUF)
    assert (response.status_code, response.headers["content-type"]) == (400, "application/x-protobuf")
    assert response.content[0] == 0x12 and b"ExportLogsServiceRequest" in response.content


@pytest.mark.parametrize("body", [b"[]", b"7", b'{"resourceLogs":7}', b'{"resourceLogs":[7]}', b"{", b'{"a":NaN}'])
def test_other_json_is_no_server_error(gateway: GatewayInProcess, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    assert gateway.post("/v1/logs", body, source="teleport", headers=headers).status_code in (200, 400)


def test_refused_records_are_in_the_log_once_per_minute(tmp_path: Path) -> None:
    """A collector may not read answers, and drops what is answered 4xx."""
    with GatewayInProcess(tmp_path) as other, structlog.testing.capture_logs() as logs:
        for _ in range(3):
            other.post("/ingest/teleport", b"some text", source="teleport")
    noted = [one for one in logs if one["event"] == "records_refused"]
    assert [(one["source"], one["count"]) for one in noted] == [("teleport", 1)]
