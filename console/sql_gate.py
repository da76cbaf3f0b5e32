"""Decide whether a SQL text may run: one statement that only reads, and only tables that are open.

`readonly=1` is not enough in an embedded engine. Measured with chDB 26.9, on a connection with `readonly=1`:
`SELECT … INTO OUTFILE` writes files; the scalar `file()` reads them; `DESCRIBE file()/url()/s3()/sqlite()/Python()`
read files, the network and variables of the process; `KILL QUERY`, `KILL MUTATION` and `SYSTEM STOP MERGES` run;
`a; b` runs both; `SETTINGS` in a subquery is not checked; system tables show other queries.

So the gate checks a text twice:
1. `screen` checks its tokens (`lexer`), without an engine. Its result is one statement without comments.
2. `inspect` checks the syntax tree that the engine's own parser builds from that text. The tree does not show the
   arguments of `APPLY(…)` and SHOW, so only plain names may stand there, and the SELECTs in the engine's own rewriting
   of the text must all appear in the tree. The engine also calls a function by its bare name (`arrayMap(file, …)`,
   `currentHandler`), so a name in an expression is checked like a call, and higher-order functions take lambdas only.
Run the text of the resulting statement, and nothing else, with the settings of `execution`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from .errors import ErrorCode, QueryRefusedError
from .lexer import Token, tokenize
from .policy import EXPLAINS, FIRST_WORDS, NODES, ROOTS, SqlPolicy, refused
from .syntax_tree import Node, read_tree

MAX_QUERY_BYTES = 256 * 1024

_IDENTIFIER_VALUE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,126}(?:\.[A-Za-z_][A-Za-z0-9_]{0,126})?")
# After these words FORMAT is the name of a table or column, not the clause.
_BEFORE_NAME = frozenset({"FROM", "JOIN", "AS", "IN", "TABLE", "DESCRIBE", "EXISTS", "SELECT", "BY", "VIEW"})
# Of the function after APPLY and its literals: a bound for the work on brackets that are not closed.
_MAX_APPLIED_TOKENS = 256
_PARTS_OF_TABLES = frozenset({"COLUMNS", "FIELDS", "INDEX", "INDEXES", "INDICES", "KEYS"})


@dataclass(frozen=True)
class Statement:
    """A statement that may run.

    Attributes:
        kind: SELECT, SHOW, DESCRIBE, EXPLAIN or EXISTS.
        text: the text to run, without comments, a final semicolon or a FORMAT clause.
        format: the output format of its FORMAT clause, None without one.
        identifiers: names of the `{name:Identifier}` substitutions.
    """

    kind: str
    text: str
    format: str | None
    identifiers: frozenset[str]


class Parser(Protocol):
    """The engine's own parser; it runs no part of the text."""

    def tree(self, text: str) -> Sequence[str]:
        """Return the lines of `EXPLAIN AST` for a text from `SqlGate.screen`, with the query's parameters."""

    def canonical(self, text: str) -> str:
        """Return the text as the engine formats it (`formatQuerySingleLine`)."""


