"""Alert configuration: a TOML file. It contains no secrets, only where each of them is."""

from __future__ import annotations

import re
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from ...base.secret import SecretReference
from ...webhooks.endpoint import Endpoint, SignedEndpoint, is_exposed
from .finding import SCOPE, FindingEvent, at_least
from .schedule import DeliveryRules

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
OWN_LABELS = (
    "alertname", "rule", "severity", "key", "deadline", "deployment", *SCOPE, "subject", "resource",
    "resource_kind", "environment", "entitlement", "person", "tool",
)  # fmt: skip
"""Labels of every alert whose finding has the fact. Another value in one of them would make it another alert."""


def _web_address(text: str) -> str:
    if text and urlsplit(text).scheme not in ("http", "https"):
        raise ValueError("must be http(s)://…")
    return text


WebAddress = Annotated[str, AfterValidator(_web_address)]


class _Channel(Endpoint):
    min_severity: Literal["info", "warning", "critical"] = "info"
    rules: tuple[str, ...] = ("*",)
    timeout_seconds: float = Field(10.0, gt=0, le=60)
    backoff_seconds: float = Field(1.0, gt=0, le=60)
    backoff_cap_seconds: float = Field(300.0, gt=0, le=3600)
    give_up_seconds: float = Field(86_400.0, ge=0, le=2_592_000)

    def accepts(self, finding: FindingEvent) -> bool:
        """Whether a finding goes to this channel."""
        matches = any(fnmatchcase(finding.rule, pattern) for pattern in self.rules)
        return matches and at_least(finding.severity, self.min_severity)

    def delivery(self) -> DeliveryRules:
        """Return how this channel delivers."""
        return DeliveryRules(backoff=self.backoff_seconds, cap=self.backoff_cap_seconds, give_up=self.give_up_seconds)


class AlertmanagerChannel(_Channel):
    """Posts to the API v2 of one Alertmanager. Each member of a cluster is a channel of its own."""

    kind: Literal["alertmanager"]
    interval_seconds: float = Field(60.0, ge=0.1, le=600)
    ends_after_seconds: float = Field(300.0, ge=0.5, le=86_400)
    ending_posts: int = Field(3, ge=1, le=20)
    batch: int = Field(100, ge=1, le=1000)
    user: str = ""
    password: SecretReference | None = None
    token: SecretReference | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    link: WebAddress = ""

    @field_validator("labels")
    @classmethod
    def _additional_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for name, value in labels.items():
            if not _LABEL.fullmatch(name) or not value:
                raise ValueError(f"{name!r} must consist of letters, digits and _, and its value must not be empty")
            if name in OWN_LABELS:
                raise ValueError(f"{name!r} is a label of every alert already")
        return labels

    @model_validator(mode="after")
    def _consistent(self) -> AlertmanagerChannel:
        if bool(self.user) != (self.password is not None):
            raise ValueError("user and password go together")
        if self.user and self.token is not None:
            raise ValueError("give either user and password, or token")
        if (self.user or self.token) and is_exposed(self.url):
            raise ValueError("a password or token needs https, except on loopback")
        if self.ends_after_seconds < 3 * self.interval_seconds:
            raise ValueError("ends_after_seconds must be at least three times interval_seconds")
        return self

    def delivery(self) -> DeliveryRules:
        """Return how this channel delivers."""
        cap = min(self.backoff_cap_seconds, self.interval_seconds)
        repeat, posts = self.interval_seconds, self.ending_posts
        return replace(super().delivery(), cap=cap, repeat=repeat, ending_posts=posts, batch=self.batch)


class WebhookChannel(_Channel, SignedEndpoint):
    """Posts each change of a finding once, signed (Standard Webhooks)."""

    kind: Literal["webhook"]
    secret: SecretReference


AnyChannel = Annotated[AlertmanagerChannel | WebhookChannel, Field(discriminator="kind")]


class AlertConfig(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first_start_hours: float = Field(168.0, ge=0)
    """Findings that opened longer ago than this before the very first start are not sent."""
    keep_days: float = Field(90.0, ge=1)
    """Retention of deliveries and of settled messages."""
    storm_after: int = Field(20, ge=1)
    """Findings of one rule and tool in an hour that are sent one by one. One message stands for more."""
    runbook_base_url: WebAddress = ""
    """Where people read this repository's files; alerts link to ``docs/findings.md`` under it."""
    channels: dict[str, AnyChannel] = Field(min_length=1)

    @field_validator("channels")
    @classmethod
    def _names(cls, channels: dict[str, Any]) -> dict[str, Any]:
        for name in channels:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} must be lower-case letters, digits, - and _, at most 40")
        return channels
