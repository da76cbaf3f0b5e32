"""A watch dies between a finding and its end, with another one standing by: the end is said, and said once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from grantledger.runtime.broker import LocalBroker
from support.on_time import FOUND, activated, commands, judged_until, revoked, send, short_policy, watching, words
from support.pipeline import Pipeline
from support.waiting import wait_for

ENDED = [*FOUND, "finding.resolved"]
NAMES = ("watch", "standby")
LOST = 1
"""The documented exit code of one that has lost its place: start it again."""


@pytest.fixture(scope="module")
def pipeline(
    broker: LocalBroker, make_pipeline: Callable[..., Pipeline], tmp_path_factory: pytest.TempPathFactory
) -> Pipeline:
    running = short_policy(broker, make_pipeline, tmp_path_factory)
    running.start("seal", "watch")
    return running


def start(pipeline: Pipeline, name: str) -> None:
    if name == "watch":
        pipeline.start("watch")
    else:
        pipeline.twin("standby", "watch", GRANTLEDGER_WATCH_INSTANCE="1")


def all_said(pipeline: Pipeline, grants: list[str], expected: list[str]) -> bool:
    """Whether this, and no more, is on record about each of the grants."""
    said = words(pipeline)
    return all([word.what for word in said if word.key == name] == expected for name in grants)


def parts(pipeline: Pipeline) -> tuple[str, str]:
    """Have one watch and one stand by; return their names."""
    for name in NAMES:
        if name not in pipeline.children or not pipeline.children[name].alive():
            start(pipeline, name)

    def found() -> tuple[str, str] | None:
        for one, other in (NAMES, NAMES[::-1]):
            settled = judged_until(pipeline, one) > 0 and '"standing_by"' in pipeline.log(other)
            if settled and watching(pipeline, one) and not watching(pipeline, other):
                return one, other
        return None

    one, other = wait_for(found, "one watches and one stands by", limit=90) or NAMES
    return one, other


@pytest.mark.parametrize("when", ["before", "at"])
def test_killed_between_a_finding_and_its_end(pipeline: Pipeline, when: str) -> None:
    """It dies before the removal is there, or at the moment at which it says so."""
    first, second = parts(pipeline)
    grants = [f"{when}-{number}" for number in range(20)]
    send(pipeline, *(activated(name, 0.5) for name in grants))
    wait_for(lambda: all_said(pipeline, grants, FOUND), "all are found")
    if when == "before":
        pipeline.kill(first)
        send(pipeline, *map(revoked, grants))
    else:
        resolved = pipeline.metric(first, "grantledger_watch_resolved_total")
        send(pipeline, *map(revoked, grants))
        about_to = lambda: pipeline.metric(first, "grantledger_watch_resolved_total") > resolved  # noqa: E731
        wait_for(about_to, "it is about to say that they have ended", pause=0.0)
        pipeline.kill(first)
    died = time.time()
    wait_for(lambda: judged_until(pipeline, second) > died, "the other one judges", limit=90)
    wait_for(lambda: all_said(pipeline, grants, ENDED), "each has ended, once")
    assert all(commands(pipeline).count(name) == 1 for name in grants)
    assert "Traceback" not in pipeline.log(second)


def test_one_that_slept_while_another_took_over_says_nothing_any_more(pipeline: Pipeline) -> None:
    """A machine that is suspended for longer than a session lasts believes, when it wakes up, that it still watches."""
    first, second = parts(pipeline)
    grants = [f"slept-{number}" for number in range(20)]
    sleeper = pipeline.children[first].pid
    assert sleeper is not None
    os.kill(sleeper, signal.SIGSTOP)
    try:
        send(pipeline, *(activated(name, 0.5) for name in grants))
        wait_for(lambda: all_said(pipeline, grants, FOUND), "the other one has found them", limit=90)
    finally:
        os.kill(sleeper, signal.SIGCONT)
    send(pipeline, *map(revoked, grants))
    child = pipeline.children[first]
    wait_for(lambda: not child.alive() or not watching(pipeline, first), "the sleeper knows")
    assert child.exit_code in (None, LOST), child.last_error()
    awake = time.time()
    wait_for(lambda: judged_until(pipeline, second) > awake, "the other one judges")
    assert all_said(pipeline, grants, ENDED)
    assert all(commands(pipeline).count(name) == 1 for name in grants)
