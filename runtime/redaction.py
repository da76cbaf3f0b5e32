"""The redaction of this deployment, by the settings."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ..producers.redaction.file import make_redactor
from ..producers.redaction.redactor import Level, Redactor
from .settings import Settings


class Redactors:
    """Makes one redactor per level and file of rules.

    Args:
        settings: have the level where none is given, and the file of rules.
        level: takes the place of the one in the settings.
        rules: takes the place of the file in the settings.
    """

    def __init__(self, settings: Settings, level: Level | None = None, rules: Path | None = None) -> None:
        self._level: Level = level or settings.redaction
        self._rules = rules or settings.redaction_rules
        self._made = cache(make_redactor)

    def of(self, level: Level | None = None) -> Redactor | None:
        """Return the redactor of a level; None: of that of this deployment. ConfigError: the rules have mistakes."""
        return self._made(level or self._level, self._rules)
