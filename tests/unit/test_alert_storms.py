"""A storm of findings is one page that says so; a few findings, and those of other tools, have pages of their own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grantledger.sinks.alerts.channel import NamedChannel
from grantledger.sinks.alerts.channel_builder import build_channels
from grantledger.sinks.alerts.config import AlertConfig
from grantledger.sinks.alerts.finding import FindingEvent
from grantledger.sinks.alerts.status import outbox_status
from support.alerting import finding

from .test_alert_outbox import START, Process, Texts

TELEPORT = {"grant_source_system": "teleport", "grant_source_instance": "root.example.com"}


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    monkeypatch.setenv("X", "whsec_" + "A" * 32)
    config = AlertConfig.model_validate(
        {
            "channels": {
                "hook": {"kind": "webhook", "url": "https://hook.example/", "secret": {"env": "X"}},
                "oncall": {"kind": "alertmanager", "url": "http://am.example:9093"},
            }
        }
    )
    with closing(Process(tmp_path / "alerts" / "outbox.sqlite3", build_channels(config))) as running:
        running.release()
        yield running


def overdue(number: int, change: Any = "opened", at: float = START, **facts: str) -> FindingEvent:
    one = finding(change, f"g-{number}", at=at)
    return replace(one, facts=one.facts | TELEPORT | {"subject": f"user-{number}", "grant_id": f"g-{number}"} | facts)


def drained(process: Process, channel: str) -> list[dict[str, Any]]:
    """Deliver until nothing is left to leave now, and return the bodies."""
    found: list[dict[str, Any]] = []
    while envelopes := process.send(channel):
        found += [json.loads(one.text) for one in envelopes]
    return found


@pytest.mark.parametrize("count", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_thousands_of_overdue_grants_are_one_page_that_says_so(process: Process, count: int) -> None:
    process.close()
    process.channels = process.channels[:1]
    process.start()
    begin = time.process_time()
    for first in range(0, count, 1000):
        process.take(*(overdue(number) for number in range(first, first + 1000)))
        process.now += 1
    assert time.process_time() - begin < 20
    assert drained(process, "hook") == [], "the page has the number of all"
    process.now += 6
    [page] = drained(process, "hook")
    data = page["data"]
    assert (page["type"], data["rule"], data["findings"], data["tool"]) == (
        "finding.opened", "overdue", str(count), "teleport/root.example.com",
    )  # fmt: skip
    command = "grantledger findings list --rule overdue --source teleport/root.example.com --limit 100000"
    assert data["next_command"] == command
    assert command in data["description"] and "person" not in data
    assert len(outbox_status(process.path, process.now)["open"]) == count + 1, "each of them is on record"


def test_a_storm_ends_with_the_last_of_its_findings(process: Process) -> None:
    process.take(*(overdue(number) for number in range(30)))
    process.now += 60
    [alert] = drained(process, "oncall")
    assert alert["annotations"]["summary"] == (
        "30 findings of teleport/root.example.com within an hour, one page for all: "
        "Access is past its deadline and no removal is on record"
    )
    assert (alert["labels"]["alertname"], alert["labels"]["key"]) == ("GrantledgerOverdue", "*")
    assert len(drained(process, "hook")) == 1
    process.take(overdue(30))
    process.take(overdue(30, "resolved"))
    process.now += 60
    [posted] = drained(process, "oncall")
    assert posted["annotations"]["findings"] == "31" and posted["labels"] == alert["labels"], "no new page"
    process.take(*(overdue(number, "resolved") for number in range(29)))
    assert drained(process, "hook") == []
    process.take(overdue(29, "resolved"))
    assert [one["type"] for one in drained(process, "hook")] == ["finding.resolved"]
    assert {json.dumps(one["labels"]) for one in drained(process, "oncall")} == {json.dumps(alert["labels"])}
    assert outbox_status(process.path, process.now)["open"] == []
    process.take(overdue(31))
    assert [one["data"]["key"] for one in drained(process, "hook")] == ["g-31"], "nothing stands for it any more"
    process.take(*(overdue(number) for number in range(40, 70)))
    process.now += 31
    assert [one["data"]["findings"] for one in drained(process, "hook")] == ["31"], "another storm, another page"


def test_a_storm_grows_and_other_tools_and_hours_have_their_own_pages(process: Process) -> None:
    process.take(*(overdue(number) for number in range(20)))
    assert len(drained(process, "hook")) == 20
    process.take(overdue(20))
    process.now += 6
    process.take(overdue(21), overdue(22, grant_source_system="vault"), replace(overdue(23), rule="no_approval"))
    process.now += 6
    found = drained(process, "hook")
    assert sorted((one["data"]["rule"], one["data"]["key"]) for one in found) == [
        ("no_approval", "g-23"), ("overdue", "*"), ("overdue", "g-22"),
    ]  # fmt: skip
    assert [one["data"]["findings"] for one in found if one["data"]["key"] == "*"] == ["22"]
    process.now += 3600
    process.take(overdue(30))
    assert [one["data"]["key"] for one in drained(process, "hook")] == ["g-30"], "the next hour"


@pytest.mark.parametrize("at_once", [1, 300])
def test_invented_tools_are_few_pages(process: Process, at_once: int) -> None:
    every = [overdue(number, grant_source_system=f"invented-{number:03}") for number in range(300)]
    for first in range(0, 300, at_once):
        process.take(*every[first : first + at_once])
    process.now += 31
    found = [one["data"]["key"] for one in drained(process, "hook")]
    assert sorted(found) == sorted([*(f"g-{number}" for number in range(40)), "*/*"])
    [page] = [one for one in outbox_status(process.path, process.now)["open"] if one["key"] == "*/*"]
    assert page["rule"] == "overdue"
    process.take(*(overdue(number, "resolved", grant_source_system=f"invented-{number:03}") for number in range(300)))
    assert outbox_status(process.path, process.now)["open"] == []


def test_what_ended_in_the_backlog_makes_no_storm(process: Process) -> None:
    for number in range(100):
        process.take(overdue(number), live=False)
        process.take(*([overdue(number, "resolved")] if number > 4 else []), live=False)
    process.release()
    assert sorted(one["data"]["key"] for one in drained(process, "hook")) == [f"g-{number}" for number in range(5)]
    process.take(*(overdue(number) for number in range(200, 230)), live=False)
    process.release()
    process.now += 6
    [page] = drained(process, "hook")
    assert page["data"]["findings"] == "35"


def test_the_page_of_a_storm_reaches_every_channel_of_its_findings(tmp_path: Path) -> None:
    hook = {"kind": "webhook", "url": "https://hook.example/", "secret": {"env": "X"}, "min_severity": "critical"}
    config = AlertConfig.model_validate({"channels": {"hook": hook}})
    channels = [NamedChannel("hook", config.channels["hook"], Texts())]
    with closing(Process(tmp_path / "alerts" / "outbox.sqlite3", channels)) as process:
        process.release()
        process.take(*(replace(overdue(number), severity="info") for number in range(30)))
        process.now += 31
        assert process.drain("hook") == []
        process.take(overdue(30))
        process.now += 31
        assert process.drain("hook") == ["opened *"]


def test_old_storms_are_forgotten(process: Process) -> None:
    process.take(*(overdue(number) for number in range(30)))
    process.now += 60
    assert len(drained(process, "hook")) == 1
    process.take(*(overdue(number, "resolved") for number in range(30)))
    drained(process, "hook")
    drained(process, "oncall")
    process.now += 7200
    drained(process, "oncall")
    for one in process.out.values():
        one.prune(process.now + 1)
    process.take(overdue(99))
    assert [one["data"]["key"] for one in drained(process, "hook")] == ["g-99"]
