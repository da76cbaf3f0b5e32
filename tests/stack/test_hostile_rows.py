"""A store full of hostile records: every view answers, commands end as they should, nothing steers a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from grantledger.schemas.catalog import event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import ACTIVITY_TOPIC, FINDINGS_TOPIC, LIFECYCLE_TOPIC, QUERIES_TOPIC
from support.access_store import Record, fill, opened_elsewhere
from support.cases import Cases
from support.command import invoke
from support.mutated import mutated

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
NOW_MS = 1_790_000_000_000
VIEWS = (
    "events", "rejected_events", "checkpoints", "grant_states", "active_grants", "grant_sessions", "grant_timeline",
    "access_review",
    "removal_latency", "findings", "grants", "overdue_grants", "past_deadline_grants", "query_log",
)  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("hostile")
    values = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    values += [value for value in mutated(event_schema(), 7, 200) if value is not None]
    records = [
        Record(topic, b"\x1b[2J\n", value, NOW_MS + at, by_broker=at % 9 != 0)
        for topic in (LIFECYCLE_TOPIC, ACTIVITY_TOPIC, FINDINGS_TOPIC, QUERIES_TOPIC)
        for at, value in enumerate(values)
    ]
    fill(folder, records, cuts=(200,))
    with opened_elsewhere(folder):
        yield folder


def run(data_dir: Path, *arguments: str) -> tuple[int, str]:
    result = invoke(*arguments, "--data", str(data_dir))
    for text in (result.stdout, result.stderr):
        assert all(char.isprintable() or char == "\n" for char in text), ascii(text)[:2000]
    return result.exit_code, result.stdout


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_answers(data_dir: Path, view: str) -> None:
    code, out = run(data_dir, "query", "--auditor", f"SELECT * FROM {view} LIMIT 60")
    assert code == 0, out


@pytest.mark.parametrize("output", ["table", "wide", "json", "yaml"])
def test_commands_list_and_show(data_dir: Path, output: str) -> None:
    for command in ("grants", "findings"):
        assert run(data_dir, command, "-o", output)[0] == 0, output
    for line in run(data_dir, "grants", "-q")[1].splitlines()[:2]:
        assert run(data_dir, "grants", "show", "-o", output, "--", line)[0] in (0, 1)
    for line in run(data_dir, "findings", "-q")[1].splitlines()[:2]:
        assert run(data_dir, "findings", "show", line, "-o", output)[0] in (0, 1)


def test_the_sequences_of_the_field_reach_no_terminal(cases: Cases, tmp_path: Path) -> None:
    now, encoder = datetime.now(UTC), EventEncoder()
    events = list(cases.emitted("28", now))
    at = int(now.timestamp() * 1000)
    fill(tmp_path, [Record(one.topic, b"k", encoder.encode(one), at + number) for number, one in enumerate(events)])
    ids = {one.grant_id for one in events if one.event_type == "grant.activated"}
    assert ids and any("\x1b" in one.subject.id for one in events)
    with opened_elsewhere(tmp_path):
        for output in ("table", "wide", "json"):
            code, out = run(tmp_path, "query", "-o", output, "SELECT subject_id, reason, raw FROM events")
            assert code == 0 and "mallory" in out
        assert run(tmp_path, "grants", "--all")[0] == 0
        for grant in ids:
            assert run(tmp_path, "grants", "show", str(grant))[0] == 0
