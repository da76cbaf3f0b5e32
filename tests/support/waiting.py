"""Waiting for a condition instead of a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
SHARE, LONGEST_PAUSE = 2.0, 1.0
"""Pause after a check, in multiples of the time that it took, and at most in seconds: others need the machine."""


def wait_for(condition: Callable[[], Result | None], what: str, *, limit: float = 120.0, pause: float = 0.3) -> Result:
    """Return the first truthy value of ``condition``; fail, naming ``what``, after ``limit`` seconds.

    Args:
        pause: longest time between two quick checks, in seconds. Checks cost CPU time, so they get rarer.
    """
    deadline, next_pause = time.monotonic() + limit, min(0.05, pause)
    while True:
        began = time.monotonic()
        result = condition()
        took = time.monotonic() - began
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"after {limit:.0f} s still not: {what} (last: {result!r})")
        time.sleep(max(next_pause, min(SHARE * took, LONGEST_PAUSE)))
        next_pause = min(pause, next_pause * 1.3)
