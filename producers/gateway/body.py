"""The body of a request: read and decompressed within limits."""

from __future__ import annotations

import asyncio
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect, Request

from ..envelopes.encodings import EncodingError, decoded
from .problems import ProblemError

SECONDS_TO_SEND_A_BODY = 30.0
MOST_BYTES_OF_BODIES = 256 * 1024 * 1024
"""Of all requests that are being answered."""
ENCODINGS = ("identity", "gzip", "x-gzip", "zstd")
_PIECE_BYTES = 256 * 1024


@dataclass(slots=True)
class Bodies:
    """Reads bodies.

    Args:
        most_bytes: the limit of a body as it is sent.
        most_decoded: the same after decompression.
    """

    most_bytes: int
    most_decoded: int
    _held: int = field(default=0, init=False)

    @contextmanager
    def room(self) -> Iterator[list[int]]:
        """Free the memory of a body when the request is answered. Pass the result to ``read``."""
        taken = [0]
        try:
            yield taken
        finally:
            self._held -= taken[0]

    async def read(self, request: Request, taken: list[int]) -> bytes:
        """Return the body as it was sent.

        Raises:
            ProblemError: it is too long (413) or too slow (503), its encoding is unknown (415), or there are too many
                requests (503).
        """
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ENCODINGS:
            raise ProblemError(415, f"Content-Encoding {encoding[:80]!r} is not one of {', '.join(ENCODINGS)}")
        body = bytearray()
        try:
            async with asyncio.timeout(SECONDS_TO_SEND_A_BODY):
                async for piece in request.stream():
                    body += piece
                    taken[0] += len(piece)
                    self._held += len(piece)
                    if len(body) > self.most_bytes:
                        raise ProblemError(413, f"the body is longer than {self.most_bytes} bytes: send less at once")
                    if self._held > MOST_BYTES_OF_BODIES:
                        raise ProblemError(503, "too many large requests at once", retry_after=1)
        except TimeoutError:
            # Not 408: collectors drop what is answered 4xx.
            raise ProblemError(503, f"the body took more than {SECONDS_TO_SEND_A_BODY:g} s", retry_after=1) from None
        except ClientDisconnect:
            raise ProblemError(400, "the client closed the connection before the end of the body") from None
        return bytes(body)

    def decoded(self, body: bytes) -> bytes:
        """Return a body without compression, as UTF-8. Compression is recognized by the first bytes.

        Raises:
            ProblemError: it is too long (413) or damaged (400).
        """
        text = bytearray()
        try:
            read = decoded(io.BytesIO(body).read)
            while piece := read(_PIECE_BYTES):
                text += piece
                if len(text) > self.most_decoded:
                    raise ProblemError(413, f"the decompressed body is longer than {self.most_decoded} bytes")
        except (OSError, EOFError, zlib.error, EncodingError) as error:
            raise ProblemError(400, f"the body is damaged: {str(error)[:200]}") from None
        return bytes(text)
