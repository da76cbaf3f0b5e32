"""Finds the list of records at the beginning of an object that may be too large for the memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..json_fields import DECODER
from .json_spans import skip_space
from .member_envelopes import list_named


def list_start(text: str, is_record: Callable[[dict[str, Any]], bool]) -> tuple[str, int] | None:
    """Return name and start of the list of records in an object whose text begins like this, or None.

    A member of a common name, such as ``items``, is such a list only if its first element ``is_record``.
    """
    try:
        at = skip_space(text, 1)
        while text[at] == '"':
            name, at = DECODER.raw_decode(text, at)
            at = skip_space(text, at)
            if text[at] != ":":
                return None
            at = skip_space(text, at + 1)
            envelope = list_named(name) if text[at] == "[" else None
            if envelope is not None:
                first = skip_space(text, at + 1)
                if envelope.certain and text[first : first + 1] in ("", "{", "]", '"'):
                    return name, at + 1
                if text[first] == "{":
                    value, _ = DECODER.raw_decode(text, first)
                    if is_record(value):
                        return name, at + 1
            _, at = DECODER.raw_decode(text, at)
            at = skip_space(text, at)
            if text[at] != ",":
                return None
            at = skip_space(text, at + 1)
    except (ValueError, IndexError, RecursionError):
        pass
    return None
