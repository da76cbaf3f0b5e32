"""How many examples hypothesis tries where each takes long: few in ``make test``, more in ``make test-slow``."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

SLOW = bool(os.environ.get("GRANTLEDGER_TEST_SLOW"))


def few(count: int, **options: Any) -> settings:
    """Try so many examples; under ``make test-slow`` as many as of all other properties (tests/conftest.py)."""
    return settings(**options) if SLOW else settings(max_examples=count, **options)
