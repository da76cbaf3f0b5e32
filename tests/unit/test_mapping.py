"""Mapping files: their mistakes, their rules, and the files that come with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.base.toml import ConfigError
from grantledger.producers.adapters import ADAPTERS, Adapter, RecordError, Skipped, make_adapter
from grantledger.producers.adapters.mapping.adapter import MAX_FILE_BYTES, load_mapping
from grantledger.producers.adapters.mapping.expressions import checked, holds, names_needed
from grantledger.producers.follow.config import load_follow_config
from grantledger.producers.gateway.config import load_gateway_config
from grantledger.schemas.event import Event
from support.adapters import HERE, assert_maps_or_fails, one, read, reason, several
from support.command import invoke
from support.examples import few
from support.mangling import mangled

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "mapping.md").read_text("utf-8")
DOORMAN = PAGE.partition("```toml\n")[2].partition("```")[0]
RECORDS = PAGE.partition("```json\n")[2].partition("```")[0]
SHORT = """
system = "door"
version = "3"
recognise = "door"
[fields]
occurred_at = "at"
subject.id = "who"
session_id = "sid"
"""
AT = "2026-07-01T10:00:00Z"


def written(folder: Path, text: str, name: str = "door.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def adapter(folder: Path, text: str, **options: Any) -> Adapter:
    return load_mapping(written(folder, text))(**options)


def mapped(found: Adapter, record: dict[str, Any]) -> tuple[Event, ...]:
    return several(found.read(json.dumps(record).encode(), HERE))


class TestDoorman:
    """The example of docs/mapping.md."""

    def test_the_records_become_events(self, tmp_path: Path) -> None:
        found = adapter(tmp_path, DOORMAN, tenant="acme")
        opened, closed, tested = (found.read(line, HERE) for line in RECORDS.encode().splitlines())
        granted, removed = one(opened), one(closed)
        assert (granted.event_type, granted.expiry_source, granted.grant_id_kind) == (
            "grant.activated",
            "native",
            "native",
        )
        assert granted.occurred_at.isoformat() == "2026-07-01T10:00:00+02:00"
        assert (granted.mapping and granted.mapping.version, granted.tenant, granted.subject.kind) == (
            "1",
            "acme",
            "human",
        )
        assert (removed.event_type, removed.actor.id, removed.subject.id) == ("grant.revoked", "guard", "alice")
        assert granted.grant_id == removed.grant_id
        assert tested == Skipped("door_test", "test")

    def test_check_shows_what_the_page_shows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        written(tmp_path, DOORMAN, "doorman.toml")
        written(tmp_path, RECORDS, "doorman.log")
        shown = invoke("check-mapping", "doorman.toml", "doorman.log")
        assert shown.exit_code == 0
        assert shown.stdout.rstrip() in PAGE

    def test_import_reads_it_like_a_built_in_tool(self, tmp_path: Path) -> None:
        mapping, records = written(tmp_path, DOORMAN, "doorman.toml"), written(tmp_path, RECORDS, "doorman.log")
        done = invoke("import", "doorman", str(records), "--mapping", str(mapping), "--dry-run", "-o", "json")
        assert done.exit_code == 0
        result = json.loads(done.stdout)
        assert (result["mapped"], result["skipped"], result["failed"]) == (2, {"door_test": 1}, 0)

    def test_follow_and_the_gateway_know_it(self, tmp_path: Path) -> None:
        mapping = written(tmp_path, DOORMAN, "doorman.toml")
        tool = f'tool = "doorman"\nmapping = "{mapping}"\n'
        followed = load_follow_config(written(tmp_path, f'[[follow]]\n{tool}files = ["a.log"]', "follow.toml"))
        assert followed.follow[0].mapping == mapping
        gateway = written(tmp_path, f'[[source]]\nname = "d"\ninstance = "hq"\n{tool}', "gateway.toml")
        gateway.chmod(0o600)
        assert load_gateway_config(gateway).source[0].source_system == "doorman"
        for path, load in ((gateway, load_gateway_config), (tmp_path / "follow.toml", load_follow_config)):
            path.write_text(path.read_text().replace('tool = "doorman"', 'tool = "porter"'))
            with pytest.raises(ConfigError, match=r"is for doorman, not for porter"):
                load(path)


class TestMistakes:
    def test_all_are_named_with_their_lines(self, tmp_path: Path) -> None:
        path = written(
            tmp_path,
            'system = "door"\nversion = "1"\nrecognise = "door"\n[skip_reason]\ntest = "a test"\n[fields]\n'
            'occurred_at = "at"\nsubject.id = "who["\nsubject.kind = { value = "humann" }\n'
            '[[rule]]\nwhen = "kind == \'x\' && !a.b"\nevent = "grant.activated"\n'
            '[[rule]]\nwhen = "foo(kind)"\nskip = "test"\n'
            '[[rule]]\nwhen = "a"\nskip = "tset"\n'
            '[[rule]]\nevent = "grant.activatd"\n[rule.fields]\ngrnt_id = "pass"\n'
            'starts_at = { path = "x", format = "rfc", zone = "Mars" }\n',
        )
        result = invoke("check-mapping", str(path))
        assert result.exit_code == 2
        said = result.stderr.replace(f"{path}:", "")
        for line in (
            "8: fields.subject.id: is not JMESPath at character 5",
            "11: rule 1.when: !a.b means (!a).b in JMESPath: write !(a.b)",
            "14: rule 2.when: JMESPath has no function foo()",
            "16: rule 3: skip: there is no skip_reason.tset; did you mean test?",
            "22: rule 4.fields.grnt_id: unknown key; did you mean grant_id?",
            "23: rule 4.fields.starts_at.format 1: is not one of rfc3339, unix",
            "23: rule 4.fields.starts_at.zone: is not the name of a time zone",
        ):
            assert line in said

    @pytest.mark.parametrize(
        ("more", "problem"),
        [
            ('[[rule]]\nevent = "grant.activated"', "9: rule 1: grant.activated needs grant_id, resource.kind"),
            ('[[rule]]\nevent = "session.command"', "rule 1: session.command needs action"),
            (
                '[[rule]]\nevent = "grant.revoked"',
                "grant.revoked needs outcome: only a removal with the outcome success",
            ),
            ('[[rule]]\nevent = "grant.activatd"', "is not a type of event; did you mean grant.activated?"),
            ('[[rule]]\nevent = "finding.opened"', "'finding.opened' is not a type of event"),
            ('[[rule]]\nname = "x"', "give either event, a type, or skip, a reason"),
            ('[[rule]]\nevent = "session.ended"\n[[rule]]\nevent = "session.ended"', "rule 1 has no when"),
            ('[[rule]]\nevent = "session.ended"\nfields.outcome = { path = "x", lookup = "y" }', "no table lookup.y"),
            ('[[rule]]\nevent = "session.ended"\nfields.outcome = { value = "good" }', "'good' is not one of denied"),
            ('[[rule]]\nevent = "session.ended"\nfields.outcome = { path = "a", value = "success" }', "give path"),
            ('[[rule]]\nevent = "session.ended"\nfields.session_id = { synthesized = "s" }', "of belong together"),
            ('[[rule]]\nevent = "session.ended"\nfields.approvals = [{ reviewer = "a" }]', "reviewer and decision"),
            ("rule = []", "rule: must not be empty"),
        ],
    )
    def test_a_mistake_is_explained(self, more: str, problem: str, tmp_path: Path) -> None:
        text = more + SHORT if more.startswith("rule =") else SHORT + more
        with pytest.raises(ConfigError) as caught:
            adapter(tmp_path, text)
        assert problem in str(caught.value)

    @pytest.mark.parametrize(
        ("expression", "problem"),
        [
            ("length()", "takes 1 arguments, not 0"),
            ("a b", "is not JMESPath"),
            ("'a", "is not JMESPath"),
            ("(" * 900, "JMESPath|nested too deeply"),
        ],
    )
    def test_wrong_expressions(self, expression: str, problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            checked(expression)

    @pytest.mark.parametrize(
        ("recognise", "problem"),
        [("!door", "true for an object without members"), ("length(door) > `1`", "fails for an object without")],
    )
    def test_what_recognises_everything_is_a_mistake(self, recognise: str, problem: str, tmp_path: Path) -> None:
        text = DOORMAN.replace('"door && pass"', f'"{recognise}"')
        with pytest.raises(ConfigError, match=f":3: recognise: .*{problem}"):
            adapter(tmp_path, text)

    @given(
        st.sampled_from(["a && b", "a || b.c", "a == 'x'", "@.a", "*.a | [0]", "type(@) == 'object' && a"]), st.data()
    )
    def test_a_record_that_needs_no_look_at_the_expression(self, recognise: str, data: st.DataObject) -> None:
        record = data.draw(
            st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["x", {"c": 1, "a": 2}]), max_size=3)
        )
        needed = names_needed(recognise)
        if needed is not None and needed.isdisjoint(record):
            assert not holds(recognise, record)

    def test_a_large_or_unsafe_file_is_refused(self, tmp_path: Path) -> None:
        path = written(tmp_path, "#" * (MAX_FILE_BYTES + 1))
        with pytest.raises(ConfigError, match="is larger than"):
            load_mapping(path)
        path.write_text(DOORMAN)
        path.chmod(0o666)
        with pytest.raises(ConfigError, match="anybody can write"):
            load_mapping(path)
        with pytest.raises(ConfigError, match="cannot be read"):
            load_mapping(tmp_path / "missing.toml")

    def test_a_mapping_cannot_take_the_name_of_an_adapter(self, tmp_path: Path) -> None:
        path = written(tmp_path, DOORMAN.replace('"doorman"', '"vault"'))
        with pytest.raises(ConfigError, match="vault has an adapter of its own"):
            make_adapter("vault", mapping=path)
        path = written(tmp_path, DOORMAN.replace('"doorman"', '"grantledger-watch"'))
        with pytest.raises(ConfigError, match="pipeline's own sources"):
            load_mapping(path)


class TestRules:
    def test_one_record_becomes_several_events(self, tmp_path: Path) -> None:
        found = adapter(
            tmp_path,
            SHORT + '[[rule]]\nevent = "session.started"\nalso = true\n'
            '[[rule]]\nevent = "session.ended"\neach = "ended[]"\nfields.session_id = "_.item.id"\n',
        )
        events = mapped(found, {"door": 1, "at": AT, "who": "a", "sid": "s", "ended": [{"id": "x"}, {"id": 7}]})
        assert [(event.event_type, event.session_id, event.ordinal) for event in events] == [
            ("session.started", "s", 0), ("session.ended", "x", 0), ("session.ended", "7", 1),
        ]  # fmt: skip
        assert len({event.event_id for event in events}) == 3

    @pytest.mark.parametrize(
        ("record", "problem"),
        [
            ({"who": "a", "sid": "s"}, "occurred_at: has no value in this record"),
            ({"at": AT, "sid": "s"}, "subject.id: has no value in this record"),
            ({"at": AT, "who": "a"}, "session_id"),
            ({"at": AT, "who": ["a"], "sid": "s"}, "subject.id: must be a string, is a list"),
            ({"at": "today", "who": "a", "sid": "s"}, "occurred_at: 'today' is not an RFC 3339 time"),
            ({"at": AT, "who": "a", "sid": "s", "kind": "other"}, "no rule of the mapping"),
            ({"at": AT, "who": "a", "sid": "s", "result": "?"}, "outcome: lookup.result has no entry for '?'"),
            ({"at": AT, "who": "a", "sid": "s", "parts": [1]}, "reason: In function join"),
        ],
    )
    def test_nothing_is_dropped_silently(self, record: dict[str, Any], problem: str, tmp_path: Path) -> None:
        text = SHORT.replace("[fields]", '[lookup.result]\nok = "success"\n[fields]')
        text += 'outcome = { path = "result", lookup = "result" }\nreason = "parts && join(\',\', parts)"\n'
        found = adapter(tmp_path, text + '[[rule]]\nwhen = "kind != \'other\'"\nevent = "session.started"\n')
        with pytest.raises(RecordError) as caught:
            found.read(json.dumps(record).encode(), HERE)
        assert problem in str(caught.value) and str(caught.value).startswith("records.jsonl:7: ")

    @pytest.mark.parametrize(
        ("value", "given", "expected"),
        [
            ('{ path = "t", format = "unix" }', 1_700_000_000, "2023-11-14T22:13:20+00:00"),
            ('{ path = "t", format = "unix" }', "1700000000", "2023-11-14T22:13:20+00:00"),
            ('{ path = "t", format = "unix" }', 1_700_000_000.25, "2023-11-14T22:13:20.250000+00:00"),
            ('{ path = "t", format = "unix_ms" }', 1_700_000_000_123, "2023-11-14T22:13:20.123000+00:00"),
            ('{ path = "t", format = "unix_ns" }', 1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456+00:00"),
            ('{ path = "t", zone = "Europe/Berlin" }', "2026-07-01 10:00:00", "2026-07-01T10:00:00+02:00"),
            ('{ path = "t", zone = "Europe/Berlin" }', "2026-07-01T10:00:00Z", "2026-07-01T10:00:00+00:00"),
            (
                '{ path = "t", format = ["rfc3339", "%d.%m.%Y"], zone = "UTC" }',
                "01.07.2026",
                "2026-07-01T00:00:00+00:00",
            ),
            ('{ path = "t", format = "unix", nanoseconds = "n" }', 0, "1970-01-01T00:00:00.005000+00:00"),
        ],
    )
    def test_times(self, value: str, given: Any, expected: str, tmp_path: Path) -> None:
        found = adapter(tmp_path, SHORT.replace('"at"', value) + '[[rule]]\nevent = "session.ended"')
        event = one(found.read(json.dumps({"t": given, "who": "a", "sid": "s", "n": 5_000_000}).encode(), HERE))
        assert event.occurred_at.isoformat() == expected

    @pytest.mark.parametrize("given", [True, "1e5", 10**30, [1], "32.13.2026", 1e300])
    def test_what_is_no_time_fails(self, given: Any, tmp_path: Path) -> None:
        text = SHORT.replace('"at"', '{ path = "t", format = ["%d.%m.%Y", "unix"] }')
        found = adapter(tmp_path, text + '[[rule]]\nevent = "session.ended"')
        with pytest.raises(RecordError, match="occurred_at"):
            found.read(json.dumps({"t": given, "who": "a", "sid": "s"}).encode(), HERE)

    def test_all_fields(self, tmp_path: Path) -> None:
        text = SHORT + (
            'native_id = "id"\ninstance = "site"\nrequest_id = "req"\nticket = "t"\nclient_ip = "ip"\n'
            'resource = { kind = { value = "door" }, id = "door" }\nentitlement = { value = "enter" }\n'
            'grant_id = { path = "pass", synthesized = "pass", of = ["door", "who"] }\nexpires_after_seconds = "ttl"\n'
            'grant_source = { system = { value = "porter" }, instance = "site" }\nends_by_itself = { value = true }\n'
            'approvals = [{ each = "yes", reviewer = "_.item.by", decision = { value = "approved" }, at = "at" }]\n'
            'action = { command = "cmd", args = "args", exit_code = "code", redacted = { value = true } }\n'
            '[[rule]]\nevent = "grant.activated"\n'
        )
        record = {"door": "d", "at": AT, "who": "a", "sid": "s", "id": 9, "site": "hq",
                  "req": "r", "t": "T-1", "args": ["p", 1], "code": 3,
                  "ip": "10.0.0.1", "ttl": 60, "yes": [{"by": "b"}, {"by": "c"}], "cmd": "x"}  # fmt: skip
        [event] = mapped(adapter(tmp_path, text), record)
        assert (event.source.native_id, event.source.instance, event.source.native_type) == (
            "9",
            "hq",
            "grant.activated",
        )
        assert (event.grant_id_kind, event.expiry_source, event.ends_by_itself) == ("synthesized", "derived", True)
        assert event.expires_at and event.expires_at.isoformat() == "2026-07-01T10:01:00+00:00"
        assert [approval.reviewer for approval in event.approvals] == ["b", "c"]
        assert event.action and (event.action.args, event.action.exit_code) == (("p", "1"), 3)
        assert event.grant_source and (event.grant_source.system, event.grant_source.instance) == ("porter", "hq")
        [event] = mapped(adapter(tmp_path, text), {**record, "pass": "p7"})
        assert (event.grant_id, event.grant_id_kind) == ("p7", "native")


def okta(kind: str, *targets: tuple[str, str, str], result: str = "SUCCESS", **more: Any) -> dict[str, Any]:
    """A record made by hand after Okta's catalogue of event types and the records of the sample."""
    named = [{"type": kind, "id": id, "alternateId": name, "displayName": name} for kind, id, name in targets]
    return {"eventType": kind, "uuid": f"u-{kind}", "published": AT, "severity": "INFO", "target": named,
            "actor": {"type": "User", "id": "00u1", "alternateId": "admin@acme.io"}, "outcome": {"result": result},
            "authenticationContext": {"externalSessionId": "s-1"}, **more}  # fmt: skip


