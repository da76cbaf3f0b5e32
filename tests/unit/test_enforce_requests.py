"""What the enforcer does with events that name only a request: they are about all its grants."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from grantledger.schemas.event import Event, EventSource, IssuingSource, Resource

from .test_enforce_command_rules import HOUR, NOON
from .test_enforce_revoker import Clock, Ledger, World, start
from .test_enforce_running_grants import (
    AFTER,
    BEFORE,
    LATER,
    activations,
    add,
    command,
    given,
    holder,
    is_same,
    running,
)

US = EventSource("bot", "us-1", "x", "record")


def whole(until: datetime | None, kind: str = "grant.extended", **fields: object) -> Event:
    """Return an event about all grants of request r, of another resource than the grants of the tests."""
    about: dict[str, object] = {
        "grant_id": None, "grant_id_kind": None, "request_id": "r", "occurred_at": NOON,
        "resource": Resource("database", "any"), "removal_evidence": None if until else "confirmed",
    }  # fmt: skip
    return given("", until, kind, **(about | fields))


def of_request(grant: str, until: datetime | None, **fields: object) -> tuple[Event, datetime]:
    return given(grant, until, "grant.activated", **({"request_id": "r"} | fields)), BEFORE


@pytest.mark.parametrize("kind", ["grant.revoked", "grant.expired"])
def test_a_removal_of_a_request_removes_its_grants(kind: str) -> None:
    granted = of_request("g2", LATER)
    assert holder(granted) == "g2"
    assert holder(granted, (whole(None, kind), AFTER)) is None
    assert holder(granted, (whole(None, kind, request_id="other"), AFTER)) == "g2"
    assert holder(granted, (whole(None, kind, tenant="blue"), AFTER)) == "g2"
    for source in (
        US,
        EventSource("rogue", "eu-1", "x", "record"),
        EventSource("grantledger-enforcer", "test", "x", "record"),
    ):
        for named in (None, IssuingSource("bot", "eu-1")):
            removal = whole(None, kind, source=source, request_source=named, outcome="success")
            assert holder(granted, (removal, AFTER)) == "g2", "it is not the source of the grant"


def test_an_extension_of_a_request_keeps_its_grants_also_after_their_end() -> None:
    ended = of_request("g1", NOON)
    assert holder(ended, (whole(LATER), AFTER)) == "g1"
    assert holder(ended, (whole(LATER, source=US, request_source=IssuingSource("bot", "eu-1")), AFTER)) is None
    known = running(ended, now=BEFORE)
    known.prune(AFTER)
    add(known, whole(LATER), AFTER, AFTER)
    found = known.covering(command(), NOON, AFTER, is_same)
    assert found is not None and found.is_grant_of(command().key)
    known.prune(LATER + timedelta(days=2))
    add(known, whole(LATER + timedelta(days=3), occurred_at=LATER), LATER, AFTER)
    assert known.covering(command(), NOON, AFTER, is_same) is None


def test_it_brings_back_no_grant_that_was_removed() -> None:
    granted = of_request("g2", LATER)
    for evidence, expected in (("confirmed", None), ("api_accepted", "g2")):
        removal = given("g2", None, "grant.revoked", occurred_at=NOON - HOUR / 2, removal_evidence=evidence)
        assert holder(granted, (removal, BEFORE), (whole(LATER), AFTER)) == expected


def test_it_gives_nothing_by_itself() -> None:
    assert holder((whole(LATER, resource=Resource("database", "orders")), AFTER)) is None
    assert activations((whole(LATER), BEFORE)).find(command()) is None


def test_a_command_about_access_that_was_extended_with_its_request_is_superseded() -> None:
    ledger, world, clock = Ledger(), World({"g1"}), Clock()
    clock.at = AFTER
    revoker = start(ledger, world, clock, running=running(of_request("g1", NOON), (whole(LATER), AFTER)))
    revoker.take(command(), 0, NOON)
    revoker.step()
    assert world.calls == [] and ledger.kinds() == ["revoke.failed"]
    assert "was extended" in ledger.events[-1].error
