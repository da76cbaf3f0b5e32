"""The clock of the watch's machine jumps, or the machine is suspended, while Kafka keeps the right time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from support.on_time import (
    FOUND,
    GRACE,
    WATCH,
    Recorded,
    about,
    activated,
    commands,
    judged_until,
    recorded,
    removal_of,
    revoked,
    send,
    short_policy,
    the_only,
)
from support.pipeline import Pipeline
from support.shared_broker import RunningBroker
from support.stepped_clock import SteppedChild
from support.waiting import wait_for

HOUR = 3600.0


@pytest.fixture(scope="module")
def pipeline(
    broker: RunningBroker, make_pipeline: Callable[..., Pipeline], tmp_path_factory: pytest.TempPathFactory
) -> Pipeline:
    running = short_policy(broker, make_pipeline, tmp_path_factory)
    running.start("seal")
    watch = SteppedChild("watch", running.data_dir, running.environment)
    running.children["watch"] = watch
    watch.start()
    wait_for(lambda: judged_until(running) > 0, "the watch judges")
    return running


@pytest.fixture
def watch(pipeline: Pipeline) -> SteppedChild:
    child = pipeline.children["watch"]
    assert isinstance(child, SteppedChild) and child.alive(), pipeline.log("watch")
    return child


def follow(pipeline: Pipeline, **grants: float) -> None:
    """Activate grants that end in so many seconds, and wait until the watch follows them."""
    before = pipeline.metric("watch", "grantledger_watch_grants")
    send(pipeline, *(activated(name, seconds) for name, seconds in grants.items()))
    wait_for(
        lambda: pipeline.metric("watch", "grantledger_watch_grants") >= before + len(grants), "the grants are followed"
    )


def jumps(pipeline: Pipeline) -> list[Recorded]:
    """Return the findings about the clock of the watch's own machine."""
    return [one for one in recorded(pipeline) if one.rule == "clock_skew" and one.key.startswith(WATCH)]


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_step_of_the_clock(pipeline: Pipeline, watch: SteppedChild, step: float) -> None:
    name, later = f"{step:+.0f}", f"{step:+.0f}-later"
    before = len(jumps(pipeline))
    follow(pipeline, **{name: 5.0, later: 1800.0})
    stepped = time.time()
    watch.set(wall=step)
    wait_for(lambda: len(jumps(pipeline)) == before + 2, "the step is on record")
    opened, resolved = jumps(pipeline)[before:]
    assert (opened.event_type, resolved.event_type) == ("finding.opened", "finding.resolved")
    assert opened.evidence["jumped_seconds"] == pytest.approx(step, abs=10.0)
    # The brokers have stamped it with the right time.
    assert opened.appended.timestamp() > stepped - 1.0
    wait_for(lambda: about(pipeline, name) == FOUND, "the overdue grant is found")
    found = the_only(pipeline, "finding.opened", name)
    assert found.appended >= found.deadline + timedelta(seconds=GRACE), "found early"
    # A clock that is an hour ahead does not find a grant that ends in half an hour.
    judged = found.appended.timestamp() + 1.0
    wait_for(lambda: judged_until(pipeline) > judged, "more is judged")
    assert judged_until(pipeline) < time.time() + 1.0, "the watch trusts the wrong clock"
    assert about(pipeline, later) == [] and commands(pipeline).count(name) == 1
    # Setting it right is another jump. It changes no finding.
    watch.set(wall=0.0)
    wait_for(lambda: len(jumps(pipeline)) == before + 4, "the second step is on record")
    send(pipeline, revoked(name), revoked(later))
    ended = [*FOUND, "finding.resolved"]
    wait_for(lambda: about(pipeline, name) == ended, "the finding is resolved")
    assert about(pipeline, later) == []
    assert "Traceback" not in pipeline.log("watch")


def test_a_start_with_a_clock_an_hour_ahead(pipeline: Pipeline, watch: SteppedChild) -> None:
    """As after a boot without a clock battery: nothing jumps while the watch runs; only the brokers' times differ."""
    watch.stop()
    before = len(jumps(pipeline))
    send(pipeline, activated("at-start", 5.0), activated("long-after-start", 1800.0))
    watch.set(wall=HOUR)
    watch.start()
    wait_for(lambda: about(pipeline, "at-start") == FOUND, "the overdue grant is found")
    found = the_only(pipeline, "finding.opened", "at-start")
    assert found.appended >= found.deadline + timedelta(seconds=GRACE), "found early"
    opened, resolved = jumps(pipeline)[before:]
    assert (opened.event_type, resolved.event_type) == ("finding.opened", "finding.resolved")
    assert opened.evidence["jumped_seconds"] == pytest.approx(HOUR, abs=30.0)
    judged = found.appended.timestamp() + 1.0
    wait_for(lambda: judged_until(pipeline) > judged, "more is judged")
    assert judged_until(pipeline) < time.time() + 1.0 and about(pipeline, "long-after-start") == []
    before = len(jumps(pipeline))
    watch.set(wall=0.0)
    wait_for(lambda: len(jumps(pipeline)) == before + 2, "the second step is on record")
    send(pipeline, revoked("at-start"), revoked("long-after-start"))
    wait_for(lambda: len(about(pipeline, "at-start")) == 3, "the finding is resolved")


def test_after_a_suspend_the_watch_reads_the_backlog_before_it_judges(pipeline: Pipeline, watch: SteppedChild) -> None:
    """Suspended across two deadlines. One removal came on time and is unread when the machine wakes up."""
    before, asleep = len(jumps(pipeline)), 0.0
    for attempt in range(3):  # on a slow machine the removal itself may be late
        slept, removed = f"slept-{attempt}", f"removed-{attempt}"
        follow(pipeline, **{slept: 8.0, removed: 8.0})
        suspends = pipeline.metric("watch", "grantledger_watch_clock_jumps_total")
        assert watch.pid is not None
        os.kill(watch.pid, signal.SIGSTOP)
        fell_asleep = time.monotonic()
        try:
            send(pipeline, revoked(removed))
            due = deadline_of(pipeline, removed) + GRACE
            in_time = removal_of(pipeline, removed).appended.timestamp() <= due
            if in_time:
                wait_for(lambda due=due: time.time() > due + 1.0, "both would be due")
            # During a suspend the time since boot advances and the time awake does not.
            asleep += time.monotonic() - fell_asleep
            watch.set(awake=-asleep)
        finally:
            os.kill(watch.pid, signal.SIGCONT)
        wait_for(lambda name=slept: about(pipeline, name) == FOUND, "the grant without a removal is found")
        if in_time:
            break
    else:
        pytest.fail("this machine is too slow for this test: the removal was late")
    wait_for(lambda: judged_until(pipeline) > due + 1.0, "the time after both deadlines is judged")
    assert about(pipeline, removed) == [], "a false alarm"
    assert pipeline.metric("watch", "grantledger_watch_clock_jumps_total") == suspends + 1
    assert len(jumps(pipeline)) == before, "a suspend is not a step of the clock"
    assert watch.alive()
    send(pipeline, revoked(slept))
    wait_for(lambda: about(pipeline, slept) == [*FOUND, "finding.resolved"], "the finding is resolved")


def deadline_of(pipeline: Pipeline, name: str) -> float:
    """Return the end of a grant, in seconds since 1970."""
    ends = the_only(pipeline, "grant.activated", name, "access.lifecycle").datum["expires_at"]
    seconds: float = ends.timestamp()
    return seconds
