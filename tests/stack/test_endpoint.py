"""The SQL endpoint over a real embedded ClickHouse, asked by the clients that people use.

The engine lives in a process of its own, as in production: this file run as a script is that owner. chDB allows one
data folder a process, so the tests never open the engine themselves.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import clickhouse_connect
import lz4.frame
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from grantledger.base.errors import UsageError
from grantledger.console.address import (
    AddressFileError,
    EndpointAddress,
    EndpointCredential,
    address_file,
    published,
    read_address,
)
from grantledger.console.endpoint import SqlEndpoint
from grantledger.console.execution import QUERY_LIMITS
from grantledger.console.native import compress, decompress
from grantledger.console.sql_gate import MAX_QUERY_BYTES

ROWS = 300_000
# Late enough that the engine, which works some blocks ahead, has given the first of them by then.
LATE_FAILURE = "throwIf(number = 3000000)"
SECRET = "the-content-of-the-secret-file"


class Owner:
    """The owner process: `ask` sends it one operation and returns its answer."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.log = data_dir / "owner.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(data_dir)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=data_dir,
            )
        assert self._process.stdin
        assert self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        assert self._stdout.readline() == "ready\n", self.log.read_text()
        access = read_address(data_dir)
        assert access is not None
        self.access = access

    def ask(self, operation: str, text: str = "") -> Any:
        self._stdin.write(json.dumps([operation, text]) + "\n")
        self._stdin.flush()
        return json.loads(self._stdout.readline())

    def readonly_alone(self, sql: str) -> tuple[bool, str]:
        """Run `sql` on a handle that has nothing but readonly=1."""
        ran, text = self.ask("readonly", sql)
        return ran, text

    def stop(self) -> int:
        self._stdin.close()
        self._process.wait(30)
        self._stdout.close()
        return self._process.returncode


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    owner = Owner(tmp_path_factory.mktemp("owner"))
    yield owner
    assert owner.stop() == 0, owner.log.read_text()
    assert not address_file(owner.data_dir).exists()


@pytest.fixture
def client(owner: Owner) -> Iterator[Any]:
    client = connect(owner)
    yield client
    client.close()


def connect(owner: Owner, **options: Any) -> Any:
    access = owner.access
    return clickhouse_connect.get_client(
        host=access.host,
        port=access.port,
        username=access.credential.user,
        password=access.credential.password,
        database="audit",
        **options,
    )


def post(
    owner: Owner, sql: str | bytes, headers: dict[str, str] | None = None, **parameters: str
) -> tuple[int, Any, bytes]:
    """POST a query with Basic authentication; return status, headers and body."""
    connection = http.client.HTTPConnection(owner.access.host, owner.access.port, timeout=60)
    user, password = owner.access.credential.user, owner.access.credential.password
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    try:
        address = "/?" + urllib.parse.urlencode(parameters)
        body = sql.encode() if isinstance(sql, str) else sql
        connection.request("POST", address, body, {"Authorization": f"Basic {basic}"} | (headers or {}))
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def assert_refused(owner: Owner, sql: str, code: int | None = None, **parameters: str) -> str:
    status, headers, body = post(owner, sql, **parameters)
    assert status >= 400, (sql, body[:200])
    if code is not None:
        assert headers["X-ClickHouse-Exception-Code"] == str(code), body
    return body.decode()


# What slips through readonly=1 alone.


@pytest.mark.parametrize(
    "spelling",
    [
        "SELECT 'x' INTO OUTFILE '{}'",
        "SELECT 'x' into/**/\n outfile '{}' TRUNCATE FORMAT CSV",
        "SELECT 'x' --;\nINTO -- x\nOUTFILE '{}'",
        "SELECT number FROM numbers(3) INTO OUTFILE '{}' APPEND FORMAT TSV SETTINGS max_threads = 1",
    ],
)
def test_into_outfile_writes_a_file_under_readonly_and_not_through_the_gate(
    owner: Owner, tmp_path: Path, spelling: str
) -> None:
    slipped = tmp_path / "slipped"
    owner.readonly_alone(spelling.partition(" SETTINGS")[0].format(slipped))
    assert slipped.exists()
    gated = tmp_path / "gated"
    body = assert_refused(owner, spelling.format(gated))
    assert "INTO OUTFILE writes a file" in body
    assert not gated.exists()


def test_scalar_file_reads_under_readonly_and_not_through_the_gate(owner: Owner) -> None:
    secret = owner.data_dir / "secret.csv"
    ran, text = owner.readonly_alone(f"SELECT file('{secret}')")
    assert ran
    assert SECRET in text
    for sql in (
        f"SELECT file('{secret}')",
        f"SELECT `file`('{secret}')",
        f"SELECT * APPLY(x -> file(x)) FROM (SELECT '{secret}' AS p)",
        f"SELECT * APPLY file FROM (SELECT '{secret}' AS p)",
        f"WITH file('{secret}') AS f SELECT f",
        f"SELECT 1 WHERE 'a' IN file('{secret}')",
        f"EXPLAIN SELECT file('{secret}')",
        f"DESCRIBE (SELECT file('{secret}'))",
        f"SELECT 1 ORDER BY file('{secret}')",
        f"SELECT sum(1) OVER (PARTITION BY file('{secret}'))",
        f"SHOW TABLES WHERE name = file('{secret}')",
    ):
        assert SECRET not in assert_refused(owner, sql, 497)


