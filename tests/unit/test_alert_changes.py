"""What changes under the outbox: the configuration between two starts, a channel that asks for rest, many at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from grantledger.sinks.alerts.channel import Envelope, Exchange, NamedChannel
from grantledger.sinks.alerts.database import connect_outbox, prepare
from grantledger.sinks.alerts.delivery import LONGEST_WAIT, ONE_RECORD, Worker
from grantledger.sinks.alerts.outbox import Outbox, OutboxPosition
from grantledger.sinks.alerts.schedule import ChannelState, DeliveryRules, Message, channel_after, message_after
from grantledger.webhooks.answer import Answer, SendResult
from support.alerting import finding

from .test_alert_outbox import HOUR, START, TOPIC, Process, Texts, channels


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    with closing(Process(tmp_path / "alerts" / "outbox.sqlite3", channels())) as running:
        running.release()
        yield running


def restarted(process: Process, configured: Sequence[NamedChannel]) -> None:
    process.close()
    process.channels = list(configured)
    process.start()


def test_a_returning_channel_gets_the_open_findings_only(process: Process) -> None:
    hook, oncall = process.channels
    process.take(finding("opened", "told"), finding("opened", "over"))
    assert process.drain("hook") == ["opened told", "opened over"]
    process.take(finding("opened", "waits"), finding("opened", "waits, and is over"))
    restarted(process, [oncall])
    process.take(finding("resolved", "over"), finding("resolved", "waits, and is over"), finding("opened", "new"))
    restarted(process, [hook, oncall])
    # The first of them again: under the same id, by which the receiver knows it.
    assert sorted(process.drain("hook")) == ["opened new", "opened told", "opened waits"]
    process.take(finding("resolved", "told"))
    assert process.drain("hook") == ["resolved told"]


def test_a_state_is_shown_again_on_a_channel_that_comes_back(process: Process) -> None:
    hook, oncall = process.channels
    process.take(finding("opened", "g-1"), finding("opened", "g-2"))
    assert process.texts("oncall") == ["opened g-1", "opened g-2"]
    restarted(process, [hook])
    process.take(finding("resolved", "g-1"))
    restarted(process, [hook, oncall])
    assert process.texts("oncall") == ["opened g-2"]
    process.now += 60
    assert process.texts("oncall") == ["opened g-2"]


def test_a_channel_of_another_kind_is_a_new_one(process: Process) -> None:
    class Other(Texts):
        """Its openings are no JSON of the first one's."""

        def message(self, finding: object, opened: str) -> str:
            return json.dumps(json.loads(opened)["labels"] if opened else {"labels": 1})

    [oncall] = process.channels[1:]
    process.take(finding("opened", "delivered"))
    assert process.drain("hook") == ["opened delivered"]
    process.take(finding("opened", "waiting"))
    restarted(process, [replace(oncall, name="hook", channel=Other())])
    assert [one.text for one in process.send("hook")] == ['{"labels": 1}'] * 2
    process.take(finding("resolved", "delivered"), finding("resolved", "waiting"))
    assert [one.text for one in process.send("hook")] == ["1", "1"]


def test_a_start_retries_open_findings_that_were_given_up(process: Process) -> None:
    process.take(finding("opened", "g-1"), finding("opened", "g-2"))
    for _ in range(10):
        process.texts("oncall", SendResult.rejected)
        process.now += 24 * HOUR
    assert process.texts("oncall") == []
    process.take(finding("resolved", "g-1"))
    restarted(process, process.channels)  # somebody has put the token right
    assert sorted(process.drain("oncall")) == ["opened g-2", "resolved g-1"]


def test_a_long_rest_that_is_asked_for_ends_no_open_alert() -> None:
    asked, state, once = (
        Answer(SendResult.retry, 503, "", 3600.0),
        DeliveryRules(repeat=60.0, cap=60.0),
        DeliveryRules(),
    )
    message = Message(1, "a", "opened", "repeating", 0.0)
    for rules, due in ((state, 60.0), (once, 3600.0)):
        assert message_after(message, asked, rules, 0.0, 1.0).send_at == due
        assert channel_after(ChannelState(), asked, rules, 0.0, 1.0).paused_until == due


@pytest.mark.parametrize("result", [SendResult.delivered, SendResult.retry])
def test_a_clock_that_is_set_back_silences_no_channel(process: Process, result: SendResult) -> None:
    process.take(finding("opened"))
    assert process.texts("oncall", result) == process.texts("hook", SendResult.retry) == ["opened g-1"]
    process.now -= 24 * HOUR
    assert process.texts("oncall") == process.texts("hook") == ["opened g-1"]
    process.now += 59
    assert process.texts("oncall") == [], "the pauses hold again"


