"""Reading foreign JSON without trusting it: typed readers that fail with a name and a place, and in no other way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from ...schemas.rules import EARLIEST_YEAR, LATEST_YEAR

INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands: the file's name as the user gave it and the line, counted from 1.

    ``record`` counts from 1 the records of a file that holds them in a list, often all in one line.
    """

    file: str
    line: int
    record: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" + ("" if self.record is None else f" (record {self.record})")


class RecordError(ValueError):
    """A record that could not be read: ``place`` says where it stands, ``field`` the member to blame, if one is."""

    def __init__(self, place: Place, field: str | None, problem: str) -> None:
        super().__init__(f"{place}: {field}: {problem}" if field else f"{place}: {problem}")
        self.place = place
        self.field = field
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Fields:
    """One JSON object of a record. Readers return None for what is absent, null or empty."""

    values: dict[str, Any]
    place: Place
    path: str = ""

    def fail(self, name: str, problem: str) -> NoReturn:
        """Raise RecordError for a member."""
        raise RecordError(self.place, self.path + name, problem)

    def has(self, name: str) -> bool:
        """Whether the member is there and not null."""
        return self.values.get(name) is not None

    def text(self, name: str) -> str | None:
        """A text."""
        value = self.values.get(name)
        if value is None or value == "":
            return None
        return self._text(name, value)

    def required_text(self, name: str) -> str:
        """A text that must be there."""
        value = self.text(name)
        if value is None:
            self.fail(name, "is missing")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty where absent."""
        value = self.values.get(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.fail(name, f"must be a list of texts, is {_kind(value)}")
        return tuple(self._text(f"{name}[{number}]", item) for number, item in enumerate(value))

    def integer(self, name: str) -> int | None:
        """A 64-bit integer, also where the tool writes it as text."""
        value = self.values.get(name)
        if value is None or value == "":
            return None
        if isinstance(value, str) and len(value) <= 20 and value.removeprefix("-").isdecimal():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(name, f"must be an integer, is {_kind(value)}")
        if not -INT64_MAX <= value <= INT64_MAX:
            self.fail(name, "does not fit 64 bits")
        return value

    def flag(self, name: str) -> bool | None:
        """True or false."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            self.fail(name, f"must be true or false, is {_kind(value)}")
        return value

    def object(self, name: str) -> Fields:
        """An object; an empty one where absent."""
        value = self.values.get(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            self.fail(name, f"must be an object, is {_kind(value)}")
        return Fields(value, self.place, f"{self.path}{name}.")

    def objects(self, name: str) -> tuple[Fields, ...]:
        """A list of objects; empty where absent."""
        value = self.values.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.fail(name, "must be a list of objects")
        return tuple(Fields(item, self.place, f"{self.path}{name}[{number}].") for number, item in enumerate(value))

    def compact(self, name: str) -> str | None:
        """Whatever JSON value stands there, as compact JSON text; None where absent."""
        value = self.values.get(name)
        if value is None or value == "":
            return None
        try:
            # ASCII escapes keep lone surrogates, which no UTF-8 string can hold.
            return json.dumps(value, separators=(",", ":"), ensure_ascii=True)
        except RecursionError:
            self.fail(name, "is nested too deeply")

    def time(self, name: str) -> datetime | None:
        """An RFC 3339 time with a zone, to the microsecond; None also for Go's zero time, year 1."""
        text = self.text(name)
        if text is None:
            return None
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            self.fail(name, f"{text[:64]!r} is not an RFC 3339 time")
        if time.tzinfo is None:
            self.fail(name, f"{text[:64]!r} has no time zone")
        if time.year == 1:
            return None
        if not EARLIEST_YEAR <= time.year <= LATEST_YEAR:
            self.fail(name, f"year {time.year} is outside {EARLIEST_YEAR} to {LATEST_YEAR}")
        return time

    def required_time(self, name: str) -> datetime:
        """A time that must be there."""
        time = self.time(name)
        if time is None:
            self.fail(name, "is missing")
        return time

    def unix_time(self, name: str) -> datetime | None:
        """A time in whole seconds since 1970."""
        seconds = self.integer(name)
        if seconds is None:
            return None
        try:
            time = datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError, OSError):
            self.fail(name, "is not a time in seconds since 1970")
        if not EARLIEST_YEAR <= time.year <= LATEST_YEAR:
            self.fail(name, f"year {time.year} is outside {EARLIEST_YEAR} to {LATEST_YEAR}")
        return time

    def _text(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            self.fail(name, f"must be a text, is {_kind(value)}")
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail(name, "holds a lone surrogate, which is no text")
        return value


def parse_object(raw: bytes, place: Place) -> Fields:
    """Return the JSON object that the bytes are.

    Raises:
        RecordError: not UTF-8, not JSON (RFC 8259, so no NaN), nested too deeply, or no object.
    """
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise RecordError(place, None, f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise RecordError(place, None, f"not JSON: {error.msg} at character {error.pos + 1}") from error
    except ValueError as error:
        raise RecordError(place, None, f"not JSON: {error}") from error
    except RecursionError as error:
        raise RecordError(place, None, "not read: nested too deeply") from error
    if not isinstance(value, dict):
        raise RecordError(place, None, f"must be a JSON object, is {_kind(value)}")
    return Fields(value, place)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}
    return kinds.get(type(value), "a number")
