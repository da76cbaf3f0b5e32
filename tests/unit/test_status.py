"""The status counts events, not offsets: transaction markers have offsets too."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_INVALID, TopicPartition

from grantledger.cli.status import _state
from grantledger.kafka.cluster import Cluster
from grantledger.kafka.sealed_log import SealedLogs
from grantledger.ledger.batch import Head
from grantledger.ledger.entry import Genesis, origin_of
from grantledger.ledger.keys import LocalSigner, LogKeys, LogSigners
from grantledger.processors import metrics, seal
from grantledger.processors.partition_buffer import PartitionBuffer
from grantledger.runtime import status, watch_liveness
from grantledger.runtime.process import Samples
from grantledger.runtime.settings import Settings
from grantledger.runtime.store_lag import StoreLag
from grantledger.runtime.watch_progress import write_progress
from grantledger.schemas.event import ACTIVITY_TOPIC, LIFECYCLE_TOPIC

SIZE, POSITION = "grantledger_log_size_entries", "grantledger_seal_position_offset"
STORED = "grantledger_stored_log_size_entries"


def sampled(**of: tuple[int, int, int]) -> Samples:
    """Return the metrics of logs: entries sealed, input position, entries stored."""
    samples: Samples = {}
    for topic, numbers in of.items():
        labels = f"partition=0,topic=access.{topic}"
        samples |= {(name, labels): float(value) for name, value in zip((SIZE, POSITION, STORED), numbers, strict=True)}
    return samples


@pytest.mark.parametrize(
    ("ends", "samples", "events", "lag"),
    [
        ((4711, 20), sampled(lifecycle=(4700, 4711, 4700), activity=(20, 20, 20)), 4720, 0),
        ((4711, 20), sampled(lifecycle=(4690, 4700, 4680), activity=(20, 20, 20)), 4721, 21),
        ((4711, 20), sampled(lifecycle=(4700, 4711, 4700), findings=(9, 9, 9)), 4720, 20),
        ((10, 20), {}, 30, None),
        ((10, 20), sampled(lifecycle=(12, 12, 12), activity=(20, 20, 20)), 32, 0),
    ],
    ids=["eleven markers", "not sealed yet", "a log without a sealer", "no sealer", "read before the ends"],
)
def test_markers_are_no_lag(
    ends: tuple[int, int],
    samples: Samples,
    events: int,
    lag: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = {(LIFECYCLE_TOPIC, 0): ends[0], (ACTIVITY_TOPIC, 0): ends[1]}
    monkeypatch.setattr(status, "read_samples", lambda *_: samples)
    monkeypatch.setattr(status, "ends_in_kafka", lambda _: at)
    settings = Settings(data_dir=tmp_path)
    found = status.read_status(settings, Cluster({}), [status.ProcessStatus("seal", 1)], None)
    assert (found.events, found.lag) == (events, lag)


ACTIVE = {("grantledger_watch_active", ""): 1.0}


@pytest.mark.parametrize(
    ("age", "started", "samples", "trouble", "state"),
    [
        (29, 600, ACTIVE, None, "judges"),
        (31, 600, {}, "watch (pid {pid}) has judged nothing since 2026-03-01 12:00:00 UTC; it hangs", "hangs"),
        (31, 600, ACTIVE, "watch (pid {pid}) has judged nothing since 2026-03-01 12:00:00 UTC; it runs", "hangs"),
        (31, 600, {("grantledger_watch_active", ""): 0.0}, None, "unknown"),
        (86_400, 29, ACTIVE, None, "judges"),
        (None, 29, ACTIVE, None, "unknown"),
        (None, 31, ACTIVE, "watch (pid {pid}) has judged nothing yet; it runs", "hangs"),
        (None, None, {}, None, "unknown"),
    ],
    ids=["judges", "hangs", "far behind", "standby", "just started", "first start", "first start hangs", "never"],
)
def test_a_watch_that_judges_nothing_is_in_trouble(
    age: int | None,
    started: int | None,
    samples: Samples,
    trouble: str | None,
    state: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "run").mkdir()
    now = time.time()
    for path, content, seconds in (
        ("watch.judged", "", age),
        ("watch.json", json.dumps({"pid": os.getpid(), "metrics": "http://127.0.0.1:1/"}), started),
    ):
        if seconds is not None:
            (tmp_path / "run" / path).write_text(content)
            if not content:
                write_progress(tmp_path, "watch", datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp())
            os.utime(tmp_path / "run" / path, (now - seconds, now - seconds))
    monkeypatch.setattr(status, "read_samples", lambda *_: samples)
    monkeypatch.setattr(watch_liveness, "read_samples", lambda *_: samples)
    settings = Settings(data_dir=tmp_path)
    found = status.read_status(settings, None, [status.ProcessStatus("watch", os.getpid())], None)
    shown = found.processes[0].trouble
    assert shown == trouble if trouble is None else (shown or "").startswith(trouble.format(pid=os.getpid()))
    assert found.troubles == (() if shown is None else (shown,))
    known = watch_liveness.read_watch_liveness(settings, "default")
    assert known.state == state, "grants show says the same"
    assert (known.judged_until is not None) == (age is not None and state != "judges")


@pytest.mark.parametrize(
    ("pid", "trouble", "state"),
    [(7, None, "runs"), (7, "watch hangs: why", "trouble"), (None, "watch is down: why", "down"), (None, None, "done")],
)
def test_the_table_of_processes_does_not_repeat_a_trouble(pid: int | None, trouble: str | None, state: str) -> None:
    """A line above the table has its text."""
    assert _state({"pid": pid, "trouble": trouble}) == state


class IdleConsumer:
    """Has read everything: its position is after the transaction marker at the end."""

    def __init__(self, _options: object) -> None:
        self.at = OFFSET_INVALID

    def consumer_group_metadata(self) -> None: ...

    def consume(self, _count: int, _seconds: float) -> list[object]:
        return []

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition(each.topic, each.partition, self.at) for each in partitions]


def test_the_position_of_an_idle_sealer_passes_markers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TransactionalWriter", "GroupMember"):
        monkeypatch.setattr(seal, name, lambda *_, **__: None)
    monkeypatch.setattr(seal, "Consumer", IdleConsumer)
    signer = LocalSigner.generate()
    logs = SealedLogs(Cluster({}, "eu."), "test.example", LogKeys.single(signer.public_key), on_problem=lambda _: None)
    now = 0.0
    sealer = seal.Sealer(logs, seal.SealerConfig(), LogSigners.single(signer), clock=lambda: now)
    head = Head.at_genesis(Genesis(origin_of("test.example", LIFECYCLE_TOPIC, 0), bytes(16), 41))
    sealer._buffers[LIFECYCLE_TOPIC, 0] = buffer = PartitionBuffer(head, 0.0, 1.0)

    def shown() -> float:
        [metric] = [
            sample.value
            for family in metrics.SEAL_POSITION.collect()
            for sample in family.samples
            if sample.labels == {"topic": LIFECYCLE_TOPIC, "partition": "0"}
        ]
        return metric

    sealer._step()
    assert shown() == 41, "nothing was read"
    sealer._consumer.at, now = 43, 5.0  # type: ignore[attr-defined]
    sealer._step()
    assert shown() == 43
    buffer.records.offsets.append(43)
    sealer._consumer.at, now = 44, 9.0  # type: ignore[attr-defined]
    sealer._step()
    assert shown() == 43, "a record waits to be sealed"


@pytest.mark.parametrize(
    ("entries", "seconds", "text"),
    [
        (0, 0.0, "The store contains every sealed entry."),
        (1, 0.2, "The store does not contain 1 sealed entry yet. It was sealed less than a second ago."),
        (5, 12.4, "The store does not contain 5 sealed entries yet. The oldest of them was sealed 12 s ago."),
    ],
)
def test_the_lag_of_the_store_is_a_true_sentence(entries: int, seconds: float, text: str) -> None:
    lag = StoreLag(entries, seconds)
    assert lag.text == text
    assert lag.note == text.replace(" yet.", f" yet: this answer lacks {'it' if entries == 1 else 'them'}.")
