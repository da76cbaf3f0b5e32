"""The one table of finding rules: complete, unique, and the source of the runbook page."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from grantledger.schemas.finding_rules import FINDING_RULES, SEVERITIES, FindingRule, pages, runbook
from grantledger.sinks.migrate import available

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "schemas" / "finding_rules.py"
PRODUCT = (
    "base", "schemas", "ledger", "kafka", "producers", "processors", "sinks", "enforcers", "verifier", "webhooks",
    "console", "runtime", "cli",
)  # fmt: skip
RULE_ARGUMENTS = {"Finding": 0, "SealingStoppedError": 0, "Candidate": 0, "finding_opened": 1}
"""Calls whose argument at this position is a rule."""


@cache
def product_trees() -> list[tuple[Path, ast.Module]]:
    paths = [path for room in PRODUCT for path in sorted((ROOT / room).rglob("*.py")) if path != TABLE]
    return [(path, ast.parse(path.read_text("utf-8"))) for path in paths]


def text_of(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def named_rules(tree: ast.Module) -> set[str]:
    """Return the texts that stand where a rule is expected: arguments, ``*RULE`` constants, comparisons with a rule."""
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            place = RULE_ARGUMENTS.get(name)
            if place is not None and len(node.args) > place:
                found.append(node.args[place])
            found += [keyword.value for keyword in node.keywords if keyword.arg == "rule"]
        elif isinstance(node, ast.Assign) and any(getattr(one, "id", "").endswith("RULE") for one in node.targets):
            found.append(node.value)
        elif isinstance(node, ast.Compare) and getattr(node.left, "id", getattr(node.left, "attr", "")) == "rule":
            found += node.comparators
        elif isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "FINDING_RULES":
            found.append(node.slice)
    return {text for text in map(text_of, found) if text}


def test_every_rule_in_product_code_is_in_the_table() -> None:
    unknown = {(path.name, rule) for path, tree in product_trees() for rule in named_rules(tree) - set(FINDING_RULES)}
    assert not unknown


def test_every_rule_of_the_table_is_used() -> None:
    literals = {
        text for _, tree in product_trees() for node in ast.walk(tree)
        if isinstance(node, ast.expr) and (text := text_of(node)) is not None
    }  # fmt: skip
    assert set(FINDING_RULES) <= literals


def test_the_scan_finds_rules() -> None:
    tree = ast.parse("SKEW_RULE = 'a'\nFinding('b')\nopen(rule='c')\nif x.rule == 'd': pass\nFINDING_RULES['e']")
    assert named_rules(tree) == {"a", "b", "c", "d", "e"}


def test_every_rule_has_a_runbook_and_every_runbook_a_rule() -> None:
    docs = ROOT / "docs"
    present = {"findings.md", *(f"runbooks/{path.name}" for path in (docs / "runbooks").iterdir())}
    assert present == set(pages())
    for name, text in pages().items():
        assert (docs / name).read_text("utf-8") == text, "run: python -m grantledger.schemas.finding_rules docs"


@pytest.mark.parametrize("rule", FINDING_RULES.values(), ids=list(FINDING_RULES))
def test_a_rule_reads_well(rule: FindingRule) -> None:
    assert re.fullmatch(r"[a-z][a-z_]+", rule.name)
    assert rule.severity in SEVERITIES
    assert re.fullmatch(r"[A-Z][^\n]{10,98}[a-z]", rule.summary), "one line, no full stop"
    assert rule.action.endswith(".")
    assert rule.meaning.endswith(".")
    assert rule.look.endswith(".")
    assert rule.runbook.removeprefix("docs/") in pages()
    assert re.findall("^## (.+)$", runbook(rule), re.MULTILINE) == ["What it means", "What to look at", "What to do"]


def test_the_view_of_rules_is_the_table() -> None:
    """A changed rule needs a migration with ``CREATE OR REPLACE VIEW finding_rules``."""
    view = [text for one in available() for text in one.statements if re.match(r"CREATE .*VIEW finding_rules\n", text)][
        -1
    ]
    rows = re.findall(r"^ +\('(\w+)', '(\w+)', '(\w*)', (\w+), '((?:[^']|'')+)', '([^']+)'\),?$", view, re.MULTILINE)
    expected = [
        (one.name, one.severity, one.about, str(one.persists).lower(), one.summary.replace("'", "''"), one.runbook)
        for one in FINDING_RULES.values()
    ]
    assert rows == expected
