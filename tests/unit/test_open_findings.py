"""How many findings are open, as `up` shows it: a store that does not answer is no store without findings."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from grantledger.cli.stack_view import TroubleLog
from grantledger.cli.status_table import status_line, status_table
from grantledger.runtime import open_findings as module
from grantledger.runtime.open_findings import FindingCount, OpenFindings
from grantledger.runtime.settings import load_settings
from grantledger.runtime.status import Status
from grantledger.sinks.clickhouse import Ask, Row, StoreUnavailableError
from support.waiting import wait_for


class Store:
    """Answers, or does not."""

    def __init__(self) -> None:
        self.count = (3, 1)
        self.processed = 7
        self.answers = threading.Event()
        self.asked = self.counted = 0

    @contextmanager
    def ask_store(self, _settings: object, **_how: object) -> Iterator[Ask]:
        yield self.ask

    def ask(self, sql: str) -> list[Row]:
        self.asked += 1
        if not self.answers.is_set():
            raise StoreUnavailableError("starting")
        if "state_refreshes" in sql:
            return [{"generation": 1, "processed": self.processed}]
        self.counted += 1
        return [{"total": self.count[0], "critical": self.count[1]}]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()
    monkeypatch.setattr(module, "ask_store", store.ask_store)
    return store


def test_it_is_known_once_the_store_answers(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    monkeypatch.setattr(module, "SHARE", 1.0)
    counted = OpenFindings(load_settings(tmp_path))
    try:
        wait_for(lambda: store.asked > 0, "the store is asked")
        assert counted.count is None
        store.answers.set()
        wait_for(lambda: counted.count == (3, 1), "the count is known")
        asked = store.asked
        wait_for(lambda: store.asked > asked + 3, "the store is asked again")
        assert store.counted == 1, "nothing has changed"
        store.count, store.processed = (3, 2), 8
        wait_for(lambda: counted.count == (3, 2), "the view has changed, although no finding is new")
        store.count, store.processed = (0, 0), 9
        wait_for(lambda: counted.count == (0, 0), "the count is a new one")
        store.answers.clear()
        wait_for(lambda: counted.count is None, "an old count is not shown for ever")
    finally:
        counted.stop()


def test_a_slow_store_delays_the_count_by_seconds_only() -> None:
    assert [module.pause_after(took) for took in (0.01, 0.3, 4.0)] == pytest.approx([5, 6, 8])


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (None, "unknown"),
        (FindingCount(0, 0), "0"),
        (FindingCount(1204, 0), "1,204"),
        (FindingCount(1204, 13), "1,204 (13 critical)"),
    ],
)
def test_the_status_counts_critical_findings_separately(count: FindingCount | None, words: str) -> None:
    status = Status(5, 4, 3, None, datetime.now(UTC), count, (), {"seal": "seal has stopped: why"})
    assert status_line(status).endswith(f", open findings {words}")
    [table, trouble] = status_table(status).renderables
    assert isinstance(table, Table) and str(trouble) == "seal has stopped: why"
    [column] = [column for column in table.columns if column.header == "open findings"]
    [cell] = column.cells
    assert str(cell) == words
    assert getattr(cell, "style", "") == ("red" if "critical" in words else "")


def test_a_trouble_is_printed_once_until_it_changes_or_ends() -> None:
    output = io.StringIO()
    troubles = TroubleLog(Console(file=output, width=200))

    def printed(**of: str) -> list[str]:
        output.seek(0)
        output.truncate()
        troubles.show(Status(5, 4, 3, None, None, None, (), of))
        return [line.partition(" ")[2] for line in output.getvalue().splitlines()]

    assert printed() == []
    assert printed(store="store is down: why") == ["TROUBLE store is down: why"]
    assert printed(store="store is down: why") == []
    assert printed(store="store was restarted once: why", seal="seal is down") == [
        "TROUBLE store was restarted once: why",
        "TROUBLE seal is down",
    ]
    assert printed(seal="seal is down") == ["store is well again"]
    assert printed() == ["seal is well again"]
