"""The enforcer is killed or fenced during an attempt: each command has one result, and none is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path

import pytest

from grantledger.runtime.children import Child
from support.enforcing import Enforcement, revocation
from support.pipeline import Pipeline
from support.receiver import SECRET, Receiver, status
from support.shared_broker import RunningBroker
from support.waiting import wait_for

NUMBERS = count()
BEGUN_AND_DONE = [("revoke.attempted", "pending"), ("revoke.attempted", "success"), ("revoke.confirmed", "success")]


@pytest.fixture(scope="module")
def pipeline(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    return make_pipeline(broker.bootstrap_servers)


@pytest.fixture
def here(pipeline: Pipeline, tmp_path: Path) -> Iterator[Enforcement]:
    one = Enforcement(pipeline, f"kills-{next(NUMBERS)}.example", tmp_path / "here")
    yield one
    one.stop()


def kill(child: Child) -> None:
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    wait_for(lambda: not child.alive(), "it is dead", pause=0.02)


def ended(here: Enforcement) -> None:
    wait_for(lambda: here.lag() == 0, "all commands are done")


def test_killed_before_the_removal_it_removes_after_the_restart(here: Enforcement) -> None:
    here.hold("before")
    here.grant("g1", "g2")
    child = here.acting()
    program = here.wait_held()
    kill(child)
    os.kill(program, signal.SIGKILL)  # otherwise its program continues, as after any crash
    assert here.history("g1") == [("revoke.attempted", "pending", 1)] and here.present() == {"g1", "g2"}
    child = here.acting()
    ended(here)
    here.end(child)
    assert here.requested() == ["g1", "g1", "g2"] and here.present() == set()
    assert here.history("g1")[1:] == [(*step, 2) for step in BEGUN_AND_DONE]
    assert here.history("g2") == [(*step, 1) for step in BEGUN_AND_DONE]
    assert here.removals() == ["g1", "g2"]


def test_killed_after_the_removal_it_only_looks_the_access_up(here: Enforcement) -> None:
    here.hold("after")
    here.grant("g1")
    child = here.acting()
    program = here.wait_held()
    kill(child)
    os.kill(program, signal.SIGKILL)
    assert here.history("g1") == [("revoke.attempted", "pending", 1)] and here.present() == set()
    child = here.acting()
    ended(here)
    here.end(child)
    assert here.requested() == ["g1"], "it was revoked again although it was gone"
    assert here.history("g1") == [("revoke.attempted", "pending", 1), ("revoke.confirmed", "success", 1)]
    assert here.removals() == ["g1"]


def test_killed_while_a_receiver_works_it_sends_the_same_message_again(here: Enforcement) -> None:
    receiver = Receiver()

    def answer(request: BaseHTTPRequestHandler) -> None:
        if len(receiver.requests) == 1:
            receiver.end.wait(60)
        status(request, 204)

    receiver.respond = answer
    here.environment["BROKER_SECRET"] = SECRET
    here.policy(
        f"[targets.broker]\nplugin = 'webhook'\nurl = '{receiver.url}'\nsecret = {{ env = 'BROKER_SECRET' }}\n"
        "[[routes]]\ntarget = 'broker'\nsources = ['bot/*']\n"
    )
    here.send(revocation("g1"))
    try:
        child = here.acting()
        wait_for(lambda: receiver.requests, "the receiver has the message", pause=0.02)
        kill(child)
        child = here.acting()
        ended(here)
        here.end(child)
    finally:
        receiver.stop()
    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"] and first.body == second.body
    found = here.findings()
    assert [(d["outcome"], d["evidence"]["attempt"]) for d in found] == [("pending", 1), ("pending", 2), ("success", 2)]
    assert found[-1]["evidence"]["final"] is True and here.removals() == []


def test_a_second_enforcer_replaces_one_that_is_at_work(here: Enforcement) -> None:
    here.hold("before")
    here.grant("g1")
    first = here.acting()
    here.wait_held()
    second = here.acting("second")
    ended(here)
    assert here.history("g1")[1:] == [(*step, 2) for step in BEGUN_AND_DONE]
    # Only now the first one's program ends. Its result no longer counts.
    here.release()
    wait_for(lambda: not first.alive(), "the first has ended")
    assert first.exit_code == 1 and "another enforcer has taken over" in first.last_error()
    assert "Traceback" not in first.log_path.read_text()
    here.grant("g2")
    ended(here)
    here.end(second)
    assert here.history("g1")[1:] == [(*step, 2) for step in BEGUN_AND_DONE] and len(here.history("g1")) == 4
    assert here.requested() == ["g1", "g1", "g2"] and here.removals() == ["g1", "g2"]


def test_an_idle_enforcer_that_was_replaced_does_nothing(here: Enforcement) -> None:
    first = here.acting()
    second = here.acting("second")
    here.grant("g1")
    wait_for(lambda: not first.alive(), "the first has noticed")
    ended(here)
    here.end(second)
    assert first.exit_code == 1 and here.requested() == ["g1"] and here.removals() == ["g1"]
    assert here.history("g1") == [(*step, 1) for step in BEGUN_AND_DONE]


def test_a_stop_completes_the_attempt_in_progress(here: Enforcement) -> None:
    here.hold("before")
    here.grant("g1", "g2")
    child = here.acting()
    here.wait_held()
    assert child.pid is not None
    for _ in range(3):  # an impatient operator
        os.kill(child.pid, signal.SIGTERM)
        os.kill(child.pid, signal.SIGINT)
    (here.folder / "hold-before").touch()  # would block the second command, which must not begin
    here.release()
    wait_for(lambda: not child.alive(), "it has stopped")
    assert child.exit_code == 0 and here.requested() == ["g1"] and here.lag() == 1
    assert here.history("g1") == [(*step, 1) for step in BEGUN_AND_DONE] and here.history("g2") == []
    (here.folder / "hold-before").unlink()
    child = here.acting()
    ended(here)
    here.end(child)
    assert here.removals() == ["g1", "g2"]