def test_a_function_given_by_its_name_runs_under_readonly_and_not_through_the_gate(owner: Owner) -> None:
    secret = owner.data_dir / "secret.csv"
    ran, text = owner.readonly_alone(f"SELECT arrayMap(file, ['{secret}'])")
    assert ran
    assert SECRET in text
    for sql in (
        f"SELECT arrayMap(file, ['{secret}'])",
        f"SELECT arrayMap/**/(/**/file/**/, ['{secret}'])",
        f"SELECT arrayMap((file), ['{secret}'])",
        f"SELECT arrayMap(`file`, ['{secret}'])",
        f"SELECT arrayMap(\"file\", ['{secret}'])",
        f"SELECT arrayMap(file AS f, ['{secret}'])",
        f"SELECT `arrayMap`(file, ['{secret}'])",
        f"SELECT arrayFilter(x -> x != '', arrayMap(file, ['{secret}']))",
        f"SELECT arrayMap(x -> arrayMap(file, [x]), ['{secret}'])",
        f"SELECT arraySort(file, ['{secret}'])",
        f"SELECT arrayMax(file, ['{secret}'])",
        f"SELECT mapApply(file, map('{secret}', 'x'))",
        f"SELECT * FROM view(SELECT arrayMap(file, ['{secret}']))",
        f"SELECT * FROM (VALUES (arrayMap(file, ['{secret}'])))",
        f"SELECT * REPLACE(arrayMap(file, ['{secret}']) AS dummy) FROM system.one",
        f"SELECT sum(1) OVER (ORDER BY arrayMap(file, ['{secret}']))",
        f"SELECT 1 ORDER BY arrayMap(file, ['{secret}'])",
        f"SELECT DISTINCT ON (arrayMap(file, ['{secret}'])) 1",
        f"WITH (x -> arrayMap(file, [x])) AS f SELECT f('{secret}')",
        f"WITH (x -> arrayMap(file, [x])) AS f SELECT * APPLY(f) FROM (SELECT '{secret}')",
        f"WITH (x -> file(x)) AS f SELECT arrayMap(f, ['{secret}'])",
        f"WITH (x -> file(x)) AS f SELECT * APPLY(f) FROM (SELECT '{secret}')",
        f"WITH file AS f SELECT arrayMap(f, ['{secret}'])",
        f"SELECT file AS f, arrayMap(f, ['{secret}'])",
        f"SELECT arrayMap(lambda(tuple(x), file(x)), ['{secret}'])",
        f"SELECT COLUMNS('p') APPLY(file) FROM (SELECT '{secret}' AS p)",
        f"SELECT * APPLY `file` FROM (SELECT '{secret}' AS p)",
        f"SELECT * APPLY(arrayMap(file, ['{secret}'])) FROM (SELECT '{secret}' AS p)",
        f"EXPLAIN SELECT arrayMap(file, ['{secret}'])",
        f"DESCRIBE (SELECT arrayMap(file, ['{secret}']))",
    ):
        assert SECRET not in assert_refused(owner, sql, 497), sql
    # A backslash in a name is not read at all: here it would spell "file".
    assert_refused(owner, f"SELECT arrayMap(`fi\\x6ce`, ['{secret}'])", 62)
    for sql in (
        f"SELECT arrayMap({{f:Identifier}}, ['{secret}'])",
        f"SELECT arrayMap({{`f` : identifier}}, ['{secret}'])",
        f"SELECT * FROM view(SELECT arrayMap({{f:Identifier}}, ['{secret}']))",
    ):
        assert SECRET not in assert_refused(owner, sql, None, param_f="file"), sql
    assert_refused(owner, f"SELECT arrayMap({{f:Identifier}}, ['{secret}'])", 497, param_f="file")
    assert "x -> upper(x)" in assert_refused(owner, "SELECT arrayMap({f:Identifier}, ['a'])", 497, param_f="upper")


def test_every_higher_order_function_of_the_engine_takes_a_lambda_and_no_name(owner: Owner) -> None:
    names = set(owner.ask("names", "SELECT name FROM system.functions WHERE higher_order"))
    assert len(names) > 35
    assert {"arrayMap", "arraySort", "arrayTopK", "mapApply"} <= names
    for name in sorted(names):
        assert_refused(owner, f"SELECT {name}(file, ['x'])", 497)
        assert "x -> identity(x)" in assert_refused(owner, f"SELECT {name}(identity, [1], [2])", 497)


def test_functions_that_run_without_brackets_are_refused_there_too(owner: Owner) -> None:
    assert owner.readonly_alone("SELECT currentRequestURL")[0]
    for sql in ("SELECT currentRequestURL", "SELECT `currentHandler`", "SELECT upper(getClientHTTPHeader)"):
        assert_refused(owner, sql, 497)
    assert post(owner, "SELECT currentDatabase, current_date > '2000-01-01'")[2] == b"audit\t1\n"


