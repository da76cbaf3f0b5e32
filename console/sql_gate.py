"""Admit one SQL statement that only reads, and only reads permitted tables.

`readonly=1` is not enough in an embedded engine. With chDB 26.9 and `readonly=1`, `SELECT … INTO OUTFILE` writes files;
`file()` reads files; `DESCRIBE file()/url()/s3()/sqlite()/Python()` reads files, the network and variables of the
process; `KILL QUERY`, `KILL MUTATION` and `SYSTEM STOP MERGES` run; `a; b` runs both statements; `SETTINGS` in a
subquery is not checked; system tables show the queries of other users.

So each text is checked twice:
1. `screen` checks its tokens without the engine and returns one statement without comments.
2. `inspect` checks the syntax tree that the engine's own parser builds from that statement. The tree omits the
   arguments of `APPLY(…)` and SHOW, so these must be plain names. It may omit subqueries, so every SELECT in the text
   as the engine formats it must appear in the tree. The engine calls some functions by their bare name
   (`arrayMap(file, …)`, `currentHandler`), so names in expressions are checked like calls, and higher-order functions
   take only lambdas.
Run only the text of the returned statement, with the settings of `execution`.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from .errors import ErrorCode, QueryRefusedError
from .format_clause import statement_tokens, take_format
from .lexer import Token, tokenize
from .sql_policy import BEFORE_BRACKET, FIRST_WORDS, SHOWN, TABLE_FUNCTIONS, SqlPolicy, refused
from .syntax_tree import read_tree
from .tree_gate import TreeGate, aggregate_state_refused, lambda_names, not_a_read, settings_refused

MAX_QUERY_BYTES = 256 * 1024

_IDENTIFIER_VALUE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,126}(?:\.[A-Za-z_][A-Za-z0-9_]{0,126})?")
# Limits the search for the bracket that closes an APPLY.
_MAX_APPLIED_TOKENS = 256
_PARTS_OF_TABLES = frozenset({"COLUMNS", "FIELDS", "INDEX", "INDEXES", "INDICES", "KEYS"})


@dataclass(frozen=True)
class Statement:
    """An admitted statement.

    Attributes:
        kind: SELECT, SHOW, DESCRIBE, EXPLAIN or EXISTS.
        text: the text to run, without comments, a final semicolon or a FORMAT clause.
        format: the output format in its FORMAT clause; None without one.
        identifiers: names of the `{name:Identifier}` substitutions.
    """

    kind: str
    text: str
    format: str | None
    identifiers: frozenset[str]


class Parser(Protocol):
    """The engine's own parser. It runs no part of the text."""

    def tree(self, text: str) -> Sequence[str]:
        """Return the lines of `EXPLAIN AST` for a text that `SqlGate.screen` returned."""

    def canonical(self, text: str) -> str:
        """Return the text as the engine formats it (`formatQuerySingleLine`)."""


