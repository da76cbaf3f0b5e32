"""What a read-only query may use: statements, functions, databases and system tables.

Allowlists where the list is short (statements, nodes of the syntax tree, table functions, databases). Scalar functions
are a list of refusals, because the engine has 1,500 harmless ones. It was made from `system.functions` of chDB 26.9;
`ENGINE_REFUSALS` adds those of the running engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# First words of a statement that reads; everything else is refused before the engine sees it.
FIRST_WORDS: Final = frozenset({"SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS"})

# Roots of the syntax tree (`EXPLAIN AST`) and their statements. Absent on purpose: SHOW PROCESSLIST (the texts of other
# people's queries), SHOW GRANTS/USERS/ROLES, CHECK TABLE, and everything that writes, kills or stops.
ROOTS: Final = {
    "SelectWithUnionQuery": "SELECT",
    "SelectIntersectExceptQuery": "SELECT",
    "ShowTables": "SHOW",
    "ShowColumns": "SHOW",
    "ShowIndexes": "SHOW",
    "ShowFunctions": "SHOW",
    "ShowEngineQuery": "SHOW",
    "ShowSetting": "SHOW",
    "ShowCreateTableQuery": "SHOW",
    "ShowCreateViewQuery": "SHOW",
    "ShowCreateDatabaseQuery": "SHOW",
    "ShowCreateDictionaryQuery": "SHOW",
    "DescribeQuery": "DESCRIBE",
    "ExistsTableQuery": "EXISTS",
    "ExistsViewQuery": "EXISTS",
    "ExistsDatabaseQuery": "EXISTS",
    "ExistsDictionaryQuery": "EXISTS",
    "Explain": "EXPLAIN",
}
EXPLAINS: Final = frozenset({
    "EXPLAIN", "EXPLAIN AST", "EXPLAIN SYNTAX", "EXPLAIN QUERY TREE", "EXPLAIN PIPELINE", "EXPLAIN ESTIMATE",
})  # fmt: skip
# The nodes that a query may consist of. New parts of SQL in a later engine are refused until reviewed.
NODES: Final = frozenset({
    "SelectWithUnionQuery", "SelectIntersectExceptQuery", "SelectQuery", "ExpressionList", "Subquery",
    "WithElement", "TablesInSelectQuery", "TablesInSelectQueryElement", "TableExpression", "TableIdentifier",
    "TableJoin", "ArrayJoin", "SampleRatio", "Function", "Identifier", "Literal", "QueryParameter", "Asterisk",
    "QualifiedAsterisk", "ColumnsRegexpMatcher", "ColumnsListMatcher", "QualifiedColumnsRegexpMatcher",
    "QualifiedColumnsListMatcher", "ColumnsTransformerList", "ColumnsApplyTransformer", "ColumnsExceptTransformer",
    "ColumnsReplaceTransformer", "ColumnsReplaceTransformer::Replacement", "OrderByElement", "InterpolateElement",
    "WindowListElement", "WindowDefinition",
})  # fmt: skip

# Tables made of arguments alone: nothing outside the query is read. (`zeros` too, but the engine refuses it readonly.)
# Not `values` and `null`: their structure is a text that may define columns by expressions, `ALIAS file(…)` included.
TABLE_FUNCTIONS: Final = frozenset({
    "numbers", "numbers_mt", "generateseries", "generate_series", "sqlstandardvalues", "view",
})  # fmt: skip

# Functions that read files, the network, secrets or the state of the server, or that only block. Lower case.
FUNCTIONS_REFUSED: Final = frozenset({
    "file", "catboostevaluate", "evalmlmethod", "aiclassify", "aiembed", "aiextract", "aifilter", "aigenerate",
    "airedact", "aisimilarity", "aitranslate", "addresstoline", "addresstolinewithinlines", "addresstosymbol",
    "logtrace", "getserversetting", "getserverport", "tcpport", "getmacro", "getclienthttpheader",
    "currentrequesturl", "currenthandler", "showcertificate", "filesystemavailable", "filesystemcapacity",
    "filesystemunreserved", "generateserialid", "zookeepersessionuptime", "sleep", "sleepeachrow",
    # These evaluate a text as SQL: the structure of a table, or the parameters of an aggregate function.
    "arrayreduce", "arrayreduceinranges", "initializeaggregation", "structuretocapnprotoschema",
    "structuretoprotobufschema",
    # These take a table or a dictionary as text, so its database is not checked.
    "hascolumnintable", "joinget", "joingetornull", "naivebayesclassifier", "naivebayesclassifierwithprob",
    "naivebayesclassifierwithallprobs",
})  # fmt: skip

# Functions that take a function as their first argument. Lower case. The engine also takes the bare name of a function
# there: `arrayMap(file, […])` calls file(). `ENGINE_HIGHER_ORDER` adds those of the running engine.
HIGHER_ORDER: Final = frozenset({
    "arrayall", "arrayavg", "arraybottomk", "arraycompact", "arraycount", "arraycumsum", "arraycumsumnonnegative",
    "arraydifference", "arrayexists", "arrayfill", "arrayfilter", "arrayfirst", "arrayfirstindex",
    "arrayfirstornull", "arrayfold", "arraylast", "arraylastindex", "arraylastornull", "arraymap", "arraymax",
    "arraymin", "arraypartialreversesort", "arraypartialsort", "arrayproduct", "arrayreversefill",
    "arrayreversesort", "arrayreversesplit", "arraysort", "arraysplit", "arraysum", "arraytopk", "mapall",
    "mapapply", "mapexists", "mapfilter", "mappartialreversesort", "mappartialsort", "mapreversesort", "mapsort",
})  # fmt: skip
# Those that take a number before the array or map; with these two arguments alone they take no function.
HIGHER_ORDER_WITH_NUMBER: Final = frozenset({
    "arraybottomk", "arraypartialreversesort", "arraypartialsort", "arraytopk", "mappartialreversesort",
    "mappartialsort",
})  # fmt: skip

# Tables of `system` that clients and people need to find their way. Absent on purpose: processes and query_log (the
# texts of other queries), settings of the server, users, disks, named collections, logs, dictionaries, background work.
SYSTEM_TABLES: Final = frozenset({
    "one", "numbers", "databases", "tables", "columns", "settings", "functions", "formats", "data_type_families",
    "time_zones", "keywords", "aggregate_function_combinators", "table_engines", "parts", "parts_columns",
    "data_skipping_indices", "projections",
})  # fmt: skip
INFORMATION_SCHEMA: Final = "information_schema"

# Functions that cannot be listed ahead: user-defined ones (they may run a program), those that read a dictionary, the
# engine's own helpers, and any new one that calls a model over the network or inspects the process.
ENGINE_REFUSALS: Final = (
    "SELECT lower(name) FROM system.functions WHERE NOT is_aggregate AND (origin != 'System' "
    "OR categories IN ('AI', 'Introspection', 'Dictionary', 'Embedded Dictionary') OR startsWith(name, '__'))"
)
ENGINE_HIGHER_ORDER: Final = "SELECT lower(name) FROM system.functions WHERE higher_order"


@dataclass(frozen=True)
class SqlPolicy:
    """What queries may use. `SqlEndpoint` adds the names of the running engine to the last three.

    Attributes:
        databases: the databases whose tables may be read; unqualified names belong to the first. Never `default`: in
            the embedded engine its tables are the files of the disk.
        system_tables: tables of `system` that may be read.
        table_functions: lower-case names of the functions that may stand in FROM.
        functions_refused: lower-case names of scalar functions.
        higher_order: lower-case names of functions that take a lambda.
        closed_databases: lower-case names of existing databases that are not open, to distinguish `system.x` after
            IN, which reads a table, from a column.
    """

    databases: tuple[str, ...] = ("audit",)
    system_tables: frozenset[str] = SYSTEM_TABLES
    table_functions: frozenset[str] = TABLE_FUNCTIONS
    functions_refused: frozenset[str] = FUNCTIONS_REFUSED
    higher_order: frozenset[str] = HIGHER_ORDER
    closed_databases: frozenset[str] = frozenset({"default", "system"})

    def __post_init__(self) -> None:
        if not self.databases or {"default", "system"} & {name.lower() for name in self.databases}:
            raise ValueError("databases must name at least one database, and neither 'default' nor 'system'")

    def table_refusal(self, database: str | None, table: str | None) -> str | None:
        """Return why `database`.`table` may not be read, or None when it may; `table` None is the database itself."""
        if database is None or database in self.databases or database.lower() == INFORMATION_SCHEMA:
            return None
        if database == "system":
            if table is None or table in self.system_tables:
                return None
            allowed = ", ".join(sorted(self.system_tables))
            return f"table system.{table} cannot be read through this endpoint; of system, only: {allowed}"
        return f"database {database} cannot be read through this endpoint, only: {', '.join(self.databases)}"

    def function_refusal(self, name: str) -> str | None:
        """Return why the scalar function `name` may not be called, or None when it may."""
        if name.lower() in self.functions_refused or name.startswith("__"):
            return f"function {name}() reaches outside of the tables"
        return None

    def identifier_refusal(self, name: str) -> str | None:
        """Return why the bare identifier `name` may not stand in an expression, or None when it may."""
        if name.lower() in self.functions_refused:
            return (
                f"{name} is also a function that reaches outside of the tables, and the engine may call it by its bare "
                f"name; qualify a column of that name, as in t.{name}"
            )
        return None

    def takes_function(self, name: str, arguments: int) -> bool:
        """Return whether the function `name` takes a function as the first of so many `arguments`."""
        lower = name.lower()
        return lower in self.higher_order and arguments > (2 if lower in HIGHER_ORDER_WITH_NUMBER else 1)

    def table_function_refusal(self, name: str) -> str | None:
        """Return why the table function `name` may not be called, or None when it may."""
        if name.lower() in self.table_functions:
            return None
        return f"table function {name}() reaches outside of the tables, only: {', '.join(sorted(self.table_functions))}"
