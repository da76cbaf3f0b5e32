from __future__ import annotations

import gzip
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from grantledger.cli.emit import MOST_PRINTED
from grantledger.producers import EventTooLargeError, InvalidEventError, Resource, session_started
from grantledger.producers.adapters import make_adapter
from grantledger.producers.importer import Importer, ImportReport
from grantledger.producers.input_files import InputError, InputFile
from grantledger.schemas.event import ACCESS_TYPES, Event
from support.command import invoke as run


def record(number: int, **members: Any) -> bytes:
    base = {"event": "session.start", "code": "T2000I", "uid": f"u{number}", "sid": f"s{number}", "user": "alice"}
    return json.dumps({**base, "time": "2024-05-01T10:00:00Z", **members}).encode()


def feed(path: Path, send: Any = lambda event: None, **more: Any) -> ImportReport:
    importer = Importer(make_adapter("teleport"), send, **more)
    with InputFile(str(path)) as source:
        importer.run(source)
    return importer.report


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_every_record_is_counted_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a", record(1), b"", b"nonsense", record(2, event="user.login"), record(3) + b"\r")
    sent: list[Event] = []
    rejected: list[bytes] = []
    report = feed(path, sent.append, reject=rejected.append)
    assert (report.records, report.mapped, report.failed, report.events) == (5, 2, 1, 2)
    assert report.skipped == {"blank_line": 1, "authentication": 1}
    assert str(report.failures[0].location) == f"{path}:3"
    assert report.failures[0].problem.startswith("not JSON")
    assert b"".join(rejected) == b"nonsense\n"
    assert sent[1].raw == record(3)


