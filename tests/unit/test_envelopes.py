"""What collectors wrap around a record costs nothing: the same events, and where possible the same bytes."""

from __future__ import annotations

import base64
import functools
import gzip
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.producers.adapters import ADAPTERS, make_adapter, recognise
from grantledger.producers.envelopes import Envelopes, ToolRecord
from grantledger.producers.importer import Importer, ImportReport
from grantledger.producers.input_files import InputError, InputFile, files_in
from grantledger.schemas.event import Event
from support.adapters import as_jsonlog
from support.cases import Cases
from support.cloudtrail import TAKEN, record
from support.kubernetes import stream
from support.mapping_rates import records
from support.wrapping import ENCODINGS, OBJECTS, STRINGS, WRAPS, Wrap

TELEPORT = (
    b'{"ei":0,"event":"session.start","uid":"u-\\u00e9\xc3\xa9","code":"T2000I","time":"2026-11-28T05:00:00.123Z",'
    b'"cluster_name":"c","user":"alice","sid":"s\\"1","message":"{\\"event\\":\\"x\\",\\"time\\":\\"y\\"}"}'
)
VAULT = (
    b'{"time":"2026-11-28T05:00:00.1Z","type":"response","auth":{"accessor":"a","display_name":"oidc-alice",'
    b'"policies":["default"],"token_type":"service"},"request":{"id":"r-1","operation":"read",'
    b'"client_token_accessor":"a","namespace":{"id":"root"},"path":"secret/data/x"},"response":{}}'
)
HOOP = b'{"event_type":"session.opened","payload":{"session_id":"s","user":"a","occurred_at":"2026-05-04T14:30:00Z"}}'
CLOUDTRAIL = json.dumps(record("ec2", "RunInstances", userIdentity=TAKEN)).encode()
KUBERNETES = json.dumps(stream("exec", "command=ls")).encode()
POSTGRESQL = as_jsonlog("LOG:  statement: select 1", 1)
OKTA = b'{"uuid":"u","published":"2026-05-04T14:30:00Z","eventType":"user.session.start","severity":"INFO"}'
SUDO = b'{"sudo":{"reject":{"uuid":"u","submit_time":{"seconds":1643374700},"submituser":"alice","command":"/bin/sh"}}}'
RECORDS = {
    "kubernetes": KUBERNETES,
    "teleport": TELEPORT, "vault": VAULT, "hoop": HOOP, "cloudtrail": CLOUDTRAIL, "okta": OKTA,
    "postgresql": POSTGRESQL, "sudo": SUDO,
}  # fmt: skip


MORE_FOR_PEOPLE = ("vault prefix", "fluent bit file", "fluent bit 2 file", "fluentd forward", "journalctl short-full")


def read(content: bytes, limit: int = 1 << 20) -> list[ToolRecord]:
    envelopes = Envelopes(lambda values: recognise(values) is not None, limit=limit, reject=lambda piece: None)
    return list(envelopes.records(io.BytesIO(content).read, "file"))


def feed(path: Path, tool: str, **more: Any) -> tuple[ImportReport, list[Event]]:
    events: list[Event] = []
    importer = Importer(make_adapter(tool), events.append, **more)
    with InputFile(str(path)) as file:
        importer.run(file)
    return importer.report, events


@pytest.mark.parametrize("tool", sorted(RECORDS))
def test_every_envelope_of_a_record_of_every_tool(tool: str) -> None:
    for name, wrap in WRAPS.items():
        wrapped = wrap(RECORDS[tool])
        found = [one for one in read(wrapped + b"\n" + wrapped + b"\n") if not one.skipped]
        assert [one.raw for one in found] == [RECORDS[tool]] * 2, name
        assert not any(one.problem for one in found), name
        assert found[0].envelopes or name in ("list", "list of strings", "journald export"), name


