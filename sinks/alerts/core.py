"""What to send now, and what an answer changes: the rules of delivery, without clock, disk or network.

Times are seconds since 1970. A message waits as ``due``, is sent again and again as ``repeating`` where the channel
shows states, and ends as ``done``, ``given_up`` or ``skipped``. ``held`` waits until the backlog has been read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from .finding import What

State = Literal["held", "due", "repeating", "done", "given_up", "skipped"]
LONGEST_PAUSE = 30.0
"""Seconds that a whole channel rests after failures; a message of its own may wait longer."""
LONGEST_RETRY_AFTER = 3600.0
"""Seconds; who asks for more is asked again after this long."""
FOREVER = float("inf")


class Result(StrEnum):
    """How a delivery went."""

    accepted = "accepted"
    again = "again"
    """No answer, too busy, broken: the same message may go well later, and is tried until it does."""
    refused = "refused"
    """The other side will not have it, or only after a person has mended something."""
    gone = "gone"
    """410: the other side wants no more. The channel is disabled until a person enables it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer.

    Attributes:
        status: HTTP status, None where there was no answer.
        detail: a short sentence for the record, without any secret.
        retry_after: seconds that the other side asks us to wait.
    """

    result: Result
    status: int | None
    detail: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """How a channel delivers. All but the numbers in seconds.

    Attributes:
        repeat: pause between posts of a state; None for a channel where each message is sent once.
        ending_posts: how often the end of a state is sent.
        batch: most messages in one delivery.
        backoff, cap: first and longest pause after a failure; it doubles in between.
        give_up: how long a refused message is tried.
    """

    repeat: float | None = None
    ending_posts: int = 1
    batch: int = 1
    backoff: float = 1.0
    cap: float = 300.0
    give_up: float = 86_400.0

    @property
    def longest_pause(self) -> float:
        """No pause is longer. Who seems to wait for longer was told to before the clock was set back."""
        return max(self.cap, LONGEST_RETRY_AFTER if self.repeat is None else self.repeat)


@dataclass(frozen=True, slots=True)
class Message:
    """One message in the outbox, as far as the rules look at it.

    Attributes:
        number: place in the outbox; messages of one identity leave in this order.
        identity: rule, key and deadline.
        ended: whether the finding has ended meanwhile.
        failures: since the last time it went well.
        refused_since: when it was refused first, None while it was not.
    """

    number: int
    identity: str
    what: What
    state: State
    due: float
    ended: bool = False
    attempts: int = 0
    failures: int = 0
    refused_since: float | None = None
    posts_left: int = 1


@dataclass(frozen=True, slots=True)
class Standing:
    """How a channel stands as a whole."""

    failures: int = 0
    paused_until: float = 0.0
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send now, or when to look again where there is nothing."""

    send: tuple[Message, ...]
    look_again: float


def plan(messages: Sequence[Message], standing: Standing, rules: Rules, now: float) -> Plan:
    """Decide what leaves now. New messages go before repeated ones.

    Args:
        messages: those of the channel that wait, in the order of their numbers.
    """
    if standing.disabled:
        return Plan((), FOREVER)
    first_unsent: dict[str, int] = {}
    for message in messages:
        if message.state != "repeating":
            first_unsent.setdefault(message.identity, message.number)
    latest = now + rules.longest_pause
    ready, look_again = [], FOREVER
    for message in messages:
        # Who hears of an end must have heard of the beginning; and a batch says one thing about an alert.
        blocked = first_unsent.get(message.identity, message.number) < message.number
        if message.state == "held" or blocked:
            continue
        if message.due <= now or message.due > latest:
            ready.append(message)
        else:
            look_again = min(look_again, message.due)
    if not ready:
        return Plan((), look_again)
    if now < standing.paused_until <= latest:
        return Plan((), standing.paused_until)
    ready.sort(key=lambda message: (message.state == "repeating", message.failures > 0, message.number))
    return Plan(tuple(ready[: rules.batch]), now)


def after(message: Message, outcome: Outcome, rules: Rules, now: float, jitter: float) -> Message:
    """Return a message as it is after a delivery.

    Args:
        jitter: evenly from 0 to 1, so that many who failed together do not come back together.
    """
    tried = replace(message, attempts=message.attempts + 1)
    if message.state not in ("due", "repeating"):  # settled in between: it was told once more, which does no harm
        return tried
    if outcome.result is Result.accepted:
        return _accepted(replace(tried, failures=0, refused_since=None), rules, now)
    tried = replace(tried, failures=message.failures + 1)
    tried = replace(tried, due=now + _pause(tried.failures, rules, rules.cap, outcome.retry_after, jitter))
    if outcome.result is Result.refused:
        since = message.refused_since if message.refused_since is not None else now
        given_up = now - since >= rules.give_up
        return replace(tried, refused_since=since, state="given_up" if given_up else message.state)
    return tried


def _accepted(message: Message, rules: Rules, now: float) -> Message:
    if rules.repeat is None:
        return replace(message, state="done")
    if message.what == "opened":
        return replace(message, state="done" if message.ended else "repeating", due=now + rules.repeat)
    left = message.posts_left - 1
    return replace(message, state="repeating" if left > 0 else "done", posts_left=left, due=now + rules.repeat)


def stands(standing: Standing, outcome: Outcome, rules: Rules, now: float, jitter: float) -> Standing:
    """Return how the channel stands after a delivery. A refusal is about one message and does not slow the others."""
    if outcome.result is Result.accepted:
        return Standing(disabled=standing.disabled)
    if outcome.result is Result.gone:
        return replace(standing, disabled=True)
    if outcome.result is Result.refused:
        return standing
    failures = standing.failures + 1
    pause = _pause(failures, rules, min(rules.cap, LONGEST_PAUSE), outcome.retry_after, jitter)
    return replace(standing, failures=failures, paused_until=now + pause)


def _pause(failures: int, rules: Rules, cap: float, asked: float | None, jitter: float) -> float:
    grown = min(cap, rules.backoff * 2.0 ** min(failures - 1, 30))
    # A state that is not posted ends by itself: an hour's rest that a proxy asks for would end every open alert.
    longest = FOREVER if rules.repeat is None else rules.repeat
    return max(grown * (0.5 + jitter / 2), min(asked or 0.0, longest))
