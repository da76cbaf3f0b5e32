from __future__ import annotations

import inspect
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

import grantledger.producers as producers
from grantledger.producers import (
    Actor,
    Approval,
    Event,
    EventSource,
    InvalidEventError,
    Resource,
    Subject,
    constructors,
    grant_activated,
    session_command,
)
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import ACCESS_TYPES
from grantledger.schemas.rules import ABOUT_GRANTS

RESOURCE = Resource("database", "orders", "prod")
LATER = datetime(2030, 1, 1, tzinfo=UTC)
VALUES: dict[str, Any] = {
    "subject": "alice",
    "resource": RESOURCE,
    "entitlement": "readwrite",
    "grant_id": "g1",
    "request_id": "r1",
    "session_id": "s1",
    "expires_at": LATER,
    "removal_evidence": "confirmed",
    "approvals": (Approval("bob", "approved", at=LATER),),
    "command": "ls",
    "query": "select 1",
}


def constructor_of(event_type: str) -> Any:
    return getattr(producers, event_type.replace(".", "_"))


def required(function: Any) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    own = [p.name for p in parameters if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
    access = ["resource", "entitlement"] if "SessionFields" not in str(parameters) else []
    return ["subject", *access, *own]


@pytest.mark.parametrize("event_type", ACCESS_TYPES)
def test_every_access_type_has_a_constructor_whose_required_arguments_suffice(event_type: str) -> None:
    function = constructor_of(event_type)
    named = ["grant_id"] if event_type in ABOUT_GRANTS else []  # or the request
    event = function(**{name: VALUES[name] for name in (*required(function), *named)})
    assert isinstance(event, Event)
    assert event.event_type == event_type
    EventEncoder().encode(replace(event, source=EventSource("x", "y", "z", "event")))


@pytest.mark.parametrize("event_type", ACCESS_TYPES)
def test_all_arguments_are_keywords_and_described(event_type: str) -> None:
    function = constructor_of(event_type)
    parameters = inspect.signature(function).parameters.values()
    assert {p.kind for p in parameters} <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    described = inspect.getsource(constructors)
    for parameter in parameters:
        assert f" {parameter.name}: " in described or f"``{parameter.name}``" in described, parameter.name


def test_a_missing_field_is_named() -> None:
    missing: dict[str, Any] = {"grant_id": "g1", "removal_evidence": "confirmed"}
    for field in ("subject", "resource", "entitlement"):
        with pytest.raises(InvalidEventError, match=f"^{field}: is required on grant.revoked$"):
            producers.grant_revoked(**missing)
        missing[field] = VALUES[field]


def test_an_event_about_all_grants_of_a_request() -> None:
    about = {"subject": "alice", "resource": RESOURCE, "entitlement": "rw", "request_id": "r1"}
    removal = producers.grant_revoked(removal_evidence="confirmed", **about)
    extension = producers.grant_extended(expires_at=LATER, **about)
    assert (removal.grant_id, removal.grant_id_kind, extension.grant_id) == (None, None, None)
    assert removal.key == extension.key == "r1"


def test_defaults() -> None:
    event = grant_activated(subject="alice", resource=RESOURCE, entitlement="rw", expires_at=LATER)
    assert event.subject == Subject("alice")
    assert event.actor == Actor("alice")
    assert event.grant_id
    assert (event.grant_id_kind, event.expiry_source, event.outcome) == ("native", "native", "success")
    assert event.source.system == ""
    assert event.occurred_at.tzinfo is not None


def test_given_values_win() -> None:
    event = grant_activated(
        subject=Subject("alice", "human", "alice@example.com"),
        resource=RESOURCE,
        entitlement="rw",
        expires_at=None,
        grant_id="g",
        actor="bob",
        occurred_at=LATER,
        native_id="deploy-7",
        tenant="t",
        reason="why",
        ticket="OPS-1",
    )
    assert (event.grant_id, event.actor.id, event.occurred_at, event.tenant) == ("g", "bob", LATER, "t")
    assert (event.source.native_id, event.expiry_source, event.ticket) == ("deploy-7", "unknown", "OPS-1")


def test_actor_takes_over_the_kind_of_the_subject_only_where_it_is_the_subject() -> None:
    human = Subject("alice", "human")
    assert session_command(subject=human, session_id="s", command="ls").actor.kind == "human"
    assert session_command(subject=human, session_id="s", command="ls", actor="bot").actor.kind == "unknown"


@pytest.mark.parametrize(("exit_code", "outcome"), [(0, "success"), (3, "failure"), (None, "unknown")])
def test_outcome_of_a_command_follows_its_exit_code(exit_code: int | None, outcome: str) -> None:
    assert session_command(subject="a", session_id="s", command="ls", exit_code=exit_code).outcome == outcome


def test_a_time_without_a_zone_is_refused_where_it_is_given() -> None:
    with pytest.raises(InvalidEventError, match="expires_at"):
        grant_activated(subject="a", resource=RESOURCE, entitlement="rw", expires_at=datetime(2030, 1, 1))
    with pytest.raises(InvalidEventError, match="occurred_at"):
        session_command(subject="a", session_id="s", command="ls", occurred_at=datetime(2030, 1, 1))


def test_an_empty_entitlement_is_refused() -> None:
    with pytest.raises(InvalidEventError, match="entitlement"):
        grant_activated(subject="a", resource=RESOURCE, entitlement="", expires_at=LATER)
