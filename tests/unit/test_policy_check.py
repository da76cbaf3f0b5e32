"""``policy check`` and ``channels check``: every error with its line, and what a valid file sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.command import invoke

POLICY = """
[default]
grace_seconds = 0.5

[[rule]]
source = "vault"
resource = "aws/*"
max_seconds = 14400
removal = ["confirmed", "deadline"]

[[person]]
name = "alice"
identities = ["al"]
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return str(path)


def test_every_error_is_named_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "[default]\ngrace_second = 5\n[[rule]]\nremoval = 1\nrevoke = 'soon'\n")
    result = invoke("policy", "check", path)
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.removeprefix("grantledger: ").splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [f"{path}:2", "default.grace_second"], [f"{path}:4", "rule 1.removal"], [f"{path}:5", "rule 1.revoke"],
    ]  # fmt: skip


def test_the_table_shows_what_each_rule_sets(tmp_path: Path) -> None:
    path = written(tmp_path, POLICY)
    result = invoke("policy", "check", path)
    assert result.exit_code == 0, result.stderr
    [default] = [line for line in result.stdout.splitlines() if "everything (default)" in line]
    assert [cell.strip() for cell in default.split("│")][2:4] == ["0.5 s", "none"]
    [rule] = [line for line in result.stdout.splitlines() if "rule 1: source vault" in line]
    assert "4 h" in rule and "confirmed, deadline" in rule and "0.5 s" not in rule
    assert "source cloudtrail/*: delivery_seconds 900" in result.stdout and "names: 1 person" in result.stdout
    shown = json.loads(invoke("policy", "check", path, "-o", "json").stdout)
    assert shown["rules"][-1] == {
        "for": "rule 1: source vault, resource aws/*",
        "sets": {"max_seconds": 14400.0, "removal": ["confirmed", "deadline"]},
    }


def test_an_enforcement_policy_is_checked_too(tmp_path: Path) -> None:
    good = (
        '[targets.db]\nplugin = "exec"\ncommand = ["/bin/true"]\n'
        '[[routes]]\ntarget = "db"\nresource_kind = "database"\n'
    )
    result = invoke("policy", "check", "--enforcement", written(tmp_path, good))
    assert result.exit_code == 0 and "target db, resource_kind database" in result.stdout, result.stderr
    result = invoke("policy", "check", "--enforcement", written(tmp_path, good + "resorce_id = 1\n"))
    assert result.exit_code == 2 and ":7: routes 1.resorce_id: unknown key" in result.stderr


def test_a_file_with_alert_channels_is_checked_without_its_secrets(tmp_path: Path) -> None:
    good = '[channels.pager]\nkind = "webhook"\nurl = "https://x.example/"\nsecret = { file = "/no/such/file" }\n'
    result = invoke("channels", "check", written(tmp_path, good))
    assert result.exit_code == 0 and "https://x.example/" in result.stdout, result.stderr
    result = invoke("channels", "check", written(tmp_path, good + "rule = []\n"))
    assert result.exit_code == 2 and ":5: channels.pager.rule: unknown key; did you mean rules?" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "give a FILE, or set GRANTLEDGER_WATCH_POLICY"), (("/no/such/file",), "/no/such/file: cannot be read")],
)
def test_a_missing_file_is_an_error(arguments: tuple[str, ...], said: str) -> None:
    result = invoke("policy", "check", *arguments)
    assert result.exit_code == 2 and said in result.stderr