class SqlGate:
    """Checks SQL against a policy. Stateless, so threads may share it."""

    def __init__(self, policy: SqlPolicy) -> None:
        self.policy = policy

    def check(self, sql: str, parameters: Mapping[str, str], parser: Parser) -> Statement:
        """Return the statement to run for `sql`; `parameters` are the values of its substitutions.

        Raises:
            QueryRefusedError: the statement is not admitted. Errors of `parser` are raised as well.
        """
        statement = self.screen(sql)
        for name in sorted(statement.identifiers & parameters.keys()):
            if not _IDENTIFIER_VALUE.fullmatch(parameters[name]):
                raise QueryRefusedError(
                    ErrorCode.BAD_ARGUMENTS,
                    f"Value of parameter {name} is not a plain identifier: use letters, digits and _.",
                )
            self.policy.admit_identifier(parameters[name])
        _, tokens = tokenize(parser.canonical(statement.text))
        root = read_tree(parser.tree(statement.text))
        defined = _defined_tables(tokens)
        TreeGate(self.policy, root, frozenset(defined.values()) - self.policy.tables).inspect(statement.kind)
        written = sum(token.keyword == "SELECT" for token in tokens)
        if written != sum(node.kind == "SelectQuery" for node, _ in root.walk()):
            raise refused("the tables of a subquery cannot be checked here; move the subquery to a WITH clause")
        self._check_calls(tokens, defined, lambda_names(root))
        return statement

    def _check_calls(self, tokens: Sequence[Token], defined: Container[int], lambdas: frozenset[str]) -> None:
        """Refuse calls in the engine's own text that are not allowed, wherever its tree may omit them."""
        in_braces = False
        for index, (token, after) in enumerate(pairwise(tokens)):
            in_braces = (token.text == "{" and after.name is not None) or (in_braces and token.text != "}")
            if "AGGREGATEFUNCTION" in token.keyword:
                raise aggregate_state_refused()
            if in_braces or index in defined or after.text != "(" or token.name is None:
                continue
            if index > 0 and tokens[index - 1].keyword == "AS" and _is_name_list(tokens, index + 1):
                continue
            if token.keyword not in BEFORE_BRACKET and token.name.lower() not in TABLE_FUNCTIONS:
                self.policy.admit_function(token.name, lambdas)

    def screen(self, sql: str) -> Statement:
        """Check the tokens of `sql` without the engine.

        Raises:
            QueryRefusedError: with the code that a ClickHouse server would use: 229 too large, 62 not exactly one valid
                statement, 164 not a read or a change of settings, 497 a function that reaches outside the tables.
        """
        size = len(sql.encode("utf-8", "surrogatepass"))
        if size > MAX_QUERY_BYTES:
            raise QueryRefusedError(
                ErrorCode.QUERY_IS_TOO_LARGE, f"Query of {size} bytes exceeds the limit of {MAX_QUERY_BYTES} bytes."
            )
        text, tokens = statement_tokens(sql)
        if not tokens:
            raise QueryRefusedError(ErrorCode.SYNTAX_ERROR, "Empty query.")
        kind = _kind(tokens)
        text, tokens, output_format = take_format(text, tokens)
        self._screen_tokens(tokens)
        if kind in {"SHOW", "EXISTS"}:
            self._screen_show(tokens)
        return Statement(kind, text.rstrip(), output_format, frozenset(_identifiers(tokens)))

    def _screen_tokens(self, tokens: Sequence[Token]) -> None:
        if any(token.text == ";" for token in tokens):
            raise QueryRefusedError(
                ErrorCode.SYNTAX_ERROR, "Multi-statements are not allowed: send one statement at a time."
            )
        for token, after in pairwise(tokens):
            self._screen_pair(token, after)
        for index, token in enumerate(tokens):
            following = tokens[index + 1 : index + 3]
            is_first = index == 0 or tokens[index - 1].text != "."
            database = token.name or ""
            closed = is_first and database.lower() in self.policy.closed_databases
            if closed and len(following) > 1 and following[0].text == ".":
                # A substitution has no name; the empty name is refused.
                self.policy.admit_metadata(database, following[1].name or "")
            if token.keyword == "APPLY":
                self._screen_apply(tokens[index + 1 : index + 3 + _MAX_APPLIED_TOKENS])
            if token.keyword == "SETTINGS" and _assigns(tokens, index + 1):
                # With readonly=1, the engine checks only the outermost SETTINGS clause.
                raise settings_refused()

    def _screen_pair(self, token: Token, after: Token) -> None:
        if (token.keyword, after.keyword) == ("INTO", "OUTFILE"):
            raise refused("INTO OUTFILE writes a file where the engine runs")
        if (token.keyword, after.keyword) == ("FROM", "INFILE"):
            raise refused("FROM INFILE reads a file where the engine runs")
        if token.kind == "quoted" and "." in token.text and after.text == ".":
            # The tree prints `a.b`.c and a.`b.c` alike, so the database is ambiguous.
            raise refused(f"name {token.text} contains a dot and is followed by one")
        if after.text == "(" and (token.name or "").lower() in self.policy.engine_functions - TABLE_FUNCTIONS:
            self.policy.admit_function(token.name or "")

    def _screen_apply(self, tokens: Sequence[Token]) -> None:
        # The tree omits the applied function, so only its name and literals are admitted.
        applied, is_open = _applied(tokens)
        names = [token.name for token in applied if token.name is not None and not token.text[0].isdigit()]
        if is_open or len(names) > 1:
            raise refused("APPLY takes only the name of a function here, not an expression")
        if names:
            self.policy.admit_function(names[0])

    def _screen_show(self, tokens: Sequence[Token]) -> None:
        # The tree of SHOW omits conditions and names, so only plain forms are admitted.
        words = [token.keyword for token in tokens]
        shown = next((word for word in words[1:] if word not in {"FULL", "EXTENDED"}), "")
        if words[0] == "SHOW" and shown not in SHOWN:
            raise not_a_read(f"SHOW {shown}")
        if any(token.text in {"(", "{"} or token.keyword == "WHERE" for token in tokens):
            raise refused("SHOW and EXISTS take no expressions here: query system.tables instead")
        of_table = any(token.keyword in _PARTS_OF_TABLES for token in tokens)
        sources = [
            tokens[index + 1 : index + 3] for index, token in enumerate(tokens) if token.keyword in {"FROM", "IN"}
        ]
        for order, source in enumerate(sources):
            dotted = len(source) > 1 and source[1].text == "."
            if source and (dotted or not of_table or order > 0):
                self.policy.admit_metadata(source[0].name, None)