def test_a_column_named_like_a_refused_function_has_to_be_qualified(owner: Owner) -> None:
    source = "FROM (SELECT 'a' AS file) AS t"
    for sql in (f"SELECT file {source}", f"SELECT 1 {source} WHERE file = 'a'", f"SELECT arraySort([file]) {source}"):
        assert "t.file" in assert_refused(owner, sql, 497)
    sql = f"SELECT t.file, upper(t.file), arrayMap(x -> x || t.file, ['b']) {source} WHERE t.file = 'a'"
    assert post(owner, sql)[2] == b"a\tA\t['ba']\n"


def test_lambdas_and_columns_still_work_in_higher_order_functions(owner: Owner) -> None:
    for sql, answer in (
        ("SELECT arrayMap(x -> upper(x), ['a']), arrayMap((x, y) -> x + y, [1], [2])", "['A']\t[3]"),
        ("SELECT arrayMap((x -> x + 1), [1]), arrayFold((acc, x) -> acc + x, [1, 2], toInt64(0))", "[2]\t3"),
        (
            "SELECT arraySort(names), arraySum(ids), arrayMax(ids) FROM (SELECT ['b', 'a'] AS names, [1, 2] AS ids)",
            "['a','b']\t3\t2",
        ),
        ("SELECT arrayPartialSort(n, ids), arrayTopK(1, ids) FROM (SELECT 2 AS n, [3, 1, 2] AS ids)", "[1,2,3]\t[3]"),
        ("SELECT arrayExists(x -> x = name, ['n5']), length(name) FROM events WHERE id = 5", "1\t2"),
        ("WITH (x -> x || '!') AS f SELECT f('a'), arrayMap(x -> f(x), ['b'])", "a!\t['b!']"),
        ("SELECT mapFilter((k, v) -> v > 1, map('a', 1, 'b', 2))", "{'b':2}"),
        ("SELECT * APPLY upper, COLUMNS('a') APPLY(length) FROM (SELECT 'x' AS a)", "X\t1"),
    ):
        assert post(owner, sql)[2].decode() == answer + "\n", sql
    parameters = {"param_column": "name", "param_table": "events"}
    sql = "SELECT {column:Identifier} FROM {table:Identifier} WHERE length({column:Identifier}) = 2 AND id = 5"
    assert post(owner, sql, **parameters)[2] == b"n5\n"


def test_functions_that_take_a_table_or_dictionary_as_text_are_refused(owner: Owner) -> None:
    secret = owner.data_dir / "secret.csv"
    closed = "SELECT hasColumnInTable('system', 'processes', 'query')"
    assert owner.readonly_alone(closed) == (True, "1\n")
    for sql in (
        closed,
        f"SELECT hasColumnInTable('default', '{secret}', 'c1')",
        f"SELECT joinGet('default.{secret}', 'c1', 1)",
        "SELECT joinGetOrNull('system.processes', 'query', 1)",
        "SELECT dictGet('default.x', 'a', 1)",
        "SELECT dictGetOrDefault('default.x', 'a', 1, 2)",
        "SELECT dictHas('default.x', 1)",
        "SELECT regionToName(1)",
        "SELECT naiveBayesClassifier('x', 'y')",
    ):
        assert_refused(owner, sql, 497)
    assert "table function" in assert_refused(owner, "SELECT * FROM parametrized_view(x = 1)", 497)


def test_the_queries_of_the_documentation_pass_the_gate(owner: Owner) -> None:
    root = Path(__file__).resolve().parents[2]
    queries = re.findall(r"```sql\n(.*?)```", (root / "docs" / "queries.md").read_text("utf-8"), re.DOTALL)
    readme = (root / "README.md").read_text("utf-8")
    queries += [sql for sql in re.findall(r'grantledger query "(.*?)"', readme, re.DOTALL) if "file(" not in sql]
    assert len(queries) > 10
    for sql in queries:
        status, _, body = post(owner, f"EXPLAIN AST {sql}")
        assert status == 200, (sql, body)


def test_describe_reads_a_file_under_readonly_and_not_through_the_gate(owner: Owner) -> None:
    secret = owner.data_dir / "secret.csv"
    ran, text = owner.readonly_alone(f"DESCRIBE file('{secret}')")
    assert (ran, "Nullable" in text) == (True, True)
    assert_refused(owner, f"DESCRIBE file('{secret}')", 497)
    assert_refused(owner, f"DESC TABLE `file`('{secret}', CSV)", 497)
    assert_refused(owner, "DESCRIBE url('http://127.0.0.1:9/x')", 497)


def test_describe_sees_variables_of_the_process_under_readonly(owner: Owner) -> None:
    ran, text = owner.readonly_alone("DESCRIBE Python(variable_of_the_owner)")
    assert (ran, "secret_column" in text) == (True, True)
    assert_refused(owner, "DESCRIBE Python(variable_of_the_owner)", 497)


