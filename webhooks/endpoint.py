"""An HTTP address with its TLS files and its timeout, in the configuration of alerts and enforcement."""

from __future__ import annotations

import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ..base.toml import ConfigError


def _checked(url: str) -> str:
    if any(not "!" <= character <= "~" for character in url):
        raise ValueError("must be ASCII without spaces; write other characters as %XX")
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a user or a password")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        raise ValueError("must be http(s)://host[:port][/path]")
    _ = parts.port  # raises ValueError for an invalid port
    return url


Url = Annotated[str, AfterValidator(_checked)]


def is_exposed(url: str) -> bool:
    """Whether requests to a URL cross a network in the clear."""
    parts = urlsplit(url)
    if parts.scheme != "http":
        return False
    try:
        return not ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname != "localhost"


class Endpoint(BaseModel):
    """Where to send, and how to connect.

    Attributes:
        timeout_seconds: limit of a whole exchange: connection, TLS, request and answer.
        ca_file: certificates to trust instead of the system's.
        cert_file: our client certificate; its key is in ``key_file`` or in the same file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Url
    timeout_seconds: float = Field(10.0, gt=0, le=120)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @model_validator(mode="after")
    def _tls_files_fit(self) -> Endpoint:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file")
        if not self.url.startswith("https:") and (self.ca_file or self.cert_file):
            raise ValueError("ca_file and cert_file need an https url")
        return self

    def tls(self, key: str) -> ssl.SSLContext:
        """Return a context with these TLS files.

        Args:
            key: the configuration key of the endpoint, for the error.

        Raises:
            ConfigError: a file cannot be read or has the wrong content.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:
            raise ConfigError(f"{key}: the TLS files cannot be used: {error.strerror or error}") from None
        return context


class SignedEndpoint(Endpoint):
    """An endpoint for signed messages, which never cross a network in the clear."""

    @model_validator(mode="after")
    def _private(self) -> SignedEndpoint:
        if is_exposed(self.url):
            raise ValueError("http is for loopback addresses only; use https")
        return self
