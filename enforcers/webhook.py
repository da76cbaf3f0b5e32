"""Plug-in ``webhook``: a signed HTTP POST, and one more that asks whether the access is there.

Headers and signature: Standard Webhooks 1.0.0 (standardwebhooks.com), ``webhook-id`` being the same at every try so
that a receiver can tell. Body: CloudEvents 1.0.2, JSON event format, structured mode.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import json
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from .contract import Attempt, Presence, Result, Seen, Target, as_text
from .policy import PolicyError, WebhookTarget

SECRET_PREFIX = "whsec_"  # noqa: S105 - a marker, not a secret
EVENT_TYPE = "grantledger.revoke.requested"
LOOK_TYPE = "grantledger.access.lookup"
MAX_ANSWER_BYTES = 64 << 10
"""An answer's body says yes or no at most; more than this is a fault of the receiver."""
RETRIED = frozenset({408, 425, 429})
"""Answers below 500 that ask us to come again (RFC 9110 section 15.5, RFC 8470, RFC 6585)."""


def signing_keys(secrets: str) -> list[bytes]:
    """Return the keys in a text of ``whsec_`` secrets, apart by spaces: the new one and the old during a change.

    Raises:
        PolicyError: one is not ``whsec_`` and base64 of 24 to 64 bytes; does not show it.
    """
    keys = []
    for secret in secrets.split():
        try:
            if not secret.startswith(SECRET_PREFIX):
                raise ValueError
            key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except (ValueError, binascii.Error):
            raise PolicyError("the webhook's secret must be whsec_ and base64") from None
        if not 24 <= len(key) <= 64:
            raise PolicyError(f"the webhook's secret must have 24 to 64 bytes, it has {len(key)}")
        keys.append(key)
    return keys


def sign(keys: list[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of ``webhook-signature``: one ``v1`` signature a key.

    Args:
        timestamp: seconds since 1970.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def cloud_event(target: Target, deployment: str, kind: str, message_id: str) -> bytes:
    """Return the body: the same bytes for the same arguments, so at every try of a command."""
    event = {
        "specversion": "1.0",
        "id": message_id,
        "source": f"grantledger/{deployment}",
        "type": kind,
        "subject": target.key.grant_id,
        "time": as_text(target.requested_at),
        "datacontenttype": "application/json",
        "data": target.as_json(),
    }
    return json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class WebhookPlugin:
    """Asks a receiver to take the access away, and where the policy says so, whether it is gone."""

    kind = "webhook"

    def __init__(self, target: WebhookTarget, deployment: str, clock: Callable[[], float] = time.time) -> None:
        self._config, self._deployment, self._clock = target, deployment, clock
        self._keys = signing_keys(target.secret.read())
        self._disabled = False

    def revoke(self, target: Target) -> Attempt:
        """POST the command. 2xx: accepted. 410: the receiver wants no more, and gets none until the next start."""
        if self._disabled:
            return Attempt(
                Result.failed, "the receiver answered 410 before: disabled until the enforcer is started anew"
            )
        try:
            status, retry_after, _ = self._post(self._config.url, target, EVENT_TYPE, target.command_id)
        except _TooLargeError:
            return Attempt(Result.failed, f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        except ssl.SSLCertVerificationError as error:
            return Attempt(Result.failed, f"the receiver's certificate: {error.verify_message}")
        except (OSError, http.client.HTTPException) as error:
            return Attempt(Result.again, f"no answer: {type(error).__name__}")
        return self._judge(status, retry_after)

    def read_back(self, target: Target) -> Seen:
        """POST the question. Only 200 with ``{"present": false}`` or ``true`` is an answer."""
        if not self._config.read_back:
            return Seen(Presence.unreadable, "the policy has no address to read back")
        try:
            # Each question an id of its own: a receiver that knows an id need not look again.
            status, _, answer = self._post(self._config.read_back, target, LOOK_TYPE, str(uuid.uuid4()))
            found = json.loads(answer) if status == http.client.OK else None
        except (_TooLargeError, OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            return Seen(Presence.unknown, f"no answer to the question: {type(error).__name__.lstrip('_')}")
        present = found.get("present") if isinstance(found, dict) else None
        if not isinstance(present, bool):
            return Seen(Presence.unknown, f"the answer {status} does not say whether the access is there")
        return Seen(
            Presence.still_there if present else Presence.gone, f"the receiver answered present: {json.dumps(present)}"
        )

    def _judge(self, status: int, retry_after: float | None) -> Attempt:
        said = f"the receiver answered {status}"
        if 200 <= status < 300:
            return Attempt(Result.accepted, said)
        if status == http.client.GONE:
            self._disabled = True
            return Attempt(Result.failed, f"{said}: it wants no more commands, and gets none until the next start")
        if status >= 500 or status in RETRIED:
            return Attempt(Result.again, said, retry_after)
        if 300 <= status < 400:
            # Followed, a redirect would carry a signed command to whoever can make the receiver answer with one.
            return Attempt(Result.failed, f"{said}, a redirect, which is not followed")
        return Attempt(Result.failed, said)

    def _post(self, address: str, target: Target, kind: str, message_id: str) -> tuple[int, float | None, bytes]:
        """Return status, ``retry-after`` in seconds, and the answer's body."""
        body, now = cloud_event(target, self._deployment, kind, message_id), int(self._clock())
        headers = {
            "content-type": "application/cloudevents+json",
            "user-agent": "grantledger-enforcer",
            "webhook-id": message_id,
            "webhook-timestamp": str(now),
            "webhook-signature": sign(self._keys, message_id, now, body),
        }
        url, limit = urlsplit(address), self._config.timeout_seconds
        host = url.hostname or ""
        # The port always given: without one the client looks for it in the host, and an IPv6 address has colons.
        connection: http.client.HTTPConnection
        if url.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, url.port or 443, timeout=limit, context=context)
            plain = socket.create_connection((host, url.port or 443), limit)
            connection.sock = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
        else:
            connection = http.client.HTTPConnection(host, url.port or 80, timeout=limit)
            connection.connect()
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        # The socket's own timeout starts again with every byte; a receiver that drips must not hold us for ever.
        # The connection forgets its socket while the answer is still being read, so the watchdog keeps it.
        sock, too_late = connection.sock, threading.Event()
        watchdog = threading.Timer(limit, _shut, [sock, too_late])
        watchdog.daemon = True
        watchdog.start()
        try:
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            said = answer.read(MAX_ANSWER_BYTES + 1)
            if len(said) > MAX_ANSWER_BYTES:
                raise _TooLargeError
            if too_late.is_set():  # what was cut off may look like an answer that has come to its end
                raise TimeoutError
            return answer.status, _seconds(answer.headers.get("retry-after")), said
        finally:
            watchdog.cancel()
            connection.close()


class _TooLargeError(Exception):
    """The answer's body is beyond all measure."""


def _shut(sock: socket.socket, done: threading.Event) -> None:
    done.set()
    # Below TLS: its own shutdown would pull the session from under the thread that is reading.
    with suppress(OSError):  # it was closed in between
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _seconds(text: str | None) -> float | None:
    """Return ``retry-after`` where it is a number of seconds; its other form, a date, is passed over."""
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None
