"""The sweep against the watch: two ways to the same overdue set, and what is said where they part."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from grantledger.processors.access import NEVER, SECOND
from grantledger.processors.sweep import compare as sweep
from grantledger.processors.watch.core.judge import Judge
from grantledger.processors.watch_policy import AccessRule, WatchPolicy
from grantledger.schemas import event as events
from grantledger.schemas.access_key import id_of
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.event import IssuingSource
from support.access_store import Story, fill, stored
from support.decoded import facts_of
from support.lives import KEYS, POLICIES, SIGNERS, lives, policy_record
from support.pipeline import Pipeline
from support.shared_broker import RunningBroker
from support.waiting import wait_for


def disordered() -> Story:
    """One grant for each way in which a removal can stand before what it ended. All ended two hours ago, or one."""
    story = Story()
    give, remove = story.give, story.remove
    remove("first-removed", -150, seen=-151)
    give("first-removed", -149, -60, seen=-170)
    give("back", -170, -120)
    remove("back", -150, seen=-150)
    give("back", -149, -60, seen=-150)  # in the same second: nobody knows, so it counts
    give("extended-late", -170, -120)
    remove("extended-late", -150, seen=-151)
    give("extended-late", -149, -60, seen=-152, again=True)
    remove("given-since", -150, seen=-151)
    give("given-since", -140, -100, seen=-141)
    give("given-since", -139, 60, seen=-160)
    remove("of-another-source", -150, seen=-151, system="checker")
    give("of-another-source", -149, -60, seen=-170)
    remove("by-a-fast-clock", -150, seen=-100)
    give("by-a-fast-clock", -149, -60, seen=-149)
    remove("only-accepted", -150, "api_accepted", seen=-151)
    give("only-accepted", -149, -60, seen=-170)
    return story


def watched(story: Story, policy: WatchPolicy) -> Judge:
    judge = Judge(policy)
    for fact in facts_of(story.batch(), SchemaCatalog((event_schema(),)), policy.naming, KEYS):
        judge.add(fact)
    return judge


def open_overdue(judge: Judge, now: int) -> set[str]:
    """Return what the watch reports as overdue and not resolved at a time."""
    is_open: dict[tuple[str, int], bool] = {}
    for change in judge.judge(now):
        if change.finding.rule == "overdue":
            is_open[change.finding.key, change.finding.deadline] = change.kind == "opened"
    return {key for (key, _), found in is_open.items() if found}


def test_removals_that_are_stored_before_their_activations_and_names_that_are_not_text(tmp_path: Path) -> None:
    story, policy = disordered(), POLICIES["plain"]
    bad = b"\xc0\x80\xff\xe2\x82x"[:5]
    story.give("GRANT", -90, -60)
    story.records = [replace(one, value=one.value.replace(b"GRANT", bad)) for one in story.records]
    now = int(story.now.timestamp()) * SECOND
    with stored(tmp_path, story.records) as ask:
        found = ask(sweep.OPEN_GRANTS, now=now, ending=[], endless=0)
        wanted = "grant_id, removal_evidence AS evidence, removed_at IS NOT NULL AS gone, late_seconds AS late"
        rows = {row["grant_id"]: row for row in ask(f"SELECT {wanted} FROM grant_states")}
    view = sweep.view_of_store(found, policy, now)
    minutes = {id_of(name): round((due - now) / SECOND / 60) for name, due in view.overdue.items()}
    expected = {
        "back": -60,
        "given-since": -100,
        "of-another-source": -60,
        "by-a-fast-clock": -60,
        "only-accepted": -60,
        bad.decode("utf-8", "replace"): -60,
    }
    assert (minutes, view.undecided) == (expected, set())
    assert open_overdue(watched(story, policy), now) == set(view.overdue)
    assert [row["late"] for row in rows.values() if row["gone"]] == [0, 0]
    assert {name for name, row in rows.items() if row["gone"]} == {"first-removed", "extended-late"}
    assert (rows["only-accepted"]["evidence"], rows["back"]["evidence"]) == ("api_accepted", "none")


def replayed() -> Story:
    """One grant for each replay of a report that its registered source signed; each had an end an hour ago."""
    story = Story(signers=SIGNERS)
    ends = dict.fromkeys(("removal", "same-second", "fast-clock", "unsigned"), -60) | {"extension": 60}
    for name, end in ends.items():
        system = "bot" if name == "unsigned" else "vault"
        story.give(name, -170, -120, system=system)
        story.remove(name, -150.5, system=system)
        story.give(name, -140, -60, system=system, seen=-100 if name == "fast-clock" else -140)
        if name == "extension":
            story.give(name, -130, end, seen=-160, again=True, system=system)
        else:
            seen = {"same-second": -140, "fast-clock": -130}.get(name, -145)
            story.remove(name, -130, seen=seen, system=system)
    story.remove("extension", -61, "api_accepted", system="vault")
    return story


def test_an_old_record_of_a_registered_source_changes_nothing(tmp_path: Path) -> None:
    story, policy = replayed(), POLICIES["plain"]
    now = int(story.now.timestamp()) * SECOND
    with stored(tmp_path, story.records, sources=KEYS) as ask:
        view = sweep.view_of_store(ask(sweep.OPEN_GRANTS, now=now, ending=[], endless=0), policy, now)
    assert {id_of(name) for name in view.overdue} == {"removal", "extension"}
    assert {round((due - now) / SECOND / 60) for due in view.overdue.values()} == {-60}
    assert set(view.overdue) == open_overdue(watched(story, policy), now)


def belated() -> tuple[Story, dict[str, float]]:
    """Reports that arrive late or repeat what is known; and which of the grants are overdue, since when."""
    story = Story(signers=SIGNERS)
    vault = {"system": "vault"}
    story.give("older-removal", -20, -8, seen=-59, **vault)
    story.give("older-removal", -1, -3, seen=-14, again=True, **vault)  # given since: the removal is no proof
    story.remove("older-removal", -1, seen=-36, **vault)
    for name, end in {"request-extended": 60, "request-outlived": -5}.items():
        story.give(name, -108, -176, seen=-178, request_id=name, **vault)
        of_request = {"grant_id": None, "request_source": IssuingSource("vault", "eu-1")}
        story.give("", -13, end, again=True, request_id=name, **of_request, **vault)
    story.observe("observed-in-time", -145)
    story.give("observed-in-time", -10, -120, seen=-132)
    story.give("denied-in-time", -145, -120, outcome="denied")
    story.give("denied-in-time", -10, -120, seen=-132)
    story.give("another-credential", -27, -7, **vault)
    story.give("another-credential", -9, -3, **vault)
    story.give("another-credential", -1, -15, ends_by_itself=True, **vault)
    story.give("same-end", -27, -3)
    story.give("same-end", -1, -3)
    story.give("replayed-extension", -70, -190, seen=-195, **vault)
    story.give("replayed-extension", -1, 60, seen=-197, again=True, **vault)
    story.give("old", -70, -190, seen=-195)
    overdue = {"older-removal": -8, "request-outlived": -5, "observed-in-time": -120, "denied-in-time": -120}
    return story, overdue | {"another-credential": -3, "same-end": -3}


def test_what_arrives_late_hides_no_access_and_pages_nobody(tmp_path: Path) -> None:
    (story, overdue), policy = belated(), POLICIES["plain"]
    now = int(story.now.timestamp()) * SECOND
    with stored(tmp_path, [*story.records, policy_record(story, policy)], sources=KEYS) as ask:
        view = sweep.view_of_store(ask(sweep.OPEN_GRANTS, now=now, ending=[], endless=0), policy, now)
        old = {row["grant_key"] for row in ask("SELECT grant_key FROM grant_states WHERE historical")}
    judge = watched(story, policy)
    assert {id_of(name): round((due - now) / SECOND / 60) for name, due in view.overdue.items()} == overdue
    assert open_overdue(judge, now) == set(view.overdue)
    assert {id_of(name) for name in old} == {"replayed-extension", "old"}
    assert old == {key for key, one in judge.state.grants.items() if one.is_historical(judge.state.limits_of(one))}


def test_the_longest_access_counts_from_the_first_activation_until_a_removal_is_known(tmp_path: Path) -> None:
    story, policy = Story(signers=SIGNERS), POLICIES["endless"]
    vault, of_request = {"system": "vault"}, {"request_source": IssuingSource("vault", "eu-1"), "request_id": "q"}
    story.give("lasted", -154, None, **vault)
    story.give("ended", -154, -147, ends_by_itself=True, **vault)
    story.remove("", -86, grant_id=None, **of_request, **vault)
    for name in ("lasted", "ended"):
        story.give(name, -7, None, **vault)
        story.remove(name, -1, "none", **of_request, **vault)  # names the request for the first time
    now = int(story.now.timestamp()) * SECOND
    with stored(tmp_path, [*story.records, policy_record(story, policy)], sources=KEYS) as ask:
        view = sweep.view_of_store(ask(sweep.OPEN_GRANTS, now=now, ending=[], endless=1), policy, now)
    assert {id_of(name): round((due - now) / SECOND / 60) for name, due in view.overdue.items()} == {"lasted": -124}
    assert open_overdue(watched(story, policy), now) == set(view.overdue)


SIZES = {"7, 900": (7, 900)} | {f"{seed}, 2000": (seed, 2000) for seed in (6, 8, 9, 10, 15)}
"""Seed, and number of lives: all but the first only with GRANTLEDGER_TEST_SLOW=1."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(size, id=name, marks=[pytest.mark.slow] * (size[1] > 900)) for name, size in SIZES.items()],
)
def lived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Story, Path]:
    """Return lives, and the folder of a store that has them and no policy."""
    seed, count = request.param
    story = lives(random.Random(seed), count)
    return story, fill(tmp_path_factory.mktemp("lives"), story.records, cuts=(97, 5, 300), sources=KEYS, states=False)


