"""The spool of the query log: durable, bounded, in order, and complete after a kill between any two steps."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grantledger.console.person_statement import (
    MAX_TEXT_BYTES,
    Completion,
    PersonStatement,
    SpooledStatement,
    executed_event,
)
from grantledger.console.query_spool import FILE, QuerySpool, QuerySpoolError, SpoolFullError
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.rules import check

AT = datetime(2026, 7, 1, 12, 0, 0, 123456, UTC)
DONE = Completion("success", 3, 12)


def statement(text: str = "SELECT 1", /, **parameters: str) -> PersonStatement:
    return PersonStatement.shortened(AT, "analyst", text, parameters, "127.0.0.1")


def spool_in(folder: Path, statements: int = 1000, size: int = 1 << 20) -> QuerySpool:
    return QuerySpool(folder / "spool", statements, size)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[QuerySpool]:
    spool = spool_in(tmp_path)
    yield spool
    spool.close()


def texts(spool: QuerySpool) -> list[str]:
    return [one.statement.text for one in spool.oldest(100)]


def test_a_statement_returns_as_it_was(spool: QuerySpool) -> None:
    given = statement("SELECT 'ä\0'", name="O'Hara", empty="")
    spool.complete(spool.begin(given), Completion("failure", None, 7, "TIMEOUT_EXCEEDED: too slow"))
    [found] = spool.oldest(10)
    assert found.statement == given
    assert found.statement.parameters == ("name=O'Hara", "empty=")
    assert found.completion == Completion("failure", None, 7, "TIMEOUT_EXCEEDED: too slow")


def test_a_beginning_is_on_disk_when_it_returns(tmp_path: Path, spool: QuerySpool) -> None:
    """Another process reads it, and the file syncs at each commit."""
    spool.begin(statement("SELECT secret"))
    other = sqlite3.connect(f"file:{tmp_path / 'spool' / FILE}?mode=ro", uri=True)
    assert other.execute("SELECT text, completed FROM statements").fetchall() == [("SELECT secret", None)]
    other.close()
    assert spool._database is not None
    assert spool._database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert spool._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_only_its_owner_can_read_it(tmp_path: Path, spool: QuerySpool) -> None:
    spool.begin(statement())
    folder = tmp_path / "spool"
    files = list(folder.iterdir())
    assert len(files) >= 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_statements_are_published_in_the_order_of_completion(spool: QuerySpool) -> None:
    """A statement that runs for minutes delays no other."""
    slow, fast, last = (spool.begin(statement(text)) for text in ("slow", "fast", "last"))
    spool.complete(fast, DONE)
    assert texts(spool) == ["fast"]
    spool.complete(last, DONE)
    spool.complete(slow, DONE)
    assert texts(spool) == ["fast", "last", "slow"]
    assert [one.statement.text for one in spool.oldest(2)] == ["fast", "last"]
    spool.remove(spool.oldest(2))
    assert texts(spool) == ["slow"]


def test_a_kill_between_any_two_steps_loses_and_duplicates_nothing(tmp_path: Path) -> None:
    killed = spool_in(tmp_path)
    killed.begin(statement("running"))
    killed.complete(killed.begin(statement("complete")), DONE)
    removed = killed.begin(statement("acknowledged"))
    killed.complete(removed, DONE)
    published = [one for one in killed.oldest(10) if one.number != removed]  # their acknowledgement never arrived
    killed.remove([one for one in killed.oldest(10) if one.number == removed])

    after = spool_in(tmp_path)
    found = after.oldest(10)
    assert [(one.statement.text, one.completion.outcome) for one in found] == [
        ("complete", "success"),
        ("running", "unknown"),
    ]
    again = spool_in(tmp_path)
    assert again.oldest(10) == found
    # What is published again is the same record, byte for byte: readers see no second statement.
    assert [record(one) for one in found[:1]] == [record(one) for one in published]
    # Numbers are never used again, although the highest one is no longer on the spool.
    assert again.begin(statement("next")) == removed + 1


def record(spooled: SpooledStatement) -> bytes:
    return EventEncoder().encode(executed_event("test.example", spooled))


def test_running_statements_survive_an_error_of_the_file(tmp_path: Path, spool: QuerySpool) -> None:
    """The file is opened again, and what this process still runs is not completed as unknown."""
    number = spool.begin(statement("running"))
    break_once(spool)
    with pytest.raises(QuerySpoolError, match="cannot be written"):
        spool.begin(statement("refused"))
    assert texts(spool) == []
    spool.complete(number, DONE)
    assert [one.completion for one in spool.oldest(10)] == [DONE]


def test_a_completion_that_cannot_be_written_is_written_later(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    number = spool.begin(statement())
    break_once(spool)
    spool.complete(number, DONE)
    spool.close()
    assert [one.completion for one in spool_in(tmp_path).oldest(10)] == [DONE]


def break_once(spool: QuerySpool) -> None:
    assert spool._database is not None
    spool._database.execute("PRAGMA query_only = ON")


def test_the_number_of_statements_is_bounded(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, statements=2)
    numbers = [spool.begin(statement()) for _ in range(2)]
    for again in (spool, spool_in(tmp_path, statements=2)):
        with pytest.raises(SpoolFullError, match="full: 2 statements wait for Kafka"):
            again.begin(statement())
    # Those that run are completed, and room is for others once they are acknowledged.
    spool.complete(numbers[1], DONE)
    spool.remove(spool.oldest(10))
    assert spool.begin(statement()) == 3


def test_the_bytes_are_bounded_with_the_file(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, statements=10_000, size=1 << 20)
    number = 0
    with pytest.raises(SpoolFullError):
        while True:
            number = spool.begin(statement("x" * 20_000))
            spool.complete(number, Completion("failure", None, 1, "y" * 1024))
    assert 50 < number <= (1 << 20) / MAX_TEXT_BYTES
    assert (tmp_path / "spool" / FILE).stat().st_size < 2 << 20
    while found := spool.oldest(100):
        spool.remove(found)
    assert spool.begin(statement("x" * 20_000))


def test_a_file_that_is_no_spool_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    path = tmp_path / "spool" / FILE
    path.write_bytes(b"something else" * 1000)
    with pytest.raises(QuerySpoolError, match="cannot be written"):
        spool_in(tmp_path).begin(statement())
    assert path.read_bytes() == b"something else" * 1000
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(QuerySpoolError):
        spool_in(tmp_path).begin(statement())


TEXT = st.text(max_size=40) | st.builds(
    lambda size, char: size * char, st.integers(0, 20_000), st.sampled_from("xä€😀\0\ud800")
)


@settings(max_examples=60, deadline=None)
@given(text=TEXT, parameters=st.dictionaries(TEXT, TEXT, max_size=3))
def test_any_text_becomes_a_valid_event_of_bounded_size(text: str, parameters: dict[str, str]) -> None:
    found = statement(text, **parameters)
    kept = [found.text, *found.parameters]
    assert sum(len(part.encode()) for part in kept) <= MAX_TEXT_BYTES
    whole = len(text.encode("utf-8", "replace")) + sum(
        len(f"{name}={value}".encode("utf-8", "replace")) for name, value in parameters.items()
    )
    assert found.truncated == (whole > MAX_TEXT_BYTES)
    event = executed_event("test.example", SpooledStatement("s", 1, bytes(16), found, DONE))
    check(event)
    assert len(EventEncoder().encode(event)) < found.size
    assert event.topic == "access.queries" and event.key == "analyst"


STEPS = st.lists(st.sampled_from(["begin", "complete", "publish", "remove", "kill"]), max_size=30)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_each_statement_is_published_at_least_once_and_as_one_event(steps: list[str]) -> None:
    """Whatever the order of beginnings, completions, publications, acknowledgements and kills."""
    with TemporaryDirectory() as folder:
        spool = spool_in(Path(folder))
        begun, running, published, unacknowledged = [], [], {}, []

        def publish() -> None:
            unacknowledged[:] = spool.oldest(2)
            for one in unacknowledged:
                event = executed_event("test.example", one)
                assert published.setdefault(one.number, record(one)) == record(one)
                assert event.event_id

        for step in [*steps, "kill"]:
            if step == "begin":
                running.append(spool.begin(statement(str(len(begun)))))
                begun.append(running[-1])
            elif step == "complete" and running:
                spool.complete(running.pop(0), DONE)
            elif step == "publish":
                publish()
            elif step == "remove":
                spool.remove(unacknowledged)
                unacknowledged.clear()
            elif step == "kill":
                spool = spool_in(Path(folder))
                running.clear()
                unacknowledged.clear()
        while spool.oldest(1):
            publish()
            spool.remove(unacknowledged)
        assert sorted(published) == begun == list(range(1, len(begun) + 1))
        spool.close()