@pytest.mark.parametrize("outer", ["cri in parts", "docker", "message", "kinesis", "syslog 5424"])
def test_one_envelope_in_another(outer: str) -> None:
    several_lines = {"journald export", "cri in parts", "docker in parts", "elasticsearch bulk"}
    sent_by_no_program = {"kubectl --prefix", "docker compose", *MORE_FOR_PEOPLE}
    excluded = several_lines | (sent_by_no_program if outer.startswith("syslog") else set())
    assert excluded <= WRAPS.keys()
    for inner in WRAPS.keys() - excluded:
        wrapped = WRAPS[outer](WRAPS[inner](VAULT))
        assert [one.raw for one in read(wrapped)] == [VAULT], inner


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("wrap", ["cri", "records after others", "docker in parts"])
def test_every_encoding(name: str, wrap: str) -> None:
    assert [one.raw for one in read(ENCODINGS[name](WRAPS[wrap](TELEPORT)))] == [TELEPORT]


def test_zstandard() -> None:
    zstd = _zstd()
    content = WRAPS["records"](TELEPORT)
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    for data in (
        zstd.compress(content),
        skippable + zstd.compress(content),
        zstd.compress(content[:9]) + zstd.compress(content[9:]),
        gzip.compress(zstd.compress(content)),
        zstd.compress(content.decode().encode("utf-16")),
    ):
        assert [one.raw for one in read(data)] == [TELEPORT]


def _zstd() -> Any:
    import sys

    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


@functools.cache
def sample_lines(tool: str, folder: Path) -> list[bytes]:
    """Return sample records, each on one line."""
    found = records(tool, folder)
    if tool == "sudo":
        return [json.dumps(json.loads(one)).encode() for one in found]
    # Okta writes a time into every record: without it, the record of a test may be anything.
    return [line for line in found if tool != "okta" or b'"published"' in line]


@pytest.mark.parametrize("tool", sorted(ADAPTERS))
@given(data=st.data())
def test_wrapped_samples_have_the_same_ids(
    samples: Path, tmp_path_factory: Any, tool: str, data: st.DataObject
) -> None:
    lines = sample_lines(tool, samples)
    chosen = [lines[at] for at in data.draw(st.lists(st.integers(0, len(lines) - 1), min_size=1, max_size=4))]
    wraps: list[Wrap] = [WRAPS[name] for name in data.draw(st.lists(st.sampled_from(sorted(WRAPS)), max_size=2))]
    encoding = ENCODINGS[data.draw(st.sampled_from(sorted(ENCODINGS)))]
    folder = tmp_path_factory.getbasetemp()
    results = []
    for name, content in (
        ("bare", b"\n".join(chosen)),
        (
            "wrapped",
            encoding(b"\n".join(functools.reduce(lambda one, wrap: wrap(one), wraps[:1], one) for one in chosen)),
        ),
    ):
        (folder / name).write_bytes(content)
        report, events = feed(folder / name, tool)
        skipped = report.skipped - Counter(collector_message=len(lines))
        outcome = (report.mapped, skipped, report.failed)
        results.append((outcome, [(one.event_id, one.raw_sha256, one.raw) for one in events]))
    assert results[0] == results[1]


def test_the_samples_of_every_tool_are_recognized_as_its_own(samples: Path) -> None:
    """Otherwise a record with a member such as ``payload`` might be taken for an envelope."""
    for tool in ADAPTERS:
        for line in sample_lines(tool, samples):
            assert recognise(json.loads(line)) == tool


ENVELOPE_CASES = {
    "ct_elastic_message": "cloudtrail", "ct_records_scalar_first": "cloudtrail", "tp_elastic": "teleport",
    "tp_eventhandler_wrap": "teleport", "tp_fluentd": "teleport", "va_cee": "vault", "va_hcp": "vault",
    "va_k8s_cri": "vault", "va_syslog": "vault",
}  # fmt: skip