USER, GROUP, APP = ("User", "00u2", "alice@acme.io"), ("UserGroup", "00g1", "ops"), ("AppInstance", "0oa1", "AWS")


class TestOkta:
    @pytest.mark.parametrize(
        ("kind", "targets", "resource"),
        [
            ("group.user_membership.{}", (USER, GROUP), ("okta_group", "00g1")),
            ("application.user_membership.{}", (("AppUser", "0ua1", "alice"), APP, USER), ("application", "0oa1")),
        ],
    )
    def test_memberships_are_given_and_taken(self, kind: str, targets: Any, resource: tuple[str, str]) -> None:
        given_ = one(read("okta", okta(kind.format("add"), *targets)))
        taken = one(read("okta", okta(kind.format("remove"), *targets)))
        assert (given_.event_type, taken.event_type) == ("grant.activated", "grant.revoked")
        assert given_.grant_id == taken.grant_id and given_.grant_id_kind == "synthesized"
        assert given_.resource and (given_.resource.kind, given_.resource.id) == resource
        assert (given_.subject.id, given_.actor.id, taken.removal_evidence) == (
            "alice@acme.io",
            "admin@acme.io",
            "confirmed",
        )

    def test_administrator_roles(self) -> None:
        data = {"debugContext": {"debugData": {"privilegeGranted": "Super administrator"}}}
        given_ = one(read("okta", okta("user.account.privilege.grant", USER, **data), instance="acme.okta.com"))
        taken = one(read("okta", okta("user.account.privilege.revoke", USER), instance="acme.okta.com"))
        assert given_.resource == taken.resource and given_.resource and given_.resource.id == "acme.okta.com"
        assert given_.grant_id == taken.grant_id
        assert (given_.entitlement, given_.expiry_source) == ("Super administrator", "unknown")
        failed = one(read("okta", okta("group.privilege.grant", GROUP, result="FAILURE")))
        assert (failed.event_type, failed.subject.id) == ("grant.failed", "ops")

    @pytest.mark.parametrize(
        ("kind", "event_type"),
        [
            ("create", "created"),
            ("resolve", "approved"),
            ("reject", "denied"),
            ("cancel", "cancelled"),
            ("expire", "expired"),
        ],
    )
    def test_access_requests(self, kind: str, event_type: str) -> None:
        event = one(read("okta", okta(f"access.request.{kind}", ("AccessRequest", "req-1", "AWS admin"))))
        assert (event.event_type, event.request_id) == (f"request.{event_type}", "req-1")

    def test_a_failed_change_is_a_command_that_failed(self) -> None:
        event = one(read("okta", okta("group.user_membership.add", USER, GROUP, result="FAILURE")))
        assert (event.event_type, event.outcome) == ("session.command", "failure")

    def test_a_membership_without_its_user_fails(self) -> None:
        with pytest.raises(RecordError, match="subject.id: has no value"):
            read("okta", okta("group.user_membership.add", GROUP))


