"""Parse the output of `EXPLAIN AST`.

Each line is a node, indented by its depth: `Function file (alias f) (children 1)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .errors import ErrorCode, QueryRefusedError

_TAIL = re.compile(r"(?: \(alias (.*?)\))?(?: \(children \d+\))?$")


@dataclass
class Node:
    """A node. ``kind`` is the first word of its line, ``label`` the rest without ``alias`` and child count."""

    kind: str
    label: str
    alias: str = ""
    children: list[Node] = field(default_factory=list)

    def walk(self) -> Iterator[tuple[Node, Node | None]]:
        """Yield this node and its descendants, each with its parent; None for this node."""
        stack: list[tuple[Node, Node | None]] = [(self, None)]
        while stack:
            node, parent = stack.pop()
            yield node, parent
            stack.extend((child, node) for child in reversed(node.children))


def read_tree(lines: Sequence[str]) -> Node:
    """Build the tree from the lines of `EXPLAIN AST`.

    Raises:
        QueryRefusedError: the lines are not one tree: no root, several roots, or a node that skips a level.
    """
    path: list[Node] = []
    root: Node | None = None
    for line in lines:
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip(" "))
        kind, _, label = line.strip().partition(" ")
        tail = _TAIL.search(f" {label}")
        start, alias = (tail.start(), tail[1] or "") if tail else (None, "")
        node = Node(kind, f" {label}"[:start].strip(), alias)
        if depth > len(path) or (depth == 0 and root is not None):
            raise QueryRefusedError(ErrorCode.SYNTAX_ERROR, f"The engine's syntax tree is malformed at: {kind}.")
        del path[depth:]
        if path:
            path[-1].children.append(node)
        else:
            root = node
        path.append(node)
    if root is None:
        raise QueryRefusedError(ErrorCode.SYNTAX_ERROR, "The engine returned no syntax tree.")
    return root
