"""docs/trust.md: each row names tests, and each of these exists and is not skipped always."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from grantledger.schemas.finding_rules import FINDING_RULES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "trust.md").read_text("utf-8")
TABLES = PAGE.partition("## Behind or removed")[0].splitlines()
ROWS = [line for line in TABLES if line.startswith("| ") and not line.startswith("| can |")]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)+)`", PAGE)))


@cache
def runs_in(file: str) -> dict[str, list[str]]:
    """Return the tests of a file as pytest names them, each with its decorators."""
    found: dict[str, list[str]] = {}

    def add(body: list[ast.stmt], before: str, above: list[str]) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                decorators = [*above, *map(ast.unparse, node.decorator_list)]
                if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                    add(node.body, f"{before}{node.name}::", decorators)
                elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                    found[before + node.name] = decorators

    module = ast.parse((ROOT / file).read_text("utf-8"))
    marks = [ast.unparse(node) for node in module.body if ast.unparse(node).startswith("pytestmark")]
    add(module.body, "", marks)
    return found


def test_each_named_test_exists_and_runs() -> None:
    for name in NAMED:
        file, _, test = name.partition("::")
        assert test in runs_in(file), f"docs/trust.md names {name}"
        assert not [mark for mark in runs_in(file)[test] if re.search(r"\b(skip|xfail)\b", mark)], name


def test_each_row_names_a_test() -> None:
    assert len(ROWS) > 40
    for row in ROWS:
        cells = row.strip("|").split(" | ")
        assert len(cells) == 5 and re.search(r"`tests/\S+::test_\w+`", cells[4]), row


def test_the_findings_of_the_page_are_rules() -> None:
    for row in ROWS:
        for rule in re.findall(r"`([a-z]+_[a-z_]+)`", row.split(" | ")[3]):
            assert rule in FINDING_RULES or rule == "rejected_events", rule


def test_what_only_a_witness_finds_is_stated() -> None:
    assert sum("not found by grantledger alone" in row and "(planned)" in row for row in ROWS) >= 4