class SqlGate:
    """Checks SQL texts against a policy. It has no state, so all threads share one."""

    def __init__(self, policy: SqlPolicy) -> None:
        self.policy = policy

    def check(self, sql: str, parameters: Mapping[str, str], parser: Parser) -> Statement:
        """Return the statement to run for `sql`; `parameters` are the values of its substitutions.

        Raises QueryRefusedError, and the exceptions of `parser`.
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
        self.inspect(statement, root)
        written = sum(token.keyword == "SELECT" for token in tokens)
        if written != sum(node.kind == "SelectQuery" for node, _ in root.walk()):
            raise refused("a subquery stands where its tables cannot be checked; write it as a WITH clause")
        return statement

    def screen(self, sql: str) -> Statement:
        """Check the tokens of `sql`, without an engine.

        Raises QueryRefusedError with the code a ClickHouse server would use: 229 too large, 62 not one readable
        statement, 164 not a read or a change of settings, 497 a function that reaches outside.
        """
        size = len(sql.encode("utf-8", "surrogatepass"))
        if size > MAX_QUERY_BYTES:
            raise QueryRefusedError(
                ErrorCode.QUERY_IS_TOO_LARGE, f"Query of {size} bytes exceeds the limit of {MAX_QUERY_BYTES} bytes."
            )
        text, tokens = tokenize(sql)
        while tokens and tokens[-1].text == ";":
            text = text[: tokens.pop().start]
        if not tokens:
            raise QueryRefusedError(ErrorCode.SYNTAX_ERROR, "Empty query.")
        kind = _kind(tokens)
        text, tokens, output_format = _take_format(text, tokens)
        self._screen_tokens(tokens)
        if kind in {"SHOW", "EXISTS"}:
            self._screen_show(tokens)
        return Statement(kind, text.rstrip(), output_format, frozenset(_identifiers(tokens)))

    def inspect(self, statement: Statement, root: Node) -> None:
        """Check the syntax tree that the engine's parser built from the statement's text. Raises QueryRefusedError."""
        kind = ROOTS.get(root.kind)
        if kind != statement.kind:
            raise _not_a_read(root.kind)
        if kind == "EXPLAIN" and root.label not in EXPLAINS:
            raise refused(f"{root.label} is not supported, only: {', '.join(sorted(EXPLAINS))}")
        if kind == "SELECT" and any(child.kind != "ExpressionList" for child in root.children[1:]):
            # Apart from its select list a root contains only an output file, a format or settings; all are refused.
            raise refused("the statement has an output clause (INTO OUTFILE, FORMAT or SETTINGS)")
        if kind in {"SHOW", "EXISTS"}:
            self._inspect_names(root)
            return
        for node, parent in root.walk():
            if parent is not None:
                self._inspect_node(node, parent, root)

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
                # A substitution is not a name: require an empty one, which is refused.
                self.policy.admit_table(database, following[1].name or "")
            if token.keyword == "APPLY":
                self._screen_apply(tokens[index + 1 : index + 3 + _MAX_APPLIED_TOKENS])
            if token.keyword == "SETTINGS" and _assigns(tokens, index + 1):
                # The engine checks only the outermost clause against readonly=1.
                raise _settings_refused()

    def _screen_pair(self, token: Token, after: Token) -> None:
        if (token.keyword, after.keyword) == ("INTO", "OUTFILE"):
            raise refused("INTO OUTFILE writes a file where the engine runs")
        if (token.keyword, after.keyword) == ("FROM", "INFILE"):
            raise refused("FROM INFILE reads a file where the engine runs")
        if token.kind == "quoted" and "." in token.text and after.text == ".":
            # The tree prints `a.b`.c and a.`b.c` alike, so the database would be ambiguous.
            raise refused(f"name {token.text} contains a dot and is followed by one")
        if after.text == "(" and token.name is not None:
            self.policy.admit_function(token.name)

    def _screen_apply(self, tokens: Sequence[Token]) -> None:
        # The tree does not show the applied function, so only its name and literals may stand here.
        applied, is_open = _applied(tokens)
        names = [token.name for token in applied if token.name is not None and not token.text[0].isdigit()]
        if names:
            self.policy.admit_function(names[0])
        if is_open or len(names) > 1:
            raise refused("APPLY takes only the name of a function here, not an expression")

    def _screen_show(self, tokens: Sequence[Token]) -> None:
        # The tree of SHOW does not show its conditions and names, so only plain forms are admitted.
        if any(token.text in {"(", "{"} or token.keyword == "WHERE" for token in tokens):
            raise refused("SHOW and EXISTS take no expressions here: query system.tables instead")
        of_table = any(token.keyword in _PARTS_OF_TABLES for token in tokens)
        sources = [
            tokens[index + 1 : index + 3] for index, token in enumerate(tokens) if token.keyword in {"FROM", "IN"}
        ]
        for order, source in enumerate(sources):
            dotted = len(source) > 1 and source[1].text == "."
            if source and (dotted or not of_table or order > 0):
                self.policy.admit_table(source[0].name, None)

    def _inspect_names(self, root: Node) -> None:
        names = [child.label for child in root.children]
        if root.kind in {"ShowCreateDatabaseQuery", "ExistsDatabaseQuery", "ShowTables"}:
            names = [*names, ""] if names else []
        if len(names) > 1:
            self.policy.admit_table(names[0], names[1] or None)

    def _inspect_node(self, node: Node, parent: Node, root: Node) -> None:
        if node.kind == "Set" and parent is root and root.kind == "Explain":
            return
        if node.kind == "Set":
            raise _settings_refused()
        if node.kind not in NODES:
            raise refused(f"this part of SQL is not supported by the endpoint: {node.kind}")
        match node.kind:
            case "TableIdentifier":
                database, dot, table = node.label.partition(".")
                if dot:
                    self.policy.admit_table(database, table)
            case "Function" if parent.kind in {"TableExpression", "Explain"}:
                self.policy.admit_table_function(node.label)
                self._require_lambda(node)
            case "Function":
                self.policy.admit_function(node.label)
                self._require_lambda(node)
            case "Identifier":
                # The engine accepts a bare name as a function, arrayMap(file, …), and runs some without parentheses.
                # The tree contains the values of substitutions.
                self.policy.admit_identifier(node.label)

    def _require_lambda(self, call: Node) -> None:
        """Refuse a call that may pass a function as anything but a lambda: the name alone is not checked as a call."""
        arguments = call.children[0].children if call.children else []
        if not self.policy.takes_function(call.label, len(arguments)):
            return
        first = arguments[0]
        if (first.kind, first.label) == ("Function", "lambda"):
            return
        example = "f"
        if first.kind == "Identifier":
            # A refused name gets its own reason.
            self.policy.admit_identifier(first.label)
            example = first.label
        raise refused(f"{call.label}() takes a lambda as its first argument here: write x -> {example}(x)")


def _not_a_read(statement: str) -> QueryRefusedError:
    return QueryRefusedError(
        ErrorCode.READONLY, f"{statement} is refused: only SELECT, SHOW, DESCRIBE, EXPLAIN and EXISTS run here."
    )


def _settings_refused() -> QueryRefusedError:
    return QueryRefusedError(
        ErrorCode.READONLY, "SETTINGS is refused: a query cannot change the limits of this endpoint."
    )


def _applied(tokens: Sequence[Token]) -> tuple[Sequence[Token], bool]:
    """Return the name and brackets directly after APPLY, and whether they do not end here or begin a lambda."""
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
        raise _not_a_read(first.keyword or first.text[:20])
    return FIRST_WORDS[first.keyword]


def _take_format(text: str, tokens: list[Token]) -> tuple[str, list[Token], str | None]:
    if len(tokens) < 3 or tokens[-2].keyword != "FORMAT" or tokens[-1].name is None:
        return text, tokens, None
    before = tokens[-3]
    described = before.keyword == "DESC" and len(tokens) == 3  # elsewhere it is an order
    if described or before.keyword in _BEFORE_NAME or before.text in {".", ","}:
        return text, tokens, None
    return text[: tokens[-2].start], tokens[:-2], tokens[-1].name


def _identifiers(tokens: Sequence[Token]) -> Iterator[str]:
    """Yield the names of `{name:Identifier}`; the same name may also be substituted with another type."""
    for brace, name, colon, type_name in zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False):
        if brace.text == "{" and colon.text == ":" and name.name and (type_name.name or "").upper() == "IDENTIFIER":
            yield name.name


def _assigns(tokens: Sequence[Token], start: int) -> bool:
    """Return whether the tokens from `start` on begin with `name =` or `name.name =`."""
    for index in range(start, len(tokens)):
        token, is_dot = tokens[index], (index - start) % 2 == 1
        if is_dot and token.text == "=":
            return True
        if not (token.text == "." if is_dot else token.name is not None):
            return False
    return False