def test_sqlite_makes_a_file_under_readonly_and_not_through_the_gate(owner: Owner, tmp_path: Path) -> None:
    owner.readonly_alone(f"SELECT * FROM sqlite('{tmp_path}/slipped.db', 't')")
    assert (tmp_path / "slipped.db").exists()
    assert_refused(owner, f"SELECT * FROM sqlite('{tmp_path}/gated.db', 't')", 497)
    assert not (tmp_path / "gated.db").exists()


def test_kill_and_system_run_under_readonly_and_not_through_the_gate(owner: Owner) -> None:
    for sql in ("KILL QUERY WHERE query_id = 'none'", "SYSTEM START MERGES", "CHECK TABLE audit.events"):
        assert owner.readonly_alone(sql)[0], sql
        assert_refused(owner, sql, 164)


def test_two_statements_run_under_readonly_and_not_through_the_gate(owner: Owner) -> None:
    assert owner.readonly_alone("SELECT 1; SELECT 2") == (True, "1\n2\n")
    assert "Multi-statements" in assert_refused(owner, "SELECT 1; SELECT 2", 62)
    assert "Multi-statements" in assert_refused(owner, "SELECT 1\n;\n-- x\nDROP TABLE events", 62)


def test_settings_of_a_subquery_pass_unchecked_under_readonly_and_not_through_the_gate(owner: Owner) -> None:
    assert "READONLY" in owner.readonly_alone("SELECT 1 SETTINGS readonly = 0")[1]
    sql = "SELECT * FROM (SELECT 1 SETTINGS readonly = 0)"
    assert owner.readonly_alone(sql) == (True, "1\n")
    assert_refused(owner, sql, 164)
    assert_refused(owner, "WITH a AS (SELECT 1 SETTINGS max_memory_usage=0) SELECT * FROM a", 164)


def test_other_peoples_queries_show_under_readonly_and_not_through_the_gate(owner: Owner) -> None:
    assert "system.processes" in owner.readonly_alone("SELECT query FROM system.processes")[1]
    for sql in (
        "SELECT query FROM system.processes",
        "SELECT query FROM `system`.`processes`",
        "SELECT 1 IN system.processes",
        "SELECT * APPLY(x -> x IN (SELECT query FROM merge('system', 'processes'))) FROM (SELECT 'a')",
        "SELECT * FROM merge('system', 'processes')",
        "SHOW PROCESSLIST",
        "SHOW CREATE TABLE system.processes",
        "SELECT * FROM (SELECT 1) AS a JOIN system.processes AS b ON 1 = 1",
        "WITH p AS (SELECT * FROM system.processes) SELECT * FROM p",
        "SELECT (SELECT any(query) FROM system.processes)",
        "SELECT * FROM view(SELECT query FROM system.processes)",
    ):
        assert_refused(owner, sql)
    assert_refused(owner, "SELECT query FROM {t:Identifier}", 497, param_t="system.processes")
    assert_refused(owner, "SELECT query FROM processes", 497, database="system")


def test_files_are_tables_of_the_default_database_and_it_is_closed(owner: Owner) -> None:
    secret = owner.data_dir / "secret.csv"
    assert owner.readonly_alone(f"EXISTS default.`{secret}`") == (True, "1\n")
    for sql in (f"EXISTS default.`{secret}`", f"SELECT * FROM default.`{secret}`", f"DESCRIBE default.`{secret}`"):
        assert_refused(owner, sql, 497)
    assert_refused(owner, f"SELECT * FROM `{secret}`", 497, database="default")


def test_a_text_that_the_engine_evaluates_reads_a_file_under_readonly_and_not_through_the_gate(owner: Owner) -> None:
    secret = owner.data_dir / "secret.csv"
    for sql in (
        f"SELECT a FROM values('x String, a String ALIAS file(\\'{secret}\\')', 'y')",
        f"SELECT a FROM values('x String, a String ALIAS file(x)', '{secret}')",
        f"SELECT structureToCapnProtoSchema('x UInt8 DEFAULT toUInt8(file(\\'{secret}\\'))')",
        f"SELECT structureToProtobufSchema('x UInt8 ALIAS toUInt8(file(\\'{secret}\\'))')",
        f"SELECT initializeAggregation('quantile(toFloat64(file(\\'{secret}\\')))', 1)",
        f"SELECT arrayReduce('quantile(toFloat64(file(\\'{secret}\\')))', [1])",
        f"SELECT arrayReduceInRanges('quantile(toFloat64(file(\\'{secret}\\')))', [(1, 1)], [1])",
    ):
        # Some show the content in the text of an error.
        assert SECRET in owner.readonly_alone(sql)[1], sql
        assert SECRET not in assert_refused(owner, sql, 497)
    assert_refused(owner, "SELECT * FROM null('x String')", 497)


