"""The statements, functions, databases and system tables that a read-only query may use.

Short lists are allowlists: statements, syntax tree nodes, table functions, databases. Scalar functions are a denylist,
because 1,500 of them are harmless. It is based on `system.functions` of chDB 26.9; `ENGINE_REFUSALS` adds the functions
of the running engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..base.errors import UsageError
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

# Kinds of statements by the root of their syntax tree (`EXPLAIN AST`). Deliberately absent: SHOW PROCESSLIST (queries
# of other users), SHOW GRANTS/USERS/ROLES, CHECK TABLE, and statements that write, kill or stop.
_SHOWN = ("Tables", "Columns", "Indexes", "Functions", "EngineQuery", "Setting")
_OBJECTS = ("Table", "View", "Database", "Dictionary")
ROOTS: Final = {
    **dict.fromkeys(("SelectWithUnionQuery", "SelectIntersectExceptQuery"), "SELECT"),
    **{f"Show{name}": "SHOW" for name in _SHOWN},
    **{f"ShowCreate{name}Query": "SHOW" for name in _OBJECTS},
    **{f"Exists{name}Query": "EXISTS" for name in _OBJECTS},
    "DescribeQuery": "DESCRIBE",
    "Explain": "EXPLAIN",
}
EXPLAINS: Final = frozenset({
    "EXPLAIN", "EXPLAIN AST", "EXPLAIN SYNTAX", "EXPLAIN QUERY TREE", "EXPLAIN PIPELINE", "EXPLAIN ESTIMATE",
})  # fmt: skip
# The nodes that a query may contain. New SQL syntax of a later engine is refused until reviewed.
NODES: Final = frozenset({
    "SelectWithUnionQuery", "SelectIntersectExceptQuery", "SelectQuery", "ExpressionList", "Subquery",
    "WithElement", "TablesInSelectQuery", "TablesInSelectQueryElement", "TableExpression", "TableIdentifier",
    "TableJoin", "ArrayJoin", "SampleRatio", "Function", "Identifier", "Literal", "QueryParameter", "Asterisk",
    "QualifiedAsterisk", "ColumnsRegexpMatcher", "ColumnsListMatcher", "QualifiedColumnsRegexpMatcher",
    "QualifiedColumnsListMatcher", "ColumnsTransformerList", "ColumnsApplyTransformer", "ColumnsExceptTransformer",
    "ColumnsReplaceTransformer", "ColumnsReplaceTransformer::Replacement", "OrderByElement", "InterpolateElement",
    "WindowListElement", "WindowDefinition",
})  # fmt: skip

# Tables made only of arguments. (`zeros` qualifies, but the engine refuses it when read-only.) `values` and `null` take
# their structure as text, which may define columns by expressions such as `ALIAS file(…)`.
TABLE_FUNCTIONS: Final = frozenset({
    "numbers", "numbers_mt", "generateseries", "generate_series", "sqlstandardvalues", "view",
})  # fmt: skip

# Functions that read files, the network, secrets or server state, or that only block. Lower case.
FUNCTIONS_REFUSED: Final = frozenset({
    "file", "catboostevaluate", "evalmlmethod", "aiclassify", "aiembed", "aiextract", "aifilter", "aigenerate",
    "airedact", "aisimilarity", "aitranslate", "addresstoline", "addresstolinewithinlines", "addresstosymbol",
    "logtrace", "getserversetting", "getserverport", "tcpport", "getmacro", "getclienthttpheader",
    "currentrequesturl", "currenthandler", "showcertificate", "filesystemavailable", "filesystemcapacity",
    "filesystemunreserved", "generateserialid", "zookeepersessionuptime", "sleep", "sleepeachrow",
    # These evaluate text as SQL: the structure of a table, or the parameters of an aggregate function.
    "arrayreduce", "arrayreduceinranges", "initializeaggregation", "structuretocapnprotoschema",
    "structuretoprotobufschema",
    # These take the name of a table or dictionary as text, so its database is not checked.
    "hascolumnintable", "joinget", "joingetornull", "naivebayesclassifier", "naivebayesclassifierwithprob",
    "naivebayesclassifierwithallprobs",
})  # fmt: skip

# Functions whose first argument is a function. The engine also accepts a bare name there: `arrayMap(file, […])` calls
# file().
HIGHER_ORDER: Final = "SELECT lower(name) FROM system.functions WHERE higher_order"
# Of these, functions that take a number before the array or map. With two arguments they take no function.
HIGHER_ORDER_WITH_NUMBER: Final = frozenset({
    "arraybottomk", "arraypartialreversesort", "arraypartialsort", "arraytopk", "mappartialreversesort",
    "mappartialsort",
})  # fmt: skip

# `system` tables that people and clients need to explore the database. Deliberately absent: processes and query_log
# (queries of other users), server settings, users, disks, named collections, logs, dictionaries, background work.
SYSTEM_TABLES: Final = frozenset({
    "one", "numbers", "databases", "tables", "columns", "settings", "functions", "formats", "data_type_families",
    "time_zones", "keywords", "aggregate_function_combinators", "table_engines", "parts", "parts_columns",
    "data_skipping_indices", "projections",
})  # fmt: skip
INFORMATION_SCHEMA: Final = "information_schema"

# Functions that only the running engine can list: user-defined functions (which may run a program), dictionary readers,
# internal helpers, and new functions that call a model over the network or inspect the process.
ENGINE_REFUSALS: Final = (
    "SELECT lower(name) FROM system.functions WHERE NOT is_aggregate AND (origin != 'System' "
    "OR categories IN ('AI', 'Introspection', 'Dictionary', 'Embedded Dictionary') OR startsWith(name, '__'))"
)


@dataclass(frozen=True)
class SqlPolicy:
    """The databases and functions that queries may use. Its methods raise QueryRefusedError (497).

    Attributes:
        database: the database that may be read; unqualified names belong to it. Never `default`: in the embedded
            engine, its tables are files on disk.
        functions_refused: lower-case names of scalar functions.
        higher_order: lower-case names of functions that take a lambda.
        closed_databases: lower-case names of the other databases, to distinguish `system.x` after IN, which reads a
            table, from a column.
    """

    database: str = "audit"
    functions_refused: frozenset[str] = FUNCTIONS_REFUSED
    higher_order: frozenset[str] = frozenset()
    closed_databases: frozenset[str] = frozenset({"default", "system"})

    def __post_init__(self) -> None:
        if self.database.lower() in {"", "default", "system"}:
            raise ValueError("the database must have a name, neither 'default' nor 'system'")

    @classmethod
    def of_engine(cls, database: str, connection: EngineConnection) -> SqlPolicy:
        """Return the policy for one database, with the names that only the running engine can list.

        Raises:
            UsageError: the database does not exist.
        """
        databases = set(connection.lines("SELECT name FROM system.databases"))
        if database not in databases:
            raise UsageError(f"the store has no database {database}")
        return cls(
            database,
            FUNCTIONS_REFUSED | set(connection.lines(ENGINE_REFUSALS)),
            frozenset(connection.lines(HIGHER_ORDER)),
            frozenset(name.lower() for name in databases - {database}) - {INFORMATION_SCHEMA},
        )

    def admit_table(self, database: str | None, table: str | None) -> None:
        """Refuse a table that may not be read; None stands for the database itself."""
        if database is None or database == self.database or database.lower() == INFORMATION_SCHEMA:
            return
        if database != "system":
            raise refused(f"database {database} cannot be read through this endpoint, only: {self.database}")
        if table is not None and table not in SYSTEM_TABLES:
            allowed = ", ".join(sorted(SYSTEM_TABLES))
            raise refused(f"table system.{table} cannot be read through this endpoint; of system, only: {allowed}")

    def admit_function(self, name: str) -> None:
        """Refuse a scalar function that may not be called."""
        if name.lower() in self.functions_refused or name.startswith("__"):
            raise refused(f"function {name}() reaches outside the tables")

    def admit_identifier(self, name: str) -> None:
        """Refuse an identifier that is also the name of a refused function or of a table that may not be read."""
        if name.lower() in self.functions_refused:
            raise refused(
                f"{name} is also a function that reaches outside the tables, and the engine may call it by its bare "
                f"name; qualify a column of that name, as in t.{name}"
            )
        # IN reads a table by its name. A third part is a column.
        database, *names = name.split(".")
        if names and database.lower() in self.closed_databases:
            self.admit_table(database, names[0])

    def admit_table_function(self, name: str) -> None:
        """Refuse a table function that may not be called."""
        if name.lower() not in TABLE_FUNCTIONS:
            allowed = ", ".join(sorted(TABLE_FUNCTIONS))
            raise refused(f"table function {name}() reaches outside the tables, only: {allowed}")

    def takes_function(self, name: str, arguments: int) -> bool:
        """Return whether a call of `name` with this number of arguments takes a function as the first one."""
        lower = name.lower()
        return lower in self.higher_order and arguments > (2 if lower in HIGHER_ORDER_WITH_NUMBER else 1)


def refused(reason: str) -> QueryRefusedError:
    """Return the error for a query that is not admitted."""
    return QueryRefusedError(ErrorCode.ACCESS_DENIED, f"Refused: {reason}.")
