"""POSTs one message and returns the answer, in bounded time and memory.

It uses aiohttp, because cancelling a task ends the whole exchange, except for a name lookup: a peer that sends single
bytes in the TLS handshake, the headers or the body cannot delay us beyond the timeout.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping, Sequence

import aiohttp
from yarl import URL

from .answer import Answer, SendResult, answer_of
from .endpoint import Endpoint
from .signing import sign

MAX_ANSWER_BYTES = 64 << 10
"""A longer body is not read to its end and counts as empty."""


class WebhookSender:
    """POSTs to one URL, with a new connection for each message. ``post`` raises no error that a peer causes.

    Args:
        key: the configuration key of the endpoint, for errors.
        url: an address other than the endpoint's own.
        clock: seconds since 1970.

    Raises:
        ConfigError: a TLS file of the endpoint cannot be used.
    """

    def __init__(self, endpoint: Endpoint, key: str, url: str = "", clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._url, self._timeout = URL(url or endpoint.url, encoded=True), endpoint.timeout_seconds
        self._tls = endpoint.tls(key) if self._url.scheme == "https" else True

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send a message and return the answer. Redirects are not followed."""
        try:
            return asyncio.run(self._post(body, headers))
        except aiohttp.ClientConnectorCertificateError as error:
            cause = error.certificate_error
            reason = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else str(cause)
            return Answer(SendResult.retry, None, f"the certificate is not trusted: {reason}")
        except TimeoutError:
            return Answer(SendResult.retry, None, f"no answer within {self._timeout:g} s")
        except (aiohttp.ClientError, OSError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            return Answer(SendResult.retry, None, f"no answer: {reason}")

    async def _post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        async with asyncio.timeout(self._timeout):
            connector = aiohttp.TCPConnector(ssl=self._tls, force_close=True)
            unlimited = aiohttp.ClientTimeout(total=None)
            async with (
                aiohttp.ClientSession(connector=connector, timeout=unlimited, auto_decompress=False) as session,
                session.post(
                    self._url,
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    skip_auto_headers=("Accept-Encoding",),
                ) as response,
            ):
                received = bytearray()
                async for chunk in response.content.iter_any():
                    received += chunk
                    if len(received) > MAX_ANSWER_BYTES:
                        received.clear()
                        break
                return answer_of(response.status, response.headers.get("retry-after"), bytes(received), self.clock())


class SignedSender:
    """POSTs messages signed as Standard Webhooks demands.

    Args:
        signing_keys: each message carries one signature per key.
        headers: of every message.
    """

    def __init__(self, sender: WebhookSender, signing_keys: Sequence[bytes], headers: Mapping[str, str]) -> None:
        self._sender, self._keys, self._headers = sender, tuple(signing_keys), dict(headers)

    def post(self, message_id: str, body: bytes) -> Answer:
        """Send a message.

        Args:
            message_id: the same at every attempt, so that the receiver can detect a duplicate.
        """
        now = int(self._sender.clock())
        signed = {
            "webhook-id": message_id,
            "webhook-timestamp": str(now),
            "webhook-signature": sign(self._keys, message_id, now, body),
        }
        return self._sender.post(body, self._headers | signed)