@pytest.mark.parametrize("name", ENVELOPE_CASES)
def test_the_cases(cases: Cases, name: str) -> None:
    (path,) = (cases.folder / "envelopes").glob(f"{name}.*")
    report, events = feed(path, ENVELOPE_CASES[name])
    assert (report.mapped, report.failed, len(events)) == (1, 0, 1)
    assert report.unwrapped.total() == 1
    assert events[0].raw is not None and events[0].raw.startswith((b'{"eventV', b'{"ei', b'{"time'))


def test_the_case_of_jsonx_is_read_and_lacks_members(cases: Cases) -> None:
    report, _ = feed(cases.folder / "envelopes" / "va_jsonx.log", "vault")
    assert [one.looks_like for one in report.failures] == ["JSONx containing a JSON object with 'type'"]


@pytest.mark.parametrize(("name", "tool", "mapped"), [
    ("25_bom_records", "cloudtrail", 1), ("26_array_pretty", "cloudtrail", 2), ("26_hoop_reviews_array", "hoop", 0),
])  # fmt: skip
def test_the_cases_of_layouts(cases: Cases, name: str, tool: str, mapped: int) -> None:
    report, _ = feed(cases.path(name), tool)
    assert (report.mapped, report.failed) == (mapped, 0)
    assert report.skipped == ({} if mapped else {"no_time": 1})


JSONX = (
    b'<?xml version="1.0"?><json:object xmlns:json="http://www.ibm.com/xmlns/prod/2009/jsonx">'
    b'<json:object name="auth"><json:array name="policies"><json:string>a&amp;b</json:string><json:null/></json:array>'
    b'</json:object><json:number name="n">-1.5e3</json:number><json:boolean name="b">true</json:boolean>'
    b'<json:string name="type">request</json:string><json:object name="request"/></json:object>'
)


def test_jsonx() -> None:
    (found,) = read(JSONX)
    assert found.raw == b'{"auth":{"policies":["a&b",null]},"n":-1500.0,"b":true,"type":"request","request":{}}'
    assert found.envelopes == ("JSONx",)
    assert [one.envelopes for one in read(STRINGS["cri"](JSONX))] == [("Kubernetes (CRI)", "JSONx")]


def test_jsonx_as_vault_writes_it() -> None:
    """Members without an object around them, in the order of their names."""
    members = JSONX[JSONX.index(b"<json:object name=") : -len(b"</json:object>")]
    for line in (members, b'<json:string name="error">e</json:string>' + members):
        for name in ("cri", "syslog 5424"):
            (found,) = read(STRINGS[name](line))
            assert found.values is not None and found.envelopes[-1] == "JSONx"
            assert (found.values["auth"], found.values["type"]) == ({"policies": ["a&b", None]}, "request")
    (found,) = read(b'<json:object name="x">' + members + b"</json:object>")
    assert found.values is not None and found.values["type"] == "request"


def test_a_record_of_vault_in_jsonx_gives_the_event_of_its_json(tmp_path: Path) -> None:
    (tmp_path / "json").write_bytes(VAULT)
    (tmp_path / "jsonx").write_bytes(b"".join(jsonx(name, value) for name, value in sorted(json.loads(VAULT).items())))
    (of_json,), (of_jsonx,) = (feed(tmp_path / name, "vault")[1] for name in ("json", "jsonx"))
    assert of_json.event_id == of_jsonx.event_id


def jsonx(name: str | None, value: Any) -> bytes:
    attribute = f' name="{name}"'.encode() if name else b""
    if isinstance(value, dict):
        kind, text = b"object", b"".join(jsonx(key, value[key]) for key in sorted(value))
    elif isinstance(value, list):
        kind, text = b"array", b"".join(jsonx(None, one) for one in value)
    else:
        kind, text = b"string", value.encode()
    return b"<json:%b%b>%b</json:%b>" % (kind, attribute, text, kind)


