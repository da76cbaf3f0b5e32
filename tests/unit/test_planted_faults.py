"""Thousands of simulated lives with planted faults: the watch finds every one of them, and nothing else."""

from __future__ import annotations

import itertools
import random
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from grantledger.processors.access import NEVER, Source
from grantledger.processors.sweep.counters import Counters, Run, Sender
from grantledger.processors.watch.core import judge, rules
from grantledger.processors.watch.core.activations import Activation
from grantledger.processors.watch.core.facts import Fact
from grantledger.processors.watch.core.identities import EventIdentities, Reading
from grantledger.processors.watch.core.judge import Judge
from grantledger.processors.watch.core.periods import Period
from grantledger.processors.watch.core.sources import SourceHistory
from grantledger.processors.watch.core.state import AccessState
from grantledger.processors.watch_policy import WATCH_RULES, AccessLimits, EffectivePolicy, WatchPolicy
from grantledger.simulator import company_policy as constants
from grantledger.simulator.faults import FAULTS
from grantledger.simulator.generator import lifecycles
from grantledger.simulator.scenario import scenarios
from support.decoded import facts_of
from support.simulation import Reader, Watched, differences, policy_in, watch
from support.virtual_time import Simulation, person_number

Break = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> WatchPolicy:
    return policy_in(tmp_path_factory.mktemp("policy"))


def played(
    policy: WatchPolicy, count: int, share: float, faults: dict[str, object] | None = None, seed: int = 11
) -> None:
    """Simulate, watch, compare; fails with everything that differs."""
    simulation = Simulation(seed, count, share=share, faults=faults or FAULTS)  # type: ignore[arg-type]
    watched = watch(simulation, policy)
    assert not differences(simulation.expected, watched)
    assert len(watched.findings) == len(simulation.expected)
    assert share == 0 or simulation.planted


def test_every_planted_fault_is_found_and_nothing_else(policy: WatchPolicy) -> None:
    simulation = Simulation(1, 400, share=0.4, faults=FAULTS)
    watched = watch(simulation, policy)
    assert not differences(simulation.expected, watched)
    assert len(simulation.expected) > 50
    elsewhere = {
        "watch_fault",
        "unsigned_source",
        "late_records",
    }  # faults of records, not of lives: they have tests of their own
    assert {one.rule for one in simulation.expected} - {"sequence_gap"} == WATCH_RULES - elsewhere, (
        "every rule is needed"
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_lives(policy: WatchPolicy) -> None:
    simulation = Simulation(2, 100_000, share=0.03, faults=FAULTS)
    watched = watch(simulation, policy)
    assert not differences(simulation.expected, watched)
    assert simulation.lifecycles >= 100_000 and len(simulation.expected) > 2000
    assert set(simulation.planted) == set(FAULTS)


def test_lives_in_order_are_no_finding(policy: WatchPolicy) -> None:
    played(policy, 150, 0.0)


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_each_fault_alone(policy: WatchPolicy, name: str) -> None:
    simulation = Simulation(3, 4, share=1.0, faults={name: FAULTS[name]})
    watched = watch(simulation, policy)
    assert not differences(simulation.expected, watched)
    assert simulation.planted == {name: 4}
    assert (simulation.expected == []) == FAULTS[name].__module__.endswith(".harmless")


def test_the_rhythm_of_batches_and_looks_changes_nothing(policy: WatchPolicy) -> None:
    found: list[Watched] = []
    for seconds in (0.5, 20.0):
        simulation = Simulation(4, 40, share=0.5, faults=FAULTS)
        found.append(watch(simulation, policy, seconds))
        assert not differences(simulation.expected, found[-1])
    assert found[0].findings == found[1].findings


def test_the_numbers_of_programs_show_lost_and_late_records_and_no_others() -> None:
    faults = {name: FAULTS[name] for name in ("record_lost", "record_late", "session_outlives_grant")}
    simulation = Simulation(6, 120, share=0.4, faults=faults)
    reader, counters = Reader(), Counters(lambda _: constants.GAP_WAIT)
    late: set[str] = set()
    for append, tool, raw in simulation:
        for event in reader.events(tool, raw):
            if event.source.seq is not None:
                source = Source(event.source.system, event.source.instance)
                run = Run(event.source.seq, event.source.seq, append * 1000)
                counters.add(Sender(*source, ""), source, event.topic, run, signed=False)
        late |= {str(one.counter.source) for one in counters.missing() if one.opens < append * 1000}
    left = {(str(one.counter.source), one.opens) for one in counters.missing()}
    expected = [one for one in simulation.expected if one.rule == "sequence_gap"]
    assert left == {(one.key, one.opens) for one in expected if one.ends is None}
    assert late == {one.key for one in expected} and len(late) > len(left) > 0


# What a wrong watch would do. Each must be noticed, and by the stories that are about it.


def no_grace(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Period, "overdue_after", lambda period, limits: max(period.deadline, period.activation.append))


def each_grant_for_itself(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AccessState, "covered_until", lambda self, grant, time: time)


def fast_clocks_are_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Fact, "clock_lead", property(lambda self: 0))


