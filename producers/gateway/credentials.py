"""Who sends a request: the source whose token, certificate or signature it has."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .config import GatewayConfig
from .problems import ProblemError

TOKEN_PREFIX = "glt_"  # noqa: S105 - a marker, not a secret
MOST_CREDENTIAL_BYTES = 512
WEBHOOK_SECONDS = 300
"""How old a signed request may be, and how far ahead: Standard Webhooks' recommendation."""
CHALLENGES = 'Bearer realm="grantledger", Basic realm="grantledger"'

Verify = Callable[[str, int, bytes, str], bool]
"""Returns whether the value of ``webhook-signature`` is right for an id, a time and a body."""


def new_token() -> str:
    """Return a token: 256 random bits, so its plain SHA-256 cannot be reversed."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def token_digest(token: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Credentials:
    """Finds the source of a request.

    Args:
        webhooks: by the name of a source, what verifies its signatures.
    """

    def __init__(
        self, config: GatewayConfig, webhooks: Mapping[str, Verify], clock: Callable[[], float] = time.time
    ) -> None:
        self._tokens = {bytes.fromhex(one.sha256): one.source for one in config.token}
        self._certificates = {name: one.name for one in config.source for name in one.certificate_names}
        self._webhooks = dict(webhooks)
        self._clock = clock

    def by_header(self, authorization: str | None) -> str | None:
        """Return the source whose token is in ``Authorization``; None without such a header.

        Raises:
            ProblemError: 401, the credential is not that of a source.
        """
        if authorization is None:
            return None
        scheme, _, given = authorization.strip().partition(" ")
        given = given.strip()
        if len(given) <= MOST_CREDENTIAL_BYTES and given.isascii():
            if scheme.lower() == "bearer":
                return self._known(given, None)
            if scheme.lower() == "basic":
                try:
                    user, _, token = base64.b64decode(given, validate=True).decode().partition(":")
                except (binascii.Error, UnicodeDecodeError):
                    raise refused("the header Authorization is not valid basic authentication") from None
                return self._known(token, user)
        raise refused("the header Authorization has neither a bearer token nor basic authentication")

    def by_certificate(self, certificate: Mapping[str, Any] | None) -> str | None:
        """Return the source with a name of a verified client certificate, as ``ssl`` describes it; None without one."""
        return next(
            (self._certificates[name] for name in _names(certificate or {}) if name in self._certificates), None
        )

    def is_webhook(self, headers: Mapping[str, str]) -> bool:
        """Return whether a request is signed by Standard Webhooks."""
        return "webhook-signature" in headers

    def by_signature(self, source: str | None, headers: Mapping[str, str], body: bytes) -> str:
        """Return the source, given in the URL, that has signed a body.

        Raises:
            ProblemError: 401, the signature is not that of this source.
        """
        if not source:
            raise refused("a signed request must name its source in the URL: ?source=NAME")
        message_id, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not message_id or not sent.isascii() or not sent.isdecimal() or len(sent) > 12:
            raise refused("webhook-id or webhook-timestamp is missing or wrong")
        if abs(self._clock() - int(sent)) > WEBHOOK_SECONDS:
            raise refused(f"webhook-timestamp is more than {WEBHOOK_SECONDS} s from now: check the clocks")
        verify = self._webhooks.get(source)
        if verify is None or not verify(message_id, int(sent), body, headers["webhook-signature"]):
            raise refused("webhook-signature is not that of the source in the URL")
        return source

    def _known(self, token: str, user: str | None) -> str:
        digest = hashlib.sha256(token.encode()).digest()
        # The digest of a random token tells nothing about it, so the time of the look-up does not either.
        source = self._tokens.get(digest, "")
        is_user = user is None or hmac.compare_digest(user.encode(), source.encode())
        if not source or not is_user:
            raise refused("the token is not known" if user is None else "the user or the token is not known")
        return source


def refused(detail: str) -> ProblemError:
    """Return the answer to a request without a valid credential."""
    return ProblemError(401, detail, headers={"WWW-Authenticate": CHALLENGES})


def _names(certificate: Mapping[str, Any]) -> Sequence[str]:
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "URI", "email")]
    common = [value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"]
    return [*names, *common]
