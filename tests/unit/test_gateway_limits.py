"""The gateway: limits, credentials, CloudEvents, and its configuration."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grantledger.base.toml import ConfigError
from grantledger.producers.gateway import body as bodies
from grantledger.producers.gateway import own_events
from grantledger.producers.gateway.config import GatewayConfig, load_gateway_config
from grantledger.producers.gateway.credentials import token_digest
from grantledger.producers.gateway.problems import ProblemError
from grantledger.producers.gateway.source import Rate
from grantledger.webhooks.signing import sign
from support.command import invoke
from support.gateway import SOURCES, TOKENS, WEBHOOK_KEY, GatewayInProcess

NOW = 1_800_000_000
GRANT: dict[str, Any] = {
    "event_type": "grant.activated", "subject": {"id": "alice"}, "grant_id": "g1", "entitlement": "rw",
    "resource": {"kind": "database", "id": "orders"}, "expiry_source": "unknown",
}  # fmt: skip
CLOUD = {"specversion": "1.0", "id": "17", "source": "/portal", "type": "com.example.granted"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    with GatewayInProcess(folder, most_body=100_000, most_decoded=200_000, clock=lambda: NOW) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_sent(gateway: GatewayInProcess) -> None:
    gateway.kafka.records.clear()


@pytest.mark.parametrize(
    ("body", "headers", "status", "detail"),
    [
        (b" " * 100_001, {}, 413, "longer than 100000 bytes"),
        (gzip.compress(b" " * 200_001), {}, 413, "decompressed body is longer than 200000 bytes"),
        (gzip.compress(gzip.compress(b" " * 200_001)), {}, 413, "decompressed"),
        (gzip.compress(b"[]")[:-4], {"content-encoding": "gzip"}, 400, "damaged"),
        (b"[]", {"content-encoding": "br"}, 415, "'br' is not one of"),
        (b"[]", {"content-type": "text/html"}, 415, "'text/html' is not one of"),
        (b"[" * 50_000 + b"]" * 50_000, {}, 400, "nested"),
        (b"[" * 40 + b"]" * 40, {}, 422, "nested"),
        (b'{"a":1,"a":2}', {}, 400, "two members"),
        (b"\xff", {}, 400, "not UTF-8"),
        (b"{", {}, 400, "not JSON"),
        (b'{"a":NaN}', {}, 400, "not JSON"),
        (b"1" * 5000, {}, 400, "not JSON"),
        (b'{"event_type":"\\ud800","subject":"x"}', {}, 422, "the record is refused"),
    ],
    # Compressed bytes contain the time: no part of a name, which all test processes must agree on.
    ids=lambda value: "body" if isinstance(value, bytes) else str(value),
)
def test_a_bad_body_is_answered_with_what_is_wrong(
    gateway: GatewayInProcess, body: bytes, headers: dict[str, str], status: int, detail: str
) -> None:
    response = gateway.post("/v1/events", body, headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert detail in response.json()["detail"]
    assert gateway.kafka.records == []


def test_too_many_events_and_too_many_bodies(gateway: GatewayInProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_events, "MOST_EVENTS", 2)
    assert gateway.post("/v1/events", [GRANT] * 3).status_code == 413
    monkeypatch.setattr(bodies, "MOST_BYTES_OF_BODIES", 10)
    response = gateway.post("/v1/events", GRANT)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    monkeypatch.undo()
    assert gateway.post("/v1/events", GRANT).status_code == 200


def test_an_empty_list_is_no_error(gateway: GatewayInProcess) -> None:
    assert gateway.post("/v1/events", []).json() == {"accepted": 0, "stored": "kafka", "event_ids": [], "refused": []}


def test_json_lines(gateway: GatewayInProcess) -> None:
    body = json.dumps(GRANT).encode() + b"\n\n" + json.dumps(GRANT).encode() + b"\n"
    answer = gateway.post("/v1/events", body, headers={"content-type": "application/x-ndjson"}).json()
    assert answer["accepted"] == 2


def test_a_source_that_sends_too_often_is_told_when_to_try_again() -> None:
    now = [0.0]
    rate = Rate(2.0, lambda: now[0])
    rate.take()
    rate.take()
    with pytest.raises(ProblemError) as caught:
        rate.take()
    assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "1"})
    now[0] = 0.5
    rate.take()


def test_the_rate_of_one_source_is_not_that_of_another(tmp_path: Path) -> None:
    slow = [{**one, "requests_per_second": 0.01} if one["name"] == "bot" else one for one in SOURCES]
    with GatewayInProcess(tmp_path, sources=slow) as limited:
        assert limited.post("/v1/events", GRANT).status_code == 200
        response = limited.post("/v1/events", GRANT)
        assert (response.status_code, response.headers["retry-after"]) == (429, "100")
        assert limited.post("/ingest/teleport", b"", source="teleport").status_code == 200


@pytest.mark.parametrize(("user", "status"), [("bot", 200), ("vault", 401), ("", 401)])
def test_basic_authentication_is_the_name_and_the_token(gateway: GatewayInProcess, user: str, status: int) -> None:
    given = base64.b64encode(f"{user}:{TOKENS['bot']}".encode()).decode()
    response = gateway.post("/v1/events", GRANT, source=None, headers={"authorization": f"basic {given}"})
    assert response.status_code == status


def signed(body: bytes, *, at: int = NOW, key: bytes = WEBHOOK_KEY, over: bytes | None = None) -> dict[str, str]:
    signature = sign((key,), "msg_1", at, body if over is None else over)
    return {"webhook-id": "msg_1", "webhook-timestamp": str(at), "webhook-signature": signature}


BODY = json.dumps(GRANT).encode()


@pytest.mark.parametrize(
    ("url", "headers", "status"),
    [
        ("?source=bot", signed(BODY), 200),
        ("?source=bot", signed(BODY, at=NOW - 299), 200),
        ("?source=bot", signed(BODY, at=NOW - 301), 401),
        ("?source=bot", signed(BODY, at=NOW + 301), 401),
        ("?source=bot", signed(BODY, key=b"x" * 32), 401),
        ("?source=bot", signed(BODY, over=b"{}"), 401),
        ("?source=bot", {**signed(BODY), "webhook-timestamp": "now"}, 401),
        ("?source=bot", {**signed(BODY), "webhook-id": ""}, 401),
        ("?source=nobody", signed(BODY), 401),
        ("", signed(BODY), 401),
    ],
)
def test_standard_webhooks(gateway: GatewayInProcess, url: str, headers: dict[str, str], status: int) -> None:
    assert gateway.post(f"/v1/events{url}", BODY, source=None, headers=headers).status_code == status


def test_a_client_certificate_names_its_source(gateway: GatewayInProcess) -> None:
    known = gateway.credentials_with({"source": [{**SOURCES[0], "certificate_names": ["bot.example", "spiffe://a/b"]}]})
    subject = ((("commonName", "other"),),)
    for names in ((("DNS", "bot.example"),), (("IP Address", "127.0.0.1"), ("URI", "spiffe://a/b"))):
        assert known.by_certificate({"subject": subject, "subjectAltName": names}) == "bot"
    assert known.by_certificate({"subject": ((("commonName", "bot.example"),),)}) == "bot"
    assert known.by_certificate({"subject": subject, "subjectAltName": (("DNS", "x.example"),)}) is None
    assert known.by_certificate(None) is None


CLOUD_FORMS: dict[str, Callable[[dict[str, Any]], tuple[bytes, dict[str, str]]]] = {
    "structured": lambda event: (
        json.dumps({**CLOUD, "data": event}).encode(), {"content-type": "application/cloudevents+json; charset=utf-8"}
    ),
    "structured, base64": lambda event: (
        json.dumps({**CLOUD, "data_base64": base64.b64encode(json.dumps(event).encode()).decode()}).encode(),
        {"content-type": "application/cloudevents+json"},
    ),
    "batch": lambda event: (
        json.dumps([{**CLOUD, "data": event}]).encode(), {"content-type": "application/cloudevents-batch+json"}
    ),
    "binary": lambda event: (
        json.dumps(event).encode(),
        {**{f"ce-{name}": value for name, value in CLOUD.items()}, "content-type": "application/json"},
    ),
}  # fmt: skip


def test_every_form_of_a_cloudevent_gives_the_same_event(gateway: GatewayInProcess) -> None:
    ids = set()
    for form in CLOUD_FORMS.values():
        body, headers = form(GRANT)
        response = gateway.post("/v1/events", body, headers=headers)
        assert response.status_code == 200, response.text
        ids |= set(response.json()["event_ids"])
    assert len(ids) == 1
    assert {event["source"]["native_id"] for event in gateway.kafka.events} == {"/portal 17"}


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"id": ""}, "id"),
        ({"type": 7}, "type"),
        ({"datacontenttype": "text/plain"}, "datacontenttype"),
        ({"data": "text"}, "data"),
        ({"data": {**GRANT, "tenant": "other"}}, "data.tenant"),
        ({"data": {**GRANT, "grant_id": 7}}, "data.grant_id"),
        ({"data_base64": "!"}, "data_base64"),
        ({"data_base64": 7}, "data_base64"),
    ],
)
def test_a_wrong_cloudevent_is_refused_with_its_attribute(
    gateway: GatewayInProcess, changed: dict[str, Any], field: str
) -> None:
    event = {**CLOUD, "data": GRANT, **changed}
    response = gateway.post("/v1/events", [event], headers={"content-type": "application/cloudevents-batch+json"})
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["field"] == field


def test_the_attributes_fill_in_what_the_event_does_not_say(gateway: GatewayInProcess) -> None:
    data = {name: value for name, value in GRANT.items() if name != "event_type"}
    event = {**CLOUD, "type": "grant.activated", "time": "2026-01-02T03:04:05Z", "data": data}
    headers = {"content-type": "application/cloudevents+json"}
    assert gateway.post("/v1/events", json.dumps(event).encode(), headers=headers).status_code == 200
    assert gateway.kafka.events[0]["occurred_at"].isoformat() == "2026-01-02T03:04:05+00:00"


CONFIG = """
listen = "127.0.0.1:8480"
[[source]]
name = "bot"
system = "deploy-bot"
instance = "eu-1"
"""


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "gateway.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("127.0.0.1:8480", "0.0.0.0:8480", "tls_certificate and tls_key are required"),
        ("127.0.0.1:8480", "[::]:8480", "tls_certificate and tls_key are required"),
        ("127.0.0.1:8480", "localhost:8480", "listen: "),
        ('system = "deploy-bot"', "", "give either tool"),
        ('system = "deploy-bot"', 'system = "grantledger-watch"', "pipeline's own sources"),
        ('system = "deploy-bot"', 'tool = "valt"', "Did you mean 'vault'?"),
        ('instance = "eu-1"', "", "give either instance or instance_from_records"),
        ('instance = "eu-1"', "instance_from_records = true", "only for the records of a tool"),
        ('instance = "eu-1"', 'instance = "eu-1"\ncertificate_names = ["a"]', "needs client_ca"),
        (
            'instance = "eu-1"',
            'instance = "eu-1"\n[[token]]\nsource = "bat"\nsha256 = "' + "0" * 64 + '"',
            "no source bat",
        ),
        ('name = "bot"', 'nam = "bot"', "did you mean name?"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, old: str, new: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_gateway_config(written(tmp_path, CONFIG.replace(old, new)))
    assert problem in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_the_configuration_is_for_its_owner_only(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        load_gateway_config(written(tmp_path, CONFIG, mode))


def test_a_token_is_printed_once_and_only_its_hash_is_stored(tmp_path: Path) -> None:
    path = written(tmp_path, CONFIG.rstrip("\n"))
    environment = {"GRANTLEDGER_GATEWAY_CONFIG": str(path), "GRANTLEDGER_DATA_DIR": str(tmp_path)}
    first, second = (invoke("gateway", "token", "bot", env=environment) for _ in range(2))
    tokens = [first.stdout.strip(), second.stdout.strip()]
    assert first.exit_code == 0 and tokens[0] != tokens[1] and len(tokens[0]) > 40
    config = load_gateway_config(path)
    assert [one.sha256 for one in config.token] == [token_digest(one) for one in tokens]
    assert tokens[0] not in path.read_text()
    assert config.without_credential() == []
    wrong = invoke("gateway", "token", "bat", env=environment)
    assert wrong.exit_code == 2 and "has no source" in wrong.stderr


def test_a_source_without_a_credential_stops_the_start(tmp_path: Path) -> None:
    path = written(tmp_path, CONFIG)
    done = invoke(
        "run", "gateway", env={"GRANTLEDGER_GATEWAY_CONFIG": str(path), "GRANTLEDGER_DATA_DIR": str(tmp_path)}
    )
    assert done.exit_code == 2
    assert "`grantledger gateway token bot`" in done.stderr


def test_the_default_configuration_listens_on_loopback() -> None:
    assert GatewayConfig.model_validate({"source": SOURCES[:1]}).is_loopback


def test_a_slow_body_is_given_up_with_an_answer_that_lets_the_client_try_again(
    gateway: GatewayInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "SECONDS_TO_SEND_A_BODY", 0.01)

    async def slow() -> AsyncIterator[bytes]:
        yield b"["
        await asyncio.Event().wait()

    request = ("POST", "/v1/events", {"content": slow(), "headers": {"authorization": "Bearer glt_bot"}})
    [response] = gateway.request(request)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "took more than" in response.json()["detail"]