def accepted_is_removed(patch: pytest.MonkeyPatch) -> None:
    def lenient(period: Period, limits: AccessLimits) -> int:
        return next((one.append for one in period.removals), NEVER)

    patch.setattr(Period, "removed", lenient)


def lateness_is_when_we_heard(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Period, "left", lambda self, limits: NEVER)


def anybody_may_approve(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "_own_approvals", lambda *_: [])


def sessions_are_not_watched(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(judge, "session_candidates", lambda *_: iter(()))


def sessions_end_at_the_deadline(patch: pytest.MonkeyPatch) -> None:
    real = judge.session_candidates

    def strict(session, limits, grants):
        return real(session, limits, [(one, own.model_copy(update={"grace_seconds": 0.0})) for one, own in grants])

    patch.setattr(judge, "session_candidates", strict)


def the_plan_is_a_revocation(patch: pytest.MonkeyPatch) -> None:
    """hoop's ``revoke_at``, taken for what it looks like."""
    real = facts_of

    def mistaken(batch, catalog):
        for fact in real(batch, catalog):
            hoop = fact.source.system == "hoop" and fact.event_type == "grant.activated"
            yield replace(fact, event_type="grant.revoked", removal="confirmed") if hoop else fact

    patch.setattr("support.simulation.facts_of", mistaken)


def silence_is_golden(patch: pytest.MonkeyPatch) -> None:
    real = SourceHistory.of
    patch.setattr(SourceHistory, "of", lambda source, silence: real(source, None))


def conflicts_are_not_compared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(EventIdentities, "add", lambda self, fact: Reading("first"))


def anybody_may_remove(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(EffectivePolicy, "reports", lambda *_: {"remove", "extend"})


def tenants_share_ids(patch: pytest.MonkeyPatch) -> None:
    real = Fact.__post_init__

    def keyed(fact: Fact) -> None:
        real(fact)
        fact.grant_key = fact.grant_id and f"default/a/b/{fact.grant_id}"

    patch.setattr(Fact, "__post_init__", keyed)


def renewals_are_not_heard(patch: pytest.MonkeyPatch) -> None:
    real = Judge.add

    def deaf(self, fact):
        real(self, replace(fact, event_type="grant.other") if fact.event_type == "grant.extended" else fact)

    patch.setattr(Judge, "add", deaf)


BREAKS: dict[Break, set[str]] = {
    no_grace: {"lease_stays", "approval_looks_like_revocation", "removal_reported_late"},
    each_grant_for_itself: {"first_of_two_stays", "both_stay"},
    fast_clocks_are_believed: {"clock_fast", "clock_hides_the_end", "clock_hides_a_session"},
    accepted_is_removed: {"lease_only_accepted", "revoke_in_progress"},
    lateness_is_when_we_heard: {"removal_reported_late", "lease_stays", "clock_hides_the_end"},
    anybody_may_approve: {"self_approved", "self_approved_in_hoop"},
    sessions_are_not_watched: {
        "session_outlives_grant",
        "shell_outlives_grant",
        "used_after_the_end",
        "never_granted",
        "used_briefly",
    },
    sessions_end_at_the_deadline: {"session_outlives_grant", "shell_outlives_grant"},
    the_plan_is_a_revocation: {"approval_looks_like_revocation", "first_of_two_stays", "removal_reported_late"},
    silence_is_golden: {"falls_silent"},
    conflicts_are_not_compared: {"record_altered"},
    anybody_may_remove: {"foreign_extension"},
    tenants_share_ids: {"other_tenant_ends", "foreign_removal"},
    renewals_are_not_heard: {"renewed_too_long"},
}


@pytest.mark.parametrize("wrong", BREAKS, ids=lambda wrong: wrong.__name__)
def test_a_wrong_watch_is_noticed(policy: WatchPolicy, monkeypatch: pytest.MonkeyPatch, wrong: Break) -> None:
    wrong(monkeypatch)
    for name in sorted(BREAKS[wrong]):
        simulation = Simulation(5, 4, share=1.0, faults={name: FAULTS[name]})
        noticed = differences(simulation.expected, watch(simulation, policy))
        assert any(line.startswith(f"{name}:") for line in noticed), name


def test_a_false_alarm_is_noticed(policy: WatchPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Access covered by another grant is not overdue; a watch that ignores the cover finds it."""
    each_grant_for_itself(monkeypatch)
    simulation = Simulation(5, 8, share=1.0, faults={"covered_by_second_review": FAULTS["covered_by_second_review"]})
    noticed = differences(simulation.expected, watch(simulation, policy))
    assert any(line.startswith("not planted: ('overdue'") for line in noticed)
    assert any(line.startswith("revoke command without need") for line in noticed)


def test_a_watch_that_believes_the_order_of_the_log_is_noticed(
    policy: WatchPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Activation, "precedes", lambda *_: False)
    name = "removal_arrives_first"
    simulation = Simulation(5, 8, share=1.0, faults={name: FAULTS[name]})
    noticed = differences(simulation.expected, watch(simulation, policy))
    assert sum(line.startswith("not planted: ('overdue'") for line in noticed) == 8


# The simulation itself.


def test_the_same_seed_gives_the_same_bytes_and_the_same_expectation() -> None:
    one, same, other = (Simulation(seed, 60, share=0.5) for seed in (6, 6, 7))
    told = list(one)
    assert told == list(same)
    assert one.expected == same.expected != []
    assert told != list(other)


def test_records_come_in_order_of_arrival_and_overtake_one_another() -> None:
    simulation = Simulation(8, 200, share=0.0)
    times, occurred = [], []
    reader = Reader()
    for append, tool, raw in simulation:
        times.append(append)
        occurred += [event.occurred_at.timestamp() for event in reader.events(tool, raw)]
        assert not occurred or occurred[-1] <= append / 1000
    assert times == sorted(times)
    overtaken = sum(later < earlier for earlier, later in itertools.pairwise(occurred))
    assert overtaken > len(occurred) / 20


def test_all_tools_play_and_people_come_back() -> None:
    simulation = Simulation(9, 400, share=0.0, rate=0.2)
    tools = {delivery.tool for delivery in simulation}
    assert tools == {"teleport", "vault", "hoop", "cloudtrail", "emit"}
    assert simulation.people < 390, "some people return for a second lifecycle"


def test_no_fault_leaves_a_seed_its_lives() -> None:
    plain = itertools.islice(lifecycles(random.Random(10)), 30)
    told = itertools.islice(scenarios(random.Random(10)), 30)
    assert [story.parts[0].lifecycle for story in told] == list(plain)


def test_faults_come_in_their_share_and_of_the_tools_asked_for() -> None:
    told = list(itertools.islice(scenarios(random.Random(11), ("vault",), 0.2), 2000))
    planted = [story.fault for story in told if story.fault is not None]
    assert 300 < len(planted) < 500
    assert {fault.TOOL for fault in planted} == {"vault", "emit"}
    assert {part.lifecycle.tool for story in told for part in story.parts} == {"vault", "emit"}


def test_a_crowd_has_no_two_of_one_name() -> None:
    crowd = [person_number(number) for number in range(20_000)]
    assert len({person.email for person in crowd}) == len(crowd)
    for life in itertools.islice(lifecycles(random.Random(12)), 50):
        assert life.of(crowd[0]).person == crowd[0]


def test_the_constants_are_those_of_the_policy() -> None:
    told = tomllib.loads(constants.POLICY)
    of = {(rule.get("source"), rule.get("resource_kind") or rule.get("entitlement")): rule for rule in told["rule"]}
    seconds = {
        constants.GRACE: told["default"]["grace_seconds"],
        constants.APPROVAL_WAIT: told["default"]["approval_wait_seconds"],
        constants.CONFIRM_WAIT: told["default"]["confirm_wait_seconds"],
        constants.LEASE: of["vault", "vault_path"]["max_seconds"],
        constants.ASSIGNMENT: of["cloudtrail", "arn:aws:sso:*"]["max_seconds"],
        constants.SILENCE: told["source"][1]["silent_after_seconds"],
        constants.GAP_WAIT: told["source"][0]["gap_wait_seconds"],
    }
    assert [micros / constants.SECOND for micros in seconds] == list(seconds.values())


def test_the_documentation_names_every_story() -> None:
    text = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text("utf-8")
    assert [name for name in FAULTS if f"`{name}`" not in text] == []
    assert constants.POLICY in text