def ends_of(judge: Judge, now: int) -> dict[str, tuple[int | None, int]]:
    """Return the deadline of each grant that has not ended by a time, and when its report was appended."""
    found = {}
    for key, one in judge.state.grants.items():
        limits = judge.state.limits_of(one)
        if one.activations and one.removed(limits) > now:
            last = one.periods(limits)[-1]
            found[key] = None if last.deadline == NEVER else last.deadline, last.activation.append
    return found


@pytest.mark.parametrize("name", POLICIES)
def test_sql_and_the_rules_find_the_same(name: str, lived: tuple[Story, Path], tmp_path: Path) -> None:
    (story, filled), policy = lived, POLICIES[name]
    now = int(story.now.timestamp()) * SECOND
    ending = sweep.systems_that_expire(policy)
    assert ending == (["teleport"] if name == "lenient" else [])
    endless = int(policy.default.max_seconds is not None)
    with stored(tmp_path, [policy_record(story, policy)], sources=KEYS, onto=filled) as ask:
        rows = ask(sweep.OPEN_GRANTS, now=now, ending=ending, endless=endless)
        found = ask(
            "SELECT grant_key, historical, removed_at IS NULL AS unresolved, ended, "
            "toUnixTimestamp64Micro(ifNull(deadline, policy_deadline)) AS due, "
            "toUnixTimestamp64Micro(deadline_recorded_at) AS told, "
            "ifNull(removed_at = deadline AND removal_evidence = 'deadline', false) AS expired FROM grant_states"
        )
        listed = "SELECT grant_key, state, running FROM grants WHERE historical AND state != 'removed'"
        left = ask(listed) if name == "plain" else None
    view = sweep.view_of_store(rows, policy, now)
    judge = watched(story, policy)
    old = {key for key, one in judge.state.grants.items() if one.is_historical(judge.state.limits_of(one))}
    watch = open_overdue(judge, now)
    assert set(view.overdue) == watch - view.undecided
    assert {row["grant_key"] for row in found if row["historical"]} == old
    assert {row["grant_key"] for row in found} == {key for key, one in judge.state.grants.items() if one.activations}
    ends = ends_of(judge, now)
    last = {row["grant_key"]: (row["due"], row["told"]) for row in found if not row["ended"]}
    assert {key: ends.get(key) for key in last} == last
    soon = {key for key, (due, _) in ends.items() if due is not None and now <= due < now + 600 * SECOND}
    assert ends.keys() - last.keys() <= soon, "ended by the clock of the store, which reads it later"
    unresolved = {row["grant_key"] for row in found if row["historical"] and row["unresolved"]}
    assert len(unresolved) > 2
    limits_of = judge.state.limits_of
    assert sum(bool(one.observed_since(limits_of(one))) for one in judge.state.grants.values()) > 5, "looked up"
    if left is not None:
        assert {row["grant_key"] for row in left if row["state"] == "unresolved"} == unresolved
        assert len(left) == len(unresolved)
    assert sum(bool(row["expired"]) for row in found) >= 10, "credentials that ended automatically"
    assert len(view.overdue) > 30 and len(view.undecided) < len(view.overdue) / 4


