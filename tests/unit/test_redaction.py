"""Redaction: no planted secret stays, other texts do, and nothing is slow."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.producers.redaction.hints import record_of
from grantledger.producers.redaction.marks import MARK, rules_in
from grantledger.producers.redaction.redactor import Known, Redactor
from grantledger.producers.redaction.rules import RULES
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Action, Actor, Approval, Event, EventSource, Resource, Subject
from support import planted_secrets
from support.examples import few

DEFAULT, STRICT = Redactor(), Redactor(strict=True)
LEVELS = pytest.mark.parametrize("redactor", [DEFAULT, STRICT], ids=["default", "strict"])


def nobody() -> Known:
    return Known()


def hinted(text: str, redactor: Redactor) -> str:
    """Return a text that is a member of a record, where hints decide which rules read it."""
    values = {"note": text}
    found = redactor.record(values, json.dumps(values).encode(), nobody)["note"]
    assert isinstance(found, str)
    return found


class TestTexts:
    @pytest.mark.parametrize("template", planted_secrets.WITHOUT_QUOTES)
    @few(12)
    @given(secret=planted_secrets.words())
    def test_a_word(self, template: str, secret: str) -> None:
        text = template.format(secret)
        assert secret not in DEFAULT.text(text), text
        assert secret not in hinted(text, DEFAULT), text

    @pytest.mark.parametrize("template", planted_secrets.IN_QUOTES)
    @few(12)
    @given(secret=planted_secrets.words(alphabet=planted_secrets.WORD + " ;&|()äß\u4e2d"))
    def test_a_text_in_quotes(self, template: str, secret: str) -> None:
        text = template.format(secret)
        assert secret not in DEFAULT.text(text), text
        assert secret not in hinted(text, DEFAULT), text

    @pytest.mark.parametrize("template", planted_secrets.BASE64_TEXTS)
    @few(12)
    @given(secret=planted_secrets.words(20, planted_secrets.BASE64 + "+_-"))
    def test_a_token(self, template: str, secret: str) -> None:
        text = template.format(secret)
        assert secret not in DEFAULT.text(text), text
        assert secret not in hinted(text, DEFAULT), text

    @pytest.mark.parametrize("secret", planted_secrets.KNOWN)
    @pytest.mark.parametrize("template", ["{}", "echo {} | tee x", "a '{}', b", '{{"value":"{}"}}', "x={} y"])
    def test_what_has_a_form(self, secret: str, template: str) -> None:
        kept = secret.rsplit(maxsplit=1)[-1] if secret.startswith("basic") else secret
        for found in (DEFAULT.text(template.format(secret)), hinted(template.format(secret), DEFAULT)):
            assert kept not in found and len(rules_in(found)) == 1

    @pytest.mark.parametrize("secret", planted_secrets.PERSONAL)
    def test_data_of_persons_is_removed_by_the_strict_level_only(self, secret: str) -> None:
        text = f"refund for {secret} now"
        assert DEFAULT.text(text) == hinted(text, DEFAULT) == text
        for found in (STRICT.text(text), hinted(text, STRICT)):
            assert MARK.sub("", found) == "refund for  now"

    @pytest.mark.parametrize("text", planted_secrets.PLAIN)
    @LEVELS
    def test_other_texts_stay(self, redactor: Redactor, text: str) -> None:
        assert redactor.text(text) == text

    @given(st.lists(st.sampled_from(planted_secrets.PLAIN), max_size=6))
    def test_other_texts_stay_together(self, texts: list[str]) -> None:
        assert DEFAULT.text("\n".join(texts)) == "\n".join(texts)

    @LEVELS
    @given(data=st.data())
    def test_what_is_redacted_stays_as_it_is(self, redactor: Redactor, data: st.DataObject) -> None:
        pieces = (
            *planted_secrets.PLAIN,
            *planted_secrets.KNOWN,
            *planted_secrets.PERSONAL,
            "'",
            '"',
            "\\",
            "=",
            "password",
            "token:",
            "--pwd",
        )
        some = st.lists(st.sampled_from(pieces) | st.text(max_size=10), max_size=8)
        text = " ".join(data.draw(some))
        for is_query in (False, True):
            once = redactor.text(text, is_query=is_query)
            assert redactor.text(once, is_query=is_query) == once

    def test_the_mark_names_the_rule(self) -> None:
        assert DEFAULT.text("mysql -ppw1 -h db") == "mysql -p[redacted:password_option] -h db"
        assert DEFAULT.text("PASSWORD 'it''s'") == "PASSWORD '[redacted:sql_password]'"
        assert DEFAULT.text("https://u:p@ss@h/x") == "https://u:[redacted:url_password]@h/x"

    def test_several_levels_do_not_disturb_each_other(self) -> None:
        text = "SELECT 'x' -- password=abc bob@a.example"
        assert STRICT.text(DEFAULT.text(text), is_query=True) == STRICT.text(text, is_query=True)


class TestStatements:
    @pytest.mark.parametrize(
        ("sql", "expected"),
        [
            ("SELECT * FROM t WHERE a = 'x''y' AND b = 7", "SELECT * FROM t WHERE a = '{}' AND b = 7"),
            ("SELECT \"a'b\", E'it\\'s', $$q$$, $t$r$t$", "SELECT \"a'b\", E'{}', $${}$$, $t${}$t$"),
            ("SELECT 1 -- it's\n, 'x'", "SELECT 1 -- it's\n, '{}'"),
            ("SELECT /* it's */ 'x'", "SELECT /* it's */ '{}'"),
            ("SELECT 'never ends", "SELECT '{}"),
            ("SELECT 'in MySQL\\', 'x'", "SELECT '{}"),
            ("CREATE ROLE a VALID UNTIL '2026-12-01'", "CREATE ROLE a VALID UNTIL '2026-12-01'"),
        ],
    )
    def test_literals(self, sql: str, expected: str) -> None:
        mark = "[redacted:sql_literal]"
        assert STRICT.text(sql, is_query=True) == expected.replace("{}", mark)
        assert DEFAULT.text(sql, is_query=True) == STRICT.text(sql) == sql


class TestRecords:
    @pytest.mark.parametrize(
        "values",
        [
            {"password": "{}"},
            {"user": {"clientSecret": "{}"}},
            {"headers": {"X-Vault-Token": ["{}"], "Authorization": ["{}"]}},
            {"argv": ["app", "--password", "{}"]},
            {"argv": ["mysql", "-uroot", "-p{}"]},
            {"argv": ["sh", "-c", "mysql -p{} x"]},
            {"command": "/usr/bin/mysql", "args": ["-p{}", "x"]},
            {"command": ["sshpass"], "args": ["-p", "{}"]},
            {"argv": ["curl", "-u", "admin:{}", "h"]},
            {"argv": ["sudo", "-u", "x", "/usr/bin/mysql", "-p{}"]},
            {"argv": ["kubectl", "exec", "db-0", "--", "mysql", "-p{}"]},
            {"argv": ["docker", "login", "-u", "me", "-p", "{}"]},
            {"argv": ["aws", "configure", "set", "aws_secret_access_key", "{}"]},
            {"argv": ["env", "DB_PASSWORD={}"]},
            {"env": [{"name": "DB_PASSWORD", "value": "{}"}]},
            {"tags": [{"value": "{}", "key": "api_key"}]},
            {"deep": [[{"a": {"note": 'json: {"password":"{}"}'}}]]},
            {"note password={}": 1},
        ],
    )
    @few(20)
    @given(secret=planted_secrets.words())
    def test_members_and_words(self, values: dict[str, Any], secret: str) -> None:
        record = json.loads(json.dumps(values).replace("{}", secret))
        for raw in (json.dumps(record).encode(), escaped(record)):
            clean = DEFAULT.record(record, raw, nobody)
            assert secret not in json.dumps(clean), clean
            assert DEFAULT.record(clean, json.dumps(clean).encode(), nobody) is clean

    def test_a_number_of_a_card_as_a_number(self) -> None:
        values = {"card": 4111111111111111, "time": 1700000000000, "ok": True}
        clean = DEFAULT.record(values, json.dumps(values).encode(), nobody)
        assert clean == {**values, "card": "[redacted:card_number]"}

    def test_people_are_never_removed_and_ids_not_as_personal_data(self) -> None:
        known = Known(
            who=frozenset({"bob@corp.example"}),
            named=frozenset({"bob@corp.example", "4111111111111111", "s@b.example"}),
        )
        values = {
            "user": "bob@corp.example",
            "id": 4111111111111111,
            "sid": "s@b.example",
            "note": "bob@corp.example, eve@b.example",
        }
        clean = STRICT.record(values, json.dumps(values).encode(), lambda: known)
        assert clean == {**values, "note": "bob@corp.example, [redacted:email_address]"}

    def test_personal_data_stays_where_nobody_knows_whom_it_names(self) -> None:
        """An earlier record may say what this one means: its people must be what they are."""
        values = {"user": "bob@corp.example", "password": "x"}
        clean = STRICT.record(values, json.dumps(values).encode(), lambda: None)
        assert clean == {"user": "bob@corp.example", "password": "[redacted:password]"}

    def test_what_is_nested_too_deeply_is_removed(self) -> None:
        values: dict[str, Any] = {"password": "x"}
        for _ in range(300):
            values = {"a": values}
        assert "nested_too_deeply" in json.dumps(DEFAULT.record(values, json.dumps(values).encode(), nobody))

    def test_values_that_a_tool_has_masked_stay(self) -> None:
        values = {"password": "****", "token": "hmac-sha256:" + "0" * 64, "secret": None, "pwd": "<REDACTED>"}
        assert DEFAULT.record(values, json.dumps(values).encode(), nobody) is values


class TestEvents:
    @staticmethod
    def event(**fields: Any) -> Event:
        base: dict[str, Any] = {
            "event_type": "session.query", "occurred_at": datetime(2026, 1, 1, tzinfo=UTC), "session_id": "s-1",
            "source": EventSource("bot", "1", "n-1", "t"), "subject": Subject("bob@corp.example"),
            "actor": Actor("bob@corp.example"), "action": Action(query="SELECT 1"),
        }  # fmt: skip
        return Event(**{**base, **fields})

    @few(40)
    @given(secret=planted_secrets.words())
    def test_no_secret_is_in_the_bytes_of_an_event(self, secret: str) -> None:
        text = f"password={secret}"
        event = self.event(
            action=Action(command="mysql", args=("-p" + secret, "--password", secret), query=f"PASSWORD '{secret}'"),
            reason=text, error=text, ticket=text, entitlement=text, request_id=text, customer=text,
            resource=Resource("database", f"postgres://a:{secret}@h/db"), raw=json.dumps({"password": secret}).encode(),
            approvals=(Approval("eve@corp.example", "approved", reason=text),),
        )  # fmt: skip
        clean = DEFAULT.event(event)
        assert secret.encode() not in EventEncoder().encode(clean)
        assert clean.action and clean.action.redacted and clean.event_id == event.event_id
        assert DEFAULT.event(clean) is clean
        assert secret.encode() not in EventEncoder().encode(DEFAULT.event(self.event(raw=text.encode())))

    def test_the_hash_is_of_the_redacted_record(self) -> None:
        clean = DEFAULT.event(self.event(raw=b'{"token":"abc"}'))
        assert clean.raw == b'{"token":"[redacted:secret]"}'
        assert clean.raw_sha256 == self.event(raw=clean.raw).raw_sha256

    def test_an_event_without_secrets_is_the_same_object(self) -> None:
        event = self.event(action=Action(query="SELECT 1"), reason="INC-1", raw=b'{"a": 1}')
        assert DEFAULT.event(event) is event

    def test_people_stay_in_the_strict_level(self) -> None:
        event = self.event(
            actor=Actor("password=abc1234", on_behalf_of="4111111111111111"),
            reason="for bob@corp.example and x@b.example",
            subject=Subject("+49 30 901820", email="bob@corp.example"), customer="x@c.example",
            approvals=(Approval("eve@corp.example", "approved", group="g@corp.example"),), session_id="x@s.example",
        )  # fmt: skip
        clean = STRICT.event(event)
        assert (clean.actor, clean.subject, clean.approvals) == (event.actor, event.subject, event.approvals)
        assert (clean.session_id, clean.customer) == (event.session_id, event.customer)
        assert clean.reason == "for bob@corp.example and [redacted:email_address]"

    def test_a_secret_in_the_native_id_changes_the_id_of_the_event(self) -> None:
        event = self.event(source=EventSource("bot", "1", "https://u:pw@h/1", "t"))
        clean = DEFAULT.event(event)
        assert clean.source.native_id == "https://u:[redacted:url_password]@h/1" and clean.event_id != event.event_id


def test_a_long_statement_is_not_compared_with_every_text() -> None:
    query = "SELECT " + "'a'," * 50_000
    values = {"query": query, "texts": [[f"'{number}"] for number in range(20_000)], "plain": "it's"}
    known = Known(queries=(query,))
    clean = STRICT.record(values, json.dumps(values).encode(), lambda: known)
    assert clean["query"] == "SELECT " + "'[redacted:sql_literal]'," * 50_000
    assert clean["texts"][-1] == ["'[redacted:sql_literal]"]


HOSTILE = (
    "password=", "password='", 'password="', 'password=\\"', "--password ", "--token  ", "token: bearer ", "://a:",
    "://a:b", "a@", "a@b.", "-----BEGIN RSA PRIVATE KEY-----", "eyJaaaaaaaa.", "bearer ", "authorization: ", "cookie=",
    "identified by ", "identified with ", "password/*", "password for a", "password $a$", "password e'\\", "mysql -p",
    "curl -u a:", "1 ", "1-", "+49 ", "AA00 AAAA ", "''", "$", "$a$", "--", "/*", '"', "e'", "\\", "\\\"", "xoxb-",
    "PASSWORD\n--\n", "valid until ", "=", "sk-", "hooks.slack.com/services/", "\t", "a",
)  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_no_text_takes_more_than_linear_time(piece: str) -> None:
    """Steps in the square of the length would take minutes."""
    text = piece * (100_000 // len(piece))
    STRICT.text(text, is_query=True)
    record = record_of(text.encode())
    for rule in RULES:
        rule.hint(record)


def escaped(record: Any) -> bytes:
    """Return a record as JSON in which every letter is an escape."""
    text = json.dumps(record)
    return "".join(f"\\u{ord(one):04x}" if one.isalpha() and one not in "unltrfase" else one for one in text).encode()
