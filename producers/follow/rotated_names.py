"""The names that programs give to rotated files."""

from __future__ import annotations

import re

_COMPRESSED = re.compile(r"\.(gz|zst|zstd)$")
_TOKEN = re.compile(r"[.\-_~]([0-9.:TZ_+\-]+|old|bak|prev)|~", re.ASCII)
_DATE = re.compile(r"(\.[0-9]|[.\-_][0-9.:TZ_+\-]*[0-9]{4})[0-9.:TZ_+\-]*", re.ASCII)
_DIGITS = re.compile(r"[0-9]+")


def is_rotated(name: str, of: str) -> bool:
    """Return whether a file's name is that of a rotated file of another one in its folder.

    ``audit.log.1``, ``audit.log.2.gz``, ``audit.log-20261128``, ``audit.log.old`` and
    ``audit-2026-11-28T05-00-00.000.log.gz`` are rotated files of ``audit.log``; ``audit.log.tmp`` is none.
    """
    plain = _COMPRESSED.sub("", name)
    if plain == of:
        return name != of
    if plain.startswith(of):
        return _TOKEN.fullmatch(plain[len(of) :]) is not None
    stem, dot, ending = of.rpartition(".")
    between = plain[len(stem) : len(plain) - len(ending) - 1]
    return bool(stem) and plain.startswith(stem) and plain.endswith(dot + ending) and bool(_DATE.fullmatch(between))


def is_alike(name: str, other: str) -> bool:
    """Return whether two names differ only in numbers, as files do that are named by the date."""
    return _DIGITS.sub("0", _COMPRESSED.sub("", name)) == _DIGITS.sub("0", _COMPRESSED.sub("", other))