def test_substitutions_name_no_closed_table(owner: Owner) -> None:
    """IN reads a table by its name, wherever the parts of the name come from."""
    for sql, parameters in (
        ("SELECT 1 IN {d:Identifier}.processes", {"param_d": "system"}),
        ("SELECT 1 IN {d:Identifier}.{t:Identifier}", {"param_d": "system", "param_t": "processes"}),
        ("SELECT 1 IN system.{t:Identifier}", {"param_t": "processes"}),
        ("SELECT inIgnoreSet(1, {d:Identifier}.processes)", {"param_d": "system"}),
        ("SELECT ('a', 1) IN {d:Identifier}.`secret.csv`", {"param_d": "default"}),
        ("SELECT 1 IN {t:Identifier}, {t:String}", {"param_t": "system.processes"}),
        ("SHOW TABLES WHERE name IN {d:Identifier}.processes", {"param_d": "system"}),
        ("SHOW TABLES WHERE name = currentHandler", {}),
    ):
        assert_refused(owner, sql, 497, **parameters)
    assert post(owner, "SELECT count() FROM {d:Identifier}.{t:Identifier}", param_d="audit", param_t="events")[0] == 200
    # As JDBC drivers qualify columns.
    assert post(owner, "SELECT system.tables.name FROM system.tables WHERE database = 'audit'")[2] == b"events\n"


def test_every_table_function_of_the_engine_but_the_harmless_ones_is_refused(owner: Owner) -> None:
    names = set(owner.ask("names", "SELECT name FROM system.table_functions"))
    assert len(names) > 60
    harmless = {
        "numbers",
        "numbers_mt",
        "generateSeries",
        "generate_series",
        "SQLStandardValues",
        "view",
    }
    for name in sorted(names - harmless):
        assert_refused(owner, f"SELECT * FROM {name}('x')")
        assert_refused(owner, f"DESCRIBE {name}('x')")
    for sql in (
        "SELECT * FROM numbers(2)",
        "SELECT * FROM (VALUES (0), (1))",
        "SELECT * FROM generate_series(0, 1)",
    ):
        assert post(owner, sql)[2] == b"0\n1\n"


def test_functions_were_looked_at_category_by_category(owner: Owner) -> None:
    """A category that a new engine brings must be judged before it is served."""
    known = {
        *(
            "",
            "AI",
            "Arithmetic",
            "Arrays",
            "Bit",
            "Bitmap",
            "Comparison",
            "Conditional",
            "Dates and Times",
            "Dictionary",
        ),
        *("Distance", "Embedded Dictionary", "Encoding", "Encryption", "Financial", "Geo", "Geo Polygon", "Hash"),
        *(
            "IP Address",
            "Internal",
            "Introspection",
            "JSON",
            "Logical",
            "Machine Learning",
            "Map",
            "Mathematical",
            "Null",
        ),
        *("NumericIndexedVector", "Other", "QBit", "Random Number", "Rounding", "String", "String Replacement"),
        *("String Search", "String Splitting", "Time Series", "Time Window", "Tuple", "Type Conversion", "URL", "UUID"),
    }
    found = owner.ask("names", "SELECT DISTINCT categories FROM system.functions WHERE NOT is_aggregate")
    assert set(found) <= known


# Clients.


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


def test_long_parameters_go_by_form(owner: Owner) -> None:
    client = connect(owner, form_encode_query_params=True)
    text = "ü'\\\r\n" * 20_000
    assert client.query("SELECT {x:String} AS x", parameters={"x": text}).result_rows == [(text,)]
    client.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(owner: Owner) -> None:
    access = owner.access
    base = ["curl", "-sS", "--fail-with-body"]
    user = f"{access.credential.user}:{access.credential.password}"

    def curl(*arguments: str) -> tuple[int, str]:
        done = subprocess.run([*base, *arguments], capture_output=True, text=True, timeout=30, check=False)
        return done.returncode, done.stdout

    assert curl(f"{access.url}/ping") == (0, "Ok.\n")
    assert curl(access.url) == (22, curl(access.url)[1])
    assert curl("-u", user, access.url) == (0, "Ok.\n")
    assert curl("-u", user, access.url, "-d", "SELECT 1 AS a FORMAT JSONEachRow") == (0, '{"a":1}\n')
    assert curl("-u", user, "-G", access.url, "--data-urlencode", "query=SELECT {x:UInt8}", "-d", "param_x=5") == (
        0,
        "5\n",
    )
    keys = [
        "-H",
        f"X-ClickHouse-User: {access.credential.user}",
        "-H",
        f"X-ClickHouse-Key: {access.credential.password}",
    ]
    assert curl(*keys, access.url, "--data-binary", "SELECT 2") == (0, "2\n")
    assert curl(
        f"{access.url}/?user={access.credential.user}&password={access.credential.password}&query=SELECT+3"
    ) == (0, "3\n")
    code, text = curl("-u", user, access.url, "-d", "SELECT nope")
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
def test_a_streamed_answer_equals_one_made_in_one_piece(owner: Owner, output_format: str, rows: int) -> None:
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


