"""The functions and settings that a query may use, from the reviewed lists beside this module."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

# Suffixes that turn an aggregate function into another one. `State` and `Merge` are absent: they carry the internal
# state of a function as bytes.
COMBINATORS: Final = ("If", "Array", "Map", "Distinct", "OrDefault", "OrNull", "ForEach", "ArgMin", "ArgMax")
_COMBINATORS = tuple(suffix.lower() for suffix in COMBINATORS)
_AGGREGATE: Final = "aggregate"


@cache
def function_groups() -> dict[str, tuple[str, ...]]:
    """Return the names of the allowed functions by the heading of the list."""
    groups: dict[str, tuple[str, ...]] = {}
    heading = ""
    for line in _lines("allowed_functions.txt"):
        if line.startswith("["):
            heading = line.strip("[]")
        else:
            groups[heading] = groups.get(heading, ()) + tuple(line.split())
    return groups


@cache
def settings() -> frozenset[str]:
    """Return the names of the settings that a request may change freely."""
    return frozenset(name for line in _lines("allowed_settings.txt") for name in line.split())


def is_function(name: str) -> bool:
    """Return whether a query may call this function, in any case; aggregate functions also with combinators."""
    lower = name.lower()
    if lower in _functions():
        return True
    while suffix := next((one for one in _COMBINATORS if lower.endswith(one)), None):
        lower = lower.removesuffix(suffix)
        if lower in _aggregates():
            return True
    return False


@cache
def _functions() -> frozenset[str]:
    return frozenset(name.lower() for names in function_groups().values() for name in names)


@cache
def _aggregates() -> frozenset[str]:
    return frozenset(name.lower() for name in function_groups()[_AGGREGATE])


def _lines(name: str) -> list[str]:
    text = Path(__file__).with_name(name).read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