def test_posts_that_only_repeat_share_a_record_for_an_hour(process: Process) -> None:
    process.take(finding("opened", "g-1"), finding("opened", "g-2"))

    def posts(result: SendResult = SendResult.delivered) -> list[tuple[float, str]]:
        process.texts("oncall", result)
        process.now += 60
        with closing(connect_outbox(process.path)) as database:
            rows = database.execute("SELECT at, result FROM deliveries WHERE channel = 'oncall' ORDER BY number")
            return [tuple(row) for row in rows]

    def repeated(times: int) -> int:
        for _ in range(times):
            found = posts()
        assert found[-1] == (process.now - 60, "delivered"), "the record says when it last went well"
        return len(found)

    assert len(posts()) == 1
    assert repeated(int(ONE_RECORD / 60)) == 2, "the first delivery, and an hour of repeating it"
    assert repeated(1) == 3
    assert [result for _, result in posts(SendResult.retry)][-1] == "retry", "what goes wrong is on record each time"
    assert repeated(1) == 5, "and so is that it goes well again"
    process.take(finding("opened", "g-3"))
    assert repeated(1) == 6, "and what is new"


class Answers:
    """A channel that gives the configured answers, and then succeeds."""

    def __init__(self, *results: SendResult) -> None:
        self.results = list(results)
        self.sent: list[str] = []

    message = Texts.message

    def send(self, envelopes: Sequence[Envelope]) -> list[Exchange]:
        self.sent += [json.loads(one.text)[1] for one in envelopes]
        result = self.results.pop(0) if self.results else SendResult.delivered
        return [Exchange(tuple(one.number for one in envelopes), Answer(result, None, "said so"))]


@pytest.mark.parametrize(
    ("answers", "sent"),
    [
        ((SendResult.delivered, SendResult.rejected), ["g-0", "g-1", "g-2", "g-3"]),
        ((SendResult.delivered, SendResult.retry), ["g-0", "g-1"]),
        ((SendResult.delivered, SendResult.gone), ["g-0", "g-1"]),
    ],
)
def test_a_throttled_channel_gets_nothing_that_was_planned(
    tmp_path: Path, answers: tuple[SendResult, ...], sent: list[str]
) -> None:
    path = tmp_path / "outbox.sqlite3"
    prepare(path)
    sender = Answers(*answers)
    named = replace(channels()[0], channel=sender)
    with closing(Outbox(path, [named])) as outbox:
        outbox.configure(START)
        new = [finding("opened", f"g-{number}") for number in range(4)]
        outbox.take(OutboxPosition(TOPIC, 1), new, [], live=True, now=START)
    # Clocks that stand: no rest ever ends.
    worker = Worker(path, named, keep=HOUR, clock=lambda: START, steady=lambda: 0.0)
    worker.wake()
    looked = 0

    def wait(_seconds: float) -> bool:
        nonlocal looked
        looked += 1
        if looked > 2:  # nothing is left to do, three times over
            worker.stop()
        return True

    worker._wake.wait = wait  # type: ignore[assignment,method-assign]
    worker.run()
    assert worker.failure is None and sender.sent == sent


@pytest.mark.parametrize("seconds", [20, 290, 1800, 3590, 3600, 86_400])
@pytest.mark.parametrize(("channel", "answer", "rest"), [(0, SendResult.retry, 1.0), (1, SendResult.delivered, 60.0)])
def test_a_clock_that_is_set_back_while_it_runs_makes_no_rest_longer(
    tmp_path: Path, seconds: int, channel: int, answer: SendResult, rest: float
) -> None:
    path = tmp_path / "outbox.sqlite3"
    prepare(path)
    sender = Answers(answer)
    named = replace(channels()[channel], channel=sender)
    with closing(Outbox(path, [named])) as outbox:
        outbox.configure(START)
        outbox.take(OutboxPosition(TOPIC, 1), [finding("opened", "g-1")], [], live=True, now=START)
    passed, ahead = 0.0, START
    worker = Worker(path, named, keep=HOUR, clock=lambda: ahead + passed, steady=lambda: passed)

    def wait(longest: float) -> bool:
        """Time passes; at the first rest the clock is set back."""
        nonlocal passed, ahead
        passed, ahead = passed + max(longest, 0.001), START - seconds
        if len(sender.sent) > 1 or passed > 2 * rest:
            worker.stop()
        return True

    worker._wake.wait = wait  # type: ignore[assignment,method-assign]
    worker.run()
    assert worker.failure is None and sender.sent == ["g-1", "g-1"]
    assert rest / 2 < passed <= rest + LONGEST_WAIT + 0.1