def test_a_format_that_is_not_served_is_refused_with_those_that_are(owner: Owner) -> None:
    for sql in ("SELECT 1 FORMAT Protobuf", "SELECT 1 FORMAT XML", "SHOW TABLES FORMAT Template"):
        body = assert_refused(owner, sql, 73)
        assert "is not supported by this endpoint. Use one of: TabSeparated," in body
        assert "JSONEachRow" in body


@pytest.mark.parametrize(("accepted", "encoding"), [("lz4", "lz4"), ("gzip, deflate", "gzip"), ("br, gzip;q=0", None)])
def test_answers_are_compressed_in_an_encoding_that_the_client_accepts(
    owner: Owner, accepted: str, encoding: str | None
) -> None:
    decode = {"lz4": lz4.frame.decompress, "gzip": gzip.decompress, None: bytes}[encoding]
    sql, headers = "SELECT id, name FROM events ORDER BY id", {"Accept-Encoding": accepted}
    _, head, plain = post(owner, sql, headers)
    assert head["Content-Encoding"] is None
    for text, expected in ((sql, plain), ("SELECT 1 WHERE 0", b"")):
        status, head, body = post(owner, text, headers, enable_http_compression="1")
        assert (status, head["Content-Encoding"]) == (200, encoding)
        assert decode(body) == expected
    assert encoding is None or len(post(owner, sql, headers, enable_http_compression="1")[2]) < 0.6 * len(plain)
    body = post(owner, "SELECT nope", headers, enable_http_compression="1")[2]
    assert body.startswith(b"Code: 47.")


def test_compressed_requests_are_read(owner: Owner) -> None:
    assert post(owner, compress(b"SELECT 41 + 1"), decompress="1")[2] == b"42\n"
    frames = compress(b"SELECT ") + compress(b"1 FORMAT CSV")
    assert decompress(post(owner, frames, decompress="1", compress="1")[2], 100) == b"1\n"
    assert_refused(owner, "SELECT 1", 271, decompress="1")
    assert post(owner, "SELECT 1", {"Content-Encoding": "gzip"})[1]["X-ClickHouse-Exception-Code"] == "48"


def test_statements_that_are_no_select(owner: Owner) -> None:
    assert post(owner, "SHOW TABLES")[2] == b"events\n"
    assert post(owner, "SHOW TABLES FROM audit LIKE 'e%'")[2] == b"events\n"
    assert b"id\tUInt64" in post(owner, "DESCRIBE TABLE events")[2]
    assert post(owner, "EXISTS events")[2] == b"1\n"
    assert b"MergeTree" in post(owner, "SHOW CREATE TABLE audit.events")[2]
    assert b"id" in post(owner, "SHOW COLUMNS FROM events")[2]
    assert b"ReadFromMergeTree" in post(owner, "EXPLAIN indexes = 1 SELECT * FROM events WHERE id = 3")[2]
    assert b"events" in post(owner, "SELECT table_name FROM information_schema.tables")[2]


def test_settings_that_shape_an_answer_work_and_others_are_refused(owner: Owner) -> None:
    assert post(owner, "SELECT toUInt64(1) AS a FORMAT JSONEachRow")[2] == b'{"a":1}\n'
    quoted = post(owner, "SELECT toUInt64(1) AS a FORMAT JSONEachRow", output_format_json_quote_64bit_integers="1")
    assert quoted[2] == b'{"a":"1"}\n'
    assert post(owner, "SELECT 1", wait_end_of_query="1", session_id="x", max_threads="64", readonly="0")[0] == 200
    assert post(owner, "SELECT getSetting('max_threads')", max_threads="64")[2] == b"1\n"
    assert post(owner, "SELECT getSetting('max_result_rows')", max_result_rows="7")[2] == b"7\n"
    for name, value in {"output_format_schema": "x", "max_memory_usage": "0", "max_result_rows": "9" * 12}.items():
        assert f"'{name}'" in assert_refused(owner, "SELECT 1", 164, **{name: value})


# Failures.


def test_errors_come_back_with_their_code(owner: Owner, client: Any) -> None:
    status, headers, body = post(owner, "SELECT 1\n  FROM )", query_id="my-id")
    assert (status, headers["X-ClickHouse-Exception-Code"], headers["X-ClickHouse-Query-Id"]) == (400, "62", "my-id")
    assert body.startswith(b"Code: 62. DB::Exception: Syntax error: failed at position 17 ())")
    assert b"(SYNTAX_ERROR) (version 26." in body
    with pytest.raises(DatabaseError) as caught:
        client.query("SELECT * FROM nowhere")
    assert (caught.value.code, caught.value.name) == (60, "UNKNOWN_TABLE")
    assert_refused(owner, "SELECT {x:UInt8}", 456)
    assert_refused(owner, "SELECT {x:UInt8}", 457, param_x="1; DROP")


def test_after_an_error_answers_are_whole(owner: Owner, client: Any) -> None:
    """The engine puts what is left of a failed answer in front of the next one on that handle."""
    failing = f"SELECT {LATE_FAILURE}, number FROM numbers(4000000)"
    assert owner.ask("drain", failing) != "1\n"
    for output_format in ("Native", "JSON", "ArrowStream"):
        with pytest.raises((DatabaseError, clickhouse_connect.driver.exceptions.OperationalError)):
            client.raw_query(failing, fmt=output_format)
        assert client.query("SELECT 1").result_rows == [(1,)]