def test_gzip_is_recognised_by_its_content_and_gives_the_same_ids(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.gz", *(record(number) for number in range(20)))
    zipped = tmp_path / "zipped.log"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    seen: list[list[str]] = []
    for path in (plain, zipped):
        ids: list[str] = []
        feed(path, lambda event, ids=ids: ids.append(event.event_id))
        seen.append(ids)
    assert seen[0] == seen[1]


def test_a_damaged_gzip_is_reported_after_its_readable_records(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    lines = b"".join(record(number, sid=f"{number:06}") + b"\n" for number in range(1000))
    path.write_bytes(gzip.compress(lines)[:-500])
    importer = Importer(make_adapter("teleport"), lambda event: None)
    with pytest.raises(InputError, match="damaged"), InputFile(str(path)) as source:
        importer.run(source)
    assert importer.report.mapped > 0


def test_a_long_record_is_refused_unparsed_and_the_next_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a", record(1), b"x" * 5000, record(2))
    rejected: list[bytes] = []
    report = feed(path, reject=rejected.append, max_record_bytes=1000)
    assert (report.mapped, report.failed) == (2, 1)
    assert report.failures[0].problem == "longer than 1000 bytes"
    assert b"".join(rejected) == b"x" * 5000 + b"\n"


def test_a_record_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    line = record(1)
    for end in (b"\n", b"\r\n", b""):
        path = tmp_path / "a"
        path.write_bytes(line + end)
        assert feed(path, max_record_bytes=len(line)).mapped == 1
        assert feed(path, max_record_bytes=len(line) - 1).failed == 1


def test_an_event_too_large_is_sent_without_raw_and_counted(tmp_path: Path) -> None:
    sent: list[Event] = []

    def send(event: Event) -> None:
        if event.raw is not None:
            raise EventTooLargeError("raw", "too large")
        sent.append(event)

    report = feed(write(tmp_path / "a", record(1)), send)
    assert (report.events, report.without_raw) == (1, 1)
    assert sent[0].raw_sha256 != b"\0" * 32
    assert len(sent[0].raw_sha256) == 32


def test_an_action_that_is_too_large_is_truncated_and_marked(tmp_path: Path) -> None:
    sent: list[Event] = []

    def send(event: Event) -> None:
        if event.action is not None and len(event.action.query or "") > 100_000:
            raise EventTooLargeError("raw", "too large")
        sent.append(event)

    line = record(1, event="db.session.query", db_query="select " + "x" * 200_000)
    report = feed(write(tmp_path / "a", line), send)
    assert (report.events, report.failed) == (1, 0)
    action = sent[0].action
    assert action is not None and action.truncated and action.query is not None
    assert action.query.startswith("select x")


def test_a_refused_event_is_a_failure(tmp_path: Path) -> None:
    def send(event: Event) -> None:
        raise InvalidEventError("subject.id", "is wrong")

    report = feed(write(tmp_path / "a", record(1)), send)
    assert report.failures[0].problem == "subject.id: is wrong"


def test_only_the_first_failures_are_kept(tmp_path: Path) -> None:
    report = feed(write(tmp_path / "a", *(record(number, time="x") for number in range(100))))
    assert (report.failed, len(report.failures)) == (100, 20)


def test_what_no_adapter_reads_is_named_once_per_file(tmp_path: Path) -> None:
    importer = Importer(make_adapter("teleport"), lambda event: None)
    for name in ("a", "b"):
        lines = (record(1), *[b"x"] * 50, *[b'{"@timestamp":"t","message":"hello"}'] * 30, b'{"a":1}', record(2))
        with InputFile(str(write(tmp_path / name, *lines))) as source:
            importer.run(source)
    named = [(str(one.location), one.looks_like, one.count) for one in importer.report.failures]
    assert named[:3] == [
        (f"{tmp_path / 'a'}:2", "text", 50),
        (f"{tmp_path / 'a'}:52", "collector message containing text", 30),
        (f"{tmp_path / 'a'}:82", "a JSON object with 'a'", 1),
    ]
    assert (len(named), importer.report.failed, importer.report.mapped) == (6, 162, 4)


def test_import_command_dry_run(tmp_path: Path) -> None:
    path = write(tmp_path / "a", record(1), b"x")
    rejects = tmp_path / "rejects"
    result = run("import", "teleport", str(path), "--dry-run", "--rejects", str(rejects), "-o", "json")
    assert result.exit_code == 1
    summary = json.loads(result.stdout)
    assert (summary["mapped"], summary["failed"], summary["dry_run"]) == (1, 1, True)
    assert rejects.read_bytes() == b"x\n"
    table = run("import", "teleport", str(path), "--dry-run")
    assert "mapped" in table.stdout
    assert f"failed: {path}:2: not JSON" in table.stderr


@pytest.mark.parametrize("asked", ["vault", "teleport", "hoop", "cloudtrail"])
@pytest.mark.parametrize("written", ["vault", "teleport", "hoop", "cloudtrail"])
def test_the_file_of_another_tool_is_recognized(tmp_path: Path, asked: str, written: str) -> None:
    run("demo", "--lives", "30", "--seed", "5", "--write", str(tmp_path / "s.jsonl"))
    path = tmp_path / f"s.{written}.jsonl"
    result = run("import", asked, str(path), "--dry-run", "-o", "json")
    summary = json.loads(result.stdout)
    failed = [line for line in result.stderr.splitlines() if line.startswith("failed")]
    if asked == written:
        assert (summary["failed"], failed) == (0, [])
        return
    records = len(path.read_text().splitlines())
    assert failed == [
        f"failed: {path}: {records} records look like those of {written}: use `grantledger import {written} {path}`"
    ]
    assert summary["of_other_tools"] == [{"file": str(path), "tool": written, "records": records}]
    assert (summary["failed"], summary["failures"]) == (records, [])


def test_a_file_of_no_known_tool_is_one_line_and_one_that_cannot_be_opened_has_no_table(tmp_path: Path) -> None:
    path = tmp_path / "okta.jsonl"
    path.write_bytes(b'{"eventType":"x"}\n' * 37)
    result = run("import", "teleport", str(path), "--dry-run", "-q")
    problem = f"the first: {path}:1: event: is missing; it looks like a JSON object with 'eventType'"
    assert result.stderr == f"failed: none of the 37 records is one of teleport; {problem}\n"
    result = run("import", "teleport", str(tmp_path / "nothing"), "--dry-run")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"grantledger: {tmp_path / 'nothing'}: cannot be read (No such file or directory)\n"


def test_import_says_how_many_resources_have_no_environment(tmp_path: Path) -> None:
    path = write(tmp_path / "t", *(record(number, db_service=name) for number, name in enumerate("aab")))
    result = run("import", "teleport", str(path), "--dry-run")
    assert "2 of 2 resources have no environment in the records; the watch policy can map them" in result.stderr
    assert "environment" not in run("import", "teleport", str(path), "--dry-run", "-q").stderr
    report = ImportReport()
    for environment in (None, "prod", None):
        report.add_event(session_started(subject="b", resource=Resource("database", "a", environment)))
    assert list(report.resources.values()) == [True]


def test_import_says_that_records_are_old_and_name_no_installation(tmp_path: Path) -> None:
    old = {"time": "2026-01-02T03:04:05Z", "cluster_name": None}
    path = write(tmp_path / "t", record(1, **old), record(2, **old))
    notes = run("import", "teleport", str(path), "--dry-run").stderr
    assert "2 events name no installation of teleport: --instance names it" in notes
    assert "The newest event is of 2026-01-02 03:04:05 UTC. Access whose end is long past is history" in notes
    now = datetime.now(UTC).isoformat()
    named = write(tmp_path / "named", record(1, time=now))
    notes = run("import", "teleport", str(named), "--dry-run", "--instance", "eu-1").stderr
    assert "installation" not in notes and "history" not in notes


def test_events_of_our_own_are_recognized() -> None:
    result = run("import", "vault", "-", "--dry-run", stdin=b'{"event_type":"session.started","subject":"a"}\n')
    assert result.exit_code == 1
    assert "1 record looks like events of our own: use `grantledger emit --stdin`" in result.stderr


def test_import_command_reads_standard_input() -> None:
    result = run("import", "teleport", "-", "--dry-run", "-o", "json", stdin=record(1) + b"\n")
    assert (result.exit_code, json.loads(result.stdout)["mapped"]) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("import", "telepor", "x", "--dry-run"), "Did you mean 'teleport'?"),
        (("import", "teleport", "/no/such/file", "--dry-run"), "/no/such/file: cannot be read"),
        (("import", "teleport", "/dev/null/x", "--dry-run"), "/dev/null/x: cannot be read"),
        (("import", "teleport", "/dev/null", "--dry-run", "--rejects", "/no/such/dir/x"), "--rejects"),
        (("emit",), "name the event type"),
        (("emit", "session.started", "--subject", "a", "--expires-in", "soon"), "is not a duration"),
        (("emit", "session.started", "--expires-in", "1h", "--expires-at", "x"), "not both"),
        (("demo", "--traffic-only", "--tool", "vaul"), "there are teleport, vault, hoop, cloudtrail, and all. Did you"),
        (("demo", "--write", "/no/such/dir/x"), "cannot be written"),
    ],
)
def test_user_errors_have_no_traceback(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_without_brokers_the_setting_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS", "GRANTLEDGER_CONFIG", "GRANTLEDGER_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    for arguments in (
        ("emit", "session.started", "--subject", "a"),
        ("demo", "--traffic-only"),
        ("import", "vault", "/dev/null"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS" in result.stderr


def test_emit_by_flags() -> None:
    result = run(
        *("emit", "grant.activated", "--subject", "alice", "--resource-kind", "database", "--resource", "orders"),
        *("--entitlement", "rw", "--expires-in", "1h30m", "--system", "bot", "--native-id", "n1", "--dry-run"),
    )
    assert result.exit_code == 0
    event = json.loads(result.stdout)
    assert event["resource"] == {"kind": "database", "id": "orders"}
    assert event["source"]["system"] == "bot"
    assert event["expiry_source"] == "native"
    assert event["grant_id"]


BOB = ("--subject", "bob", "--expires-in", "1h")
ACCESS = ("--resource-kind", "database", "--resource", "x", "--entitlement", "rw")


@pytest.mark.parametrize(
    ("flags", "refused"),
    [
        ((), "--subject, --resource, --entitlement, --expires-in or --expires-at: are missing"),
        ((*BOB, *ACCESS[4:]), "--resource: is missing"),
        ((*BOB, *ACCESS[2:]), "--resource-kind: is missing"),
        (
            (*BOB, *ACCESS, "--subject-kind", "robot"),
            "--subject-kind: 'robot' is not",
        ),
        (
            ("--subject", "a", "--expires-at", "soon", *ACCESS),
            "--expires-in or --expires-at: 'soon' is not an RFC 3339",
        ),
        (
            (*BOB, *ACCESS, "--denied-by", ""),
            "--approved-by or --denied-by: is missing",
        ),
        ((*BOB, *ACCESS, "--grant-id", ""), "--grant-id: must not be empty"),
    ],
)
def test_emit_names_the_flag_that_is_wrong(flags: tuple[str, ...], refused: str) -> None:
    result = run("emit", "grant.activated", *flags, "--dry-run")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"refused: {refused}")


def test_emit_lines_names_line_and_field_and_keeps_the_good() -> None:
    good = b'{"event_type":"session.query","subject":"bob","session_id":"s","action":{"query":"select 1"}}\n'
    bad = [
        b'{"event_type":"grant.activated","subject":"bob"}\n',
        b'{"event_type":"session.started","subject":{"id":"b","age":3}}\n',
        b'{"event_type":"session.started","subject":"b","occurred_at":"2024-01-01T00:00:00"}\n',
        b'{"event_type":"session.started","subject":"b","event_id":"x"}\n',
        b'{"event_type":"key.changed","subject":"b"}\n',
        b"[]\n",
        b'{"event_type":"session.started","subjct":"b"}\n',
    ]
    result = run("emit", "--stdin", "--dry-run", stdin=b"".join([good, b"\n", *bad, good]))
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 2
    said = result.stderr.splitlines()
    assert said[0] == "refused: line 3: resource, entitlement, expires_at: are missing"
    assert said[1] == "refused: line 4: subject.age: is not a field of the event"
    assert said[-1] == "refused: line 9: subjct: is not a field of the event; did you mean subject?"
    assert "line 5: occurred_at" in said[2]
    assert "line 6: event_id: is computed" in said[3]
    assert "line 7: event_type" in said[4]
    assert "line 8: must be a JSON object" in said[5]


def test_emit_names_every_problem_of_a_line() -> None:
    line = {
        "event_type": "grant.activated", "subject": {"id": "bob", "kind": "robot"}, "resorce": {}, "entitlement": 7,
        "expires_at": "soon", "approvals": [{"reviewer": "x", "decision": "maybe", "at": 5}],
    }  # fmt: skip
    result = run("emit", "--stdin", "--dry-run", stdin=json.dumps(line).encode())
    assert [one.partition(": line 1: ")[2].partition(":")[0] for one in result.stderr.splitlines()] == [
        "resorce", "entitlement", "approvals[0].at", "expires_at", "subject.kind",
    ]  # fmt: skip
    line = {**line, "entitlement": "rw", "expires_at": "2030-01-01T00:00:00Z", "resource": {"kind": "db", "id": "x"}}
    line["approvals"] = [{"reviewer": "x", "decision": "maybe"}]
    del line["resorce"]
    result = run("emit", "--stdin", "--dry-run", "-o", "json", stdin=json.dumps(line).encode())
    assert [one.partition(": line 1: ")[2].partition(":")[0] for one in result.stderr.splitlines()] == [
        "subject.kind", "approvals[0].decision",
    ]  # fmt: skip


def test_emit_prints_a_limited_number_of_problems() -> None:
    result = run("emit", "--stdin", "--dry-run", stdin=b"[]\n" * (MOST_PRINTED + 3))
    said = result.stderr.splitlines()
    assert len(said) == MOST_PRINTED + 1
    assert said[-1] == "refused: and 3 more problems"


def test_emit_strict_sends_nothing_when_a_line_is_wrong() -> None:
    good = b'{"event_type":"session.started","subject":"bob"}\n'
    assert run("emit", "-", "--dry-run", "--strict", stdin=good + b"x\n").stdout == ""
    assert len(run("emit", "-", "--dry-run", "--strict", stdin=good + good).stdout.splitlines()) == 2


@pytest.mark.parametrize("event_type", ACCESS_TYPES)
def test_the_output_of_a_dry_run_can_be_sent_except_computed_fields(event_type: str) -> None:
    shape = {
        "event_type": event_type,
        "subject": {"id": "alice", "kind": "human", "email": "alice@example.com"},
        "actor": {"id": "bob", "kind": "human"},
        "resource": {"kind": "database", "id": "orders", "environment": "prod"},
        "entitlement": "rw",
        "grant_id": "g",
        "request_id": "r",
        "session_id": "s",
        "expires_at": "2030-01-01T00:00:00+00:00",
        "occurred_at": "2029-01-01T00:00:00.123456+00:00",
        "approvals": [{"reviewer": "bob", "decision": "approved", "forced": True}],
        "removal_evidence": "confirmed",
        "requested_seconds": 60,
        "action": {"command": "ls", "args": ["-l"], "exit_code": 0, "redacted": True},
        "source": {"system": "x", "instance": "y", "native_id": "z", "native_type": "t", "seq": 4},
        "grant_source": {"system": "teleport", "instance": "root"},
        "raw": "ä",
    }
    first = json.loads(run("emit", "--stdin", "--dry-run", stdin=json.dumps(shape).encode()).stdout)
    again = {name: value for name, value in first.items() if name not in ("event_id", "salt", "raw_sha256")}
    second = json.loads(run("emit", "--stdin", "--dry-run", stdin=json.dumps(again).encode()).stdout)
    assert {**first, "salt": ""} == {**second, "salt": ""}
    for name, value in shape.items():
        if name not in ("approvals", "action"):
            assert first[name] == value


def test_sample_writes_files_that_import_reads_whole(tmp_path: Path) -> None:
    result = run("demo", "--lives", "30", "--seed", "5", "--write", str(tmp_path / "s.jsonl"))
    assert result.exit_code == 0
    assert "30 lives (seed 5)" in result.stdout
    for tool in ("teleport", "vault"):
        imported = run("import", tool, str(tmp_path / f"s.{tool}.jsonl"), "--dry-run", "-o", "json")
        summary = json.loads(imported.stdout)
        assert (imported.exit_code, summary["failed"]) == (0, 0)
        assert summary["mapped"] > 0
    assert run("demo", "--tool", "vault", "--lives", "2", "--write", str(tmp_path / "one")).exit_code == 0
    assert (tmp_path / "one").is_file()


def test_input_is_standard_input_only_for_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BufferedReader(io.BytesIO(b"a\n"))  # type: ignore[arg-type]

    monkeypatch.setattr("sys.stdin", Stdin())
    with InputFile("-") as source:
        assert source.name == "standard input"
        assert [line for _, line, _ in source.lines(10)] == [b"a"]
        assert source.position() == 0
