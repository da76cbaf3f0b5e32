"""Simulated lives, from the records of the tools to the findings of the watch, without Kafka."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from grantledger.ledger.batch import Head, Records, SealedBatch, decode, encode, seal
from grantledger.ledger.entry import NO_HEADERS, Genesis
from grantledger.ledger.keys import Signer
from grantledger.processors.watch.core.judge import FindingChange, Identity, Judge
from grantledger.processors.watch_policy import WatchPolicy, load_policy
from grantledger.producers.adapters import ADAPTERS, Location, Skipped, make_adapter
from grantledger.producers.event_json import event_from_json
from grantledger.producers.json_fields import parse_object
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import LIFECYCLE_TOPIC, Event
from grantledger.simulator.company_policy import POLICY
from support.decoded import facts_of
from support.expected import ExpectedFinding
from support.small_ledger import SIGNER
from support.virtual_time import ArrivedRecord

GENESIS = Genesis("sim.example/access.lifecycle/0/0", bytes(16), 0)
LOOK = 1_000_000
"""How long after a deadline the watch judges, in microseconds."""
LONG_AFTER = 3 * 86_400_000_000
"""After this time everything has fallen due, even by a clock that is a day fast. Microseconds."""


@dataclass
class Seen:
    """A finding of the watch."""

    opens: int
    ends: int | None = None
    late: float | None = None
    times: int = 1
    """How often it was opened."""


@dataclass
class Watched:
    """The findings and commands of a watch for a simulation.

    Attributes:
        findings: by rule, key and deadline.
        revokes: grants and deadlines with a revoke command.
        judge: the judge in its final state.
    """

    findings: dict[Identity, Seen]
    revokes: set[tuple[str, int]]
    judge: Judge

    def note(self, changes: list[FindingChange]) -> None:
        """Record changes of the watch."""
        for change in changes:
            identity = change.finding[:3]
            if change.finding.rule == "revoke":
                assert identity[1:] not in self.revokes, "there is one revoke command"
                self.revokes.add(identity[1:])
            elif change.kind == "opened":
                seen = self.findings.setdefault(identity, Seen(change.at, times=0))
                seen.times += 1
            else:
                seen = self.findings[identity]
                seen.ends = change.at
                late = change.finding.evidence.get("late_seconds")
                seen.late = float(late) if isinstance(late, int | float) else None


class Reader:
    """Reads lines with the adapters of the registry, and events of in-house programs as ``emit --stdin`` does."""

    def __init__(self) -> None:
        self._adapters = {tool: make_adapter(tool) for tool in ADAPTERS}
        self._number = itertools.count(1)

    def events(self, tool: str, raw: bytes) -> tuple[Event, ...]:
        """Return the events of a line. The only lines that may be skipped are Vault's request entries."""
        place = Location(tool, next(self._number))
        if tool == "emit":
            return (event_from_json(parse_object(raw, place)),)
        outcome = self._adapters[tool].read(raw, place)
        if isinstance(outcome, Skipped):
            assert outcome.reason == "request_half", outcome
            return ()
        return outcome


def sealed_batches(
    deliveries: Iterable[ArrivedRecord], seconds: float = 5.0, *, genesis: Genesis = GENESIS, signer: Signer = SIGNER
) -> Iterator[tuple[SealedBatch, int]]:
    """Yield the sealed batches of ``access.lifecycle``, each with the time up to which it is complete, in microseconds.

    Args:
        deliveries: lines in order of arrival.
        seconds: the time that one batch covers.
    """
    reader, encoder, head = Reader(), EventEncoder(), Head.at_genesis(genesis)
    times: list[int] = []
    values: list[bytes | None] = []
    ends = 0

    def flush(head: Head, until_ms: int) -> tuple[SealedBatch, Head]:
        offset, count = head.next_offset, len(times)
        records = Records(
            [1] * count, list(range(offset, offset + count)), list(times), [b"k"] * count, list(values),
            [NO_HEADERS] * count,
        )  # fmt: skip
        sealed_at = datetime.fromtimestamp(until_ms / 1000, UTC) + timedelta(seconds=1)
        batch, head = seal(head, records, offset + count, sealed_at, signer)
        times.clear()
        values.clear()
        return decode(encode(batch)), head

    for append, tool, raw in deliveries:
        if append >= ends:
            if times:
                batch, head = flush(head, ends)
                yield batch, (ends - 1) * 1000
            ends = append + int(seconds * 1000)
        for event in reader.events(tool, raw):
            if event.topic == LIFECYCLE_TOPIC:
                times.append(append)
                values.append(encoder.encode(event))
    if times:
        batch, head = flush(head, ends)
        yield batch, (ends - 1) * 1000


def policy_in(folder: Path) -> WatchPolicy:
    """Return the policy of the simulated company, read from a file as the watch does."""
    path = folder / "policy.toml"
    path.write_text(POLICY)
    return load_policy(path)


def watch(
    arrivals: Iterable[ArrivedRecord],
    policy: WatchPolicy,
    seconds: float = 20.0,
    make: Callable[[Judge], Watched] = lambda judge: Watched({}, set(), judge),
) -> Watched:
    """Return the findings and commands of the watch for a simulation.

    It judges after every batch, when something falls due before the next one, and long after the end. ``make`` returns
    the record of what the judge finds.
    """
    catalog, judge = SchemaCatalog((event_schema(),)), Judge(policy)
    watched, now = make(judge), 0
    for batch, now in sealed_batches(arrivals, seconds):
        facts = list(facts_of(batch, catalog))
        while (look := judge.next_time + LOOK) < facts[0].append:
            watched.note(judge.judge(look))
        for fact in facts:
            judge.add(fact)
        watched.note(judge.judge(now))
    while (look := judge.next_time + LOOK) < now + LONG_AFTER:
        watched.note(judge.judge(look))
    watched.note(judge.judge(now + LONG_AFTER))
    assert judge.faults == []
    return watched


def differences(expected: Iterable[ExpectedFinding], watched: Watched) -> list[str]:
    """Return one line for each planted fault that was not found correctly, and for each finding that was not planted.

    There must be a revoke command for everything overdue, and no other.
    """
    left, revokes = dict(watched.findings), set(watched.revokes)
    lines = []
    for one in expected:
        if one.rule == "sequence_gap":  # the sweep finds these
            continue
        seen = left.pop(one.identity, None)
        wanted = Seen(one.opens, one.ends, one.late)
        if seen is None:
            lines.append(f"{one.fault}: not found: {one}")
        elif seen != wanted:
            lines.append(f"{one.fault}: {one.identity}: expected {wanted}, found {seen}")
        if one.rule == "overdue":
            if (one.key, one.deadline) not in revokes:
                lines.append(f"{one.fault}: no revoke command: {one}")
            revokes.discard((one.key, one.deadline))
    lines += [f"not planted: {identity}: {seen}" for identity, seen in left.items()]
    return lines + [f"revoke command without need: {one}" for one in revokes]
