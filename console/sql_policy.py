"""The statements, functions, tables and syntax that a read-only query may use.

All lists are allowlists: whatever is not on them, such as the functions of a later engine, is refused until reviewed.
`describe` writes them for people; the endpoint serves that text at `/allowed`.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Final

from ..base.errors import UsageError
from . import allowed, formats
from .engine import EngineConnection
from .errors import ErrorCode, QueryRefusedError

# First words of statements that read, by kind. Others are refused before the engine receives the text.
FIRST_WORDS: Final = {
    **dict.fromkeys(("SELECT", "WITH", "FROM"), "SELECT"),
    **dict.fromkeys(("DESCRIBE", "DESC"), "DESCRIBE"),
    "SHOW": "SHOW",
    "EXPLAIN": "EXPLAIN",
    "EXISTS": "EXISTS",
}

# The words that may follow SHOW.
SHOWN: Final = frozenset({
    "TABLES", "DATABASES", "COLUMNS", "FIELDS", "INDEX", "INDEXES", "INDICES", "KEYS", "FUNCTIONS", "ENGINES",
    "SETTING", "SETTINGS", "CREATE",
})  # fmt: skip
# Kinds of statements by the root of their syntax tree (`EXPLAIN AST`). Deliberately absent: SHOW PROCESSLIST (queries
# of other users), SHOW GRANTS/USERS/ROLES, CHECK TABLE, and statements that write, kill or stop.
_SHOWN_NODES = ("Tables", "Columns", "Indexes", "Functions", "EngineQuery", "Setting")
_OBJECTS = ("Table", "View", "Database", "Dictionary")
ROOTS: Final = {
    **dict.fromkeys(("SelectWithUnionQuery", "SelectIntersectExceptQuery"), "SELECT"),
    **{f"Show{name}": "SHOW" for name in _SHOWN_NODES},
    **{f"ShowCreate{name}Query": "SHOW" for name in _OBJECTS},
    **{f"Exists{name}Query": "EXISTS" for name in _OBJECTS},
    "DescribeQuery": "DESCRIBE",
    "Explain": "EXPLAIN",
}
# Without EXPLAIN PLAN: for our views its text grows beyond every memory limit of a query, and ends the process.
EXPLAINS: Final = frozenset({
    "EXPLAIN AST", "EXPLAIN SYNTAX", "EXPLAIN QUERY TREE", "EXPLAIN PIPELINE", "EXPLAIN ESTIMATE",
})  # fmt: skip
# The nodes that a query may contain.
NODES: Final = frozenset({
    "SelectWithUnionQuery", "SelectIntersectExceptQuery", "SelectQuery", "ExpressionList", "Subquery",
    "WithElement", "TablesInSelectQuery", "TablesInSelectQueryElement", "TableExpression", "TableIdentifier",
    "TableJoin", "ArrayJoin", "SampleRatio", "Function", "Identifier", "Literal", "QueryParameter", "Asterisk",
    "QualifiedAsterisk", "ColumnsRegexpMatcher", "ColumnsListMatcher", "QualifiedColumnsRegexpMatcher",
    "QualifiedColumnsListMatcher", "ColumnsTransformerList", "ColumnsApplyTransformer", "ColumnsExceptTransformer",
    "ColumnsReplaceTransformer", "ColumnsReplaceTransformer::Replacement", "OrderByElement", "InterpolateElement",
    "WindowListElement", "WindowDefinition",
})  # fmt: skip
# The words after which the engine writes a bracket that opens no call.
BEFORE_BRACKET: Final = frozenset({
    "ALL", "AND", "ANY", "APPLY", "ARRAY", "AS", "ASC", "BETWEEN", "BY", "COLUMNS", "CUBE", "DESC", "DESCRIBE",
    "DISTINCT", "EXCEPT", "EXPLAIN", "FROM", "GROUPING", "HAVING", "ILIKE", "IN", "INTERPOLATE", "INTERSECT",
    "INTERVAL", "IS", "JOIN", "LIKE", "LIMIT", "MATERIALIZED", "NOT", "OFFSET", "ON", "OR", "OVER", "PREWHERE",
    "QUALIFY", "REGEXP", "REPLACE", "ROLLUP", "SELECT", "SETS", "STEP", "TABLE", "TO", "UNION", "USING", "WHERE",
    "WITH",
})  # fmt: skip

# Tables made only of arguments. (`zeros` qualifies, but the engine refuses it when read-only.) `values` and `null` take
# their structure as text, which may define columns by expressions such as `ALIAS file(…)`.
TABLE_FUNCTIONS: Final = frozenset({
    "numbers", "numbers_mt", "generateseries", "generate_series", "sqlstandardvalues", "view",
})  # fmt: skip

# Functions whose first argument is a function. The engine also accepts a bare name there: `arrayMap(file, […])` calls
# file().
HIGHER_ORDER: Final = "SELECT lower(name) FROM system.functions WHERE higher_order"
# Of these, functions that take a number before the array or map. With two arguments they take no function.
HIGHER_ORDER_WITH_NUMBER: Final = frozenset({
    "arraybottomk", "arraypartialreversesort", "arraypartialsort", "arraytopk", "mappartialreversesort",
    "mappartialsort",
})  # fmt: skip

# `system` tables that clients need to explore the database. They contain names and types, no data and no activity.
SYSTEM_TABLES: Final = frozenset({
    "one", "numbers", "databases", "tables", "columns", "settings", "functions", "formats", "data_type_families",
    "time_zones", "keywords", "aggregate_function_combinators", "table_engines", "data_skipping_indices", "projections",
})  # fmt: skip
INFORMATION_SCHEMA: Final = "information_schema"
INFORMATION_TABLES: Final = frozenset({
    "character_sets", "collations", "columns", "engines", "key_column_usage", "referential_constraints", "schemata",
    "statistics", "tables", "views",
})  # fmt: skip

_TABLES: Final = "SELECT name FROM system.tables WHERE database = currentDatabase()"
_VIEWS: Final = f"{_TABLES} AND engine = 'View'"
_SEE: Final = "GET /allowed lists everything that is allowed"


@dataclass(frozen=True)
class SqlPolicy:
    """The tables and functions that queries may use. Its methods raise QueryRefusedError.

    Attributes:
        database: the database that may be read; unqualified names belong to it. Never `default`: in the embedded
            engine, its tables are files on disk.
        readable: the tables of the database that may be read; None for all.
        tables: all tables of the database.
        engine_functions: lower-case names of all functions of the running engine.
        higher_order: lower-case names of functions that take a lambda.
        closed_databases: lower-case names of the other databases, to distinguish `system.x` after IN, which reads a
            table, from a column.
    """

    database: str = "audit"
    readable: frozenset[str] | None = frozenset()
    tables: frozenset[str] = frozenset()
    engine_functions: frozenset[str] = frozenset()
    higher_order: frozenset[str] = frozenset()
    closed_databases: frozenset[str] = frozenset({"default", "system"})

    def __post_init__(self) -> None:
        if self.database.lower() in {"", "default", "system"}:
            raise ValueError("the database must have a name, neither 'default' nor 'system'")

    @classmethod
    def of_engine(cls, database: str, connection: EngineConnection) -> SqlPolicy:
        """Return the policy for the views of one database. `connection` has it as current one.

        Raises:
            UsageError: the database does not exist.
        """
        databases = set(connection.lines("SELECT name FROM system.databases"))
        if database not in databases:
            raise UsageError(f"the store has no database {database}")
        connection.use(database)
        return cls(
            database,
            frozenset(connection.lines(_VIEWS)),
            frozenset(connection.lines(_TABLES)),
            frozenset(connection.lines("SELECT lower(name) FROM system.functions")),
            frozenset(connection.lines(HIGHER_ORDER)),
            frozenset(name.lower() for name in databases - {database}) - {INFORMATION_SCHEMA},
        )

    @property
    def closed_tables(self) -> frozenset[str]:
        """The tables of the database that may not be read."""
        return frozenset() if self.readable is None else self.tables - self.readable

    def admit_table(self, database: str, table: str, defined: frozenset[str] = frozenset()) -> None:
        """Refuse a table that may not be read; `defined` are the tables that the statement itself defines (WITH)."""
        if database not in {"", self.database}:
            self.admit_metadata(database, table)
        elif self.readable is not None and table not in self.readable:
            if table in self.tables:
                raise refused(f"table {table} cannot be read, only the views: {_listed(self.readable)}")
            if database or table not in defined:
                raise QueryRefusedError(
                    ErrorCode.UNKNOWN_TABLE,
                    f"Unknown table {table}. The views are: {_listed(self.readable)}.",
                )

    def admit_metadata(self, database: str | None, table: str | None) -> None:
        """Refuse a table whose definition may not be shown; None stands for the current database or for all tables."""
        if database is None or database == self.database:
            return
        if database.lower() == INFORMATION_SCHEMA:
            if table is not None and table.lower() not in INFORMATION_TABLES:
                raise refused(f"table {database}.{table} cannot be read, only: {_listed(INFORMATION_TABLES)}")
        elif database != "system":
            raise refused(f"database {database} cannot be read through this endpoint, only: {self.database}")
        elif table is not None and table not in SYSTEM_TABLES:
            raise refused(
                f"table system.{table} cannot be read through this endpoint; of system, only: {_listed(SYSTEM_TABLES)}"
            )

    def admit_function(self, name: str, lambdas: frozenset[str] = frozenset()) -> None:
        """Refuse a function that is not allowed; `lambdas` are the names that the statement gives to lambdas."""
        if allowed.is_function(name) or (name in lambdas and name.lower() not in self.engine_functions):
            return
        raise refused(f"function {name}() is not on the list of allowed functions; {_SEE}")

    def admit_identifier(self, name: str) -> None:
        """Refuse an identifier that is also the name of a refused function or of a table that may not be read."""
        if name.lower() in self.engine_functions and not allowed.is_function(name):
            raise refused(
                f"{name} is also a function that is not allowed, and the engine may call it by its bare name; qualify "
                f"a column of that name, as in t.{name}"
            )
        # IN reads a table by its name. A third part is a column.
        database, *names = name.split(".")
        if names and database.lower() in self.closed_databases:
            self.admit_metadata(database, names[0])

    def admit_table_function(self, name: str) -> None:
        """Refuse a table function that is not allowed."""
        if name.lower() not in TABLE_FUNCTIONS:
            raise refused(f"table function {name}() reaches outside the tables, only: {_listed(TABLE_FUNCTIONS)}")

    def takes_function(self, name: str, arguments: int) -> bool:
        """Return whether a call of `name` with this number of arguments takes a function as the first one."""
        lower = name.lower()
        return lower in self.higher_order and arguments > (2 if lower in HIGHER_ORDER_WITH_NUMBER else 1)

    def describe(self) -> str:
        """Return everything that queries may use, as text for people."""
        parts = {
            "statements": sorted(set(FIRST_WORDS.values())),
            "tables": ["all"] if self.readable is None else sorted(self.readable),
            "system tables": sorted(SYSTEM_TABLES),
            "information_schema tables": sorted(INFORMATION_TABLES),
            "table functions": sorted(TABLE_FUNCTIONS),
            "formats": list(formats.CONTENT_TYPES),
            "settings": sorted(allowed.settings()),
            **{f"functions: {heading}": names for heading, names in allowed.function_groups().items()},
            "combinators of aggregate functions": allowed.COMBINATORS,
        }
        wrap = textwrap.TextWrapper(118, initial_indent="  ", subsequent_indent="  ", break_long_words=False)
        return "".join(f"{heading}\n{wrap.fill(' '.join(names))}\n" for heading, names in parts.items())


def refused(reason: str) -> QueryRefusedError:
    """Return the error for a query that is not admitted."""
    return QueryRefusedError(ErrorCode.ACCESS_DENIED, f"Refused: {reason}.")


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
