"""Channel ``alertmanager``: API v2 of Prometheus Alertmanager, posted again and again as Prometheus itself does.

An alert is the same as long as its labels are. Alertmanager forgets what is not repeated before its ``endsAt``, and
its own memory when it is replaced; repeating brings an alert back there and never pages twice.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from ...ledger.batch import micros_of
from .channel import USER_AGENT, Envelope, Post, poster
from .config import AlertmanagerChannel
from .core import Result
from .finding import FindingEvent, label, printable, rfc3339
from .http import Answer, judge

API_PATH = "/api/v2/alerts"
ANNOTATION_LENGTH = 2000
MILLISECOND = 1000
"""Microseconds: an alert must end after it began."""
SPLIT_ON = frozenset({400, 413, 422})
"""Answers that one bad alert may bring upon a batch."""

SUMMARIES = {
    "overdue": "access is past its deadline and its removal is not on record",
    "session_outlived_grant": "a session goes on after its grant ended",
    "no_deadline": "access was granted without a deadline",
    "no_approval": "access was granted without the approvals that the policy asks for",
    "self_approved": "the holder approved the access",
    "extended_beyond_policy": "access was extended beyond what the policy allows",
    "used_without_grant": "a session has no grant that covers it",
    "removal_unconfirmed": "a removal was asked for and is not confirmed",
    "clock_skew": "a source's clock is ahead",
    "source_silent": "a source that used to report is silent",
    "sequence_gap": "events of a source are missing",
    "event_conflict": "one event id stands for two different events",
}
"""What a rule means, for a person who is woken."""


class Alertmanager:
    """Posts alerts.

    Args:
        clock: seconds since 1970.

    Raises:
        AlertConfigError: a secret or a TLS file is not there, or not right.
    """

    def __init__(self, name: str, config: AlertmanagerChannel, clock: Callable[[], float]) -> None:
        place = f"channels.{name}"
        self._config, self._clock = config, clock
        self._headers = {"content-type": "application/json", "user-agent": USER_AGENT}
        if config.password is not None:
            pair = f"{config.user}:{config.password.read(f'{place}.password')}"
            self._headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        elif config.token is not None:
            self._headers["authorization"] = f"Bearer {config.token.read(f'{place}.token')}"
        parts = urlsplit(config.url)
        path = parts.path.rstrip("/").removesuffix(API_PATH) + API_PATH
        self._poster = poster(place, urlunsplit((parts.scheme, parts.netloc, path, "", "")), config)

    def message(self, finding: FindingEvent) -> str:
        """Return the alert without its end, as it is kept in the outbox."""
        alert: dict[str, Any] = {
            "labels": labels_of(finding) | self._config.labels,
            "annotations": annotations_of(finding),
            "startsAt": rfc3339(min(finding.at, finding.appended)),
        }
        if self._config.link:
            alert["generatorURL"] = _filled(self._config.link, finding)
        return json.dumps(alert, ensure_ascii=False)

    def ending(self, finding: FindingEvent, opened: str) -> str:
        """Return the ended alert: labels and beginning of the opening, whatever the configuration says meanwhile."""
        alert: dict[str, Any] = json.loads(opened)
        ended = max(rfc3339(min(finding.at, finding.appended)), _just_after(alert["startsAt"]))
        alert["annotations"] |= {"resolved_at": ended, "resolution": evidence_of(finding)}
        return json.dumps(alert | {"endsAt": ended}, ensure_ascii=False)

    def send(self, envelopes: Sequence[Envelope]) -> list[Post]:
        """Post all alerts together; where Alertmanager refuses, in halves, so that a bad one is alone in the end."""
        outcome = judge(self._post(envelopes), show_text=True)
        if outcome.result is Result.refused and outcome.status in SPLIT_ON and len(envelopes) > 1:
            middle = len(envelopes) // 2
            return self.send(envelopes[:middle]) + self.send(envelopes[middle:])
        return [Post(tuple(envelope.number for envelope in envelopes), outcome)]

    def _post(self, envelopes: Sequence[Envelope]) -> Answer:
        now = self._clock()
        open_until = rfc3339(int((now + self._config.ends_after_seconds) * 1_000_000))
        alerts = [{"endsAt": open_until} | json.loads(envelope.text) for envelope in envelopes]
        return self._poster.post(json.dumps(alerts, ensure_ascii=False).encode(), self._headers, now)


def labels_of(finding: FindingEvent) -> dict[str, str]:
    """Return what makes an alert the same alert. Alertmanager takes no empty label."""
    facts = finding.facts
    words = re.findall(r"[A-Za-z0-9]+", finding.rule)
    found = {
        "alertname": "Grantledger" + "".join(word[0].upper() + word[1:] for word in words),
        "rule": finding.rule,
        "severity": finding.severity,
        "key": finding.key,
        "deadline": finding.deadline,
        **{
            name: facts.get(name, "")
            for name in ("deployment", "tenant", "subject", "resource", "resource_kind", "environment", "entitlement")
        },
    }
    return {name: label(text) for name, text in found.items() if text}


def annotations_of(finding: FindingEvent) -> dict[str, str]:
    """Return what a person needs to know: a sentence, the evidence, and where in the ledger it stands."""
    facts = finding.facts
    found = {
        "summary": summary_of(finding),
        "evidence": evidence_of(finding),
        "opened_at": rfc3339(finding.at),
        "event_id": finding.event_id,
        **{name: facts.get(name, "") for name in ("entry", "grant_id", "request_id", "session_id", "subject_email")},
    }
    return {name: printable(text, ANNOTATION_LENGTH) for name, text in found.items() if text}


def evidence_of(finding: FindingEvent) -> str:
    """Return the evidence as one line."""
    return printable(json.dumps(finding.facts.get("evidence", {}), ensure_ascii=False), ANNOTATION_LENGTH)


def summary_of(finding: FindingEvent) -> str:
    """Return one sentence: what, who, on what, since when."""
    facts = finding.facts
    what = SUMMARIES.get(finding.rule, finding.rule.replace("_", " "))
    where = " ".join(facts.get(name, "") for name in ("entitlement", "resource") if facts.get(name))
    environment = f" ({facts['environment']})" if facts.get("environment") else ""
    parts = [f"{what}: {facts.get('subject') or finding.key}"]
    if where:
        parts.append(f"{where}{environment}")
    if finding.deadline:
        parts.append(f"deadline {finding.deadline[:19]}Z")
    if finding.key != facts.get("subject"):
        parts.append(f"key {finding.key}")
    return ", ".join(parts)


def _filled(link: str, finding: FindingEvent) -> str:
    for name in ("key", "rule", "deadline"):
        link = link.replace(f"{{{name}}}", quote(getattr(finding, name), safe=""))
    return link


def _just_after(time: str) -> str:
    return rfc3339(micros_of(datetime.fromisoformat(time)) + MILLISECOND)