def sudo(kind: str, **more: Any) -> dict[str, Any]:
    """A record made by hand after lib/eventlog/eventlog.c of sudo."""
    time = {"seconds": 1_643_374_700, "nanoseconds": 209_935_349}
    who = {
        "submituser": "alice",
        "command": "/bin/bash",
        "runuser": "root",
        "submithost": "web-1",
        "runargv": ["/bin/bash"],
    }
    details = {"uuid": "616bc9ef", "server_time": time, "submit_time": time, **({} if kind == "exit" else who), **more}
    return {"sudo": {kind: details}}


class TestSudo:
    def test_accepted_refused_and_ended(self) -> None:
        accepted = one(read("sudo", sudo("accept")))
        assert (accepted.event_type, accepted.session_id, accepted.entitlement) == (
            "session.command",
            "616bc9ef",
            "root",
        )
        assert accepted.occurred_at.microsecond == 209_935
        denied = one(read("sudo", sudo("reject", reason="command not allowed")))
        assert (denied.event_type, denied.error, denied.outcome) == ("session.denied", "command not allowed", "denied")
        ended = one(read("sudo", sudo("exit", exit_value=137, signal="KILL")))
        assert (ended.event_type, ended.session_id, ended.subject.id) == ("session.ended", "616bc9ef", "unknown")
        assert ended.action and (ended.action.exit_code, ended.error) == (137, "KILL")

    def test_alerts(self) -> None:
        assert one(read("sudo", sudo("alert", reason="unable to execute"))).outcome == "failure"
        time = {"server_time": {"seconds": 1}, "reason": "parse error in sudoers"}
        assert reason(read("sudo", {"alert": time})) == "sudo_itself"

    def test_old_records_without_an_id_have_one_by_their_content(self) -> None:
        first, second = (
            one(read("sudo", {"accept": {**sudo("accept")["sudo"]["accept"], "uuid": "", "lines": n}})) for n in (1, 2)
        )
        assert first.event_id != second.event_id and first.session_id != second.session_id


