"""When a source that was added and never heard is a finding: the pure rule, and that restarts change nothing."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from grantledger.processors.access import DAY, SECOND, Source
from grantledger.processors.sweep.gaps import Identity, SourceChange, source_event
from grantledger.processors.sweep.never_heard import ADDED, NEVER_HEARD, RULE, NeverHeard, NeverHeardSource, judge
from grantledger.processors.watch_policy import EffectivePolicy, SourceLimits, WatchPolicy
from grantledger.schemas.codec import EventEncoder

VAULT = NeverHeardSource(Source("vault", "eu-1"), 5 * DAY, registered=True)


def within(seconds: float) -> Any:
    return lambda _source: seconds


def test_a_finding_opens_when_the_time_is_over() -> None:
    limit = within(100)
    assert judge([VAULT], {}, limit, 5 * DAY + 99 * SECOND) == []
    evidence = {"added": 5 * DAY, "registered": True, "something_came": False}
    identity = ("vault/eu-1", 5 * DAY + 100 * SECOND)
    assert judge([VAULT], {}, limit, 5 * DAY + 100 * SECOND) == [SourceChange("opened", identity, evidence)]
    assert judge([VAULT], {identity: False}, limit, 9 * DAY) == [], "a person closed it"
    assert judge([VAULT], {}, within(0), 9 * DAY) == [], "there is no limit"


def test_erased_events_may_have_been_those_of_the_source() -> None:
    identity = ("vault/eu-1", 5 * DAY + 100 * SECOND)
    assert judge([VAULT], {}, within(100), 9 * DAY, erased_until=5 * DAY + 1) == []
    assert judge([VAULT], {identity: True}, within(100), 9 * DAY, erased_until=5 * DAY + 1) == [], "it stays open"


def test_a_finding_about_any_name_fits_into_a_record() -> None:
    source = NeverHeardSource(Source("s" * 3000, "\0" * 3000), 0)
    [change] = judge([source], {}, within(1), DAY)
    assert len(EventEncoder().encode(source_event("test", RULE, change, DAY, "warning"))) < 10_000


class Store:
    """What the views of a store answer: the sources that were added, and which of them were heard."""

    def __init__(self) -> None:
        self.added: dict[str, int] = {}
        self.heard: set[str] = set()
        self.findings: dict[Identity, bool] = {}
        self.asked = 0

    def __call__(self, sql: str, **_values: object) -> list[dict[str, Any]]:
        rows = [{"source_system": name, "source_instance": "x", "added": at} for name, at in self.added.items()]
        if sql == ADDED:
            return rows
        if sql == NEVER_HEARD:
            self.asked += 1
            told = {"registered": True, "something_came": False}
            return [row | told for row in rows if row["source_system"] not in self.heard]
        return [{"key": key, "since": since, "open": is_open} for (key, since), is_open in self.findings.items()]


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "hear", "remove", "wait", "restart"]), st.sampled_from("abc")), max_size=40
)


@given(STEPS)
def test_open_findings_are_those_of_the_late_sources_whatever_restarts(steps: list[tuple[str, str]]) -> None:
    policy = EffectivePolicy(WatchPolicy(source=(SourceLimits(heard_within_seconds=3),)))
    store, now, rule = Store(), 0, NeverHeard(policy)
    for step, name in steps:
        now += SECOND
        if step == "add" and name not in store.added:
            store.added[name] = now
        elif step == "hear":
            store.heard.add(name)
        elif step == "remove":
            store.added.pop(name, None)
        elif step == "restart":
            rule = NeverHeard(policy)
        for change in rule.judge(store, now):
            assert store.findings.get(change.identity) is (None if change.kind == "opened" else True), "once each"
            store.findings[change.identity] = change.kind == "opened"
        late = {
            (f"{one}/x", at + 3 * SECOND)
            for one, at in store.added.items()
            if one not in store.heard and at + 3 * SECOND <= now
        }
        assert {identity for identity, is_open in store.findings.items() if is_open} == late


def test_sources_that_were_heard_cost_no_query_of_all_entries() -> None:
    store, rule = Store(), NeverHeard(EffectivePolicy())
    store.added, store.heard = {"a": 0, "b": 0}, {"a"}
    for _ in range(3):
        assert rule.judge(store, SECOND) == []
    store.heard.add("b")
    for _ in range(3):
        assert rule.judge(store, SECOND) == []
    assert store.asked == 4, "until both were heard"
