"""What the SQL endpoint refuses, beside what `readonly=1` alone would let through."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.sql_endpoint import SECRET, Owner, assert_refused, post


@pytest.mark.parametrize(
    "spelling",
    [
        "SELECT 'x' INTO OUTFILE '{}'",
        "SELECT 'x' into/**/\n outfile '{}' TRUNCATE FORMAT CSV",
        "SELECT 'x' --;\nINTO -- x\nOUTFILE '{}'",
        "SELECT number FROM numbers(3) INTO OUTFILE '{}' APPEND FORMAT TSV SETTINGS max_threads = 1",
    ],
)
def test_into_outfile_is_refused(owner: Owner, tmp_path: Path, spelling: str) -> None:
    ungated = tmp_path / "ungated"
    owner.readonly_alone(spelling.partition(" SETTINGS")[0].format(ungated))
    assert ungated.exists()
    gated = tmp_path / "gated"
    body = assert_refused(owner, spelling.format(gated))
    assert "INTO OUTFILE writes a file" in body
    assert not gated.exists()


def test_the_function_file_is_refused(owner: Owner) -> None:
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


def test_a_function_passed_by_name_is_refused(owner: Owner) -> None:
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


def test_every_higher_order_function_takes_only_lambdas(owner: Owner) -> None:
    names = set(owner.ask("names", "SELECT name FROM system.functions WHERE higher_order"))
    assert len(names) > 35
    assert {"arrayMap", "arraySort", "arrayTopK", "mapApply"} <= names
    for name in sorted(names):
        assert_refused(owner, f"SELECT {name}(file, ['x'])", 497)
        assert "x -> identity(x)" in assert_refused(owner, f"SELECT {name}(identity, [1], [2])", 497)


def test_functions_that_run_without_parentheses_are_refused(owner: Owner) -> None:
    assert owner.readonly_alone("SELECT currentRequestURL")[0]
    for sql in ("SELECT currentRequestURL", "SELECT `currentHandler`", "SELECT upper(getClientHTTPHeader)"):
        assert_refused(owner, sql, 497)
    assert post(owner, "SELECT currentDatabase, current_date > '2000-01-01'")[2] == b"audit\t1\n"


def test_a_column_named_like_a_refused_function_must_be_qualified(owner: Owner) -> None:
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


def test_describe_of_a_file_or_url_is_refused(owner: Owner) -> None:
    secret = owner.data_dir / "secret.csv"
    ran, text = owner.readonly_alone(f"DESCRIBE file('{secret}')")
    assert (ran, "Nullable" in text) == (True, True)
    assert_refused(owner, f"DESCRIBE file('{secret}')", 497)
    assert_refused(owner, f"DESC TABLE `file`('{secret}', CSV)", 497)
    assert_refused(owner, "DESCRIBE url('http://127.0.0.1:9/x')", 497)


def test_describe_of_process_variables_is_refused(owner: Owner) -> None:
    ran, text = owner.readonly_alone("DESCRIBE Python(variable_of_the_owner)")
    assert (ran, "secret_column" in text) == (True, True)
    assert_refused(owner, "DESCRIBE Python(variable_of_the_owner)", 497)


def test_sqlite_is_refused(owner: Owner, tmp_path: Path) -> None:
    owner.readonly_alone(f"SELECT * FROM sqlite('{tmp_path}/ungated.db', 't')")
    assert (tmp_path / "ungated.db").exists()
    assert_refused(owner, f"SELECT * FROM sqlite('{tmp_path}/gated.db', 't')", 497)
    assert not (tmp_path / "gated.db").exists()


def test_kill_system_and_check_are_refused(owner: Owner) -> None:
    for sql in ("KILL QUERY WHERE query_id = 'none'", "SYSTEM START MERGES", "CHECK TABLE audit.entries"):
        assert owner.readonly_alone(sql)[0], sql
        assert_refused(owner, sql, 164)


def test_two_statements_are_refused(owner: Owner) -> None:
    assert owner.readonly_alone("SELECT 1; SELECT 2") == (True, "1\n2\n")
    assert "Multi-statements" in assert_refused(owner, "SELECT 1; SELECT 2", 62)
    assert "Multi-statements" in assert_refused(owner, "SELECT 1\n;\n-- x\nDROP TABLE events", 62)


def test_settings_of_a_subquery_are_refused(owner: Owner) -> None:
    assert "READONLY" in owner.readonly_alone("SELECT 1 SETTINGS readonly = 0")[1]
    sql = "SELECT * FROM (SELECT 1 SETTINGS readonly = 0)"
    assert owner.readonly_alone(sql) == (True, "1\n")
    assert_refused(owner, sql, 164)
    assert_refused(owner, "WITH a AS (SELECT 1 SETTINGS max_memory_usage=0) SELECT * FROM a", 164)


def test_queries_of_other_users_are_not_visible(owner: Owner) -> None:
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


def test_files_as_tables_of_the_default_database_are_refused(owner: Owner) -> None:
    secret = owner.data_dir / "secret.csv"
    assert owner.readonly_alone(f"EXISTS default.`{secret}`") == (True, "1\n")
    for sql in (f"EXISTS default.`{secret}`", f"SELECT * FROM default.`{secret}`", f"DESCRIBE default.`{secret}`"):
        assert_refused(owner, sql, 497)
    assert_refused(owner, f"SELECT * FROM `{secret}`", 497, database="default")


def test_functions_that_evaluate_a_string_as_sql_are_refused(owner: Owner) -> None:
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


def test_substitutions_cannot_name_a_closed_table(owner: Owner) -> None:
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
    assert (
        post(owner, "SELECT system.tables.name FROM system.tables WHERE name = 'events' AND database = 'audit'")[2]
        == b"events\n"
    )


def test_all_table_functions_except_harmless_ones_are_refused(owner: Owner) -> None:
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


def test_every_category_of_functions_has_been_reviewed(owner: Owner) -> None:
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
