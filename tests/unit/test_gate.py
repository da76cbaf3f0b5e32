"""The SqlGate without an engine: tokens, policy, and syntax trees as chDB 26.9 prints them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.console.errors import EngineError, ErrorCode, QueryRefusedError
from grantledger.console.format_clause import split_format
from grantledger.console.lexer import tokenize
from grantledger.console.sql_gate import SqlGate
from grantledger.console.sql_policy import SqlPolicy
from grantledger.console.syntax_tree import read_tree
from grantledger.console.tree_gate import TreeGate

GATE = SqlGate(
    SqlPolicy(
        readable=frozenset({"events", "file"}),
        tables=frozenset({"events", "file", "entries"}),
        engine_functions=frozenset(
            ("file", "getmacro", "currenthandler", "aigenerate", "hascolumnintable", "joinget", "__getscalar", "upper")
        ),
        higher_order=frozenset({"arraymap", "arraysort", "arraytopk"}),
    )
)


class FixedParser:
    """A parser with fixed answers."""

    def __init__(self, lines: list[str], canonical: str = "") -> None:
        self._lines, self._canonical = lines, canonical

    def tree(self, text: str) -> list[str]:
        return self._lines

    def canonical(self, text: str) -> str:
        return self._canonical


def refusal(sql: str) -> QueryRefusedError:
    with pytest.raises(QueryRefusedError) as caught:
        GATE.screen(sql)
    return caught.value


@pytest.mark.parametrize(
    ("sql", "kind", "output_format"),
    [
        ("SELECT 1", "SELECT", None),
        ("  select a from entries where b = ';' format csv ;; ", "SELECT", "csv"),
        ("WITH x AS (SELECT 1) SELECT * FROM x\nFORMAT Native", "SELECT", "Native"),
        ("(SELECT 1) UNION ALL (SELECT 2)", "SELECT", None),
        ("FROM entries SELECT count()", "SELECT", None),
        ("DESC entries", "DESCRIBE", None),
        ("EXPLAIN indexes = 1 SELECT 1", "EXPLAIN", None),
        ("SHOW TABLES FROM system LIKE 'p%'", "SHOW", None),
        ("EXISTS TABLE audit.entries", "EXISTS", None),
        ("SELECT 'it''s', 'a\\'b', `q``q`, \"d\" -- ; DROP TABLE t", "SELECT", None),
        ("SELECT 1 /* ; INSERT */ # ; DROP\n, 2 // ; x", "SELECT", None),
        ("SELECT file, url, settings FROM files", "SELECT", None),
        ("SELECT a FROM entries ORDER BY a DESC FORMAT Native", "SELECT", "Native"),
        ("DESC format x", "DESCRIBE", None),
        ("SELECT * FROM format x", "SELECT", None),
        ("SELECT name FROM system.settings WHERE name = 'x'", "SELECT", None),
        ("SELECT {limit:UInt64}, {'a': 1}", "SELECT", None),
        ("SELECT * APPLY upper, COLUMNS('x') APPLY(quantiles(0.5, 0.9)) APPLY (round) FROM t", "SELECT", None),
        ("SELECT apply, e.system.name, 1 IN system.one FROM e", "SELECT", None),
    ],
)
def test_reads_pass_the_screen(sql: str, kind: str, output_format: str | None) -> None:
    statement = GATE.screen(sql)
    assert (statement.kind, statement.format) == (kind, output_format)


@pytest.mark.parametrize(
    ("sql", "code", "part"),
    [
        ("SELECT 1; SELECT 2", ErrorCode.SYNTAX_ERROR, "Multi-statements"),
        ("SELECT 1; DROP TABLE entries", ErrorCode.SYNTAX_ERROR, "Multi-statements"),
        (";SELECT 1", ErrorCode.READONLY, "refused"),
        ("", ErrorCode.SYNTAX_ERROR, "Empty"),
        (" -- nothing\n;", ErrorCode.SYNTAX_ERROR, "Empty"),
        ("SELECT 1 INTO OUTFILE 'x'", ErrorCode.ACCESS_DENIED, "INTO OUTFILE"),
        ("SELECT 1 iNtO/**/\t\n--x\noUtFiLe 'x' TRUNCATE FORMAT CSV", ErrorCode.ACCESS_DENIED, "INTO OUTFILE"),
        ("INSERT INTO t SELECT 1", ErrorCode.READONLY, "INSERT"),
        ("insert into function file('x') select 1", ErrorCode.READONLY, "INSERT"),
        ("SET readonly = 0", ErrorCode.READONLY, "SET"),
        ("USE default", ErrorCode.READONLY, "USE"),
        ("SYSTEM STOP MERGES", ErrorCode.READONLY, "SYSTEM"),
        ("KILL QUERY WHERE 1", ErrorCode.READONLY, "KILL"),
        ("BACKUP TABLE t TO File('x')", ErrorCode.READONLY, "BACKUP"),
        ("CREATE TEMPORARY TABLE t (a Int8)", ErrorCode.READONLY, "CREATE"),
        ("CHECK TABLE t", ErrorCode.READONLY, "CHECK"),
        ("`SELECT` 1", ErrorCode.READONLY, "refused"),
        ("1 + 1", ErrorCode.READONLY, "refused"),
        ("exit", ErrorCode.READONLY, "EXIT"),
        ("SELECT file('/etc/passwd')", ErrorCode.ACCESS_DENIED, "file()"),
        ("SELECT `file` ( '/etc/passwd')", ErrorCode.ACCESS_DENIED, "file()"),
        ("SELECT \"FILE\"/**/('/etc/passwd')", ErrorCode.ACCESS_DENIED, "FILE()"),
        ("SELECT * APPLY file FROM t", ErrorCode.ACCESS_DENIED, "file()"),
        ("SELECT * APPLY(`file`) FROM t", ErrorCode.ACCESS_DENIED, "file()"),
        ("SELECT * APPLY(x -> file(x)) FROM t", ErrorCode.ACCESS_DENIED, "file()"),
        ("SELECT * APPLY x -> file(x) FROM t", ErrorCode.ACCESS_DENIED, "file()"),
        ("SELECT * APPLY(x -> x IN (SELECT query FROM merge('system', 'p'))) FROM t", ErrorCode.ACCESS_DENIED, "APPLY"),
        ("SELECT * APPLY x -> x + 1 FROM t", ErrorCode.ACCESS_DENIED, "APPLY"),
        ("SELECT * APPLY (x) -> x + 1 FROM t", ErrorCode.ACCESS_DENIED, "APPLY"),
        ("SELECT * APPLY(quantile((SELECT 1))) FROM t", ErrorCode.ACCESS_DENIED, "APPLY"),
        ("SELECT 1 IN system.processes", ErrorCode.ACCESS_DENIED, "system.processes"),
        ("SELECT inIgnoreSet(1, `system` . processes)", ErrorCode.ACCESS_DENIED, "system.processes"),
        ("SELECT 1 IN default.`/etc/passwd`", ErrorCode.ACCESS_DENIED, "default"),
        ("SELECT aiGenerate('x')", ErrorCode.ACCESS_DENIED, "aiGenerate()"),
        ("SELECT hasColumnInTable('default', '/etc/passwd', 'c1')", ErrorCode.ACCESS_DENIED, "hasColumnInTable()"),
        ("SELECT joinGet('system.processes', 'query', 1)", ErrorCode.ACCESS_DENIED, "joinGet()"),
        ("SELECT __getScalar('x')", ErrorCode.ACCESS_DENIED, "__getScalar()"),
        ("SELECT 1 SETTINGS readonly = 0", ErrorCode.READONLY, "SETTINGS"),
        ("SELECT * FROM (SELECT 1 settings/**/max_threads=64)", ErrorCode.READONLY, "SETTINGS"),
        ("SELECT 1 SETTINGS a.b = 0", ErrorCode.READONLY, "SETTINGS"),
        ("SHOW TABLES WHERE name IN (SELECT query FROM t)", ErrorCode.ACCESS_DENIED, "expressions"),
        ("SHOW TABLES FROM default", ErrorCode.ACCESS_DENIED, "default"),
        ("SHOW COLUMNS FROM `/etc/passwd` FROM default", ErrorCode.ACCESS_DENIED, "default"),
        ("SHOW COLUMNS FROM default.`/etc/passwd`", ErrorCode.ACCESS_DENIED, "default"),
        ("SELECT * FROM `audit.x`.y", ErrorCode.ACCESS_DENIED, "dot"),
        ("SELECT $$a$$", ErrorCode.SYNTAX_ERROR, "heredoc"),
        ("SELECT a$b$c", ErrorCode.SYNTAX_ERROR, "heredoc"),
        ("SELECT ‘a’", ErrorCode.SYNTAX_ERROR, "typographic"),
        ("SELECT 1 \\G", ErrorCode.SYNTAX_ERROR, "backslash"),
        ("SELECT 1\x00", ErrorCode.SYNTAX_ERROR, "zero byte"),
        ("SELECT 'a", ErrorCode.SYNTAX_ERROR, "unclosed"),
        ("SELECT 1 /* a", ErrorCode.SYNTAX_ERROR, "unclosed"),
        ("SELECT 1 /* a /* b */ */", ErrorCode.SYNTAX_ERROR, "a comment inside a comment"),
        ("SELECT 1 /* /*/", ErrorCode.SYNTAX_ERROR, "a comment inside a comment"),
        ("SELECT x'41\\', file('", ErrorCode.SYNTAX_ERROR, "hex or binary"),
        ("SELECT 1 AS `a\n  TableExpression`", ErrorCode.SYNTAX_ERROR, "control"),
        ("SELECT 1 AS `a\\n`", ErrorCode.SYNTAX_ERROR, "control"),
        ("SELECT '" + "x" * 300_000 + "'", ErrorCode.QUERY_IS_TOO_LARGE, "limit of 262144"),
    ],
)
def test_a_refusal_names_the_cause(sql: str, code: int, part: str) -> None:
    error = refusal(sql)
    assert error.code == code
    assert part in error.message


def test_the_size_is_checked_before_parsing() -> None:
    assert refusal("\x00" * 300_000).code == ErrorCode.QUERY_IS_TOO_LARGE


def test_comments_are_blanked_and_positions_kept() -> None:
    sql = "SELECT 1 /* a\nb */ + -- c\n 2\u00a0FORMAT CSV"
    statement = GATE.screen(sql)
    assert statement.text == "SELECT 1     \n     +     \n 2"
    assert statement.text.index("2") == sql.index("2")


def test_identifier_substitutions_are_found() -> None:
    statement = GATE.screen("SELECT {n:UInt8}, {a : Array(String)} FROM {t:Identifier} WHERE x = '{z:UInt8}'")
    assert statement.identifiers == {"t"}


@pytest.mark.parametrize("value", ["a b", "t`", "../x", "a.b.c", "/etc/passwd", "", "t\n"])
def test_an_identifier_value_must_be_plain(value: str) -> None:
    with pytest.raises(QueryRefusedError) as caught:
        GATE.check("SELECT 1 FROM {t:Identifier}", {"t": value}, FixedParser([]))
    assert caught.value.code == ErrorCode.BAD_ARGUMENTS


def test_an_identifier_value_cannot_name_a_closed_table() -> None:
    with pytest.raises(QueryRefusedError, match=r"system\.processes"):
        GATE.check("SELECT 1 IN {t:Identifier}", {"t": "system.processes"}, FixedParser([]))


@pytest.mark.parametrize("value", ["file", "FILE", "getMacro"])
def test_an_identifier_value_cannot_name_a_refused_function(value: str) -> None:
    with pytest.raises(QueryRefusedError, match=f"t.{value}") as caught:
        GATE.check("SELECT arrayMap({f:Identifier}, ['x'])", {"f": value}, FixedParser([]))
    assert caught.value.code == ErrorCode.ACCESS_DENIED


def test_an_unknown_table_has_the_code_of_clickhouse() -> None:
    with pytest.raises(QueryRefusedError, match="The views are: events") as caught:
        inspect("SELECT", SELECT_FROM.format("TableIdentifier nowhere"))
    assert caught.value.code == ErrorCode.UNKNOWN_TABLE


@given(st.text())
def test_any_text_is_tokenized_or_refused(text: str) -> None:
    try:
        blanked, tokens = tokenize(text)
    except QueryRefusedError:
        return
    assert len(blanked) == len(text)
    for token in tokens:
        assert blanked[token.start : token.end] == token.text
    # The blanked text gives the same tokens: no comment remains and none appears.
    assert tokenize(blanked) == (blanked, tokens)


@given(
    st.text(alphabet="abc;'\\ \n-/*#$`\"").map(lambda body: "'" + body.replace("\\", "\\\\").replace("'", "\\'") + "'")
)
def test_a_quoted_string_is_one_token(literal: str) -> None:
    _, tokens = tokenize(f"SELECT {literal} ;")
    assert [token.text for token in tokens] == ["SELECT", literal, ";"]


# Syntax trees as the engine prints them.
SELECT_FROM = """\
SelectWithUnionQuery (children 1)
 ExpressionList (children 1)
  SelectQuery (children 2)
   ExpressionList (children 1)
    Asterisk
   TablesInSelectQuery (children 1)
    TablesInSelectQueryElement (children 1)
     TableExpression (children 1)
      {}
