"""``follow`` is killed and Kafka fails while files grow and rotate: every line is sent, with the id of ``import``."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grantledger.producers.adapters import make_adapter
from grantledger.producers.importer import Importer
from grantledger.producers.input_files import InputFile
from grantledger.runtime.broker import LocalBroker
from grantledger.runtime.children import ChildSpec
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import decode
from grantledger.schemas.event import SOURCE_REPORT
from support.fork_server import ForkedChild
from support.oracle import committed_records
from support.pipeline import Pipeline
from support.waiting import wait_for

ROUNDS = 6
LINES = 300
"""Per round."""
TOPICS = ("access.lifecycle", "access.activity")


@pytest.fixture(scope="module")
def pipeline(own_broker: LocalBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    return make_pipeline(own_broker.bootstrap_servers)


class Log:
    """A file that a tool writes and rotates."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._all = path.with_name("everything")
        self._written = 0

    def write(self, count: int) -> None:
        lines = b"".join(map(self._line, range(self._written, self._written + count)))
        self._written += count
        for path in (self.path, self._all):
            with path.open("ab") as file:
                file.write(lines)

    def rotate(self, number: int) -> None:
        """Rotate in a different way each time."""
        rotated = self.path.with_name(f"audit.log-2026112{number}")
        if number % 3 == 0:
            shutil.copy(self.path, rotated)
            os.truncate(self.path, 0)
            return
        self.path.rename(rotated)
        if number % 3 == 1:
            compressed = rotated.with_name(f"{rotated.name}.gz")
            compressed.write_bytes(gzip.compress(rotated.read_bytes()))
            shutil.copystat(rotated, compressed)
            rotated.unlink()

    def imported_ids(self) -> set[str]:
        """Return the ids that ``import`` gives to everything written."""
        ids: set[str] = set()
        importer = Importer(make_adapter("teleport"), lambda event: ids.add(event.event_id))
        with InputFile(str(self._all)) as file:
            importer.run(file)
        return ids

    @staticmethod
    def _line(number: int) -> bytes:
        record = {"event": "session.start", "code": "T2000I", "uid": f"u{number}", "sid": f"s{number}", "user": "alice"}
        return json.dumps({**record, "time": "2024-05-01T10:00:00Z"}).encode() + b"\n"


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "audit.log")


@pytest.fixture
def follow(pipeline: Pipeline, log: Log) -> Iterator[ForkedChild]:
    state = str(log.path.with_name("positions.json"))
    spec = ChildSpec("follow-positions", ("follow", "teleport", str(log.path), "--state", state))
    child = ForkedChild(spec, pipeline.data_dir, pipeline.environment)
    pipeline.children["follow"] = child
    child.start()
    yield child
    child.stop()


def sent_ids(pipeline: Pipeline) -> list[str]:
    catalog = SchemaCatalog((event_schema(),))
    found = committed_records(pipeline.cluster, TOPICS).values()
    events = (decode(bytes.fromhex(value or ""), catalog, 0) for rows in found for _, _, value in rows)
    return [event["event_id"] for event in events if event["event_type"] != SOURCE_REPORT]


def test_kills_lose_no_line(pipeline: Pipeline, log: Log, follow: ForkedChild) -> None:
    for number in range(1, ROUNDS + 1):
        log.write(LINES)
        if number % 2:
            wait_for(
                lambda: pipeline.metric("follow", "grantledger_follow_events_total") > 0, "events are acknowledged"
            )
            log.write(LINES)
        pipeline.kill("follow")
        log.rotate(number)
        log.write(LINES)
        follow.start()
    expected = log.imported_ids()
    assert len(expected) == LINES * ROUNDS * 5 // 2
    wait_for(lambda: set(sent_ids(pipeline)) >= expected, "every line is in Kafka")
    assert set(sent_ids(pipeline)) == expected
    state = log.path.with_name("positions.json")
    wait_for(lambda: pipeline.metric("follow", "grantledger_follow_lag_bytes") == 0, "all is acknowledged")
    assert follow.stop()
    before = len(sent_ids(pipeline))
    assert json.loads(state.read_text())["version"] == 1
    done = pipeline.run("follow", "teleport", str(log.path), "--state", str(state), "--once", "-o", "json")
    assert (done.returncode, json.loads(done.stdout)["records"]) == (0, 0), done.stderr
    assert len(sent_ids(pipeline)) == before, "after a stop nothing is sent again"


def test_reading_goes_on_after_kafka_was_away(
    own_broker: LocalBroker, pipeline: Pipeline, log: Log, follow: ForkedChild
) -> None:
    log.write(1)
    wait_for(lambda: pipeline.metric("follow", "grantledger_follow_events_total") == 1, "the first event")
    own_broker.kill()
    log.write(20)
    wait_for(lambda: "kafka_away" in follow.log_path.read_text(), "it says that Kafka is away")
    assert pipeline.metric("follow", "grantledger_follow_unacknowledged_events") == 20
    log.rotate(1)
    log.write(20)
    own_broker.start()
    expected = log.imported_ids()
    wait_for(lambda: set(sent_ids(pipeline)) >= expected, "every line is in Kafka")
    wait_for(lambda: "kafka_back" in follow.log_path.read_text(), "it says that Kafka is back")
    assert follow.alive()
