"""Runs the checks of every subject in order. What a check needs and cannot have makes it ``not checked``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from confluent_kafka import KafkaException

from ...base.errors import GrantledgerError
from ...kafka.cluster import Cluster
from ...kafka.identity import all_partitions
from ...kafka.sealed_log import SealedLogs
from ...schemas.topics import INPUT_TOPICS
from ...sinks.clickhouse import StoreUnavailableError
from ..initialise import required_topics
from ..keys import load_log_keys
from ..loopback_ports import HOST
from ..settings import Settings
from ..stack_file import read_stack
from ..store_access import ask_store
from . import brokers, clocks, keys, logs, machine, older_keys, processes, spools, store, topics
from .diagnosis import Diagnosis, Subject

STORE_SECONDS = 15.0
"""How long an answer of ClickHouse may take."""
SIGNING = frozenset({"seal", "anchor"})


class NotPossibleError(Exception):
    """A check lacks something. The message says what."""


@dataclass
class Examination:
    """The checks of one deployment from this machine.

    Args:
        settings: those of the deployment.
        seconds: limit of the first answer of Kafka.
    """

    settings: Settings
    seconds: float = 8.0
    _here: list[processes.Process] = field(default_factory=list)
    _clock: clocks.Clock | None = None
    _cluster: Cluster | None = None
    _brokers: brokers.Brokers | None = None
    _away: str = ""
    """Why Kafka cannot be asked."""

    def steps(self) -> Iterator[tuple[str, Callable[[], list[Diagnosis]]]]:
        """Yield the subject of each step, and the function that checks it. They build on one another."""
        steps: list[tuple[Subject, Callable[[], list[Diagnosis]]]] = [
            (machine.FOLDER, lambda: machine.examine(self.settings)),
            (processes.ABOUT, self._processes),
            (brokers.ABOUT, self._kafka),
            (topics.ABOUT, self._topics),
            (brokers.ACCESS, self._access),
            (processes.GROUPS, self._groups),
            (keys.ABOUT, self._keys),
            (keys.ABOUT, self._signature),
            (logs.ABOUT, lambda: logs.examine(self._logs(), self.settings)),
            (store.ABOUT, self._store),
            (clocks.ABOUT, self._clocks),
            (spools.ABOUT, lambda: spools.examine(self.settings, [one.name for one in self._here if one.runs])),
        ]
        for subject, step in steps:
            yield subject.name, partial(_caught, subject, step)

    @property
    def _local(self) -> bool:
        """Whether the Kafka of the local stack is asked: one broker on loopback is meant to be so."""
        settings = self.settings
        stack = read_stack(settings.data_dir)
        servers = settings.kafka_bootstrap_servers
        is_ours = (settings.data_dir / "kafka").is_dir() and servers.startswith(f"{HOST}:")
        return bool(stack) and is_ours and stack.get("kafka_bootstrap_servers") == servers

    def _processes(self) -> list[Diagnosis]:
        self._here = processes.read_processes(self.settings)
        return [*processes.check(self._here, self.settings.data_dir), *processes.check_versions(self._here)]

    def _keys(self) -> list[Diagnosis]:
        signs = any(one.name in SIGNING for one in self._here)
        return keys.check(keys.read_keys(self.settings), needs_private=signs)

    def _signature(self) -> list[Diagnosis]:
        logs, settings = self._logs(), self.settings
        return [*keys.examine_signature(logs, settings.public_key_path), *older_keys.examine(logs, settings)]

    def _kafka(self) -> list[Diagnosis]:
        try:
            cluster = self.settings.cluster()
            cluster.check_answers(self.seconds)
        except GrantledgerError as error:
            self._away = "Kafka is not configured" if not self.settings.kafka_bootstrap_servers else "Kafka is away"
            return [brokers.ABOUT.problem(str(error), "start Kafka, or correct the settings that the text names")]
        self._cluster = cluster
        self._brokers = brokers.read_brokers(cluster)
        return brokers.check_brokers(self._brokers, local=self._local)

    def _topics(self) -> list[Diagnosis]:
        cluster = self._asked()
        count = len(self._brokers.nodes) if self._brokers is not None else 0
        return topics.examine(cluster, required_topics(self.settings), count, local=self._local)

    def _access(self) -> list[Diagnosis]:
        cluster = self._asked()
        if self._brokers is None:
            raise NotPossibleError("the brokers could not be listed")
        return brokers.check_access(self._brokers, cluster.topic_prefix, local=self._local)

    def _groups(self) -> list[Diagnosis]:
        deployment = self.settings.require_deployment()
        found = processes.read_groups(self._asked(), deployment, self.settings.lifecycle_shards)
        return processes.check_groups(found, deployment)

    def _store(self) -> list[Diagnosis]:
        settings = self.settings
        place = settings.clickhouse_url or str(settings.store_path)
        embedded = not settings.clickhouse_url
        if embedded and not settings.store_path.exists():
            raise NotPossibleError(
                "no store is on this machine, and clickhouse_url is empty: run it where the store is, or set it"
            )
        try:
            with ask_store(settings, shared=True, answer_seconds=STORE_SECONDS) as ask:
                found, self._clock = store.read_store(ask, place, embedded=embedded)
        except StoreUnavailableError as error:
            return store.away(str(error), embedded=embedded)
        return store.check(found)

    def _clocks(self) -> list[Diagnosis]:
        lines = clocks.check_clock(self._clock) if self._clock is not None else []
        if self._clock is None:
            lines.append(clocks.ABOUT.unchecked("the clock of ClickHouse: it does not answer"))
        if self._cluster is None:
            return [*lines, clocks.ABOUT.unchecked(f"the clock of the brokers: {self._away}")]
        found = clocks.logs_to_read(all_partitions(self._cluster, INPUT_TOPICS))
        return [*lines, *clocks.check_written(clocks.read_written(self._logs(), found), time.time())]

    def _asked(self) -> Cluster:
        """Return the cluster, if it answers."""
        if self._cluster is None:
            raise NotPossibleError(self._away or "Kafka is away")
        return self._cluster

    def _logs(self) -> SealedLogs:
        """Return the sealed logs, to read them. Nothing is reported about what does not verify: others do that."""
        cluster, deployment = self._asked(), self.settings.require_deployment()
        return SealedLogs(cluster, deployment, load_log_keys(self.settings), lambda _: None)


def _caught(subject: Subject, step: Callable[[], list[Diagnosis]]) -> list[Diagnosis]:
    try:
        return step()
    except NotPossibleError as error:
        return [subject.unchecked(str(error))]
    except GrantledgerError as error:
        return [subject.unchecked(str(error))]
    except KafkaException as error:
        return [subject.unchecked(error.args[0].str())]