@pytest.mark.parametrize("line", [
    b'<json:object name="a"/></json:object><json:object><json:object name="b"/>',
    b'<json:string name="a">x</json:string><json:string name="a">x</json:string>',
    b'<json:object><json:string name="a">x</json:object>',
    b'<json:object><json:string>x</json:string></json:object>',
    b'<json:object><json:string name="a"/><json:string name="a"/></json:object>',
    b'<json:object><json:number name="a">NaN</json:number></json:object>',
    b'<json:object><json:other name="a"/></json:object>',
    b"<json:object>" * 200,
    b'<?xml version="1.0"?><json:object><json:string name="a">&x;</json:string></json:object>',
    b'<json:object><json:string name="a"><json:string name="b"/></json:string></json:object>',
])  # fmt: skip
def test_damaged_jsonx_is_a_problem(line: bytes) -> None:
    (found,) = read(line)
    assert found.problem


def test_a_record_of_a_tool_is_never_opened() -> None:
    inner = TELEPORT.decode()
    for outer in (
        {"event": "user.login", "time": "t", "message": inner, "payload": json.loads(inner), "log": inner},
        {"event_type": "x", "payload": json.loads(VAULT), "Records": [json.loads(inner)]},
        {"type": "response", "request": {}, "message": inner, "detail": json.loads(inner)},
    ):
        raw = json.dumps(outer).encode()
        assert [(one.raw, one.envelopes) for one in read(raw)] == [(raw, ())]


@pytest.mark.parametrize("line", [
    b"Nov 28 05:00:00 host sshd[1]: Invalid user " + TELEPORT,
    b"2026-11-28T05:00:00Z GET /x " + TELEPORT,
    b'{"level":"info","user_agent":' + json.dumps(TELEPORT.decode()).encode() + b"}",
    b"level=info msg=" + TELEPORT,
])  # fmt: skip
def test_a_record_inside_the_message_of_another_program_is_none(line: bytes) -> None:
    assert [one.raw for one in read(line)] == [line]


def test_parts_of_several_streams_and_the_limit() -> None:
    def part(stream: str, mark: str, text: bytes) -> bytes:
        return f"2026-11-28T05:00:00Z {stream} {mark} ".encode() + text

    half = len(VAULT) // 2
    content = b"\n".join([
        part("stdout", "P", VAULT[:half]), part("stderr", "P", b'{"a":'), part("stdout", "F", VAULT[half:]),
        part("stderr", "F", b"1}"), part("stdout", "P", b"x" * 300), part("stdout", "P", b"x" * 300),
        part("stdout", "F", b"x"), part("stdout", "F", VAULT), part("stderr", "P", b"lost"),
    ])  # fmt: skip
    found = read(content, limit=500)
    assert [one.raw for one in found if not one.problem] == [VAULT, b'{"a":1}', VAULT]
    assert [(one.location.line, one.problem) for one in found if one.problem] == [
        (7, "longer than 500 bytes"),
        (9, "the last part of the line is missing"),
    ]


def test_a_message_of_the_collector_is_skipped(tmp_path: Path) -> None:
    control = {"messageType": "CONTROL_MESSAGE", "logEvents": [{"id": "", "timestamp": 1, "message": "CWL CONTROL"}]}
    data = base64.b64encode(gzip.compress(json.dumps(control).encode())).decode()
    path = tmp_path / "a"
    path.write_text(json.dumps({"records": [{"data": data}], "requestId": "r"}))
    report, _ = feed(path, "vault")
    assert (report.failed, report.skipped) == (0, {"collector_message": 1})


