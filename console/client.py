"""Ask the SQL endpoint from another process: plain HTTP, and nothing to import that a short command would wait for.

clickhouse-connect takes a quarter of the CPU time of such a command, and is for what needs Arrow or a server.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, IncompleteRead
from typing import Any, Final
from urllib.parse import urlencode

from . import json_rows
from .address import EndpointAddress, EndpointCredential

_EXCEPTION: Final = b"__exception__"
_ESCAPES: Final = {ord(letter): "\\" + escape for letter, escape in zip("\\'\n\t\r\b\f\0", "\\'ntrbf0", strict=True)}


class AnswerError(Exception):
    """The endpoint refused or failed a statement. The text is ClickHouse's, or that of the connection."""


class EndpointClient:
    """Asks one endpoint as one user. Every statement has a connection of its own.

    Args:
        seconds: how long an answer may take.
    """

    def __init__(self, address: EndpointAddress, user: EndpointCredential, database: str, seconds: float) -> None:
        self._address, self._database, self._seconds = address, database, seconds
        basic = base64.b64encode(f"{user.user}:{user.password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {basic}", "User-Agent": "grantledger"}

    def ask(self, sql: str, **values: object) -> list[dict[str, Any]]:
        """Return the rows of a query. Values are bound to its ``{name:Type}``.

        Raises:
            AnswerError: refused or failed.
            OSError: the endpoint cannot be reached, or takes too long.
        """
        bound = {f"param_{name}": _bound(value) for name, value in values.items()}
        return json_rows.rows(self._answer(f"{sql}\n FORMAT {json_rows.FORMAT}", {**bound, **json_rows.SETTINGS}))

    def raw(self, sql: str, output_format: str) -> bytes:
        """Return the answer to a statement in one of ClickHouse's formats. Raises as :meth:`ask`."""
        return self._answer(f"{sql}\n FORMAT {output_format}", {})

    def _answer(self, statement: str, fields: Mapping[str, str]) -> bytes:
        connection = HTTPConnection(self._address.host, self._address.port, timeout=self._seconds)
        url = "/?" + urlencode({"database": self._database, **fields})
        try:
            connection.request("POST", url, statement.encode("utf-8", "replace"), self._headers)
            response = connection.getresponse()
            body = response.read()
        except IncompleteRead as error:  # it failed after the beginning of its answer
            raise AnswerError(_exception_in(error.partial)) from None
        except HTTPException as error:
            raise AnswerError(f"the SQL endpoint gives no answer: {error or type(error).__name__}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise AnswerError(body.decode("utf-8", "replace").strip() or f"HTTP status {response.status}")
        return body


def _exception_in(part: bytes) -> str:
    """Return the error at the end of an incomplete answer: between two markers, after a line with a tag."""
    _, found, rest = part.partition(_EXCEPTION + b"\r\n")
    text = rest.partition(b"\r\n")[2].partition(b"\r\n" + _EXCEPTION)[0].decode("utf-8", "replace").strip()
    return text.rpartition("\n")[0] or text if found and text else "the SQL endpoint ended its answer too early"


def _bound(value: object) -> str:
    """Return a value as ClickHouse reads it from a parameter: text in its TSV escapes, lists as literals."""
    return _escaped(value) if isinstance(value, str) else _literal(value)


def _literal(value: object) -> str:
    if isinstance(value, str):
        return f"'{_escaped(value)}'"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        opening, closing = "[]" if isinstance(value, list) else "()"
        return opening + ", ".join(map(_literal, value)) + closing
    raise TypeError(f"a parameter cannot be of the type {type(value).__name__}")


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)