"""
SELECT_ONE = """\
SelectWithUnionQuery (children 1)
 ExpressionList (children 1)
  SelectQuery (children 1)
   ExpressionList (children 1)
    {}
"""
# A call as the only column, its first argument at the last place; NAMES is one argument more.
CALL = """\
Function {} (children 1)
     ExpressionList (children {})
      {}"""
NAMES = "\n      Identifier names"


def inspect(kind: str, tree: str) -> None:
    TreeGate(GATE.policy, read_tree(tree.split("\n"))).inspect(kind)


@pytest.mark.parametrize(
    ("kind", "tree"),
    [
        ("SELECT", SELECT_FROM.format("TableIdentifier audit.events (alias e)")),
        ("SELECT", SELECT_FROM.format("TableIdentifier events")),
        ("SELECT", SELECT_FROM.format("TableIdentifier file")),
        ("SELECT", SELECT_ONE.format(CALL.format("upper", 1, "Identifier t.file"))),
        ("SELECT", SELECT_ONE.format(CALL.format("arraySort", 1, "Identifier names"))),
        ("SELECT", SELECT_ONE.format(CALL.format("arrayTopK", 2, f"Identifier n{NAMES}"))),
        ("SELECT", SELECT_ONE.format(CALL.format("arrayMap", 2, f"Function lambda (children 1){NAMES}"))),
        ("SELECT", SELECT_ONE.format(CALL.format("arrayReverse", 1, "Identifier upper"))),
        ("SELECT", SELECT_FROM.format("TableIdentifier system.columns")),
        ("SELECT", SELECT_FROM.format("TableIdentifier INFORMATION_SCHEMA.tables")),
        ("SELECT", SELECT_FROM.format("Function numbers (alias n) (children 1)")),
        ("EXPLAIN", "Explain EXPLAIN AST (children 2)\n Set\n " + SELECT_ONE.format("Literal 1").replace("\n", "\n ")),
        ("SHOW", "ShowTables (children 1)\n Identifier system"),
        ("EXISTS", "ExistsTableQuery audit t (children 2)\n Identifier audit\n Identifier t"),
    ],
)
def test_trees_of_reads_pass(kind: str, tree: str) -> None:
    inspect(kind, tree)


@pytest.mark.parametrize(
    ("kind", "tree", "part"),
    [
        ("SELECT", SELECT_FROM.format("TableIdentifier entries"), "entries"),
        ("SELECT", SELECT_FROM.format("TableIdentifier audit.entries"), "entries"),
        ("SELECT", SELECT_FROM.format("TableIdentifier INFORMATION_SCHEMA.secrets"), "secrets"),
        ("SELECT", SELECT_ONE.format("Function newFunction (children 1)"), "newFunction()"),
        ("SELECT", SELECT_ONE.format("Function sumStateIf (children 1)"), "sumStateIf()"),
        ("SELECT", SELECT_ONE.format(CALL.format("in", 2, "Literal 1\n      Identifier entries")), "entries"),
        ("SELECT", SELECT_ONE.format(CALL.format("in", 2, "Literal 1\n      Identifier audit.entries")), "entries"),
        ("SELECT", SELECT_ONE.format(CALL.format("CAST", 2, "Literal 1\n      Function concat")), "plain string"),
        (
            "SELECT",
            SELECT_ONE.format(CALL.format("CAST", 2, "Literal 1\n      Literal 'AggregateFunction(sum, Int8)'")),
            "AggregateFunction",
        ),
        ("SELECT", "InsertQuery   (children 1)\n Identifier t", "InsertQuery"),
        ("SELECT", "ParallelWithQuery 2 SelectWithUnionQuery", "ParallelWithQuery"),
        ("SELECT", SELECT_FROM.format("Function file (alias f) (children 1)"), "file()"),
        ("SELECT", SELECT_FROM.format("Function merge (children 1)"), "merge()"),
        ("SELECT", SELECT_FROM.format("Function newTableFunction (children 1)"), "newTableFunction()"),
        ("SELECT", SELECT_FROM.format("TableIdentifier system.processes (alias p)"), "system.processes"),
        ("SELECT", SELECT_FROM.format("TableIdentifier default./etc/passwd"), "default"),
        ("SELECT", SELECT_ONE.format("Function file (children 1)"), "file()"),
        ("SELECT", SELECT_ONE.format("Identifier file (alias f)"), "file"),
        ("SELECT", SELECT_ONE.format(CALL.format("upper", 1, "Identifier File")), "t.File"),
        ("SELECT", SELECT_ONE.format(CALL.format("arrayMap", 2, f"Identifier file{NAMES}")), "file"),
        (
            "SELECT",
            SELECT_ONE.format(CALL.format("arrayMap", 2, f"Identifier file (alias z) (children 1){NAMES}")),
            "file",
        ),
        ("SELECT", SELECT_ONE.format(CALL.format("arrayMap", 2, f"Identifier upper{NAMES}")), "x -> upper(x)"),
        ("SELECT", SELECT_ONE.format(CALL.format("ARRAYMAP", 2, f"Identifier f{NAMES}")), "lambda"),
        ("SELECT", SELECT_ONE.format(CALL.format("arraySort", 2, f"Literal 'upper'{NAMES}")), "lambda"),
        ("SELECT", SELECT_ONE.format(CALL.format("arrayTopK", 3, f"Identifier f{NAMES}{NAMES}")), "lambda"),
        ("SELECT", SELECT_ONE.format("NewKindOfNode x"), "NewKindOfNode"),
        ("SELECT", SELECT_ONE.format("Set"), "SETTINGS"),
        ("SELECT", SELECT_ONE.format("Literal 1") + " Literal 'outfile'", "output clause"),
        ("SELECT", SELECT_ONE.format("Literal 1") + " Identifier CSV", "output clause"),
        ("DESCRIBE", "DescribeQuery (children 1)\n TableExpression (children 1)\n  Function url (children 1)", "url()"),
        ("EXPLAIN", "Explain EXPLAIN TABLE OVERRIDE (children 1)\n Function mysql (children 1)", "TABLE OVERRIDE"),
        ("EXPLAIN", "Explain EXPLAIN CURRENT TRANSACTION", "CURRENT TRANSACTION"),
        ("EXPLAIN", "Explain EXPLAIN (children 1)\n SelectWithUnionQuery", "EXPLAIN PLAN"),
        ("SHOW", "ShowProcesslistQuery", "ShowProcesslistQuery"),
        ("SHOW", "ShowCreateTableQuery system x (children 2)\n Identifier system\n Identifier x", "system.x"),
        ("EXISTS", "ExistsTableQuery default x (children 2)\n Identifier default\n Identifier /x", "default"),
        ("SELECT", "ShowTables", "ShowTables"),
    ],
)
def test_trees_that_reach_outside_are_refused(kind: str, tree: str, part: str) -> None:
    with pytest.raises(QueryRefusedError, match=r"refused|Refused") as caught:
        inspect(kind, tree)
    assert part in caught.value.message


def test_malformed_trees_are_refused() -> None:
    for lines in ([], ["SelectWithUnionQuery", "  Literal 1"], ["SelectWithUnionQuery", "SelectWithUnionQuery"]):
        with pytest.raises(QueryRefusedError) as caught:
            GATE.check("SELECT 1", {}, FixedParser(lines))
        assert caught.value.code == ErrorCode.SYNTAX_ERROR


def test_a_subquery_missing_from_the_tree_is_refused() -> None:
    tree = SELECT_ONE.format("Literal 1").split("\n")
    GATE.check("SELECT 1", {}, FixedParser(tree, "SELECT 1 AS `select`"))
    with pytest.raises(QueryRefusedError, match="subquery"):
        GATE.check("SELECT 1", {}, FixedParser(tree, "SELECT 1 HIDDEN (SELECT 2)"))


def test_the_database_of_files_cannot_be_opened() -> None:
    with pytest.raises(ValueError, match="neither 'default'"):
        SqlPolicy("default")


def test_engine_errors_keep_code_and_name() -> None:
    error = EngineError.parse(
        "Streaming query failed: Code: 73. DB::Exception: Code: 73. DB::Exception: Unknown format X. "
        "(UNKNOWN_FORMAT) (version 26.9.2.1). (UNKNOWN_FORMAT)"
    )
    assert (error.code, error.name, error.message, error.status) == (
        73,
        "UNKNOWN_FORMAT",
        "Unknown format X.",
        400,
    )
    assert error.text("26.9") == "Code: 73. DB::Exception: Unknown format X. (UNKNOWN_FORMAT) (version 26.9)\n"


@pytest.mark.parametrize(
    ("sql", "split"),
    [
        ("SELECT 1 FORMAT CSV; ", ("SELECT 1", "CSV")),
        ("select 1 -- one\nformat JSONEachRow", ("select 1", "JSONEachRow")),
        ("SELECT 1 AS format", ("SELECT 1 AS format", None)),
        ("SELECT 'FORMAT CSV'", ("SELECT 'FORMAT CSV'", None)),
        ("SELECT 'open FORMAT CSV", ("SELECT 'open FORMAT CSV", None)),
        ("", ("", None)),
    ],
)
def test_the_format_clause_is_split_off(sql: str, split: tuple[str, str | None]) -> None:
    assert split_format(sql) == split
