"""Other names of an installation: the watch and the views take them for one, as the policy on record says."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from grantledger.processors.access import SECOND
from grantledger.processors.policy import AccessLimits, Installation, WatchPolicy
from grantledger.processors.sweep import compare as sweep
from grantledger.processors.watch.findings import config_event
from grantledger.schemas.event import IssuingSource, Source
from support.access_store import Story, fill, opened_elsewhere

from .test_sweep import ask, open_overdue

NAMED = Installation(system="bot", instance="prod", other_names=("eu-1", "default"))
POLICY = WatchPolicy(default=AccessLimits(grace_seconds=60), installation=(NAMED,))


def story_with(policy: WatchPolicy | None) -> Story:
    story = Story()

    def by(instance: str) -> dict[str, Any]:
        return {"source": Source("bot", instance, f"r{len(story.records)}", "record"), "subject": "alice"}

    story.give("renamed", -100, -50, **by("eu-1"))
    story.remove("renamed", -60, **by("prod"))
    story.give("default-removes", -100, -50, **by("prod"))
    story.remove("default-removes", -60, grant_source=IssuingSource("bot", "eu-1"), **by("default"))
    story.give("still-there", -100, -40, **by("default"))
    story.give("of-another", -100, -50, **by("us-1"))
    story.remove("of-another", -60, **by("prod"))
    story.find("overdue", "still-there", -39, deadline=-40, of="bot", subject="alice", grant_id="still-there")
    if policy is not None:
        story.add(config_event("test", policy, story.now - timedelta(minutes=1)), -1)
    return story


def test_watch_and_views_agree(tmp_path: Path) -> None:
    for number, policy in enumerate((POLICY, None)):
        story, folder = story_with(policy), tmp_path / str(number)
        now = int(story.now.timestamp()) * SECOND
        plain = WatchPolicy(default=AccessLimits(grace_seconds=60))
        with opened_elsewhere(fill(folder, story.records).parent):
            rows = ask(folder, sweep.OPEN_GRANTS, now=now, ending="[]", endless=0)
            found = ask(folder, "SELECT issuer_instance, grant_key FROM findings")
            events = ask(
                folder, "SELECT DISTINCT source_instance AS name FROM events WHERE grant_id != '' ORDER BY name"
            )
        view = sweep.view_of_store(rows, policy or plain, now)
        assert set(view.overdue) | view.undecided == open_overdue(story, policy or plain, now)
        if policy is not None:
            keys = {"default/bot/prod/still-there", "default/bot/us-1/of-another"}
            assert set(view.overdue) | view.undecided == keys
            assert [(row["issuer_instance"], row["grant_key"]) for row in found] == [
                ("prod", "default/bot/prod/still-there")
            ]
        names = [row["name"] for row in events]
        assert names == (["prod", "us-1"] if policy is not None else ["default", "eu-1", "prod", "us-1"])
