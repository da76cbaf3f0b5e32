"""Redaction in every way in: import, follow, the gateway, `emit` and the client give the same redacted events."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.producers.adapters import ADAPTERS, Adapter, Mapped, RecordError, Skipped, make_adapter
from grantledger.producers.follow.config import FollowedTool
from grantledger.producers.follow.tool_follower import ToolFollower
from grantledger.producers.importer import Importer
from grantledger.producers.input_files import InputFile
from grantledger.producers.redaction.file import make_redactor
from grantledger.producers.redaction.redactor import Level
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import SOURCE_REPORT, Event
from support import planted_secrets
from support.adapters import HERE, one, several
from support.command import invoke
from support.examples import few
from support.gateway import SOURCES, GatewayInProcess
from support.kubernetes import stream

from .test_adapters import FILES, JSON, samples

LEVELS: tuple[Level, ...] = ("off", "default", "strict")
MAIL = "carol@customer.example"
AT = "2026-03-01T12:00:00Z"


def teleport(secret: str) -> dict[str, Any]:
    base = {"event": "exec", "code": "T3002I", "uid": "u1", "sid": "s1", "user": "alice@corp.example", "time": AT}
    return {**base, "command": f"mysql -p{secret} -e x # {MAIL}", "server_id": "n1", "cluster_name": "c"}


def query(secret: str) -> dict[str, Any]:
    base = {"event": "db.session.query", "code": "TDB02I", "uid": "u2", "sid": "s1", "user": "alice@corp.example"}
    sql = f"ALTER USER a PASSWORD '{secret}'; SELECT * FROM c WHERE mail = '{MAIL}'"
    return {**base, "time": AT, "db_service": "orders", "db_query": sql}


def postgresql(secret: str) -> dict[str, Any]:
    base = {"timestamp": "2026-03-01 12:00:00.123 UTC", "user": "alice@corp.example", "dbname": "orders", "pid": 7}
    base |= {"session_id": "69a42a40.7", "line_num": 3, "error_severity": "LOG"}
    sql = f"CREATE ROLE bob PASSWORD '{secret}' VALID UNTIL '2026-12-01 00:00:00+00'; SELECT \"a\", '{MAIL}'"
    cells = sql.replace('"', '""')
    return {**base, "message": f'AUDIT: SESSION,1,1,ROLE,CREATE ROLE,,,"{cells}",{MAIL}'}


def hoop(secret: str) -> dict[str, Any]:
    sql = f"ALTER USER a PASSWORD '{secret}'; SELECT * FROM c WHERE mail = '{MAIL}'"
    payload = {"id": "s1", "user_email": "alice@corp.example", "connection": "orders", "connection_type": "database"}
    payload["input"] = base64.b64encode(sql.encode()).decode()
    return {"event_type": "session.open", "occurred_at": AT, "payload": payload}


def kubernetes(secret: str) -> dict[str, Any]:
    words = ("mysql", "-u", "root", f"-p{secret}", "-e", f"SELECT '{MAIL}'")
    return stream("exec", "&".join(f"command={quote(word)}" for word in words))


def cloudtrail(secret: str) -> dict[str, Any]:
    who = {"type": "AssumedRole", "principalId": "AROA:alice@corp.example", "accessKeyId": "ASIAIOSFODNN7EXAMPLE",
           "arn": "arn:aws:sts::123456789012:assumed-role/Ops/alice@corp.example", "accountId": "123456789012",
           "sessionContext": {"attributes": {"creationDate": AT}, "sessionIssuer": {"userName": "Ops"}}}  # fmt: skip
    asked = {"masterUserPassword": secret, "note": f"mail {MAIL}", "tags": [{"key": "db_password", "value": secret}]}
    return {"eventVersion": "1.08", "userIdentity": who, "eventTime": AT, "eventSource": "rds.amazonaws.com",
            "eventName": "ModifyDBInstance", "awsRegion": "eu-1", "eventID": "e1", "eventType": "AwsApiCall",
            "recipientAccountId": "123456789012", "requestParameters": asked}  # fmt: skip


def sudo(secret: str) -> dict[str, Any]:
    it: dict[str, Any] = {"uuid": "u1", "submituser": "alice@corp.example", "submithost": "h", "runuser": "root"}
    it |= {"command": "/usr/bin/mysql", "submit_time": {"seconds": 1772366400, "nanoseconds": 0}}
    it |= {"runargv": ["mysql", f"-p{secret}", f"--comment={MAIL}"]}
    return {"sudo": {"accept": it}}


PLANTED = {
    "teleport": [teleport, query], "postgresql": [postgresql], "hoop": [hoop], "kubernetes": [kubernetes],
    "cloudtrail": [cloudtrail], "sudo": [sudo],
}  # fmt: skip
EACH = [(tool, record) for tool, records in PLANTED.items() for record in records]
RECORDS = pytest.mark.parametrize(("tool", "record"), EACH, ids=[record.__name__ for _, record in EACH])


def bytes_of(event: Event) -> bytes:
    """Return the bytes of an event, and those of the texts that are encoded in it."""
    encoded = EventEncoder().encode(event)
    return encoded + b"".join(base64.b64decode(one) for one in re.findall(rb'"input":"([^"]+)"', encoded))


def content(event: Event) -> dict[str, Any]:
    return {**event.to_datum(), "salt": b""}


def same_but_text(event: Event) -> dict[str, Any]:
    """Return who, what, when and the ids of an event."""
    return {**content(event), "action": None, "reason": None, "error": None, "raw": None, "raw_sha256": None}


@RECORDS
@few(25)
@given(secret=planted_secrets.words(alphabet=planted_secrets.BASE64 + "+_-.!%"))
def test_no_planted_secret_is_in_the_bytes_of_an_event(tool: str, record: Any, secret: str) -> None:
    raw = json.dumps(record(secret)).encode()
    plain = several(make_adapter(tool, instance="i", redactor=None).read(raw, HERE))
    assert any(secret.encode() in bytes_of(event) or quote(secret).encode() in bytes_of(event) for event in plain)
    for level in ("default", "strict"):
        events = several(make_adapter(tool, instance="i", redactor=make_redactor(level)).read(raw, HERE))
        for event, before in zip(events, plain, strict=True):
            assert secret.encode() not in bytes_of(event) and quote(secret).encode() not in bytes_of(event)
            assert b"[redacted:" in bytes_of(event)
            assert same_but_text(event) == same_but_text(before)
            assert event.raw and event.raw_sha256 == hashlib.sha256(event.raw).digest()
            assert event.action is None or event.action.redacted
            has_mail = MAIL.encode() in bytes_of(event) or quote(MAIL).encode() in bytes_of(event)
            assert has_mail == (level == "default")
            assert event.subject.id.encode() in (event.raw or b"")


def outcome(adapter: Adapter, line: bytes) -> Mapped | Skipped | str:
    """Return the events of a record, or why there are none."""
    try:
        return adapter.read(line, HERE)
    except RecordError as error:
        return str(error)


OTHERS = [("kubernetes", "gcp/auditlog.jsonl"), ("kubernetes", "azure/audit.jsonl")]


@pytest.mark.parametrize(("tool", "file"), [*((tool, None) for tool in sorted(FILES)), *OTHERS])
@pytest.mark.parametrize("level", ["default", "strict"])
def test_real_records_say_the_same(tool: str, file: str | None, level: Level) -> None:
    """Who, what, until when and, where the tool gives an id, which event it is; and nothing changes twice."""
    plain, redacting = make_adapter(tool, redactor=None), make_adapter(tool, redactor=make_redactor(level))
    for line in samples(tool, file)[:: 1 if level == "default" else 4]:
        before, after = outcome(plain, line), outcome(redacting, line)
        if not isinstance(before, tuple) or not isinstance(after, tuple):
            assert before == after
            continue
        for one_before, one_after in zip(before, after, strict=True):
            left, right = same_but_text(one_before), same_but_text(one_after)
            if one_before.source.native_id.startswith("synthesized:") and one_before.raw != one_after.raw:
                for made_of_content in ("source", "event_id", "session_id"):
                    del left[made_of_content], right[made_of_content]
            assert left == right
        if after[0].raw != line:
            twice = several(make_adapter(tool, redactor=redacting.redactor).read(after[0].raw or b"", HERE))
            assert [content(event) for event in twice] == [content(event) for event in after]


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Level, GatewayInProcess]]:
    """One gateway per level; its sources name it."""
    running: dict[Level, GatewayInProcess] = {}
    for level in LEVELS:
        sources = [{**source, "redaction": level} for source in SOURCES]
        running[level] = GatewayInProcess(tmp_path_factory.mktemp(level), sources=sources, spool_after=60.0)
        running[level].__enter__()
    yield running
    for one_running in running.values():
        one_running.__exit__(None, None, None)


@pytest.mark.parametrize("level", LEVELS)
@RECORDS
def test_import_follow_and_the_gateway_give_the_same_events(
    gateways: dict[Level, GatewayInProcess], tmp_path: Path, tool: str, record: Any, level: Level
) -> None:
    line = json.dumps(record("Zq9hunter2")).encode() + b"\n"
    imported: list[Event] = []
    adapter = make_adapter(tool, instance="i-1", redactor=make_redactor(level))
    Importer(adapter, imported.append).run(InputFile("file", io.BytesIO(line)))

    (tmp_path / "file.log").write_bytes(line)
    followed: list[Event] = []
    config = FollowedTool(tool=tool, instance="i-1", files=(str(tmp_path / "file.log"),), redaction=level)
    follower = ToolFollower(config, None, followed.append, once=True, redactor=make_redactor(config.redaction or "off"))
    follower.look(0.0)
    while follower.turn(0.0):
        pass
    follower.close()

    told = [content(event) for event in followed if event.event_type != SOURCE_REPORT]
    assert told == [content(event) for event in imported] != []
    for sent in posted(gateways[level], tool, line):
        assert [one_sent["event_id"] for one_sent in sent] == [event.event_id for event in imported]
        for one_sent, event in zip(sent, imported, strict=True):
            for member in ("raw", "raw_sha256", "action", "reason", "subject", "actor"):
                assert one_sent[member] == content(event)[member], member
    assert (b"Zq9hunter2" in b"".join(map(bytes_of, imported))) == (level == "off")


def posted(gateway: GatewayInProcess, tool: str, line: bytes) -> Iterator[list[dict[str, Any]]]:
    """Yield the events of a record that is posted as it is, in an OTLP log, and by syslog."""
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": line.decode().strip()}}]}]}]}
    gateway.kafka.records.clear()
    assert gateway.post(f"/ingest/{tool}", line, source=tool).status_code == 200
    yield told_by(gateway)
    response = gateway.post(
        "/v1/logs", json.dumps(logs).encode(), source=tool, headers={"content-type": "application/json"}
    )
    assert response.status_code == 200
    yield told_by(gateway)
    gateway.run(by_syslog(gateway, tool, b"<13>1 2026-03-01T12:00:00Z h app - - - " + line))
    yield told_by(gateway)


def told_by(gateway: GatewayInProcess) -> list[dict[str, Any]]:
    events = [event for event in gateway.kafka.events if event["event_type"] != SOURCE_REPORT]
    gateway.kafka.records.clear()
    return events


async def by_syslog(gateway: GatewayInProcess, tool: str, message: bytes) -> None:
    await gateway.gateway.store_mapped(tool, await gateway.gateway.map_messages(tool, [message]))


OWN = {"event_type": "session.command", "subject": "bob@corp.example", "session_id": "s-1", "occurred_at": AT,
       "action": {"command": "mysql", "args": ["-pZq9hunter2"]}, "reason": f"for {MAIL}",
       "raw": '{"password":"Zq9hunter2"}', "source": {"native_id": "n-1"}}  # fmt: skip


@pytest.mark.parametrize("level", LEVELS)
def test_our_own_events_by_emit_and_by_the_gateway(gateways: dict[Level, GatewayInProcess], level: Level) -> None:
    emitted = json.loads(
        invoke("emit", "--stdin", "--dry-run", "--redaction", level, stdin=json.dumps(OWN).encode()).stdout
    )
    gateway = gateways[level]
    gateway.kafka.records.clear()
    assert gateway.post("/v1/events", json.dumps(OWN).encode(), source="bot").status_code == 200
    [sent] = gateway.kafka.events
    assert emitted["action"]["args"] == sent["action"]["args"] and emitted["raw"].encode() == sent["raw"]
    assert emitted["reason"] == sent["reason"] and emitted["raw_sha256"] == sent["raw_sha256"].hex()
    assert sent["raw_sha256"] == hashlib.sha256(sent["raw"]).digest()
    assert sent["subject"]["id"] == "bob@corp.example"
    assert ("Zq9hunter2" in json.dumps(emitted), MAIL in json.dumps(emitted)) == (level == "off", level != "strict")
    assert sent["action"]["redacted"] == (level != "off")


def test_every_tool_has_a_redactor_by_default() -> None:
    for tool in ADAPTERS:
        assert make_adapter(tool).redactor is not None


@given(st.sampled_from(EACH), st.sampled_from(("default", "strict")))
def test_what_was_redacted_by_another_stays(each: tuple[str, Any], level: Level) -> None:
    tool, record = each
    adapter = make_adapter(tool, instance="i", redactor=make_redactor(level))
    event = several(adapter.read(json.dumps(record("Zq9hunter2")).encode(), HERE))[0]
    assert content(several(adapter.read(event.raw or b"", HERE))[0]) == content(event)


def test_a_record_that_is_kept_though_nobody_can_map_it_names_nobody() -> None:
    record = {"event": "session.start", "time": "never", "uid": "u", "user": MAIL, "command": "mysql -pZq9hunter2"}
    for level, expected in (("default", True), ("strict", False)):
        kept = make_adapter("teleport", redactor=make_redactor(level)).kept(json.dumps(record).encode(), HERE, record)
        assert kept is not None and b"Zq9hunter2" not in kept and (MAIL.encode() in kept) == expected


@few(150)
@given(st.sampled_from(sorted(ADAPTERS)), st.dictionaries(st.text(max_size=8), JSON, max_size=6))
def test_any_object_is_redacted_or_refused(tool: str, record: dict[str, Any]) -> None:
    for one_record in (record, {"event_type": "x", "payload": record, "requestObject": record, "message": record}):
        for level in ("default", "strict"):
            adapter = make_adapter(tool, redactor=make_redactor(level))
            with suppress(RecordError):
                adapter.read(json.dumps(one_record).encode(), HERE)


def test_vault_tokens_that_are_not_hashed_join_nothing() -> None:
    """With ``log_raw``, the token itself is in the record. Without it, two tokens look the same."""
    auth = {"accessor": "a1", "client_token": "hvs.CAESIJlongtoken000000000001", "display_name": "x", "policies": ["p"]}
    record = {"time": AT, "type": "response", "auth": auth, "request": {"id": "r1", "operation": "update",
              "path": "auth/token/revoke", "data": {"token": "hvs.CAESIJlongtoken000000000002"}}}  # fmt: skip
    event = one(make_adapter("vault").read(json.dumps(record).encode(), HERE))
    assert event.event_type == "grant.revoked" and event.grant_id_kind == "synthesized"
    assert event.raw and b"longtoken" not in event.raw
