"""Simulated lives from the tools' lines to what the watch says: adapters, Avro, sealed batches, facts, rules."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from grantledger.ledger.batch import Head, Records, SealedBatch, decode, encode, seal
from grantledger.ledger.entry import NO_HEADERS, Genesis
from grantledger.ledger.keys import Signer
from grantledger.processors.policy import WatchPolicy, load_policy
from grantledger.processors.watch.core.judge import Change, Identity, Judge
from grantledger.producers.adapters import ADAPTERS, Location, Skipped, make_adapter
from grantledger.producers.event_json import event_from_json
from grantledger.producers.json_fields import parse_object
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import LIFECYCLE_TOPIC, Event
from grantledger.simulator.expected import ExpectedFinding
from grantledger.simulator.policy import POLICY
from grantledger.simulator.simulation import ArrivedRecord, Simulation
from support.decoded import facts_of
from support.small_ledger import SIGNER

GENESIS = Genesis("sim.example/access.lifecycle/0/0", bytes(16), 0)
LOOK = 1_000_000
"""So soon after something falls due the watch looks, in microseconds."""
LONG_AFTER = 3 * 86_400_000_000
"""So much later everything that falls due has done so, the end of the day of a fast clock too."""


@dataclass
class Seen:
    """A finding as the watch told it."""

    opens: int
    ends: int | None = None
    late: float | None = None
    times: int = 1
    """How often it was opened."""


@dataclass
class Watched:
    """All that a watch said of a simulation.

    Attributes:
        findings: by rule, key and deadline.
        revokes: grants and deadlines for which enforcers were called.
        judge: the judge in its final state.
    """

    findings: dict[Identity, Seen]
    revokes: set[tuple[str, int]]
    judge: Judge

    def note(self, changes: list[Change]) -> None:
        """Take what the watch says."""
        for change in changes:
            identity = change.finding[:3]
            if change.finding.rule == "revoke":
                assert identity[1:] not in self.revokes, "enforcers are called once"
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
    """Reads lines with the adapters of the registry; what the company's own programs send as ``emit --stdin`` does."""

    def __init__(self) -> None:
        self._adapters = {tool: make_adapter(tool) for tool in ADAPTERS}
        self._number = itertools.count(1)

    def events(self, tool: str, raw: bytes) -> tuple[Event, ...]:
        """Return the events of a line. Of what is skipped, only Vault's request entries may be among the lives."""
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
    """Yield the sealed batches of ``access.lifecycle``, and up to when everything is in them, in microseconds.

    Args:
        deliveries: lines in order of arrival.
        seconds: how much time one batch holds.
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
    """Return the made-up company's policy, read from a file as the watch would."""
    path = folder / "policy.toml"
    path.write_text(POLICY)
    return load_policy(path)


def watch(simulation: Simulation, policy: WatchPolicy, seconds: float = 5.0) -> Watched:
    """Return everything the watch says of a simulation.

    It looks after every batch, where something falls due before the next one, and long after the end.
    """
    catalog, judge = SchemaCatalog((event_schema(),)), Judge(policy)
    watched, now = Watched({}, set(), judge), 0
    for batch, now in sealed_batches(simulation, seconds):
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
    """Return what was planted and not found as it must be, and what was found and not planted; one line each.

    Enforcers must have been called for whatever was overdue, and for nothing else.
    """
    left, revokes = dict(watched.findings), set(watched.revokes)
    lines = []
    for one in expected:
        seen = left.pop(one.identity, None)
        wanted = Seen(one.opens, one.ends, one.late)
        if seen is None:
            lines.append(f"{one.fault}: not found: {one}")
        elif seen != wanted:
            lines.append(f"{one.fault}: {one.identity}: must be {wanted}, is {seen}")
        if one.rule == "overdue":
            if (one.key, one.deadline) not in revokes:
                lines.append(f"{one.fault}: enforcers not called: {one}")
            revokes.discard((one.key, one.deadline))
    lines += [f"not planted: {identity}: {seen}" for identity, seen in left.items()]
    return lines + [f"enforcers called without need: {one}" for one in revokes]
