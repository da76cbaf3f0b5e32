"""Events in the name of a registered source that it did not sign: on record, counted, and without effect."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.source_keys import SourceKeys
from grantledger.schemas.event import Event, EventSource, IssuingSource
from support.sources import Registrar, at_ms, key_of
from support.watch_world import START, Paper, World, grant

VAULT = LocalSigner.generate()


@pytest.fixture
def world() -> World:
    registrar = Registrar("test")
    registrar.init()
    registrar.register("vault", "prod", [key_of(VAULT)], 0)
    paper = Paper()
    paper.keys = registrar.keys
    return World(paper)


def opened(world: World) -> list[str]:
    return sorted(rule for kind, rule in world.paper.findings() if kind == "finding.opened")


@pytest.mark.parametrize("by", [None, LocalSigner.generate()])
def test_nobody_else_removes_or_extends_the_grant_of_a_registered_source(world: World, by: LocalSigner | None) -> None:
    world.signer = VAULT
    world.hears(grant("grant.activated", 0, expires_at=at_ms(START // 1000 + 60_000), expiry_source="native"))
    world.signer = by
    world.hears(
        grant("grant.extended", 10, expires_at=at_ms(START // 1000 + 900_000), expiry_source="native"),
        grant("grant.revoked", 20, removal_evidence="confirmed"),
    )
    world.paper.end_offset = world.records
    for second in (100, 102, 104):
        world.at(second)
    assert opened(world) == ["overdue", "unsigned_source"]
    [found] = [
        event for topic, event in world.paper.said
        if topic == "access.findings" and event.finding and event.finding.rule == "unsigned_source"
    ]  # fmt: skip
    assert found.finding is not None and '"count": 2' in found.finding.evidence
    mistake = "the record has no signature" if by is None else "is not one of this source (registered: "
    assert mistake in found.finding.evidence


def test_the_source_itself_does(world: World) -> None:
    world.signer = VAULT
    world.hears(
        grant("grant.activated", 0, expires_at=at_ms(START // 1000 + 60_000), expiry_source="native"),
        grant("grant.revoked", 20, removal_evidence="confirmed"),
    )
    for second in (100, 102):
        world.at(second)
    assert opened(world) == []


def test_nobody_reports_a_removal_as_the_enforcer(world: World) -> None:
    world.signer = VAULT
    world.hears(grant("grant.activated", 0, expires_at=at_ms(START // 1000 + 60_000), expiry_source="native"))
    forged = grant("grant.revoked", 20, removal_evidence="confirmed")
    world.hears(replace(forged, event_id="", source=EventSource("grantledger-enforcer", "test", "x", "revocation")))
    for second in (100, 102):
        world.at(second)
    assert opened(world) == ["overdue", "unsigned_source"]


def given(at: float, ends: float, event_type: str = "grant.activated") -> Event:
    """A grant until ``ends``, given at a time by the source's clock; times in seconds."""
    return grant(event_type, at, expires_at=at_ms(START // 1000 + int(ends * 1000)), expiry_source="native")


def revoked(at: float, evidence: str = "confirmed") -> Event:
    return grant("grant.revoked", at, removal_evidence=evidence)


def deadlines(world: World) -> list[float]:
    """Return the deadlines of the open overdue findings, in seconds from the start."""
    found = {
        event.finding.deadline: event.event_type == "finding.opened"
        for _, event in world.paper.said
        if event.event_type.startswith("finding.") and event.finding and event.finding.rule == "overdue"
    }
    return [time.timestamp() - START / 1_000_000 for time, is_open in found.items() if time and is_open]


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("signer", [VAULT, None])
@pytest.mark.parametrize("old", [revoked(20), given(20, 900, "grant.extended")])
def test_an_old_record_changes_nothing_that_its_source_gave_since(
    world: World, old: Event, signer: LocalSigner | None, restarts: bool
) -> None:
    if signer is None:
        world.paper.keys = SourceKeys("test")
    world.signer = signer
    world.hears(given(0, 10), revoked(15), given(30, 60))
    world.hears_at(40, old)
    if restarts:
        world.paper.sealed_log.clear()  # only the snapshot is left
        world = World(world.paper)
    for second in (80, 82):
        world.at(second)
    # Without a registration, the order of the log decides.
    assert deadlines(world) == ([60] if signer else [])


def test_reports_of_the_same_second_and_later_ones_act(world: World) -> None:
    world.signer = VAULT
    world.hears(given(30.5, 60))
    world.hears_at(40, given(30, 70, "grant.extended"))  # a time in whole seconds
    world.at(75)
    assert deadlines(world) == []
    world.hears_at(79, revoked(30))
    for second in (90, 92):
        world.at(second)
    assert deadlines(world) == []


def test_many_old_removals_hide_no_later_one(world: World) -> None:
    world.signer = VAULT
    world.hears(given(30, 60))
    for at in (10, 20, 25, 40, 15, 41, 28):
        world.hears_at(50 + at / 10, revoked(at))
    [kept] = world.watch.judge.state.grants.values()
    assert [one.occurred // 1_000_000 - START // 1_000_000 for one in kept.removals] == [10, 25, 40, 41, 28]
    for second in (80, 82):
        world.at(second)
    assert deadlines(world) == []


def test_the_removal_of_an_enforcer_has_another_clock(world: World) -> None:
    registrar = Registrar("test")
    enforcer = registrar.init("grantledger-enforcer")["grantledger-enforcer"]
    world.paper.keys = registrar.keys
    world.hears(given(30, 60))
    world.signer = enforcer
    by = EventSource("grantledger-enforcer", "test", "x", "revocation")
    world.hears_at(
        40, replace(revoked(29), event_id="", source=by, grant_source=IssuingSource("vault", "prod"), outcome="success")
    )
    for second in (80, 82):
        world.at(second)
    assert deadlines(world) == []
