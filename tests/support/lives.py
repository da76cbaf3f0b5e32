"""Random lives of grants of several tenants and sources, as events in the order of the log, and policies for them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.source_keys import SourceKeys
from grantledger.processors.watch.findings import config_event
from grantledger.processors.watch_policy import AccessLimits, AccessRule, Reporter, WatchPolicy
from grantledger.schemas.event import IssuingSource, Resource

from .access_store import DEPLOYMENT, Record, Story
from .sources import Registrar, key_of

REPORTERS = (Reporter(system="check*", source="vau?t", may=frozenset({"remove", "extend"})),)
BELIEVED = (
    AccessRule(source="va?l*", ends_by_itself=True),
    AccessRule(source="vault", tenant="globex", resource="r0", ends_by_itself=False),
)
POLICIES = {
    "plain": WatchPolicy(default=AccessLimits(grace_seconds=120), reporter=REPORTERS, rule=BELIEVED),
    "endless": WatchPolicy(
        default=AccessLimits(grace_seconds=0, max_seconds=1800, ends_by_itself=True), reporter=REPORTERS
    ),
    "lenient": WatchPolicy(
        default=AccessLimits(grace_seconds=60),
        reporter=REPORTERS,
        rule=(
            *BELIEVED,
            AccessRule(resource="r1", removal=frozenset({"confirmed", "api_accepted"})),
            AccessRule(resource="r2", removal=frozenset({"confirmed", "deadline"}), grace_seconds=600),
            AccessRule(source="teleport", removal=frozenset({"confirmed", "deadline"})),
        ),
    ),
}


def registered() -> tuple[SourceKeys, dict[str, LocalSigner]]:
    """Return registered sources and their keys: one tool, and those of the pipeline that report about its grants."""
    registrar = Registrar(DEPLOYMENT)
    signers = {"vault": LocalSigner.generate(), "grantledger-enforcer": LocalSigner.generate()}
    signers |= registrar.init("grantledger-watch")
    for system in ("vault", "grantledger-enforcer"):
        assert registrar.register(system, "eu-1", [key_of(signers[system])], 0, initial=True)
    return registrar.keys, signers


KEYS, SIGNERS = registered()


def lives(draw: random.Random, count: int) -> Story:
    """Grants of every kind, some of which share their access. Some events are long on their way, past removals too."""
    story = Story(signers=SIGNERS)
    told: list[tuple[float, Callable[[], Any]]] = []
    looks = random.Random(count)
    for number in range(count):
        name = f"g{number // 2}"  # the same id in two tenants
        who = {
            "tenant": draw.choice(["acme", "globex"]),
            "subject": draw.choice(["alice", "bob"]) if draw.random() < 0.1 else f"user-{number}",
        }
        who |= {"system": draw.choice(["vault", "vault", "teleport", "bot"])}
        about = {**who, "resource": Resource("database", draw.choice(["r0", "r1", "r2"]), "production")}
        if draw.random() < 0.4:  # some requests have several grants
            about["request_id"] = f"q{number // 20}"
        begin = draw.uniform(-200, -5)
        ends = draw.choice([None, begin + draw.uniform(-5, 150), 60.0])
        seen = begin + draw.choice([0, 0, -3, 30])
        come = min(begin + draw.choice([0, 0, 0, 70, 190]), -1)
        by_itself = draw.choice([0.0, 0.9, 1.0])
        ends_first = {**about, "ends_by_itself": draw.random() < by_itself}
        told.append((come, lambda n=name, b=come, e=ends, s=seen, a=ends_first: story.give(n, b, e, seen=s, **a)))
        for _ in range(draw.choice([1, 2]) if by_itself else 0):  # another credential of the same grant
            more = draw.uniform(begin, -1)
            end = draw.choice([ends, more + draw.uniform(-5, 60)])
            ends_so = {**about, "ends_by_itself": draw.random() < by_itself}
            told.append((more, lambda n=name, b=more, e=end, a=ends_so: story.give(n, b, e, **a)))
        for _ in range(draw.choice([0, 0, 1, 2])):
            again = draw.uniform(begin, -1)
            longer = draw.choice([None, again + draw.uniform(-10, 60), 90.0])
            come = min(again + draw.choice([0, 0, 50, 190]), -1)
            told.append(
                (come, lambda n=name, b=come, e=longer, s=again, a=about: story.give(n, b, e, seen=s, again=True, **a))
            )
        for _ in range(draw.choice([0, 1, 1, 2])):
            when = draw.uniform(begin, -1)
            evidence = draw.choice(["confirmed", "confirmed", "api_accepted", "deadline", "none"])
            come = min(when + draw.choice([0, 0, 0, 40]), -1)
            told.append((come, lambda n=name, c=come, w=when, v=evidence, a=about: story.remove(n, c, v, seen=w, **a)))
        for claim in range(draw.choice([0, 0, 1, 2])):
            when = draw.uniform(begin, -1)
            by = draw.choice(["evil", "checker", "grantledger-enforcer"])
            wrong = draw.choice([{}, {}, {"subject": "mallory"}, {"entitlement": "ro"}])
            named = IssuingSource(str(about["system"]), "eu-1")
            claimed = {**about, "grant_source": draw.choice([named, named, None]), "system": by, **wrong}
            if claim or draw.random() < 0.7:
                told.append((when, lambda n=name, w=when, a=claimed: story.remove(n, w, **a)))
            else:
                told.append((when, lambda n=name, w=when, a=claimed: story.give(n, w, 90.0, again=True, **a)))
        for _ in range(draw.choice([0, 0, 1, 2]) if "request_id" in about else 0):  # of the whole request
            when, by = draw.uniform(begin - 5, -1), draw.choice([about["system"]] * 3 + ["checker", "evil"])
            named = {"grant_source": None, "request_source": IssuingSource(str(about["system"]), "eu-1")}
            whole = {**about, **named, "system": by, "grant_id": None}
            if draw.random() < 0.6:
                told.append((when, lambda w=when, a=whole: story.remove("", w, **a)))
            else:
                later = when + draw.uniform(-10, 90)
                told.append((when, lambda w=when, e=later, a=whole: story.give("", w, e, again=True, **a)))
        if looks.random() < 0.3:
            when = looks.uniform(begin, -1)
            wrong = looks.choice([{}, {}, {}, {"entitlement": "ro"}, {"outcome": "failure"}])
            named = IssuingSource(str(about["system"]), "eu-1")
            by = looks.choice(["grantledger-enforcer", "grantledger-enforcer", "checker", "evil", about["system"]])
            seen = {**about, "grant_source": named, "system": by, **wrong}
            told.append((when, lambda n=name, w=when, a=seen: story.observe(n, w, **a)))
        if draw.random() < 0.1:
            back = draw.uniform(begin, -1)
            told.append((back, lambda n=name, b=back, a=about: story.give(n, b, b + 20, **a)))
    for number in range(40):  # reported long after their end, and looked up
        about = {"system": "vault", "resource": Resource("database", f"old-{number % 3}"), "subject": f"old-{number}"}
        wrong = looks.choice([{}, {}, {}, {"entitlement": "ro"}, {"outcome": "failure"}])
        by = looks.choice([*["grantledger-enforcer"] * 3, "checker", "evil", "vault"])
        seen = {**about, "grant_source": IssuingSource("vault", "eu-1"), "system": by, **wrong}
        name, end, when = f"old-{number}", looks.choice([-190, -185, None]), looks.uniform(-80, -5)
        told.append((-70, lambda n=name, e=end, a=about: story.give(n, -70, e, seen=-195, **a)))
        told.append((when, lambda n=name, w=when, a=seen: story.observe(n, w, **a)))
        if looks.random() < 0.3:
            gone = looks.uniform(-80, -5)
            told.append((gone, lambda n=name, w=gone, a=about: story.remove(n, w, **a)))
        if looks.random() < 0.2:
            again = looks.uniform(-60, -5)
            told.append((again, lambda n=name, b=again, a=about: story.give(n, b, -190, seen=-194, again=True, **a)))
    for _, tell in sorted(told, key=lambda one: one[0]):
        tell()
    return story


def policy_record(story: Story, policy: WatchPolicy) -> Record:
    """Return the record by which the watch puts its policy on record."""
    told = Story(story.now, signers=SIGNERS)
    told.add(config_event(DEPLOYMENT, policy, story.now), 0)
    return told.records[0]
