"""The clocks: that of this machine against ClickHouse, and those of the pipeline against the brokers.

Kafka tells its time only in the records that it appends, and a check writes nothing. So the newest sealed batches and
the last anchor are read: each has the time of the machine that wrote it, and the time at which the broker appended it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...kafka.cluster import Cluster
from ...kafka.records import last_record
from ...kafka.sealed_log import SealedLogs, SealedLogStoppedError
from ...schemas.topics import INPUT_TOPICS, sealed
from .diagnosis import Diagnosis, Subject

ABOUT = Subject("clocks")
TOLERANCE = 2.0
"""Seconds by which clocks may differ: docs/watch.md allows as much between times of one source."""
WRONG = 60.0
"""Seconds from which deadlines are visibly wrong."""
WRITING = 15.0
"""Seconds that may pass between sealing a batch and appending it."""
_NTP = "synchronize both clocks, for example with chrony"


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock that was read between two readings of our own. All in seconds since 1970."""

    name: str
    before: float
    after: float
    told: float

    @property
    def ahead(self) -> float:
        """Seconds by which it is certainly ahead of ours; negative: behind; 0: the readings allow both."""
        return max(0.0, self.told - self.after) + min(0.0, self.told - self.before)


@dataclass(frozen=True, slots=True)
class Written:
    """A record that a process of the pipeline stamped at ``stamped`` and the broker appended at ``appended``."""

    topic: str
    stamped: float
    appended: float


def check_clock(found: Clock) -> list[Diagnosis]:
    """Return what is to be said about a clock that we could ask."""
    return [_judged(found.ahead, f"{found.name} and this machine")]


def check_written(found: Iterable[Written], now: float) -> list[Diagnosis]:
    """Return what the newest records say of the clocks of the brokers, the sealers and this machine.

    The time to write a record makes the broker seem ahead, so the smallest difference counts.
    """
    records = list(found)
    if not records:
        return [
            ABOUT.unchecked(
                "the brokers' clock: nothing is sealed, and to ask Kafka for its time would mean to write a record",
                "start `run seal`",
            )
        ]
    ahead = min(one.appended - one.stamped for one in records)
    ahead = 0.0 if 0 <= ahead <= WRITING else ahead
    newest = max(one.appended for one in records)
    lines = [_judged(ahead, "the brokers and the sealers, by the newest sealed batches")]
    if newest - now > TOLERANCE:
        lines.append(_judged(newest - now, "the brokers and this machine, by the newest record"))
    return lines


def _judged(ahead: float, names: str) -> Diagnosis:
    seconds = abs(ahead)
    if seconds <= TOLERANCE:
        return ABOUT.ok(f"{names}: within {TOLERANCE:g} s")
    first, _, second = names.partition(" and ")
    second, comma, how = second.partition(", ")
    text = f"{first} {'is' if first.startswith('ClickHouse') else 'are'} {seconds:,.1f} s "
    text += f"{'ahead of' if ahead > 0 else 'behind'} {second}{comma}{how}"
    return ABOUT.problem(text, _NTP) if seconds > WRONG else ABOUT.warning(text, _NTP)


def read_written(logs: SealedLogs, partitions: Iterable[tuple[str, int]]) -> list[Written]:
    """Return the newest sealed batch of each log. Raises KafkaUnavailableError."""
    found = []
    for topic, partition in partitions:
        try:
            last = logs.last(topic, partition)
        except SealedLogStoppedError:
            continue  # another check says so
        if last is None:
            continue
        appended = _appended(logs.cluster, topic, partition)
        if appended is not None:
            found.append(Written(topic, last.batch.sealed_at.timestamp(), appended))
    return found


def _appended(cluster: Cluster, topic: str, partition: int) -> float | None:
    record = last_record(cluster, sealed(topic), partition)
    return record.timestamp()[1] / 1000 if record is not None else None


def logs_to_read(partitions: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return the logs whose newest batches are read: the first one of each topic."""
    return [one for one in partitions if one[1] == 0 and one[0] in INPUT_TOPICS]
