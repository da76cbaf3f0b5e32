"""Access with a deadline, and what is said about it: events in, the words of watch and enforcer out."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from grantledger.kafka.records import read_whole
from grantledger.producers import Event, Resource, Subject, grant_activated, grant_revoked
from grantledger.runtime.broker import LocalBroker
from grantledger.runtime.children import Child
from grantledger.schemas.event import FINDINGS_TOPIC, LIFECYCLE_TOPIC
from grantledger.schemas.topics import COMMANDS_TOPIC

from .events import read_datum
from .pipeline import Pipeline

GRACE = 1.0
POLICY = f"[default]\ngrace_seconds = {GRACE}\nconfirm_wait_seconds = 3600\nrevoke = 'overdue'\n"
"""Short, so that a test has not to wait; commands go with the findings, so that each has its place in the order."""
WATCH, ENFORCER = "grantledger-watch", "grantledger-enforcer"
FOUND = ["finding.opened", "revoke.requested"]
"""What the watch says of access that has outlived its deadline."""


def short_policy(
    broker: LocalBroker, make_pipeline: Callable[..., Pipeline], folders: pytest.TempPathFactory, **settings: str
) -> Pipeline:
    """Return a pipeline under ``POLICY``, with no process started yet."""
    policy = folders.mktemp("policy") / "policy.toml"
    policy.write_text(POLICY)
    environment = {f"GRANTLEDGER_{name.upper()}": value for name, value in settings.items()}
    return make_pipeline(broker.bootstrap_servers, {"GRANTLEDGER_WATCH_POLICY": str(policy), **environment})


def activated(name: str, seconds: float, *, subject: str = "alice@example.com", kind: str = "database") -> Event:
    """Return access that must end so many seconds from now; each grant is to a resource of its own."""
    return grant_activated(
        grant_id=name,
        subject=Subject(subject, "human"),
        resource=Resource(kind, name, "production"),
        entitlement="readwrite",
        expires_at=datetime.now(UTC) + timedelta(seconds=seconds),
        native_id=f"{name}:activated",
    )


def revoked(name: str) -> Event:
    """Return the tool's own word that the access is gone."""
    return grant_revoked(
        grant_id=name,
        subject=Subject("alice@example.com", "human"),
        resource=Resource("database", name, "production"),
        entitlement="readwrite",
        removal_evidence="confirmed",
        native_id=f"{name}:revoked",
    )


def send(pipeline: Pipeline, *events: Event) -> None:
    """Have Kafka take events from an access tool."""
    with pipeline.client(system="bot", instance="test") as client:
        for event in events:
            client.send(event)


@dataclass(frozen=True)
class Word:
    """One record of the brokers' log."""

    system: str
    what: str
    key: str
    rule: str
    appended: datetime
    datum: dict[str, Any]

    @property
    def deadline(self) -> datetime:
        """The deadline that a finding or a command is about."""
        at: datetime = self.datum["finding"]["deadline"]
        return at

    @property
    def evidence(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.datum["finding"]["evidence"])
        return found


def words(pipeline: Pipeline, topic: str = FINDINGS_TOPIC) -> list[Word]:
    """Return what a topic of one partition holds, committed, in order. A word's key is mostly a grant."""
    found = []
    for message in read_whole(pipeline.cluster, topic, 0):
        datum = read_datum(message.value() or b"")
        finding = datum["finding"] or {"key": datum["grant_id"], "rule": ""}
        appended = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
        system, what = datum["source"]["system"], datum["event_type"]
        found.append(Word(system, what, finding["key"] or "", finding["rule"], appended, datum))
    return found


def about(pipeline: Pipeline, name: str, *systems: str) -> list[str]:
    """Return what is on record about one thing, by everybody or by these, in order."""
    return [word.what for word in words(pipeline) if word.key == name and (not systems or word.system in systems)]


def commands(pipeline: Pipeline) -> list[str]:
    """Return the grants that the enforcer is told to take away, one entry a command."""
    return [word.key for word in words(pipeline, COMMANDS_TOPIC)]


def only(pipeline: Pipeline, what: str, name: str, topic: str = FINDINGS_TOPIC) -> Word:
    """Return the one record of this type about one thing."""
    [word] = [word for word in words(pipeline, topic) if (word.what, word.key) == (what, name)]
    return word


def removal_of(pipeline: Pipeline, name: str) -> Word:
    """Return the one removal on record of a grant."""
    return only(pipeline, "grant.revoked", name, LIFECYCLE_TOPIC)


def true_lateness(pipeline: Pipeline, name: str) -> float:
    """Return how late a grant's access ended, in seconds: worked out from its removal, not from what the watch says."""
    removal, opened = removal_of(pipeline, name), only(pipeline, "finding.opened", name)
    gone: datetime = min(removal.datum["occurred_at"], removal.appended)
    return (gone - opened.deadline).total_seconds()


def judged_until(pipeline: Pipeline, name: str = "watch") -> float:
    """Return the time up to which a watch has judged everything, in seconds since 1970."""
    return pipeline.metric(name, "grantledger_watch_judged_until_seconds")


def watching(pipeline: Pipeline, name: str = "watch") -> bool:
    """Whether this process watches, where others stand by."""
    return pipeline.metric(name, "grantledger_watch_active") == 1


@dataclass
class Supervision:
    """What a supervisor saw: how each process ended, every time."""

    ends: dict[str, list[int]] = field(default_factory=dict)

    def look(self, children: dict[str, Child]) -> None:
        """Take note of what has ended, and start it again after a pause, as ``up`` does."""
        for name, child in list(children.items()):
            before, code = child.restarts, child.exit_code
            child.watch()
            if child.restarts > before and code is not None:
                self.ends.setdefault(name, []).append(code)


@contextmanager
def supervised(children: dict[str, Child]) -> Iterator[Supervision]:
    """Start processes again that end, for the length of a ``with`` block."""
    seen, over = Supervision(), threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            seen.look(children)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
