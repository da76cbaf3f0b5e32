"""A grant that runs is not torn down, however old the command: who holds an access, and what the enforcer does then."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

import pytest

from grantledger.enforcers.command_rules import CommandHistory, FinalStatus
from grantledger.enforcers.contract import Attempt, AttemptStatus, RevokeCommand
from grantledger.enforcers.enforcement_policy import EnforcementPolicy, Route
from grantledger.enforcers.events import apply
from grantledger.enforcers.running_grants import GrantEvent, RunningGrants, SealedActivations, access_of
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Actor, Event, EventSource, IssuingSource, Resource, Subject
from support.events import read_datum

from .test_enforce_command_rules import HOUR, NOON
from .test_enforce_command_rules import command as command_about
from .test_enforce_revoker import Clock, Ledger, World, start

SECOND = timedelta(seconds=1)
BEFORE, AFTER = NOON - SECOND, NOON + SECOND
"""Of the command, which the brokers take at noon."""


BOT = IssuingSource("bot", "eu-1")


def command(**fields: object) -> RevokeCommand:
    return command_about(**({"grant_source": BOT} | fields))  # type: ignore[arg-type]


def given(grant: str, until: datetime | None, kind: str = "grant.extended", **fields: object) -> Event:
    about: dict[str, object] = {
        "event_type": kind,
        "occurred_at": NOON - HOUR,
        "source": EventSource("bot", "eu-1", f"{grant}-{kind}-{until}", "record"),
        "subject": Subject("alice", "human"),
        "actor": Actor("bob", "human"),
        "resource": Resource("database", "orders"),  # another environment is no other access
        "entitlement": "readwrite",
        "grant_id": grant,
        "grant_id_kind": "native",
        "expires_at": until,
        "expiry_source": "native" if until else "unknown",
    }
    return Event(**(about | fields))  # type: ignore[arg-type]


def add(known: RunningGrants, event: Event, appended: datetime, now: datetime, *, signed: bool = False) -> None:
    reported = GrantEvent.of(read_datum(EventEncoder().encode(event)), appended, signed=signed)
    if reported is not None:
        known.add(reported, now)


def running(*events: tuple[Event, datetime], now: datetime = AFTER) -> RunningGrants:
    known = RunningGrants()
    for event, appended in events:
        add(known, event, appended, now)
    return known


def is_same(one: GrantEvent) -> bool:
    """Whether a grant gives the access of the command, by any source."""
    return one.access == access_of(command())


def holder(*events: tuple[Event, datetime], now: datetime = AFTER) -> str | None:
    found = running(*events, now=now).covering(command(), NOON, now, is_same)
    return found.grant_id if found is not None else None


LATER = NOON + HOUR


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (given("g1", LATER), "g1"),
        (given("g2", LATER, "grant.activated"), "g2"),
        (given("g2", NOON), None),
        (given("g2", LATER, tenant="blue"), None),
        (given("g2", LATER, subject=Subject("carol", "human")), None),
        (given("g2", LATER, resource=Resource("database", "billing")), None),
        (given("g2", LATER, resource=Resource("host", "orders")), None),
        (given("g2", LATER, entitlement="readonly"), None),
        # The source's clock was two hours ahead: what it calls an hour from now has passed.
        (given("g2", LATER, occurred_at=NOON + 2 * HOUR), None),
        (given("g2", None), "g2"),
    ],
)
def test_a_running_grant_of_the_same_access_keeps_it(event: Event, expected: str | None) -> None:
    assert holder((event, AFTER)) == expected


def test_the_last_event_about_a_grant_counts() -> None:
    one = (given("g2", LATER), AFTER)
    for kind in ("grant.revoked", "grant.expired"):
        over = (given("g2", None, kind, removal_evidence="none"), AFTER)
        again = (given("g2", LATER, occurred_at=NOON), AFTER)
        assert holder(one, over) is None and holder(one, over, again) == "g2"
    assert holder(one, (given("g2", NOON), AFTER)) is None, "its end was moved to before now"
    assert holder(one, (given("g3", LATER + HOUR), AFTER)) == "g3", "the one that lasts longest"
    assert holder(one, (given("g1", LATER - SECOND), AFTER)) == "g1", "its own says more than any other's"
    assert holder(one, (given("g2", LATER, entitlement="readonly"), AFTER)) == "g2", "the same event again"
    other = given("g2", LATER, entitlement="readonly", occurred_at=NOON)
    assert holder(one, (other, AFTER)) is None, "it is for something else now"
    known = running(one)
    known.prune(LATER)
    assert known.covering(command(), NOON, AFTER, is_same) is None


def test_an_old_record_that_is_sent_again_changes_nothing() -> None:
    """Whoever can write the topic can copy signed records."""

    def at(minutes: int, until: datetime | None, kind: str = "grant.extended") -> tuple[Event, datetime]:
        time = NOON - HOUR + timedelta(minutes=minutes)
        extra = {"removal_evidence": "confirmed"} if kind == "grant.revoked" else {}
        return given("g2", until, kind, occurred_at=time, **extra), time

    activated, shortened, removed = at(0, LATER, "grant.activated"), at(1, NOON + SECOND), at(2, None, "grant.revoked")
    copy, again = (activated[0], AFTER), (given("g2", LATER, "grant.activated", occurred_at=NOON), AFTER)
    assert holder(activated, removed, copy) is None
    assert holder(activated, removed, again) == "g2", "it was given again"
    assert holder(activated, removed, again, (removed[0], AFTER)) == "g2", "and the copy hides it not"
    late = running(activated, shortened, now=NOON)
    late.prune(NOON + 2 * SECOND)
    add(late, activated[0], NOON + 2 * SECOND, NOON + 2 * SECOND)
    assert late.covering(command(), NOON, NOON + 2 * SECOND, is_same) is None, "it ended meanwhile"
    assert holder(activated, at(0, LATER, "grant.revoked")) is None, "removed in the same moment"
    # A clock that was fast does not silence its source until then.
    fast = (given("g2", LATER + 9 * HOUR, occurred_at=NOON + 8 * HOUR), BEFORE)
    assert holder(fast, (given("g2", None, "grant.revoked", occurred_at=NOON, removal_evidence="none"), AFTER)) is None


@pytest.mark.parametrize("outcome", ["failure", "denied"])
def test_what_failed_changed_nothing(outcome: str) -> None:
    one = (given("g2", LATER), BEFORE)
    for kind in ("grant.activated", "grant.extended"):
        assert holder((given("g2", LATER, kind, outcome=outcome), AFTER)) is None
    failed = given("g2", None, "grant.revoked", outcome=outcome, occurred_at=NOON, removal_evidence="confirmed")
    assert holder(one, (failed, AFTER)) == "g2"
    for pending in ("pending", "unknown", "success"):
        assert holder((given("g2", LATER, "grant.activated", outcome=pending), AFTER)) == "g2"


def activations(*events: tuple[Event, datetime], signed: bool = False) -> SealedActivations:
    known = SealedActivations()
    for event, received in events:
        reported = GrantEvent.of(read_datum(EventEncoder().encode(event)), received, signed=signed)
        if reported is not None:
            known.add(reported, received)
    return known


def test_a_command_needs_an_activation_with_its_own_content() -> None:
    activated = given("g1", NOON, "grant.activated")
    for event, fits in (
        (activated, True),
        (given("g1", NOON), False),  # only extended
        (given("g1", NOON, "grant.activated", outcome="denied"), False),
        (given("g2", NOON, "grant.activated"), False),
        (given("g1", NOON, "grant.activated", tenant="blue"), False),
        (given("g1", NOON, "grant.activated", source=EventSource("bot", "us-1", "x", "record")), False),
        (given("g1", NOON, "grant.activated", source=ROGUE, grant_source=BOT), False),
        (given("g1", NOON, "grant.activated", subject=Subject("carol")), False),
        (given("g1", NOON, "grant.activated", resource=Resource("database", "billing")), False),
        (given("g1", NOON, "grant.activated", resource=Resource("host", "orders")), False),
        (given("g1", NOON, "grant.activated", entitlement="readonly"), False),
    ):
        for signed in (False, True):
            found = activations((event, BEFORE), signed=signed).find(command())
            assert (found is not None) == fits
            assert found is None or (found.received, found.signed) == (BEFORE, signed)
    assert activations((activated, BEFORE)).find(command(grant_source=None)) is None
    both = activations((given("g1", NOON), BEFORE), (activated, AFTER)).find(command())
    assert both is not None and both.received == BEFORE, "anything that was received in time counts"
    both = activations((activated, BEFORE), (activated, AFTER)).find(command())
    assert both is not None and both.received == BEFORE


ROGUE = EventSource("rogue", "r-1", "x", "record")
ENFORCER = EventSource("grantledger-enforcer", "test.example", "x", "revocation")


@pytest.mark.parametrize("named", [BOT, None])
def test_a_foreign_extension_stops_no_revocation(named: IssuingSource | None) -> None:
    granted = (given("g1", NOON, "grant.activated"), BEFORE)
    foreign = (given("g1", LATER, source=ROGUE, grant_source=named), AFTER)
    assert holder(granted, foreign) is None and holder(foreign) is None
    assert holder(granted, foreign, (given("g1", LATER), AFTER)) == "g1", "its own source extends it"
    ledger, world, clock = Ledger(), World({"g1"}), Clock()
    clock.at = AFTER
    revoker = start(ledger, world, clock, running=running(granted, foreign))
    revoker.take(command(), 0, NOON)
    assert revoker.step() and world.calls == ["g1"] and ledger.kinds()[-1] == "grant.revoked"


@pytest.mark.parametrize("kind", ["grant.revoked", "grant.expired"])
@pytest.mark.parametrize("named", [BOT, None])
@pytest.mark.parametrize("by", ["rogue", "grantledger-enforcers", "bot-2"])
def test_a_foreign_removal_hides_no_running_grant(kind: str, named: IssuingSource | None, by: str) -> None:
    source = EventSource(by, "eu-1", "x", "record")
    foreign = given("g2", None, kind, source=source, grant_source=named, removal_evidence="confirmed")
    assert holder((given("g2", LATER), AFTER), (foreign, AFTER)) == "g2"


def test_another_installation_of_the_tool_is_foreign() -> None:
    other = EventSource("bot", "us-1", "x", "record")
    removal = given("g2", None, "grant.revoked", source=other, grant_source=BOT, removal_evidence="confirmed")
    assert holder((given("g2", LATER), AFTER), (removal, AFTER)) == "g2"
    everywhere = IssuingSource("bot", "")
    anywhere = given("g2", LATER, grant_source=everywhere)
    removal = given("g2", None, "grant.revoked", source=other, grant_source=everywhere, removal_evidence="confirmed")
    assert holder((anywhere, AFTER)) == "g2" and holder((anywhere, AFTER), (removal, AFTER)) is None


def test_an_enforcers_read_back_removes_a_grant_and_extends_none() -> None:
    one = (given("g2", LATER), AFTER)

    def read_back(**fields: object) -> tuple[Event, datetime]:
        about: dict[str, object] = {
            "source": ENFORCER, "grant_source": BOT, "removal_evidence": "confirmed", "outcome": "success",
            "occurred_at": NOON,
        }  # fmt: skip
        return given("g2", None, "grant.revoked", **(about | fields)), AFTER

    assert holder(one, read_back()) is None
    assert holder(one, read_back(entitlement="readonly")) == "g2", "it must repeat the access"
    for outcome in ("unknown", "pending", "failure", "denied"):
        assert holder(one, read_back(outcome=outcome)) == "g2", "confirmed needs success"
    assert holder(one, read_back(removal_evidence="api_accepted")) == "g2"
    assert holder(one, read_back(grant_source=IssuingSource("bot", "us-1"))) == "g2", "it is about another grant"
    assert holder((given("g1", LATER, source=ENFORCER, grant_source=BOT), AFTER)) is None


def test_two_tenants_and_two_installations_may_share_an_id() -> None:
    blue = (given("g1", LATER, tenant="blue"), AFTER)
    asked = (given("g1", NOON, "grant.activated"), BEFORE)
    assert holder(asked, blue) is None
    removal = (given("g1", None, "grant.revoked", tenant="blue", removal_evidence="confirmed"), AFTER)
    assert holder((given("g1", LATER), AFTER), blue, removal) == "g1"
    # The other installation gave the same access under the same id: it is another grant, for which the command waits.
    us = EventSource("bot", "us-1", "x", "record")
    found = running(asked, (given("g1", LATER, "grant.activated", source=us), AFTER)).covering(
        command(), NOON, AFTER, is_same
    )
    assert found is not None and not found.is_grant_of(command().key)
    # A command that does not name the source of its grant matches none by its id.
    found = running((given("g1", LATER), AFTER)).covering(command(grant_source=None), NOON, AFTER, is_same)
    assert found is not None and not found.is_grant_of(command(grant_source=None).key)


def test_the_watch_knew_of_grants_without_an_end_when_it_sent_the_command() -> None:
    assert holder((given("g2", None), BEFORE)) is None and holder((given("g1", None), BEFORE)) is None
    assert holder((given("g2", LATER), BEFORE)) == "g2", "not sealed yet when the watch had to judge"


def test_a_grant_that_was_extended_meanwhile_is_left_alone_for_good() -> None:
    ledger, world, clock = Ledger(), World({"g1"}), Clock()
    clock.at = AFTER
    revoker = start(ledger, world, clock, running=running((given("g1", LATER), AFTER)))
    revoker.take(command(), 0, NOON)
    assert revoker.step() and not revoker.step()
    assert (ledger.kinds(), ledger.position, world.calls) == (["revoke.failed"], 1, [])
    [event] = ledger.events
    assert "extended" in (event.error or "") and "13:00:00" in (event.error or "")
    history = CommandHistory()
    apply(history, "test.example", read_datum(EventEncoder().encode(event)))
    assert history.ended == {command().key: FinalStatus.superseded}


def test_a_command_waits_for_the_end_of_another_grant_of_the_access() -> None:
    ledger, world, clock = Ledger(), World({"g1"}), Clock()
    clock.at = AFTER
    until = AFTER + timedelta(minutes=5)
    revoker = start(ledger, world, clock, running=running((given("g2", until), AFTER)))
    revoker.take(command(), 0, NOON)
    looked = 0
    while clock.at < until:
        assert ledger.events == [] and world.calls == []
        looked += revoker.step()
        clock.at += SECOND
    assert looked == 5, "it looked each minute"
    assert revoker.step() and world.there == set() and ledger.position == 1
    assert ledger.kinds()[-2:] == ["revoke.confirmed", "grant.revoked"]


def test_an_access_that_is_held_for_too_long_is_left_to_a_person() -> None:
    ledger, world, clock = Ledger(), World({"g1"}), Clock()
    revoker = start(ledger, world, clock, running=running((given("g2", NOON + 3 * HOUR), AFTER)))
    revoker.take(command(), 0, NOON)
    while not ledger.events:
        revoker.step()
        clock.at += SECOND
    assert clock.at - NOON > HOUR and world.calls == [] and ledger.position == 1
    assert ledger.kinds() == ["revoke.failed"] and "g2" in (ledger.events[0].error or "")


def test_a_clock_that_is_behind_the_watchs_makes_no_command_void() -> None:
    ledger, world, clock = Ledger(), World({"g1"}), Clock()
    clock.at = NOON - 5 * SECOND
    # The deadline is noon, and was told before the command came; here it is not noon yet.
    revoker = start(ledger, world, clock, running=running((given("g1", NOON), BEFORE), now=clock.at))
    revoker.take(command(), 0, NOON)
    assert revoker.step() and ledger.events == [] and world.calls == []
    clock.at = NOON
    assert revoker.step() and world.calls == ["g1"] and ledger.kinds()[-1] == "grant.revoked"


def test_a_grant_that_begins_between_two_attempts_is_not_torn_down() -> None:
    ledger, world, clock, known = Ledger(), World({"g1"}), Clock(), RunningGrants()
    world.answers = [Attempt(AttemptStatus.retry, "busy")]
    revoker = start(ledger, world, clock, running=known)
    revoker.take(command(), 0, NOON)
    revoker.step()
    assert world.calls == ["g1"] and world.there == {"g1"}
    add(known, given("g2", LATER), AFTER, clock.at)
    clock.at += timedelta(minutes=10)
    assert revoker.step() and world.calls == ["g1"] and world.there == {"g1"}


POSTGRESQL = EnforcementPolicy.model_validate(
    {
        "targets": {
            "orders-db": {
                "plugin": "postgresql",
                "conninfo": "host=db",
                "strip_domain": "example.com",
                "actions": [
                    {"entitlement": "read*", "roles": ["orders_rw", "orders_ro"]},
                    {"entitlement": "look", "roles": ["orders_ro"]},
                    {"entitlement": "admin", "roles": ["orders_owner"], "nologin": True},
                    {
                        "entitlement": "repair*",
                        "privileges": [
                            {"privileges": ["SELECT", "UPDATE"], "on": "table", "name": ["public", "orders"]}
                        ],
                    },
                    {
                        "entitlement": "count",
                        "privileges": [{"privileges": ["SELECT"], "on": "table", "name": ["public", "orders"]}],
                    },
                ],
            },
            "other": {"plugin": "exec", "command": ["/bin/true"]},
        },
        "routes": [
            {"target": "orders-db", "resource_id": "orders*", "environment": "", "sources": ["bot/*"]},
            {"target": "other", "sources": ["bot/*"]},
        ],
    }
)


@pytest.mark.parametrize(
    ("taken", "other", "shared"),
    [
        ("readonly", {"entitlement": "readwrite"}, True),
        ("readonly", {"entitlement": "look", "resource": Resource("database", "orders-2")}, True),
        ("readonly", {"entitlement": "look", "subject": Subject("alice@example.com", "human")}, True),
        ("readonly", {"entitlement": "look", "subject": Subject("alice@example.org", "human")}, False),
        ("readonly", {"entitlement": "look", "resource": Resource("database", "billing")}, False),
        ("readonly", {"entitlement": "look", "resource": Resource("database", "orders", "test")}, False),
        ("readonly", {"entitlement": "admin"}, False),
        ("readonly", {"entitlement": "nothing here"}, False),
        ("admin", {"entitlement": "look"}, True),
        ("repair", {"entitlement": "count"}, True),
        ("look", {"entitlement": "count"}, False),
    ],
)
def test_access_that_is_equal_in_the_database_is_kept_for_another_grant(
    taken: str, other: dict[str, object], shared: bool
) -> None:
    asked = command(entitlement=taken, resource=Resource("database", "orders"))
    route = POSTGRESQL.route(asked, signed=False)
    assert route is not None and route.target == "orders-db"
    # Also without an end, and before the asked: the watch compares no policies of ours.
    for known in (running((given("g2", LATER, **other), BEFORE)), running((given("g2", None, **other), BEFORE))):
        found = known.covering(asked, NOON, AFTER, partial(POSTGRESQL.shared, asked, route))
        assert (found is not None) == shared
        assert known.covering(asked, NOON, AFTER, partial(POSTGRESQL.shared, asked, POSTGRESQL.routes[1])) is None


@pytest.mark.parametrize("access", [{"entitlement": "readonly"}, {"entitlement": "look"}])
def test_a_source_that_no_route_names_keeps_no_access(access: dict[str, object]) -> None:
    """A fake grant of the same access, or of another one that is the same role in the database."""
    asked = command(entitlement="readonly", resource=Resource("database", "orders"))
    for sources, signed, keeps in (
        (["bot/*"], False, False),
        (["bot/*"], True, False),
        (["bot/*", "rogue/*"], False, True),
        ([], False, False),
        ([], True, True),
    ):
        policy = POSTGRESQL.model_copy(
            update={"routes": (Route(target="orders-db", sources=tuple(sources)), POSTGRESQL.routes[1])}
        )
        known = RunningGrants()
        add(known, given("g2", LATER, "grant.activated", source=ROGUE, **access), AFTER, AFTER, signed=signed)
        found = known.covering(asked, NOON, AFTER, partial(policy.shared, asked, policy.routes[0]))
        assert (found is not None) == keeps