def _applied(tokens: Sequence[Token]) -> tuple[Sequence[Token], bool]:
    """Return the function after APPLY with its brackets, and whether it is incomplete or a lambda."""
    depth = 0
    for index, token in enumerate(tokens[:_MAX_APPLIED_TOKENS]):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        following = [other.text for other in tokens[index + 1 : index + 3]]
        if depth <= 0 and following[:1] != ["("]:
            return tokens[: index + 1], following == ["-", ">"]
    return tokens, bool(tokens)


def _kind(tokens: Sequence[Token]) -> str:
    first = next((token for token in tokens if token.text != "("), tokens[0])
    if first.keyword not in FIRST_WORDS:
        raise not_a_read(first.keyword or first.text[:20])
    return FIRST_WORDS[first.keyword]


def _identifiers(tokens: Sequence[Token]) -> Iterator[str]:
    """Yield the names of `{name:Identifier}`; the same name may also occur with another type."""
    for brace, name, colon, type_name in zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False):
        if brace.text == "{" and colon.text == ":" and name.name and (type_name.name or "").upper() == "IDENTIFIER":
            yield name.name


def _is_name_list(tokens: Sequence[Token], start: int) -> bool:
    """Return whether the columns of a table's alias, `(a, b)`, begin at token `start`."""
    for index in range(start, len(tokens)):
        token = tokens[index]
        if token.text == ")":
            return True
        if token.name is None if (index - start) % 2 else token.text not in {"(", ","}:
            return False
    return False


def _assigns(tokens: Sequence[Token], start: int) -> bool:
    """Return whether `name =` or `name.name =` begins at token `start`."""
    for index in range(start, len(tokens)):
        token, is_dot = tokens[index], (index - start) % 2 == 1
        if is_dot and token.text == "=":
            return True
        if not (token.text == "." if is_dot else token.name is not None):
            return False
    return False


def _defined_tables(tokens: Sequence[Token]) -> dict[int, str]:
    """Return the tables that WITH defines, by the index of the name: `name AS (SELECT …`, `name (column) AS (SELECT …`.

    `tokens` are those of the engine's own text.
    """
    found: dict[int, str] = {}
    opening = 0
    for index, token in enumerate(tokens):
        if token.text == "(":
            opening = index
        following = [other.keyword or other.text for other in tokens[index + 1 : index + 5]]
        if "MATERIALIZED" in following[1:2]:
            del following[1]
        if following[:2] == ["AS", "("] and following[2:3] in (["SELECT"], ["WITH"], ["("]):
            name = opening - 1 if token.text == ")" else index
            found[name] = tokens[name].name or ""
    return found
