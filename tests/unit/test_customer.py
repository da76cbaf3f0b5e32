"""The customer on whose data support staff work: from labels, tags and metadata, and nowhere else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from grantledger.producers import session_started
from grantledger.producers.adapters.values import customer_in
from support.adapters import one, read
from support.command import invoke

AT = "2026-03-01T12:00:00Z"


@pytest.mark.parametrize(
    ("labels", "customer"),
    [
        ([{"customer": "acme"}], "acme"),
        ([{"env": "prod"}, {"Customer": "acme"}], "acme"),
        ([{"customer": ["acme"]}], "acme"),
        ([{"customer": ["acme", "other"]}], None),
        ([{"customer": ""}, {"customer": 7}, {"customer": "\ud800"}], None),
        ([{"customer_id": "acme"}], None),
        ([], None),
    ],
)
def test_names_and_values(labels: list[dict[str, Any]], customer: str | None) -> None:
    assert customer_in(*labels) == customer


@pytest.mark.parametrize("members", [{"db_labels": {"customer": "acme"}}, {"server_labels": {"Customer": "acme"}}])
def test_teleport_by_a_label_of_the_resource(members: dict[str, Any]) -> None:
    record = {"event": "db.session.start", "code": "TDB00I", "uid": "u", "sid": "s", "user": "alice", "time": AT}
    assert one(read("teleport", {**record, **members})).customer == "acme"
    assert one(read("teleport", {**record, "db_labels": {"env": "prod"}})).customer is None


def test_teleport_by_an_annotation_of_the_request() -> None:
    record = {"event": "access_request.create", "code": "T5000I", "uid": "u", "id": "r", "user": "alice", "time": AT}
    found = read("teleport", {**record, "state": "PENDING", "roles": ["dba"], "annotations": {"customer": ["acme"]}})
    assert one(found).customer == "acme"
    assert one(read("teleport", {**record, "state": "PENDING", "annotations": "none"})).customer is None


@pytest.mark.parametrize(
    "asked", [{"tags": [{"key": "team", "value": "x"}, {"key": "Customer", "value": "acme"}]},
              {"principalTags": {"customer": "acme"}}],
)  # fmt: skip
def test_cloudtrail_by_a_session_tag(asked: dict[str, Any]) -> None:
    who = {"type": "IAMUser", "arn": "arn:aws:iam::1:user/alice", "userName": "alice", "accountId": "1"}
    record = {"eventVersion": "1.08", "userIdentity": who, "eventTime": AT, "eventSource": "sts.amazonaws.com",
              "eventName": "AssumeRole", "awsRegion": "eu-1", "eventID": "e1", "eventType": "AwsApiCall",
              "recipientAccountId": "1", "requestParameters": {"roleArn": "arn:aws:iam::1:role/Support", **asked},
              "responseElements": {"credentials": {"accessKeyId": "ASIAIOSFODNN7EXAMPLE"}}}  # fmt: skip
    event = one(read("cloudtrail", record))
    assert (event.event_type, event.customer) == ("grant.activated", "acme")
    assert one(read("cloudtrail", {**record, "requestParameters": {"tags": ["x", {"key": 1}]}})).customer is None


def test_vault_by_the_metadata_of_the_token() -> None:
    auth = {"accessor": "a", "display_name": "oidc-alice", "policies": ["p"], "metadata": {"customer": "acme"}}
    record = {"time": AT, "type": "response", "auth": auth,
              "request": {"id": "r", "operation": "read", "path": "kv/data/a"}}  # fmt: skip
    assert one(read("vault", record)).customer == "acme"
    assert one(read("vault", {**record, "auth": {"accessor": "a"}})).customer is None


def test_our_own_events() -> None:
    assert session_started(subject="alice", session_id="s", customer="acme").customer == "acme"
    done = invoke(
        "emit", "session.started", "--subject", "alice", "--session-id", "s", "--customer", "acme", "--dry-run"
    )
    assert json.loads(done.stdout)["customer"] == "acme"
