"""When to send and when to rest: backoff, retry-after, giving up, one message's trouble and a whole channel's."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.sinks.alerts.schedule import (
    FOREVER,
    LONGEST_PAUSE,
    ChannelState,
    DeliveryRules,
    Message,
    channel_after,
    message_after,
    plan,
)
from grantledger.webhooks.answer import Answer, SendResult

RULES = DeliveryRules(backoff=1.0, cap=300.0, give_up=100.0)
STATES = DeliveryRules(repeat=60.0, batch=3)
FRESH = Message(1, "a", "opened", "due", send_at=0.0)
AGAIN = Answer(SendResult.retry, 503, "answered 503")
REFUSED = Answer(SendResult.rejected, 400, "answered 400")
ACCEPTED = Answer(SendResult.delivered, 200, "answered 200")


def test_pauses_double_up_to_the_cap_and_a_success_forgets_them() -> None:
    message, pauses = FRESH, []
    for _ in range(11):
        message = message_after(message, AGAIN, RULES, 1000.0, jitter=1.0)
        pauses.append(message.send_at - 1000.0)
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert message.attempts == 11
    assert message_after(replace(message, state="repeating"), ACCEPTED, STATES, 0.0, 1.0).failures == 0


@given(failures=st.integers(0, 10_000), jitter=st.floats(0, 1))
def test_jitter_takes_at_most_half_of_a_pause(failures: int, jitter: float) -> None:
    tried = message_after(replace(FRESH, failures=failures), AGAIN, RULES, 0.0, jitter)
    whole = min(300.0, 2.0 ** min(failures, 30))
    assert whole / 2 <= tried.send_at <= whole


def test_retry_after_is_waited_out_by_the_message_and_by_its_channel() -> None:
    busy = Answer(SendResult.retry, 429, "answered 429", retry_after=120.0)
    assert message_after(FRESH, busy, RULES, 1000.0, 0.0).send_at == 1120.0
    standing = channel_after(ChannelState(), busy, RULES, 1000.0, 0.0)
    assert standing.paused_until == 1120.0
    waiting = plan([replace(FRESH, number=2)], standing, RULES, 1100.0)
    assert waiting.send == () and waiting.look_again == 1120.0
    assert plan([replace(FRESH, number=2)], standing, RULES, 1120.0).send


def test_no_answer_is_tried_for_ever_and_a_refusal_for_its_time() -> None:
    assert message_after(FRESH, AGAIN, RULES, 1e9, 0.5).state == "due"
    refused = message_after(FRESH, REFUSED, RULES, 1000.0, 0.5)
    assert (refused.state, refused.refused_since) == ("due", 1000.0)
    refused = message_after(refused, REFUSED, RULES, 1099.0, 0.5)
    assert refused.state == "due"
    assert message_after(refused, AGAIN, RULES, 1200.0, 0.5).state == "due"
    assert message_after(refused, REFUSED, RULES, 1100.0, 0.5).state == "given_up"


def test_a_channel_that_is_away_is_not_asked_for_each_message() -> None:
    messages = [replace(FRESH, number=number, identity=str(number)) for number in range(50)]
    standing, now, posts = ChannelState(), 0.0, 0
    while now < 600.0:
        decided = plan(messages, standing, RULES, now)
        for sent in decided.send:
            posts += 1
            messages[sent.number] = message_after(sent, AGAIN, RULES, now, 1.0)
            standing = channel_after(standing, AGAIN, RULES, now, 1.0)
        now = max(now + 0.01, decided.look_again)
    assert posts <= 600 / LONGEST_PAUSE + 6
    assert channel_after(standing, ACCEPTED, RULES, now, 1.0) == ChannelState()


def test_a_rejected_message_blocks_no_other() -> None:
    other = replace(FRESH, number=2, identity="b")
    bad = message_after(FRESH, REFUSED, RULES, 0.0, 1.0)
    standing = channel_after(ChannelState(), REFUSED, RULES, 0.0, 1.0)
    assert plan([bad, other], standing, RULES, 0.0).send == (other,)
    assert plan([bad, other], standing, RULES, 5.0).send == (other,), (
        "and one that failed goes after those that did not"
    )


def test_new_alerts_leave_before_repeated_ones_and_many_in_one_post() -> None:
    repeated = [replace(FRESH, number=n, identity=str(n), state="repeating") for n in range(1, 5)]
    new = [replace(FRESH, number=n, identity=str(n)) for n in range(5, 7)]
    sent = plan([*repeated, *new], ChannelState(), STATES, 0.0).send
    assert [message.number for message in sent] == [5, 6, 1]


def test_pending_messages_delay_later_ones_about_the_same_finding() -> None:
    held, end = replace(FRESH, state="backlog"), replace(FRESH, number=2, change="resolved")
    assert plan([held, end], ChannelState(), RULES, 1e9).send == ()  # type: ignore[list-item]
    assert plan([held, replace(end, identity="b")], ChannelState(), RULES, 1e9).send  # type: ignore[list-item,type-var]


def test_a_disabled_channel_stays_disabled_until_a_person_enables_it() -> None:
    gone = channel_after(ChannelState(), Answer(SendResult.gone, 410, "answered 410"), RULES, 0.0, 0.0)
    assert plan([FRESH], gone, RULES, 1e9).look_again == FOREVER
    assert channel_after(gone, ACCEPTED, RULES, 0.0, 0.0).disabled, "one that was on its way changes nothing"


@pytest.mark.parametrize("settled", ["done", "given_up", "skipped"])
def test_a_message_settled_in_flight_stays_settled(settled: str) -> None:
    assert message_after(replace(FRESH, state=settled), AGAIN, STATES, 0.0, 0.0).state == settled  # type: ignore[arg-type]
    assert message_after(replace(FRESH, state=settled), ACCEPTED, STATES, 0.0, 0.0).state == settled  # type: ignore[arg-type]
