"""The one table of finding rules, ``finding_rules.toml``: severity, summary, resolution, and the operator's action.

``python -m grantledger.schemas.finding_rules docs`` writes docs/findings.md and one runbook per rule from it.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Literal

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
"""From least to most urgent."""
RUNBOOKS = "docs/runbooks"
"""The folder that has one page per rule, as a path in the repository."""


@dataclass(frozen=True, slots=True)
class FindingRule:
    """One rule. The table describes its members."""

    name: str
    process: str
    severity: Severity
    summary: str
    meaning: str
    action: str
    look: str = "`grantledger findings show ID` has the evidence and the entries."
    persists: bool = False
    about: Literal["", "grant", "session"] = ""

    @property
    def runbook(self) -> str:
        """Path of the rule's runbook in the repository."""
        return f"{RUNBOOKS}/{self.name}.md"


def _read_table() -> Mapping[str, FindingRule]:
    table = tomllib.loads((files(__package__) / "finding_rules.toml").read_text("utf-8"))
    texts = ("meaning", "look", "action")
    rules = (
        {**rule, **{text: " ".join(rule[text].split()) for text in texts if text in rule}} for rule in table.values()
    )
    return MappingProxyType({name: FindingRule(name, **rule) for name, rule in zip(table, rules, strict=True)})


FINDING_RULES = _read_table()
"""All rules by name."""

_HEAD = """\
# Findings: what they mean and what to do

<!-- Generated: python -m grantledger.schemas.finding_rules docs -->

`grantledger findings list` and the view [`findings`](queries.md) show which are open. Each rule has a runbook: what it
means, what to look at, what to do. A finding that does not resolve automatically stays open until a person closes it:
`grantledger findings close --reason …`.

| rule | severity | opened by | summary |
|---|---|---|---|
"""


def page() -> str:
    """Return the table of all rules as Markdown."""
    rules = FINDING_RULES.values()
    return _HEAD + "".join(
        f"| [`{one.name}`](runbooks/{one.name}.md) | {one.severity} | {one.process} | {one.summary} |\n"
        for one in rules
    )


def runbook(rule: FindingRule) -> str:
    """Return the runbook of a rule as Markdown."""
    closing = "It stays open until a person closes it." if rule.persists else "It resolves as described below."
    return (
        f"# {rule.name}\n\n<!-- Generated: python -m grantledger.schemas.finding_rules docs -->\n\n"
        f"{rule.summary}.\n\nSeverity: {rule.severity}. Opened by: {rule.process}. {closing}\n\n"
        f"## What it means\n\n{rule.meaning}\n\n## What to look at\n\n{rule.look}\n\n"
        f"## What to do\n\n{rule.action}\n\n[All rules](../findings.md) · [Operations](../operations.md)\n"
    )


def pages() -> dict[str, str]:
    """Return all generated pages by their paths in the folder of documentation."""
    runbooks = {f"runbooks/{rule.name}.md": runbook(rule) for rule in FINDING_RULES.values()}
    return {"findings.md": page()} | runbooks


if __name__ == "__main__":
    for name, text in pages().items():
        path = Path(*(sys.argv[1:] or ["docs"]), name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
