"""Check the syntax tree that the engine's own parser builds from a statement: every node must be allowed."""

from __future__ import annotations

from typing import Final

from .errors import ErrorCode, QueryRefusedError
from .sql_policy import EXPLAINS, NODES, ROOTS, SqlPolicy, refused
from .syntax_tree import Node

# Functions that read a table if their last argument is its name, also through an alias: WITH entries AS e … x IN e.
_MEMBERSHIP: Final = frozenset({"in", "notin", "nullin", "notnullin"})
# Functions with the name of a type as text, and its position.
_TYPE_ARGUMENT: Final = {
    **dict.fromkeys(("cast", "_cast", "accuratecast", "accuratecastornull", "accuratecastordefault", "reinterpret"), 1),
    **dict.fromkeys(("jsonextract", "jsonextractcaseinsensitive", "dynamicelement", "variantelement"), -1),
}


class TreeGate:
    """Checks one statement. `defined` are the tables that it defines itself (WITH)."""

    def __init__(self, policy: SqlPolicy, root: Node, defined: frozenset[str] = frozenset()) -> None:
        self._policy, self._root, self._defined = policy, root, defined
        self._lambdas = lambda_names(root)
        calls = (node.label.lower() for node, _ in root.walk() if node.kind == "Function")
        self._tests_membership = not _MEMBERSHIP.isdisjoint(calls)

    def inspect(self, kind: str) -> None:
        """Refuse a tree that is not one of this kind of statement, or has a part that is not allowed.

        Raises:
            QueryRefusedError: the message names the part.
        """
        root = self._root
        if ROOTS.get(root.kind) != kind:
            raise not_a_read(root.kind)
        if kind == "EXPLAIN" and root.label not in EXPLAINS:
            name = "EXPLAIN PLAN" if root.label == "EXPLAIN" else root.label
            raise refused(f"{name} is not supported, only: {', '.join(sorted(EXPLAINS))}")
        if kind == "SELECT" and any(child.kind != "ExpressionList" for child in root.children[1:]):
            # Apart from the select list, a root contains only an output file, a format or settings. All are refused.
            raise refused("the statement has an output clause (INTO OUTFILE, FORMAT or SETTINGS)")
        if kind in {"SHOW", "EXISTS"}:
            self._inspect_names()
            return
        for node, parent in root.walk():
            if parent is not None:
                self._inspect_node(node, parent)

    def _inspect_names(self) -> None:
        names = [child.label for child in self._root.children]
        if self._root.kind in {"ShowCreateDatabaseQuery", "ExistsDatabaseQuery", "ShowTables"}:
            names = [*names, ""] if names else []
        if len(names) > 1:
            self._policy.admit_metadata(names[0], names[1] or None)

    def _inspect_node(self, node: Node, parent: Node) -> None:
        if node.kind == "Set" and parent is self._root and parent.kind == "Explain":
            return
        if node.kind == "Set":
            raise settings_refused()
        if node.kind not in NODES:
            raise refused(f"this part of SQL is not supported by the endpoint: {node.kind}")
        match node.kind:
            case "TableIdentifier":
                first, dot, rest = node.label.partition(".")
                self._policy.admit_table(first if dot else "", rest if dot else first, self._defined)
            case "Function" if parent.kind in {"TableExpression", "Explain"}:
                self._policy.admit_table_function(node.label)
                self._require_lambda(node)
            case "Function":
                self._policy.admit_function(node.label, self._lambdas)
                self._require_lambda(node)
                self._require_plain_type(node)
            case "Identifier":
                # It may be a function: arrayMap(file, …). The tree contains the values of substitutions.
                self._policy.admit_identifier(node.label)
                self._require_no_closed_table(node)

    def _require_no_closed_table(self, node: Node) -> None:
        """Refuse the name of a table that may not be read where IN could read it."""
        name = node.label.removeprefix(f"{self._policy.database}.")
        if self._tests_membership and name in self._policy.closed_tables:
            raise refused(f"{name} is also a table, which IN would read; qualify a column of that name, as in t.{name}")

    def _require_lambda(self, call: Node) -> None:
        """Refuse a higher-order call whose first argument is not a lambda: it might name a function."""
        arguments = _arguments(call)
        if not self._policy.takes_function(call.label, len(arguments)):
            return
        first = arguments[0]
        if (first.kind, first.label) == ("Function", "lambda"):
            return
        example = "f"
        if first.kind == "Identifier":
            # A refused name has its own message.
            self._policy.admit_identifier(first.label)
            example = first.label
        raise refused(f"{call.label}() takes a lambda as its first argument here: write x -> {example}(x)")

    def _require_plain_type(self, call: Node) -> None:
        """Refuse a conversion to the internal state of an aggregate function, which would be read from raw bytes."""
        position = _TYPE_ARGUMENT.get(call.label.lower())
        arguments = _arguments(call)
        if position is None or len(arguments) < 2:
            return
        if arguments[position].kind != "Literal":
            raise refused(f"{call.label}() takes the name of a type as a plain string here")
        if "aggregatefunction" in arguments[position].label.lower():
            raise aggregate_state_refused()


def lambda_names(root: Node) -> frozenset[str]:
    """Return the names that a statement gives to lambdas: `WITH (x -> x + 1) AS f`."""
    return frozenset(node.alias for node, _ in root.walk() if (node.kind, node.label) == ("Function", "lambda"))


def not_a_read(statement: str) -> QueryRefusedError:
    """Return the error for a statement that does not only read."""
    return QueryRefusedError(
        ErrorCode.READONLY, f"{statement} is refused: only SELECT, SHOW, DESCRIBE, EXPLAIN and EXISTS run here."
    )


def settings_refused() -> QueryRefusedError:
    """Return the error for a SETTINGS clause."""
    return QueryRefusedError(
        ErrorCode.READONLY, "SETTINGS is refused: a query cannot change the limits of this endpoint."
    )


def aggregate_state_refused() -> QueryRefusedError:
    """Return the error for the type AggregateFunction."""
    return refused("the type AggregateFunction is the internal state of a function and cannot be made from a value")


def _arguments(call: Node) -> list[Node]:
    return call.children[0].children if call.children else []
