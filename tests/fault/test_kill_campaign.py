"""A long campaign of ``kill -9`` over every process, with an enforcer at work and a broker that is killed, too.

``make test-slow`` runs it. To run only the campaign, and see its figures::

    GRANTLEDGER_TEST_SLOW=1 .venv/bin/pytest -n 0 -s tests/fault/test_kill_campaign.py

``GRANTLEDGER_TEST_KILLS`` sets the number of rounds (200), ``GRANTLEDGER_TEST_SEED`` the seed (a random one, printed).
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator

import pytest

from grantledger.runtime.broker import LocalBroker
from support.enforcing import Enforcement
from support.kill_campaign import KillCampaign, assert_anchors_once, assert_nothing_twice
from support.load import Load
from support.on_time import activated, judged_until, recorded, revoked, send, short_policy
from support.oracle import assert_exactly_once, wait_until_stored
from support.pipeline import Pipeline
from support.waiting import wait_for

BACKLOG = 20
"""Grants that wait for the enforcer at a time."""
VICTIMS = ("seal", "store", "anchor", "watch", "enforce")


@pytest.fixture(scope="module")
def pipeline(
    own_broker: LocalBroker, make_pipeline: Callable[..., Pipeline], tmp_path_factory: pytest.TempPathFactory
) -> Pipeline:
    # Fewer batches per second than the store inserts on a busy machine, although it is killed: it must catch up.
    return short_policy(own_broker, make_pipeline, tmp_path_factory, seal_linger_seconds="1")


@pytest.fixture(scope="module")
def enforcer(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enforcement]:
    """The enforcer of the same deployment: it carries out the commands of the watch."""
    folder = tmp_path_factory.mktemp("enforcer") / "here"
    one = Enforcement(pipeline, pipeline.deployment, folder, max_per_window="100000")
    pipeline.start("seal", "store", "anchor", "watch")
    pipeline.children["enforce"] = one.acting()
    yield one
    one.stop()


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_every_process_is_killed(own_broker: LocalBroker, pipeline: Pipeline, enforcer: Enforcement) -> None:
    rounds = int(os.environ.get("GRANTLEDGER_TEST_KILLS", "200"))
    seed = int(os.environ.get("GRANTLEDGER_TEST_SEED", str(random.SystemRandom().randrange(10**9))))
    print(f"\nkill campaign: {rounds} rounds, GRANTLEDGER_TEST_SEED={seed}", flush=True)
    draw, late, in_time, began = random.Random(seed), list[str](), list[str](), time.monotonic()

    def give_access() -> None:
        """Grant access that outlives its deadline, and access that is removed in time.

        Not if the enforcer is far behind: it starts again and again, and ends few commands between two kills.
        """
        if len(enforcer.present() - set(in_time)) >= BACKLOG:
            return
        overdue, removed = f"late-{len(late)}", f"in-time-{len(late)}"
        for name in (overdue, removed):
            (enforcer.folder / "access" / name).touch()
        send(pipeline, activated(overdue, draw.uniform(0.5, 5.0)), activated(removed, 5.0), revoked(removed))
        late.append(overdue)
        in_time.append(removed)

    load = Load(pipeline.cluster, count=10**9, rate=60, seed=seed).start()
    campaign = KillCampaign(pipeline, VICTIMS, seed, own_broker, give_access)
    campaign.run(rounds, load)
    sent = load.stop().finish()

    def unresolved() -> set[str]:
        return set(late) - {one.key for one in recorded(pipeline) if one.event_type == "finding.resolved"}

    wait_for(lambda: not unresolved(), "all overdue access was revoked", limit=900, pause=1.0)
    until = time.time()
    wait_for(lambda: judged_until(pipeline) > until, "everything is judged")
    for name in ("watch", "enforce"):  # they would publish while the records are compared
        assert pipeline.children.pop(name).stop(), f"{name} did not stop when asked"
    total = wait_until_stored(pipeline, limit=1800, watch=True)
    assert_exactly_once(pipeline, sent)
    findings = assert_nothing_twice(pipeline, late)
    assert enforcer.present() == set(in_time), "access of running grants was revoked, or overdue access was not"
    figures = {
        "seed": seed, "kills": dict(campaign.killed), "acknowledged": len(sent) + 3 * len(late), "entries": total,
        "lost": 0, "duplicated": 0, "forks": 0, "anchors": assert_anchors_once(pipeline), "findings": findings,
        "revoked": len(late), "minutes": round((time.monotonic() - began) / 60, 1),
    }  # fmt: skip
    print("kill campaign:", json.dumps(figures), flush=True)
