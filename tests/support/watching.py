"""Facts for the watch with times in seconds: written by hand, or random."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from grantledger.processors.access import SECOND, Access, Source
from grantledger.processors.watch.core.commands import COMMANDS, LOOK, REVOKE
from grantledger.processors.watch.core.facts import Decision, Fact
from grantledger.processors.watch.core.judge import FindingChange, Judge
from grantledger.processors.watch_policy import Reporter, WatchPolicy
from grantledger.schemas.access_key import access_key

VAULT = Source("vault", "prod")
CHECKER = Source("checker", "prod")
CHECKERS = (Reporter(system="checker", source="vault"),)
"""Its policy."""
START = 1_772_366_400
"""The start of every story, in seconds since 1970."""


def at(seconds: float) -> int:
    """Return a time of the story in microseconds."""
    return int((START + seconds) * SECOND)


class Story:
    """Facts in the order in which the broker appended them."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def say(self, when: float, event_type: str, grant: str = "", **more: Any) -> Fact:
        """Add one event, appended at a second of the story.

        Args:
            more: fields of the fact; ``ends`` is the deadline in seconds of the story, ``who`` the subject.
        """
        who, what = more.pop("who", "alice"), more.pop("what", "db")
        ends = more.pop("ends", None)
        index = more.pop("index", len(self.facts))
        fields: dict[str, Any] = {
            "index": index,
            "entry": index,
            "append": at(when),
            "occurred": at(when),
            "event_id": f"e{index}",
            "event_type": event_type,
            "source": VAULT,
            "content": b"%d" % index,
            "access": Access("default", who, "database", what, "admin"),
            "person": (who, f"{who}@example.com"),
            "grant_id": grant,
            "expires": None if ends is None else at(ends),
            "grant_source": VAULT if more.get("source") == CHECKER else None,
            "request_source": VAULT if more.get("source") == CHECKER else None,
        }
        fact = Fact(**fields | more)
        self.facts.append(fact)
        return fact

    def granted(self, when: float, grant: str, ends: float | None, **more: Any) -> Fact:
        """Activate a grant."""
        return self.say(when, "grant.activated", grant, ends=ends, **more)

    def removed(self, when: float, grant: str, evidence: str = "confirmed", **more: Any) -> Fact:
        """Revoke a grant."""
        return self.say(when, "grant.revoked", grant, removal=evidence, **more)

    def watched(self, until: float, policy: WatchPolicy | None = None) -> Judge:
        """Return a judge with all facts up to a second."""
        judge = Judge(policy or WatchPolicy())
        for fact in self.facts:
            if fact.append <= at(until):
                judge.add(fact)
        return judge

    def findings(self, until: float, policy: WatchPolicy | None = None) -> list[tuple[str, str, str, float]]:
        """Return the findings of a watch up to a second: (opened or resolved, rule, key, second)."""
        return said(self.watched(until, policy).judge(at(until)))


def said(changes: list[FindingChange]) -> list[tuple[str, str, str, float]]:
    """Return findings as (opened or resolved, rule, key, second)."""
    return [
        (change.kind, change.finding.rule, bare(change.finding.key), change.at / SECOND - START)
        for change in changes
        if change.finding.rule not in COMMANDS
    ]


def ordered(changes: list[FindingChange]) -> list[tuple[str, float]]:
    """Return the revoke commands: the grant, and the second of the command."""
    return [
        (bare(change.finding.key), change.at / SECOND - START) for change in changes if change.finding.rule == REVOKE
    ]


def looked_up(changes: list[FindingChange]) -> list[str]:
    """Return the grants that enforcers are asked to look up."""
    return [bare(change.finding.key) for change in changes if change.finding.rule == LOOK]


def key(id: str, source: Source = VAULT, tenant: str = "default") -> str:
    """Return the access key of a grant, request or session of the story."""
    return access_key(tenant, source, id)


def bare(text: str) -> str:
    """Return a key without the scope of the story, if it has that; of a finding about a source, without its tenant."""
    about_source = text.startswith("default/") and text.count("/") == 2
    return text.removeprefix("default/" if about_source else key(""))


def lives(draw: random.Random, count: int) -> list[Fact]:
    """Return the facts of random lives: overlaps, extensions, credentials that end by themselves, weak, late and
    repeated removals, sessions, approvals.

    Some arrive late, so that the sequence has temporary gaps, and a removal may arrive before its activation.
    """
    events: list[tuple[float, str, dict[str, Any]]] = []
    for number in range(draw.randint(1, 5)):
        grant = f"g{number}"
        who, what = draw.choice(["alice", "bob"]), draw.choice(["db", "host"])
        common = {"grant": grant, "who": who, "what": what, "request_id": draw.choice(["", f"r{number}", "r0"])}
        begin = draw.randint(0, 400)
        ends = draw.choice([None, begin + draw.randint(-50, 300), begin + 200])
        by_itself = draw.choice([0.0, 0.0, 0.8])
        events.append((begin, "grant.activated", common | {"ends": ends, "ends_by_itself": draw.random() < by_itself}))
        for _ in range(draw.randint(0, 2)):
            kind = draw.choice(["grant.extended", "grant.extended", "grant.activated"])
            again = {"ends": begin + draw.randint(0, 600), "ends_by_itself": draw.random() < by_itself}
            events.append((begin + draw.randint(0, 400), kind, common | again))
        for _ in range(draw.randint(0, 3)):
            evidence = draw.choice(["none", "deadline", "api_accepted", "confirmed", "confirmed"])
            removed = common | {"removal": evidence, "source": draw.choice([VAULT, VAULT, VAULT, CHECKER])}
            when = begin + draw.randint(1, 900)
            for again in range(draw.choice([1, 1, 1, 1, 30])):  # some tools repeat it
                events.append((when + again * draw.choice([1, 7]), "grant.revoked", removed))
            if common["request_id"] and draw.random() < 0.3:  # of the whole request
                events.append((when + 3, draw.choice(["grant.revoked", "grant.extended"]),
                               removed | {"grant": "", "ends": when + 200}))  # fmt: skip
        if common["request_id"]:
            reviewer = draw.choice([who, "carol", "dan"])
            decision = Decision(reviewer, draw.choice(["approved", "pending"]))
            events.append((begin + draw.randint(-30, 90), "request.approved", common | {"decisions": (decision,)}))
        if draw.random() < 0.6:
            named = draw.choice([grant, "", "unknown grant"])
            session = {"who": who, "what": what, "session_id": f"s{number}", "grant": named}
            begun = begin + draw.randint(-100, 500)
            events.append((begun, "session.started", session))
            if draw.random() < 0.7:
                events.append((begun + draw.choice([3, draw.randint(0, 500)]), "session.ended", session))
    events.sort(key=lambda one: one[0])
    sent = []
    for when, kind, more in events[:count]:
        late = draw.choice([0, 0, 0, 0, 1, 45, 300])
        sent.append((when + late, kind, more | {"occurred": at(when + draw.choice([0, 0, 0, -40, 500]))}))
    story = Story()
    for when, kind, more in sorted(sent, key=lambda one: one[0]):
        story.say(when, kind, **more)
        if draw.random() < 0.1:  # the same event again, or other content under its id
            again = replace(story.facts[-1], index=len(story.facts), content=draw.choice([b"other", b"another"]))
            story.facts.append(again)
    return story.facts
