"""Kubernetes: the end of an X.509 certificate, read without a library: senders are installed without one."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime

from ....schemas.rules import EARLIEST_YEAR, LATEST_YEAR

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_MOST = 1 << 16
_INTEGER, _SEQUENCE, _VERSION = 0x02, 0x30, 0xA0
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18


def end_of_certificate(encoded: str) -> datetime | None:
    """Return ``notAfter`` of the first certificate in a Base64 text of PEM; None if it cannot be read.

    Source: RFC 5280, section 4.1.
    """
    try:
        found = _PEM.search(base64.b64decode(encoded, validate=True)[:_MOST].decode("ascii"))
        if found is None:
            return None
        return _not_after(base64.b64decode("".join(found[1].split()), validate=True))
    except (binascii.Error, ValueError, IndexError, OverflowError):
        return None


def _not_after(data: bytes) -> datetime | None:
    _, certificate, _ = _element(data)
    _, signed, _ = _element(certificate)
    tag, _, rest = _element(signed)
    if tag == _VERSION:
        tag, _, rest = _element(rest)
    if tag != _INTEGER:  # the serial number
        return None
    for _ in range(2):  # the algorithm and the issuer
        tag, _, rest = _element(rest)
    tag, validity, _ = _element(rest)
    if tag != _SEQUENCE:
        return None
    _, _, rest = _element(validity)
    tag, text, _ = _element(rest)
    time = _time(tag, text.decode("ascii"))
    return time if time and EARLIEST_YEAR <= time.year <= LATEST_YEAR else None


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Return the tag and content of the first element of DER, and what follows it; IndexError at the end."""
    tag, length, start = data[0], data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if start + length > len(data):
        raise IndexError
    return tag, data[start : start + length], data[start + length :]


def _time(tag: int, text: str) -> datetime | None:
    if tag == _GENERALIZED_TIME:
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    if tag != _UTC_TIME:
        return None
    century = "19" if int(text[:2]) >= 50 else "20"  # RFC 5280, section 4.1.2.5.1
    return datetime.strptime(century + text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
