"""The options of the commands that redact what they send."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..producers.redaction.redactor import Level, Redactor
from ..runtime.redaction import Redactors
from ..runtime.settings import Settings


class RedactionLevel(StrEnum):
    """A level, as a choice on the command line."""

    off = "off"
    default = "default"
    strict = "strict"


RedactionOption = Annotated[
    RedactionLevel | None,
    typer.Option(
        "--redaction",
        help="What is removed before anything is hashed: off, default (secrets) or strict (also personal data): "
        "docs/redaction.md. [GRANTLEDGER_REDACTION; default: default]",
    ),
]
RedactionRulesOption = Annotated[
    Path | None,
    typer.Option(
        "--redaction-rules", dir_okay=False, help="TOML file with further rules. [GRANTLEDGER_REDACTION_RULES]"
    ),
]


def redactors(settings: Settings, level: RedactionLevel | None, rules: Path | None) -> Redactors:
    """Return the redactors by the options and the settings."""
    given: Level | None = None if level is None else level.value
    return Redactors(settings, given, rules)


def redactor(settings: Settings, level: RedactionLevel | None, rules: Path | None) -> Redactor | None:
    """Return the redactor by the options and the settings."""
    return redactors(settings, level, rules).of()
