"""The configuration of the gateway: its address, limits, sources and tokens, from a TOML file with mode 0600."""

from __future__ import annotations

import ipaddress
import stat
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from ...base.errors import UsageError
from ...base.secret import SecretReference
from ...base.toml import ConfigError, load_toml
from ...schemas.event import DEFAULT_TENANT
from ...schemas.own_sources import PREFIX
from ..adapters import adapter_class
from ..redaction.redactor import Level

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Text = Annotated[str, Field(min_length=1, max_length=255)]
MIB = 1024 * 1024
_ADDRESS = r"^(\[[0-9a-fA-F:.]+\]|[0-9.]+):\d{1,5}$"


class GatewaySource(BaseModel):
    """A source: who sends, in whose name and for which tenant. Its requests cannot change these.

    Attributes:
        name: identifies the credential, in logs, metrics and basic authentication.
        tool: its records come to ``/ingest/{tool}`` and ``/v1/logs``, through the adapter of this tool.
        mapping: the mapping file of the tool, if any.
        system: it sends our own events to ``/v1/events``, in the name of this system. Either ``tool`` or ``system``.
        instance: ``source.instance`` of its events.
        instance_from_records: each record names its instance, such as the account of CloudTrail. Only for a tool.
        source_key: signs its events, as a registered source must.
        certificate_names: names in a client certificate (DNS, URI or e-mail of the SAN, or the common name).
        webhook_secret: signs its requests by Standard Webhooks.
        redaction: the level of redaction; None: that of the deployment.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    mapping: Path | None = None
    tool: str | None = Field(None, validate_default=True)
    system: Text | None = None
    instance: Text | None = None
    instance_from_records: bool = False
    tenant: Text = DEFAULT_TENANT
    source_key: Path | None = None
    requests_per_second: float = Field(1000.0, gt=0, le=1_000_000)
    certificate_names: tuple[Text, ...] = ()
    webhook_secret: SecretReference | None = None
    redaction: Level | None = None

    @field_validator("tool")
    @classmethod
    def _is_known(cls, tool: str | None, info: ValidationInfo) -> str | None:
        mapping = info.data.get("mapping")
        if tool is None and mapping is not None:
            raise ValueError("mapping is for the records of a tool: name the tool")
        try:
            if tool is not None:
                adapter_class(tool, mapping)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return tool

    @field_validator("system")
    @classmethod
    def _is_not_ours(cls, system: str | None) -> str | None:
        if system is not None and system.startswith(PREFIX):
            raise ValueError(f"names that begin with {PREFIX} are those of the pipeline's own sources")
        return system

    @model_validator(mode="after")
    def _is_bound(self) -> Self:
        if (self.tool is None) == (self.system is None):
            raise ValueError("give either tool, whose records it sends, or system, the name of a sender of events")
        if self.instance_from_records and self.tool is None:
            raise ValueError("instance_from_records is only for the records of a tool")
        if self.instance_from_records == (self.instance is not None):
            raise ValueError("give either instance or instance_from_records = true")
        return self

    @property
    def source_system(self) -> str:
        """``source.system`` of its events."""
        return self.tool or self.system or ""


class GatewayToken(BaseModel):
    """A token of a source: only its SHA-256 is known here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Name
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created: datetime | None = None


class GatewaySyslog(BaseModel):
    """A listener for syslog that carries a tool's records.

    Attributes:
        source: whose messages these are; with TLS, the client certificate decides instead.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: Literal["udp", "tcp", "tls"]
    listen: str = Field(pattern=_ADDRESS)
    source: Name | None = None

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if self.protocol == "tls":
            if self.source is not None:
                raise ValueError("source: with tls, the client certificate decides (certificate_names)")
        elif self.source is None:
            raise ValueError(f"source is required with {self.protocol}")
        elif not is_loopback(self.listen):
            raise ValueError(f"listen: {self.protocol} has no credential, so only a loopback address is allowed")
        return self


class GatewayConfig(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: str = Field("127.0.0.1:8480", pattern=_ADDRESS)
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    max_body_mebibytes: int = Field(4, ge=1, le=256)
    max_decoded_mebibytes: int = Field(16, ge=1, le=1024)
    spool_file: Path | None = None
    spool_mebibytes: int = Field(1024, ge=1, le=1024 * 1024)
    source: Annotated[tuple[GatewaySource, ...], Field(min_length=1)]
    token: tuple[GatewayToken, ...] = ()
    syslog: tuple[GatewaySyslog, ...] = ()

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together")
        if not self.is_loopback and self.tls_certificate is None:
            raise ValueError(
                f"listen: {self.listen} is not a loopback address, so tls_certificate and tls_key are required: tokens "
                "and records would cross the network in the clear"
            )
        names = Counter(one.name for one in self.source)
        if twice := sorted(name for name, count in names.items() if count > 1):
            raise ValueError(f"two sources are named {twice[0]}")
        certificates = Counter(name for one in self.source for name in one.certificate_names)
        if twice := sorted(name for name, count in certificates.items() if count > 1):
            raise ValueError(f"certificate_names: {twice[0]} belongs to two sources")
        if certificates and self.client_ca is None:
            raise ValueError("certificate_names needs client_ca, which issued the certificates of the clients")
        if unknown := sorted({one.source for one in self.token} - names.keys()):
            raise ValueError(f"token: there is no source {unknown[0]}")
        for listener in self.syslog:
            if listener.protocol == "tls" and (self.client_ca is None or self.tls_certificate is None):
                raise ValueError("syslog: tls needs tls_certificate, tls_key and client_ca")
            if listener.source is not None and not any(
                listener.source == each.name and each.tool for each in self.source
            ):
                raise ValueError(f"syslog: there is no source {listener.source} with a tool")
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.listen)

    def without_credential(self) -> list[str]:
        """Return the names of the sources that nobody could use."""
        given = {token.source for token in self.token} | {listener.source for listener in self.syslog}
        return [
            one.name
            for one in self.source
            if one.name not in given and not one.certificate_names and one.webhook_secret is None
        ]


def address_of(listen: str) -> tuple[str, int]:
    """Return the IP address and the port to listen on."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(listen: str) -> bool:
    """Return whether only this machine can connect. Raises ValueError for what is no address."""
    return ipaddress.ip_address(address_of(listen)[0]).is_loopback


def load_gateway_config(path: Path) -> GatewayConfig:
    """Read the file.

    Raises:
        ConfigError: it names every problem with its line, or others can access the file.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"{path}: others can access this file, which decides who may send; run: chmod 600 {path}")
    return load_toml(path, GatewayConfig)
