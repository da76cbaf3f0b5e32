"""A running store may be behind the anchors outside: the verifier waits as long as the store makes progress."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing

from grantledger.ledger.anchor import Anchor, anchor_origin, append_anchor
from grantledger.ledger.merkle import Frontier
from grantledger.ledger.note import Checkpoint
from grantledger.verifier.anchors import survey
from grantledger.verifier.clickhouse_source import await_covered
from grantledger.verifier.scratch import Scratch
from support.small_ledger import SIGNER

LOGS = ("test.example/access.lifecycle/0/0", "test.example/access.activity/0/0")


def anchor(*sizes: int) -> Anchor:
    heads = [Checkpoint(log, size, bytes(32)) for log, size in zip(LOGS, sizes, strict=True)]
    made, _ = append_anchor(Frontier(), anchor_origin("test.example"), 1_000, heads, SIGNER)
    return made


def covered_sizes(anchors: list[Anchor]) -> dict[str, int]:
    with closing(Scratch()) as scratch:
        return survey(anchors, "test.example", scratch).covered_sizes()


class Store:
    """Both logs' stored sizes, one step further at each query."""

    def __init__(self, *steps: tuple[int, int]) -> None:
        self.steps: Iterator[tuple[int, int]] = iter(steps)
        self.now: tuple[int, int] | None = None
        self.asked = 0

    def sizes(self) -> Mapping[str, tuple[int, int]]:
        self.now = next(self.steps, self.now)
        self.asked += 1
        assert self.now is not None
        return {log: (size, size) for log, size in zip(LOGS, self.now, strict=True) if size}


def test_it_does_not_wait_for_a_complete_store() -> None:
    store = Store((40, 39))
    assert await_covered(store.sizes, covered_sizes([anchor(99, 99), anchor(30, 39)]), 3600.0) == 0
    assert store.asked == 1


def test_it_does_not_wait_without_anchors_outside() -> None:
    assert await_covered(Store((1, 1)).sizes, covered_sizes([]), 3600.0) == 0


def test_it_does_not_wait_for_anchors_of_an_earlier_epoch() -> None:
    before = Checkpoint(anchor_origin("test.example"), 1_000, bytes(32))
    made, _ = append_anchor(Frontier(), anchor_origin("test.example", 1), 1_000, [before], SIGNER)
    assert covered_sizes([made]) == {}


def test_it_waits_much_longer_than_its_patience_during_progress() -> None:
    steps = [*((size, 0) for size in range(30)), *((30, size) for size in range(1, 40))]
    store = Store(*steps)
    assert await_covered(store.sizes, covered_sizes([anchor(30, 39)]), 0.05, pause=0.01) == 0
    assert store.asked == len(steps)


def test_it_gives_up_without_progress_and_counts_missing_entries() -> None:
    store = Store((10, 0), (30, 5), (30, 30))
    assert await_covered(store.sizes, covered_sizes([anchor(30, 39)]), 0.05, pause=0.001) == 9
    assert store.asked > 3


def test_removed_entries_are_no_progress() -> None:
    store = Store((30, 30), *[(30, 20), (30, 30)] * 100_000)
    assert await_covered(store.sizes, covered_sizes([anchor(30, 39)]), 0.05, pause=0.001) in (9, 19)
