"""PostgreSQL: what a statement changes about roles: memberships, and how long a password is valid."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_TOKENS = 10_000
"""A longer statement is read up to here."""
LOGIN = "password"
"""The entitlement of a role that may log in by its password until VALID UNTIL."""
_TOKEN = re.compile(
    r"\s+|--[^\n]*|/\*.{0,10000}?\*/"
    r'|(?P<quoted>"(?:[^"]|"")+")'
    r"|(?P<string>[eEuU]?&?'(?:[^']|'')*')"
    r"|(?P<word>[^\W\d][\w$]*)"
    r"|(?P<other>.)",
    re.DOTALL,
)
_OPTIONS = frozenset({"role", "admin", "user", "valid", "password", "encrypted", "login", "nologin", "connection"})
_WITH = frozenset({"with", "granted", "cascade", "restrict"})


@dataclass(frozen=True, slots=True)
class RoleChange:
    """A change. ``verb`` begins the statement, such as grant. ``role``: what ``member`` gets or loses, if any.

    ``kind``: given or taken; valid or changed, for a new role and an old one: ``member`` may log in by its password
    until ``until``, None: without end; dropped: it may not log in any more.
    """

    verb: str
    kind: str
    member: str
    role: str = ""
    until: str | None = None


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str

    def name(self) -> str | None:
        """Return an identifier as PostgreSQL reads it: without quotes, or in lower case."""
        if self.kind == "quoted":
            return self.text[1:-1].replace('""', '"')
        return self.text.lower() if self.kind == "word" else None

    def __eq__(self, word: object) -> bool:
        return self.kind != "quoted" and self.text.lower() == word

    __hash__ = None  # type: ignore[assignment]


def role_changes(sql: str) -> Iterator[RoleChange]:
    """Yield what the statements in a text change, in their order."""
    statement: list[_Token] = []
    for number, found in enumerate(_TOKEN.finditer(sql)):
        if number > MAX_TOKENS:
            break
        if found.lastgroup is None:
            continue
        if found[0] == ";":
            yield from _changes(statement)
            statement = []
        else:
            statement.append(_Token(found.lastgroup, found[0]))
    yield from _changes(statement)


def _changes(words: list[_Token]) -> Iterator[RoleChange]:
    if len(words) < 3:
        return
    verb = words[0].text.lower()
    if words[0] == "grant" or words[0] == "revoke":
        yield from _membership(words)
    elif (words[0] == "create" or words[0] == "alter") and any(words[1] == one for one in ("role", "user", "group")):
        yield from _role(words)
    elif words[0] == "drop" and any(words[1] == one for one in ("role", "user", "group")):
        start = 4 if words[2] == "if" else 2
        for name in _names(words[start:], frozenset()):
            yield RoleChange(verb, "dropped", name)


def _membership(words: list[_Token]) -> Iterator[RoleChange]:
    if any(word == "on" for word in words):
        return  # privileges on an object, not a role
    given = words[0] == "grant"
    at = next((place for place, word in enumerate(words) if word == ("to" if given else "from")), None)
    if at is None:
        return
    roles, first = words[1:at], [word.name() for word in words[1:4]]
    if len(first) == 3 and first[1:] == ["option", "for"]:
        return  # the membership itself stays
    for role in _names(roles, frozenset()):
        for member in _names(words[at + 1 :], _WITH):
            yield RoleChange(words[0].text.lower(), "given" if given else "taken", member, role)


def _role(words: list[_Token]) -> Iterator[RoleChange]:
    verb, name, options = words[0].text.lower(), words[2].name(), words[3:]
    if name is None or name == "all" or (words[0] == "alter" and any(word == "rename" for word in options[:1])):
        return
    if len(options) > 2 and words[1] == "group" and options[1] == "user" and verb == "alter":
        kind = "given" if options[0] == "add" else "taken"
        for member in _names(options[2:], frozenset()):
            yield RoleChange(verb, kind, member, name)
        return
    for place, word in enumerate(options):
        following = options[place + 1 : place + 3]
        if word == "valid" and len(following) == 2 and following[0] == "until" and following[1].kind == "string":
            text = following[1].text.partition("'")[2][:-1]
            until = None if text.lower() == "infinity" else text
            yield RoleChange(verb, "valid" if words[0] == "create" else "changed", name, until=until)
        elif word == "nologin" and words[0] == "alter":
            yield RoleChange(verb, "dropped", name)
        elif word == "in" and following and any(following[0] == one for one in ("role", "group")):
            for role in _names(options[place + 2 :], _OPTIONS):
                yield RoleChange(verb, "given", name, role)


def _names(words: list[_Token], stop: frozenset[str]) -> Iterator[str]:
    """Yield the names of a list, up to one of the words that end it."""
    expected = True
    for word in words:
        if word == ",":
            expected = True
            continue
        if word == "group" and expected and stop is _WITH:  # GRANT r TO GROUP g
            continue
        name = word.name()
        if name is None or not expected or (word.kind == "word" and name in stop):
            return
        yield name
        expected = False
