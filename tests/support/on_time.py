"""Access with a deadline: events in, findings and commands of watch and enforcer out."""

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
from grantledger.runtime.children import Child
from grantledger.schemas.catalog import event_schema
from grantledger.schemas.event import FINDINGS_TOPIC, LIFECYCLE_TOPIC
from grantledger.schemas.topics import COMMANDS_TOPIC

from .events import read_datum
from .pipeline import Pipeline
from .shared_broker import RunningBroker

GRACE = 1.0
POLICY = f"[default]\ngrace_seconds = {GRACE}\nconfirm_wait_seconds = 3600\nrevoke = 'overdue'\n"
"""Short times, so that tests need not wait. Commands go out with the findings, so that their order is fixed."""
WATCH, ENFORCER = "grantledger-watch", "grantledger-enforcer"
FOUND = ["finding.opened", "revoke.requested"]
"""What the watch publishes about access that has outlived its deadline."""


def short_policy(
    broker: RunningBroker, make_pipeline: Callable[..., Pipeline], folders: pytest.TempPathFactory, **settings: str
) -> Pipeline:
    """Return a pipeline under ``POLICY``, with no process started yet."""
    policy = folders.mktemp("policy") / "policy.toml"
    policy.write_text(POLICY)
    environment = {f"GRANTLEDGER_{name.upper()}": value for name, value in settings.items()}
    return make_pipeline(broker.bootstrap_servers, {"GRANTLEDGER_WATCH_POLICY": str(policy), **environment})


def activated(name: str, seconds: float, *, subject: str = "alice@example.com", kind: str = "database") -> Event:
    """Return access that must end in so many seconds. Each grant is for its own resource."""
    return grant_activated(
        grant_id=name,
        subject=Subject(subject, "human"),
        resource=Resource(kind, name, "production"),
        entitlement="readwrite",
        expires_at=datetime.now(UTC) + timedelta(seconds=seconds),
        native_id=f"{name}:activated",
    )


def revoked(name: str) -> Event:
    """Return the event of the tool itself that the access was removed."""
    return grant_revoked(
        grant_id=name,
        subject=Subject("alice@example.com", "human"),
        resource=Resource("database", name, "production"),
        entitlement="readwrite",
        removal_evidence="confirmed",
        native_id=f"{name}:revoked",
    )


def send(pipeline: Pipeline, *events: Event) -> None:
    """Send events as an access tool."""
    with pipeline.client(system="bot", instance="test") as client:
        for event in events:
            client.send(event)


@dataclass(frozen=True)
class Recorded:
    """An event from Kafka. ``key``: the key of its finding; for findings about a grant, the grant id."""

    system: str
    event_type: str
    key: str
    rule: str
    appended: datetime
    datum: dict[str, Any]

    @property
    def deadline(self) -> datetime:
        """The deadline in a finding or a command."""
        at: datetime = self.datum["finding"]["deadline"]
        return at

    @property
    def evidence(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.datum["finding"]["evidence"])
        return found


def recorded(pipeline: Pipeline, topic: str = FINDINGS_TOPIC) -> list[Recorded]:
    """Return the committed events of a topic of one partition, in order."""
    found = []
    for message in read_whole(pipeline.cluster, topic, 0):
        if not (message.value() or b"").startswith(event_schema().prefix):
            continue
        datum = read_datum(message.value() or b"")
        finding = datum["finding"] or {"key": datum["grant_id"], "rule": ""}
        appended = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
        system, event_type = datum["source"]["system"], datum["event_type"]
        found.append(Recorded(system, event_type, finding["key"] or "", finding["rule"], appended, datum))
    return found


def about(pipeline: Pipeline, name: str, *systems: str) -> list[str]:
    """Return the types of the events about a key, in order: all, or those of these systems."""
    return [one.event_type for one in recorded(pipeline) if one.key == name and (not systems or one.system in systems)]


def commands(pipeline: Pipeline) -> list[str]:
    """Return the grants that the enforcer must revoke, one entry per command."""
    return [one.key for one in recorded(pipeline, COMMANDS_TOPIC)]


def the_only(pipeline: Pipeline, event_type: str, name: str, topic: str = FINDINGS_TOPIC) -> Recorded:
    """Return the only event of this type about a key."""
    [found] = [one for one in recorded(pipeline, topic) if (one.event_type, one.key) == (event_type, name)]
    return found


def removal_of(pipeline: Pipeline, name: str) -> Recorded:
    """Return the only removal on record of a grant."""
    return the_only(pipeline, "grant.revoked", name, LIFECYCLE_TOPIC)


def true_lateness(pipeline: Pipeline, name: str) -> float:
    """Return how late a grant's access ended, in seconds, computed from its removal, not from the watch's finding."""
    removal, opened = removal_of(pipeline, name), the_only(pipeline, "finding.opened", name)
    gone: datetime = min(removal.datum["occurred_at"], removal.appended)
    return (gone - opened.deadline).total_seconds()


def judged_until(pipeline: Pipeline, name: str = "watch") -> float:
    """Return the time up to which a watch has judged everything, in seconds since 1970."""
    return pipeline.metric(name, "grantledger_watch_judged_until_seconds")


def watching(pipeline: Pipeline, name: str = "watch") -> bool:
    """Return whether this process watches, while others stand by."""
    return pipeline.metric(name, "grantledger_watch_active") == 1


@dataclass
class Supervision:
    """The exit codes that a supervisor saw, and the end of the log of what ended last, by process."""

    ends: dict[str, list[int]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)

    def check(self, children: dict[str, Child]) -> None:
        """Record which processes have ended, and restart them after a pause, as ``up`` does."""
        for name, child in list(children.items()):
            before, code = child.restarts, child.exit_code
            child.restart_if_failed()
            if child.restarts > before and code is not None:
                self.ends.setdefault(name, []).append(code)
                self.logs[name] = child.log_path.with_suffix(".log.1").read_text("utf-8", "replace")[-4000:]


@contextmanager
def supervised(children: dict[str, Child]) -> Iterator[Supervision]:
    """Restart processes that end, for the length of a ``with`` block."""
    seen, over = Supervision(), threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            seen.check(children)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
