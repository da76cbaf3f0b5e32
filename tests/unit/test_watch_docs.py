"""The page about the watch: its policy is one, and it names every key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from grantledger.processors.watch_policy import (
    AccessLimits,
    AccessRule,
    EffectivePolicy,
    SourceLimits,
    load_policy,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "watch.md").read_text("utf-8")


def test_the_policy_of_the_page_is_one(tmp_path: Path) -> None:
    [text] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "policy.toml"
    file.write_text(text)
    policy = EffectivePolicy(load_policy(file))
    assert policy.stated.default.approvals == 1
    assert policy.severity("no_deadline") == "info"


@pytest.mark.parametrize("model", [AccessLimits, AccessRule, SourceLimits])
def test_every_key_is_named(model: type[AccessLimits | AccessRule | SourceLimits]) -> None:
    missing = {name for name in model.model_fields if not re.search(rf"\b{name}\b", PAGE)}
    assert missing == set()


def test_the_defaults_of_the_page_are_the_defaults() -> None:
    [text] = re.findall(r"\[default\]\n(.*?)\n\n", PAGE, re.DOTALL)
    for name, value in re.findall(r"^(\w+) = ([\d.]+)", text, re.MULTILINE):
        if name != "approvals":
            assert getattr(AccessLimits(), name) == float(value), name
