"""Errors as answers: ``application/problem+json`` (RFC 9457), which names what is wrong and where."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

MEDIA_TYPE = "application/problem+json"


class ProblemError(Exception):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        detail: what is wrong, and the remedy.
        headers: further ones of the answer.
        retry_after: seconds after which the client may try again.
        errors: what is wrong with which part of the body.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
        retry_after: float | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers)
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))

    def body(self) -> dict[str, Any]:
        """Return the problem as a JSON object."""
        found: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        return found | ({"errors": self.errors} if self.errors else {})
