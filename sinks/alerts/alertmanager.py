"""Channel ``alertmanager``: API v2 of Prometheus Alertmanager, posted repeatedly as Prometheus itself does.

Equal labels make the same alert. Alertmanager forgets an alert that is not repeated before its ``endsAt``, and forgets
all of them when it is replaced; repeating restores an alert and never pages twice. An acknowledgement is a silence.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from ...base.times import micros_of
from ...webhooks.answer import Answer, SendResult
from ...webhooks.sender import WebhookSender
from .channel import USER_AGENT, Envelope, Exchange
from .config import OWN_LABELS, AlertmanagerChannel
from .finding import FindingEvent, label, rfc3339, shown_text
from .page import description, headline, page_of

API_PATH = "/api/v2"
ANNOTATION_LENGTH = 2000
MILLISECOND = 1000
"""Microseconds. An alert must end after it began."""
SPLIT_ON = frozenset({400, 413, 422})
"""Statuses of a batch that one bad alert can cause."""
SILENCE_SECONDS = 30 * 86_400
"""How long an acknowledgement lasts. A finding that is open for longer notifies again."""


class Alertmanager:
    """Posts alerts, and silences for acknowledged findings."""

    def __init__(
        self, key: str, config: AlertmanagerChannel, clock: Callable[[], float], runbook_base_url: str = ""
    ) -> None:
        self._config, self._clock, self._runbook_base_url = config, clock, runbook_base_url
        self._headers = {"content-type": "application/json", "user-agent": USER_AGENT}
        if config.password is not None:
            pair = f"{config.user}:{config.password.read(f'{key}.password')}"
            self._headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        elif config.token is not None:
            self._headers["authorization"] = f"Bearer {config.token.read(f'{key}.token')}"
        parts = urlsplit(config.url)
        path = parts.path.rstrip("/").removesuffix("/alerts").removesuffix(API_PATH) + API_PATH
        address = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        self._alerts = WebhookSender(config, key, f"{address}/alerts", clock)
        self._silences = WebhookSender(config, key, f"{address}/silences", clock)

    def message(self, finding: FindingEvent, opened: str = "") -> str:
        """Return the alert without its end, or ended, or its silence: always with the labels of the opening."""
        if finding.change == "opened":
            alert: dict[str, Any] = {
                "labels": labels_of(finding) | self._config.labels,
                "annotations": annotations_of(finding, self._runbook_base_url),
                "startsAt": rfc3339(min(finding.at, finding.appended)),
            }
            if self._config.link:
                alert["generatorURL"] = _filled(self._config.link, finding)
            return json.dumps(alert, ensure_ascii=False)
        alert = json.loads(opened)
        if finding.change == "acknowledged":
            equal = {"isRegex": False, "isEqual": True}
            silence = {
                "matchers": [{"name": name, "value": value, **equal} for name, value in alert["labels"].items()],
                "startsAt": rfc3339(finding.at),
                "endsAt": rfc3339(finding.at + SILENCE_SECONDS * 1_000_000),
                "createdBy": finding.facts.get("actor") or "unknown",
                "comment": shown_text(finding.facts.get("reason") or "acknowledged", ANNOTATION_LENGTH),
            }
            return json.dumps(silence, ensure_ascii=False)
        ended = max(rfc3339(min(finding.at, finding.appended)), _just_after(alert["startsAt"]))
        alert["annotations"] |= {"resolved_at": ended, "resolution": evidence_of(finding)}
        if finding.change == "closed":
            alert["annotations"] |= {
                f"closed_{name}": shown_text(finding.facts.get(fact, ""), ANNOTATION_LENGTH)
                for name, fact in (("by", "actor"), ("reason", "reason"))
            }
        return json.dumps(alert | {"endsAt": ended}, ensure_ascii=False)

    def send(self, envelopes: Sequence[Envelope]) -> list[Exchange]:
        """Post silences one by one and alerts together. A rejected batch is split until the bad alert is alone."""
        silences = [one for one in envelopes if one.change == "acknowledged"]
        exchanges = [
            Exchange((one.number,), _explained(self._silences.post(one.text.encode(), self._headers)))
            for one in silences
        ]
        alerts = [one for one in envelopes if one.change != "acknowledged"]
        return exchanges + (self._send_alerts(alerts) if alerts else [])

    def _send_alerts(self, envelopes: Sequence[Envelope]) -> list[Exchange]:
        open_until = rfc3339(int((self._clock() + self._config.ends_after_seconds) * 1_000_000))
        alerts = [{"endsAt": open_until} | json.loads(envelope.text) for envelope in envelopes]
        answer = self._alerts.post(json.dumps(alerts, ensure_ascii=False).encode(), self._headers)
        if answer.result is SendResult.rejected and answer.status in SPLIT_ON and len(envelopes) > 1:
            middle = len(envelopes) // 2
            return self._send_alerts(envelopes[:middle]) + self._send_alerts(envelopes[middle:])
        return [Exchange(tuple(envelope.number for envelope in envelopes), _explained(answer))]


def labels_of(finding: FindingEvent) -> dict[str, str]:
    """Return the labels, which identify an alert. Alertmanager accepts no empty label."""
    name = "".join(part[0].upper() + part[1:] for part in re.findall(r"[A-Za-z0-9]+", finding.rule))
    page = page_of(finding)
    found = finding.facts | {
        **{name: page.get(name, "") for name in ("person", "tool")},
        "alertname": f"Grantledger{name}",
        "rule": finding.rule,
        "severity": finding.severity,
        "key": finding.key,
        "deadline": finding.deadline,
    }
    return {name: label(found[name]) for name in OWN_LABELS if found.get(name)}


def annotations_of(finding: FindingEvent, runbook_base_url: str = "") -> dict[str, str]:
    """Return the information for a person: everything that a page needs, evidence, and the position in the ledger."""
    facts = finding.facts
    found = {
        "summary": headline(finding),
        **page_of(finding),
        "runbook_url": finding.runbook_at(runbook_base_url),
        "evidence": evidence_of(finding),
        "opened_at": rfc3339(finding.at),
        "event_id": finding.event_id,
        **{name: facts.get(name, "") for name in ("entry", "grant_id", "request_id", "session_id", "subject_email")},
    }
    shown = {name: shown_text(text, ANNOTATION_LENGTH) for name, text in found.items() if text}
    return shown | {"description": description(finding, runbook_base_url)}


def evidence_of(finding: FindingEvent) -> str:
    """Return the evidence as one line."""
    return shown_text(json.dumps(finding.facts.get("evidence", {}), ensure_ascii=False), ANNOTATION_LENGTH)


def _explained(answer: Answer) -> Answer:
    """Return an answer whose detail quotes Alertmanager's error, which contains nothing secret."""
    text = answer.body.decode("utf-8", "replace").strip()
    if (answer.status or 0) < 400 or not text:
        return answer
    return replace(answer, detail=f"{answer.detail}: {shown_text(text, 200)}")


def _filled(link: str, finding: FindingEvent) -> str:
    for name in ("key", "rule", "deadline"):
        link = link.replace(f"{{{name}}}", quote(getattr(finding, name), safe=""))
    return link


def _just_after(time: str) -> str:
    return rfc3339(micros_of(datetime.fromisoformat(time)) + MILLISECOND)
