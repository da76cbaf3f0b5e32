"""Reads the values of a mapping out of one record. Wrong types are RecordErrors that name the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

from ...json_fields import Fields, Location, RecordError
from ..values import synthesized
from .expressions import EvaluationError, evaluate, holds
from .file import RFC_3339, UNIX_UNITS, Constant, IdValue, TextValue, TimeValue

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Values:
    """The values of one record.

    Attributes:
        data: the record, with what the mapping adds to it as member ``_``.
        given: the values of the mapping, by dotted name.
        lookups: the tables of the mapping.
    """

    data: Mapping[str, Any]
    given: Mapping[str, Any]
    lookups: Mapping[str, Mapping[str, str]]
    location: Location

    def of_item(self, item: Any, index: int, given: Mapping[str, Any] | None = None) -> Values:
        """Return the values for one element of a list: ``_.item`` and ``_.index``. ``given``: others to read."""
        ours = {**self.data["_"], "item": item, "index": index}
        return replace(self, data={**self.data, "_": ours}, given=self.given if given is None else given)

    def text(self, name: str) -> str | None:
        """Return a text, or None. A whole number counts as text."""
        value = self.given.get(name)
        if value is None:
            return None
        found = self._text(value.path, name) if value.path is not None else value.value
        if found is None and isinstance(value, IdValue) and value.synthesized is not None:
            parts = [part for one in value.of if (part := self._text(one, name)) is not None]
            found = synthesized(value.synthesized, *parts) if len(parts) == len(value.of) else None
        if found is not None and isinstance(value, TextValue) and value.lookup is not None:
            entry = self.lookups[value.lookup].get(found)
            if entry is None and value.default is None:
                self.fail(name, f"lookup.{value.lookup} has no entry for {found[:64]!r}")
            found = entry
        return value.default if found is None else found

    def required_text(self, name: str) -> str:
        """Return a text that the record must have."""
        text = self.text(name)
        if text is None:
            self.fail(name, "has no value in this record")
        return text

    def integer(self, name: str) -> int | None:
        """Return a whole number, or None."""
        return self._fields(name).integer(_leaf(name))

    def flag(self, name: str) -> bool | None:
        """Return true, false or None."""
        return self._fields(name).flag(_leaf(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts; empty if there is none."""
        fields = self._fields(name)
        leaf = _leaf(name)
        value = fields.values.get(leaf)
        if isinstance(value, list):
            fields = replace(fields, values={leaf: [_as_text(one) for one in value if one is not None]})
        elif isinstance(value, (str, int)):
            fields = replace(fields, values={leaf: [_as_text(value)]})
        return fields.texts(leaf)

    def time(self, name: str) -> datetime | None:
        """Return a time, or None."""
        value: TimeValue | None = self.given.get(name)
        if value is None:
            return None
        found = self.evaluate(value.path, name)
        if found is None or found == "":
            return None
        for form in value.format[:-1]:
            try:
                return self._time(name, found, form, value)
            except RecordError:
                continue
        return self._time(name, found, value.format[-1], value)

    def evaluate(self, expression: str, name: str) -> Any:
        """Return the value of an expression. ``name``: the field it is for."""
        try:
            return evaluate(expression, self.data)
        except EvaluationError as error:
            self.fail(name, str(error))

    def holds(self, expression: str, name: str) -> bool:
        """Return whether an expression is true."""
        try:
            return holds(expression, self.data)
        except EvaluationError as error:
            self.fail(name, str(error))

    def fail(self, name: str, problem: str) -> NoReturn:
        """Raise RecordError for a field."""
        raise RecordError(self.location, name, problem)

    def _text(self, expression: str, name: str) -> str | None:
        prefix, leaf = _prefix(name), _leaf(name)
        value = _as_text(self.evaluate(expression, name))
        return Fields({leaf: value}, self.location, prefix).text(leaf)

    def _fields(self, name: str) -> Fields:
        value: Constant | None = self.given.get(name)
        found = None
        if value is not None:
            found = self.evaluate(value.path, name) if value.path is not None else value.value
        return Fields({_leaf(name): found}, self.location, _prefix(name))

    def _time(self, name: str, found: Any, form: str, value: TimeValue) -> datetime | None:
        fields, leaf = Fields({_leaf(name): found}, self.location, _prefix(name)), _leaf(name)
        time: datetime | None
        if form in UNIX_UNITS:
            time = self._unix_time(name, found, UNIX_UNITS[form])
        elif form == RFC_3339:
            time = _rfc_3339(fields, leaf, value.zone)
        else:
            time = self._by_pattern(name, fields.required_text(leaf), form, value.zone)
        extra = self.evaluate(value.nanoseconds, name) if value.nanoseconds is not None else None
        if time is not None and isinstance(extra, int) and 0 <= extra < 1_000_000_000:
            time += timedelta(microseconds=extra // 1000)
        return time

    def _unix_time(self, name: str, found: Any, unit: float) -> datetime:
        if isinstance(found, str):
            try:
                found = int(found) if len(found) <= 20 else None
            except ValueError:
                found = None
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            self.fail(name, "is not a number of seconds or of parts of seconds")
        try:
            return _EPOCH + timedelta(microseconds=found * unit if unit >= 1 else found // 1000)
        except (OverflowError, ValueError):
            self.fail(name, "is outside the calendar")

    def _by_pattern(self, name: str, text: str, pattern: str, zone: str | None) -> datetime:
        try:
            time = datetime.strptime(text[:200], pattern)
        except ValueError:
            self.fail(name, f"{text[:64]!r} does not fit the format {pattern!r}")
        if time.tzinfo is None:
            if zone is None:
                self.fail(name, f"{text[:64]!r} has no time zone: give zone in the mapping")
            time = time.replace(tzinfo=ZoneInfo(zone))
        return time


def _rfc_3339(fields: Fields, leaf: str, zone: str | None) -> datetime | None:
    """Return an RFC 3339 time. With ``zone``, it may come without a zone of its own."""
    if zone is None:
        return fields.time(leaf)
    try:
        return fields.time(leaf)
    except RecordError:
        text = fields.values[leaf]
        if not isinstance(text, str):
            raise
        local = replace(fields, values={leaf: f"{text}Z"}).time(leaf)
        return None if local is None else local.replace(tzinfo=ZoneInfo(zone))


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _prefix(name: str) -> str:
    return name[: len(name) - len(_leaf(name))]
