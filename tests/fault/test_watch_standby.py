"""A watch dies between a finding and its resolution while another stands by: the resolution is published once."""

from __future__ import annotations

import os
import signal
import time

import pytest

from grantledger.kafka.membership import GroupState, group_state
from support.on_time import FOUND, activated, commands, judged_until, recorded, revoked, send, watching
from support.pipeline import Pipeline
from support.waiting import wait_for

ENDED = [*FOUND, "finding.resolved"]
NAMES = ("watch", "standby")
LOST = 1
"""The documented exit code of a fenced process: restart it."""


def start(pipeline: Pipeline, name: str) -> None:
    if name == "watch":
        pipeline.start("watch")
    else:
        pipeline.twin("standby", "watch", GRANTLEDGER_WATCH_INSTANCE="1")


def run_both(pipeline: Pipeline) -> None:
    """Start what does not run. A watch that was fenced takes some seconds to end."""
    for name in NAMES:
        if name not in pipeline.children or not pipeline.children[name].alive():
            start(pipeline, name)


def all_recorded(pipeline: Pipeline, grants: list[str], expected: list[str]) -> bool:
    """Return whether exactly these events are on record about each of the grants."""
    events = recorded(pipeline)
    return all([one.event_type for one in events if one.key == name] == expected for name in grants)


def parts(pipeline: Pipeline) -> tuple[str, str]:
    """Run one watch and one standby, and return their names in this order."""

    def found() -> tuple[str, str] | None:
        run_both(pipeline)
        for one, other in (NAMES, NAMES[::-1]):
            settled = judged_until(pipeline, one) > 0 and '"standing_by"' in pipeline.log(other)
            if settled and watching(pipeline, one) and not watching(pipeline, other):
                return one, other
        return None

    one, other = wait_for(found, "one watches and one stands by", limit=90) or NAMES
    pipeline.wait_ready(one, other)
    assert pipeline.health(other).notes == ("stands by: another watch is active",)
    assert pipeline.health(one).notes == ()
    return one, other


@pytest.mark.parametrize("when", ["before", "at"])
def test_killed_between_a_finding_and_its_end(pipeline: Pipeline, when: str) -> None:
    """It dies before the removal arrives, or when it publishes the resolution."""
    first, second = parts(pipeline)
    grants = [f"{when}-{number}" for number in range(20)]
    send(pipeline, *(activated(name, 0.5) for name in grants))
    wait_for(lambda: all_recorded(pipeline, grants, FOUND), "all are found")
    if when == "before":
        pipeline.kill(first)
        send(pipeline, *map(revoked, grants))
    else:
        resolved = pipeline.metric(first, "grantledger_watch_resolved_total")
        send(pipeline, *map(revoked, grants))
        about_to = lambda: pipeline.metric(first, "grantledger_watch_resolved_total") > resolved  # noqa: E731
        wait_for(about_to, "it publishes the resolutions", pause=0.0)
        pipeline.kill(first)
    died = time.time()
    wait_for(lambda: judged_until(pipeline, second) > died, "the standby judges", limit=90)
    wait_for(lambda: all_recorded(pipeline, grants, ENDED), "each is resolved once")
    assert all(commands(pipeline).count(name) == 1 for name in grants)
    assert "Traceback" not in pipeline.log(second)


def test_a_suspended_watch_publishes_nothing_after_another_took_over(pipeline: Pipeline) -> None:
    """After a suspend that was longer than its session, a watch still believes that it is active."""
    first, second = parts(pipeline)
    grants = [f"slept-{number}" for number in range(20)]
    sleeper = pipeline.children[first].pid
    assert sleeper is not None
    os.kill(sleeper, signal.SIGSTOP)
    try:
        send(pipeline, *(activated(name, 0.5) for name in grants))
        wait_for(lambda: all_recorded(pipeline, grants, FOUND), "the standby has found them", limit=90)
    finally:
        os.kill(sleeper, signal.SIGCONT)
    send(pipeline, *map(revoked, grants))
    child = pipeline.children[first]
    wait_for(lambda: not child.alive() or not watching(pipeline, first), "the suspended watch has noticed")
    assert child.exit_code in (None, LOST), child.last_error()
    awake = time.time()
    wait_for(lambda: judged_until(pipeline, second) > awake, "the standby judges")
    assert all_recorded(pipeline, grants, ENDED)
    assert all(commands(pipeline).count(name) == 1 for name in grants)


def test_the_owner_of_the_log_is_known_while_one_watches(pipeline: Pipeline) -> None:
    """A process that stands by for nobody joins again."""
    parts(pipeline)
    group = f"{pipeline.deployment}-watch"

    def complete() -> GroupState | None:
        run_both(pipeline)
        state = group_state(pipeline.cluster, group)
        return state if state.stable and len(state.assigned) == 2 else None

    state = wait_for(complete, "both are members of the group")
    log, unread = [("access.lifecycle.sealed", 0)], [("access.activity.sealed", 0)]
    assert state.forgotten(log) == set()
    assert state.forgotten(unread) == set(unread)
    for name in NAMES:
        pipeline.kill(name)
    wait_for(lambda: not group_state(pipeline.cluster, group).assigned, "nobody has the log")
