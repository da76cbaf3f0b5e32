"""The gateway: our own events, credentials, limits and answers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from grantledger.producers.event_json import event_from_json
from grantledger.producers.json_fields import Fields, Location
from grantledger.schemas.event import EventSource, make_event_id
from support.gateway import GatewayInProcess

GRANT: dict[str, Any] = {
    "event_type": "grant.activated",
    "subject": {"id": "alice", "kind": "human"},
    "resource": {"kind": "database", "id": "orders"},
    "entitlement": "readwrite",
    "grant_id": "g-1",
    "expires_at": "2027-01-01T00:00:00Z",
    "source": {"native_id": "n-1"},
}
SESSION: dict[str, Any] = {"event_type": "session.started", "subject": "alice", "session_id": "s-1"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInProcess]:
    with GatewayInProcess(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_sent(gateway: GatewayInProcess) -> None:
    gateway.kafka.records.clear()


def test_an_event_is_in_kafka_before_the_answer(gateway: GatewayInProcess) -> None:
    before = datetime.now(UTC)
    response = gateway.post("/v1/events", GRANT)
    assert response.status_code == 200, response.text
    [event] = gateway.kafka.events
    expected = make_event_id(EventSource("deploy-bot", "eu-1", "n-1", "event"), "grant.activated")
    assert response.json() == {"accepted": 1, "stored": "kafka", "event_ids": [expected], "refused": []}
    assert (event["event_id"], event["tenant"], event["grant_id"]) == (expected, "payments", "g-1")
    assert (event["source"]["system"], event["source"]["instance"]) == ("deploy-bot", "eu-1")
    assert before <= event["received_at"] <= datetime.now(UTC)


def test_what_is_right_in_a_list_is_accepted_and_the_rest_is_named(gateway: GatewayInProcess) -> None:
    response = gateway.post("/v1/events", [SESSION, {"event_type": "grant.activated"}, 7, GRANT])
    assert response.status_code == 207
    answer = response.json()
    assert answer["accepted"] == len(gateway.kafka.events) == 2
    assert [one is None for one in answer["event_ids"]] == [False, True, True, False]
    assert [one["index"] for one in answer["refused"]] == [1, 2]
    assert "subject" in answer["refused"][0]["field"]


def test_a_request_without_any_valid_event_is_a_problem_that_names_each(gateway: GatewayInProcess) -> None:
    response = gateway.post("/v1/events", [{"event_type": "finding.opened", "subject": "x"}])
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    answer = response.json()
    [error] = answer["errors"]
    assert (error["index"], error["field"], answer["detail"]) == (0, "event_type", "the record is refused")
    assert gateway.kafka.records == []


def test_each_problem_of_an_event_names_its_field(gateway: GatewayInProcess) -> None:
    answer = gateway.post("/v1/events", [{**GRANT, "colour": "red", "size": 1}] * 2).json()
    assert answer["detail"] == "all 2 records are refused"
    for one in answer["errors"]:
        assert one["field"] and one["problem"] and one["more"], one
        assert all(";" not in further["problem"] and further["field"] for further in one["more"]), one


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"tenant": "default"}, "tenant"),
        ({"source": {"system": "vault", "instance": "eu-1", "native_id": "1", "native_type": "x"}}, "source.system"),
        ({"source": {"instance": "us-1"}}, "source.instance"),
    ],
)
def test_an_event_cannot_name_another_source_or_tenant(
    gateway: GatewayInProcess, changed: dict[str, Any], field: str
) -> None:
    response = gateway.post("/v1/events", {**GRANT, **changed})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field
    assert "this credential is for" in response.json()["errors"][0]["problem"]


@pytest.mark.parametrize("name", ["mapping", "opened_epoch", "registered_source", "executed_query"])
def test_fields_of_the_pipeline_are_refused(gateway: GatewayInProcess, name: str) -> None:
    response = gateway.post("/v1/events", {**GRANT, name: {}})
    assert response.status_code == 422
    [error] = response.json()["errors"]
    assert (error["field"], error["problem"].partition(";")[0]) == (name, "is not a field of the event")


def test_the_numbers_of_a_sender_are_kept(gateway: GatewayInProcess) -> None:
    """Without source.system, which the credential decides."""
    source = {"native_id": "n", "seq": 7, "sender": "bot-1"}
    assert gateway.post("/v1/events", {**GRANT, "source": source}).status_code == 200
    [event] = gateway.kafka.events
    assert (event["source"]["seq"], event["source"]["sender"]) == (7, "bot-1")


def test_the_time_of_receipt_is_the_gateways(gateway: GatewayInProcess) -> None:
    assert gateway.post("/v1/events", {**GRANT, "received_at": "2001-01-01T00:00:00Z"}).status_code == 200
    assert gateway.kafka.events[0]["received_at"].year > 2001


def test_an_event_has_the_id_that_emit_gives(gateway: GatewayInProcess) -> None:
    emitted = event_from_json(Fields(GRANT, Location("line", 1)))
    own = EventSource("deploy-bot", "eu-1", emitted.source.native_id, emitted.source.native_type)
    [sent] = gateway.post("/v1/events", GRANT).json()["event_ids"]
    assert sent == make_event_id(own, emitted.event_type)


@pytest.mark.parametrize(
    "header", ["Bearer glt_wrong", "Basic YTpi", "Basic !", "Digest x", "Bearer", "Bearer " + "x" * 9999]
)
def test_a_wrong_credential_is_answered_401(gateway: GatewayInProcess, header: str) -> None:
    response = gateway.post("/v1/events", GRANT, source=None, headers={"authorization": header})
    assert (response.status_code, response.headers["content-type"]) == (401, "application/problem+json")
    assert "Bearer" in response.headers["www-authenticate"]
    assert gateway.kafka.records == []


def test_livez_and_readyz_say_it_in_words(gateway: GatewayInProcess) -> None:
    assert gateway.get("/livez").text == "alive\n"
    assert gateway.get("/readyz").text == "ready: Kafka answers; the spool is empty\n"


def test_an_unknown_route_is_a_problem(gateway: GatewayInProcess) -> None:
    for response, status, detail in (
        (gateway.get("/nothing"), 404, "there is no such route: /openapi.json lists them"),
        (gateway.get("/v1/events"), 405, "this route takes POST"),
    ):
        assert (response.status_code, response.json()["detail"]) == (status, detail)