def test_an_error_in_the_middle_of_an_answer_is_never_taken_for_its_end(owner: Owner, client: Any) -> None:
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


def test_a_wrong_password_is_turned_away_before_anything_is_parsed(owner: Owner) -> None:
    for headers, status in (
        ({"Authorization": "Basic " + base64.b64encode(b"analyst:wrong").decode()}, 403),
        ({"Authorization": "Basic ???"}, 403),
        ({"Authorization": "", "X-ClickHouse-User": owner.access.credential.user}, 403),
        ({"Authorization": "Bearer x"}, 401),
    ):
        got, answered, body = post(owner, "\x00 not a query", headers)
        assert (got, answered["X-ClickHouse-Exception-Code"]) == (status, "516")
        assert b"AUTHENTICATION_FAILED" in body
    with pytest.raises(DatabaseError, match="AUTHENTICATION_FAILED"):
        clickhouse_connect.get_client(host=owner.access.host, port=owner.access.port, username="analyst", password="x")


def test_a_huge_query_is_refused(owner: Owner) -> None:
    assert_refused(owner, "SELECT '" + "x" * MAX_QUERY_BYTES + "'", 229)
    assert_refused(owner, "SELECT '" + "x" * 5_000_000 + "'", 229)
    literal = "x" * (MAX_QUERY_BYTES - 100)
    assert post(owner, f"SELECT length('{literal}')")[2] == b"%d\n" % len(literal)
    assert_refused(owner, "SELECT 1", 229, query="SELECT '" + "x" * MAX_QUERY_BYTES + "'")
    assert_refused(owner, "SELECT " + "(" * 100_000, None)


def test_limits_hold(owner: Owner) -> None:
    assert_refused(
        owner, "SELECT count() FROM numbers(1e13) WHERE sipHash64(number) = 1", 159, max_execution_time="0.5"
    )
    assert_refused(owner, "SELECT groupArray(number) FROM numbers(1e9)", 241)
    assert_refused(owner, "SELECT number FROM numbers(100000) FORMAT JSON", 396, max_result_bytes="1000")


# Together.


def test_long_queries_hold_up_neither_other_queries_nor_inserts(owner: Owner) -> None:
    """All the others are done while these are still under way: no clock says what is quick on this machine."""
    from support.waiting import wait_for  # this file is also run as a script, which has no tests/ on its path

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


def test_a_client_that_leaves_frees_its_place(owner: Owner) -> None:
    endless = "SELECT count() FROM numbers(1e13) WHERE sipHash64(number) = 1"
    for sql in (endless, "SELECT number FROM numbers(1e13)"):
        for _ in range(6):
            client = http.client.HTTPConnection(owner.access.host, owner.access.port, timeout=0.2)
            with pytest.raises((TimeoutError, OSError)), contextlib.closing(client):
                credential = owner.access.credential
                client.request("POST", f"/?user={credential.user}&password={credential.password}", sql)
                client.getresponse()
                raise TimeoutError
    assert post(owner, "SELECT 1")[2] == b"1\n"
    deadline = time.monotonic() + 55  # sooner than the queries end by themselves
    while owner.ask("names", "SELECT query FROM system.processes WHERE query NOT LIKE '%processes%'"):
        assert time.monotonic() < deadline, "queries of clients that left still run"
        time.sleep(0.1)


def test_a_client_that_does_not_read_is_cut_off(owner: Owner) -> None:
    """The engine waits for room in the pipe, where neither its time limit nor a cancellation reaches it."""
    credential = owner.access.credential
    address = f"/?user={credential.user}&password={credential.password}&max_execution_time=1"
    clients = [http.client.HTTPConnection(owner.access.host, owner.access.port) for _ in range(4)]
    for client in clients:
        client.request("POST", address, "SELECT number FROM numbers(1e13)")
        assert client.getresponse().status == 200
    started = time.monotonic()
    assert post(owner, "SELECT 1")[2] == b"1\n"
    assert time.monotonic() - started < 10
    for client in clients:
        client.close()


def test_no_query_and_no_secret_is_in_the_log(owner: Owner, client: Any) -> None:
    post(owner, "SELECT 'marker-of-a-query'", param_x="marker-of-a-value")
    assert_refused(owner, "SELECT nope_marker_of_an_error")
    with pytest.raises(http.client.IncompleteRead):
        post(owner, f"SELECT {LATE_FAILURE}, 'marker-of-a-failure' FROM numbers(4000000)")
    log = owner.log.read_text()
    assert "query " in log
    for marker in ("marker", owner.access.credential.password, SECRET):
        assert marker not in log


def test_stop_cancels_what_runs(tmp_path: Path) -> None:
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


# The access file.


ADDRESS = EndpointAddress("127.0.0.1", 8123, EndpointCredential.generate())


