"""A day of 500 people over five tools, with ten faults, one of them the outage of a source: exactly ten pages.

docs/simulator.md lists them. A late batch and the records of last year page nobody.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from operator import attrgetter
from pathlib import Path

import pytest

from grantledger.processors.watch.findings import published_key
from grantledger.processors.watch_policy import WatchPolicy, load_policy
from grantledger.simulator.company_policy import POLICY
from grantledger.sinks.alerts.database import prepare
from support.pages import Paged, Pager
from support.simulation import Reader, differences, watch
from support.virtual_time import START, ArrivedRecord, Outage, Simulation

PEOPLE = 500
LIVES = 750
SECONDS = 86_400
PLANTED = {
    40: "lease_stays",
    110: "revoke_in_progress",
    190: "approval_looks_like_revocation",
    260: "removal_reported_late",
    330: "session_outlives_grant",
    400: "shell_outlives_grant",
    470: "used_after_the_end",
    540: "never_granted",
    610: "not_approved",
}
PAGES = Counter(
    {"overdue": 4, "session_outlived_grant": 2, "used_without_grant": 2, "no_approval": 1, "source_silent": 1}
)
SOURCES = """
[severity]
source_silent = "critical"

[[source]]
system = "teleport"
instance = "access.sample.example"
silent_after_seconds = 5400
"""


def at(hours: float) -> int:
    return int((START + timedelta(hours=hours)).timestamp() * 1000)


OUTAGE = Outage("teleport", at(13), at(15.5))


@pytest.fixture
def policy(tmp_path: Path) -> WatchPolicy:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY + SOURCES)
    return load_policy(path)


@pytest.fixture
def pager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pager]:
    monkeypatch.setenv("PAGER", "whsec_" + "A" * 32)
    path = tmp_path / "outbox.sqlite3"
    prepare(path)
    with closing(Pager(path)) as running:
        yield running


def day() -> Simulation:
    return Simulation(20, LIVES, share=0.0, rate=LIVES / SECONDS, planted=PLANTED, staff=PEOPLE, outage=OUTAGE)


def old(seed: int, days: int, arrives: int, *, faults: float) -> list[ArrivedRecord]:
    """Return the records of lives that began some days ago. All of them arrive at once."""
    simulation = Simulation(seed, 150, share=faults, rate=0.02, start=START - timedelta(days=days))
    return [record._replace(append_ms=arrives) for record in simulation]


def rules(pager: Pager) -> Counter[str]:
    return Counter(page["rule"] for page in pager.pages)


def test_ten_faults_are_ten_pages(policy: WatchPolicy, pager: Pager) -> None:
    today = day()
    late, last_year = old(21, 3, at(10), faults=0.1), old(22, 365, at(14), faults=0.3)
    records = heapq.merge(today, late, last_year, key=attrgetter("append_ms"))
    watched = watch(records, policy, 600.0, partial(Paged.by, policy, pager, at(24)))
    assert rules(pager) == PAGES, differences(today.expected, watched)
    assert {key for rule, key, _ in watched.findings if rule == "late_records"}
    planted = {(one.rule, published_key(one.rule, one.key)) for one in today.expected if one.rule in PAGES}
    outage = ("source_silent", "teleport/access.sample.example")
    assert {(page["rule"], page["key"]) for page in pager.pages} == planted | {outage}


def test_the_day_is_one_of_all_people_and_tools() -> None:
    reader, people, tools = Reader(), set(), set()
    for _, tool, raw in day():
        tools.add(tool)
        people |= {event.subject.id for event in reader.events(tool, raw) if event.event_type == "grant.activated"}
    assert tools == {"teleport", "vault", "hoop", "cloudtrail", "emit"}
    assert len(people) > 300
