"""Typed access to untrusted JSON: each reader checks the type and raises only RecordError, with location and member."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, TypeVar

from ..base.errors import UsageError
from ..schemas.rules import EARLIEST_YEAR, LATEST_YEAR

INT64_MAX = 2**63 - 1
Json = TypeVar("Json", bool, dict[str, Any], list[Any])
_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:)(\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:?\d\d)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Location:
    """The position of a record: the file name as given by the user, and the line number from 1.

    ``record`` is the number, from 1, of a record in a file that is one JSON list, often on a single line.
    """

    file: str
    line: int
    record: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" + ("" if self.record is None else f" (record {self.record})")


class RecordError(UsageError):
    """A record that cannot be read.

    Attributes:
        field: the faulty member, if there is one.
        more: the other problems of the record, where they are known.
    """

    def __init__(self, location: Location, field: str | None, problem: str) -> None:
        super().__init__(f"{location}: {field}: {problem}" if field else f"{location}: {problem}")
        self.location = location
        self.field = field
        self.problem = problem
        self.more: tuple[RecordError, ...] = ()


@dataclass(frozen=True, slots=True)
class Fields:
    """One JSON object of a record. The readers return None if the member is absent, null or empty."""

    values: dict[str, Any]
    location: Location
    path: str = ""

    def fail(self, name: str, problem: str) -> NoReturn:
        """Raise RecordError for a member."""
        raise RecordError(self.location, self.path + name, problem)

    def has(self, name: str) -> bool:
        """Return whether the member is present and not null."""
        return self.values.get(name) is not None

    def text(self, name: str) -> str | None:
        """Return a string."""
        value = self.values.get(name)
        if value is None or value == "":
            return None
        return self._text(name, value)

    def first_text(self, *names: str) -> str | None:
        """Return the first string present among several members."""
        return next((value for value in map(self.text, names) if value is not None), None)

    def required_text(self, name: str) -> str:
        """Return a string that must be present."""
        value = self.text(name)
        if value is None:
            self.fail(name, "is missing")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of strings; empty if absent."""
        items = self._typed(name, list, "a list of strings") or []
        return tuple(self._text(f"{name}[{number}]", item) for number, item in enumerate(items))

    def integer(self, name: str) -> int | None:
        """Return a 64-bit integer, which may also be written as a string."""
        value = self.values.get(name)
        if value is None or value == "":
            return None
        if isinstance(value, str) and len(value) <= 20 and value.removeprefix("-").isdecimal():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(name, f"must be an integer, is {_kind(value)}")
        if not -INT64_MAX <= value <= INT64_MAX:
            self.fail(name, "does not fit into 64 bits")
        return value

    def flag(self, name: str) -> bool | None:
        """Return a boolean."""
        return self._typed(name, bool, "true or false")

    def object(self, name: str) -> Fields:
        """Return an object; empty if absent."""
        return Fields(self._typed(name, dict, "an object") or {}, self.location, f"{self.path}{name}.")

    def objects(self, name: str) -> tuple[Fields, ...]:
        """Return a list of objects; empty if absent."""
        items = self._typed(name, list, "a list of objects") or []
        if not all(isinstance(item, dict) for item in items):
            self.fail(name, "must be a list of objects")
        return tuple(Fields(item, self.location, f"{self.path}{name}[{number}].") for number, item in enumerate(items))

    def compact(self, name: str) -> str | None:
        """Return any JSON value as compact JSON text; None if absent."""
        value = self.values.get(name)
        if value is None or value == "":
            return None
        try:
            # ASCII escapes preserve lone surrogates, which UTF-8 cannot encode.
            return json.dumps(value, separators=(",", ":"), ensure_ascii=True)
        except RecursionError:
            self.fail(name, "is nested too deeply")

    def encoded(self) -> bytes:
        """Return the object as compact JSON; lone surrogates and all other text beyond ASCII are escaped."""
        try:
            return json.dumps(self.values, separators=(",", ":"), ensure_ascii=True).encode()
        except RecursionError:
            raise RecordError(self.location, None, "nested too deeply") from None

    def time(self, name: str) -> datetime | None:
        """Return an RFC 3339 time with a time zone; None also for Go's zero time, year 1.

        Digits beyond microseconds are cut. A leap second is read as the start of the next second.
        """
        if _kind(self.values.get(name)) == "a number":
            self.fail(name, "must be an RFC 3339 time, is a number")
        text = self.text(name)
        if text is None:
            return None
        found = _RFC_3339.fullmatch(text)
        if found is None:
            self.fail(name, f"{text[:64]!r} is not an RFC 3339 time")
        date, minute, second, fraction, zone = found.groups()
        if zone is None:
            self.fail(name, f"{text[:64]!r} has no time zone")
        if minute.startswith("24"):
            self.fail(name, f"{text[:64]!r} has hour 24; the next day begins at 00:00")
        leap = second == "60"
        digits = "" if leap or not fraction else f".{fraction[:6]:0<6}"
        try:
            time = datetime.fromisoformat(f"{date}T{minute}{'59' if leap else second}{digits}{zone.upper()}")
            if leap:
                time += timedelta(seconds=1)
                if (time - (time.utcoffset() or timedelta())).strftime("%H%M") != "0000":
                    self.fail(name, f"{text[:64]!r} has second 60, which is possible only at 23:59:60 UTC")
        except (ValueError, OverflowError):
            self.fail(name, f"{text[:64]!r} is not an RFC 3339 time")
        return None if time.year == 1 else self._in_range(name, time)

    def required_time(self, name: str) -> datetime:
        """Return a time that must be present."""
        time = self.time(name)
        if time is None:
            self.fail(name, "is missing")
        return time

    def unix_time(self, name: str) -> datetime | None:
        """Return a time that is given in seconds since 1970."""
        seconds = self.integer(name)
        if seconds is None:
            return None
        try:
            time = datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError, OSError):
            self.fail(name, "is not a time in seconds since 1970")
        return self._in_range(name, time)

    def _typed(self, name: str, kind: type[Json], description: str) -> Json | None:
        value = self.values.get(name)
        if value is not None and not isinstance(value, kind):
            self.fail(name, f"must be {description}, is {_kind(value)}")
        return value

    def _in_range(self, name: str, time: datetime) -> datetime:
        if not EARLIEST_YEAR <= time.year <= LATEST_YEAR:
            self.fail(name, f"year {time.year} is outside {EARLIEST_YEAR} to {LATEST_YEAR}")
        return time

    def _text(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            self.fail(name, f"must be a string, is {_kind(value)}")
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail(name, "contains a lone surrogate, which is not valid text")
        return value


def parse_object(raw: bytes, location: Location) -> Fields:
    """Parse a JSON object.

    Raises:
        RecordError: as of :func:`parse_value`, or not an object.
    """
    value = parse_value(raw, location)
    if not isinstance(value, dict):
        raise RecordError(location, None, f"must be a JSON object, is {_kind(value)}")
    return Fields(value, location)


def parse_value(raw: bytes, location: Location) -> Any:
    """Parse a JSON value.

    Raises:
        RecordError: not UTF-8, not JSON (RFC 8259, so no NaN), nested too deeply, or a repeated member.
    """
    try:
        return DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RecordError(location, None, f"not UTF-8 at byte {error.start}") from error
    except _RepeatedMemberError as error:
        raise RecordError(location, None, f"has two members of the same name: {str(error)[:640]}") from error
    except json.JSONDecodeError as error:
        raise RecordError(location, None, f"not JSON: {error.msg} at character {error.pos + 1}") from error
    except ValueError as error:
        raise RecordError(location, None, f"not JSON: {error}") from error
    except RecursionError as error:
        raise RecordError(location, None, "nested too deeply") from error


class _RepeatedMemberError(ValueError):
    """An object has two members of one name."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of an object. A repeated one is an error: programs disagree which of the two counts."""
    members = dict(pairs)
    if len(members) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise _RepeatedMemberError(", ".join(repr(name[:64]) for name in counts if counts[name] > 1))
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_members)
"""RFC 8259 and no more: no NaN, and no repeated member."""


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return kinds.get(type(value), "a number")
