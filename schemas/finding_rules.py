"""The one table of finding rules, ``finding_rules.toml``: severity, summary, resolution, and the operator's action.

``python -m grantledger.schemas.finding_rules > docs/findings.md`` writes the runbook page from it.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
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
    persists: bool = False

    @property
    def runbook(self) -> str:
        """Path of the rule's runbook in the repository."""
        return f"{RUNBOOKS}/{self.name}.md"


def _read_table() -> Mapping[str, FindingRule]:
    table = tomllib.loads((files(__package__) / "finding_rules.toml").read_text("utf-8"))
    texts = ("meaning", "action")
    rules = ({**rule, **{text: " ".join(rule[text].split()) for text in texts}} for rule in table.values())
    return MappingProxyType({name: FindingRule(name, **rule) for name, rule in zip(table, rules, strict=True)})


FINDING_RULES = _read_table()
"""All rules by name."""

_HEAD = """\
# Findings: what they mean and what to do

<!-- Generated: python -m grantledger.schemas.finding_rules > docs/findings.md -->

One section per rule. `grantledger findings list` and the view [`findings`](queries.md) show which are open. A finding
that does not resolve automatically stays open until a person closes it: `grantledger findings close --reason …`.

| rule | severity | opened by | summary |
|---|---|---|---|
"""


def page() -> str:
    """Return the runbook as Markdown."""
    rules = FINDING_RULES.values()
    rows = [f"| [`{one.name}`](#{one.name}) | {one.severity} | {one.process} | {one.summary} |\n" for one in rules]
    return _HEAD + "".join(rows) + "".join(map(_section, rules))


def _section(rule: FindingRule) -> str:
    closing = "It stays open until a person closes it." if rule.persists else "The event named below resolves it."
    return (
        f"\n## {rule.name}\n\n{rule.summary}.\n\nSeverity: {rule.severity}. {closing}\n\n"
        f"**Meaning.** {rule.meaning}\n\n**What to do.** {rule.action}\n"
    )


if __name__ == "__main__":
    sys.stdout.write(page())
