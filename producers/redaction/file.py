"""A TOML file with rules of one's own: ``docs/redaction.md`` documents the format."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from ...base.toml import ConfigError, load_toml
from .hints import has_any
from .marks import NAME_PATTERN
from .numbers import Span
from .redactor import Level, OwnField, Redactor
from .rules import RULES, SQL_PARAMETERS, TOO_DEEP, Find, Rule

MOST_RULES = 200
MOST_PATTERN = 1000
"""Characters of a pattern."""
_MEMORY = 8 << 20
_NAMES = frozenset({*(rule.name for rule in RULES), SQL_PARAMETERS, TOO_DEEP})
Text = Annotated[str, Field(min_length=1, max_length=200)]


class OwnRule(BaseModel):
    """A rule: a pattern for texts, or paths in records.

    Attributes:
        name: stands in the mark.
        level: the level from which on it is applied.
        pattern: a regular expression of RE2. If it has a group, only that is removed.
        contains: a text without one of these, in any case, is not read: it makes a rule fast.
        fields: paths of members, with dots; ``*`` is any member or element.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=NAME_PATTERN)
    level: Literal["default", "strict"] = "default"
    pattern: Annotated[str, Field(min_length=1, max_length=MOST_PATTERN)] | None = None
    contains: tuple[Text, ...] = ()
    fields: tuple[Annotated[str, Field(pattern=r"^[^.]+(\.[^.]+)*$", max_length=500)], ...] = ()

    @field_validator("name")
    @classmethod
    def _is_new(cls, name: str) -> str:
        if name in _NAMES:
            raise ValueError(f"{name} is the name of a built-in rule")
        return name

    @field_validator("pattern")
    @classmethod
    def _is_valid(cls, pattern: str | None, info: ValidationInfo) -> str | None:
        rule = info.data.get("name", "?")
        if pattern is None:
            return None
        try:
            compiled = _compiled(pattern)
        except _PatternError as error:
            raise ValueError(f"rule {rule}: {error}") from None
        if compiled.search("") is not None:
            raise ValueError(f"rule {rule}: matches an empty text, so it would match everywhere")
        if compiled.groups > 1:
            raise ValueError(f"rule {rule}: has {compiled.groups} groups; one at most: (?:…) is not counted")
        return pattern

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.pattern is None) == (not self.fields):
            raise ValueError(f"rule {self.name}: give either pattern or fields")
        if self.contains and self.pattern is None:
            raise ValueError(f"rule {self.name}: contains is for a pattern")
        return self


class RedactionFile(BaseModel):
    """The whole file: ``[[rule]]`` tables."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Annotated[tuple[OwnRule, ...], Field(min_length=1, max_length=MOST_RULES)]

    @model_validator(mode="after")
    def _has_unique_names(self) -> Self:
        names = Counter(rule.name for rule in self.rule)
        if twice := sorted(name for name, count in names.items() if count > 1):
            raise ValueError(f"two rules are named {twice[0]}")
        return self


def make_redactor(level: Level = "default", rules: Path | None = None) -> Redactor | None:
    """Return what removes secrets at a level, None for ``off``. ``rules``: a file with further rules.

    Raises:
        ConfigError: it names every mistake in the file with its line and rule, or a missing package.
    """
    own = load_toml(rules, RedactionFile).rule if rules is not None else ()
    if level == "off":
        return None
    chosen = [rule for rule in own if level == "strict" or rule.level == "default"]
    patterns = [_rule(rule, rule.pattern) for rule in chosen if rule.pattern is not None]
    fields = [OwnField(rule.name, tuple(path.split(".")), rule.level) for rule in chosen for path in rule.fields]
    return Redactor(strict=level == "strict", own=patterns, own_fields=fields)


def _rule(rule: OwnRule, pattern: str) -> Rule:
    contains = tuple(map(str.lower, rule.contains))
    strict = rule.level == "strict"
    return Rule(rule.name, f"what {pattern} matches", _find(pattern), contains, has_any(contains), strict=strict)


class _PatternError(ValueError):
    """A pattern that is not valid."""


def _compiled(pattern: str) -> Any:
    """Return a pattern compiled by RE2, whose time is linear in the text, whatever the pattern and the text are."""
    try:
        import re2
    except ModuleNotFoundError:
        raise ConfigError(
            "patterns in a file of rules need another package: pip install 'grantledger[redaction]'"
        ) from None
    options = re2.Options()
    options.max_mem, options.log_errors = _MEMORY, False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        text = error.args[0]
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        raise _PatternError(f"is not a pattern of RE2: {_without_code(text)}") from None


def _without_code(text: str) -> str:
    return re.sub(r"\s+", " ", text)[:200]


def _find(pattern: str) -> Find:
    compiled = _compiled(pattern)
    group = min(1, compiled.groups)

    def find(text: str) -> Iterator[Span]:
        for found in compiled.finditer(text.encode("utf-8", "replace").decode()):
            if found.start(group) >= 0:
                yield found.span(group)

    return find
