"""Both verifiers on a ledger whose key changed: they agree about every list of keys, right or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import second_verifier

from grantledger.ledger.anchor import anchor_origin, append_anchor, encode_anchor
from grantledger.ledger.batch import Head, encode, seal
from grantledger.ledger.entry import NO_HEADERS, Genesis
from grantledger.ledger.key_change import SUBJECT, stated
from grantledger.ledger.key_list import write_key_list
from grantledger.ledger.keys import LocalSigner, LogKey, LogKeys
from grantledger.ledger.merkle import Frontier
from grantledger.runtime.source_keys import operator_event
from grantledger.schemas.event import Event
from grantledger.schemas.own_sources import OPERATOR
from grantledger.verifier.kafka_source import KafkaEvidence, PlacedRecord
from grantledger.verifier.procedure import verify
from grantledger.verifier.report import VerifyReport
from support.small_ledger import START, Entry, records_of
from support.sources import key_of, record_of, registered

HERE = "test.example"
OWN, LIFECYCLE = f"{HERE}/access.findings/0/0", f"{HERE}/access.lifecycle/0/0"
ANCHORS = anchor_origin(HERE)
OPERATES, OLD, NEW, THIRD = (LocalSigner.generate() for _ in range(4))
SIZES = {LIFECYCLE: 3, ANCHORS: 2}
"""First sizes of the new key, as the event states them."""
RIGHT = LogKeys((LogKey(OLD.public_key), LogKey(NEW.public_key, {**SIZES, OWN: 3})))
RELEASED = second_verifier.released_schemas()


def entry(offset: int, event: Event, signer: LocalSigner | None = OPERATES) -> Entry:
    record = record_of(event, signer, HERE, 10 + offset)
    return (1, offset, 10 + offset, record.key, record.value, record.headers)


def changed(key: LocalSigner = NEW, sizes: Mapping[str, int] = SIZES) -> Event:
    raw = stated(LogKey(key.public_key, sizes), OWN)
    return operator_event("key.changed", HERE, SUBJECT, "alice", reason="yearly", raw=raw)


REGISTRATION = entry(0, registered(HERE, OPERATOR, HERE, [key_of(OPERATES)], initial=True))
CHANGE = entry(1, changed())
PLAIN = [(1, at, 10, b"k", b"value", NO_HEADERS) for at in range(8)]


def values(*, later: Entry = (1, 2, 12, b"k", b"later", NO_HEADERS), change: Entry = CHANGE) -> list[bytes]:
    """Two logs and two anchors. The new key signs from the stated sizes on, and restates no head of the old one."""
    found, heads = [], []
    for origin, parts in (
        (OWN, [([REGISTRATION, change], OLD), ([later], NEW)]),
        (LIFECYCLE, [(PLAIN[:2], OLD), ([], OLD), (PLAIN[2:], NEW)]),
    ):
        head = Head.at_genesis(Genesis(origin, bytes(16), 0))
        for number, (part, signer) in enumerate(parts):
            batch, head = seal(head, records_of(part), part[-1][1] + 1 if part else head.next_offset, START, signer)
            found.append(encode(batch))
            if number == 0:
                heads.append(head.checkpoint())
        heads.append(head.checkpoint())
    frontier = Frontier()
    for time, (signer, covered) in enumerate(((OLD, heads[::2]), (NEW, heads[1::2]))):
        anchor, frontier = append_anchor(frontier, ANCHORS, time, covered, signer)
        found.append(encode_anchor(anchor))
    return found


def report(found: list[bytes], keys: LogKeys) -> VerifyReport:
    """Verify with both: they agree whether it is sound."""
    placed = [
        PlacedRecord("access.findings.sealed" if at < 2 else "access.lifecycle.sealed", 0, at, value)
        for at, value in enumerate(found[:-2])
    ]
    anchored = [PlacedRecord("access.anchors", 0, at, value) for at, value in enumerate(found[-2:])]
    ours = verify(KafkaEvidence(HERE, placed, anchored), keys)
    try:
        second_verifier.verify(found, second_verifier.Keys.read(write_key_list(keys).decode()), [], RELEASED)
        theirs = True
    except (second_verifier.UnsoundError, ValueError):
        theirs = False
    assert ours.sound == theirs, ours.problems
    return ours


def test_a_changed_key_is_sound() -> None:
    found = report(values(), RIGHT)
    assert found.sound and found.checkpoints == 5 and found.anchors == 2


def listed(**other: int) -> LogKeys:
    """The right list with other first sizes."""
    names = {"own": OWN, "lifecycle": LIFECYCLE, "anchors": ANCHORS}
    sizes = RIGHT.keys[1].first_sizes | {names[name]: size for name, size in other.items()}
    return LogKeys((RIGHT.keys[0], replace(RIGHT.keys[1], first_sizes=sizes)))


@pytest.mark.parametrize(
    "keys",
    [
        listed(lifecycle=2), listed(lifecycle=4), listed(lifecycle=8), listed(anchors=1), listed(anchors=3),
        listed(own=2), listed(own=4), LogKeys((RIGHT.keys[1], LogKey(OLD.public_key, {OWN: 3}))),
    ],
)  # fmt: skip
def test_a_list_with_other_sizes_is_not(keys: LogKeys) -> None:
    keys = LogKeys((LogKey(keys.keys[0].public_key), *keys.keys[1:]))
    assert not report(values(), keys).sound


def test_an_older_list_could_not_check() -> None:
    found = report(values(), LogKeys.single(OLD.public_key))
    assert found.verdict == "could_not_check"
    assert "names a key that the list of keys does not have" in "; ".join(found.not_checked())


@pytest.mark.parametrize("signer", [None, LocalSigner.generate()])
def test_a_key_that_the_operator_did_not_name_is_a_problem(signer: LocalSigner | None) -> None:
    found = report(values(change=entry(1, changed(), signer)), RIGHT)
    assert found.verdict == "tampered"
    assert [(problem.origin, problem.index, problem.check) for problem in found.problems] == [(OWN, 1, "log_key")]


def test_nobody_but_the_operator_makes_a_list_look_old() -> None:
    assert report(values(later=entry(2, changed(THIRD), None)), RIGHT).sound
    found = report(values(later=entry(2, changed(THIRD, {**SIZES, LIFECYCLE: 9}))), RIGHT)
    assert found.verdict == "could_not_check"