def test_only_lasting_differences_are_reported() -> None:
    differences = sweep.Differences()
    assert differences.compare(sweep.StoreView({"a": 1}, set()), {"b": 2}) == ([], [])
    opened = [("a", 1, "store"), ("b", 2, "watch")]
    assert differences.compare(sweep.StoreView({"a": 1}, set()), {"b": 2}) == (opened, [])
    assert differences.compare(sweep.StoreView({"a": 1}, {"b"}), {"b": 2}) == ([], [("b", 2)])
    assert differences.compare(sweep.StoreView({}, set()), {}) == ([], [("a", 1)])
    assert differences.open == {}
    assert sweep.Differences({"a": 1}).compare(sweep.StoreView({"a": 1}, set()), {"a": 1}) == ([], [("a", 1)])


def test_a_rule_that_may_take_it_back_counts() -> None:
    ends = frozenset({"deadline"})
    assert sweep.systems_that_expire(
        WatchPolicy(rule=(AccessRule(source="a", removal=ends), AccessRule(grace_seconds=1)))
    ) == ["a"]
    assert sweep.systems_that_expire(WatchPolicy(rule=(AccessRule(source="a*", removal=ends),))) == []
    stricter = AccessRule(resource="x", removal=frozenset({"confirmed"}))
    assert sweep.systems_that_expire(WatchPolicy(rule=(AccessRule(source="a", removal=ends), stricter))) == []


