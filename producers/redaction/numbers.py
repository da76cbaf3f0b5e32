"""Card numbers, account numbers and telephone numbers: texts with digits that are checked."""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int]
_CARD = re.compile(r"(?<![\w.+-])\d(?:[ -]?\d){12,18}(?![\w-])")
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|6(?:011\d{12}|5\d{14}|4[4-9]\d{13})|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}"
)
"""The lengths and first digits of Visa, Mastercard, American Express, Diners, Discover, JCB and UnionPay."""
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_PHONE = re.compile(
    r"(?<![\w.+/-])\+[1-9](?:[ ()./-]{0,2}\d){6,14}(?![\w-])"
    r"|(?<![\w.+/-])(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}(?![\w-])"
)
_DIGITS = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else byte for byte in range(256))
_LETTERS = bytes(ord("A") if 65 <= byte <= 90 else one for byte, one in enumerate(_DIGITS))
_LEAST_DIGITS = b"0" * 13


def may_have_card(text: bytes) -> bool:
    """Return whether a text has the number of a card. Fast where it has not enough digits in a row: most records."""
    if _LEAST_DIGITS not in text.translate(_DIGITS, b" -"):
        return False
    for escape in (b"\\n", b"\\t", b"\\r"):
        text = text.replace(escape, b" ")
    return next(cards(text.decode("latin-1")), None) is not None


def may_have_phone(text: bytes) -> bool:
    """Return whether a text has digits as a telephone number does. Fast, too."""
    shape = text.translate(_DIGITS)
    return b"000-0000" in shape or b"000.0000" in shape or b"+0000000" in shape.translate(None, b" ()./-")


def may_have_iban(text: bytes) -> bool:
    """Return whether a text has letters and digits as the beginning of an account number. Fast, too."""
    return b"AA00" in text.translate(_LETTERS)


def is_card(digits: str) -> bool:
    """Return whether digits are the number of a card: those of an issuer, with the check digit of Luhn."""
    if _ISSUERS.fullmatch(digits) is None:
        return False
    total = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def cards(text: str) -> Iterator[Span]:
    """Yield where card numbers are."""
    for found in _CARD.finditer(text):
        if is_card("".join(filter(str.isdigit, found[0]))):
            yield found.span()


def ibans(text: str) -> Iterator[Span]:
    """Yield where international bank account numbers are, by their check digits (ISO 13616)."""
    for found in _IBAN.finditer(text):
        compact = found[0].replace(" ", "")
        if int("".join(str(int(one, 36)) for one in compact[4:] + compact[:4])) % 97 == 1:
            yield found.span()


def phones(text: str) -> Iterator[Span]:
    """Yield where telephone numbers are: international ones, and those of North America with separators."""
    for found in _PHONE.finditer(text):
        yield found.span()
