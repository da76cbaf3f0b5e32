"""Names in the environment that look like a setting and are none."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from .settings import PREFIX, Settings

_FOR_TESTS = (f"{PREFIX}TEST_", f"{PREFIX}SAMPLES")
"""Beginnings of the variables that only the tests read."""


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Return one line for each name of a variable that looks like a setting and is none."""
    known = [name.upper() for name in Settings.model_fields]
    lines = []
    for name in sorted(name for name in names if name.startswith(PREFIX) and not name.startswith(_FOR_TESTS)):
        if (ending := name.removeprefix(PREFIX)) not in known:
            similar = get_close_matches(ending, known, 1)
            hint = f"Did you mean {PREFIX}{similar[0]}?" if similar else "`grantledger settings` lists all of them."
            lines.append(f"the environment variable {name} is ignored: there is no such setting. {hint}")
    return lines
