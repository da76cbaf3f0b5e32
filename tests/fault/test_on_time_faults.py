"""Kafka fails around deadlines, with a removal in flight: each access is found, revoked and resolved once."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from grantledger.runtime.broker import LocalBroker
from support.enforcing import Enforcement
from support.on_time import (
    ENFORCER,
    FOUND,
    GRACE,
    WATCH,
    Supervision,
    activated,
    commands,
    judged_until,
    recorded,
    removal_of,
    revoked,
    send,
    short_policy,
    supervised,
    true_lateness,
)
from support.pipeline import Pipeline
from support.waiting import wait_for

LOST = 1
"""The documented exit code of a process that lost its brokers: restart it."""


@pytest.fixture(scope="module")
def pipeline(
    own_broker: LocalBroker, make_pipeline: Callable[..., Pipeline], tmp_path_factory: pytest.TempPathFactory
) -> Pipeline:
    running = short_policy(own_broker, make_pipeline, tmp_path_factory)
    running.start("seal", "watch")
    wait_for(lambda: judged_until(running) > 0, "the watch judges")
    return running


@pytest.fixture(scope="module")
def here(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enforcement]:
    """The enforcer of the same deployment: it carries out the commands of the watch."""
    folder = tmp_path_factory.mktemp("enforcer") / "here"
    one = Enforcement(pipeline, pipeline.deployment, folder, max_per_window="1000")
    one.policy(
        f"[targets.files]\nplugin = 'exec'\ncommand = {one.program('take')}\nread_back = {one.program('look')}\n"
        "timeout_seconds = 300\n[[routes]]\ntarget = 'files'\nsources = ['*']\n"
    )
    pipeline.children["enforce"] = one.acting()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def supervision(pipeline: Pipeline, here: Enforcement) -> Iterator[Supervision]:
    """Restarts processes that end, as ``up`` and every service manager does."""
    with supervised(pipeline.children) as seen:
        yield seen


def make_unavailable(own_broker: LocalBroker, how: str) -> Callable[[], None]:
    """Make Kafka unavailable; return a function that brings it back."""
    if how == "frozen":
        assert own_broker.pid is not None
        os.kill(pid := own_broker.pid, signal.SIGSTOP)
        return lambda: os.kill(pid, signal.SIGCONT)
    (own_broker.kill if how == "killed" else own_broker.stop)()
    return own_broker.start


AWAY = {"stopped": 6.0, "killed": 13.0, "frozen": 13.0}
"""Seconds until Kafka is back: most grants have fallen due by then; the longer times exceed a session timeout."""


@pytest.mark.parametrize(
    "how", ["stopped", *(pytest.param(how, marks=pytest.mark.slow) for how in ("killed", "frozen"))]
)
def test_kafka_is_unavailable_while_access_falls_due_and_is_revoked(
    own_broker: LocalBroker, pipeline: Pipeline, here: Enforcement, supervision: Supervision, how: str
) -> None:
    # One falls due before Kafka fails, most while it is down, some afterwards. As many are removed on time.
    late = {f"{how}-late-{number}": 0.5 + 1.5 * number for number in range(8)}
    in_time = {f"{how}-good-{number}": 3.0 + number for number in range(8)}
    for name in late | in_time:
        (here.folder / "access" / name).touch()
    here.hold("before")
    given = time.time()
    send(pipeline, *(activated(name, seconds) for name, seconds in (late | in_time).items()), *map(revoked, in_time))
    here.wait_held()  # the enforcer works on the first
    bring_back = make_unavailable(own_broker, how)
    here.release()  # it cannot publish the result
    wait_for(lambda: f"{how}-late-0" not in here.present(), "the access is revoked")
    wait_for(lambda: time.time() > given + AWAY[how], "most of the others have fallen due")
    bring_back()

    def resolved() -> bool:
        said = [(one.key, one.event_type) for one in recorded(pipeline) if one.system == WATCH and one.key in late]
        return Counter(said) == Counter((name, event) for name in late for event in (*FOUND, "finding.resolved"))

    wait_for(resolved, "each is found and resolved once", limit=100, pause=0.5)
    judged = given + 3.0 + len(in_time) + GRACE
    wait_for(lambda: judged_until(pipeline) > judged, "all others are judged")
    wait_for(lambda: all(child.alive() for child in pipeline.children.values()), "all processes run")
    assert here.present() & set(late) == set() and here.present() >= set(in_time)
    events = Counter((one.key, one.event_type) for one in recorded(pipeline) if one.key.startswith(how))
    assert {name for name, _ in events} == set(late), "a finding about access that ended on time"
    commanded = Counter(name for name in commands(pipeline) if name.startswith(how))
    assert commanded == dict.fromkeys(late, 1)
    taken = Counter(here.requested())
    for name in late:
        assert events[name, "revoke.confirmed"] == 1 and events[name, "revoke.failed"] == 0, events
        assert removal_of(pipeline, name).system == ENFORCER
        # Each attempt is on record before it is made, even if its result never reached Kafka.
        begun = [one for one in recorded(pipeline) if (one.key, one.event_type) == (name, "revoke.attempted")]
        assert len([one for one in begun if one.datum["outcome"] == "pending"]) >= taken[name] >= 1
    for one in recorded(pipeline):
        if one.key in late and one.event_type == "finding.resolved":
            assert one.evidence["late_seconds"] == pytest.approx(true_lateness(pipeline, one.key), abs=1e-6)
    assert all(code == LOST for codes in supervision.ends.values() for code in codes), supervision
    assert all(child.gave_up is None for child in pipeline.children.values())
