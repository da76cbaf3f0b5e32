"""Errors, limits and concurrent queries of the SQL endpoint."""

from __future__ import annotations

import base64
import contextlib
import http.client
import threading
import time
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from grantledger.console.address import read_address
from grantledger.console.sql_gate import MAX_QUERY_BYTES
from support.sql_endpoint import LATE_FAILURE, SECRET, Owner, assert_refused, post
from support.waiting import wait_for


def test_errors_have_clickhouse_codes(owner: Owner, client: Any) -> None:
    status, headers, body = post(owner, "SELECT 1\n  FROM )", query_id="my-id")
    assert (status, headers["X-ClickHouse-Exception-Code"], headers["X-ClickHouse-Query-Id"]) == (400, "62", "my-id")
    assert body.startswith(b"Code: 62. DB::Exception: Syntax error: failed at position 17 ())")
    assert b"(SYNTAX_ERROR) (version 26." in body
    with pytest.raises(DatabaseError) as caught:
        client.query("SELECT * FROM nowhere")
    assert (caught.value.code, caught.value.name) == (60, "UNKNOWN_TABLE")
    assert_refused(owner, "SELECT {x:UInt8}", 456)
    assert_refused(owner, "SELECT {x:UInt8}", 457, param_x="1; DROP")


def test_answers_after_an_error_are_complete(owner: Owner, client: Any) -> None:
    """The engine puts what is left of a failed answer in front of the next one on that handle."""
    failing = f"SELECT {LATE_FAILURE}, number FROM numbers(4000000)"
    assert owner.ask("drain", failing) != "1\n"
    for output_format in ("Native", "JSON", "ArrowStream"):
        with pytest.raises((DatabaseError, clickhouse_connect.driver.exceptions.OperationalError)):
            client.raw_query(failing, fmt=output_format)
        assert client.query("SELECT 1").result_rows == [(1,)]


def test_an_error_in_the_middle_of_an_answer_is_detected(owner: Owner, client: Any) -> None:
    sql = f"SELECT {LATE_FAILURE} FROM numbers(4000000)"
    with pytest.raises(http.client.IncompleteRead) as caught:
        post(owner, sql)
    assert b"__exception__" in caught.value.partial
    assert b"Code: 395." in caught.value.partial
    with (
        pytest.raises((DatabaseError, clickhouse_connect.driver.exceptions.Error)),
        client.query_row_block_stream(sql) as blocks,
    ):
        for _ in blocks:
            pass


def test_a_wrong_password_is_rejected_before_parsing(owner: Owner) -> None:
    for headers, status in (
        ({"Authorization": "Basic " + base64.b64encode(b"analyst:wrong").decode()}, 403),
        ({"Authorization": "Basic ???"}, 403),
        ({"Authorization": "", "X-ClickHouse-User": owner.address.analyst.user}, 403),
        ({"Authorization": "Bearer x"}, 401),
    ):
        got, answered, body = post(owner, "\x00 not a query", headers)
        assert (got, answered["X-ClickHouse-Exception-Code"]) == (status, "516")
        assert b"AUTHENTICATION_FAILED" in body
    with pytest.raises(DatabaseError, match="AUTHENTICATION_FAILED"):
        clickhouse_connect.get_client(
            host=owner.address.host, port=owner.address.port, username="analyst", password="x"
        )


def test_a_huge_query_is_refused(owner: Owner) -> None:
    assert_refused(owner, "SELECT '" + "x" * MAX_QUERY_BYTES + "'", 229)
    assert_refused(owner, "SELECT '" + "x" * 5_000_000 + "'", 229)
    literal = "x" * (MAX_QUERY_BYTES - 100)
    assert post(owner, f"SELECT length('{literal}')")[2] == b"%d\n" % len(literal)
    # Not in the URL: a long one is rejected before it is parsed, and before the password is checked.
    assert post(owner, "SELECT 1", query="SELECT '" + "x" * MAX_QUERY_BYTES + "'")[0] == 431
    assert_refused(owner, "SELECT " + "(" * 100_000, None)