def test_a_finding_that_a_person_closed_is_no_difference(tmp_path: Path) -> None:
    story = Story()
    story.give("g-1", -120, -60)
    opened = story.find("overdue", "g-1", -50, deadline=-60)
    by_carol = {"finding": opened.finding, "grant_source": opened.grant_source, "actor": events.Actor("carol", "human")}
    story.add(story.event("finding.closed", -40, "closed", reason="still needed", **by_carol), -40)
    now = int(story.now.timestamp()) * SECOND
    with stored(tmp_path, story.records) as ask:
        view = sweep.view_of_store(ask(sweep.OPEN_GRANTS, now=now, ending=[], endless=0), POLICIES["plain"], now)
        [row] = ask(sweep.OPEN_FINDINGS)
        assert ask("SELECT state, finding FROM grants") == [{"state": "past its end", "finding": "closed"}]
    name = sweep.grant_key_of(row, row["key"])
    assert not row["open"] and set(view.overdue) == {name}
    view.leave_out(name, row["deadline_us"] + 1)
    assert view.overdue, "the finding was about another end"
    view.leave_out(name, row["deadline_us"])
    assert not view.overdue


def test_the_sweep_reports_a_watch_that_does_not_run(
    broker: RunningBroker, make_pipeline: Callable[..., Pipeline], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(
        '[default]\ngrace_seconds = 1\n[[source]]\nsystem = "counting"\ngap_wait_seconds = 1\n'
        '[[source]]\nsystem = "expected"\nheard_within_seconds = 1\n'
    )
    settings = {"GRANTLEDGER_WATCH_POLICY": str(policy), "GRANTLEDGER_SWEEP_INTERVAL_SECONDS": "3"}
    pipeline = make_pipeline(broker.bootstrap_servers, settings)
    pipeline.start("seal", "store")
    sent = pipeline.run(
        "emit", "grant.activated", "--subject", "eve", "--resource-kind", "database", "--resource", "orders",
        "--entitlement", "rw", "--grant-id", "g-1", "--expires-in", "1s",
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    story = Story()
    with pipeline.client(system="other") as client:
        for number, event_type in ((1, "session.started"), (2, "session.command"), (4, "session.command")):
            about = {
                "source": events.EventSource("counting", "eu-1", str(number), "record", seq=number),
                "session_id": "s",
            }
            client.send(story.event(event_type, 0, "", **about, action=events.Action(command="ls")))
    pipeline.wait_stored(4)
    pipeline.start("sweep")

    def differences() -> list[tuple[bool, str, str, str]]:
        names = "key, grant_id, subject_id, resource_id"
        rows = pipeline.query(f"SELECT open, {names} FROM findings WHERE rule = 'sweep_difference'")
        assert all(id_of(row["key"]) == row["grant_id"] for row in rows)
        return [(row["open"], row["grant_id"], row["subject_id"], row["resource_id"]) for row in rows]

    def shows(is_open: bool) -> bool:  # the states follow the entries after some seconds
        return differences() == [(is_open, "g-1", "eve", "orders")]

    def stored(rule: str, event_type: str) -> bool:  # far cheaper than the view
        sql = f"SELECT 1 FROM entries WHERE event_type = '{event_type}' AND finding_rule = '{rule}' LIMIT 1"
        return bool(pipeline.query(sql))

    wait_for(lambda: stored("sweep_difference", "finding.opened"), "the sweep reports what the watch did not")
    wait_for(lambda: shows(True), "the view has the difference")
    wait_for(lambda: stored("sequence_gap", "finding.opened"), "the sweep reports which number is missing")
    gaps = "SELECT key, severity, open, evidence FROM findings WHERE rule = 'sequence_gap'"
    wait_for(lambda: bool(pipeline.query(gaps)), "the view has the gap")
    [gap] = pipeline.query(gaps)
    evidence = json.loads(gap["evidence"])
    assert (gap["key"], gap["severity"], gap["open"]) == ("counting/eu-1", "critical", True)
    assert (evidence["count"], evidence["first_missing"], evidence["last_missing"]) == (1, 3, 3)
    assert pipeline.metric("sweep", "grantledger_watch_sweep_differences") == 1
    pipeline.start("watch")
    wait_for(lambda: stored("sweep_difference", "finding.resolved"), "the watch has reported it, and they agree")
    wait_for(lambda: shows(False), "the view has the resolution")
    assert pipeline.metric("sweep", "grantledger_watch_sweep_differences") == 0
    # The watch has put the policy on record: now that source is added.
    wait_for(lambda: stored("source_never_heard", "finding.opened"), "the sweep reports a source that was never heard")
    listed = pipeline.run("sources", "list", "-o", "json", "--source", "expected")
    [row] = json.loads(listed.stdout)
    assert (row["name"], row["state"], row["events"]) == ("expected/*", "never heard", 0)
    with pipeline.client(system="expected", instance="eu-1") as client:
        client.send(
            replace(
                story.event("session.command", 0, "s-1", session_id="s-1", action=events.Action(command="ls")),
                source=events.EventSource("", "", "s-1", "record"),
            )
        )
    wait_for(lambda: stored("source_never_heard", "finding.resolved"), "its first event resolves that")
    [row] = json.loads(pipeline.run("sources", "list", "-o", "json", "--source", "expected").stdout)
    assert (row["name"], row["state"], row["expected"], row["events"]) == ("expected/eu-1", "heard", True, 1)
    assert "Traceback" not in pipeline.log("sweep")