def test_the_address_file_is_for_its_owner_only(tmp_path: Path) -> None:
    assert read_address(tmp_path) is None
    assert ADDRESS.credential.password not in repr(ADDRESS)
    path = address_file(tmp_path)
    with published(tmp_path, ADDRESS):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert read_address(tmp_path) == ADDRESS
        assert ADDRESS.url == "http://127.0.0.1:8123"
        path.chmod(0o640)
        with pytest.raises(AddressFileError, match="mode 0640, open to others"):
            read_address(tmp_path)
        newer = replace(ADDRESS, port=8124)
        with published(tmp_path, newer):
            assert read_address(tmp_path) == newer
        assert read_address(tmp_path) is None
        with published(tmp_path, newer):
            pass
    assert list(path.parent.iterdir()) == []


def test_the_address_file_of_a_newer_owner_stays(tmp_path: Path) -> None:
    with ExitStack() as older, ExitStack() as newer:
        older.enter_context(published(tmp_path, ADDRESS))
        newer.enter_context(published(tmp_path, replace(ADDRESS, port=8124)))
        older.close()
        assert read_address(tmp_path) == replace(ADDRESS, port=8124)


def test_the_address_file_of_a_killed_owner_is_not_used(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom grantledger.console.address import *\n"
        "with published(Path(sys.argv[1]), EndpointAddress('127.0.0.1', 1, EndpointCredential.generate())):\n"
        "    print('ready', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        assert read_address(tmp_path) is not None
        child.kill()
    assert address_file(tmp_path).exists()
    assert read_address(tmp_path) is None


def test_a_damaged_address_file_is_an_error_that_does_not_quote_it(tmp_path: Path) -> None:
    path = address_file(tmp_path)
    with published(tmp_path, ADDRESS):
        fields = json.loads(path.read_text())
        for damaged in ("", "{}", json.dumps(fields | {"port": "x"}), "[" * 10_000):
            path.write_text(damaged)
            with pytest.raises(AddressFileError, match=r"is damaged; remove it and restart the owner") as caught:
                read_address(tmp_path)
            assert caught.value.__cause__ is None
        path.unlink()
        path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(AddressFileError):
            read_address(tmp_path)
        path.unlink()


def test_the_endpoint_makes_no_data_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a data folder"):
        SqlEndpoint(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def own(data_dir: Path) -> None:
    """The owner process: opens the engine, serves it, and does what it is told on standard input."""
    import logging

    import pandas

    logging.basicConfig(level=logging.DEBUG)
    path = data_dir / "engine"
    client = clickhouse_connect.get_client(interface="chdb", path=str(path))
    client.command("CREATE DATABASE IF NOT EXISTS audit ENGINE=Atomic")
    client.command(
        "CREATE TABLE IF NOT EXISTS audit.events (id UInt64, name String, at DateTime64(6, 'UTC')) "
        "ENGINE=MergeTree ORDER BY id"
    )
    client.command(
        f"INSERT INTO audit.events SELECT number, concat('n', toString(number)), now64(6) FROM numbers({ROWS})"
    )
    (data_dir / "secret.csv").write_text(f"{SECRET},1\n")
    # Found by the engine's Python() through the frames of this process.
    globals()["variable_of_the_owner"] = pandas.DataFrame({"secret_column": [1]})
    limits = {**QUERY_LIMITS, "max_memory_usage": str(512 << 20), "max_execution_time": "60"}
    endpoint = SqlEndpoint(path, limits=limits)
    with published(data_dir, endpoint.address):
        print("ready", flush=True)
        for line in sys.stdin:
            operation, text = json.loads(line)
            print(json.dumps(obey(client, path, operation, text)), flush=True)
    endpoint.stop(grace_seconds=0.5)
    client.close()


def obey(client: Any, path: Path, operation: str, text: str) -> Any:
    import chdb

    if operation in {"readonly", "drain", "answer"}:
        handle = chdb.connect(os.path.realpath(path))
        handle.query("USE audit")
        handle.query("SET readonly = 1")
        try:
            answer = handle.query(text, "TabSeparated").bytes() or b""
            return base64.b64encode(answer).decode() if operation == "answer" else (True, answer.decode())
        except RuntimeError as error:
            if operation == "drain":
                return handle.query("SELECT 1", "TabSeparated").bytes().decode(errors="replace")
            return (False, str(error))
        finally:
            handle.close()
    if operation == "names":
        return [row[0] for row in client.query(text).result_rows]
    if operation == "insert":
        slowest = 0.0
        for index in range(int(text)):
            started = time.monotonic()
            rows = [[10**9 + index * 1000 + row, "late", 0] for row in range(1000)]
            client.insert("audit.events", rows, column_names=["id", "name", "at"])
            slowest = max(slowest, time.monotonic() - started)
        return slowest
    assert operation == "trim"
    client.command("ALTER TABLE audit.events DELETE WHERE id >= 1000000000 SETTINGS mutations_sync = 2")
    return None


if __name__ == "__main__":
    own(Path(sys.argv[1]))
