"""Whether a rule may find anything in a record, seen from its bytes alone. Fast, because every record is asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .numbers import may_have_card, may_have_iban, may_have_phone

_ESCAPED = re.compile(rb"\\u00([2-7][0-9a-fA-F])")


class Record(NamedTuple):
    """The bytes of a record, without JSON's escapes for ASCII, and the same in lower case."""

    raw: bytes
    lower: bytes


Hint = Callable[[Record], bool]


def record_of(raw: bytes) -> Record:
    """Return a record for hints."""
    if b"\\u00" in raw:
        raw = _ESCAPED.sub(lambda found: bytes((int(found[1], 16),)), raw)
    return Record(raw, raw.lower())


def always(_record: Record) -> bool:
    """Return true: the rule has no hint."""
    return True


def has(*needles: str) -> Hint:
    """Return the hint that one of several texts in lower case is in the record."""
    texts = tuple(needle.encode() for needle in needles)
    return lambda record: any(text in record.lower for text in texts)


def matches(*patterns: str, cased: bool = False) -> Hint:
    """Return the hint that one of several patterns is in the record. Each is fast if it begins with a plain text.

    ``cased``: they are for the record as it is, and not in lower case.
    """
    compiled = tuple(re.compile(pattern.encode(), re.DOTALL) for pattern in patterns)
    if cased:
        return lambda record: any(one.search(record.raw) for one in compiled)
    return lambda record: any(one.search(record.lower) for one in compiled)


_OPTION = re.compile(rb"-(?:[paPwuU](?<=[\s\"'nt]-.)|-(?:proxy-|http-)?user)")
"""At the beginning of a word. Before it may be the escape of a line end or tab."""


def option(record: Record) -> bool:
    """Return whether there may be a short option of a command."""
    return _OPTION.search(record.raw) is not None


def words(record: Record) -> bool:
    """Return whether there may be a list of words with options."""
    return b'"-' in record.raw


def either(first: Hint, second: Hint) -> Hint:
    """Return the hint that one of two others is true."""
    return lambda record: first(record) or second(record)


def both(first: Hint, second: Hint) -> Hint:
    """Return the hint that two others are true."""
    return lambda record: first(record) and second(record)


def has_any(needles: Sequence[str]) -> Hint:
    """Return the hint of a rule that only has needles, or none."""
    return has(*needles) if needles else always


_QUOTE = r"[\"'\\]{0,8}"
_NOTHING = (
    r"(?!\"\s{0,4}:\s{0,4}(?:\{|null|\"\")"
    r"|[\"'\\]{0,8}\s{0,4}[=:]\s{0,4}[\"'\\]{0,8}+(?:hmac-[\w:]{1,80}|\*{2,})[\"\\])"
)
"""An object, nothing, or what tools write in the place of a secret."""
NAMED = rf"\d?{_NOTHING}(?:{_QUOTE}\s{{0,4}}[=:]|[ \t]|{_QUOTE}\s{{0,4}}(?:,\s{{0,4}}{_QUOTE}value|\}}))"
"""After the name of a secret: the sign of a value, a space as after an option, or the member of the value."""
WORD = r"[\"'\\]{0,8}\s{0,4},"
"""After the name of an option in a list of words."""


def card(record: Record) -> bool:
    """Return whether there may be a card number."""
    return may_have_card(record.raw)


def iban(record: Record) -> bool:
    """Return whether there may be an account number."""
    return may_have_iban(record.raw)


def phone(record: Record) -> bool:
    """Return whether there may be a telephone number."""
    return may_have_phone(record.raw)
