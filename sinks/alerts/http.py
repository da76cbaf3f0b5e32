"""One HTTP POST, bounded in time and size, that follows no redirect; and what its answer means for delivery."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

from .core import LONGEST_RETRY_AFTER, Outcome, Result
from .finding import printable

MAX_ANSWER_BYTES = 16 << 10
"""As much of an answer's body as is read; what follows is left unread with its connection."""
COME_AGAIN = frozenset({408, 425, 429})
"""Answers below 500 that ask us to come again (RFC 9110 section 15.5.9, RFC 8470, RFC 6585)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. ``status`` None: nothing, and ``text`` says why."""

    status: int | None
    text: str
    retry_after: float | None = None


def tls_context(ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """Return what TLS connections trust, and who we are there.

    Raises:
        OSError: a file cannot be read, or is not what it should be.
    """
    context = ssl.create_default_context(cafile=ca_file)
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    return context


class Poster:
    """Posts to one URL, each time over a connection of its own.

    Args:
        timeout: seconds that connecting, and then the whole exchange, may take.
    """

    def __init__(self, url: str, timeout: float, context: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        # The port always given: without one the client looks for it in the host, and an IPv6 address has colons.
        self._host, self._port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._timeout, self._context = timeout, context

    def post(self, body: bytes, headers: Mapping[str, str], now: float) -> Answer:
        """Post, and return the answer whatever it is.

        Args:
            now: seconds since 1970, to read a date in ``retry-after``.
        """
        connection = self._connection()
        try:
            connection.connect()
            with _ended_after(connection.sock, self._timeout):
                connection.request("POST", self._target, body, dict(headers))
                answer = connection.getresponse()
                text = answer.read(MAX_ANSWER_BYTES).decode("utf-8", "replace")
                return Answer(answer.status, text, retry_after(answer.headers.get("retry-after"), now))
        except ssl.SSLCertVerificationError as error:
            return Answer(None, f"the certificate is not trusted: {error.verify_message}")
        except TimeoutError:
            return Answer(None, f"no answer within {self._timeout:g} s")
        except (OSError, http.client.HTTPException) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            return Answer(None, f"no answer: {reason}")
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._context)


@contextmanager
def _ended_after(sock: socket.socket, seconds: float) -> Iterator[None]:
    """Shut a socket when its time is up: the socket's own timeout begins anew with every byte that drips in.

    Raises:
        TimeoutError: it was shut; what was read until then may be cut off anywhere.
    """
    late = threading.Event()

    def shut() -> None:
        late.set()
        with suppress(OSError):  # closed in between; and not TLS's own shutdown, under the thread that reads
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError


def judge(answer: Answer, *, show_text: bool = False) -> Outcome:
    """Return what an answer means.

    Args:
        show_text: whether the answer's own words go on record.
    """
    status = answer.status
    if status is None:
        return Outcome(Result.again, None, answer.text)
    said = f"answered {status}"
    if show_text and status >= 400 and answer.text.strip():
        said += f": {printable(answer.text.strip(), 200)}"
    if 200 <= status < 300:
        return Outcome(Result.accepted, status, said)
    if status == http.client.GONE:
        return Outcome(Result.gone, status, said)
    if status >= 500 or status in COME_AGAIN:
        return Outcome(Result.again, status, said, answer.retry_after)
    if 300 <= status < 400:
        # Followed, it would carry a signed message to whoever can make the receiver answer with one.
        return Outcome(Result.refused, status, f"{said}, a redirect, which is not followed")
    return Outcome(Result.refused, status, said)


def retry_after(text: str | None, now: float) -> float | None:
    """Return the seconds that ``retry-after`` asks for, given as a number or as a date (RFC 9110 section 10.2.3)."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_RETRY_AFTER)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    seconds = (at - datetime.fromtimestamp(now, UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
