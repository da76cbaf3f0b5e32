"""The page about the watch: its policy is one, and it names every rule and every key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from grantledger.processors.sweep.compare import RULE
from grantledger.processors.watch.policy import SEVERITIES, Judge, Limits, Override, Rule, SourceLimits, read_policy
from grantledger.processors.watch.reports import FAULT

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "watch.md").read_text("utf-8")


def test_every_rule_stands_in_the_table_with_its_severity() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", PAGE, re.MULTILINE))
    assert rows == {**SEVERITIES, FAULT: "critical", RULE: "critical"}
    assert set(SEVERITIES) == set(get_args(Rule))


def test_the_policy_of_the_page_is_one(tmp_path: Path) -> None:
    [text] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "policy.toml"
    file.write_text(text)
    judge = Judge(read_policy(file))
    assert judge.policy.default.approvals == 1
    assert judge.severity("no_deadline") == "info"


@pytest.mark.parametrize("model", [Limits, Override, SourceLimits])
def test_every_key_is_named(model: type[Limits | Override | SourceLimits]) -> None:
    missing = {name for name in model.model_fields if not re.search(rf"\b{name}\b", PAGE)}
    assert missing == set()


def test_the_defaults_of_the_page_are_the_defaults() -> None:
    [text] = re.findall(r"\[default\]\n(.*?)\n\n", PAGE, re.DOTALL)
    for name, value in re.findall(r"^(\w+) = ([\d.]+)", text, re.MULTILINE):
        if name != "approvals":
            assert getattr(Limits(), name) == float(value), name
