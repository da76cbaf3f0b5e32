"""The names that programs give to rotated files."""

from __future__ import annotations

import re
from collections.abc import Iterator

_COMPRESSED = re.compile(r"\.(gz|zst|zstd)$")
_ENDING = re.compile(r"(?P<of>.+?)([.\-_~]([0-9][0-9.:TZ_+\-]*|old|bak|prev)|~)", re.ASCII)
_DATED = re.compile(
    r"(?P<stem>.+?)(\.[0-9][0-9.:TZ_+\-]*?|[.\-_][0-9.:TZ_+\-]*[0-9]{4}[0-9.:TZ_+\-]*?)(?P<ending>\.[^.]+)", re.ASCII
)
_DIGITS = re.compile(r"[0-9]+")


def originals(name: str) -> Iterator[str]:
    """Yield the names that the file may have had before it was rotated; none if it looks like no rotated file.

    ``audit.log.1``, ``audit.log.2.gz``, ``audit.log-20261128``, ``audit.log.old`` and
    ``audit-2026-11-28T05-00-00.000.log.gz`` were ``audit.log``; ``audit.log.tmp`` was not.
    """
    plain = _COMPRESSED.sub("", name)
    if plain != name:
        yield plain
    if found := _ENDING.fullmatch(plain):
        yield found["of"]
    if found := _DATED.fullmatch(plain):
        yield found["stem"] + found["ending"]


def is_alike(name: str, other: str) -> bool:
    """Return whether two names differ only in numbers, as files do that are named by the date."""
    return _DIGITS.sub("0", _COMPRESSED.sub("", name)) == _DIGITS.sub("0", _COMPRESSED.sub("", other))
