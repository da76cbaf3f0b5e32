"""Clients and output formats of the SQL endpoint."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from typing import Any

import pytest

from grantledger.console.native import decompress
from support.sql_endpoint import ROWS, Owner, assert_refused, connect, post


def test_clickhouse_connect(client: Any) -> None:
    assert client.query("SELECT count(), max(id) FROM events").result_rows == [(ROWS, ROWS - 1)]
    assert client.command("SELECT 7") == 7
    parameters = {"low": 10, "names": ["n11", "n'1\\2\n", "ü"], "text": "a\tb'c\\d\ne", "table": "events"}
    rows = client.query(
        "SELECT id, {text:String}, {names:Array(String)} FROM {table:Identifier} "
        "WHERE id > {low:UInt64} AND name IN {names:Array(String)}",
        parameters=parameters,
    ).result_rows
    assert rows == [(11, parameters["text"], parameters["names"])]
    assert client.query("SELECT id FROM events WHERE name = %(name)s", parameters={"name": "n5"}).result_rows == [(5,)]
    assert client.raw_query("SELECT id FROM events ORDER BY id LIMIT 2", fmt="CSVWithNames") == b'"id"\n0\n1\n'
    assert client.query("SELECT id, name FROM events LIMIT 0").column_names == ("id", "name")
    nothing = client.query("SELECT id, name FROM events WHERE id > 10000000")
    assert (nothing.column_names, nothing.result_rows) == (("id", "name"), [])


def test_clickhouse_connect_streams_and_frames(client: Any) -> None:
    table = client.query_arrow("SELECT * FROM events ORDER BY id")
    assert (table.num_rows, table.column("name")[ROWS - 1].as_py()) == (ROWS, f"n{ROWS - 1}")
    assert client.query_arrow("SELECT * FROM events WHERE id < 0").num_rows == 0
    with client.query_arrow_stream("SELECT id FROM events") as stream:
        assert sum(batch.num_rows for batch in stream) == ROWS
    frame = client.query_df("SELECT id, name, at FROM events ORDER BY id LIMIT 100000")
    assert (len(frame), frame["id"].sum()) == (100_000, 99_999 * 50_000)
    assert client.query_df("SELECT id, name FROM events WHERE id < 0").empty
    with client.query_row_block_stream("SELECT id FROM events ORDER BY id") as blocks:
        ids = [row[0] for block in blocks for row in block]
    assert ids == list(range(ROWS))


def test_long_parameters_in_a_form(owner: Owner) -> None:
    client = connect(owner, form_encode_query_params=True)
    text = "ü'\\\r\n" * 20_000
    assert client.query("SELECT {x:String} AS x", parameters={"x": text}).result_rows == [(text,)]
    client.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(owner: Owner) -> None:
    address = owner.address
    base = ["curl", "-sS", "--fail-with-body"]
    user = f"{address.analyst.user}:{address.analyst.password}"

    def curl(*arguments: str) -> tuple[int, str]:
        done = subprocess.run([*base, *arguments], capture_output=True, text=True, timeout=30, check=False)
        return done.returncode, done.stdout

    assert curl(f"{address.url}/ping") == (0, "Ok.\n")
    assert curl(address.url) == (22, curl(address.url)[1])
    assert curl("-u", user, address.url) == (0, "Ok.\n")
    assert curl("-u", user, address.url, "-d", "SELECT 1 AS a FORMAT JSONEachRow") == (0, '{"a":1}\n')
    assert curl("-u", user, "-G", address.url, "--data-urlencode", "query=SELECT {x:UInt8}", "-d", "param_x=5") == (
        0,
        "5\n",
    )
    keys = [
        "-H",
        f"X-ClickHouse-User: {address.analyst.user}",
        "-H",
        f"X-ClickHouse-Key: {address.analyst.password}",
    ]
    assert curl(*keys, address.url, "--data-binary", "SELECT 2") == (0, "2\n")
    assert curl(f"{address.url}/?user={address.analyst.user}&password={address.analyst.password}&query=SELECT+3") == (
        0,
        "3\n",
    )
    code, text = curl("-u", user, address.url, "-d", "SELECT nope")
    assert code == 22
    assert text.startswith("Code: 47. DB::Exception: Unknown expression identifier `nope`")


@pytest.mark.parametrize(
    "output_format",
    [
        *("TabSeparated", "TabSeparatedWithNames", "TabSeparatedWithNamesAndTypes", "TabSeparatedRaw"),
        *("CSV", "CSVWithNames", "JSONEachRow", "JSONCompactEachRow", "RowBinaryWithNamesAndTypes", "Native"),
        *("Arrow", "ArrowStream", "Parquet", "Pretty", "PrettyCompact", "Vertical", "Null"),
    ],
)
@pytest.mark.parametrize("rows", [1, 200_000])
def test_a_streamed_answer_equals_the_complete_one(owner: Owner, output_format: str, rows: int) -> None:
    if output_format.startswith("Pretty"):
        rows = min(rows, 100)  # more than that is cut into several tables, by the time they take
    sql = f'SELECT id AS "i_d", name FROM events WHERE id < {rows} ORDER BY id'
    whole = base64.b64decode(owner.ask("answer", f"{sql} FORMAT {output_format}"))
    status, headers, body = post(owner, sql, default_format=output_format)
    assert (status, headers["X-ClickHouse-Format"]) == (200, output_format)
    assert body == whole
    status, _, framed = post(owner, sql, default_format=output_format, compress="1")
    assert (status, decompress(framed, 1 << 30)) == (200, whole)


@pytest.mark.parametrize("output_format", ["JSON", "JSONCompact"])
def test_json_of_any_size_is_one_document(owner: Owner, output_format: str) -> None:
    sql = f"SELECT number, repeat('x', 1000) AS text FROM numbers(100000) FORMAT {output_format}"
    document = json.loads(post(owner, sql)[2])
    assert [column["name"] for column in document["meta"]] == ["number", "text"]
    assert (document["rows"], len(document["data"])) == (100_000, 100_000)


def test_an_answer_without_rows_has_names_and_types(owner: Owner) -> None:
    sql = "SELECT id, name FROM events WHERE id < 0"
    assert post(owner, sql, default_format="TSVWithNamesAndTypes")[2] == b"id\tname\nUInt64\tString\n"
    assert post(owner, sql, default_format="CSVWithNames")[2] == b'"id","name"\n'
    assert post(owner, sql, default_format="Native")[2] == b"\x02\x00\x02id\x06UInt64\x04name\x06String"
    assert json.loads(post(owner, sql, default_format="JSON")[2])["rows"] == 0


def test_an_unsupported_format_is_refused_with_the_supported_ones(owner: Owner) -> None:
    for sql in ("SELECT 1 FORMAT Protobuf", "SELECT 1 FORMAT XML", "SHOW TABLES FORMAT Template"):
        body = assert_refused(owner, sql, 73)
        assert "is not supported by this endpoint. Use one of: TabSeparated," in body
        assert "JSONEachRow" in body


def test_statements_other_than_select(owner: Owner) -> None:
    assert b"events\n" in post(owner, "SHOW TABLES")[2]
    assert post(owner, "SHOW TABLES FROM audit LIKE 'ev%'")[2] == b"events\n"
    assert b"id\tUInt64" in post(owner, "DESCRIBE TABLE events")[2]
    assert post(owner, "EXISTS events")[2] == b"1\n"
    assert b"CREATE VIEW" in post(owner, "SHOW CREATE TABLE audit.events")[2]
    assert b"id" in post(owner, "SHOW COLUMNS FROM events")[2]
    assert b"ReadFromMergeTree" in post(owner, "EXPLAIN PIPELINE SELECT * FROM events WHERE id = 3")[2]
    assert b"events" in post(owner, "SELECT table_name FROM information_schema.tables")[2]


def test_settings_that_shape_an_answer_work_and_others_are_refused(owner: Owner) -> None:
    assert post(owner, "SELECT toUInt64(1) AS a FORMAT JSONEachRow")[2] == b'{"a":1}\n'
    quoted = post(owner, "SELECT toUInt64(1) AS a FORMAT JSONEachRow", output_format_json_quote_64bit_integers="1")
    assert quoted[2] == b'{"a":"1"}\n'
    assert post(owner, "SELECT 1", wait_end_of_query="1", session_id="x", max_threads="64", readonly="0")[0] == 200
    setting = "SELECT value FROM system.settings WHERE name = '{}'"
    assert post(owner, setting.format("max_threads"), max_threads="64")[2] == b"2\n"
    assert post(owner, setting.format("max_execution_time"), max_execution_time="7")[2] == b"7\n"
    for name, value in {"output_format_schema": "x", "max_memory_usage": "0", "max_result_rows": "9" * 12}.items():
        assert f"'{name}'" in assert_refused(owner, "SELECT 1", 164, **{name: value})
