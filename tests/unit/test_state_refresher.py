"""The thread that refreshes the states: it outlives an outage of ClickHouse, and the store does not outlive it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from grantledger.base.health import HEALTH
from grantledger.sinks import state_refresher
from grantledger.sinks.clickhouse import StoreAddress, StoreUnavailableError
from grantledger.sinks.state_refresher import LOOP, StateRefresher
from support.waiting import wait_for

ADDRESS = StoreAddress(Path(), url="http://clickhouse:8123")


class FakeStates:
    """Counts refreshes, and fails if asked to."""

    computing = False
    refreshes = 0
    error: Exception | None = None

    def __init__(self, _client: object) -> None:
        pass

    def grows(self) -> bool:
        return False

    def refresh(self, _most: int | None) -> bool:
        if FakeStates.error is not None:
            raise FakeStates.error
        FakeStates.refreshes += 1
        return False


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Reasons for which the next connections are refused."""
    reasons: list[str] = []

    @contextmanager
    def connect(_address: StoreAddress) -> Iterator[Any]:
        if reasons:
            raise StoreUnavailableError(reasons.pop(0))
        yield None

    monkeypatch.setattr(state_refresher, "connect", connect)
    monkeypatch.setattr(state_refresher, "States", FakeStates)
    monkeypatch.setattr(state_refresher, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(state_refresher, "INTERVAL", 0.01)
    monkeypatch.setattr(FakeStates, "refreshes", 0)
    monkeypatch.setattr(FakeStates, "error", None)
    HEALTH.begin()
    return reasons


def waits() -> list[str]:
    return [one.text for one in HEALTH.conditions() if one.name == LOOP]


def test_it_connects_again_and_again_while_clickhouse_is_away(
    refused: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused.extend(["cannot be reached: Connection refused"] * 3)
    seen: list[list[str]] = []
    refresher = StateRefresher(ADDRESS, lambda: bool(seen.append(waits())) or True)
    refresher.start()
    wait_for(lambda: FakeStates.refreshes >= 2, "it refreshes")
    refresher.check()
    refresher.stop()
    assert refused == []
    assert "cannot be reached: Connection refused" in seen[0][0], "until the first refresh has succeeded"
    assert seen[1] == [] == waits()


def test_an_unexpected_error_is_not_kept_from_the_store(refused: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    FakeStates.error = KeyError("a mistake of ours")
    refresher = StateRefresher(ADDRESS, lambda: True)
    refresher.start()

    def ended() -> bool:
        try:
            refresher.check()
        except KeyError:
            return True
        return False

    wait_for(ended, "the store hears of it")
    refresher.stop()
