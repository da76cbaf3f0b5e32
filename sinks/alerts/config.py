"""Where alerts go: a TOML file, typed and checked. It holds no secret, only where each of them is."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .core import Rules
from .finding import FindingEvent, at_least

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
OWN_LABELS = (
    "alertname", "rule", "severity", "key", "deadline", "deployment", "tenant", "subject", "resource",
    "resource_kind", "environment", "entitlement",
)  # fmt: skip
"""Labels of every alert, where the finding says so much. With one of them changed it would be another alert."""


class AlertConfigError(Exception):
    """The file is wrong, or a secret that it names is not there. Names the field, and shows no value."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Secret(_Part):
    """Where a secret is: an environment variable, or a file of ours alone whose first line it is."""

    env: str = ""
    file: Path | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Secret:
        if bool(self.env) == (self.file is not None):
            raise ValueError("give either env, the name of an environment variable, or file")
        return self

    def read(self, what: str) -> str:
        """Return the secret.

        Args:
            what: the field, for the error.

        Raises:
            AlertConfigError: it is missing or empty, or others may read the file.
        """
        if self.file is None:
            value = os.environ.get(self.env, "").strip()
            if not value:
                raise AlertConfigError(f"{what}: the environment variable {self.env} is not set")
            return value
        try:
            with self.file.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                line = file.readline(4096)
        except OSError as error:
            raise AlertConfigError(f"{what}: {self.file} cannot be read: {error.strerror}") from None
        if stat.S_IMODE(mode) & 0o077:
            raise AlertConfigError(f"{what}: others may read {self.file}; run: chmod 600 {self.file}")
        try:
            value = line.decode("ascii").strip()
        except UnicodeDecodeError:
            value = ""
        if not value:
            raise AlertConfigError(f"{what}: the first line of {self.file} holds no secret in ASCII")
        return value


class _Channel(_Part):
    url: str
    min_severity: Literal["info", "warning", "critical"] = "info"
    rules: tuple[str, ...] = ("*",)
    timeout_seconds: float = Field(10.0, gt=0, le=60)
    backoff_seconds: float = Field(1.0, gt=0, le=60)
    backoff_cap_seconds: float = Field(300.0, gt=0, le=3600)
    give_up_seconds: float = Field(86_400.0, ge=0, le=2_592_000)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @field_validator("url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ValueError("must hold no user and no password")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
            raise ValueError("must be http(s)://host[:port][/path]")
        if any(not 0x21 <= ord(char) <= 0x7E for char in url):
            raise ValueError("must be in ASCII, without spaces")
        _ = parts.port  # raises ValueError where it is none
        return url

    @model_validator(mode="after")
    def _tls_goes_together(self) -> _Channel:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file")
        if urlsplit(self.url).scheme == "http" and (self.ca_file or self.cert_file):
            raise ValueError("ca_file and cert_file need an https url")
        return self

    @property
    def open_to_others(self) -> bool:
        """Whether what is sent there crosses a network in the clear."""
        parts = urlsplit(self.url)
        return parts.scheme == "http" and not _is_loopback(parts.hostname or "")

    def takes(self, finding: FindingEvent) -> bool:
        """Whether a finding goes to this channel."""
        fits = any(fnmatchcase(finding.rule, pattern) for pattern in self.rules)
        return fits and at_least(finding.severity, self.min_severity)


class AlertmanagerChannel(_Channel):
    """Posts to one Alertmanager's API v2. Of a cluster, each member is a channel of its own."""

    kind: Literal["alertmanager"]
    interval_seconds: float = Field(60.0, ge=0.1, le=600)
    ends_after_seconds: float = Field(300.0, ge=0.5, le=86_400)
    ending_posts: int = Field(3, ge=1, le=20)
    batch: int = Field(100, ge=1, le=1000)
    user: str = ""
    password: Secret | None = None
    token: Secret | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    link: str = ""

    @field_validator("labels")
    @classmethod
    def _labels_of_yours(cls, labels: dict[str, str]) -> dict[str, str]:
        for name, value in labels.items():
            if not _LABEL.fullmatch(name) or not value:
                raise ValueError(f"{name!r} must be letters, digits and _, with a value that is not empty")
            if name in OWN_LABELS:
                raise ValueError(f"{name!r} is a label of every alert already")
        return labels

    @field_validator("link")
    @classmethod
    def _a_link(cls, link: str) -> str:
        if link and urlsplit(link).scheme not in ("http", "https"):
            raise ValueError("must be http(s)://…, with {key}, {rule} and {deadline} where they belong")
        return link

    @model_validator(mode="after")
    def _who_we_are(self) -> AlertmanagerChannel:
        if bool(self.user) != (self.password is not None):
            raise ValueError("user and password go together")
        if self.user and self.token is not None:
            raise ValueError("give either user and password, or token")
        if (self.user or self.token) and self.open_to_others:
            raise ValueError("a password or token needs https, except on loopback")
        if self.ends_after_seconds < 3 * self.interval_seconds:
            raise ValueError("ends_after_seconds must be at least three times interval_seconds")
        return self

    def delivery(self) -> Rules:
        """Return how it delivers."""
        return Rules(
            repeat=self.interval_seconds,
            ending_posts=self.ending_posts,
            batch=self.batch,
            backoff=self.backoff_seconds,
            cap=min(self.backoff_cap_seconds, self.interval_seconds),
            give_up=self.give_up_seconds,
        )


class WebhookChannel(_Channel):
    """Posts each opening and each end once, signed (Standard Webhooks)."""

    kind: Literal["webhook"]
    secret: Secret

    @model_validator(mode="after")
    def _in_private(self) -> WebhookChannel:
        if self.open_to_others:
            raise ValueError("http is for loopback addresses only; use https")
        return self

    def delivery(self) -> Rules:
        """Return how it delivers."""
        return Rules(backoff=self.backoff_seconds, cap=self.backoff_cap_seconds, give_up=self.give_up_seconds)


Channel = Annotated[AlertmanagerChannel | WebhookChannel, Field(discriminator="kind")]


class AlertConfig(_Part):
    """The whole file.

    Attributes:
        first_start_hours: on the very first start, findings that have been open for longer are not sent.
        keep_days: how long deliveries and what is settled are kept.
    """

    first_start_hours: float = Field(168.0, ge=0)
    keep_days: float = Field(90.0, ge=1)
    channels: dict[str, Channel] = Field(min_length=1)

    @field_validator("channels")
    @classmethod
    def _names(cls, channels: dict[str, Any]) -> dict[str, Any]:
        for name in channels:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} must be lower-case letters, digits, - and _, at most 40")
        return channels


def load_config(path: Path) -> AlertConfig:
    """Read the file.

    Raises:
        AlertConfigError: it cannot be read, or a field is wrong; names each.
    """
    try:
        return AlertConfig.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise AlertConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise AlertConfigError(
            "\n".join(
                f"{path}: {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
                for problem in error.errors(include_input=False, include_url=False)
            )
        ) from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise AlertConfigError(f"{path}: {error}") from None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
