"""The Alertmanager channel against Debian's Alertmanager, really started, and seen with its own amtool."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from grantledger.base.toml import load_toml
from grantledger.sinks.alerts.alertmanager import Alertmanager as Channel
from grantledger.sinks.alerts.channel import Envelope
from grantledger.sinks.alerts.channel_builder import build_channels
from grantledger.sinks.alerts.config import AlertConfig
from grantledger.sinks.alerts.database import prepare
from grantledger.sinks.alerts.delivery import Worker
from grantledger.sinks.alerts.finding import FindingEvent, rfc3339
from grantledger.sinks.alerts.outbox import Outbox, OutboxPosition
from grantledger.webhooks.answer import SendResult
from support.alerting import alertmanager_toml, finding
from support.alertmanager import Alertmanager, running
from support.receiver import receiving
from support.waiting import wait_for

INTERVAL = 0.3


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    with running(tmp_path_factory.mktemp("alertmanager")) as started:
        yield started


def channel(url: str, **more: Any) -> Channel:
    config = AlertConfig.model_validate({"channels": {"oncall": {"kind": "alertmanager", "url": url, **more}}})
    found = config.channels["oncall"]
    assert found.kind == "alertmanager"
    return Channel("channels.oncall", found, time.time)


def envelopes(texts: Sequence[str]) -> list[Envelope]:
    return [Envelope(number, str(number), "opened", text) for number, text in enumerate(texts)]


def shown(alertmanager: Alertmanager, key: str) -> dict[str, Any] | None:
    found = [alert for alert in alertmanager.alerts() if alert["labels"].get("key") == key]
    assert len(found) <= 1, "one finding is one alert"
    return found[0] if found else None


def test_an_alert_is_shown_repeated_and_resolved(tmp_path: Path, alertmanager: Alertmanager) -> None:
    config = tmp_path / "alerts.toml"
    config.write_text(
        alertmanager_toml("oncall", alertmanager.url, interval_seconds=INTERVAL, ends_after_seconds=120)
        + 'labels = { team = "access" }\nlink = "https://console.example/{rule}/{key}"\n'
    )
    path = tmp_path / "outbox.sqlite3"
    prepare(path)
    channels = build_channels(load_toml(config, AlertConfig))
    key = "grant/1 ü"

    def ends_at() -> str:
        alert = shown(alertmanager, key)
        return alert["endsAt"] if alert else ""

    with closing(Outbox(path, channels)) as outbox:
        outbox.configure(time.time())
        worker = Worker(path, channels[0], 86_400.0)
        worker.start()
        opened = time.time()
        outbox.take(OutboxPosition("00", 1), [finding("opened", key, at=opened)], [], live=True, now=opened)
        worker.wake()
        alert = wait_for(lambda: shown(alertmanager, key), "amtool shows the alert")
        assert alert["labels"] == {
            "alertname": "GrantledgerOverdue", "rule": "overdue", "severity": "critical", "key": key,
            "deadline": "2026-03-01T12:00:00.000000Z", "deployment": "test.example", "tenant": "default",
            "subject": "alice", "person": "alice", "resource": "orders", "team": "access",
        }  # fmt: skip
        assert alert["annotations"]["summary"].startswith("Access is past its deadline")
        assert alert["generatorURL"] == "https://console.example/overdue/grant%2F1%20%C3%BC"
        assert alert["status"]["state"] == "active"
        began, first = alert["startsAt"], ends_at()
        assert datetime.fromisoformat(began).astimezone(UTC).timestamp() == pytest.approx(opened, abs=0.002)
        wait_for(lambda: ends_at() > first, "it is posted again, with a later end")
        assert shown(alertmanager, key) is not None

        ended = time.time()
        outbox.take(OutboxPosition("00", 2), [finding("resolved", key, at=ended)], [], live=True, now=ended)
        worker.wake()
        wait_for(
            lambda: shown(alertmanager, key) is None,
            "amtool shows it no more, though it has not ended by itself",
        )
        wait_for(lambda: not _waiting(path), "the end was posted three times")
        assert shown(alertmanager, key) is None
        worker.stop()
        worker.join(10)
        assert worker.failure is None


def _waiting(path: Path) -> int:
    from grantledger.sinks.alerts.database import connect_outbox

    with closing(connect_outbox(path, read_only=True)) as database:
        return int(database.execute("SELECT count(*) FROM messages WHERE state != 'done'").fetchone()[0])


def test_without_posts_an_alert_ends_automatically(alertmanager: Alertmanager) -> None:
    sender = channel(alertmanager.url, interval_seconds=0.2, ends_after_seconds=8.0)
    (post,) = sender.send(envelopes([sender.message(finding("opened", "alone", at=time.time()))]))
    assert post.answer.result is SendResult.delivered
    assert shown(alertmanager, "alone") is not None
    wait_for(lambda: shown(alertmanager, "alone") is None, "it ends")


def test_many_alerts_go_in_one_post_and_a_bad_one_spoils_no_other(alertmanager: Alertmanager) -> None:
    sender = channel(alertmanager.url)
    texts = [sender.message(finding("opened", f"many-{number}", at=time.time())) for number in range(8)]
    posts = sender.send(envelopes(texts))
    assert [(post.numbers, post.answer.result) for post in posts] == [(tuple(range(8)), SendResult.delivered)]
    bad = json.loads(texts[5])
    bad["labels"] = {"not a name": "x"}
    posts = sender.send(envelopes([*texts[:5], json.dumps(bad), *texts[6:]]))
    refused = [post for post in posts if post.answer.result is SendResult.rejected]
    assert [post.numbers for post in refused] == [(5,)]
    assert "label" in refused[0].answer.detail
    assert sorted(number for post in posts for number in post.numbers) == list(range(8))


@pytest.mark.parametrize("key", ["x" * 5000, 'quote " brace } = , \\', "line\nend \x1b[31m \u202e", "ключ 鍵"])
def test_text_of_senders_is_accepted(alertmanager: Alertmanager, key: str) -> None:
    sender = channel(alertmanager.url)
    odd = finding("opened", key, rule="odd rule-é!", at=time.time())
    text = sender.message(odd)
    (post,) = sender.send(envelopes([text]))
    assert post.answer.result is SendResult.delivered, post.answer.detail
    labels = json.loads(text)["labels"]
    assert labels in [alert["labels"] for alert in alertmanager.alerts()]
    (post,) = sender.send(envelopes([sender.message(finding("resolved", key, at=time.time()), text)]))
    wait_for(lambda: labels not in [a["labels"] for a in alertmanager.alerts()], "it is resolved")


@pytest.mark.parametrize(("began", "ended"), [(100.0, 50.0), (100.0, 100.0), (100.0, 200.0)])
def test_an_alert_ends_after_it_began_and_keeps_its_labels(began: float, ended: float) -> None:
    sender = channel("http://127.0.0.1:9", labels={"team": "access"})
    later = channel("http://127.0.0.1:9", labels={"team": "other"})
    opened = sender.message(finding("opened", at=began))
    alert = json.loads(later.message(finding("resolved", at=ended), opened))
    assert alert["labels"] == json.loads(opened)["labels"]
    assert alert["startsAt"] == rfc3339(100_000_000) < alert["endsAt"]
    assert alert["annotations"]["summary"] == json.loads(opened)["annotations"]["summary"]


def test_an_opening_that_its_source_dates_ahead_begins_when_kafka_took_it() -> None:
    one = finding("opened", at=500.0)
    object.__setattr__(one, "appended", 100_000_000)
    assert json.loads(channel("http://127.0.0.1:9").message(one))["startsAt"] == rfc3339(100_000_000)


@pytest.mark.parametrize("path", ["", "/", "/api/v2/alerts", "/am/", "/am/api/v2/alerts"])
def test_who_we_are_and_where_it_goes(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AM_SECRET", "hunter2")
    with receiving() as receiver:
        base = receiver.url.partition("/hook")[0] + path
        token = channel(base, token={"env": "AM_SECRET"})
        basic = channel(base, user="grantledger", password={"env": "AM_SECRET"})
        text = token.message(finding("opened"))
        assert [post.answer.result for one in (token, basic) for post in one.send(envelopes([text]))] == [
            "delivered"
        ] * 2
    first, second = receiver.requests
    assert first.path == second.path == ("/am" if path.startswith("/am") else "") + "/api/v2/alerts"
    assert first.headers["authorization"] == "Bearer hunter2"
    assert second.headers["authorization"] == "Basic " + base64.b64encode(b"grantledger:hunter2").decode()


def test_a_finding_without_a_subject_has_a_summary() -> None:
    one = FindingEvent("e", "opened", "source_silent", "vault/eu-1", "", "warning", 0, 0, {})
    alert = json.loads(channel("http://127.0.0.1:9").message(one))
    assert alert["annotations"]["summary"] == "A source that used to report is silent: vault/eu-1"
    assert "deadline" not in alert["labels"] and "" not in alert["labels"].values()
