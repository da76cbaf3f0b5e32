"""What is known of a source, as JSON and back: too much of what it told is forgotten to find that out anew."""

from __future__ import annotations

from typing import Any

from .facts import Source
from .islands import Islands, Runs
from .policy import SECOND, SourceLimits
from .sources import DAY, SourceLife


def kept(source: Source, life: SourceLife) -> dict[str, Any]:
    """Return what is known of a source."""
    return {
        "source": list(source),
        "heard": list(life.heard) if life.heard is not None else None,
        "last": life.last,
        "numbers": list(life.numbers),
        "ahead": [(day, *ahead) for day, ahead in life.ahead.items()],
    }


def source_of(found: dict[str, Any]) -> Source:
    """Return which source that is.

    Raises:
        KeyError, TypeError, ValueError: it was written by something else.
    """
    system, instance = found["source"]
    return Source(system, instance)


def forget(life: SourceLife, before: int) -> None:
    """Forget silences and a clock ahead that were over before a time. Everything up to it must be judged."""
    life.ahead = {day: ahead for day, ahead in life.ahead.items() if (day + 1) * DAY >= before}
    if life.heard is not None:
        spells = list(life.heard)
        over = sum(first < before for first, _ in spells[1:])
        if over:
            life.heard = _islands(spells[over:], life.heard.reach)


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
        key=str(source_of(found)),
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