def test_limits_are_enforced(owner: Owner) -> None:
    assert_refused(
        owner, "SELECT count() FROM numbers(1e13) WHERE sipHash64(number) = 1", 159, max_execution_time="0.5"
    )
    assert_refused(owner, "SELECT groupArray(number) FROM numbers(1e9)", 241)
    assert_refused(owner, "SELECT number FROM numbers(100000) FORMAT JSON", 396, max_result_bytes="1000")


def test_long_queries_block_neither_other_queries_nor_inserts(owner: Owner) -> None:
    """All the others are done while these are still under way: no clock says what is quick on this machine."""
    long_query = "SELECT count() FROM numbers(1e13) WHERE sipHash64(number) = 1"
    ends: list[int] = []
    threads = [
        threading.Thread(target=lambda: ends.append(post(owner, long_query, max_execution_time="50")[0]))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    running = "SELECT query FROM system.processes WHERE query LIKE '%1e13%' AND query NOT LIKE '%processes%'"
    wait_for(lambda: len(owner.ask("names", running)) == 2, "both are under way")
    owner.ask("insert", "20")
    assert post(owner, "SELECT count() > 0 FROM events")[2] == b"1\n"
    assert not ends
    owner.ask("readonly", "KILL QUERY WHERE query LIKE '%1e13%' AND query NOT LIKE '%KILL%' ASYNC")
    for thread in threads:
        thread.join()
    assert len(ends) == 2 and 200 not in ends
    owner.ask("trim")


def test_a_disconnected_client_frees_its_thread(owner: Owner) -> None:
    endless = "SELECT count() FROM numbers(1e13) WHERE sipHash64(number) = 1"
    for sql in (endless, "SELECT number FROM numbers(1e13)"):
        for _ in range(6):
            client = http.client.HTTPConnection(owner.address.host, owner.address.port, timeout=0.2)
            with pytest.raises((TimeoutError, OSError)), contextlib.closing(client):
                credential = owner.address.analyst
                client.request("POST", f"/?user={credential.user}&password={credential.password}", sql)
                client.getresponse()
                raise TimeoutError
    assert post(owner, "SELECT 1")[2] == b"1\n"
    deadline = time.monotonic() + 55  # sooner than the queries end by themselves
    while owner.ask("names", "SELECT query FROM system.processes WHERE query NOT LIKE '%processes%'"):
        assert time.monotonic() < deadline, "queries of clients that left still run"
        time.sleep(0.1)


def test_a_client_that_does_not_read_is_disconnected(owner: Owner) -> None:
    """The engine waits for room in the pipe, where neither its time limit nor a cancellation reaches it."""
    clients = [_begun_answer(owner) for _ in range(4)]
    assert post(owner, "SELECT 1")[2] == b"1\n"
    for client in clients:
        client.close()


def _begun_answer(owner: Owner) -> http.client.HTTPConnection:
    """Return a client that has the first bytes of an endless answer. If others use all places, its time may run out."""
    credential = owner.address.analyst
    address = f"/?user={credential.user}&password={credential.password}&max_execution_time=8"
    while True:
        client = http.client.HTTPConnection(owner.address.host, owner.address.port)
        client.request("POST", address, "SELECT number FROM numbers(1e13)")
        if (status := client.getresponse().status) == 200:
            return client
        assert status == 408
        client.close()


def test_the_log_contains_no_query_and_no_secret(owner: Owner, client: Any) -> None:
    post(owner, "SELECT 'marker-of-a-query'", param_x="marker-of-a-value")
    assert_refused(owner, "SELECT nope_marker_of_an_error")
    with pytest.raises(http.client.IncompleteRead):
        post(owner, f"SELECT {LATE_FAILURE}, 'marker-of-a-failure' FROM numbers(4000000)")
    log = owner.log.read_text()
    assert "query " in log
    for marker in ("marker", owner.address.analyst.password, SECRET):
        assert marker not in log


def test_stop_cancels_running_queries(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    ended = threading.Event()

    def endless() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            post(owner, "SELECT count() FROM numbers(1e13) WHERE sipHash64(number) = 1")
        ended.set()

    threading.Thread(target=endless).start()
    time.sleep(0.5)
    assert owner.stop() == 0, owner.log.read_text()  # within 30 s; the query would go on for 60
    assert ended.wait(30)
    assert read_address(tmp_path) is None
