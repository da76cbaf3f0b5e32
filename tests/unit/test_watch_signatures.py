"""Events in the name of a registered source that it did not sign: on record, counted, and without effect."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grantledger.ledger.keys import LocalSigner
from grantledger.schemas.event import Source
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
    world.hears(replace(forged, event_id="", source=Source("grantledger-enforcer", "test", "x", "revocation")))
    for second in (100, 102):
        world.at(second)
    assert opened(world) == ["overdue", "unsigned_source"]
