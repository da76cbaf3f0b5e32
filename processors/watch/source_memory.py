"""What is known of a source, as JSON and back: too much of what it told is forgotten to find that out anew."""

from __future__ import annotations

from typing import Any

from .islands import Islands, Runs
from .policy import SECOND, SourceLimits
from .sources import SourceLife


def kept(source: SourceLife) -> dict[str, Any]:
    """Return what is known of a source."""
    return {
        "key": source.key,
        "heard": list(source.heard) if source.heard is not None else None,
        "last": source.last,
        "numbers": list(source.numbers),
        "ahead": [(day, *ahead) for day, ahead in source.ahead.items()],
    }


def recalled(found: dict[str, Any], limits: SourceLimits) -> SourceLife:
    """Return the source of which that was kept. The policy may have changed meanwhile.

    Raises:
        KeyError, TypeError, ValueError: it was written by something else.
    """
    silence = limits.silent_after_seconds
    heard = None
    if silence is not None:
        spells = found["heard"] if found["heard"] is not None else [(found["last"], found["last"])]
        heard = _islands(spells, int(silence * SECOND))
    return SourceLife(
        key=found["key"],
        heard=heard,
        last=found["last"],
        numbers=Runs(int(limits.gap_wait_seconds * SECOND), found["numbers"]),
        ahead={day: (first, most) for day, first, most in found["ahead"]},
    )


def _islands(stretches: list[tuple[int, int]], reach: int) -> Islands:
    islands = Islands(reach)
    for first, last in stretches:
        islands.add_stretch(first, last)
    return islands
