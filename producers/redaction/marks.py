"""What takes the place of a secret: the name of the rule that found it."""

from __future__ import annotations

import re

MARK_START = "[redacted:"
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,49}$"
MARK = re.compile(r"\[redacted:([a-z][a-z0-9_]{0,49})\]")
MASKED = re.compile(
    r"\*{2,}|x{4,}|\[?<?(?:redacted|masked|hidden)>?\]?|HIDDEN_\w{1,60}|value hidden due to security reasons\.?"
    r"|hmac-[\w:]{1,80}|null|nil|none|true|false",
    re.IGNORECASE,
)
"""What tools write in the place of a secret, and words that are none."""


def mark_of(name: str) -> str:
    """Return the text that stands for what a rule found."""
    return f"{MARK_START}{name}]"


def is_no_secret(text: str) -> bool:
    """Return whether a text is a mark, or something else that a tool writes in the place of a secret."""
    return not text or MARK.fullmatch(text) is not None or MASKED.fullmatch(text) is not None


def rules_in(text: str) -> list[str]:
    """Return the names of the rules whose marks are in a text, in order."""
    return MARK.findall(text)
