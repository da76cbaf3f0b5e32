"""Rules of one's own, the command that checks them, and the page about redaction."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from grantledger.base.toml import ConfigError
from grantledger.producers import Client
from grantledger.producers.redaction.file import make_redactor
from grantledger.producers.redaction.redactor import Known, Level, Redactor
from grantledger.producers.redaction.rules import RULES, SQL_PARAMETERS, TOO_DEEP
from grantledger.runtime.redaction import Redactors
from grantledger.runtime.settings import Settings
from support.command import invoke
from support.events import event as some_event

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "redaction.md").read_text("utf-8")


def block(start: str) -> str:
    """Return a block of the page from its first line on."""
    return PAGE[PAGE.index(start) :].partition("```")[0]


OWN = block('[[rule]]\nname = "customer_number"')


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(OWN)
    return path


def redactor(rules: Path, level: Level = "default") -> Redactor:
    made = make_redactor(level, rules)
    assert made is not None
    return made


def wrong(tmp_path: Path, text: str) -> str:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        make_redactor("default", path)
    return str(error.value).replace(f"{path}:", "")


class TestOwnRules:
    def test_a_pattern_removes_its_group(self, rules: Path) -> None:
        text = "refund ä CUST-004711, cust-1"
        assert redactor(rules).text(text) == "refund ä CUST-[redacted:customer_number], cust-1"
        values = {"note": text}
        found = redactor(rules).record(values, json.dumps(values).encode(), Known)
        assert found == {"note": "refund ä CUST-[redacted:customer_number], cust-1"}

    def test_fields_are_paths_in_records_from_their_level_on(self, rules: Path) -> None:
        values = {
            "payload": {"patient": {"name": "x", "age": 7, "seen": True}},
            "details": [{"birthday": "y"}, 1],
            "a": "x",
        }
        raw = json.dumps(values).encode()
        assert redactor(rules).record(values, raw, Known) is values
        mark = "[redacted:patient]"
        expected = {
            "payload": {"patient": {"name": mark, "age": mark, "seen": True}},
            "details": [{"birthday": mark}, 1],
            "a": "x",
        }
        clean = redactor(rules, "strict").record(values, raw, Known)
        assert clean == expected
        assert redactor(rules, "strict").record(clean, json.dumps(clean).encode(), Known) is clean

    def test_no_rule_removes_who(self, rules: Path) -> None:
        known = Known(who=frozenset({"x"}))
        values = {"payload": {"patient": {"name": "x", "note": "z"}}}
        clean = redactor(rules, "strict").record(values, b"{}", lambda: known)
        assert clean["payload"]["patient"] == {"name": "x", "note": "[redacted:patient]"}

    def test_patterns_need_a_package_and_fields_do_not(
        self, rules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "re2", None)
        with pytest.raises(ConfigError, match=r"pip install 'grantledger\[redaction\]'"):
            make_redactor("default", rules)
        (tmp_path / "fields.toml").write_text('[[rule]]\nname = "x"\nfields = ["a"]\n')
        assert make_redactor("default", tmp_path / "fields.toml") is not None

    def test_off_is_off(self, rules: Path) -> None:
        assert make_redactor("off", rules) is None

    def test_lone_surrogates_move_no_places(self, rules: Path) -> None:
        assert redactor(rules).text("\ud800 CUST-004711 x").endswith(" CUST-[redacted:customer_number] x")

    def test_a_pattern_that_is_slow_elsewhere_is_not(self, tmp_path: Path) -> None:
        path = tmp_path / "rules.toml"
        path.write_text("[[rule]]\nname = 'x'\npattern = '(?:a|aa|a?)+(?:b+)+c'\n")
        text = "a" * 100_000 + "b" * 100_000
        assert redactor(path).text(text) == text

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ('[[rule]]\nname = "x"\npattern = "(?=a)"', "3: rule 1.pattern: rule x: is not a pattern of RE2"),
            ('[[rule]]\nname = "x"\npattern = "a*"', "3: rule 1.pattern: rule x: matches an empty text"),
            ('[[rule]]\nname = "x"\npattern = "(a)(b)"', "3: rule 1.pattern: rule x: has 2 groups"),
            ('[[rule]]\nname = "x"', "1: rule 1: rule x: give either pattern or fields"),
            ('[[rule]]\nname = "x"\nfields = ["a"]\ncontains = ["b"]', "1: rule 1: rule x: contains is for a pattern"),
            ('[[rule]]\nname = "password"\nfields = ["a"]', "2: rule 1.name: password is the name of a built-in rule"),
            ('[[rule]]\nname = "X y"\nfields = ["a"]', "2: rule 1.name: String should match pattern"),
            ('[[rule]]\nname = "x"\nfields = ["a..b"]', "3: rule 1.fields 1: String should match pattern"),
            ('[[rule]]\nname = "x"\nlevel = "off"\nfields = ["a"]', "3: rule 1.level: Input should be"),
            ('[[rule]]\nname = "x"\nfields = ["a"]\n' * 2, "1: two rules are named x"),
            ("", "1: rule: is required"),
        ],
    )
    def test_a_mistake_is_named_with_its_line_and_rule(self, tmp_path: Path, text: str, problem: str) -> None:
        assert problem in wrong(tmp_path, text)


class TestSettings:
    def test_the_level_is_that_of_the_source_or_of_the_deployment(self, rules: Path) -> None:
        made = Redactors(Settings(redaction="strict", redaction_rules=rules))
        assert (usual := made.of()) is not None and usual.strict and usual is made.of("strict")
        assert made.of("off") is None and (default := made.of("default")) is not None
        assert "CUST-0" not in default.text("CUST-004711") and not default.strict
        assert Redactors(Settings(redaction="off")).of() is None
        assert Redactors(Settings(redaction="off"), "default").of() is not None

    def test_a_client_redacts_if_it_is_asked_to(self) -> None:
        kept: list[bytes] = []

        class Producer:
            def produce(self, topic: str, *, value: bytes, on_delivery: object, **_: object) -> None:
                kept.append(value)

            def flush(self, timeout: float) -> int:
                return 0

            def poll(self, timeout: float) -> int:
                return 0

        options = {"bootstrap.servers": "none:1"}
        event = some_event("grant.activated", 1, reason="password=Zq9hunter2")
        for redacting in (None, make_redactor()):
            Client(options, redactor=redacting, make_producer=lambda _options: Producer()).send(event)
        assert [b"Zq9hunter2" in value for value in kept] == [True, False]


class TestPage:
    def test_the_page_has_every_built_in_rule(self) -> None:
        for rule in RULES:
            assert f"| `{rule.name}` | {'strict' if rule.strict else 'default'} | {rule.about}" in PAGE
        assert f"`{SQL_PARAMETERS}`" in PAGE and f"`{TOO_DEEP}`" in PAGE

    @pytest.mark.parametrize(
        "command", ["check-redaction lines.log", "check-redaction --redaction strict --tool teleport exec.jsonl"]
    )
    def test_the_command_prints_what_the_page_shows(
        self, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("lines.log").write_text(block("$ cat lines.log").partition("\n")[2].partition("\n\n$")[0] + "\n")
        line = {"event": "exec", "code": "T3002I", "uid": "u1", "sid": "s1", "user": "alice@corp.example"}
        line |= {
            "time": "2026-03-01T12:00:00Z",
            "command": "mysql -uapp -phunter2 -e 'SELECT 1' # for bob@customer.example",
        }
        Path("exec.jsonl").write_text(json.dumps({**line, "server_id": "n1", "cluster_name": "c"}) + "\n")
        shown = invoke(*command.split())
        assert shown.exit_code == 0, shown.stderr
        assert f"$ grantledger {command}\n{shown.stdout}" in PAGE

    def test_wrong_rules_are_reported_as_the_page_shows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("wrong.toml").write_text(
            "[[rule]]\nname = \"customer_number\"\npattern = 'CUST-(\\d{6}'\n\n"
            '[[rule]]\nname = "patient"\nfields = ["payload.patient"]\nlevl = "strict"\n'
        )
        shown = invoke("check-redaction", "--redaction-rules", "wrong.toml")
        assert (shown.exit_code, shown.stdout) == (2, "")
        assert shown.stderr.strip() in PAGE

    def test_the_command_lists_the_rules_and_reads_statements(self, rules: Path, tmp_path: Path) -> None:
        listed = invoke("check-redaction", "--redaction", "strict", "--redaction-rules", str(rules), "-o", "json")
        names = [row["rule"] for row in json.loads(listed.stdout)]
        assert names == [*(rule.name for rule in RULES), "customer_number", "patient", "patient"]
        (tmp_path / "q.sql").write_text("SELECT 'x'\nSELECT 1\n")
        found = invoke("check-redaction", "--redaction", "strict", "--sql", str(tmp_path / "q.sql"), "-o", "json")
        assert [line["redacted"] for line in json.loads(found.stdout)["lines"]] == ["SELECT '[redacted:sql_literal]'"]
        assert json.loads(invoke("check-redaction", "--redaction", "off", "-o", "json").stdout) == []


def test_import_counts_what_was_redacted(tmp_path: Path) -> None:
    line = {"event": "exec", "code": "T3002I", "uid": "u1", "sid": "s1", "user": "a", "time": "2026-03-01T12:00:00Z"}
    (tmp_path / "a.jsonl").write_text(json.dumps({**line, "command": "mysql -ppw1"}) + "\n")
    for level, expected in (("default", {"password_option": 1}), ("off", {})):
        run = invoke("import", "teleport", str(tmp_path / "a.jsonl"), "--dry-run", "--redaction", level, "-o", "json")
        assert json.loads(run.stdout)["redacted"] == expected
