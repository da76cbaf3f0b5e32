"""Statements of people are on the spool before their answers are sent; our own readers are counted only."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from grantledger.console.address import EndpointCredential
from support.sql_endpoint import LATE_FAILURE, Owner, assert_refused, post
from support.waiting import wait_for


@pytest.fixture
def limited(owner: Owner) -> Iterator[Owner]:
    yield owner
    owner.limit_spool()


def found(owner: Owner, marker: str) -> list[tuple[str, str | None, int | None, str | None]]:
    """Return user, outcome, rows and error of the statements with a text, once all have ended."""
    quoted = f"'{marker}'"
    wait_for(lambda: all(row[2] is not None for row in owner.spooled() if quoted in row[1]), "the statements ended")
    return [(user, outcome, rows, error) for user, text, outcome, rows, error in owner.spooled() if quoted in text]


def test_a_statement_is_recorded_with_its_rows_and_outcome(owner: Owner) -> None:
    assert post(owner, "SELECT number, 'm1' FROM numbers(7)")[0] == 200
    assert post(owner, "SELECT count(), 'm1' FROM events", credential=owner.address.auditor)[0] == 200
    assert post(owner, "DESCRIBE TABLE (SELECT 'm1')")[0] == 200
    assert found(owner, "m1") == [
        ("analyst", "success", 7, ""),
        ("auditor", "success", 1, ""),
        ("analyst", "success", None, ""),
    ]


def test_refused_and_failed_statements_are_recorded(owner: Owner) -> None:
    assert_refused(owner, "SELECT file('/etc/passwd'), 'm2'")
    assert_refused(owner, "SELECT 'm2' SETTINGS max_threads = 8")
    assert_refused(owner, "SELECT 'm2'", max_memory_usage="99999999999")
    assert_refused(owner, "SELECT 'm2', nope")
    rows = found(owner, "m2")
    assert [row[:3] for row in rows] == [("analyst", "denied", None)] * 3 + [("analyst", "failure", None)]
    codes = [str(row[3]).split(":")[0] for row in rows]
    assert codes == ["ACCESS_DENIED", "READONLY", "READONLY", "UNKNOWN_IDENTIFIER"]
    with pytest.raises(http.client.IncompleteRead):
        post(owner, f"SELECT {LATE_FAILURE}, 'm3' FROM numbers(4000000)")
    [(_, outcome, count, error)] = found(owner, "m3")
    assert (outcome, count) == ("failure", None) and str(error).startswith("FUNCTION_THROW_IF_VALUE_IS_NON_ZERO")


def test_statements_without_a_password_are_counted_only(owner: Owner) -> None:
    assert post(owner, "SELECT 'm4'", credential=EndpointCredential("analyst", "wrong"))[0] == 403
    assert found(owner, "m4") == []


def test_the_statement_is_on_disk_before_the_first_row_is_sent(owner: Owner) -> None:
    """While its answer is being read, the file has it; when the client leaves, it is complete."""
    credential = owner.address.analyst
    with closing(http.client.HTTPConnection(owner.address.host, owner.address.port, timeout=30)) as client:
        address = f"/?user={credential.user}&password={credential.password}"
        client.request("POST", address, "SELECT number, 'm5' FROM numbers(1e12)")
        assert client.getresponse().read(1) == b"0"
        assert [row[2] for row in owner.spooled() if "m5" in row[1]] == [None]
    [(user, outcome, rows, error)] = found(owner, "m5")
    assert (user, outcome, rows) == ("analyst", "failure", None)
    assert str(error).startswith("the client closed its connection after ")


def test_a_full_spool_refuses_people_and_not_our_own_readers(limited: Owner) -> None:
    limited.limit_spool(0)
    status, headers, body = post(limited, "SELECT 'm6' FROM events")
    assert (status, headers["X-ClickHouse-Exception-Code"], headers["Retry-After"]) == (503, "290", "10")
    assert b"m6" not in body and b"the query log is full" in body
    assert post(limited, "SELECT 1", credential=limited.address.auditor)[0] == 503
    assert post(limited, "SELECT count() > 0 FROM entries", credential=limited.address.reader)[::2] == (200, b"1\n")
    limited.limit_spool()
    assert post(limited, "SELECT 'm6'")[::2] == (200, b"m6\n")
    assert len(found(limited, "m6")) == 1


def test_a_spool_that_cannot_be_written_refuses_people(owner: Owner) -> None:
    assert post(owner, "SELECT 'before'")[0] == 200
    assert found(owner, "before")
    owner.fail_spool()
    assert post(owner, "SELECT 1", credential=owner.address.reader)[0] == 200
    status, headers, body = post(owner, "SELECT 'm0'")
    assert (status, headers["Retry-After"]) == (503, "10")
    assert b"the query log cannot be written" in body and b"m0" not in body
    # The file is opened again.
    assert post(owner, "SELECT 'm0'")[::2] == (200, b"m0\n")
    assert found(owner, "m0") == [("analyst", "success", 1, "")]


def test_our_own_readers_are_not_recorded(owner: Owner) -> None:
    assert post(owner, "SELECT 'm7'", credential=owner.address.reader)[0] == 200
    assert found(owner, "m7") == []


def test_values_of_parameters_are_recorded(owner: Owner) -> None:
    assert post(owner, "SELECT 'm8', {who:String}", param_who="bob")[2] == b"m8\tbob\n"
    long = "SELECT 'm8', '" + "x" * 20_000 + "'"
    assert post(owner, long)[0] == 200
    assert len(found(owner, "m8")) == 2
    assert max(len(text) for _, text, *_ in owner.spooled()) == 16 << 10


def test_only_auditors_read_the_query_log(owner: Owner) -> None:
    for statement in (
        "SELECT * FROM query_log",
        "SELECT 1 IN query_log",
        "SELECT * FROM view(SELECT * FROM audit.query_log)",
        "SELECT * FROM (SELECT 1) AS a, query_log",
        "EXPLAIN PIPELINE SELECT * FROM query_log",
    ):
        assert "query_log" in assert_refused(owner, statement, 497)
        if not statement.startswith("SELECT 1 IN"):
            assert post(owner, statement, credential=owner.address.auditor)[0] == 200, statement
    # An auditor is no reader of our own.
    assert post(owner, "SELECT * FROM entries", credential=owner.address.auditor)[0] == 403
    mixed = EndpointCredential("auditor", owner.address.analyst.password)
    assert post(owner, "SELECT 1", credential=mixed)[0] == 403


def test_concurrent_statements_are_all_recorded(owner: Owner) -> None:
    threads = [threading.Thread(target=post, args=(owner, f"SELECT 'm9', {number}")) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row[1:3] for row in found(owner, "m9")] == [("success", 1)] * 20
