"""Kubernetes: secrets that a record contains are removed before it is hashed, stored or mapped.

They are in the commands of ``exec`` (in the URI), in ephemeral containers, and in the response to a token request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from ...json_fields import Fields

REDACTED = "[REDACTED]"
MOST_DEPTH = 40
"""What is nested more deeply in an object is left out."""
_URIS = frozenset({"requestURI", "RequestUri"})
_OBJECTS = frozenset({"requestObject", "responseObject", "RequestObject", "ResponseObject", "request", "response"})
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_NAME = (
    r"[\w.-]{0,40}(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credential"
    r"|authorization)[\w-]{0,40}"
)
_VALUE = r"(?:'[^']{0,4096}'|\"[^\"]{0,4096}\"|[^\s'\"&;|]+)"
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # PASSWORD=x, "token": "x"
        rf"(?<![\w.-])({_NAME}[\"']?\s{{0,4}}[=:]\s{{0,4}}(?:(?:bearer|basic|token)\s{{1,4}})?)({_VALUE})",
        rf"((?<!\S)--?{_NAME}\s{{1,4}})({_VALUE})",  # --password x
        r"(\b(?:bearer|basic)\s{1,4})([A-Za-z0-9._~+/=-]{8,})",
        r"(://[^/\s:@]{0,256}:)([^/\s@]{1,1024})(?=@)",  # https://user:x@host
        rf"((?<!\S)(?:-u|--user)[ =]?[^\s:]{{1,256}}:)({_VALUE})",  # curl -u user:x
        r"()((?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)",  # JSON Web Tokens
        r"()(\b(?:gh[pousr]_[A-Za-z0-9]{20,}|xox[abpr]-[A-Za-z0-9-]{10,}|hv[sbr]\.[\w-]{20,}))",
        r"()(-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[\s\S]*)",
    )
)
"""What comes before a secret, and the secret. Repetitions are bounded: people choose these texts."""
_SHORT_PASSWORD = re.compile(r"((?<!\S)-p)([^\s=-]\S*)")  # mysql -px
_OPTION = re.compile(rf"--?{_NAME}", re.IGNORECASE)
_PASSWORD_OPTIONS = re.compile(r"(?:mysql|mysqldump|mysqladmin|mariadb|sshpass|mongo|mongosh|redis-cli|ldapsearch)")
_SHORT = {"mongo": "-p", "mongosh": "-p", "redis-cli": "-a", "sshpass": "-p", "ldapsearch": "-w"}
_WITH_USER = ("curl", "wget")
"""Programs whose option ``-u`` is followed by a user and a password."""
_PARAMETER = re.compile(_NAME, re.IGNORECASE)


def without_secrets(text: str) -> str:
    """Return a text in which each value that looks like a secret is replaced by ``[REDACTED]``."""
    return _replaced(text, (*_PATTERNS, _SHORT_PASSWORD))


def _replaced(text: str, patterns: Iterable[re.Pattern[str]]) -> str:
    for pattern in patterns:
        text = pattern.sub(lambda found: found[1] + REDACTED if REDACTED not in found[2] else found[0], text)
    return text


def command_without_secrets(words: Sequence[str]) -> tuple[str, ...]:
    """Return the words of a command without secrets: a value may also be the word after its option."""
    found: list[str] = []
    program, follows = "", False
    for word, before in zip(words, ("", *words), strict=False):
        if follows and not word.startswith("-"):
            found.append(REDACTED if word else word)
            follows = False
            continue
        program = program or word.rpartition("/")[2]
        short = _SHORT.get(program)
        follows = _OPTION.fullmatch(word) is not None or (short is not None and word == short)
        if program in _WITH_USER and before in ("-u", "--user"):
            user, colon, _ = word.partition(":")
            found.append(f"{user}:{REDACTED}" if colon else word)
            continue
        # With other programs, -p is followed by a port, a path or a process.
        takes_password = short is not None or _PASSWORD_OPTIONS.match(program) or not word.startswith("-p")
        found.append(_replaced(word, (*_PATTERNS, _SHORT_PASSWORD) if takes_password else _PATTERNS))
    return tuple(found)


def uri_without_secrets(uri: str) -> str:
    """Return a URI whose ``command`` parameters, and parameters named like secrets, contain none."""
    try:
        parts = urlsplit(uri)
        pairs = parse_qsl(parts.query, keep_blank_values=True, errors="surrogateescape")
        commands = iter(command_without_secrets([value for name, value in pairs if name == "command"]))
        cleaned = [
            (name, next(commands) if name == "command" else REDACTED if _PARAMETER.fullmatch(name) else value)
            for name, value in pairs
        ]
        if cleaned == pairs:
            return uri
        query = "&".join(f"{quote(name, safe='')}={quote(value, safe='[]', errors='surrogateescape')}"
                         for name, value in cleaned)  # fmt: skip
        return urlunsplit(parts._replace(query=query))
    except ValueError:
        return uri


def record_without_secrets(record: Fields) -> Fields | None:
    """Return an audit record of any form without secrets; None if it contains none."""
    values = record.values
    payload = values.get("protoPayload")
    cleaned = {**values, "protoPayload": _cleaned(payload)} if isinstance(payload, dict) else _cleaned(values)
    return None if cleaned == values else Fields(cleaned, record.location)


def _cleaned(values: dict[str, Any]) -> dict[str, Any]:
    changed = dict(values)
    for name in _URIS & values.keys():
        uri = values[name]
        if isinstance(uri, str) and "?" in uri and ("exec" in uri or "proxy" in uri):
            changed[name] = uri_without_secrets(uri)
    for name in _OBJECTS & values.keys():
        found = values[name]
        if isinstance(found, (dict, list)):
            changed[name] = REDACTED if _is_secret(values, found) else _without_secrets(found, 0)
    return changed


def _is_secret(values: dict[str, Any], found: Any) -> bool:
    """Return whether an object is a Secret, or a list of them."""
    kind = found.get("kind") if isinstance(found, dict) else None
    reference = values.get("objectRef", values.get("ObjectRef"))
    resource = reference.get("resource") if isinstance(reference, dict) else values.get("resourceName")
    named = isinstance(resource, str) and "secrets" in resource.split("/")
    return kind in ("Secret", "SecretList") or (named and kind != "Status")


def _without_secrets(value: Any, depth: int) -> Any:
    """Return a JSON value in which commands, environment variables and tokens contain no secrets."""
    if depth > MOST_DEPTH:
        return REDACTED
    if isinstance(value, list):
        return [_without_secrets(one, depth + 1) for one in value]
    if not isinstance(value, dict):
        return value
    return {name: _member(name, one, depth + 1) for name, one in value.items()}


def _member(name: str, value: Any, depth: int) -> Any:
    if name in ("command", "args") and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return list(command_without_secrets(value))
    if name == "env" and isinstance(value, list):
        return [{**one, "value": REDACTED} if isinstance(one, dict) and one.get("value") else one for one in value]
    if name == "token" and isinstance(value, str) and value:
        return REDACTED
    if name == _LAST_APPLIED and isinstance(value, str) and ("env" in value or "command" in value or "args" in value):
        return REDACTED
    return _without_secrets(value, depth)
