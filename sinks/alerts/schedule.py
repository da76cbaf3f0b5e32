"""Which messages to send now, and the effect of an answer: pure rules without clock, disk or network.

Times are seconds since 1970. A message waits as ``backlog`` until the backlog has been read, then as ``due``. Where the
channel shows states it is sent repeatedly as ``repeating``. It ends as ``done``, ``given_up`` or ``skipped``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ...base.retry import backoff
from ...webhooks.answer import LONGEST_RETRY_AFTER, Answer, SendResult
from .finding import ChangeKind

State = Literal["backlog", "due", "repeating", "done", "given_up", "skipped"]
LONGEST_PAUSE = 30.0
"""Seconds that a whole channel pauses after failures. A single message may back off for longer."""
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class DeliveryRules:
    """How a channel delivers. Times in seconds."""

    repeat: float | None = None  # pause between posts of a state; None for a channel that sends each message once
    ending_posts: int = 1  # how often the end of a state is sent
    batch: int = 1  # most messages in one exchange
    backoff: float = 1.0  # first pause after a failure; it doubles up to the cap
    cap: float = 300.0
    give_up: float = 86_400.0  # how long a rejected message is retried

    @property
    def longest_pause(self) -> float:
        """The longest possible pause. A time of sending further ahead was set before the clock was set back."""
        return max(self.cap, LONGEST_RETRY_AFTER if self.repeat is None else self.repeat)


@dataclass(frozen=True, slots=True)
class Message:
    """One message in the outbox, as far as the schedule needs it."""

    number: int  # position in the outbox; messages of one identity are sent in this order
    identity: str  # of the finding
    change: ChangeKind
    state: State
    send_at: float
    ended: bool = False  # whether the finding has ended
    attempts: int = 0
    failures: int = 0  # since the last successful delivery
    refused_since: float | None = None  # when it was first rejected, None if it was not
    posts_left: int = 1


@dataclass(frozen=True, slots=True)
class ChannelState:
    """The state of a whole channel."""

    failures: int = 0
    paused_until: float = 0.0
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The messages to send now, or when to check again if there are none."""

    send: tuple[Message, ...]
    look_again: float


def plan(messages: Sequence[Message], channel: ChannelState, rules: DeliveryRules, now: float) -> Plan:
    """Choose the channel's messages to send now. New messages precede repeated ones."""
    if channel.disabled:
        return Plan((), FOREVER)
    first_unsent: dict[str, int] = {}
    for message in messages:
        if message.state != "repeating":
            first_unsent.setdefault(message.identity, message.number)
    latest = now + rules.longest_pause
    ready, look_again = [], FOREVER
    for message in messages:
        # The opening is delivered before the end, and a batch has one message per alert.
        blocked = first_unsent.get(message.identity, message.number) < message.number
        if message.state == "backlog" or blocked:
            continue
        if message.send_at <= now or message.send_at > latest:
            ready.append(message)
        else:
            look_again = min(look_again, message.send_at)
    if not ready:
        return Plan((), look_again)
    if now < channel.paused_until <= latest:
        return Plan((), channel.paused_until)
    ready.sort(key=lambda message: (message.state == "repeating", message.failures > 0, message.number))
    return Plan(tuple(ready[: rules.batch]), now)


def message_after(message: Message, answer: Answer, rules: DeliveryRules, now: float, jitter: float) -> Message:
    """Return a message after an exchange. ``jitter``: uniform in 0 to 1."""
    tried = replace(message, attempts=message.attempts + 1)
    if message.state not in ("due", "repeating"):  # settled during the exchange: sent once more, which is harmless
        return tried
    if answer.result is SendResult.delivered:
        return _delivered(replace(tried, failures=0, refused_since=None), rules, now)
    tried = replace(tried, failures=message.failures + 1)
    tried = replace(tried, send_at=now + _pause(tried.failures, rules, rules.cap, answer.retry_after, jitter))
    if answer.result is SendResult.rejected:
        since = message.refused_since if message.refused_since is not None else now
        given_up = now - since >= rules.give_up
        return replace(tried, refused_since=since, state="given_up" if given_up else message.state)
    return tried


def _delivered(message: Message, rules: DeliveryRules, now: float) -> Message:
    if rules.repeat is None or message.change == "acknowledged":
        return replace(message, state="done")
    if message.change == "opened":
        return replace(message, state="done" if message.ended else "repeating", send_at=now + rules.repeat)
    left = message.posts_left - 1
    return replace(message, state="repeating" if left > 0 else "done", posts_left=left, send_at=now + rules.repeat)


def channel_after(
    channel: ChannelState, answer: Answer, rules: DeliveryRules, now: float, jitter: float
) -> ChannelState:
    """Return a channel after an exchange. A rejection concerns one message and does not slow the others."""
    if answer.result is SendResult.delivered:
        return ChannelState(disabled=channel.disabled)
    if answer.result is SendResult.gone:
        return replace(channel, disabled=True)
    if answer.result is SendResult.rejected:
        return channel
    failures = channel.failures + 1
    pause = _pause(failures, rules, min(rules.cap, LONGEST_PAUSE), answer.retry_after, jitter)
    return replace(channel, failures=failures, paused_until=now + pause)


def _pause(failures: int, rules: DeliveryRules, cap: float, requested: float | None, jitter: float) -> float:
    # A state that is not repeated expires: an hour's pause requested by a proxy would end every open alert.
    longest = FOREVER if rules.repeat is None else rules.repeat
    return max(backoff(failures, rules.backoff, cap, jitter), min(requested or 0.0, longest))