@pytest.mark.parametrize("name", ["firehose", "lookup-events", "filter-log-events", "records", "event list", "list"])
def test_a_long_list_is_read_record_by_record(name: str) -> None:
    wrapped = WRAPS[name](VAULT)
    at = wrapped.index(b"[", 0 if name == "list" else wrapped.index(b":"))
    element = wrapped[at + 1 : wrapped.rindex(b"]", 0, None if name == "list" else wrapped.rindex(b"]") + 1)]
    if name == "filter-log-events":
        element = wrapped[at + 1 : wrapped.index(b"}]") + 1]
    content = wrapped[: at + 1] + b",".join([element] * 50) + wrapped[at + 1 + len(element) :]
    found = read(content, limit=2000)
    assert [one.raw for one in found] == [VAULT] * 50
    assert [one.location.record for one in found] == list(range(1, 51))


def test_hostile_envelopes_are_bounded() -> None:
    deep = VAULT
    for _ in range(15):
        deep = OBJECTS["hcp payload"](deep)
    (found,) = read(deep)
    assert found.problem == "more than 12 envelopes around a record"
    bomb = base64.b64encode(gzip.compress(b"0" * (70 << 20))).decode()
    (found,) = read(json.dumps({"awslogs": {"data": bomb}}).encode())
    assert found.problem.startswith("damaged gzip (more than")
    (found,) = read(b'{"message":' + b"[" * 500_000 + b"]" * 500_000 + b"}", limit=2 << 20)
    assert found.values is None


def test_nesting_at_the_limit_of_the_parser_is_no_exception() -> None:
    for depth in range(700, 1000, 7):
        nested = b'{"a":' * depth + b"1" + b"}" * depth
        for content in (
            b'{"payload":' + nested + b"}",
            b'{"hvc_organization_id":1,"payload":' + nested + b"}",
            b'{"items":[' + nested + b"\n]}",
            b'{"logEvents":[' + nested + b"]}",
        ):
            assert read(content)


def test_a_firehose_object_with_a_test_of_the_subscription() -> None:
    control = {"messageType": "CONTROL_MESSAGE", "logEvents": [{"timestamp": 1, "message": "CWL CONTROL MESSAGE: x"}]}
    data = json.dumps(control).encode() + WRAPS["cloudwatch subscription"](VAULT) * 2
    found = read(gzip.compress(data))
    assert [(one.raw == VAULT, one.skipped) for one in found] == [(False, True), (True, False), (True, False)]
    assert found[1].envelopes == ("CloudWatch Logs subscription", "collector message")


def test_damage_is_a_problem_and_never_an_exception() -> None:
    for bad in (
        "!",
        "aGk",
        base64.b64encode(gzip.compress(VAULT)[:-20]).decode(),
        base64.b64encode(b"\x1f\x8bx").decode(),
    ):
        found = read(json.dumps({"awslogs": {"data": bad}}).encode())
        assert found
    (kept,) = read(b'{"@timestamp":"t","message":"\\ud800{"}')
    assert kept.values is None