@pytest.mark.parametrize("tool", ["okta", "sudo"])
@few(100)
@given(data=st.data())
def test_mangled_records_map_are_skipped_or_fail(tool: str, data: st.DataObject) -> None:
    records = {
        "okta": [
            okta("group.user_membership.add", USER, GROUP),
            okta("user.session.start"),
            okta("access.request.create"),
        ],
        "sudo": [sudo("accept"), sudo("exit"), sudo("alert")],
    }
    assert_maps_or_fails(tool, data.draw(mangled(records[tool])))


def test_adapters_lists_every_tool() -> None:
    listed = json.loads(invoke("adapters", "-o", "json").stdout)
    assert [row["tool"] for row in listed] == sorted(ADAPTERS)
    assert next(row for row in listed if row["tool"] == "okta")["mapping"] == "file"
    shown = invoke("adapters").stdout
    assert all(row["does_not_say"][0] in shown for row in listed)


def test_fields_without_a_value_in_all_records_are_named(tmp_path: Path) -> None:
    mapping = written(tmp_path, DOORMAN.replace('native_type = "kind"', 'native_type = "kind"\nreason = "wy"', 1))
    shown = invoke("check-mapping", str(mapping), str(written(tmp_path, RECORDS, "r.log"))).stdout
    assert shown.splitlines()[-1] == "Without a value in all these records; is the path right? reason"


def test_a_failed_record_is_shown_and_is_the_exit_code(tmp_path: Path) -> None:
    mapping = written(tmp_path, DOORMAN)
    records = written(tmp_path, '{"door": "d", "pass": "p", "id": "1", "kind": "slammed", "person": "a"}\n', "r.log")
    result = invoke("check-mapping", str(mapping), str(records), "-o", "json")
    assert result.exit_code == 1
    [row] = json.loads(result.stdout)["records"]
    assert row["result"] == "failed" and "no rule of the mapping" in row["becomes"]
    assert row["place"] == f"{records}:1"