@given(st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.just(VAULT.decode()) | st.just(STRINGS["cri"](VAULT).decode()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["message", "log", "stream", "event", "original", "Records", "items", "data", "MESSAGE", "body",
                         "payload", "detail", "awslogs", "logEvents", "type", "request", "_p", "kubernetes", "hits"]),
        inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
def test_any_json_value_is_read(value: Any) -> None:
    content = json.dumps(value).encode()
    for one in read(content + b"\n" + content):
        assert isinstance(one.raw, bytes)


def test_damaged_files_are_reported(tmp_path: Path) -> None:
    zstd = _zstd()
    lines = b"".join(TELEPORT.replace(b"s\\", b"%d\\" % number) + b"\n" for number in range(3000))
    for content in (zstd.compress(lines)[:-50], gzip.compress(lines)[:-50], lines.decode().encode("utf-16")[:-1]):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            feed(tmp_path / "a", "teleport")


def test_folders_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b/2", "b/10", "a/x/1", ".hidden/1", "b/.part", "c"):
        path = tmp_path / "logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    root = tmp_path / "logs"
    assert list(files_in(["-", "x", str(root)])) == [
        "-",
        "x",
        *(str(root / name) for name in ("a/x/1", "b/10", "b/2", "c")),
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="contains no file"):
        list(files_in([str(tmp_path / "empty")]))


def test_a_line_that_is_never_finished_takes_no_other_with_it() -> None:
    """A collector may cut off Docker's line ends, and a part may be lost."""

    def docker(log: bytes) -> bytes:
        return json.dumps({"log": log.decode(), "stream": "stdout", "time": "t"}).encode()

    logs = [
        b"==> started",
        VAULT,
        VAULT[:50],
        VAULT,
        VAULT[:50],
        VAULT + b"\n",
        b"text\n",
        VAULT[:9],
        VAULT[9:] + b"\n",
    ]
    found = read(b"\n".join(map(docker, logs)))
    assert [(one.raw, one.problem) for one in found] == [
        (b"==> started", ""),
        (VAULT, ""),
        (VAULT[:50], "the last part of the line is missing"),
        (VAULT, ""),
        (VAULT[:50], "the last part of the line is missing"),
        (VAULT, ""),
        (b"text", ""),
        (VAULT, ""),
    ]


def test_parts_are_bounded_and_cheap() -> None:
    lines = [b'{"log":"{%d","stream":"s%d"}' % (number, number) for number in range(1100)]
    found = read(b"\n".join(lines))
    assert [one.problem for one in found[:76]] == ["too many lines are in parts at one time"] * 76
    assert len(found) == 1100
    (found_one,) = read(b"2026-11-28T05:00:00Z stdout P }\n" * 20_000, limit=100_000)
    assert len(found_one.raw) == 20_000


@given(st.data())
def test_damaged_envelopes_raise_nothing(data: st.DataObject) -> None:
    wraps = data.draw(st.lists(st.sampled_from(sorted(WRAPS)), min_size=1, max_size=3))
    content = bytearray(b"\n".join(WRAPS[name](RECORDS["vault"]) for name in wraps))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        end = at + data.draw(st.integers(0, 20))
        content[at:end] = data.draw(
            st.sampled_from([b"", b"{", b"}", b"[", b"]", b'"', b"\n", b"\\", b"\0", b"\xff", b","])
        )
    read(bytes(content), limit=data.draw(st.sampled_from([100, 1 << 20])))


def test_the_text_that_is_the_record_is_preferred() -> None:
    wrapped = {"@timestamp": "t", "message": "alice logged in", "event": {"original": VAULT.decode()}}
    assert [one.raw for one in read(json.dumps(wrapped).encode())] == [VAULT]
    wrapped = {"@timestamp": "t", "message": VAULT.decode(), "event": {"original": "alice logged in"}}
    assert [one.raw for one in read(json.dumps(wrapped).encode())] == [VAULT]
    wrapped = {"@timestamp": "t", "message": "b", "event": {"original": "a"}}
    assert [one.raw for one in read(json.dumps(wrapped).encode())] == [b"a"]


def test_a_record_as_a_json_string() -> None:
    string = json.dumps(VAULT.decode())
    for content in (string, json.dumps({"@timestamp": "t", "message": string})):
        assert [one.raw for one in read(content.encode())] == [VAULT]
    assert [one.raw for one in read(b'"quoted" text')] == [b'"quoted" text']


def test_two_members_of_one_name_are_named_in_any_envelope(tmp_path: Path) -> None:
    twice = VAULT.replace(b'"type":"response"', b'"type":"response","type":"request"')
    for name in WRAPS:
        (tmp_path / "a").write_bytes(WRAPS[name](twice))
        report, events = feed(tmp_path / "a", "vault")
        assert (report.failed, events) == (1, []), name
    for name in ("cri", "message", "eventbridge", "records"):
        (tmp_path / "a").write_bytes(WRAPS[name](twice) + b"\n" + WRAPS[name](twice))
        problems = [one.problem for one in feed(tmp_path / "a", "vault")[0].failures]
        assert problems == ["has two members of the same name: 'type'"] * 2
